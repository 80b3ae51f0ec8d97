"""An embedded store as an application uses it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memferry._native import Batch, EmbeddedStore
from memferry.backends.access import Capabilities, Scopes
from memferry.backends.embedded.source import EmbeddedSource
from memferry.errors import RefusedError, StoreError
from memferry.model import KINDS

__all__ = ["EmbeddedAccess"]


class EmbeddedAccess:
    """One connection, taken in turns.

    Args:
        path: The file; made where there is none, unless it is only read.
        identity: Identity set by the user.
        read_only: Never write, not even to bring the text index up to date.
    """

    def __init__(self, path: Path, identity: str | None = None, *, read_only: bool = False) -> None:
        self._path = path
        self._identity = identity
        self._read_only = read_only
        self._lock = threading.RLock()
        self._store = EmbeddedStore.open_source(path) if read_only else EmbeddedStore.open_target(path)

    def capabilities(self) -> Capabilities:
        """See `memferry.backends.access.Access`."""
        writes = not self._read_only
        return Capabilities("embedded", writes, writes, KINDS, KINDS, exact_vectors=True)

    def source(self) -> EmbeddedSource:
        """See `memferry.backends.access.Access`."""
        return EmbeddedSource(self._path, self._identity)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._store.begin()
            try:
                yield
                self._store.commit()
            finally:
                self._store.abort()

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.access.Access`."""
        identities = records.identities()
        with self._lock:
            found = [self._store.fetch(kind, [i for k, i in identities if k == kind]) for kind in KINDS]
        for _, bad in found:
            for _, kind, identity, reason, message, _ in bad:
                raise StoreError("store-corrupt", f"{kind} {identity!r}: {message} ({reason})")
        return Batch.concat([records for records, _ in found])

    def put(self, records: Batch, *, replace: bool) -> None:
        """See `memferry.backends.access.Access`."""
        with self._transaction():
            if not replace and (there := self.fetch(records).identities()):
                kind, identity = there[0]
                raise RefusedError("existing", f"{kind} {identity!r} is there already")
            for row in self._store.write(records, indexed=True)[:1]:
                kind, identity = records.take([row]).identities()[0]
                raise RefusedError("refused", f"{kind} {identity!r}: an embedded store takes 256 vectors a record")

    def remove(self, records: Batch) -> int:
        """See `memferry.backends.access.Access`."""
        identities = records.identities()
        with self._transaction():
            return sum(self._store.delete(k, [i for kind, i in identities if kind == k], indexed=True) for k in KINDS)

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`; brings an index up to date that a bulk load left behind."""
        with self._lock:
            self._store.rebuild_text()
            return self._store.search_text(kind, words, limit, scope=_columns(scope))

    def search_vector(
        self,
        kind: str,
        name: str,
        vector: list[float],
        limit: int,
        scope: Scopes,
        *,
        exact: bool,  # noqa: ARG002 - it always is
    ) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`; cosine similarity."""
        with self._lock:
            return self._store.search_vector(kind, name, vector, limit, scope=_columns(scope))

    def wait_indexed(self, deadline_secs: float) -> bool:  # noqa: ARG002
        """Every vector is compared: there is no index to wait for."""
        return True

    def close(self) -> None:
        """The connection ends with its object."""


def _columns(scope: Scopes) -> list[tuple[str, str]]:
    return [(f"scope_{part}", value) for part, value in scope]
