"""Free loopback ports that stay ours while a server is killed and started again.

A port from `bind(0)` lies in the kernel's ephemeral range: while its server is down, any outgoing connection of
the machine may take it. So ports are drawn from below that range, bound once to see that they are free, and held
by a file lock against the other test processes for as long as this process lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
import threading
from io import TextIOWrapper
from pathlib import Path

from testbed.errors import TestbedError

__all__ = ["release_port", "reserve_port"]

_LOWEST, _ABOVE_HIGHEST = 18000, 32000
_TRIES = 500

_held: dict[int, TextIOWrapper] = {}
_guard = threading.Lock()
_draw = random.SystemRandom()  # two test processes should not try the same ports


def reserve_port() -> int:
    """A loopback TCP port that nobody listens on, reserved for this process until `release_port`."""
    with _guard:
        for _ in range(_TRIES):
            port = _draw.randrange(_LOWEST, _ABOVE_HIGHEST)
            if port in _held:
                continue
            handle = _try_lock(port)
            if handle is None:
                continue
            if _is_free(port):
                _held[port] = handle
                return port
            handle.close()
    raise TestbedError(f"no free loopback port between {_LOWEST} and {_ABOVE_HIGHEST} in {_TRIES} tries")


def release_port(port: int) -> None:
    """Give a reserved port back."""
    with _guard:
        handle = _held.pop(port, None)
        if handle is not None:
            handle.close()


def _try_lock(port: int) -> TextIOWrapper | None:
    """The open, locked file that stands for `port`, or None where another process holds it."""
    locks = Path(tempfile.gettempdir()) / f"memferry-testbed-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    handle = (locks / str(port)).open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
