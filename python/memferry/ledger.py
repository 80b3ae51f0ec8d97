"""What is durably done, in the target or beside it: plan, run, ranges, quarantine, conflicts, saved originals, lock."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, Final, TypeVar

from memferry.backends.api import Documents, Target
from memferry.errors import MemferryError, RefusedError, StoreError, TransientError
from memferry.model import Books, Quarantined

__all__ = ["LEDGER_FORMAT", "Holder", "Ledger", "RangeState", "parsed"]

LEDGER_FORMAT: Final = 1
LEASE_SECS: Final = 60.0
"""How long a run on another host is believed to be alive after its last sign."""

_SCAN: Final = 500
_OF_A_RUN: Final = ("range/", "quarantine/", "moved/", "conflict/", "joined", "rest", "base", "report")
"""What a new run forgets."""


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


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"no text: {value!r}")
    return value


@dataclass
class RangeState:
    """What is done of one range.

    Attributes:
        cursor: Where to go on.
        done: Whether it is complete.
        page: Pages so far.
        books: Counts so far.
    """

    cursor: str | None = None
    done: bool = False
    page: int = 0
    books: Books = field(default_factory=Books)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {"cursor": self.cursor, "done": self.done, "page": self.page, "books": self.books.to_json()},
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> RangeState:
        """Reads what `to_json` wrote.

        Raises:
            StoreError: `store-corrupt`.
        """
        return parsed("the state of a range", text, cls._of)

    @classmethod
    def _of(cls, value: Any) -> RangeState:
        cursor = None if value["cursor"] is None else _text(value["cursor"])
        return cls(cursor, bool(value["done"]), index(value["page"]), Books.from_json(value["books"]))


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
    """Start time of a process, so that a reused pid is not taken for it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return text.rsplit(")", 1)[-1].split()[19]


def _processes() -> str | None:
    """Names the space in which this process's id means something: hosts and containers may share a name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


class Ledger:
    """The ledger of one migration."""

    def __init__(self, documents: Documents, migration: str) -> None:
        self._documents = documents
        self.migration = migration
        self._token = secrets.token_hex(8)

    # --- run and plan

    def run(self) -> dict[str, Any] | None:
        """The latest run, None before the first.

        Raises:
            RefusedError: `format-newer`.
            StoreError: `store-corrupt`.
        """
        text = self._documents.get(self.migration, "run")
        if text is None:
            return None

        def read(run: Any) -> dict[str, Any]:
            if index(run["format"]) <= LEDGER_FORMAT:
                return {**run, "number": index(run["number"]), "state": _text(run["state"])}
            raise RefusedError("format-newer", f"ledger format {run['format']}, this memferry knows {LEDGER_FORMAT}")

        return parsed("the run", text, read)

    def save_run(self, **changes: Any) -> dict[str, Any]:
        """Changes fields of the run document."""
        run = {**(self.run() or {"format": LEDGER_FORMAT}), **changes}
        self._documents.put(self.migration, "run", json.dumps(run))
        return run

    def start_run(self, plan: str, **fields: Any) -> None:
        """Begins a run: forgets the ranges of the one before, keeps saved originals."""
        for prefix in _OF_A_RUN:
            self._documents.delete(self.migration, prefix)
        self._documents.put(self.migration, "plan", plan)
        number = (self.run() or {"number": 0})["number"] + 1
        self.save_run(number=number, state="copying", **fields)

    def plan(self) -> str | None:
        """The plan the run is bound to."""
        return self._documents.get(self.migration, "plan")

    def save_report(self, report: str) -> None:
        """Keeps the final object of a run."""
        self._documents.put(self.migration, "report", report)

    def report(self) -> str | None:
        """The final object of the last run that came to its end."""
        return self._documents.get(self.migration, "report")

    def forget(self) -> None:
        """Drops everything of this migration but the run document."""
        for prefix in (
            "range/",
            "quarantine/",
            "moved/",
            "conflict/",
            "saved/",
            "plan",
            "previous",
            "joined",
            "rest",
            "base",
            "created",
            "report",
        ):
            self._documents.delete(self.migration, prefix)

    # --- ranges

    def range_state(self, number: int) -> RangeState:
        """State of a range; a new one where nothing is done."""
        text = self._documents.get(self.migration, f"range/{number:06d}")
        return RangeState() if text is None else RangeState.from_json(text)

    def save_range(self, number: int, state: RangeState) -> None:
        """Writes the state of a range, inside the transaction of its page."""
        self._documents.put(self.migration, f"range/{number:06d}", state.to_json())

    def books(self) -> Books:
        """Counts over all ranges, and what was moved out of quarantine afterwards."""
        books = Books()
        for _, text in self._scan("range/"):
            books.add(RangeState.from_json(text).books)
        for _, text in self._scan("moved/"):
            books.add(parsed("the books of a retry", text, Books.from_json))
        return books

    def ranges_done(self) -> int:
        """How many ranges are complete."""
        return sum(RangeState.from_json(text).done for _, text in self._scan("range/"))

    # --- quarantine, conflicts, originals

    def quarantine(self, number: int, page: int, rows: list[Quarantined]) -> None:
        """Keeps rows that could not be moved. The same page again writes the same documents."""
        for i, row in enumerate(rows):
            value = {**row._asdict(), "raw": base64.b64encode(row.raw).decode("ascii")}
            self._documents.put(self.migration, f"quarantine/{number:06d}/{page:06d}/{i:06d}", json.dumps(value))

    def quarantined(self) -> Iterator[tuple[str, Quarantined]]:
        """All quarantined rows with their numbers, but for those that were moved since."""

        def read(value: Any) -> Quarantined:
            return Quarantined(**{**value, "raw": base64.b64decode(_text(value["raw"]))})

        moved = {key.removeprefix("moved/") for key, _ in self._scan("moved/")}
        for key, text in self._scan("quarantine/"):
            number = key.removeprefix("quarantine/")
            if number in moved:
                continue
            yield number, parsed("a quarantined row", text, read)

    def moved(self, number: str, change: Books) -> None:
        """Books a row out of quarantine: one document, so that it is done or not done whatever the store.

        Args:
            number: Number of the quarantined row.
            change: What is added to the books.
        """
        self._documents.put(self.migration, f"moved/{number}", json.dumps(change.to_json()))

    def reopen(self) -> None:
        """Says that what was put into place is about to be changed."""
        for name in ("joined", "rest"):
            self._documents.delete(self.migration, name)
        self.save_run(state="retrying")

    def forget_range(self, number: int) -> None:
        """Drops the findings of a range that is done over."""
        self._documents.delete(self.migration, f"quarantine/{number:06d}/")
        self._documents.delete(self.migration, f"moved/{number:06d}/")
        self._documents.delete(self.migration, f"conflict/{number:06d}/")

    def conflict(self, number: int, page: int, identities: list[tuple[str, str, str]]) -> None:
        """Keeps kind, id and reason of target records that were left alone."""
        for i, (kind, identity, reason) in enumerate(identities):
            value = json.dumps({"kind": kind, "id": identity, "reason": reason})
            self._documents.put(self.migration, f"conflict/{number:06d}/{page:06d}/{i:06d}", value)

    def conflicts(self) -> Iterator[dict[str, str]]:
        """All conflicts."""
        names = ("kind", "id", "reason")
        for _, text in self._scan("conflict/"):
            yield parsed("a conflict", text, lambda value: {name: _text(value[name]) for name in names})

    def save_original(self, kind: str, identity: str, document: str) -> None:
        """Keeps a record as it was before this migration first wrote over it."""
        key = f"saved/{kind}/{identity}"
        if self._documents.get(self.migration, key) is None:
            self._documents.put(self.migration, key, document)

    def originals(self, after: str = "") -> Iterator[tuple[str, str]]:
        """All saved originals as native documents: `kind/id`, document; those that come `after` one of them."""
        for key, text in self._scan("saved/", f"saved/{after}"):
            yield key.removeprefix("saved/"), text

    def _scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, str]]:
        while True:
            rows = self._documents.scan(self.migration, prefix, after, _SCAN)
            yield from rows
            if len(rows) < _SCAN:
                return
            after = rows[-1][0]

    # --- lock

    def acquire(self, target: Target) -> None:
        """Takes the lock of the migration.

        Raises:
            RefusedError: `busy`, saying who holds it.
        """
        with target.transaction():
            text = self._documents.get(self.migration, "lock")
            holder = (
                None if text is None else parsed("the lock", text, lambda lock: lock if self._alive(lock) else None)
            )
            if holder is not None:
                raise RefusedError(
                    "busy",
                    f"migration {self.migration} is being run by process {holder['pid']} on {holder['host']}",
                    hint="wait for it, or stop it; its work is kept",
                )
            self._put_lock()
            _HELD.add(self._token)

    def renew(self) -> None:
        """Says that this run is alive."""
        self._put_lock()

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
                except StoreError:
                    return  # The next page or step meets the same error and reports it.

        thread = threading.Thread(target=beat, name="memferry-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _put_lock(self) -> None:
        lock = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "processes": _processes(),
            "started": _started(os.getpid()),
            "expires": time.time() + LEASE_SECS,
        }
        self._documents.put(self.migration, "lock", json.dumps(lock))

    @staticmethod
    def _alive(lock: dict[str, Any]) -> bool:
        here = lock["host"] == socket.gethostname() and lock.get("processes") == _processes()
        if here and lock["pid"] == os.getpid() and lock["token"] not in _HELD:
            return False  # An earlier run of this process that could not give the lock back.
        if here and lock["started"] is not None:
            return bool(_started(lock["pid"]) == lock["started"])
        # Its processes cannot be seen from here: what it said last counts.
        return bool(lock["expires"] > time.time())

    def holder(self) -> Holder | None:
        """Who holds the lock, None where nobody does."""
        text = self._documents.get(self.migration, "lock")
        if text is None:
            return None

        def read(lock: Any) -> Holder:
            silent_secs = max(0.0, time.time() - (float(lock["expires"]) - LEASE_SECS))
            return Holder(_text(lock["host"]), index(lock["pid"]), self._alive(lock), round(silent_secs, 1))

        return parsed("the lock", text, read)

    def check(self) -> None:
        """Stops a late writer; called inside every page's transaction.

        Raises:
            StoreError: `fenced`, when another run took the lock.
        """
        text = self._documents.get(self.migration, "lock")
        if text is None or parsed("the lock", text, lambda lock: lock["token"]) != self._token:
            raise StoreError("fenced", f"another run has taken migration {self.migration} over; this one stops")

    def release(self) -> None:
        """Gives the lock back, if it is still ours."""
        _HELD.discard(self._token)
        # Where it cannot be given back, the end of this process or of the lease does it.
        with suppress(MemferryError):
            self.check()
            self._documents.delete(self.migration, "lock")
