"""The ledger's documents: nodes `MemferryLedger`, one a migration and key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from memferry.backends.api import is_lock
from memferry.backends.neo4j.layout import LEDGER
from memferry.backends.neo4j.transactions import SLOTS, Transactions

__all__ = ["Neo4jDocuments"]

_MAX_KEY_BYTES: Final = 4000


def _composed(migration: str, key: str) -> str:
    """One property for the uniqueness constraint. A key that no index could hold keeps its start and gets a hash."""
    text = f"{migration}/{key}"
    data = text.encode()
    if len(data) <= _MAX_KEY_BYTES:
        return text
    return f"{data[: _MAX_KEY_BYTES // 2].decode(errors='ignore')}\uffff{hashlib.sha256(data).hexdigest()}"


def _copy(lock: str, slot: int) -> str:
    """Name of the copy of a lock that a transaction looks at."""
    return lock if slot % SLOTS == 0 else f"{lock}/{slot % SLOTS}"


class Neo4jDocuments:
    """Documents in nodes that no reader of memories sees.

    A lock stands there once for each of `SLOTS` transactions: who reads it in a transaction holds a copy
    of its own to the end, who writes it needs them all. So nobody takes it over while one that has looked at it is at
    work, and those do not wait for each other.

    Args:
        transactions: Runs statements, in the transaction of the page where there is one.
        prepare: Makes the constraint; called before the first document is written.
    """

    def __init__(self, transactions: Transactions, prepare: Callable[[], None]) -> None:
        self._transactions = transactions
        self._run = transactions.run
        self._prepare = prepare

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        self._prepare()
        names = [_copy(key, slot) for slot in range(SLOTS)] if is_lock(key) else [key]
        self._run(
            f"UNWIND $rows AS row MERGE (d:{LEDGER} {{key: row[0]}}) "
            "SET d.migration = $migration, d.name = row[1], d.value = $value",
            rows=[[_composed(migration, name), name] for name in names],
            migration=migration,
            value=value,
        )

    def get(self, migration: str, key: str) -> str | None:
        """Reads a document. Who reads a lock holds it until the transaction ends."""
        slot = self._transactions.slot
        if is_lock(key) and slot is not None:
            self._prepare()
            [(value,)] = self._run(
                # Made where there is none, so that of two who find none the second waits for the first.
                f"MERGE (d:{LEDGER} {{key: $key}}) ON CREATE SET d.migration = $migration, d.name = $name "
                "SET d.seen = timestamp() RETURN d.value",
                key=_composed(migration, _copy(key, slot)),
                migration=migration,
                name=_copy(key, slot),
            )
            return None if value is None else str(value)
        rows = self._run(
            f"MATCH (d:{LEDGER} {{key: $key}}) RETURN d.value", key=_composed(migration, key), writes=False
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
