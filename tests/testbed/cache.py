"""A folder of things that are slow to fetch or build, one sub-folder per version.

An entry appears by a rename, so it is whole or absent. A file lock per name keeps two test processes from
building the same thing twice; the kernel drops the lock when its holder dies, and what a dead builder left
half done is swept by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.errors import TestbedError

__all__ = ["cached", "folder", "locked"]


def folder() -> Path:
    """The testbed's cache folder, below the user's own; made if missing."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    path = root / "memferry-testbed"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock called `name` against every other process and thread that asks for it."""
    with _lock_path(name).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cached(name: str, *, version: str, build: Callable[[Path], None]) -> Path:
    """The cached folder for `name` at `version`, built first if it is not there.

    Args:
        name: What it is, for example `neo4j`.
        version: Anything whose change must lead to a new build, for example a release or a hash of sources.
        build: Fills the empty folder that it is given. What it leaves there must bear being renamed.

    Returns:
        A folder to read from, never to write to.
    """
    path = folder() / f"{name}-{version}"
    if path.is_dir():
        return path
    with locked(f"{name}-{version}"):
        if path.is_dir():
            return path
        for leftover in folder().glob(f".{path.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder()))
        try:
            build(scratch)
            if not any(scratch.iterdir()):
                raise TestbedError(f"the build of {path.name} left nothing in its folder")
            scratch.chmod(0o755)
            scratch.rename(path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return path


def _lock_path(name: str) -> Path:
    locks = folder() / "locks"
    locks.mkdir(exist_ok=True)
    return locks / f"{name}.lock"
