"""A database as an application uses it."""

from __future__ import annotations

from typing import Any, Final

from memferry._native import Batch
from memferry.backends.access import Capabilities, Scopes
from memferry.backends.neo4j.layout import LABELS, LINK, MAX_DIMENSIONS, quoted, store_key, vector_property
from memferry.backends.neo4j.source import Neo4jSource, check_format
from memferry.backends.neo4j.target import Neo4jTarget
from memferry.errors import RefusedError
from memferry.model import rows_of
from memferry.urls import StoreUrl

__all__ = ["Neo4jAccess"]

_CANDIDATES: Final = 8
"""Answers of the vector index for one that is given: it rounds numbers to a byte, so the best are weighed anew."""

_SCORE: Final = "2 * score - 1"
"""Neo4j's score of cosine similarity lies between 0 and 1."""


class Neo4jAccess(Neo4jTarget):
    """A database with our own records. Constraints and indexes are made with the first record.

    Args:
        url: The store.
        read_only: Never write.
    """

    def __init__(self, url: StoreUrl, *, read_only: bool = False) -> None:
        super().__init__(url)
        self._read_only = read_only
        self._claimed = False
        self._ready: set[str] = set()

    def capabilities(self) -> Capabilities:
        """See `memferry.backends.access.Access`. Relations are relationships, which its indexes do not cover here."""
        writes, nodes = not self._read_only, tuple(LABELS)
        return Capabilities("neo4j", writes, writes, nodes, nodes, exact_vectors=True)

    def source(self) -> Neo4jSource | None:
        """See `memferry.backends.access.Access`."""
        return None if self._is_empty() else Neo4jSource(self._url, self._connection)

    def _is_empty(self) -> bool:
        """Whether none of our records was ever here."""
        return not check_format(self._connection) and not self._schema.in_use()

    def put(self, records: Batch, *, replace: bool) -> None:
        """See `memferry.backends.access.Access`; one transaction."""
        if not self._claimed:
            self._schema.claim(application=True)
            self._ready |= self._schema.make_for_application({})
            self._claimed = True
        with self.transaction():
            if not replace and (there := self.fetch(records).identities()):
                kind, identity = there[0]
                raise RefusedError("existing", f"{kind} {identity!r} is there already")
            raw, rows, bad, _ = self._mapper.encode(records)
            for _, bad_kind, bad_id, reason, message, _ in bad:
                raise RefusedError("refused", f"{bad_kind} {bad_id!r}: {message} ({reason})")
            lost = self._put(records, raw, rows, fresh=False, migration=None)
            if lost:
                kind, identity = records.take([min(lost)]).identities()[0]
                raise RefusedError("refused", f"{kind} {identity!r}: an entity that it ties together is not there")
            self._run(
                f"UNWIND $keys AS key MATCH (e:{LABELS['entity']} {{id: key}}) "
                f"MATCH (o:{LABELS['observation']} {{owner_id: coalesce(e.full_id, e.id)}}) "
                f"MERGE (o)-[:{LINK}]->(e)",
                keys=[store_key(identity) for kind, identity in records.identities() if kind == "entity"],
            )
        wanted = {
            (kind, vector_property(name, dim)): dim
            for kind in {kind for kind, _ in records.identities()} & LABELS.keys()
            for name, form, dim, _ in records.vector_specs()
            if form == 0 and 0 < dim <= MAX_DIMENSIONS
        }
        new = {at: dim for at, dim in wanted.items() if self._schema.vector_index(*at) not in self._ready}
        if new:
            self._ready |= self._schema.make_for_application(new)

    def remove(self, records: Batch) -> int:
        """See `memferry.backends.access.Access`; one transaction. An entity with relations is not deleted."""
        if self._is_empty():
            return 0
        with self.transaction():
            deleted = self.delete(records.identities())
            entities = records.filter(rows_of(records, ["entity"]))
            for kind, identity in self.fetch(entities).identities():
                raise RefusedError("refused", f"{kind} {identity!r} has relations, delete them first")
        return deleted

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`; by the full-text index."""
        self._check_kind(kind, self.capabilities().text_kinds)
        if self._is_empty() or not self._online("memferry_text"):
            return []
        query = " AND ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words.split())
        if not query:
            raise RefusedError("invalid", "search: no words")
        where, values = _conditions(scope)
        rows = self._run(
            "CALL db.index.fulltext.queryNodes('memferry_text', $query) YIELD node AS n, score "
            f"WHERE n:{LABELS[kind]}{where} RETURN coalesce(n.full_id, n.id), score ORDER BY score DESC, n.id LIMIT $k",
            writes=False,
            query=query,
            k=limit,
            **values,
        )
        return [(identity, score) for identity, score in rows]

    def search_vector(
        self, kind: str, name: str, vector: list[float], limit: int, scope: Scopes, *, exact: bool
    ) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`; cosine similarity, within a scope without the index."""
        self._check_kind(kind, self.capabilities().vector_kinds)
        if self._is_empty() or not any(vector):
            return []  # No direction, no cosine: Neo4j refuses vectors of zeros.
        held = vector_property(name, len(vector))
        index = self._schema.vector_index(kind, held)
        where, values = _conditions(scope)
        if exact or scope or not self._online(index):
            text = f"MATCH (n:{LABELS[kind]}) WHERE any(x IN n[$held] WHERE x <> 0){where} "
        else:
            text = "CALL db.index.vector.queryNodes($index, $candidates, $vector) YIELD node AS n "
        rows = self._run(
            f"{text}WITH n, vector.similarity.cosine(n[$held], $vector) AS score WHERE score IS NOT NULL "
            f"RETURN coalesce(n.full_id, n.id), {_SCORE} ORDER BY score DESC, n.id LIMIT $k",
            writes=False,
            held=held,
            index=index,
            candidates=_CANDIDATES * limit,
            vector=vector,
            k=limit,
            **values,
        )
        return [(identity, score) for identity, score in rows]

    def _online(self, index: str) -> bool:
        if index not in self._ready:
            text = "SHOW INDEXES YIELD name, state WHERE name = $name AND state = 'ONLINE' RETURN name"
            self._ready |= {name for (name,) in self._run(text, writes=False, name=index)}
        return index in self._ready

    @staticmethod
    def _check_kind(kind: str, allowed: tuple[str, ...]) -> None:
        if kind not in allowed:
            raise RefusedError("unsupported", f"Neo4j does not search {kind} records, allowed: {', '.join(allowed)}")

    def wait_indexed(self, deadline_secs: float) -> bool:  # noqa: ARG002
        """Indexes are awaited when they are made, and kept by each transaction."""
        return True


def _conditions(scope: Scopes) -> tuple[str, dict[str, Any]]:
    named = {f"scope_{part}": value for part, value in scope}
    return "".join(f" AND n.{quoted(name)} = ${name}" for name in named), named
