"""The one layer that tries again: a typed transient error, with the wait the store asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import stamina

from memferry.errors import TransientError

__all__ = ["retrying"]

ATTEMPTS: Final = 40
"""So many that the deadline decides: a server takes its time to come back."""
DEADLINE_SECS: Final = 120.0

T = TypeVar("T")


def _wait(error: Exception) -> bool | float:
    if isinstance(error, TransientError):
        return error.retry_after_secs or True
    return False


def retrying(work: Callable[[], T]) -> T:
    """Does `work`, again after transient errors, with growing waits or the one the store asked for.

    Args:
        work: Must be safe to do twice.

    Raises:
        TransientError: The last one, when attempts or time ran out.
    """
    for attempt in stamina.retry_context(on=_wait, attempts=ATTEMPTS, timeout=DEADLINE_SECS):
        with attempt:
            return work()
    raise AssertionError  # The last attempt returns or raises.
