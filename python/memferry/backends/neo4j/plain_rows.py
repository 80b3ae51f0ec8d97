"""What a graph of others makes of records: labels and types, properties that it can hold, and what it cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from memferry._native import Batch, Mapper
from memferry.backends.neo4j.values import UnheldError, canonical, escaped, native, unescaped
from memferry.model import Quarantined

__all__ = ["PlainRow", "PlainRows", "usable"]

_MAX_NAME_CHARS: Final = 1000
_UNTYPED: Final = "RELATED_TO"
"""A relationship has to have a type."""


@dataclass
class PlainRow:
    """A record on its way: `row` is its number in the batch, `altered` names what the graph cannot hold of it."""

    row: int
    kind: str
    id: str
    properties: dict[str, Any]
    names: list[str]
    ends: tuple[str | None, str | None]
    altered: set[str]

    def body(self) -> bytes:
        """What the reader will make of it; see `plain.raw_row`."""
        said: dict[str, Any] = {escaped(name): canonical(value) for name, value in self.properties.items()}
        said["$kind"] = self.kind
        if self.kind == "relation":
            said["$type"] = self.names[0]
            said |= {name: end for name, end in zip(("$from", "$to"), self.ends, strict=True) if end is not None}
        elif len(self.names) == 1:
            said["$type"] = self.names[0]
        else:
            said["$labels"] = sorted(self.names)
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def usable(name: Any) -> bool:
    """Whether Neo4j takes it as a label, a type or the name of a property."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS and "\0" not in name


class PlainRows:
    """Makes rows of records.

    Args:
        mapper: The profile.
        accepted: Gaps that may be dropped.
    """

    def __init__(self, mapper: Mapper, accepted: list[str]) -> None:
        self._mapper = mapper
        self._accepted = accepted

    def of(self, records: Batch) -> tuple[list[PlainRow], list[Quarantined]]:
        """Rows, and what is none: it has a gap that was not accepted."""
        raw, numbers, bad, _ = self._mapper.encode(records, accepted=self._accepted)
        identities = records.identities()
        rows = [
            self._row(number, *identities[number], json.loads(body))
            for number, (_, body, _) in zip(numbers, raw.rows(), strict=True)
        ]
        return rows, [Quarantined(*row) for row in bad]

    def decoded(self, rows: list[PlainRow]) -> Batch:
        """The records that the graph will give back for these."""
        return self._mapper.decode(Batch.from_rows([(row.id, row.body(), []) for row in rows]))[0]

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """See `memferry.backends.api.Target`."""
        found = {name: (count, first) for name, count, first in self._mapper.gaps(records)}
        # With every gap of the mapper accepted, those of the graph itself can be seen.
        every = [name for name in found if name not in self._accepted]
        raw, numbers, _, _ = self._mapper.encode(records, accepted=[*self._accepted, *every])
        identities = records.identities()
        for number, (_, body, _) in zip(numbers, raw.rows(), strict=True):
            row = self._row(number, *identities[number], json.loads(body))
            for name in row.altered:
                count, first = found.get(name, (0, row.id))
                found[name] = (count + 1, first)
        return [(name, count, first) for name, (count, first) in sorted(found.items())]

    def fit(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """The records that this graph holds, and those that it cannot."""
        rows, bad = self.of(records)
        fitting = [row for row in rows if row.altered <= set(self._accepted)]
        for row in rows:
            lacking = sorted(row.altered - set(self._accepted))
            if lacking:
                message = f"the target cannot hold: {', '.join(lacking)}"
                bad += [Quarantined(*one) for one in Mapper.quarantine(records.take([row.row]), "gap", message)]
        return records.take([row.row for row in fitting]), bad

    def _row(self, number: int, kind: str, identity: str, body: dict[str, Any]) -> PlainRow:
        properties: dict[str, Any] = {}
        names: list[str] = []
        altered: set[str] = set()
        for path, value in body.items():
            if path in {"$kind", "$from", "$to"}:
                continue
            if path in {"$type", "$labels"}:
                said = value if path == "$labels" and isinstance(value, list) else [value]
                names += [name for name in said if usable(name) and name not in names]
                if not all(map(usable, said)) or (path == "$labels" and kind == "relation"):
                    altered.add("types")
                continue
            try:
                if path.startswith("$") and not path.startswith("$$"):
                    raise UnheldError  # noqa: TRY301 - as what no property holds
                if not usable(unescaped(path)):
                    raise UnheldError  # noqa: TRY301
                properties[unescaped(path)] = native(value)
            except UnheldError:
                altered.add("extra-fields")
        if kind == "relation":
            altered |= set() if names[:1] == [body.get("$type")] else {"types"}
            names = names[:1] or [_UNTYPED]
        elif "$type" in body and len(names) != 1:
            altered.add("types")  # A node with several labels is read as one without a type.
        return PlainRow(number, kind, identity, properties, names, (body.get("$from"), body.get("$to")), altered)
