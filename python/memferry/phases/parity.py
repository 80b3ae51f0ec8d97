"""Search parity: the same queries on both ends, what each finds, what is nearest, and how long it takes."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from operator import mul
from typing import Any, Final

from memferry._native import Batch
from memferry.application import Hit, Hits, Store, open_parsed
from memferry.backends.api import Source
from memferry.errors import RefusedError
from memferry.phases.plan import Options, Progress, Stop
from memferry.phases.reading import read_stream
from memferry.phases.transform import Decisions
from memferry.records import Record, from_batch
from memferry.urls import StoreUrl
from memferry.vectors import Vector

__all__ = ["NEIGHBOURS", "Parity", "check_comparable", "measure"]

NEIGHBOURS: Final = 10
INDEX_DEADLINE_SECS: Final = 600.0
_SEARCHED: Final = frozenset({"embedded", "neo4j", "qdrant"})
_AS_NEAR: Final = 1e-6
"""How much the cosines of two neighbours may differ for either to be the right one."""


@dataclass(frozen=True)
class Parity:
    """What the queries came to; shares are means over all queries, None where no record has a dense vector.

    Attributes:
        samples: Queries: dense vectors of records of the source, the same ones for the same source.
        neighbours: Answers asked for.
        overlap: Share of the source's answers that the target gives too.
        source_recall: Share of the exact nearest neighbours, by the source's own metric, that the source gives.
        target_recall: Share of them that the target gives.
        source_millis: Half of the source's queries took no longer (`p50`), 95 of 100 no longer (`p95`).
        target_millis: The same of the target.
        indexed: Whether both had built their indexes when they were asked.
    """

    samples: int
    neighbours: int
    overlap: float | None
    source_recall: float | None
    target_recall: float | None
    source_millis: dict[str, float]
    target_millis: dict[str, float]
    indexed: bool

    def to_json(self) -> dict[str, Any]:
        """For the final object."""
        return asdict(self)

    def reaches(self, min_recall: float | None) -> bool:
        """Whether the target finds enough; what could not be asked is not held against it."""
        return min_recall is None or self.target_recall is None or self.target_recall >= min_recall


def check_comparable(decisions: Decisions, *ends: StoreUrl) -> None:
    """Refuses stores that cannot be searched or are not to hold the same, before anything is done.

    Raises:
        RefusedError: `unsupported`.
    """
    if decisions.alters:
        raise RefusedError("unsupported", "parity: the target is not to hold what the source has, so neighbours differ")
    for url in ends:
        if url.backend not in _SEARCHED or url.profile != "native":
            raise RefusedError(
                "unsupported",
                f"parity: {url.text} cannot be searched by vectors",
                hint=f"native stores can: {', '.join(sorted(_SEARCHED))}; leave --parity out",
            )


def _usable(vector: Vector) -> bool:
    values = vector.values
    return vector.kind == "dense" and all(map(math.isfinite, values)) and any(values)


def _candidates(batch: Batch, kinds: tuple[str, ...], below: Callable[[], str]) -> Iterator[tuple[str, Record]]:
    """Digest and record of those with a usable vector, smallest digest first, while they are below the bound."""
    identities = batch.identities()
    for digest, row in sorted((digest, row) for row, digest in enumerate(batch.digests())):
        if digest >= below():
            return
        if identities[row][0] in kinds and any(form == 0 for _, form, _, _ in batch.take([row]).vector_specs()):
            (record,) = from_batch(batch.take([row]))
            if any(map(_usable, record.vectors)):
                yield digest, record


def _sample(source: Source, samples: int, kinds: tuple[str, ...], options: Options, stop: Stop) -> list[Record]:
    """The records with the smallest digests: as good as chance, and the same ones every time."""
    chosen: list[tuple[int, tuple[str, str], int, Record]] = []
    seen = 0

    def below() -> str:
        return "g" if len(chosen) < samples else f"{-chosen[0][0]:032x}"

    for stream in source.streams():
        if not set(stream.kinds) & set(kinds):
            continue
        for page in read_stream(source, stream.name, options.limits):
            stop.check()
            for digest, record in _candidates(page.records, kinds, below):
                # The largest digest comes first in the heap.
                seen += 1
                entry = (-int(digest, 16), record.identity, seen, record)
                if len(chosen) < samples:
                    heapq.heappush(chosen, entry)
                else:
                    heapq.heapreplace(chosen, entry)
    return [entry[-1] for entry in sorted(chosen, reverse=True)]


def _cosine(left: memoryview[float], right: memoryview[float]) -> float:
    lengths = math.hypot(*left) * math.hypot(*right)
    return sum(map(mul, left, right)) / lengths if lengths else 0.0


def _right(found: Hits, exact: Hits, query: Vector) -> float:
    """Share of the exact neighbours that were found; another one that is as near is as good."""
    if not exact:
        return 1.0
    wanted = {hit.record.identity for hit in exact}
    farthest = min(_nearness(hit, query) for hit in exact)
    right = sum(1 for h in found if h.record.identity in wanted or _nearness(h, query) >= farthest - _AS_NEAR)
    return min(1.0, right / len(exact))


def _nearness(hit: Hit, query: Vector) -> float:
    same = [v for v in hit.record.vectors if (v.kind, v.name, v.dim) == ("dense", query.name, query.dim)]
    return max((_cosine(vector.values, query.values) for vector in same), default=-1.0)


def _millis(took_secs: list[float]) -> dict[str, float]:
    order = sorted(took_secs)
    at = {"p50": 0.5, "p95": 0.95}
    return (
        {name: round(order[math.ceil(part * len(order)) - 1] * 1000, 3) for name, part in at.items()} if order else {}
    )


@dataclass
class _End:
    store: Store
    took_secs: list[float]

    def ask(self, record: Record, query: Vector, *, exact: bool = False) -> Hits:
        began = time.perf_counter()
        hits = self.store.search(
            vector=query.values, kinds=record.kind, vector_name=query.name, k=NEIGHBOURS, exact=exact
        )
        if not exact:
            self.took_secs.append(time.perf_counter() - began)
        return hits


def measure(
    source_url: StoreUrl,
    target_url: StoreUrl,
    source: Source,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Parity:
    """Asks both ends the same and compares.

    Args:
        source_url: Searched read-only.
        target_url: The same.
        source: Read once, for the samples.
        options: How many samples.
        progress: Called after every query.
        stop: Checked between queries.
    """
    stop = stop or Stop()
    with open_parsed(source_url, read_only=True) as left, open_parsed(target_url, read_only=True) as right:
        kinds = tuple(k for k in left.capabilities().vector_kinds if k in right.capabilities().vector_kinds)
        samples = _sample(source, options.parity, kinds, options, stop)
        indexed = left.wait_indexed(INDEX_DEADLINE_SECS) & right.wait_indexed(INDEX_DEADLINE_SECS)
        one, other = _End(left, []), _End(right, [])
        shares: list[tuple[float, float, float]] = []
        for record in samples[:1]:  # The first answer pays for connections and caches.
            query = next(filter(_usable, record.vectors))
            one.ask(record, query)
            other.ask(record, query)
            one.took_secs.clear()
            other.took_secs.clear()
        for number, record in enumerate(samples):
            stop.check()
            query = next(filter(_usable, record.vectors))
            found, also, exact = one.ask(record, query), other.ask(record, query), one.ask(record, query, exact=True)
            ids = {hit.record.identity for hit in found}
            both = len(ids & {hit.record.identity for hit in also})
            overlap = both / len(ids) if ids else 1.0
            shares.append((overlap, _right(found, exact, query), _right(also, exact, query)))
            progress("parity", number + 1, len(samples))
    means = [sum(column) / len(shares) for column in zip(*shares, strict=True)] or [None, None, None]
    return Parity(
        len(samples),
        NEIGHBOURS,
        means[0],
        means[1],
        means[2],
        _millis(one.took_secs),
        _millis(other.took_secs),
        indexed,
    )
