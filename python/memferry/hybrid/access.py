"""A hybrid store as an application uses it."""

from __future__ import annotations

from memferry._native import Batch, Keys, join_halves, split_halves
from memferry.backends.access import Access, Capabilities, Scopes
from memferry.errors import RefusedError
from memferry.hybrid.source import Half, HybridSource
from memferry.model import Stream, inverted

__all__ = ["HybridAccess"]


class _Records(HybridSource):
    """The records. Vectors whose record is not there yet, or not any more, are nothing to an application."""

    def streams(self) -> list[Stream]:
        """Those of the graph."""
        return self.graph.source.streams() if self.graph.source else []


class HybridAccess:
    """Two stores used as one: words and relations in the graph, vectors in the other half.

    Vectors are written before the records that name them, and taken out after: a process that is killed in between
    leaves vectors that nobody finds, and a put that is done again puts them right.

    Args:
        graph: Holds every record, without the vectors.
        vectors: Holds the vectors.
        identity: Set by the user, or None.
    """

    def __init__(self, graph: Access, vectors: Access, identity: str | None = None) -> None:
        self._graph = graph
        self._vectors = vectors
        self._identity = identity

    def capabilities(self) -> Capabilities:
        """See `memferry.backends.access.Access`."""
        graph, vectors = self._graph.capabilities(), self._vectors.capabilities()
        return Capabilities(
            "hybrid",
            write=graph.write and vectors.write,
            atomic=False,
            text_kinds=graph.text_kinds,
            vector_kinds=vectors.vector_kinds,
            exact_vectors=vectors.exact_vectors,
        )

    def source(self) -> HybridSource | None:
        """See `memferry.backends.access.Access`."""
        graph = self._graph.source()
        if graph is None:
            return None
        halves = Half(graph, self._graph.fetch), Half(self._vectors.source(), self._vectors.fetch)
        return _Records(*halves, self._identity, strict=False)

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.access.Access`."""
        held = self._graph.fetch(records)
        return join_halves(held, self._vectors.fetch(held))[0]

    def put(self, records: Batch, *, replace: bool) -> None:
        """See `memferry.backends.access.Access`; both halves have it when it returns."""
        if not replace and (there := self._graph.fetch(records).identities()):
            kind, identity = there[0]
            raise RefusedError("existing", f"{kind} {identity!r} is there already")
        rest, points = split_halves(records)
        held = self._vectors.fetch(points)
        if len(points):
            self._vectors.put(points, replace=True)
        try:
            self._graph.put(rest, replace=True)
        except RefusedError:
            self._put_back(points, held)
            raise
        wanted = Keys()
        wanted.add(points)
        bare = rest.filter(inverted(wanted.contains(rest)))
        if len(bare):
            self._vectors.remove(bare)

    def _put_back(self, points: Batch, held: Batch) -> None:
        """Makes the vectors what they were: the records that name them stay as they are."""
        if len(held):
            self._vectors.put(held, replace=True)
        before = Keys()
        before.add(held)
        new = points.filter(inverted(before.contains(points)))
        if len(new):
            self._vectors.remove(new)

    def remove(self, records: Batch) -> int:
        """See `memferry.backends.access.Access`; the record goes first."""
        removed = self._graph.remove(records)
        self._vectors.remove(records)
        return removed

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`."""
        return self._graph.search_text(kind, words, limit, scope)

    def search_vector(
        self, kind: str, name: str, vector: list[float], limit: int, scope: Scopes, *, exact: bool
    ) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`."""
        return self._vectors.search_vector(kind, name, vector, limit, scope, exact=exact)

    def wait_indexed(self, deadline_secs: float) -> bool:
        """See `memferry.backends.access.Access`."""
        return self._graph.wait_indexed(deadline_secs) and self._vectors.wait_indexed(deadline_secs)

    def close(self) -> None:
        """Ends all connections."""
        self._vectors.close()
        self._graph.close()
