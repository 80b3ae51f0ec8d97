"""The only place of the testbed that waits by polling."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.errors import TestbedError

__all__ = ["EVENTUALLY_SECS", "until"]

EVENTUALLY_SECS = 90.0
"""Bounds a wait in vain, promises nothing: controllers whose API server was away stay away for half a minute more."""

T = TypeVar("T")


def until(
    check: Callable[[], T | None],
    *,
    what: str,
    deadline_secs: float = EVENTUALLY_SECS,
    first_interval_secs: float = 0.02,
    longest_interval_secs: float = 0.5,
) -> T:
    """Call `check` until it returns something that is true.

    Args:
        check: Returns a false value for "not yet"; what it raises ends the wait at once.
        what: Names the awaited thing in the error.
        deadline_secs: How long to wait; `check` runs at least once; given where it is promised, or too short.
        first_interval_secs: Pause after the first try; it doubles from there.
        longest_interval_secs: Longest pause between two tries.

    Returns:
        What `check` returned.

    Raises:
        TestbedError: The deadline passed.
    """
    ends_at = time.monotonic() + deadline_secs
    interval = first_interval_secs
    while True:
        found = check()
        if found:
            return found
        left = ends_at - time.monotonic()
        if left <= 0:
            raise TestbedError(f"{what}: not there after {deadline_secs:g} s")
        time.sleep(min(interval, left))
        interval = min(interval * 2, longest_interval_secs)
