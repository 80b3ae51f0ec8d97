"""The ledger's documents: nodes `MemferryLedger`, one a migration and key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from memferry.backends.neo4j.layout import LEDGER

__all__ = ["Neo4jDocuments"]

_MAX_KEY_BYTES: Final = 4000


class Run(Protocol):
    """Runs a statement and gives its rows."""

    def __call__(self, text: str, *, writes: bool = True, **parameters: Any) -> list[list[Any]]: ...


def _composed(migration: str, key: str) -> str:
    """One property for the uniqueness constraint. A key that no index could hold keeps its start and gets a hash."""
    text = f"{migration}/{key}"
    data = text.encode()
    if len(data) <= _MAX_KEY_BYTES:
        return text
    return f"{data[: _MAX_KEY_BYTES // 2].decode(errors='ignore')}\uffff{hashlib.sha256(data).hexdigest()}"


class Neo4jDocuments:
    """Documents in nodes that no reader of memories sees.

    Args:
        run: Runs a statement, in the transaction of the page where there is one.
        prepare: Makes the constraint; called before the first document is written.
        in_transaction: Whether this thread holds a transaction.
    """

    def __init__(self, run: Run, prepare: Callable[[], None], in_transaction: Callable[[], bool]) -> None:
        self._run = run
        self._prepare = prepare
        self._in_transaction = in_transaction

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        self._prepare()
        self._run(
            f"MERGE (d:{LEDGER} {{key: $key}}) SET d.migration = $migration, d.name = $name, d.value = $value",
            key=_composed(migration, key),
            migration=migration,
            name=key,
            value=value,
        )

    def get(self, migration: str, key: str) -> str | None:
        """Reads a document. Who reads `lock` holds it until the transaction ends: nobody takes it over in between."""
        hold = "SET d.seen = timestamp() WITH d " if key == "lock" and self._in_transaction() else ""
        rows = self._run(
            f"MATCH (d:{LEDGER} {{key: $key}}) {hold}RETURN d.value",
            key=_composed(migration, key),
            writes=bool(hold),
        )
        return rows[0][0] if rows else None

    def scan(self, migration: str, prefix: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Documents whose key starts with `prefix`, in key order, after `after`."""
        # Bounds of the index itself, as for records: see `page_statement`.
        first, last = _composed(migration, prefix), _composed(migration, after)
        follows = last.encode() >= first.encode()
        rows = self._run(
            f"MATCH (d:{LEDGER}) USING INDEX SEEK d:{LEDGER}(key) "
            f"WHERE d.key {'>' if follows else '>='} $start AND d.key < $until "
            "RETURN d.name, d.value ORDER BY d.key LIMIT $limit",
            start=last if follows else first,
            until=f"{first[:-1]}{chr(ord(first[-1]) + 1)}",
            limit=limit,
            writes=False,
        )
        return [(name, value) for name, value in rows]

    def delete(self, migration: str, prefix: str) -> None:
        """Deletes documents whose key starts with `prefix`."""
        self._run(
            f"MATCH (d:{LEDGER}) WHERE d.key STARTS WITH $prefix DELETE d",
            prefix=_composed(migration, prefix),
        )

    def migrations(self) -> list[str]:
        """Migrations that have documents."""
        rows = self._run(
            f"MATCH (d:{LEDGER}) RETURN DISTINCT d.migration AS migration ORDER BY migration",
            writes=False,
        )
        return [migration for (migration,) in rows]
