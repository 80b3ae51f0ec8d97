"""What a backend offers. Phases know stores only through these protocols."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, Protocol, runtime_checkable

from memferry._native import Batch, Keys
from memferry.errors import StoreError
from memferry.model import Limits, Page, Quarantined, Range, Stream, VectorSpec

__all__ = [
    "LOCK",
    "SHARD_LOCKS",
    "WRITE_SECS",
    "ChecksVectors",
    "Documents",
    "Foreign",
    "Placed",
    "Reader",
    "Source",
    "Target",
    "as_foreign",
    "as_placed",
    "is_lock",
    "refuse_damaged",
]

LOCK: Final = "lock"
"""Key of the document that says who runs a migration."""
SHARD_LOCKS: Final = "shard/"
"""Before the number of a shard, key of the document that says who works at it."""


WRITE_SECS: Final = 30.0
"""How long a write is awaited that no transaction holds."""


def is_lock(key: str) -> bool:
    """Whether a document is one that every page looks at."""
    return key == LOCK or key.startswith(SHARD_LOCKS)


class Reader(Protocol):
    """Reads ranges; one a thread."""

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """Reads the next page of `part` after `cursor`, decoded."""
        ...


class Source(Protocol):
    """A store that is read. Never written, upgraded or locked beyond one page."""

    backend: str
    profile: str
    native: bool
    identity: str

    def streams(self) -> list[Stream]:
        """Everything in the store, in copy order."""
        ...

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """Cuts a stream into at most `parts` half-open slices; the first and the last have no bound."""
        ...

    def reader(self) -> Reader:
        """A reader of its own connection."""
        ...

    def witness(self) -> str | None:
        """What a resumed plan needs unchanged, where its ranges are places in a file; None where they are of keys."""
        ...

    def close(self) -> None:
        """Ends all connections."""
        ...


class Documents(Protocol):
    """Small texts under a migration and a key: what the ledger is kept in."""

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        ...

    def get(self, migration: str, key: str) -> str | None:
        """Reads a document."""
        ...

    def scan(self, migration: str, prefix: str, after: str, limit: int) -> list[tuple[str, str]]:
        """Documents whose key starts with `prefix`, in key order, after `after`."""
        ...

    def delete(self, migration: str, prefix: str) -> None:
        """Deletes documents whose key starts with `prefix`."""
        ...

    def migrations(self) -> list[str]:
        """Migrations that have documents."""
        ...


class Target(Protocol):
    """A store that is written.

    Attributes:
        resume: Whether a kill costs the page or the range that was being written.
        ordered: Whether kinds must come one after another.
        fences: Whether nobody can take a lock while a transaction that has looked at it is at work.
    """

    backend: str
    profile: str
    native: bool
    identity: str
    resume: Literal["page", "range"]
    ordered: bool
    fences: bool

    @property
    def documents(self) -> Documents:
        """Where the ledger is kept."""
        ...

    def source(self) -> Source | None:
        """The same store, to be read; None while there is nothing in it."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """Holds data and ledger together, as far as the store can."""
        ...

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:
        """Makes what is missing: files, collections, constraints. Idempotent."""
        ...

    def begin_range(self, part: Range) -> None:
        """Called before the first page of a range in this process."""
        ...

    def end_range(self, part: Range) -> None:
        """Called after its last page; on return what was written is durable."""
        ...

    def image(self, records: Batch) -> Batch:
        """The records as this store is expected to give them back."""
        ...

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """What the records have that this store cannot hold: name, records, id of the first."""
        ...

    def fetch(self, records: Batch) -> Batch:
        """What the store holds under the kinds and ids of `records`.

        Raises:
            StoreError: `store-corrupt`, see `refuse_damaged`.
        """
        ...

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:
        """Writes records over what is there; those the store does not take come back.

        Args:
            part: The range they belong to.
            records: Canonical batch.
            migration: Marks the records, in native profiles.
            fresh: None of them is there yet.
        """
        ...

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """Deletes records by kind and id; how many were there."""
        ...

    def restore(self, records: Batch) -> None:
        """Writes records back as they were, markers included."""
        ...

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """Called when all ranges are done: joins, builds indexes, waits for them. Idempotent."""
        ...

    def drop_created(self, migration: str) -> None:
        """Drops what `prepare` made, if nothing but this migration's records was ever in it. Idempotent."""
        ...

    def close(self) -> None:
        """Ends all connections."""
        ...


@runtime_checkable
class ChecksVectors(Protocol):
    """A target that does not take every set of vectors."""

    def check_vectors(self, vectors: tuple[VectorSpec, ...]) -> None:
        """Refuses, before a byte is written, what `prepare` could make no place for.

        Raises:
            RefusedError: `refused`.
        """
        ...


@runtime_checkable
class Placed(Protocol):
    """A target that files all kinds together: records of two kinds may want one place."""

    def add_places(self, keys: Keys, records: Batch) -> None:
        """Adds where the records are filed."""
        ...

    def in_places(self, keys: Keys, records: Batch) -> bytes:
        """A mask of the records whose place was added."""
        ...


@runtime_checkable
class Foreign(Protocol):
    """A target in another system's layout, which does not hold every record and files them under ids of its own."""

    def fit(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """The records that this store holds, and those that it cannot; what an accepted gap drops is in neither."""
        ...

    def filed(self, records: Batch) -> list[tuple[str, str]]:
        """Kinds and ids under which this store has the records, or would have them."""
        ...

    def filed_under(self, identities: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The same for records of which nothing but kind and id can be read."""
        ...


def refuse_damaged(found: Sequence[Quarantined]) -> None:
    """Refuses rows of a target that are no records, where ours would be written over them.

    Args:
        found: What stands under the ids of records to write, and cannot be read.

    Raises:
        StoreError: `store-corrupt`.
    """
    for row in found:
        named = row.key if row.kind is None or row.id is None else f"{row.kind} {row.id!r}"
        raise StoreError(
            "store-corrupt",
            f"{len(found)} rows of the target have ids to write and cannot be read, first {named}: {row.message} "
            f"({row.reason}); they are not written over",
            hint="mend them or take them out of the target, or name another target",
        )


def as_placed(target: Target) -> Placed | None:
    """The target as one that files all kinds together, None where kind and id say the place."""
    return target if target.native and isinstance(target, Placed) else None


def as_foreign(target: Target) -> Foreign | None:
    """The target as one in another system's layout, None where its layout is ours."""
    return target if not target.native and isinstance(target, Foreign) else None
