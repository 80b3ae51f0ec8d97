"""Debian packages that the node tier runs, in a folder of their own: nothing is installed on the machine."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from testbed import cache
from testbed.errors import TestbedError
from testbed.process import run_tool

__all__ = ["base_tree", "environment", "installed", "tool", "with_packages"]

PACKAGES = (
    "buildah",
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "debootstrap",
    "iptables",
    "nftables",
    "runc",
)
_BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_DEADLINE_SECS = 1800.0
_PLACES = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
_ALTERNATIVES = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
_UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def installed() -> Path:
    """The root of the unpacked packages, those that the machine has already left out."""
    return cache.cached("debian", version=_hash(*PACKAGES), build=_fetch)


def base_tree() -> Path:
    """The root of a minimal Debian with Python, for images; made by debootstrap (2 minutes)."""
    return cache.cached("debian-base", version=_hash(*_BASE_PACKAGES), build=_bootstrap) / "root"


def environment() -> dict[str, str | None]:
    """What lets a program find its libraries and the other programs below the root."""
    root = installed()
    libraries = _library_folders(root)
    return {
        "PATH": os.pathsep.join([*(str(root / place) for place in _PLACES), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "XTABLES_LIBDIR": os.pathsep.join(str(folder / "xtables") for folder in libraries),
    }


def tool(name: str) -> Path:
    """The path of one program, below the root or on the machine."""
    for place in _PLACES:
        for root in (installed(), Path("/")):
            if (root / place / name).exists():
                return root / place / name
    raise TestbedError(f"{name} is in no package of the node tier and not on this machine")


def with_packages(argv: Sequence[str | Path]) -> list[str | Path]:
    """A command that runs with the packages laid over /usr, in a mount namespace of its own. Needs root.

    For programs that start themselves again with an empty environment.
    """
    script = 'mount -t overlay overlay -o "lowerdir=$0/usr:/usr" /usr && exec "$@"'
    return ["unshare", "-m", "sh", "-ec", script, installed(), *argv]


def _fetch(into: Path) -> None:
    archives = into / "archives"
    (archives / "partial").mkdir(parents=True)
    # APT chooses what is missing here, and checks the signatures
    run_tool(
        [
            *("apt-get", "-y", "-q", "--no-install-recommends", "--download-only"),
            *("-o", f"Dir::Cache::archives={archives}/", "-o", "Debug::NoLocking=1"),
            *("-o", "APT::Sandbox::User=root", "install", *PACKAGES),
        ],
        what="fetching Debian packages (needs apt-get and fresh lists: apt-get update)",
        deadline_secs=_DEADLINE_SECS,
    )
    for archive in sorted(archives.glob("*.deb")):
        run_tool(["dpkg-deb", "-x", archive, into], what=f"unpacking {archive.name}")
        archive.unlink()
    for name in _ALTERNATIVES:  # links that the packages make when they are installed
        link = into / "usr" / "sbin" / name
        if not link.exists() and link.with_name("xtables-nft-multi").exists():
            link.symlink_to("xtables-nft-multi")


def _bootstrap(into: Path) -> None:
    root = into / "root"
    script = tool("debootstrap")
    share = script.parents[2] / "usr" / "share" / "debootstrap"
    mirror, suite = _mirror()
    run_tool(
        [
            *("unshare", "-m", "-p", "-f", "--kill-child", "--propagation", "private", script),
            *("--variant=minbase", f"--include={','.join(_BASE_PACKAGES)}"),
            *("--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", suite, root, mirror),
        ],
        what="making a minimal Debian by debootstrap (needs root)",
        env={"DEBOOTSTRAP_DIR": str(share)},
        deadline_secs=_DEADLINE_SECS,
    )
    for name in _UNNEEDED:
        run_tool(["find", root / name, "-mindepth", "1", "-delete"], what="dropping what an image does not need")
    for marker in (root / "usr" / "lib").glob("python3.*/EXTERNALLY-MANAGED"):
        marker.unlink()  # pip may install, as in the images of python.org
    (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")


def _mirror() -> tuple[str, str]:
    """Mirror and suite of this machine's first source."""
    for source in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = source.read_text()
        mirror = re.search(r"^URIs: *(\S+)", text, re.MULTILINE)
        suite = re.search(r"^Suites: *(\S+)", text, re.MULTILINE)
        if mirror and suite:
            return mirror[1], suite[1]
    raise TestbedError("no Debian source below /etc/apt/sources.list.d: the node tier runs on Debian 12 and newer")


def _library_folders(root: Path) -> list[Path]:
    return [folder for base in ("usr/lib", "lib") for folder in (root / base).glob("*-linux-gnu*")]


@functools.cache
def _hash(*parts: str) -> str:
    release = Path("/etc/os-release").read_bytes()
    return hashlib.sha256(release + " ".join(parts).encode()).hexdigest()[:12]
