"""Who keeps a database locked, as far as the operating system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from memferry.errors import TransientError

__all__ = ["naming_holder"]

_LOCKS: Final = Path("/proc/locks")
"""One lock a line: number, sort, strictness, READ or WRITE, process, device:inode, first and last byte."""


@contextmanager
def naming_holder(path: Path) -> Iterator[None]:
    """Adds to a `store-locked` error which process it is, so that a person knows what to close."""
    try:
        yield
    except TransientError as error:
        holder = _holder(path) if error.code == "store-locked" else None
        if holder is None:
            raise
        raise TransientError(error.code, f"{path}: the database is locked by {holder}") from error


def _holder(path: Path) -> str | None:
    """The process with a lock on the database, or on the shared memory of its WAL; a writer before a reader."""
    files = set()
    for suffix in ("", "-shm"):
        try:
            status = path.with_name(path.name + suffix).stat()
        except OSError:
            continue
        files.add(f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}")
    try:
        lines = _LOCKS.read_text("utf-8").splitlines()
    except OSError:
        return None  # Not Linux.
    # A blocked lock has an arrow after its number, which moves the columns.
    locks = [line.split() for line in lines if "->" not in line]
    others = sorted(
        (sort == "READ", int(pid))
        for _, _, _, sort, pid, file, *_ in locks
        if file in files and int(pid) not in {os.getpid(), -1}
    )
    return _named(others[0][1]) if others else None


def _named(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return f"process {pid}"
    return f"process {pid} ({name})"
