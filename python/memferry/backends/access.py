"""What a backend offers to an application. `memferry.application` knows stores only through this protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from memferry._native import Batch
from memferry.backends.api import Source

__all__ = ["Access", "Capabilities", "Scopes"]

Scopes: TypeAlias = list[tuple[str, str]]
"""Parts of a scope that a record must have: `user`, and whose."""


@dataclass(frozen=True)
class Capabilities:
    """What an application can do with a store.

    Attributes:
        backend: Name of the backend.
        write: Whether records can be put and deleted.
        atomic: Whether several records are written together or not at all.
        text_kinds: Kinds that can be searched by words.
        vector_kinds: Kinds that can be searched by a vector.
        exact_vectors: Whether vectors come back as they were put, or at length one.
    """

    backend: str
    write: bool
    atomic: bool
    text_kinds: tuple[str, ...]
    vector_kinds: tuple[str, ...]
    exact_vectors: bool


class Access(Protocol):
    """A store as an application uses it. Records written through it carry no marker."""

    def capabilities(self) -> Capabilities:
        """What the other methods can do."""
        ...

    def source(self) -> Source | None:
        """The store, to be read in pages; None while there is nothing in it. The caller closes it."""
        ...

    def fetch(self, records: Batch) -> Batch:
        """What the store holds under the kinds and ids of `records`."""
        ...

    def put(self, records: Batch, *, replace: bool) -> None:
        """Writes records, over what is there if `replace`.

        Raises:
            RefusedError: `existing` where one is there and `replace` is not set.
        """
        ...

    def remove(self, records: Batch) -> int:
        """Deletes what is there under the kinds and ids of `records`; how many were there."""
        ...

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:
        """Ids and scores of the records with all of these words, best first."""
        ...

    def search_vector(
        self, kind: str, name: str, vector: list[float], limit: int, scope: Scopes, *, exact: bool
    ) -> list[tuple[str, float]]:
        """Ids and scores of the records with the nearest vectors, best first; a higher score is nearer."""
        ...

    def wait_indexed(self, deadline_secs: float) -> bool:
        """Waits until what was written is in the index; whether it was within the deadline."""
        ...

    def close(self) -> None:
        """Ends all connections."""
        ...
