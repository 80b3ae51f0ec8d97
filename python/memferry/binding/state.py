"""When a client may write, and what it has to acknowledge. Pure: it is told what happened and what time it is.

Two promises, whatever is delayed, lost or paused:
- while a freeze is acknowledged, no write is in flight and none starts;
- a write that is confirmed was done while this client was counted on: before anybody went on without its
  acknowledgement. One that cannot be known to is in doubt, which is an error, never a success.

Instants are seconds of a clock that also runs while the process, or the machine, is stopped.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

__all__ = ["Acknowledgement", "ClientState", "Denied", "Mode", "Permit", "Reason", "Seen"]

Mode = Literal["Serving", "Frozen"]
Reason = Literal["closed", "fenced", "unknown", "lease-lost", "unread", "contradiction", "frozen", "opening"]
"""Why nothing is written now."""


@dataclass(frozen=True)
class Seen:
    """What the status of a MemoryBinding says.

    Attributes:
        active: The MemoryBackend that serves.
        revision: Each change of mode or side has its own.
        mode: Whether clients may write.
        frozen_until: When a freeze ends by itself, as text; only told.
    """

    active: str
    revision: int
    mode: Mode
    frozen_until: str | None = None


@dataclass(frozen=True)
class Acknowledgement:
    """What is said in the client's Lease."""

    revision: int
    mode: Mode
    active: str


@dataclass(frozen=True)
class Permit:
    """A write that has begun. It names the revision it is made under.

    Attributes:
        revision: The revision.
        active: The MemoryBackend that is written to.
        term: The unbroken term of the Lease.
    """

    revision: int
    active: str
    term: float


@dataclass(frozen=True)
class Denied:
    """Nothing may be written now."""

    reason: Reason


class ClientState:
    """One client of one binding.

    Args:
        lease_secs: How long a renewal of its Lease counts.
    """

    def __init__(self, lease_secs: float) -> None:
        self._lease_secs = lease_secs
        self._seen: Seen | None = None
        self._contradicted = False
        self._valid_until = -math.inf
        self._term = math.inf
        self._read_began = -math.inf
        self._opened: str | None = None
        self._in_flight: Counter[int] = Counter()
        self._ended: Reason | None = None

    # --- what happened

    def renewed(self, began: float, now: float) -> None:
        """The Lease was renewed by a request that began at `began` and has been answered.

        It counts from the begin. Where the one before had run out, somebody may have gone on without this client: a
        new term, in which the binding is read again before anything is written.
        """
        if now >= self._valid_until:
            self._term = now
        self._valid_until = max(self._valid_until, began + self._lease_secs)

    def lost(self) -> None:
        """The Lease is gone: since when, nobody knows; what is under way is in doubt, and a new term comes next."""
        self._valid_until = -math.inf

    def saw(self, seen: Seen | None, *, read_began: float | None = None) -> bool:
        """The binding was read, or a watch told of it; whether that is news.

        What is older than what is known is not believed, nor is a status that was wiped: the operator writes it again.

        Args:
            seen: What stands there, None for a binding without status or none at all.
            read_began: When the request began; None for what a watch told, which may be late.
        """
        known = self._seen
        if seen is None or (known is not None and seen.revision < known.revision):
            return False
        if read_began is not None:
            self._read_began = max(self._read_began, read_began)
        if known is not None and seen.revision == known.revision:
            same = (seen.mode, seen.active) == (known.mode, known.active)
            self._contradicted = self._contradicted or not same
            if same:
                self._seen = seen
            return False
        self._seen, self._contradicted = seen, False
        return True

    def opened(self, active: str | None) -> None:
        """The store of this MemoryBackend is the one that is used now; None where none is."""
        self._opened = active

    def end(self, reason: Literal["closed", "fenced"]) -> None:
        """Nothing is written from now on."""
        self._ended = self._ended or reason

    # --- writes

    def begin(self, now: float) -> Permit | Denied:
        """Begins a write, or says why not."""
        reason = self.refusal(now)
        if reason is not None or self._seen is None:
            return Denied(reason or "unknown")
        self._in_flight[self._seen.revision] += 1
        return Permit(self._seen.revision, self._seen.active, self._term)

    def finish(self, permit: Permit, now: float) -> bool:
        """A write is over; whether it was done while this client was counted on."""
        self._in_flight[permit.revision] -= 1
        self._in_flight = +self._in_flight
        counted_on = now < self._valid_until and permit.term == self._term and self._ended != "fenced"
        return counted_on and self._seen is not None and permit.active == self._seen.active

    def refusal(self, now: float) -> Reason | None:
        """Why nothing may be written now; None where it may."""
        seen = self._seen
        if self._ended is not None or seen is None:
            return self._ended or "unknown"
        checks: tuple[tuple[bool, Reason], ...] = (
            (now >= self._valid_until, "lease-lost"),
            (self._read_began < self._term, "unread"),
            (self._contradicted, "contradiction"),
            (seen.mode == "Frozen", "frozen"),
            (self._opened != seen.active, "opening"),
        )
        return next((reason for failed, reason in checks if failed), None)

    # --- what is to be done

    @property
    def seen(self) -> Seen | None:
        """What the binding says, as far as is known."""
        return self._seen

    @property
    def in_flight(self) -> int:
        """Writes that have begun and are not over."""
        return self._in_flight.total()

    def unread(self, now: float) -> bool:
        """Whether the binding has to be read before anything is written, and reading it now would do."""
        return now < self._valid_until and self._read_began < self._term

    def acknowledgement(self) -> Acknowledgement | None:
        """What can be said in the Lease; None while something of an older revision is in flight or not open."""
        seen = self._seen
        if seen is None or self._contradicted or self._opened != seen.active:
            return None
        if any(revision < seen.revision for revision in self._in_flight):
            return None
        return Acknowledgement(seen.revision, seen.mode, seen.active)
