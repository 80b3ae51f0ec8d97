"""Reading an embedded store."""

from __future__ import annotations

from pathlib import Path

from memferry._native import EmbeddedStore
from memferry.backends.embedded.holder import naming_holder
from memferry.errors import StoreError
from memferry.model import KINDS, Limits, Page, Quarantined, Range, Stream

__all__ = ["EmbeddedSource"]


class EmbeddedSource:
    """An embedded store, opened read-only. One stream a kind; keys are `seq`."""

    backend = "embedded"
    profile = "native"
    native = True

    def __init__(self, path: Path, identity: str | None = None) -> None:
        self._path = path
        with naming_holder(path):
            self._store = EmbeddedStore.open_source(path)
        self.identity = identity or f"embedded:{self._store.store_id()}"

    def streams(self) -> list[Stream]:
        """One stream a kind."""
        return [Stream(kind, (kind,), self._store.count(kind)) for kind in KINDS]

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """Cuts between the smallest and the largest `seq`."""
        bounds = self._store.bounds(stream.name)
        if bounds is None or parts < 2:
            return [(None, None)]
        low, high = bounds
        step = max(1, -(-(high - low + 1) // parts))
        cuts = [str(seq) for seq in range(low + step, high + 1, step)]
        return list(zip([None, *cuts], [*cuts, None], strict=True))

    def reader(self) -> EmbeddedReader:
        """A reader with a connection of its own."""
        with naming_holder(self._path):
            return EmbeddedReader(EmbeddedStore.open_source(self._path))

    def version(self) -> int:
        """Another number after every write of somebody else."""
        return self._store.data_version()

    def witness(self) -> None:
        """Nothing: ranges are of keys, and hold however the store changes."""

    def close(self) -> None:
        """Connections end with their objects."""


class EmbeddedReader:
    """Reads pages of one kind by `seq`."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        # The cursor is the last `seq` read; a range starts at its first.
        after = int(cursor) if cursor else int(part.start) - 1 if part.start else -(2**63)
        until = int(part.end) if part.end else None
        records, bad, read, following = self._store.read_page(
            part.stream,
            after,
            until,
            limits.records,
            limits.size_bytes,
        )
        if following is not None and following <= after:
            raise StoreError("store-corrupt", f"the rows of table {part.stream} are not in order after {after}")
        quarantined = [Quarantined(*row) for row in bad]
        return Page(records, quarantined, read, 0, None if following is None else str(following))
