"""Run as a script: the command line, with bounds that a test sets and places where it can be stopped for a while.

The environment, each variable optional: `MEMFERRY_TEST_PAGE` (records a page) and `MEMFERRY_TEST_RANGE` (rows a range),
`MEMFERRY_TEST_RETRY_SECS`, `MEMFERRY_TEST_LEASE_SECS`, `MEMFERRY_TEST_HOST` (what this host is called), and
`MEMFERRY_TEST_PAUSE=committed:3`: the third time it passes that place it says `paused` on stdout and goes on after a
line on stdin. Places are the failpoints, `start` (before it does anything), and `plan`, `copy`, `verify`: after a page
of that phase.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from memferry import locks, retry
from memferry.cli import main
from memferry.cli import progress as talk
from memferry.failpoints import failpoint
from memferry.model import Limits
from memferry.phases import plan

_pause, _, _count = os.environ.get("MEMFERRY_TEST_PAUSE", "").partition(":")
_left = [int(_count or 1)]
_lock = threading.Lock()


def _here(name: str) -> None:
    failpoint(name)
    if name != _pause:
        return
    with _lock:
        _left[0] -= 1
        if _left[0] == 0:
            os.write(1, b"paused\n")
            os.read(0, 1)


def _everywhere(name: str, old: Any, new: Any) -> None:
    """Replaces what modules have taken from another one by name."""
    for module in [module for key, module in sys.modules.items() if key.startswith("memferry.")]:
        if vars(module).get(name) is old:
            setattr(module, name, new)


def _number(name: str, usual: float) -> float:
    return float(os.environ.get(f"MEMFERRY_TEST_{name}", usual))


def _patch() -> None:
    rows = int(_number("RANGE", 100))
    plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = rows, rows * 250  # type: ignore[misc]
    Limits.__init__.__defaults__ = (int(_number("PAGE", 20)), 8 << 20)
    retry.DEADLINE_SECS = _number("RETRY_SECS", retry.DEADLINE_SECS)  # type: ignore[misc]
    retry.ATTEMPTS = 1000  # type: ignore[misc]
    lease = locks.LEASE_SECS
    _everywhere("LEASE_SECS", lease, _number("LEASE_SECS", lease))
    host = os.environ.get("MEMFERRY_TEST_HOST")
    if host:
        socket.gethostname = lambda: host
    _everywhere("failpoint", failpoint, _here)
    inner = talk.show_progress

    @contextmanager
    def show_progress(
        *, quiet: bool, events: talk.Events | None = None
    ) -> Iterator[Callable[[str, int, int | None], None]]:
        with inner(quiet=quiet, events=events) as shown:

            def progress(phase: str, done: int, total: int | None) -> None:
                shown(phase, done, total)
                _here(phase)

            yield progress

    _everywhere("show_progress", inner, show_progress)


if __name__ == "__main__":
    _patch()
    _here("start")
    main.run()
