"""Words of the design as types: streams, ranges, books, quarantine, outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from memferry._native import Batch

__all__ = [
    "CHANGED",
    "CONFLICT",
    "CREATE",
    "EXISTING",
    "FOREIGN",
    "INTACT",
    "KINDS",
    "UNCHANGED",
    "UPDATE",
    "Books",
    "KindBooks",
    "Limits",
    "OnConflict",
    "OnExisting",
    "Outcome",
    "Page",
    "Quarantined",
    "Range",
    "Stream",
    "VectorSpec",
    "inverted",
    "rows_of",
    "rows_with",
]

KINDS: Final = ("entity", "memory", "observation", "relation")
"""The kinds in copy order."""

UNKNOWN: Final = "unknown"
"""Where rows are booked whose kind could not be read."""

Outcome = Literal[
    "proven",
    "matched_live",
    "partial",
    "not_proven",
    "refused",
    "failed",
    "interrupted",
    "rolled_back",
]
OnExisting = Literal["refuse", "keep", "overwrite"]
OnConflict = Literal["keep", "source"]


CREATE, UPDATE, UNCHANGED, CONFLICT, EXISTING = range(5)
"""What `classify` says of a source record."""

FOREIGN, INTACT, CHANGED = range(3)
"""What `standings` says of a target record."""


def rows_with(mask: bytes, *values: int) -> bytes:
    """A mask of the rows whose byte is one of `values`.

    >>> list(rows_with(bytes([0, 2, 1, 2]), 2))
    [0, 1, 0, 1]
    """
    return mask.translate(bytes(byte in values for byte in range(256)))


def inverted(mask: bytes) -> bytes:
    """A mask of the other rows."""
    return rows_with(mask, 0)


def either(one: bytes, other: bytes) -> bytes:
    """A mask of the rows that are in one of two masks.

    >>> list(either(bytes([0, 1, 0]), bytes([0, 1, 1])))
    [0, 1, 1]
    """
    return (int.from_bytes(one) | int.from_bytes(other)).to_bytes(len(one))


def rows_of(records: Batch, kinds: Iterable[str]) -> bytes:
    """A mask of the records of some kinds."""
    return rows_with(records.kinds(), *map(KINDS.index, kinds))


class Quarantined(NamedTuple):
    """A row that could not be moved, whole."""

    key: str
    kind: str | None
    id: str | None
    reason: str
    message: str
    raw: bytes


@dataclass(frozen=True)
class Stream:
    """A part of a store that is read in one order: a table, a file, a collection.

    Attributes:
        name: How the store calls it.
        kinds: Kinds of the records in it.
        rows: How many rows the store says it has, or None where it cannot tell without reading.
        size_bytes: Size, where that is what the store knows.
    """

    name: str
    kinds: tuple[str, ...]
    rows: int | None
    size_bytes: int = 0


@dataclass(frozen=True)
class Range:
    """A half-open slice of a stream's key space; unit of resume.

    Attributes:
        number: Place in the plan.
        stream: Name of the stream.
        start: First key, None for the beginning.
        end: First key that is not in it, None for the end.
        kinds: The kinds this range is for, where a stream of several is read once for each; None for all.
    """

    number: int
    stream: str
    start: str | None
    end: str | None
    kinds: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Limits:
    """Bounds of a page.

    Attributes:
        records: Most records.
        size_bytes: Content after which a page ends; one record may go beyond it.
    """

    records: int = 4096
    size_bytes: int = 8 << 20


@dataclass(frozen=True)
class Page:
    """What one read gives.

    Attributes:
        records: Canonical batch.
        quarantined: Rows that are no records.
        read: Raw rows read.
        exploded: Records made out of lists inside others.
        next: Where to go on, None at the end of the range.
    """

    records: Batch
    quarantined: list[Quarantined]
    read: int
    exploded: int
    next: str | None


@dataclass(frozen=True)
class VectorSpec:
    """Vectors of one name, kind and dimension in the source.

    Attributes:
        name: Name within the record; empty for the only one.
        kind: `dense`, `sparse` or `multi`.
        dim: Numbers a row; 0 for sparse.
        count: How many there are.
    """

    name: str
    kind: str
    dim: int
    count: int


@dataclass
class KindBooks:
    """Counts of one kind. `read + exploded` equals the sum of the rest, `deleted` apart."""

    read: int = 0
    exploded: int = 0
    written: int = 0
    unchanged: int = 0
    deduplicated: int = 0
    filtered: int = 0
    conflicts: int = 0
    quarantined: int = 0
    nested: int = 0
    deleted: int = 0

    def balanced(self) -> bool:
        """Whether every record that was read is accounted for once."""
        out = self.written + self.unchanged + self.deduplicated + self.filtered
        return self.read + self.exploded == out + self.conflicts + self.quarantined + self.nested


@dataclass
class Books:
    """Counts by kind.

    >>> books = Books()
    >>> books.of("memory").read += 1
    >>> books.balanced()
    False
    """

    kinds: dict[str, KindBooks] = field(default_factory=dict)

    def of(self, kind: str) -> KindBooks:
        """The counts of `kind`, made where there are none."""
        return self.kinds.setdefault(kind, KindBooks())

    def add(self, other: Books) -> None:
        """Adds the counts of `other`."""
        for kind, counts in other.kinds.items():
            mine = self.of(kind)
            for name, value in asdict(counts).items():
                setattr(mine, name, getattr(mine, name) + value)

    def balanced(self) -> bool:
        """Whether every kind balances."""
        return all(counts.balanced() for counts in self.kinds.values())

    def total(self, name: str) -> int:
        """Sum of one column."""
        return sum(getattr(counts, name) for counts in self.kinds.values())

    def to_json(self) -> dict[str, dict[str, int]]:
        """Plain dicts, kinds in copy order."""
        order = [*KINDS, UNKNOWN]
        return {kind: asdict(self.kinds[kind]) for kind in order if kind in self.kinds}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Books:
        """Reads what `to_json` wrote."""
        return cls(
            {
                kind: KindBooks(**{name: index(count) for name, count in counts.items()})
                for kind, counts in value.items()
            },
        )
