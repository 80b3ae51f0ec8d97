"""What is durably done, in the target or beside it: plan, run, ranges, quarantine, conflicts, saved originals, lock."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import index
from typing import Any, Final

from memferry.backends.api import Documents
from memferry.errors import RefusedError
from memferry.locks import Claim, Holder, Lock, parsed
from memferry.model import Books, Quarantined

__all__ = ["BINDINGS", "LEDGER_FORMAT", "Claim", "Holder", "Ledger", "RangeState", "migrations", "parsed"]

LEDGER_FORMAT: Final = 1
BINDINGS: Final = "binding/"
"""Before the name of a binding, whose journal stands beside the migrations."""

_SCAN: Final = 500
_OF_A_RUN: Final = ("range/", "quarantine/", "moved/", "conflict/", "joined", "rest", "compared", "report")
"""What a new run forgets: prefixes of keys, none of which another document may begin with."""


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


def migrations(documents: Documents) -> list[str]:
    """Migrations that a ledger knows."""
    return [name for name in documents.migrations() if not name.startswith(BINDINGS)]


class Ledger(Lock):
    """The ledger of one migration, and the lock under which it is written."""

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
        """Drops everything of this migration but the run document and the originals that a rollback left."""
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
            "compared",
            "mixed",
            "created",
            "report",
            "touched/",
            "baseline/",
            "carried/",
            "shard/",
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

    def states(self) -> dict[int, RangeState]:
        """States of the ranges that were begun, by number."""
        return {int(key.removeprefix("range/")): RangeState.from_json(text) for key, text in self._scan("range/")}

    def books(self) -> Books:
        """Counts over all ranges, and what was moved out of quarantine afterwards."""
        books = Books()
        for state in self.states().values():
            books.add(state.books)
        for _, text in self._scan("moved/"):
            books.add(parsed("the books of a retry", text, Books.from_json))
        return books

    def ranges_done(self) -> int:
        """How many ranges are complete."""
        return sum(state.done for state in self.states().values())

    # --- passes

    def touch(self, number: int, part: int, page: int, identities: list[tuple[str, str]]) -> None:
        """Notes records that a pass wrote or deleted, until they are verified."""
        if identities:
            key = f"touched/{number:06d}/{part:06d}/{page:06d}"
            self._documents.put(self.migration, key, json.dumps(identities))

    def touched(self) -> Iterator[list[tuple[str, str]]]:
        """Records that were touched and not verified since, some at a time."""
        for _, text in self._scan("touched/"):
            yield parsed("touched records", text, lambda rows: [(_text(kind), _text(one)) for kind, one in rows])

    def forget_touched(self) -> None:
        """Says that all of them are verified."""
        self._documents.delete(self.migration, "touched/")

    def carry(self, number: int, identities: list[tuple[str, str]]) -> None:
        """Notes records that are deleted at home because the application deleted them."""
        self._documents.put(self.migration, f"carried/{number:06d}", json.dumps(identities))

    def carried(self) -> Iterator[list[tuple[str, str]]]:
        """All of those."""
        for _, text in self._scan("carried/"):
            yield parsed("deleted records", text, lambda rows: [(_text(kind), _text(one)) for kind, one in rows])

    def save_baseline(self, part: int, page: int, packed: bytes) -> None:
        """Keeps what records of the source were like at the switch."""
        self._documents.put(self.migration, f"baseline/{part:06d}/{page:06d}", base64.b64encode(packed).decode("ascii"))

    def baseline(self) -> Iterator[bytes]:
        """All that `save_baseline` kept."""
        for _, text in self._scan("baseline/"):
            yield base64.b64decode(text)

    def forget_baseline(self) -> None:
        """Drops it."""
        self._documents.delete(self.migration, "baseline/")

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

    def originals(self, after: str = "", *, left: bool = False) -> Iterator[tuple[str, str]]:
        """All saved originals as native documents: `kind/id`, document; those that come `after` one of them.

        Args:
            after: Where to go on.
            left: Those that a rollback left instead.
        """
        prefix = "left/" if left else "saved/"
        for key, text in self._scan(prefix, f"{prefix}{after}"):
            if text:
                yield key.removeprefix(prefix), text

    def other(self, migration: str) -> Ledger:
        """The ledger of another migration into the same target, to be read."""
        return Ledger(self._documents, migration)

    def leave_original(self, kind: str, identity: str) -> None:
        """Keeps an original past a rollback, which could not put it back.

        Who wrote over the record since puts it back in its turn: what that one saved is not there any more.
        """
        document = self._documents.get(self.migration, f"saved/{kind}/{identity}")
        if document is not None:
            self._documents.put(self.migration, f"left/{kind}/{identity}", document)

    def left(self, kind: str, identity: str) -> str | None:
        """An original that a rollback left."""
        return self._documents.get(self.migration, f"left/{kind}/{identity}") or None

    def forget_left(self, kind: str, identity: str) -> None:
        """Says that it has been put back."""
        # Deleting goes by prefix, and ids begin with one another.
        self._documents.put(self.migration, f"left/{kind}/{identity}", "")

    def _scan(self, prefix: str, after: str = "") -> Iterator[tuple[str, str]]:
        while True:
            rows = self._documents.scan(self.migration, prefix, after, _SCAN)
            yield from rows
            if len(rows) < _SCAN:
                return
            after = rows[-1][0]
