"""Container images without a container engine: packed from folders, or built from a Dockerfile by buildah."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed import cache
from testbed.kubernetes import debian
from testbed.process import run_tool

__all__ = [
    "BASE_IMAGE",
    "BUSYBOX_IMAGE",
    "PAUSE_IMAGE",
    "base_archive",
    "build",
    "busybox_archive",
    "pack",
    "pause_archive",
]

PAUSE_IMAGE = "localhost/pause:1"
BUSYBOX_IMAGE = "localhost/busybox:1"
BASE_IMAGE = "localhost/python:1"

_MEDIA = "application/vnd.oci.image"
_BUILD_DEADLINE_SECS = 1800.0
_CHUNK_BYTES = 1 << 20


def base_archive() -> Path:
    """A minimal Debian with Python and pip, as `localhost/python:1`."""
    tree = debian.base_tree()

    def make(into: Path) -> None:
        pack(
            tree,
            into / "image.tar",
            name=BASE_IMAGE,
            settings={"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"], "Cmd": ["python3"]},
        )

    return cache.cached("image-base", version=_version(tree.parent.name), build=make) / "image.tar"


def busybox_archive() -> Path:
    """A shell and small tools, as `localhost/busybox:1`."""
    return _busybox("image-busybox", BUSYBOX_IMAGE, {"Cmd": ["sh"]})


def pause_archive() -> Path:
    """What holds a pod's namespaces, as `localhost/pause:1`."""
    return _busybox("image-pause", PAUSE_IMAGE, {"Entrypoint": ["/bin/busybox", "sleep", "2147483647"]})


def build(
    context: Path,
    dockerfile: Path,
    name: str,
    *,
    into: Path,
    bases: Mapping[str, Path],
    arguments: Mapping[str, str] | None = None,
) -> Path:
    """Build an image from a Dockerfile.

    Args:
        context: The folder that COPY sees.
        dockerfile: The Dockerfile.
        name: The image's, with a tag.
        into: The archive to write, for `NodeTier.load_image`.
        bases: Archive of every image that a FROM names; nothing is pulled.
        arguments: For ARG.

    Returns:
        The archive.
    """
    with tempfile.TemporaryDirectory(prefix="memferry-buildah-") as scratch:
        folder = Path(scratch)
        policy = folder / "policy.json"
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        registries = folder / "registries.conf"
        registries.write_text("")
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder / "root"}"\nrunroot = "{folder / "run"}"\n'
        )
        environment: dict[str, str | None] = {"HOME": scratch, "TMPDIR": scratch, "XDG_RUNTIME_DIR": scratch}
        environment |= {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_REGISTRIES_CONF": str(registries)}

        def buildah(*argv: str | Path, what: str) -> str:
            inside = debian.with_packages(["buildah", *argv])
            return run_tool(inside, what=what, env=environment, deadline_secs=_BUILD_DEADLINE_SECS)

        trust: list[str | Path] = ["--signature-policy", policy]
        for base, archive in bases.items():
            pulled = buildah("pull", *trust, f"oci-archive:{archive}", what=f"reading {archive.name}").split()[-1]
            buildah("tag", pulled, base, what=f"naming {base}")
        options = [part for key, value in (arguments or {}).items() for part in ("--build-arg", f"{key}={value}")]
        fixed: list[str | Path] = [
            "--isolation",
            "chroot",
            "--pull-never",
            "--format",
            "oci",
            "--file",
            dockerfile,
            "--tag",
            name,
        ]
        buildah("bud", *fixed, *trust, *options, context, what=f"building {name}")
        into.unlink(missing_ok=True)
        buildah("push", *trust, name, f"oci-archive:{into}:{name}", what=f"writing {name}")
    return into


def pack(tree: Path, into: Path, *, name: str, settings: Mapping[str, Any]) -> Path:
    """Write a folder as an image of one layer; the same bytes for the same files.

    Args:
        tree: The folder; everything in it belongs to root in the image.
        into: The archive to write.
        name: The image's, with a tag.
        settings: The image's configuration: `Env`, `Cmd`, `Entrypoint`, `User`, `WorkingDir`.

    Returns:
        The archive.
    """
    with tempfile.TemporaryDirectory(prefix="memferry-image-", dir=into.parent) as scratch:
        layer = Path(scratch) / "layer.tar"
        with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(tree.rglob("*")):
                if not _is_special(path):
                    tar.add(path, arcname=path.relative_to(tree), recursive=False, filter=_normalized)
        with layer.open("rb") as content:
            layer_hash = hashlib.file_digest(content, "sha256").hexdigest()
        root = {"type": "layers", "diff_ids": [f"sha256:{layer_hash}"]}
        configuration = {"architecture": "amd64", "os": "linux", "config": dict(settings), "rootfs": root}
        blobs = [_json(configuration | {"created": "1970-01-01T00:00:00Z"})]
        layer_entry = {
            "mediaType": f"{_MEDIA}.layer.v1.tar",
            "digest": f"sha256:{layer_hash}",
            "size": layer.stat().st_size,
        }
        manifest = {"config": _entry(blobs[0], "config.v1+json"), "layers": [layer_entry]}
        blobs.append(_json(manifest | {"schemaVersion": 2, "mediaType": f"{_MEDIA}.manifest.v1+json"}))
        names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
        index = {"manifests": [_entry(blobs[1], "manifest.v1+json") | {"annotations": names}]}
        with tarfile.open(into, "w") as out:
            _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
            _add(out, "index.json", _json(index | {"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json"}))
            for blob in blobs:
                _add(out, f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
            out.add(layer, arcname=f"blobs/sha256/{layer_hash}", filter=_normalized)
    return into


def _busybox(entry: str, name: str, settings: Mapping[str, Any]) -> Path:
    busybox = debian.tool("busybox")

    def make(into: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="memferry-busybox-") as scratch:
            tree = Path(scratch)
            for folder in ("bin", "tmp", "root"):
                (tree / folder).mkdir()
            (tree / "tmp").chmod(0o1777)
            shutil.copy2(busybox, tree / "bin" / "busybox")
            for applet in run_tool([busybox, "--list"], what="asking busybox for its tools").split():
                if applet != "busybox":
                    (tree / "bin" / applet).symlink_to("busybox")
            pack(tree, into / "image.tar", name=name, settings={"Env": ["PATH=/bin"], **settings})

    return cache.cached(entry, version=_version(debian.installed().name), build=make) / "image.tar"


def _version(source: str) -> str:
    """Changes with the source and with this module."""
    return hashlib.sha256(source.encode() + Path(__file__).read_bytes()).hexdigest()[:12]


def _is_special(path: Path) -> bool:
    return not (path.is_symlink() or path.is_file() or path.is_dir())


def _normalized(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _entry(blob: bytes, kind: str) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    return {"mediaType": f"{_MEDIA}.{kind}", "digest": digest, "size": len(blob)}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
