"""Run as a script: the command line, in small pages and ranges, with more places where a test can kill it.

Says `started` on stdout once everything is imported. `MEMFERRY_FAILPOINT` may name what `memferry.failpoints` has, or
one of `x-ledger` (after every change of the ledger), `x-written` (after records went to the target, before they are
booked), `x-before-join`, `x-after-join` (around the rename that puts a file into place), `x-before-restore`,
`x-after-restore` (around the return of the previous file), `x-unlinked` (after a file beside the target was removed).
`MEMFERRY_TEST_PAUSE=x-written:3` stops at such a place instead: says `paused` and goes on after a line on stdin.
"""

from __future__ import annotations

import functools
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import Any

from memferry.backends.documents import StoreDocuments
from memferry.backends.embedded import EmbeddedTarget
from memferry.backends.jsonl import JsonlTarget
from memferry.cli.main import run
from memferry.failpoints import failpoint
from memferry.model import Limits
from memferry.phases import plan

PAGE_RECORDS, ROWS_PER_RANGE, BYTES_PER_RANGE = 20, 60, 20_000

_pause, _, _count = os.environ.get("MEMFERRY_TEST_PAUSE", "").partition(":")
_left = [int(_count or 1)]
_lock = threading.Lock()


def _here(name: str) -> None:
    failpoint(name)
    if name == _pause:
        with _lock:
            _left[0] -= 1
            if _left[0] == 0:
                sys.stdout.write("paused\n")
                sys.stdout.flush()
                sys.stdin.readline()


def _around(owner: Any, name: str, before: str | None, after: str | None) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(inner)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before:
            _here(before)
        result = inner(*arguments, **named)
        if after:
            _here(after)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    """Patches, says that it has started, and hands over."""
    plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = ROWS_PER_RANGE, BYTES_PER_RANGE  # type: ignore[misc]
    Limits.__init__.__defaults__ = (PAGE_RECORDS, 8 << 20)
    for name in ("put", "delete"):
        _around(StoreDocuments, name, None, "x-ledger")
    for target in (EmbeddedTarget, JsonlTarget):
        _around(target, "write", None, "x-written")
    _around(JsonlTarget, "_put_into_place", "x-before-join", "x-after-join")
    _around(JsonlTarget, "restore_previous", "x-before-restore", "x-after-restore")
    _around(pathlib.Path, "unlink", None, "x-unlinked")
    sys.stdout.write("started\n")
    sys.stdout.flush()
    run()


if __name__ == "__main__":
    main()
