"""Named places where a test can kill the process. Nothing happens unless `MEMFERRY_FAILPOINT` names one.

`MEMFERRY_FAILPOINT=booked:3` kills the process with SIGKILL the third time it passes `booked`.
"""

from __future__ import annotations

import os
import signal
import threading

__all__ = ["arm", "failpoint"]

_name = ""
_left = 0
_lock = threading.Lock()


def arm(place: str) -> None:
    """Chooses the place, as in `booked:3`; nothing if empty."""
    global _name, _left  # noqa: PLW0603 - a process has one death
    _name, _, count = place.partition(":")
    _left = int(count or 1)


def failpoint(name: str) -> None:
    """Kills the process here, if a test asked for it."""
    global _left  # noqa: PLW0603 - a countdown of the process
    if name != _name:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("MEMFERRY_FAILPOINT", ""))
