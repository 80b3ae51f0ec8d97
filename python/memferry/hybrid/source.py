"""Reading a hybrid store: records page by page from the graph, their vectors fetched by id; then vectors left over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from memferry._native import Batch, Keys, Mapper, join_halves, owned_points
from memferry.backends.api import Reader, Source, Target
from memferry.model import Limits, Page, Quarantined, Range, Stream, inverted

__all__ = ["Half", "HybridSource", "identity_of"]

_PREFIX: Final = "vectors/"
"""Before the names of the streams of the vector half."""

_FIRST_RECORDS: Final = 256
"""Records of a reader's first page, which shows how large they are together with their vectors."""


class Half(NamedTuple):
    """One half of a hybrid store.

    Attributes:
        source: Reads it; None while there is nothing.
        fetch: Gives what it holds under the kinds and ids of a batch.
    """

    source: Source | None
    fetch: Callable[[Batch], Batch]


def identity_of(graph: str, vectors: str) -> str:
    """Both halves, either of which makes it another store."""
    return f"hybrid:{graph}+{vectors}"


class HybridSource:
    """Two stores read as one.

    Args:
        graph: Holds every record, without the vectors.
        vectors: Holds the vectors.
        identity: Set by the user, or None.
        strict: Whether a record whose vectors are gone, and vectors without a record, go into quarantine. Where not,
            they are given as what is there: for a target that is looked at.
        owned: More that is closed with it.
    """

    backend = "hybrid"
    profile = "native"
    native = True

    def __init__(
        self, graph: Half, vectors: Half, identity: str | None, *, strict: bool, owned: Sequence[Target] = ()
    ) -> None:
        self.graph = graph
        self.vectors = vectors
        self.strict = strict
        self.joined = Keys()
        self._owned = owned
        sources = [half.source for half in (graph, vectors)]
        self.identity = identity or identity_of(*(source.identity if source else "" for source in sources))

    def streams(self) -> list[Stream]:
        """Those of the graph, then vectors without a record, which nobody has counted."""
        streams = self.graph.source.streams() if self.graph.source else []
        left = self.vectors.source.streams() if self.vectors.source else []
        return [*streams, *(Stream(_PREFIX + stream.name, ("relation",), None) for stream in left)]

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """See `memferry.backends.api.Source`."""
        if stream.name.startswith(_PREFIX) or self.graph.source is None:
            return [(None, None)]
        return self.graph.source.split(stream, parts)

    def reader(self) -> Reader:
        """A reader of both halves."""
        return _HybridReader(self)

    def witness(self) -> None:
        """Nothing: ranges are of keys, and hold however the store changes."""

    def close(self) -> None:
        """Ends all connections of its own."""
        for store in (self.graph.source, self.vectors.source, *self._owned):
            if store is not None:
                store.close()


class _HybridReader:
    """Reads records with their vectors, and vectors without records."""

    def __init__(self, store: HybridSource) -> None:
        self._store = store
        self._graph = store.graph.source.reader() if store.graph.source else None
        self._vectors = store.vectors.source.reader() if store.vectors.source else None
        self._records = _FIRST_RECORDS

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        if part.stream.startswith(_PREFIX):
            return self._read_left(part, cursor, limits)
        assert self._graph is not None  # noqa: S101 - a range of the graph comes from its streams
        # The graph does not know how large the vectors are; the page before does.
        bounded = Limits(min(limits.records, self._records), limits.size_bytes)
        page = self._graph.read(part, cursor, bounded)
        points = self._fetch(page.records)
        # The scope of a point is a copy: a target's is proven, a source's is not looked at.
        records, torn = join_halves(page.records, points, scopes_of_points=not self._store.strict)
        self._store.joined.add(points.filter(owned_points(page.records, points)))
        if len(records):
            self._records = max(1, limits.size_bytes * len(records) // max(records.nbytes, 1))
        quarantined = page.quarantined
        if self._store.strict and any(torn):
            bad = Mapper.quarantine(
                page.records.filter(torn), "vectors-missing", "vectors that this record names are not in the other half"
            )
            quarantined = [*quarantined, *(Quarantined(*row) for row in bad)]
            records = records.filter(inverted(torn))
        return Page(records, quarantined, page.read, page.exploded, page.next)

    def _fetch(self, records: Batch) -> Batch:
        return self._store.vectors.fetch(records) if self._vectors is not None else Batch.concat([])

    def _read_left(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """A page of vectors, less those with a record."""
        assert self._vectors is not None  # noqa: S101 - a range of the vectors comes from their streams
        inner = Range(part.number, part.stream.removeprefix(_PREFIX), part.start, part.end)
        page = self._vectors.read(inner, cursor, limits)
        # Those joined before need no second look at the graph.
        points = page.records.filter(inverted(self._store.joined.contains(page.records)))
        if len(points):
            records = self._store.graph.fetch(points)
            points = points.filter(inverted(owned_points(records, points)))
        quarantined = page.quarantined
        if self._store.strict and len(points):
            bad = Mapper.quarantine(points, "no-record", "these vectors are of no record in the other half")
            quarantined = [*quarantined, *(Quarantined(*row) for row in bad)]
            points = points.filter(bytes(len(points)))
        return Page(points, quarantined, len(points) + len(quarantined), 0, page.next)
