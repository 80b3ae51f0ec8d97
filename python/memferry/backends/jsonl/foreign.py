"""Writing another system's file, whose observations may lie inside their entities."""

from __future__ import annotations

import threading
from pathlib import Path

from memferry._native import Batch, JsonlReader
from memferry.backends.api import Source
from memferry.backends.documents import StoreDocuments
from memferry.backends.jsonl.source import JsonlSource
from memferry.backends.jsonl.target import JsonlTarget
from memferry.backends.state import MarkedSource, State
from memferry.failpoints import failpoint
from memferry.model import Quarantined, Range

__all__ = ["ForeignJsonlTarget"]

_PAGE_RECORDS = 4096
_PAGE_BYTES = 8 << 20


class ForeignJsonlTarget(JsonlTarget):
    """A file whose lines have no place for markers: they are in the journal, and the ledger is beside that.

    A record with a list is one record here: entities are compared and written with their observations.
    """

    def _keeper(self, scratch: Path | None) -> tuple[State, threading.RLock, StoreDocuments]:
        self._state = State(self.identity, scratch)
        return self._state, self._state.lock, self._state.documents

    @property
    def gathers(self) -> Path | None:
        """Where observations wait for their entities, None where they are records of their own."""
        return self._state.folder if self._mapper.nests_observations else None

    def source(self) -> Source | None:
        """The file as it is, with markers, lists within their records."""
        if not self._path.exists():
            return None
        return MarkedSource(JsonlSource(self._path, self.profile, self.identity, self._mapper), self._state)

    def _encode(self, records: Batch) -> tuple[Batch, list[int], list[Quarantined]]:
        raw, rows, bad, _ = self._mapper.encode(records, accepted=self._accepted)
        return raw, rows, [Quarantined(*row) for row in bad]

    def fit(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """See `memferry.backends.api.Foreign`."""
        _, rows, bad = self._encode(records)
        return records.take(rows), bad

    def filed(self, records: Batch) -> list[tuple[str, str]]:
        """See `memferry.backends.api.Foreign`."""
        # What does not fit now may be there from an earlier run, under the id it has in the source.
        return [*self.image(records).identities(), *records.identities()]

    def filed_under(self, identities: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """See `memferry.backends.api.Foreign`."""
        return identities

    def image(self, records: Batch) -> Batch:
        """Through the profile and back."""
        return self._mapper.decode(self._encode(records)[0])[0]

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        return self._state.mark(super().fetch(self.image(records)))

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`."""
        raw, _, bad = self._encode(records)
        self._parts[part.number].append(raw)
        return bad

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """See `memferry.backends.api.Target`."""
        deleted = super().delete(identities)
        self._state.forget(identities)
        return deleted

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """Joins the parts; what is in them is intended before, and confirmed after the file is in its place."""
        if self.documents.get(migration, "joined") is None:
            for part in ranges:
                self._intend(self._part(part.number), migration)
            failpoint("intended")
        super().finish(migration, ranges)
        failpoint("acknowledged")
        self._state.confirm_all(migration)

    def _intend(self, part: Path, migration: str) -> None:
        lines = JsonlReader(part)
        start: int | None = 0
        while start is not None:
            raw, _, start = lines.read_page(start, None, _PAGE_RECORDS, _PAGE_BYTES)
            self._state.intend(self._mapper.decode(raw)[0], migration)

    def drop_created(self, migration: str) -> None:
        """Drops the journal, and the folder beside the file once nobody needs it."""
        super().drop_created(migration)
        self._state.drop(migration)
        if self._folder.exists() and not any(self._folder.iterdir()):
            self._folder.rmdir()
