"""Transactions of a target, one a thread, and the order in which they commit.

Why it is built this way: `docs/adr/0005-neo4j-commits-in-turn.md`. A new relationship is hung into the chains of its
two nodes when its transaction commits, not before: only then are the nodes and the neighbours in their chains locked
for others. So transactions that create relationships may run side by side, whatever ends they share, as long as they
commit one after another. Whatever locks a node while it runs (`MERGE` or `DELETE` of a relationship) has its turn from
there on to its end.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from memferry.backends.neo4j.connection import Connection, guard, unprinted
from memferry.errors import TransientError

if TYPE_CHECKING:
    import neo4j

__all__ = ["SLOTS", "Transactions"]

SLOTS: Final = 8
"""Transactions at a time that can look at a migration's lock without waiting for each other."""

_TURN_SECS: Final = 120.0
"""Longer than any commit. It ends what the server cannot see: a wait for a turn whose holder waits for us."""


@dataclass
class _Open:
    """A transaction at work.

    Attributes:
        transaction: The driver's.
        slot: Number among those that are open; the lowest free one.
        joins: It has made relationships, so it commits in turn.
        in_turn: It has its turn already.
        committed: Called once it is durable.
    """

    transaction: neo4j.Transaction
    slot: int
    joins: bool = False
    in_turn: bool = False
    committed: list[Callable[[], None]] = field(default_factory=list)


class Transactions:
    """Opens, runs and commits.

    Attributes:
        deadlocks: Transactions that the server ended because they waited for each other.
        doubtful: A transaction has failed in a way that may have come after its commit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._local = threading.local()
        self._turn = threading.Lock()
        self._slots_lock = threading.Lock()
        self._free: list[int] = []
        self._slots = 0
        self.deadlocks = 0
        self.doubtful = False

    @property
    def _open(self) -> _Open | None:
        return getattr(self._local, "open", None)

    @property
    def slot(self) -> int | None:
        """Number of this thread's transaction, None outside of one."""
        return None if self._open is None else self._open.slot

    @contextmanager
    def open(self) -> Iterator[None]:
        """A transaction of this thread: all that it runs, or nothing; the server rolls back what a kill left."""
        slot = self._take_slot()
        opened: _Open | None = None
        session: neo4j.Session | None = None
        try:
            with guard():
                session = self._connection.session(read_only=False)
                opened = _Open(self._connection.begin(session), slot)
            self._local.open = opened
            yield
            if opened.joins:
                self.take_turn()
            with guard():
                opened.transaction.commit()
            for call in opened.committed:
                call()
        except TransientError as error:
            self.doubtful = True
            self.deadlocks += "DeadlockDetected" in str(error)
            raise
        finally:
            self._local.open = None
            # What goes wrong from here on has been raised already.
            with contextlib.suppress(Exception):
                if opened is not None:
                    opened.transaction.close()
            with contextlib.suppress(Exception):
                if session is not None:
                    session.close()
            if opened is not None and opened.in_turn:
                self._turn.release()
            self._give_slot(slot)

    def run(self, text: str, *, writes: bool = True, **parameters: Any) -> list[list[Any]]:
        """Runs a statement in this thread's transaction, or in one of its own; its rows."""
        if self._open is not None:
            with guard():
                return self._open.transaction.run(text, unprinted(parameters)).values()
        return (self._connection.write if writes else self._connection.read)(text, **parameters)

    def take_turn(self) -> None:
        """Called before a statement that locks nodes others may create relationships at; kept to the end."""
        opened = self._open
        if opened is None or opened.in_turn:
            return
        if not self._turn.acquire(timeout=_TURN_SECS):
            raise TransientError("unavailable", f"Neo4j: no turn to commit in {_TURN_SECS:.0f} s")
        opened.in_turn = True

    def joins(self) -> None:
        """Called before a statement that creates relationships: the transaction will commit in turn."""
        if self._open is not None:
            self._open.joins = True

    def when_committed(self, call: Callable[[], None]) -> None:
        """Calls once this thread's transaction is durable; at once outside of one."""
        if self._open is None:
            call()
        else:
            self._open.committed.append(call)

    def _take_slot(self) -> int:
        with self._slots_lock:
            if self._free:
                return heapq.heappop(self._free)
            self._slots += 1
            return self._slots - 1

    def _give_slot(self, slot: int) -> None:
        with self._slots_lock:
            heapq.heappush(self._free, slot)
