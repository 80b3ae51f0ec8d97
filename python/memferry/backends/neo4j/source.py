"""Reading a graph: our own records by their ids, or any graph of others node by node."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from memferry._native import Batch, Mapper
from memferry.backends.api import Reader
from memferry.backends.neo4j.connection import Connection, guard
from memferry.backends.neo4j.layout import FORMAT, LABELS, LEDGER, RELATION, STORE, from_properties
from memferry.backends.neo4j.plain import LAST, NODES, RELATIONSHIPS, PlainReader, plain_identity, plain_mapper
from memferry.backends.neo4j.values import PROPERTIES, PROPERTIES_AS_TEXT, UnknownValueError, tagged
from memferry.errors import RefusedError
from memferry.model import KINDS, Limits, Page, Quarantined, Range, Stream
from memferry.profiles import load_mapper
from memferry.urls import StoreUrl

__all__ = ["Neo4jReader", "Neo4jSource", "check_format", "pattern", "raw_row"]

PROFILES: Final = ("native", "plain")
RawRow = tuple[str, bytes, list[Any]]

_FETCH: Final = 500
"""Rows the driver asks for at a time: a page that is full in bytes leaves at most these unread."""


def pattern(kind: str, properties: str = PROPERTIES) -> tuple[str, str]:
    """How records of a kind are matched, and what is returned of them for `raw_row`: id, properties, ends."""
    if kind == "relation":
        returned = f"n.id, {properties}, coalesce(a.full_id, a.id), coalesce(b.full_id, b.id)"
        return f"(a)-[n:{RELATION}]->(b)", returned
    return f"(n:{LABELS[kind]})", f"n.id, {properties}"


def page_statement(kind: str, *, after: bool, until: bool, properties: str = PROPERTIES) -> str:
    """Reads a page in the order of the constraint's index.

    Both bounds have to be looked for in the index: it compares texts by their bytes, a filter behind it by UTF-16.
    """
    matched, returned = pattern(kind, properties)
    upper = " AND n.id < $until" if until else ""
    return (
        f"MATCH {matched} {hint(kind)} WHERE n.id {'>' if after else '>='} $start{upper} "
        f"RETURN {returned} ORDER BY n.id LIMIT $limit"
    )


def hint(kind: str) -> str:
    """Keeps the planner from what may look cheaper on the day it plans."""
    return f"USING INDEX SEEK n:{RELATION if kind == 'relation' else LABELS[kind]}(id)"


def check_format(connection: Connection) -> int:
    """Format of our records in this database, 0 where there are none.

    Raises:
        RefusedError: `format-newer`.
    """
    [(found,)] = connection.read(f"MATCH (s:{STORE}) RETURN coalesce(max(s.format), 0)")
    if found > FORMAT:
        raise RefusedError("format-newer", f"records of format {found}, this memferry knows {FORMAT}")
    return int(found)


class Neo4jSource:
    """A Neo4j database, read-only.

    With profile `native` one stream a kind, keys are ids. With `plain` two streams, nodes and relationships of anyone,
    keys are the database's internal numbers.

    Args:
        url: The store.
        connection: A connection to share instead of an own one.
    """

    backend = "neo4j"

    def __init__(self, url: StoreUrl, connection: Connection | None = None) -> None:
        if url.profile not in PROFILES:
            raise RefusedError(
                "profile", f"no profile `{url.profile}` for Neo4j stores, allowed: {', '.join(PROFILES)}"
            )
        self.profile = url.profile
        self.native = url.profile == "native"
        self._key = None if self.native else url.key
        self._mapper: Mapper = load_mapper("native", "node") if self.native else plain_mapper(url.key)
        self._owned = connection is None
        self._connection = connection or Connection(url)
        self.identity = plain_identity(self._connection, self._key)
        if self._owned:
            with ExitStack() as unless_ours:
                unless_ours.callback(self.close)
                self._check(url)
                unless_ours.pop_all()

    def _check(self, url: StoreUrl) -> None:
        found = check_format(self._connection)
        if not self.native:
            return
        used = {(LABELS | {"relation": RELATION})[stream.name] for stream in self.streams() if stream.rows}
        if not found and not used:
            raise RefusedError(
                "store-missing",
                f"there are no records of memferry in {url.text}",
                hint="profile `plain` reads a graph of any kind",
            )
        constrained = self._connection.read(
            "SHOW CONSTRAINTS YIELD labelsOrTypes, properties WHERE properties = ['id'] RETURN labelsOrTypes[0]",
        )
        missing = used - {name for (name,) in constrained}
        if missing:
            raise RefusedError(
                "store-format",
                f"the uniqueness constraints on `id` of {', '.join(sorted(missing))} are gone",
                hint="docs/neo4j.md has the statements that make them",
            )
        for label in LABELS.values():
            [(odd,)] = self._connection.read(f"MATCH (n:{label}) WHERE NOT n.id IS :: STRING NOT NULL RETURN count(n)")
            if odd:
                raise RefusedError("store-format", f"{odd} nodes labelled {label} have no text as their id")

    def streams(self) -> list[Stream]:
        """See `memferry.backends.api.Source`; the counts are the database's own."""
        if self.native:
            return [Stream(kind, (kind,), self._count(f"MATCH {pattern(kind)[0]}", "n")) for kind in KINDS]
        nodes = self._count("MATCH (n)", "n") - sum(self._count(f"MATCH (n:{x})", "n") for x in (LEDGER, STORE))
        return [
            Stream(NODES, ("entity",), nodes),
            Stream(RELATIONSHIPS, ("relation",), self._count("MATCH ()-[r]->()", "r")),
        ]

    def _count(self, matched: str, name: str) -> int:
        [(count,)] = self._connection.read(f"{matched} RETURN count({name})")
        return int(count)

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """Cuts at ids so that slices hold about as many records each."""
        cuts = self._id_cuts(stream, parts) if self.native else self._number_cuts(stream, parts)
        return list(zip([None, *cuts], [*cuts, None], strict=True))

    def _id_cuts(self, stream: Stream, parts: int) -> list[str]:
        step = -(-(stream.rows or 0) // parts)
        if parts < 2 or step < 1:
            return []
        matched, _ = pattern(stream.name)
        cuts: list[str] = []
        while len(cuts) < parts - 1:
            rows = self._connection.read(
                f"MATCH {matched} {hint(stream.name)} WHERE n.id >= $start "
                "RETURN n.id ORDER BY n.id SKIP $step LIMIT 1",
                start=cuts[-1] if cuts else "",
                step=step,
            )
            if not rows:
                break
            cuts.append(rows[0][0])
        return cuts

    def _number_cuts(self, stream: Stream, parts: int) -> list[str]:
        [(last,)] = self._connection.read(LAST[stream.name])
        if last is None or parts < 2:
            return []
        step = max(1, -(-(last + 1) // parts))
        return [str(number) for number in range(step, last + 1, step)]

    def reader(self) -> Reader:
        """A reader with sessions of its own."""
        if self.native:
            return Neo4jReader(self._connection, self._mapper, strict=self._owned)
        return PlainReader(self._connection, self._mapper, self._key, only_keyed=not self._owned)

    def witness(self) -> None:
        """Nothing: ranges are of keys, and hold however the store changes."""

    def close(self) -> None:
        """Ends the connection, unless it is shared."""
        if self._owned:
            self._connection.close()


class TargetSource(Neo4jSource):
    """What a target holds, over the target's connection."""

    def streams(self) -> list[Stream]:
        """The kinds in the order in which they can be deleted: relations before their ends."""
        return super().streams()[::-1]


class Neo4jReader:
    """Reads pages of one kind by id.

    Args:
        connection: To the database.
        mapper: Of the native profile.
        strict: Whether a record whose `vectors` say none any more goes into quarantine. Where not, they are given as
            a field that nobody mapped: for a target that is looked at, and for an application.
    """

    def __init__(self, connection: Connection, mapper: Mapper, *, strict: bool) -> None:
        self._connection = connection
        self._mapper = mapper
        self._strict = strict
        self._properties = PROPERTIES

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`. The cursor is the last id that was read."""
        with guard():
            if self._properties == PROPERTIES:
                with suppress(UnknownValueError):
                    return self._read(part, cursor, limits)
                # From now on: where there is one, there are more.
                self._properties = PROPERTIES_AS_TEXT
            return self._read(part, cursor, limits)

    def _read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        start = cursor if cursor is not None else part.start or ""
        text = page_statement(
            part.stream, after=cursor is not None, until=part.end is not None, properties=self._properties
        )
        rows: list[RawRow] = []
        torn: list[RawRow] = []
        size, last, more = 0, start, False
        with self._connection.session(read_only=True, fetch_size=_FETCH) as session:
            result = session.run(text, start=start, until=part.end, limit=limits.records)
            for record in result:
                last = record[0]
                row, whole = raw_row(part.stream, record.values())
                (rows if whole or not self._strict else torn).append(row)
                size += len(row[1]) + sum(len(vector[6]) for vector in row[2])
                if size >= limits.size_bytes:
                    more = True
                    break
            result.consume()
        records, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        if torn:
            bad = [*bad, *self._torn(torn)]
        read = len(rows) + len(torn)
        following = last if more or read == limits.records else None
        return Page(records, [Quarantined(*one) for one in bad], read, 0, following)

    def _torn(self, rows: list[RawRow]) -> list[Any]:
        """Records that are read but for their vectors, as rows of the quarantine."""
        records, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        message = "the property `vectors`, or a list of numbers that it names, is not as memferry writes it"
        return [*bad, *Mapper.quarantine(records, "bad-vector", message)]


def raw_row(kind: str, values: Sequence[Any]) -> tuple[RawRow, bool]:
    """A row of `pattern` as the mapper reads it, and whether all that was said of vectors could be read.

    Raises:
        UnknownValueError: It has to be read with `PROPERTIES_AS_TEXT`.
    """
    _, properties, *ends = values
    properties = tagged(properties) if isinstance(properties, list) else dict(properties)
    row = from_properties(kind, properties, **dict(zip(("from_id", "to_id"), ends, strict=False)))
    return row, "vectors" not in properties
