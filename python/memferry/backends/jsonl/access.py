"""A JSONL file as an application uses it: to be read."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

from memferry._native import Batch, JsonlIndex
from memferry.backends.access import Capabilities, Scopes
from memferry.backends.jsonl.source import JsonlSource
from memferry.errors import RefusedError
from memferry.profiles import load_mapper

__all__ = ["JsonlAccess"]


class JsonlAccess:
    """A file with the native profile. The first `get` reads it through once; it is read again when it has changed."""

    def __init__(self, path: Path, profile: str = "native", identity: str | None = None) -> None:
        self._path = path
        self._profile = profile
        self._identity = identity
        self._mapper = load_mapper(profile, "document")
        self._lock = threading.Lock()
        self._index: tuple[tuple[int, int], JsonlIndex] | None = None
        self.source()

    def capabilities(self) -> Capabilities:
        """See `memferry.backends.access.Access`."""
        return Capabilities("jsonl", write=False, atomic=False, text_kinds=(), vector_kinds=(), exact_vectors=True)

    def source(self) -> JsonlSource:
        """See `memferry.backends.access.Access`."""
        return JsonlSource(self._path, self._profile, self._identity)

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.access.Access`."""
        with self._lock:
            status = self._path.stat()
            stamp = (status.st_size, status.st_mtime_ns)
            if self._index is None or self._index[0] != stamp:
                self._index = (stamp, JsonlIndex(self._path.resolve(), self._mapper))
            return self._index[1].fetch(self._mapper, records.identities())

    def put(self, records: Batch, *, replace: bool) -> None:  # noqa: ARG002
        """Refused."""
        _refuse("written record by record")

    def remove(self, records: Batch) -> int:  # noqa: ARG002
        """Refused."""
        _refuse("written record by record")

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:  # noqa: ARG002
        """Refused."""
        _refuse("searched")

    def search_vector(
        self,
        kind: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
        vector: list[float],  # noqa: ARG002
        limit: int,  # noqa: ARG002
        scope: Scopes,  # noqa: ARG002
        *,
        exact: bool,  # noqa: ARG002
    ) -> list[tuple[str, float]]:
        """Refused."""
        _refuse("searched")

    def wait_indexed(self, deadline_secs: float) -> bool:  # noqa: ARG002
        """There is no index."""
        return True

    def close(self) -> None:
        """File handles end with their objects."""


def _refuse(what: str) -> NoReturn:
    raise RefusedError(
        "unsupported",
        f"a JSONL file is not {what}",
        hint="`memferry migrate` moves it into a store that can be, an embedded one for example",
    )
