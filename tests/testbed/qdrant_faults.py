"""Faults of the Qdrant test server, by its control port."""

from __future__ import annotations

import json
import socket
from typing import Any, Literal, TypedDict, Unpack

from testbed.errors import TestbedError

__all__ = ["QdrantFaults", "Strikes"]

_DEADLINE_SECS = 30.0
_ENDLESS = 2**32


class Strikes(TypedDict, total=False):
    """Which point operations a fault strikes, unless told otherwise the next write."""

    count: int | None
    """How many; None is until `clear`."""
    skip: int
    """How many matching ones pass first."""
    collection: str
    """Only those of this collection or alias."""
    on: Literal["write", "read"]
    """Writes, changes of payload indexes among them, or reads."""


class QdrantFaults:
    """Arms faults in a running test server; they are gone after its restart.

    Args:
        port: The server's control port.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def refuse(self, **strikes: Unpack[Strikes]) -> None:
        """Answer UNAVAILABLE and apply nothing."""
        self._arm("refuse", strikes)

    def exhaust(self, *, retry_after_secs: int | None = None, **strikes: Unpack[Strikes]) -> None:
        """Answer RESOURCE_EXHAUSTED, with a retry-after if given, and apply nothing."""
        own = "" if retry_after_secs is None else f" retry-after={retry_after_secs}"
        self._arm(f"exhaust{own}", strikes)

    def delay(self, secs: float, **strikes: Unpack[Strikes]) -> None:
        """Apply after a pause."""
        self._arm(f"delay ms={round(secs * 1000)}", strikes)

    def reset_before(self, **strikes: Unpack[Strikes]) -> None:
        """Apply nothing and reset the connection."""
        self._arm("reset-before", strikes)

    def reset_after(self, **strikes: Unpack[Strikes]) -> None:
        """Apply, then reset the connection: the answer is lost."""
        self._arm("reset-after", strikes)

    def clear(self) -> None:
        """Disarm every fault."""
        self._say("clear")

    def flush(self) -> None:
        """Have every collection flushed to its files now."""
        self._say("flush")

    def status(self) -> dict[str, Any]:
        """The armed faults and the counters, as the server tells them."""
        status: dict[str, Any] = json.loads(self._say("status"))
        return status

    @property
    def struck(self) -> int:
        """How often a fault has struck since the server's start. A test that arms a fault asserts this in the end."""
        return int(self.status()["counters"]["struck"])

    def _arm(self, command: str, strikes: Strikes) -> None:
        count = strikes.get("count", 1)
        line = f"{command} count={_ENDLESS if count is None else count}"
        for name in ("skip", "collection", "on"):
            if name in strikes:
                line += f" {name}={strikes[name]}"
        self._say(line)

    def _say(self, line: str) -> str:
        with socket.create_connection(("127.0.0.1", self._port), timeout=_DEADLINE_SECS) as connection:
            connection.sendall(f"{line}\n".encode())
            with connection.makefile(encoding="utf-8") as answers:
                word, _, rest = answers.readline().rstrip("\n").partition(" ")
        if word != "ok":
            raise TestbedError(f"the Qdrant test server refused `{line}`: {rest or 'no answer'}")
        return rest
