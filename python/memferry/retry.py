"""The one layer that tries again: a typed transient error, with the wait the store asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import stamina

from memferry.errors import MemferryError, TransientError

__all__ = ["give_up_on", "retrying"]

ATTEMPTS: Final = 40
"""So many that the deadline decides: a server takes its time to come back."""
DEADLINE_SECS: Final = 120.0
LONGEST_WAIT_SECS: Final = 60.0
"""The longest that a store can ask for; then it is asked again. Nobody can end a wait but by a second signal."""

T = TypeVar("T")

_stop = threading.Event()


def give_up_on(stop: threading.Event) -> None:
    """Has no try follow another once the process was asked to end."""
    global _stop  # noqa: PLW0603 - signals are the process's too
    _stop = stop


def _wait(error: Exception) -> bool | float:
    if isinstance(error, TransientError) and not _stop.is_set():
        return min(error.retry_after_secs, LONGEST_WAIT_SECS) if error.retry_after_secs else True
    return False


def retrying(work: Callable[[], T]) -> T:
    """Does `work`, again after transient errors, with growing waits or the one the store asked for.

    Args:
        work: Must be safe to do twice.

    Raises:
        TransientError: The last one, when attempts or time ran out.
        MemferryError: `interrupted`, where it would have been tried again.
    """
    try:
        for attempt in stamina.retry_context(on=_wait, attempts=ATTEMPTS, timeout=DEADLINE_SECS):
            with attempt:
                return work()
    except TransientError as error:
        if _stop.is_set():
            raise MemferryError("interrupted", f"interrupted: {error}", hint="the same command resumes") from error
        raise
    raise AssertionError  # The last attempt returns or raises.
