"""Who may write for a migration: one run, or the workers of its shards. Locks have a lease, an order and a token.

A run that a person started takes the one lock `lock`. Workers of a `MemoryMigration` take it too, for what one of them
does alone, or a lock of their shard. Their tokens are ordered by attempt and number: a later one ends an earlier one,
never the other way round. Where data and ledger share a transaction, whoever lost its token writes nothing more. Where
they do not, writes are awaited for less time than a token lives, and who takes over waits for as long.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Final, TypeVar

from memferry.backends.api import LOCK, SHARD_LOCKS, WRITE_SECS, Documents, Target
from memferry.errors import MemferryError, RefusedError, StoreError, TransientError
from memferry.retry import retrying

__all__ = ["LEASE_SECS", "Claim", "Holder", "Lock", "parsed"]

LEASE_SECS: Final = 60.0
"""How long a run on another host is believed to be alive after its last sign."""

_SCAN: Final = 500
_HELD: Final[set[str]] = set()
"""Tokens of the locks that this process holds."""

T = TypeVar("T")


def parsed(what: str, text: str, read: Callable[[Any], T]) -> T:
    """Reads JSON that memferry wrote and that somebody may have damaged.

    Args:
        what: What it is, for the error.
        text: The JSON.
        read: Makes something of the value.

    Raises:
        StoreError: `store-corrupt`.
    """
    try:
        return read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"[:200]
        raise StoreError("store-corrupt", f"{what} in the ledger cannot be read: {told}") from error


@dataclass(frozen=True)
class Claim:
    """For whom a worker takes a lock.

    Attributes:
        uid: Of the `MemoryMigration`.
        attempt: Its attempt, from 1.
        shard: The shard, None for what is done by one worker alone.
    """

    uid: str
    attempt: int
    shard: int | None = None


@dataclass(frozen=True)
class Holder:
    """Who holds the lock of a migration.

    Attributes:
        host: Its host.
        pid: Its process there.
        alive: Whether it is believed to be at work.
        silent_secs: Time since its last sign.
    """

    host: str
    pid: int
    alive: bool
    silent_secs: float


def _started(pid: int) -> str | None:
    """Start time of a process that is at work, so that a reused pid is not taken for it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rsplit(")", 1)[-1].split()
    state, threads, started = fields[0], int(fields[17]), fields[19]
    # Ended, and its parent has not asked yet how: in a container that may be for ever.
    over = state in ("Z", "X") and threads <= 1
    return None if over else started


def _processes() -> str | None:
    """Names the space in which this process's id means something: hosts and containers may share a name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _alive(lock: dict[str, Any]) -> bool:
    if not lock["token"]:
        return False  # Given back.
    here = lock["host"] == socket.gethostname() and lock.get("processes") == _processes()
    if here and lock["pid"] == os.getpid() and lock["token"] not in _HELD:
        return False  # An earlier run of this process that could not give the lock back.
    if here and lock["started"] is not None:
        return bool(_started(lock["pid"]) == lock["started"])
    # Its processes cannot be seen from here: what it said last counts.
    return bool(lock["expires"] > time.time())


def _claim(lock: dict[str, Any]) -> tuple[str, int, int] | None:
    """Uid, attempt and number of a worker's lock."""
    claim = lock.get("claim")
    return None if claim is None else (str(claim["uid"]), index(claim["attempt"]), index(claim["number"]))


class Lock:
    """A lock of one migration.

    Args:
        documents: The ledger's documents.
        migration: The migration.
        claim: For whom, where it is a worker's.

    Attributes:
        number: Number of the token among those of this lock; the first of an attempt is 1.
    """

    def __init__(self, documents: Documents, migration: str, claim: Claim | None = None) -> None:
        self._documents = documents
        self.migration = migration
        self._claim = claim
        self._token = secrets.token_hex(8)
        self._name = LOCK if claim is None or claim.shard is None else f"{SHARD_LOCKS}{claim.shard:06d}"
        self._fences = True
        self._renewed = 0.0
        self.number = 1

    def acquire(self, target: Target) -> None:
        """Takes the lock.

        Raises:
            RefusedError: `busy`, saying who holds it.
            StoreError: `fenced`, where a later attempt has it.
        """
        self._fences = target.fences
        with target.transaction():
            own, others = self._read(self._name), self._others()
            left_secs = 0.0
            for name, lock in [(self._name, own), *others.items()]:
                left_secs = max(left_secs, self._judge(name, lock)) if lock is not None else left_secs
            if self._name == LOCK:
                for name, lock in others.items():
                    self._close(name, lock)
            self.number = self._next(own)
            self._put_lock()
            _HELD.add(self._token)
        if left_secs and not self._fences:
            # It sees our token before its next page. The one it is writing now is over by then.
            time.sleep(min(left_secs, WRITE_SECS))

    def close_shards(self, count: int) -> None:
        """Makes the locks of shards that nobody holds; called inside the transaction of the plan that fixes them."""
        for shard in range(count):
            name = f"{SHARD_LOCKS}{shard:06d}"
            self._close(name, self._read(name))

    def _others(self) -> dict[str, dict[str, Any]]:
        """The locks that ours excludes."""
        if self._name != LOCK:
            lock = self._read(LOCK)
            return {} if lock is None else {LOCK: lock}
        names, after = [], ""
        while True:
            rows = self._documents.scan(self.migration, SHARD_LOCKS, after, _SCAN)
            # Neo4j has a lock several times.
            names += [key for key, text in rows if text is not None and key.count("/") == 1]
            if len(rows) < _SCAN:
                break
            after = rows[-1][0]
        found = ((name, self._read(name)) for name in names)
        return {name: lock for name, lock in found if lock is not None}

    def _judge(self, name: str, lock: dict[str, Any]) -> float:
        """Refuses what may not be taken over; for how long its holder is still believed to be alive."""
        if lock["token"] == self._token:
            return 0.0  # Taken by a try whose answer was lost.
        alive, theirs = _alive(lock), _claim(lock)
        if self._claim is not None and theirs is not None and theirs[0] == self._claim.uid:
            if theirs[1] > self._claim.attempt:
                raise StoreError(
                    "fenced",
                    f"attempt {theirs[1]} of migration {self.migration} has begun; this is attempt "
                    f"{self._claim.attempt}, which stops",
                )
            # What one worker does alone is not ended by a shard of the same attempt.
            if self._name in (name, LOCK) or theirs[1] < self._claim.attempt:
                here = lock["host"] == socket.gethostname() and lock.get("processes") == _processes()
                gone = here and not alive
                return 0.0 if gone or not lock["token"] else max(0.0, lock["expires"] - time.time())
        if alive:
            raise RefusedError(
                "busy",
                f"migration {self.migration} is being run by process {lock['pid']} on {lock['host']}",
                hint="wait for it, or stop it; its work is kept",
            )
        return 0.0

    def _next(self, lock: dict[str, Any] | None) -> int:
        theirs = None if lock is None else _claim(lock)
        same = theirs is not None and self._claim is not None and theirs[:2] == (self._claim.uid, self._claim.attempt)
        return theirs[2] + 1 if same and theirs is not None else 1

    def _close(self, name: str, lock: dict[str, Any] | None) -> None:
        """Ends whoever has a lock, and keeps its order."""
        closed = dict(lock or self._document())
        if self._claim is not None:
            closed["claim"] = {"uid": self._claim.uid, "attempt": self._claim.attempt, "number": 0}
        self._documents.put(self.migration, name, json.dumps({**closed, "token": "", "expires": 0.0}))

    def renew(self) -> None:
        """Says that this run is alive."""
        self._put_lock()

    @contextmanager
    def held(self, target: Target) -> Iterator[None]:
        """Holds the lock while a block is at work, however long that is.

        Raises:
            RefusedError: `busy`, saying who holds it.
            StoreError: `fenced`, where a later attempt has it.
        """
        retrying(lambda: self.acquire(target))
        try:
            with self.kept_alive(target):
                yield
        finally:
            self.release()

    @contextmanager
    def kept_alive(self, target: Target) -> Iterator[None]:
        """Renews the lock all the time, from a thread of its own."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(LEASE_SECS / 4):
                try:
                    with target.transaction():
                        self.check()
                        self.renew()
                except TransientError:
                    continue
                except MemferryError:
                    return  # The next page or step meets the same error and reports it.

        thread = threading.Thread(target=beat, name="memferry-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _document(self) -> dict[str, Any]:
        lock: dict[str, Any] = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "started": _started(os.getpid()),
            "expires": time.time() + LEASE_SECS,
        }
        if self._claim is not None:
            lock["claim"] = {"uid": self._claim.uid, "attempt": self._claim.attempt, "number": self.number}
        return lock

    def _put_lock(self) -> None:
        renewed = time.monotonic()
        self._documents.put(self.migration, self._name, json.dumps(self._document()))
        self._renewed = renewed

    def _read(self, name: str) -> dict[str, Any] | None:
        text = self._documents.get(self.migration, name)

        def read(lock: Any) -> dict[str, Any]:
            _alive(lock), _claim(lock)
            return dict(lock)

        return None if text is None else parsed("the lock", text, read)

    def holder(self) -> Holder | None:
        """Who holds the lock, None where nobody does."""
        text = self._documents.get(self.migration, self._name)
        if text is None:
            return None

        def read(lock: Any) -> Holder | None:
            if lock["token"] == "":
                return None
            silent_secs = max(0.0, time.time() - (float(lock["expires"]) - LEASE_SECS))
            if not isinstance(lock["host"], str):
                raise TypeError(f"no text: {lock['host']!r}")
            return Holder(lock["host"], index(lock["pid"]), _alive(lock), round(silent_secs, 1))

        return parsed("the lock", text, read)

    def check(self) -> None:
        """Stops a late writer; called inside every page's transaction.

        Raises:
            StoreError: `fenced`, when another run took the lock.
        """
        text = self._documents.get(self.migration, self._name)
        if text is None or parsed("the lock", text, lambda lock: lock["token"]) != self._token:
            raise StoreError("fenced", f"another run has taken migration {self.migration} over; this one stops")
        if not self._fences and time.monotonic() - self._renewed > LEASE_SECS - WRITE_SECS:
            # Nobody took it yet. A write that is begun now must be over while it is ours.
            self._put_lock()

    def release(self) -> None:
        """Gives the lock back, if it is still ours."""
        _HELD.discard(self._token)
        # Where it cannot be given back, the end of this process or of the lease does it.
        with suppress(MemferryError):
            self.check()
            if self._claim is None:
                self._documents.delete(self.migration, LOCK)
            else:
                given = {**self._document(), "token": "", "expires": 0.0}
                self._documents.put(self.migration, self._name, json.dumps(given))
