"""Writing our own records: data and ledger in one transaction, every statement checked against its rows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from memferry._native import Batch, Mapper
from memferry.backends.neo4j.connection import Connection, guard
from memferry.backends.neo4j.documents import Neo4jDocuments
from memferry.backends.neo4j.layout import FORMAT, LABELS, LINK, RELATION, STORE, store_key, to_properties, type_label
from memferry.backends.neo4j.schema import Schema
from memferry.backends.neo4j.source import Neo4jSource, TargetSource, check_format, pattern, raw_row
from memferry.errors import RefusedError, StoreError
from memferry.model import KINDS, Quarantined, Range, VectorSpec
from memferry.profiles import load_mapper
from memferry.urls import StoreUrl

if TYPE_CHECKING:
    import neo4j

__all__ = ["Neo4jTarget"]

_ROWS: Final = 2000
"""Rows of one statement."""

_MAX_TYPE_LABELS: Final = 1000
"""Labels are never forgotten by the server, so a run does not make more of them out of record types."""

_ENTITY: Final = LABELS["entity"]

Rows = list[dict[str, Any]]


class Neo4jTarget:
    """A Neo4j database that our own records are written to. One transaction at a time, taken in turns.

    Args:
        url: The store.
        accepted: Gaps that may be dropped; the native profile has none.
    """

    backend = "neo4j"
    profile = "native"
    native = True
    resume: Literal["page", "range"] = "page"
    ordered = True

    def __init__(self, url: StoreUrl, accepted: tuple[str, ...] = ()) -> None:
        if url.profile != "native":
            raise RefusedError("profile", f"profile `{url.profile}` is not written to Neo4j, allowed: native")
        self._url = url
        self._accepted = list(accepted)
        self._mapper: Mapper = load_mapper("native", "node")
        self._connection = Connection(url)
        self._lock = threading.RLock()
        self._transaction: neo4j.Transaction | None = None
        self._labels: set[str] = set()
        self._tied: list[tuple[str, str]] = []
        self._schema = Schema(self._connection)
        self.documents = Neo4jDocuments(self._run, self._schema.make_ledger, lambda: self._transaction is not None)
        self.identity = self._connection.identity
        try:
            check_format(self._connection)
        except BaseException:
            self.close()
            raise

    def source(self) -> Neo4jSource:
        """The same store, to be read."""
        return TargetSource(self._url, self._connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Data and ledger are written together or not at all; the server rolls back what a killed process left."""
        with self._lock:
            self._schema.make_ledger()
            with guard():
                session = self._connection.session(read_only=False)
            try:
                with guard():
                    self._transaction = self._connection.begin(session)
                yield
                with guard():
                    self._transaction.commit()
            finally:
                transaction, self._transaction = self._transaction, None
                # What goes wrong from here on has been raised already.
                with contextlib.suppress(Exception):
                    if transaction is not None:
                        transaction.close()
                with contextlib.suppress(Exception):
                    session.close()

    def _run(self, text: str, *, writes: bool = True, **parameters: Any) -> list[list[Any]]:
        with self._lock:
            if self._transaction is not None:
                with guard():
                    return self._transaction.run(text, parameters).values()
        # Outside of a transaction, a statement is one of its own.
        return (self._connection.write if writes else self._connection.read)(text, **parameters)

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:  # noqa: ARG002
        """Makes the constraints and waits for them."""
        self._schema.make_ledger()
        self._schema.make_constraints(migration, self.documents)
        self._run(f"MERGE (s:{STORE} {{id: 'store'}}) SET s.format = $format", format=FORMAT)

    def begin_range(self, part: Range) -> None:
        """Nothing to do: pages go straight into the graph."""

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
        rows: list[tuple[str, bytes, list[Any]]] = []
        identities = records.identities()
        for kind in KINDS:
            keys = [store_key(identity) for k, identity in identities if k == kind]
            matched, returned = pattern(kind)
            for some in _slices(keys):
                text = f"UNWIND $keys AS key MATCH {matched} WHERE n.id = key RETURN {returned}"
                rows += [raw_row(kind, values, self._connection) for values in self._run(text, keys=some, writes=False)]
        found, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        if bad:
            key, _, _, reason, message, _ = bad[0]
            raise StoreError(
                "store-corrupt",
                f"{len(bad)} records cannot be read back, first {key}: {message} ({reason})",
            )
        return found

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        raw, rows, bad, _ = self._mapper.encode(records, accepted=self._accepted, marker=migration)
        lost = self._put(records, raw, rows, fresh=fresh, migration=migration)
        mask = bytearray(len(records))
        for row in lost:
            mask[row] = 1
        missing = Mapper.quarantine(
            records.filter(bytes(mask)),
            "missing-end",
            "the entity it comes from or the one it goes to is not in the target",
        )
        return [Quarantined(*row) for row in (*bad, *missing)]

    def _put(self, records: Batch, raw: Batch, numbers: list[int], *, fresh: bool, migration: str | None) -> set[int]:
        """Writes encoded rows; the numbers of relations without ends."""
        kinds = [kind for kind, _ in records.identities()]
        markers = records.markers() if migration is None else None
        rows: dict[str, Rows] = {kind: [] for kind in KINDS}
        for number, (key, body, vectors) in zip(numbers, raw.rows(), strict=True):
            kind = kinds[number]
            properties, lists = to_properties(key, body, vectors, lists=kind != "relation")
            if markers is not None and (marker := markers[number]) is not None:
                properties["_memferry"] = " ".join(marker)
            rows[kind].append({"number": number, "properties": properties, "lists": lists})
        lost: set[int] = set()
        for kind, ofkind in rows.items():
            for some in _slices(ofkind):
                if kind == "relation":
                    lost |= self._put_relations(some, fresh=fresh)
                else:
                    self._put_nodes(kind, some, fresh=fresh, migration=migration)
        return lost

    def _put_nodes(self, kind: str, rows: Rows, *, fresh: bool, migration: str | None) -> None:
        label = LABELS[kind]
        sent = [
            {"number": row["number"], "properties": row["properties"], "labels": self._type_labels(row)} for row in rows
        ]
        applied = self._run(
            f"UNWIND $rows AS row MERGE (n:{label} {{id: row.properties.id}}) "
            f"REMOVE n:$([x IN labels(n) WHERE x = n.type AND NOT x STARTS WITH 'Memferry']) "
            "SET n = row.properties SET n:$(row.labels) RETURN row.number",
            rows=sent,
        )
        _check_applied(kind, [row["number"] for row in rows], applied)
        self._put_lists(kind, rows, migration)
        if kind == "observation":
            self._link(rows, fresh=fresh)

    def _type_labels(self, row: dict[str, Any]) -> list[str]:
        labels = type_label(row["properties"].get("type"))
        if labels and labels[0] not in self._labels:
            if len(self._labels) >= _MAX_TYPE_LABELS:
                return []
            self._labels.add(labels[0])
        return labels

    def _put_lists(self, kind: str, rows: Rows, migration: str | None) -> None:
        """Writes vectors as lists of numbers, in single precision as a vector index wants them."""
        sent = [
            {"number": row["number"], "id": row["properties"]["id"], "property": name, "values": values}
            for row in rows
            for name, values in row["lists"]
        ]
        if not sent:
            return
        applied = self._run(
            f"UNWIND $rows AS row MATCH (n:{LABELS[kind]} {{id: row.id}}) "
            "CALL db.create.setNodeVectorProperty(n, row.property, row.values) RETURN row.number",
            rows=sent,
        )
        _check_applied(kind, [row["number"] for row in sent], applied)
        if migration is not None:
            for name, dim in {(row["property"], len(row["values"])) for row in sent}:
                self._schema.note_vector(migration, self.documents, kind, name, dim)

    def _link(self, rows: Rows, *, fresh: bool) -> None:
        """Ties observations to their entities, as far as there are any: the owner's id is what counts."""
        sent = [
            {"id": row["properties"]["id"], "owner": None if owner is None else store_key(owner)}
            for row in rows
            for owner in [row["properties"].get("owner_id")]
        ]
        if not fresh:
            self._run(
                f"UNWIND $rows AS row MATCH (:{LABELS['observation']} {{id: row.id}})-[l:{LINK}]->(e) "
                "WHERE row.owner IS NULL OR e.id <> row.owner DELETE l",
                rows=sent,
            )
        self._run(
            f"UNWIND $rows AS row MATCH (o:{LABELS['observation']} {{id: row.id}}) "
            f"MATCH (e:{_ENTITY} {{id: row.owner}}) MERGE (o)-[:{LINK}]->(e)",
            rows=[row for row in sent if row["owner"] is not None],
        )

    def _put_relations(self, rows: Rows, *, fresh: bool) -> set[int]:
        """Writes relations between entities that are there; the numbers of the others."""
        sent = []
        for row in rows:
            properties = row["properties"]
            ends = [properties.pop(name, None) for name in ("from_id", "to_id")]
            if None not in ends:
                start, end = map(store_key, ends)
                sent.append({"number": row["number"], "from": start, "to": end, "properties": properties})
        between = f"UNWIND $rows AS row MATCH (a:{_ENTITY} {{id: row.from}}) MATCH (b:{_ENTITY} {{id: row.to}}) "
        if not fresh:
            # A relationship cannot be given other ends.
            self._run(
                f"{between}MATCH ()-[r:{RELATION} {{id: row.properties.id}}]->() "
                "WHERE startNode(r) <> a OR endNode(r) <> b DELETE r",
                rows=sent,
            )
        applied = self._run(
            f"{between}MERGE (a)-[r:{RELATION} {{id: row.properties.id}}]->(b) "
            "SET r = row.properties RETURN row.number",
            rows=sent,
        )
        return {row["number"] for row in rows} - {number for (number,) in applied}

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """Deletes relations first, then what they tied together. An entity with other relationships stays.

        It is tried again by `restore`, which may give such a relationship its old ends back.
        """
        deleted = 0
        for kind in reversed(KINDS):
            keys = [store_key(identity) for k, identity in identities if k == kind]
            for some in _slices(keys):
                matched, _ = pattern(kind)
                [(count,)] = self._run(
                    f"UNWIND $keys AS key MATCH {matched} WHERE n.id = key DELETE n RETURN count(key)"
                    if kind == "relation"
                    else f"UNWIND $keys AS key MATCH {matched} WHERE n.id = key "
                    f"AND NOT EXISTS {{ (n)-[x]-() WHERE type(x) <> '{LINK}' }} DETACH DELETE n RETURN count(key)",
                    keys=some,
                )
                deleted += count
                if count < len(some) and kind == "entity":
                    self._tied += [pair for pair in identities if pair[0] == kind]
        return deleted

    def restore(self, records: Batch) -> None:
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        raw, rows, bad, _ = self._mapper.encode(records, accepted=self._accepted)
        lost = self._put(records, raw, rows, fresh=False, migration=None)
        if bad or lost:
            raise StoreError("refused", f"{len(bad) + len(lost)} records could not be put back: an end is missing")
        tied, self._tied = self._tied, []
        self.delete(tied)

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """Ties late observations to their entities, makes the indexes and waits for them."""
        if not ranges:
            return  # After a rollback nothing is to be made.
        self._connection.write(
            f"MATCH (o:{LABELS['observation']}) WHERE o.owner_id IS NOT NULL AND NOT EXISTS {{ (o)-[:{LINK}]->() }} "
            f"MATCH (e:{_ENTITY} {{id: o.owner_id}}) "
            f"CALL (o, e) {{ MERGE (o)-[:{LINK}]->(e) }} IN TRANSACTIONS OF {_ROWS} ROWS",
        )
        self._schema.make_indexes(migration, self.documents)

    def drop_created(self, migration: str) -> None:
        """Drops the constraints and indexes that this migration made, where no record is left to need them."""
        self._schema.drop_created(migration, self.documents)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def _check_applied(kind: str, sent: Iterable[int], applied: list[list[Any]]) -> None:
    missing = set(sent) - {number for (number,) in applied}
    if missing:
        raise StoreError("refused", f"Neo4j applied a statement to {len(missing)} {kind} rows less than it was given")
