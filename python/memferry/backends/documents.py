"""The ledger's documents in an embedded store: the target itself, or a file beside a target that keeps none."""

from __future__ import annotations

import threading

from memferry._native import EmbeddedStore

__all__ = ["StoreDocuments"]


class StoreDocuments:
    """Documents in the ledger table of an embedded store."""

    def __init__(self, store: EmbeddedStore, lock: threading.RLock) -> None:
        self._store = store
        self._lock = lock

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        with self._lock:
            self._store.ledger_put(migration, key, value)

    def get(self, migration: str, key: str) -> str | None:
        """Reads a document."""
        with self._lock:
            return self._store.ledger_get(migration, key)

    def scan(self, migration: str, prefix: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Documents whose key starts with `prefix`, in key order, after `after`."""
        with self._lock:
            return self._store.ledger_scan(migration, prefix, after, limit)

    def delete(self, migration: str, prefix: str) -> None:
        """Deletes documents whose key starts with `prefix`."""
        with self._lock:
            self._store.ledger_delete(migration, prefix)

    def migrations(self) -> list[str]:
        """Migrations that have documents."""
        with self._lock:
            return self._store.ledger_migrations()
