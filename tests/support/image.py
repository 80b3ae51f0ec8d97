"""The image of operator and workers: wheels by `make image-wheels`, built from the Dockerfile by buildah."""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from testbed import cache
from testbed.kubernetes import images
from testbed.process import run_tool

__all__ = ["IMAGE", "archive"]

IMAGE: Final = "localhost/memferry:test"

_PROJECT: Final = Path(__file__).parents[2]
_CONTEXT: Final = _PROJECT / "build" / "image"
_FOLDERS: Final = ("rust", "python", "operator")
_FILES: Final = ("Cargo.toml", "Cargo.lock", "pyproject.toml", "LICENSE", "Makefile", "Dockerfile")
_EXAMPLE: Final = "examples/application_in_cluster.py"
_NOT_INPUTS: Final = {"__pycache__", "target", "tests", "build"}
_ENTRY: Final = "image-memferry"
_KEPT_SECS: Final = 86_400


def archive() -> Path:
    """The image of these sources; built where none is cached for what goes into it (a minute)."""
    return cache.cached(_ENTRY, version=_inputs_hash(), build=_build) / "image.tar"


def _build(into: Path) -> None:
    run_tool(["make", "--no-print-directory", "image-wheels"], what="building the wheels", cwd=_PROJECT)
    images.build(
        _CONTEXT,
        _CONTEXT / "Dockerfile",
        IMAGE,
        into=into / "image.tar",
        bases={images.BASE_IMAGE: images.base_archive()},
        arguments={"BASE": images.BASE_IMAGE},
    )
    for old in cache.folder().glob(f"{_ENTRY}-*"):  # a hundred megabytes for each change of the sources
        if old.stat().st_mtime < time.time() - _KEPT_SECS:
            shutil.rmtree(old, ignore_errors=True)


@functools.cache
def _inputs_hash() -> str:
    digest = hashlib.sha256(images.base_archive().parent.name.encode())
    for path in _inputs():
        digest.update(f"{path.relative_to(_PROJECT)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _inputs() -> Iterator[Path]:
    for name in (*_FILES, _EXAMPLE):
        yield _PROJECT / name
    for folder in _FOLDERS:
        for path in sorted((_PROJECT / folder).rglob("*")):
            parts = path.relative_to(_PROJECT).parts
            unwanted = _NOT_INPUTS & set(parts) or any(part.endswith(".egg-info") for part in parts)
            if path.is_file() and path.suffix not in {".so", ".pyc"} and not unwanted:
                yield path
