"""Writing our own records: data and ledger in one transaction, every statement checked against its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Literal

from memferry._native import Batch, Mapper
from memferry.backends.neo4j.connection import Connection
from memferry.backends.neo4j.documents import Neo4jDocuments
from memferry.backends.neo4j.layout import LABELS, LINK, RELATION, store_key, to_properties, type_label
from memferry.backends.neo4j.schema import Schema
from memferry.backends.neo4j.source import Neo4jSource, RawRow, TargetSource, check_format, pattern, raw_row
from memferry.backends.neo4j.transactions import Transactions
from memferry.backends.neo4j.values import PROPERTIES, PROPERTIES_AS_TEXT, UnknownValueError
from memferry.errors import RefusedError, StoreError
from memferry.model import KINDS, Quarantined, Range, VectorSpec
from memferry.profiles import load_mapper
from memferry.urls import StoreUrl

__all__ = ["Neo4jTarget", "has_documents"]

_ROWS: Final = 5000
"""Rows of one statement."""

_MAX_TYPE_LABELS: Final = 1000
"""Labels are never forgotten by the server, so a run does not make more of them out of record types."""

_ENTITY: Final = LABELS["entity"]

Rows = list[dict[str, Any]]


class Neo4jTarget:
    """A Neo4j database that our own records are written to. A page is a transaction; they run side by side.

    Args:
        url: The store.
        accepted: Gaps that may be dropped; the native profile has none.
    """

    backend = "neo4j"
    profile = "native"
    native = True
    resume: Literal["page", "range"] = "page"
    ordered = True
    fences = True

    def __init__(self, url: StoreUrl, accepted: tuple[str, ...] = ()) -> None:
        if url.profile != "native":
            raise RefusedError("profile", f"profile `{url.profile}` is not written to Neo4j, allowed: native, plain")
        self._url = url
        self._accepted = list(accepted)
        self._mapper: Mapper = load_mapper("native", "node")
        self._connection = Connection(url)
        self._transactions = Transactions(self._connection)
        self._run = self._transactions.run
        self._labels: set[str] = set()
        self._noted: set[tuple[str, str]] = set()
        self._schema = Schema(self._connection)
        self.documents = Neo4jDocuments(self._transactions, self._schema.make_ledger)
        self.identity = self._connection.identity
        with ExitStack() as unless_ours:
            unless_ours.callback(self.close)
            check_format(self._connection)
            unless_ours.pop_all()

    def source(self) -> Neo4jSource | None:
        """The same store, to be read."""
        return TargetSource(self._url, self._connection)

    @property
    def deadlocks(self) -> int:
        """Transactions so far that the server ended because they waited for each other."""
        return self._transactions.deadlocks

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Data and ledger are written together or not at all; the server rolls back what a killed process left."""
        self._schema.make_ledger()
        with self._transactions.open():
            yield

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:  # noqa: ARG002
        """Makes the constraints and waits for them."""
        self._schema.claim()
        self._schema.make_constraints(migration, self.documents)

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
        rows: list[RawRow] = []
        identities = records.identities()
        for kind in KINDS:
            for some in _slices([store_key(identity) for k, identity in identities if k == kind]):
                rows += self._read(kind, some)
        found, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        if bad:
            key, _, _, reason, message, _ = bad[0]
            raise StoreError(
                "store-corrupt",
                f"{len(bad)} records cannot be read back, first {key}: {message} ({reason})",
            )
        return found

    def _read(self, kind: str, keys: list[str]) -> list[RawRow]:
        for properties in (PROPERTIES, PROPERTIES_AS_TEXT):
            matched, returned = pattern(kind, properties)
            text = f"UNWIND $keys AS key MATCH {matched} WHERE n.id = key RETURN {returned}"
            told = self._run(text, keys=keys, writes=False)
            with suppress(UnknownValueError):
                return [raw_row(kind, values)[0] for values in told]
        raise StoreError("store-format", "a property has a type this driver cannot read")

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

    def _put(
        self,
        records: Batch,
        raw: Batch,
        numbers: list[int],
        *,
        fresh: bool,
        migration: str | None,
        spread: bool = False,
    ) -> set[int]:
        """Writes encoded rows; the numbers of relations without ends."""
        kinds = [kind for kind, _ in records.identities()]
        markers = records.markers() if migration is None else None
        rows: dict[str, Rows] = {kind: [] for kind in KINDS}
        for number, (key, body, vectors) in zip(numbers, raw.rows(), strict=True):
            kind = kinds[number]
            properties, lists = to_properties(key, body, vectors, lists=kind != "relation", spread=spread)
            if markers is not None and (marker := markers[number]) is not None:
                properties["_memferry"] = " ".join(marker)
            rows[kind].append({"number": number, "properties": properties, "lists": lists})
        lost: set[int] = set()
        for kind, ofkind in rows.items():
            for some in _slices(self._left(kind, ofkind) if fresh else ofkind):
                if kind == "relation":
                    lost |= self._put_relations(some, fresh=fresh)
                else:
                    self._put_nodes(kind, some, fresh=fresh, migration=migration)
        return lost

    def _left(self, kind: str, rows: Rows) -> Rows:
        """Of rows that nobody else has written, those that are not there from a commit whose answer was lost."""
        if not rows or not self._transactions.doubtful:
            return rows
        [(there,)] = self._run(
            f"UNWIND $rows AS row MATCH {pattern(kind)[0]} WHERE n.id = row[1] AND n._memferry = row[2] "
            "RETURN collect(row[0])",
            rows=[[row["number"], row["properties"]["id"], row["properties"]["_memferry"]] for row in rows],
        )
        written = set(there)
        return [row for row in rows if row["number"] not in written]

    def _put_nodes(self, kind: str, rows: Rows, *, fresh: bool, migration: str | None) -> None:
        made = (
            f"CREATE (n:{LABELS[kind]})"
            if fresh
            else f"MERGE (n:{LABELS[kind]} {{id: row[1].id}}) "
            "REMOVE n:$([x IN labels(n) WHERE x = n.type AND NOT x STARTS WITH 'Memferry'])"
        )
        # Vectors in single precision, as a vector index wants them.
        vectors = "WITH row, n UNWIND row[3] AS list CALL db.create.setNodeVectorProperty(n, list[0], list[1]) "
        for some, lists in (([r for r in rows if not r["lists"]], ""), ([r for r in rows if r["lists"]], vectors)):
            if not some:
                continue
            sent = [[row["number"], row["properties"], self._type_labels(row), row["lists"]] for row in some]
            [(applied,)] = self._run(
                f"UNWIND $rows AS row {made} SET n = row[1] SET n:$(row[2]) {lists}RETURN collect(row[0])",
                rows=sent,
            )
            _check_applied(kind, [row["number"] for row in some], applied)
        if migration is not None:
            self._note_vectors(kind, rows, migration)
        if kind == "observation":
            self._link(rows, fresh=fresh)

    def _type_labels(self, row: dict[str, Any]) -> list[str]:
        labels = type_label(row["properties"].get("type"))
        if labels and labels[0] not in self._labels:
            if len(self._labels) >= _MAX_TYPE_LABELS:
                return []
            self._labels.add(labels[0])
        return labels

    def _note_vectors(self, kind: str, rows: Rows, migration: str) -> None:
        # Once: the document is one for all pages, and they would wait for each other. In order, so that none deadlock.
        for name, dim in sorted({(name, len(values)) for row in rows for name, values in row["lists"]}):
            if (kind, name) not in self._noted:
                self._schema.note_vector(migration, self.documents, kind, name, dim)
                self._transactions.when_committed(lambda known=(kind, name): self._noted.add(known))  # type: ignore[misc]

    def _link(self, rows: Rows, *, fresh: bool) -> None:
        """Ties observations to their entities, as far as there are any: the owner's id is what counts."""
        sent = [
            [row["properties"]["id"], store_key(owner) if isinstance(owner, str) else None]
            for row in rows
            for owner in [row["properties"].get("owner_id")]
        ]
        if fresh:
            self._transactions.joins()
        else:
            self._transactions.take_turn()
            self._run(
                f"UNWIND $rows AS row MATCH (:{LABELS['observation']} {{id: row[0]}})-[l:{LINK}]->(e) "
                "WHERE row[1] IS NULL OR e.id <> row[1] DELETE l",
                rows=sent,
            )
        self._run(
            f"UNWIND $rows AS row MATCH (o:{LABELS['observation']} {{id: row[0]}}) "
            f"MATCH (e:{_ENTITY} {{id: row[1]}}) {'CREATE' if fresh else 'MERGE'} (o)-[:{LINK}]->(e)",
            rows=[row for row in sent if row[1] is not None],
        )

    def _put_relations(self, rows: Rows, *, fresh: bool) -> set[int]:
        """Writes relations between entities that are there; the numbers of the others."""
        sent = []
        ends: dict[str, int] = {}
        for row in rows:
            properties = row["properties"]
            start, end = properties.pop("from_id", None), properties.pop("to_id", None)
            if isinstance(start, str) and isinstance(end, str):
                places = [ends.setdefault(store_key(one), len(ends)) for one in (start, end)]
                sent.append([row["number"], *places, properties])
        # Hubs stand in many rows: each end is looked up once.
        between = (
            f"UNWIND $ends AS id OPTIONAL MATCH (e:{_ENTITY} {{id: id}}) WITH collect([e]) AS found "
            "UNWIND $rows AS row WITH row, found[row[1]][0] AS a, found[row[2]][0] AS b "
            "WHERE a IS NOT NULL AND b IS NOT NULL "
        )
        made = f"CREATE (a)-[r:{RELATION}]->(b)"
        if fresh:
            self._transactions.joins()
        else:
            self._transactions.take_turn()
            made = f"MERGE (a)-[r:{RELATION} {{id: row[3].id}}]->(b)"
            # A relationship cannot be given other ends.
            self._run(
                f"{between}MATCH ()-[r:{RELATION} {{id: row[3].id}}]->() "
                "WHERE startNode(r) <> a OR endNode(r) <> b DELETE r",
                ends=list(ends),
                rows=sent,
            )
        rows_applied = self._run(f"{between}{made} SET r = row[3] RETURN collect(row[0])", ends=list(ends), rows=sent)
        return {row["number"] for row in rows} - {number for (some,) in rows_applied for number in some}

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """Deletes relations first, then what they tied together. An entity with other relationships stays."""
        self._transactions.take_turn()
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
        return deleted

    def restore(self, records: Batch) -> None:
        """See `memferry.backends.api.Target`; the caller holds the transaction.

        What others had added is read as fields that nobody mapped, and becomes properties again.
        """
        self._transactions.take_turn()
        raw, rows, bad, _ = self._mapper.encode(records, accepted=self._accepted)
        lost = self._put(records, raw, rows, fresh=False, migration=None, spread=True)
        if bad or lost:
            raise StoreError("refused", f"{len(bad) + len(lost)} records could not be put back: an end is missing")

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
        """Drops the constraints and indexes that this migration made, where nobody is left to need them."""
        self._schema.drop_created(migration, self.documents)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def has_documents(url: StoreUrl) -> bool:
    """Whether there is a ledger in this database."""
    target = Neo4jTarget(url)
    try:
        return bool(target.documents.migrations())
    finally:
        target.close()


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def _check_applied(kind: str, sent: Iterable[int], applied: list[int]) -> None:
    missing = set(sent).difference(applied)
    if missing:
        raise StoreError("refused", f"Neo4j applied a statement to {len(missing)} {kind} rows less than it was given")
