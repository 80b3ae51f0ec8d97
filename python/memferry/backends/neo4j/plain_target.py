"""Writing into a graph of others: types become labels and relationship types, fields properties, nothing of ours.

Its records are found again by the property that holds their ids (`?key=`), which no index of ours may cover: a run
keeps the database's number of every node that has one, and each statement checks that the number still is that node.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from memferry._native import Batch, Mapper
from memferry.backends.api import Source
from memferry.backends.neo4j.connection import Connection
from memferry.backends.neo4j.layout import LEDGER, STORE
from memferry.backends.neo4j.plain import (
    NODES,
    RELATIONSHIPS,
    RETURNED,
    Row,
    plain_identity,
    plain_mapper,
    raw_row,
)
from memferry.backends.neo4j.plain_rows import PlainRow, PlainRows, usable
from memferry.backends.neo4j.source import TargetSource
from memferry.backends.neo4j.transactions import Transactions
from memferry.backends.neo4j.values import PROPERTIES, PROPERTIES_AS_TEXT, UnknownValueError
from memferry.backends.state import MarkedSource, State
from memferry.errors import RefusedError, StoreError, TransientError
from memferry.failpoints import failpoint
from memferry.model import Quarantined, Range, VectorSpec
from memferry.urls import StoreUrl

__all__ = ["Neo4jPlainTarget", "has_state"]

_ROWS: Final = 5000
_STREAMS: Final = {"entity": NODES, "relation": RELATIONSHIPS}
_PATTERNS: Final = {"entity": "(n)", "relation": "(a)-[n]->(b)"}


class Neo4jPlainTarget:
    """A graph in a layout that is not ours.

    Args:
        url: The store, with the property that holds ids.
        accepted: Gaps that may be dropped.
        scratch: A folder for ledger and journal where nothing is to be written yet.
    """

    backend = "neo4j"
    profile = "plain"
    native = False
    resume: Literal["page", "range"] = "page"
    ordered = True
    fences = False

    def __init__(self, url: StoreUrl, accepted: tuple[str, ...] = (), scratch: Path | None = None) -> None:
        if url.key is None:
            raise RefusedError(
                "profile",
                "a graph of others has no key that lasts, so what is written there could not be found again",
                hint="name the property that is to hold the ids: neo4j://...?profile=plain&key=id",
            )
        if not usable(url.key):
            raise RefusedError("url", f"no name for a property: {url.key!r}")
        self._url = url
        self._key = url.key
        self._mapper: Mapper = plain_mapper(url.key)
        self._rows = PlainRows(self._mapper, list(accepted))
        self._connection = Connection(url)
        self._transactions = Transactions(self._connection)
        self._run = self._transactions.run
        self._numbers: dict[str, dict[str, int]] = {}
        self._shared: set[str] = set()
        self._scanning = threading.Lock()
        self.identity = plain_identity(self._connection, url.key)
        self._state = State(self.identity, scratch)
        self.documents = self._state.documents

    def source(self) -> Source:
        """The same graph, to be read, with the markers it has no place for."""
        return MarkedSource(TargetSource(self._url, self._connection), self._state)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The ledger is elsewhere: what is written is committed before it is booked."""
        yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._transactions.open():
                yield
        except TransientError:
            # It may have been committed: what is there now has to be looked for.
            self._numbers = {}
            raise

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:
        """Nothing is made in a graph of others: constraints and indexes are its owner's."""

    def begin_range(self, part: Range) -> None:
        """Nothing to do: pages go straight into the graph."""

    def end_range(self, part: Range) -> None:
        """Nothing to do: every page was committed."""

    def image(self, records: Batch) -> Batch:
        """The records as this graph will give them back."""
        return self._rows.decoded(self._rows.of(records)[0])

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """See `memferry.backends.api.Target`."""
        return self._rows.gaps(records)

    def fit(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """The records that this graph holds, and those that it cannot."""
        return self._rows.fit(records)

    def filed(self, records: Batch) -> list[tuple[str, str]]:
        """Ids are kept, in the property that was named."""
        return records.identities()

    def filed_under(self, identities: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """See `memferry.backends.api.Foreign`."""
        return identities

    # --- reading and writing

    def _known(self, kind: str) -> dict[str, int]:
        """The database's numbers by id."""
        with self._scanning:
            if kind not in self._numbers:
                ours = f" AND NOT n:{LEDGER} AND NOT n:{STORE}" if kind == "entity" else ""
                text = f"MATCH {_PATTERNS[kind]} WHERE n[$key] IS :: STRING NOT NULL{ours} RETURN n[$key], id(n)"
                rows = self._connection.read(text, key=self._key)
                self._numbers[kind] = {row[0]: row[1] for row in rows}
                if kind == "entity":
                    counts = Counter(row[0] for row in rows) if len(rows) > len(self._numbers[kind]) else {}
                    self._shared = {identity for identity, count in counts.items() if count > 1}
            return self._numbers[kind]

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        return self._state.mark(self._held(records.identities()))

    def _held(self, identities: list[tuple[str, str]]) -> Batch:
        """What there is under these kinds and ids."""
        found = []
        for kind in _STREAMS:
            known = self._known(kind)
            asked = [(i, known[i]) for k, i in identities if k == kind and i in known]
            for some in _slices(asked):
                found += self._read(kind, [list(pair) for pair in some])
        held, bad, _ = self._mapper.decode(Batch.from_rows(found))
        if bad:
            raise StoreError("store-corrupt", f"{len(bad)} records cannot be read back, first {bad[0][0]}: {bad[0][4]}")
        return held

    def _lasting(self, identities: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """What there is under these ids and could not be put back once it is written over or deleted; why."""
        rows, bad = self._rows.of(self._held(identities))
        found = {(row.kind, row.id): why for row in rows if (why := self._lacking(row))}
        return found | {(row.kind or "", row.id or ""): row.message for row in bad}

    def _lacking(self, row: PlainRow) -> str | None:
        """Why this cannot be put back as it was."""
        if row.kind == "relation" and any(end is None or end in self._shared for end in row.ends):
            return f"an end of it has no `{self._key}` of its own, so it would not be found again"
        return f"it has what this driver cannot write: {', '.join(sorted(row.altered))}" if row.altered else None

    def _read(self, kind: str, asked: list[list[Any]]) -> list[Row]:
        """What there is under ids and numbers, as the mapper reads it."""
        for properties in (PROPERTIES, PROPERTIES_AS_TEXT):
            rows = self._run(
                f"UNWIND $rows AS row MATCH {_PATTERNS[kind]} WHERE id(n) = row[1] AND n[$key] = row[0] "
                f"RETURN {RETURNED[_STREAMS[kind]] % properties}",
                rows=asked,
                key=self._key,
                writes=False,
            )
            with suppress(UnknownValueError):
                return [raw_row(_STREAMS[kind], values) for values in rows]
        raise StoreError("store-format", "a property has a type this driver cannot read")

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`; committed when it returns."""
        records, quarantined = self.fit(records)
        rows, _ = self._rows.of(records)
        lasting = {} if fresh else self._lasting(records.identities())
        stays = {row.row: why for row in rows if (why := lasting.get((row.kind, row.id)))}
        rows = [row for row in rows if row.row not in stays]
        images = self._rows.decoded(rows)
        self._state.intend(images, migration)
        failpoint("intended")
        with self._transaction():
            lost = self._put(rows, fresh=fresh and not self._transactions.doubtful)
        failpoint("acknowledged")
        self._state.confirm(images.filter(bytes(row.row not in lost for row in rows)), migration)
        missing = Mapper.quarantine(
            records.filter(bytes(number in lost for number in range(len(records)))),
            "missing-end",
            "the entity it comes from or the one it goes to is not in the target",
        )
        for number, why in stays.items():
            message = f"what is in its place could not be put back by a rollback: {why}; it is not written over"
            missing += Mapper.quarantine(records.take([number]), "conflict", message)
        return [*quarantined, *(Quarantined(*row) for row in missing)]

    def _put(self, rows: list[PlainRow], *, fresh: bool) -> set[int]:
        """Writes within the open transaction; the numbers of relations without ends."""
        lost: set[int] = set()
        for some in _slices([row for row in rows if row.kind == "entity"]):
            self._put_nodes(some, fresh=fresh)
        for some in _slices([row for row in rows if row.kind == "relation"]):
            lost |= self._put_relations(some, fresh=fresh)
        return lost

    def _put_nodes(self, rows: list[PlainRow], *, fresh: bool) -> None:
        known = {} if fresh else self._known("entity")
        for there in (False, True):
            sent = [
                [row.row, row.id, row.properties, row.names, known.get(row.id)]
                for row in rows
                if (row.id in known) == there
            ]
            if not sent:
                continue
            found = (
                "MATCH (n) WHERE id(n) = row[4] AND n[$key] = row[1] REMOVE n:$(labels(n))" if there else "CREATE (n)"
            )
            applied = self._run(
                f"UNWIND $rows AS row {found} SET n = row[2] SET n:$(row[3]) RETURN row[0], row[1], id(n)",
                rows=sent,
                key=self._key,
            )
            if len(applied) != len(sent):
                raise TransientError("unavailable", f"Neo4j: {len(sent) - len(applied)} nodes went away meanwhile")
            self._learn("entity", applied)

    def _put_relations(self, rows: list[PlainRow], *, fresh: bool) -> set[int]:
        nodes = self._known("entity")
        sent = [
            [row.row, row.id, row.properties, row.names[0], start, nodes[start], end, nodes[end]]
            for row in rows
            for start, end in [row.ends]
            if start in nodes and end in nodes
        ]
        if fresh:
            self._transactions.joins()
        else:
            # Only what comes back: one whose new end is missing stays as it is.
            self._take("relation", [str(row[1]) for row in sent])
        applied = self._run(
            "UNWIND $rows AS row MATCH (a) WHERE id(a) = row[5] AND a[$key] = row[4] "
            "MATCH (b) WHERE id(b) = row[7] AND b[$key] = row[6] "
            "CREATE (a)-[n:$(row[3])]->(b) SET n = row[2] RETURN row[0], row[1], id(n)",
            rows=sent,
            key=self._key,
        )
        if len(applied) != len(sent):
            gone = len(sent) - len(applied)
            raise TransientError("unavailable", f"Neo4j: ends of {gone} relations went away meanwhile")
        self._learn("relation", applied)
        return {row.row for row in rows} - {row for row, _, _ in applied}

    def _learn(self, kind: str, applied: list[list[Any]]) -> None:
        def learn() -> None:
            if kind in self._numbers:
                self._numbers[kind].update((identity, number) for _, identity, number in applied)

        self._transactions.when_committed(learn)

    def _take(self, kind: str, identities: list[str]) -> int:
        """Deletes what there is under these ids, but for nodes that have relationships; how many."""
        self._transactions.take_turn()
        known, taken = self._known(kind), 0
        spared = " AND NOT EXISTS { (n)--() }" if kind == "entity" else ""
        for some in _slices([[one, known[one]] for one in identities if one in known]):
            [(gone,)] = self._run(
                f"UNWIND $rows AS row MATCH {_PATTERNS[kind]} WHERE id(n) = row[1] AND n[$key] = row[0]{spared} "
                "DELETE n RETURN collect(row[0])",
                rows=some,
                key=self._key,
            )
            taken += len(gone)
            self._transactions.when_committed(partial(_forget, known, gone))
        return taken

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """Deletes relations first; how many records are gone.

        An entity that has relationships of others stays, and so does what could not be put back.
        """
        with self._transaction():
            lasting = self._lasting(identities)
            asked = [one for one in identities if one not in lasting]
            deleted = sum(self._take(kind, [i for k, i in asked if k == kind]) for kind in ("relation", "entity"))
        # What stays is still ours: a later run deletes it, or a rollback does.
        self._state.forget([(kind, identity) for kind, identity in identities if identity not in self._known(kind)])
        return deleted

    def restore(self, records: Batch) -> None:
        """Writes records back as they were; those that `write` left as they are stay.

        Raises:
            StoreError: `refused`, one cannot be put back as it was.
        """
        rows, bad = self._rows.of(records)
        lacking = {row.row: why for row in rows if (why := self._lacking(row))}
        self._check_untouched(records.take(sorted(lacking)), list(lacking.values()))
        rows = [row for row in rows if row.row not in lacking]
        self._state.release(self._rows.decoded(rows))
        # One after the other: numbers of nodes are known once they are committed.
        for kind in _STREAMS:
            with self._transaction():
                lost = self._put([row for row in rows if row.kind == kind], fresh=False)
                if bad or lost:
                    message = f"{len(bad) + len(lost)} records could not be put back: an end is missing"
                    raise StoreError("refused", message)

    def _check_untouched(self, records: Batch, why: list[str]) -> None:
        """Refuses unless these stand in the graph as they are here."""
        held = self._held(records.identities())
        there = dict(zip(held.identities(), held.digests(), strict=True))
        for row, one in enumerate(zip(records.identities(), records.digests(), strict=True)):
            (kind, identity), digest = one
            if there.get((kind, identity)) != digest:
                raise StoreError("refused", f"{kind} {identity!r} cannot be put back as it was: {why[row]}")

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """Nothing to do: constraints and indexes are the owner's."""

    def drop_created(self, migration: str) -> None:
        """Drops what is known of the migration; in the graph nothing was made."""
        self._state.drop(migration)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def has_state(url: StoreUrl) -> bool:
    """Whether there is a ledger of this graph in the state directory."""
    connection = Connection(url)
    try:
        return State.exists(plain_identity(connection, url.key))
    finally:
        connection.close()


def _forget(known: dict[str, int], gone: list[str]) -> None:
    for identity in gone:
        known.pop(identity, None)


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]
