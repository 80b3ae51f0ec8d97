"""The ledger of a collection: a companion collection of payloads without vectors."""

from __future__ import annotations

import json
import uuid
from typing import Final

from memferry._native import QdrantStore

__all__ = ["QdrantDocuments", "ledger_name"]

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://memferry.dev/ledger")
_PAGE: Final = 1000
_PAGE_BYTES: Final = 8 << 20


def ledger_name(collection: str) -> str:
    """Name of the companion collection."""
    return f"{collection}_memferry_ledger"


class QdrantDocuments:
    """Documents as points; the collection is made with the first one."""

    def __init__(self, store: QdrantStore, collection: str) -> None:
        self._store = store
        self._collection = ledger_name(collection)
        self._made = False

    def _is_there(self) -> bool:
        # Another process may make it at any time: only that it is there is remembered.
        self._made = self._made or self._store.exists(self._collection)
        return self._made

    @staticmethod
    def _key(migration: str, key: str) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"{migration}\0{key}"))

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        if not self._is_there():
            self._store.create(self._collection, "[]")
            self._store.create_payload_index(self._collection, "migration", "keyword")
            self._made = True
        document = {"migration": migration, "key": key, "group": key.partition("/")[0], "value": value}
        self._store.put_documents(self._collection, [(self._key(migration, key), json.dumps(document))])

    def get(self, migration: str, key: str) -> str | None:
        """Reads a document."""
        if not self._is_there():
            return None
        rows = self._store.get(self._collection, [self._key(migration, key)], with_vectors=False).rows()
        return str(json.loads(rows[0][1])["value"]) if rows else None

    def _all(self, conditions: list[tuple[str, str]]) -> list[tuple[str, dict[str, str]]]:
        found: list[tuple[str, dict[str, str]]] = []
        cursor: str | None = None
        there = self._is_there()
        while there:
            raw, _, cursor = self._store.scroll(
                self._collection, cursor, None, _PAGE, _PAGE_BYTES, filter=conditions, with_vectors=False
            )
            found += [(key, json.loads(body)) for key, body, _ in raw.rows()]
            if cursor is None:
                break
        return found

    def _of(self, migration: str, prefix: str) -> list[tuple[str, dict[str, str]]]:
        conditions = [("migration", migration), ("group", prefix.partition("/")[0])]
        return [row for row in self._all(conditions) if row[1]["key"].startswith(prefix)]

    def scan(self, migration: str, prefix: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Documents whose key starts with `prefix`, in key order, after `after`."""
        rows = sorted((d["key"], d["value"]) for _, d in self._of(migration, prefix) if d["key"] > after)
        return rows[:limit]

    def delete(self, migration: str, prefix: str) -> None:
        """Deletes documents whose key starts with `prefix`."""
        ids = [point for point, _ in self._of(migration, prefix)]
        if ids:
            self._store.delete(self._collection, ids)

    def migrations(self) -> list[str]:
        """Migrations that have documents."""
        return sorted({document["migration"] for _, document in self._all([])})
