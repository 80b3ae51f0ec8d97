"""How long it may take: what was measured, and what is assumed and said to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from memferry.backends.api import Source
from memferry.errors import RefusedError
from memferry.model import Stream
from memferry.stores import open_source
from memferry.urls import StoreUrl

__all__ = ["NOT_LOOKED_AT", "Estimate", "QuickPlan", "estimate", "quick_plan"]

READ_PER_SEC: Final = {"embedded": 60_000, "jsonl": 60_000, "qdrant": 20_000, "neo4j": 8_000, "hybrid": 6_000}
WRITE_PER_SEC: Final = {"embedded": 30_000, "jsonl": 40_000, "qdrant": 8_000, "neo4j": 2_000, "hybrid": 1_500}
"""Records of 384 dimensions on two cores, servers on the same machine (`benchmarks/RESULTS.md`); assumed of others."""
_FILES: Final = frozenset({"embedded", "jsonl"})
"""What a file takes depends on this machine; what a server takes, on a machine that nobody has asked."""

NOT_LOOKED_AT: Final = (
    "gaps",
    "repeated ids",
    "records of others in the target",
    "rows that are no records",
)
"""What only a full plan finds."""


@dataclass(frozen=True)
class QuickPlan:
    """What the stores say of themselves.

    Attributes:
        source: Backend, profile and identity.
        target: The same; None where there is nothing yet.
        streams: Parts of the source with the rows and bytes they are known to have.
        target_rows: Rows of the target, None where it cannot tell without reading.
        rows: Rows of the source, None where it cannot tell without reading.
        size_bytes: Bytes of the source, as far as it knows them.
        estimate_secs: Copy and proof, assumed of files; None where rows are not known or an end is a server.
    """

    source: dict[str, str]
    target: dict[str, str] | None
    streams: tuple[Stream, ...]
    target_rows: int | None
    rows: int | None
    size_bytes: int
    estimate_secs: float | None

    def to_json(self) -> dict[str, Any]:
        """The final object."""
        return {"quick": True, **asdict(self), "not_looked_at": list(NOT_LOOKED_AT)}


@dataclass(frozen=True)
class Estimate:
    """Roughly how long copy and proof take.

    Attributes:
        secs: In all.
        scanned_per_sec: Records a second of the scan, which is done twice more; None where nothing was scanned.
        write_per_sec: What is assumed of the target.
        read_per_sec: The same.
    """

    secs: float
    scanned_per_sec: float | None
    write_per_sec: int
    read_per_sec: int


def estimate(records: int, scan_secs: float, target: str) -> Estimate:
    """How long copy and proof take, by what the scan of the plan took.

    Args:
        records: How many.
        scan_secs: How long they took to be read.
        target: Backend that is written, and read once.
    """
    write, read = WRITE_PER_SEC[target], READ_PER_SEC[target]
    secs = 2 * scan_secs + records / write + records / read
    return Estimate(secs, records / scan_secs if scan_secs else None, write, read)


def quick_plan(source_url: StoreUrl, target_url: StoreUrl) -> QuickPlan:
    """Asks both ends for their counts and reads no record.

    Raises:
        RefusedError: There is no source.
    """
    source = open_source(source_url)
    try:
        streams = tuple(source.streams())
        about = _about(source)
    finally:
        source.close()
    there, target_rows = _target(target_url)
    rows = _sum(streams)
    secs = None
    if rows is not None and {source_url.backend, target_url.backend} <= _FILES:
        secs = estimate(rows, rows / READ_PER_SEC[source_url.backend], target_url.backend).secs
    size = sum(stream.size_bytes for stream in streams)
    if source_url.backend == "embedded" and source_url.path:
        size = source_url.path.stat().st_size
    return QuickPlan(about, there, streams, target_rows, rows, size, secs)


def _about(store: Source) -> dict[str, str]:
    return {"backend": store.backend, "profile": store.profile, "identity": store.identity}


def _sum(streams: tuple[Stream, ...]) -> int | None:
    rows = [stream.rows for stream in streams if stream.rows is not None]
    return sum(rows) if len(rows) == len(streams) else None


def _target(url: StoreUrl) -> tuple[dict[str, str] | None, int | None]:
    try:
        store = open_source(url)
    except RefusedError as error:
        if error.code == "store-missing":
            return None, 0
        raise
    try:
        return _about(store), _sum(tuple(store.streams()))
    finally:
        store.close()
