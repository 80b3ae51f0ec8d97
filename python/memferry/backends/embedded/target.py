"""Writing an embedded store: data and ledger in one transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from memferry._native import Batch, EmbeddedStore, Mapper
from memferry.backends.api import refuse_damaged
from memferry.backends.documents import StoreDocuments
from memferry.backends.embedded.holder import naming_holder
from memferry.backends.embedded.source import EmbeddedSource
from memferry.errors import StoreError
from memferry.model import KINDS, Quarantined, Range, VectorSpec
from memferry.profiles import load_mapper

__all__ = ["EmbeddedTarget"]


class EmbeddedTarget:
    """An embedded store, opened to write. One connection, taken in turns."""

    backend = "embedded"
    profile = "native"
    native = True
    resume: Literal["page", "range"] = "page"
    ordered = False
    fences = True

    def __init__(self, path: Path, identity: str | None = None) -> None:
        self._path = path
        with naming_holder(path):
            self._store = EmbeddedStore.open_target(path)
        self._lock = threading.RLock()
        self._mapper: Mapper = load_mapper("native", "document")
        self.documents = StoreDocuments(self._store, self._lock)
        self.identity = identity or f"embedded:{self._store.store_id()}"

    def source(self) -> EmbeddedSource:
        """The same store, to be read."""
        return EmbeddedSource(self._path, self.identity)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Data and ledger are written together or not at all."""
        with self._lock:
            with naming_holder(self._path):
                self._store.begin()
            try:
                yield
                self._store.commit()
            finally:
                self._store.abort()

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:
        """The file and its tables were made when it was opened."""

    def begin_range(self, part: Range) -> None:
        """Nothing to do: pages go straight into the tables."""

    def end_range(self, part: Range) -> None:
        """Nothing to do: every page was committed."""

    def image(self, records: Batch) -> Batch:
        """The store gives back what it was given."""
        return records

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """The native profile holds everything."""
        return self._mapper.gaps(records)

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        identities = records.identities()
        asked = {kind: [i for k, i in identities if k == kind] for kind in KINDS}
        with self._lock:
            found = [self._store.fetch(kind, ids) for kind, ids in asked.items() if ids]
        refuse_damaged([Quarantined(*row) for _, bad in found for row in bad])
        return Batch.concat([held for held, _ in found])

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        self._store.mark_text_stale()
        refused = self._store.write(records, marker=migration, fresh=fresh)
        if not refused:
            return []
        message = "an embedded store takes 256 vectors a record"
        return [Quarantined(*row) for row in Mapper.quarantine(records.take(refused), "too-many-vectors", message)]

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        self._store.mark_text_stale()
        return sum(self._store.delete(kind, [i for k, i in identities if k == kind]) for kind in KINDS)

    def restore(self, records: Batch) -> None:
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        self._store.mark_text_stale()
        if refused := self._store.write(records):
            raise StoreError("refused", f"{len(refused)} records could not be put back: too many vectors")

    def finish(self, migration: str, ranges: list[Range]) -> None:  # noqa: ARG002
        """Rebuilds the full-text index."""
        with self._lock:
            self._store.rebuild_text()

    def drop_created(self, migration: str) -> None:
        """Nothing to drop: the file may be the application's by now."""

    def close(self) -> None:
        """The connection ends with its object."""
