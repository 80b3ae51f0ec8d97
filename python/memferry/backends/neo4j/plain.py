"""Reading a graph of anyone, node by node and relationship by relationship, by the database's internal numbers.

Such a graph has no key that lasts: an element id is one only until its node is deleted, and another database gives
others. So what is read this way can be copied and proven, and is not synchronised from run to run, unless a property
is named that holds an id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Final

from memferry import profiles
from memferry._native import Batch, Mapper
from memferry.backends.neo4j.connection import Connection, guard
from memferry.backends.neo4j.layout import LEDGER, STORE
from memferry.backends.neo4j.values import PROPERTIES, PROPERTIES_AS_TEXT, UnknownValueError, canonical, escaped, tagged
from memferry.model import Limits, Page, Quarantined, Range

__all__ = [
    "LAST",
    "NODES",
    "RELATIONSHIPS",
    "RETURNED",
    "PlainReader",
    "Row",
    "plain_identity",
    "plain_mapper",
    "raw_row",
]

NODES: Final = "nodes"
RELATIONSHIPS: Final = "relationships"

LAST: Final = {
    NODES: "MATCH (n) RETURN max(id(n))",
    RELATIONSHIPS: "MATCH ()-[n]->() RETURN max(id(n))",
}
"""The largest number there is."""

# A number is looked up at once; a range of numbers would be a scan of everything for every page.
RETURNED: Final = {
    NODES: "elementId(n), %s, labels(n)",
    RELATIONSHIPS: "elementId(n), %s, type(n), "
    "CASE WHEN $key IS NULL THEN elementId(a) ELSE a[$key] END, "
    "CASE WHEN $key IS NULL THEN elementId(b) ELSE b[$key] END",
}
"""What is read of each, with the place for `PROPERTIES` or `PROPERTIES_AS_TEXT`."""

_STATEMENTS: Final = {
    NODES: (
        "UNWIND range($start, $last) AS number MATCH (n) WHERE id(n) = number "
        f"AND NOT n:{LEDGER} AND NOT n:{STORE}%s RETURN number, {RETURNED[NODES]}"
    ),
    RELATIONSHIPS: (
        "UNWIND range($start, $last) AS number MATCH (a)-[n]->(b) WHERE id(n) = number%s "
        f"RETURN number, {RETURNED[RELATIONSHIPS]}"
    ),
}
_FETCH: Final = 500

Row = tuple[str, bytes, list[Any]]


def plain_identity(connection: Connection, key: str | None) -> str:
    """Names the graph. With another key the same nodes are other records."""
    return connection.identity + (f"#{key}" if key else "")


def plain_mapper(key: str | None) -> Mapper:
    """The profile, with ids in a property where one is named; that holds no other field then."""
    table = json.loads(files(profiles).joinpath("plain-node.json").read_text("utf-8"))
    for kind in table["kinds"] if key is not None else ():
        path = escaped(str(key))
        kind["id"] = {"path": path}
        kind["fields"] = [row for row in kind["fields"] if row["path"] != path]
        if kind["vectors"] == {"floats": path}:
            kind["vectors"] = "none"
    return Mapper(json.dumps(table), True)  # noqa: FBT003 - bodies are canonical text


class PlainReader:
    """Reads pages of nodes or of relationships. The cursor is the number to go on at.

    Args:
        connection: The database.
        mapper: The profile.
        key: Property that holds ids.
        only_keyed: Leave out what has no id there: in a target it is none of our records.
    """

    def __init__(
        self, connection: Connection, mapper: Mapper, key: str | None = None, *, only_keyed: bool = False
    ) -> None:
        self._connection = connection
        self._mapper = mapper
        self._key = key
        self._only = " AND n[$key] IS :: STRING NOT NULL" if only_keyed else ""
        self._last: dict[str, int] = {}
        self._properties = PROPERTIES

    def _until(self, part: Range) -> int:
        """The number after the last one."""
        if part.end is not None:
            return int(part.end)
        if part.stream not in self._last:
            [(last,)] = self._connection.read(LAST[part.stream])
            self._last[part.stream] = -1 if last is None else last
        return self._last[part.stream] + 1

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        until, at = self._until(part), int(cursor or part.start or 0)
        rows: list[Row] = []
        size = 0
        with guard(), self._connection.session(read_only=True, fetch_size=_FETCH) as session:
            # Deleted numbers are skipped until something is found.
            while at < until and not rows:
                start, at = at, min(at + limits.records, until)
                text = _STATEMENTS[part.stream] % (self._only, self._properties)
                result = session.run(text, start=start, last=at - 1, key=self._key)
                try:
                    for number, *values in result:
                        rows.append(raw_row(part.stream, values))
                        size += len(rows[-1][1])
                        if size >= limits.size_bytes:
                            at = number + 1
                            break
                except UnknownValueError:
                    if self._properties == PROPERTIES_AS_TEXT:
                        raise
                    # Once more from here, and then on: where there is one, there are more.
                    self._properties, rows, size, at = PROPERTIES_AS_TEXT, [], 0, start
                result.consume()
        records, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        following = str(at) if at < until else None
        return Page(records, [Quarantined(*one) for one in bad], len(rows), 0, following)


def raw_row(stream: str, values: Sequence[Any]) -> Row:
    """A row of `RETURNED` as the mapper reads it.

    Raises:
        UnknownValueError: It has to be read with `PROPERTIES_AS_TEXT`.
    """
    key, properties, *rest = values
    properties = tagged(properties) if isinstance(properties, list) else properties
    properties.pop("_memferry", None)
    body = {escaped(name): canonical(value) for name, value in properties.items()}
    if stream == NODES:
        (labels,) = rest
        body["$kind"] = "entity"
        # One label is the type; which of several would be is for the reader to say.
        if len(labels) == 1:
            body["$type"] = labels[0]
        else:
            body["$labels"] = sorted(labels)
    else:
        body["$kind"] = "relation"
        body["$type"], *ends = rest
        # An end without the property that holds ids has none.
        body |= {name: end for name, end in zip(("$from", "$to"), map(canonical, ends), strict=True) if end is not None}
    return key, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), []
