"""Reading a graph of anyone, node by node and relationship by relationship, by the database's internal numbers.

Such a graph has no key that lasts: an element id is one only until its node is deleted, and another database gives
others. So what is read this way can be copied and proven, and is not synchronised from run to run.
"""

from __future__ import annotations

import json
from typing import Any, Final

from memferry._native import Batch, Mapper
from memferry.backends.neo4j.connection import Connection, guard
from memferry.backends.neo4j.layout import LEDGER, STORE
from memferry.backends.neo4j.values import PROPERTIES_AS_TEXT, UnknownValueError, canonical, escaped, tagged
from memferry.model import Limits, Page, Quarantined, Range

__all__ = ["LAST", "NODES", "RELATIONSHIPS", "PlainReader"]

NODES: Final = "nodes"
RELATIONSHIPS: Final = "relationships"

LAST: Final = {
    NODES: "MATCH (n) RETURN max(id(n))",
    RELATIONSHIPS: "MATCH ()-[n]->() RETURN max(id(n))",
}
"""The largest number there is."""

# A number is looked up at once; a range of numbers would be a scan of everything for every page.
_STATEMENTS: Final = {
    NODES: (
        "UNWIND range($start, $last) AS number MATCH (n) WHERE id(n) = number "
        f"AND NOT n:{LEDGER} AND NOT n:{STORE} "
        "RETURN number, elementId(n), properties(n), labels(n)"
    ),
    RELATIONSHIPS: (
        "UNWIND range($start, $last) AS number MATCH (a)-[n]->(b) WHERE id(n) = number "
        "RETURN number, elementId(n), properties(n), type(n), elementId(a), elementId(b)"
    ),
}
_AS_TEXT: Final = {
    NODES: f"MATCH (n) WHERE id(n) = $number RETURN {PROPERTIES_AS_TEXT}",
    RELATIONSHIPS: f"MATCH ()-[n]->() WHERE id(n) = $number RETURN {PROPERTIES_AS_TEXT}",
}
_FETCH: Final = 500

Row = tuple[str, bytes, list[Any]]


class PlainReader:
    """Reads pages of nodes or of relationships. The cursor is the number to go on at."""

    def __init__(self, connection: Connection, mapper: Mapper) -> None:
        self._connection = connection
        self._mapper = mapper
        self._last: dict[str, int] = {}

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
                result = session.run(_STATEMENTS[part.stream], start=start, last=at - 1)
                for number, *values in result:
                    rows.append(self._row(part.stream, number, *values))
                    size += len(rows[-1][1])
                    if size >= limits.size_bytes:
                        at = number + 1
                        break
                result.consume()
        records, bad, _ = self._mapper.decode(Batch.from_rows(rows))
        following = str(at) if at < until else None
        return Page(records, [Quarantined(*one) for one in bad], len(rows), 0, following)

    def _row(self, stream: str, number: int, key: str, properties: dict[str, Any], *rest: Any) -> Row:
        try:
            return _row(stream, key, properties, *rest)
        except UnknownValueError:
            [(named,)] = self._connection.read(_AS_TEXT[stream], number=number)
            return _row(stream, key, tagged(named), *rest)


def _row(stream: str, key: str, properties: dict[str, Any], *rest: Any) -> Row:
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
        body["$type"], body["$from"], body["$to"] = rest
    return key, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), []
