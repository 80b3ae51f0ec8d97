"""Search parity: the same queries on both ends, what each finds, what is nearest, and how long it takes."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from operator import mul
from typing import Any, Final

from memferry._native import Batch
from memferry.application import Hit, Hits, Store, open_parsed
from memferry.backends.api import Source
from memferry.batches import from_batch
from memferry.errors import RefusedError
from memferry.phases.plan import Options, Progress, Stop
from memferry.phases.reading import read_stream
from memferry.phases.transform import Decisions
from memferry.records import Record
from memferry.stores import open_source
from memferry.urls import StoreUrl
from memferry.vectors import Vector

__all__ = ["Parity", "Watch", "check_comparable", "measure"]

_WATCHED: Final = 20
"""Queries of a check of a store that is in use."""
INDEX_DEADLINE_SECS: Final = 600.0
_SEARCHED: Final = frozenset({"embedded", "hybrid", "neo4j", "qdrant"})
_AS_NEAR: Final = 1e-6
"""How much the cosines of two neighbours may differ for either to be the right one."""
_SAME_SCORE: Final = 1e-3
"""How far a store's own cosine, of single precision or less, may be from ours."""


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
    near = [_nearness(hit, query) for hit in exact]
    # A store that has another metric scores by it; there only the neighbours themselves are right.
    by_cosine = all(abs(hit.score - nearness) < _SAME_SCORE for hit, nearness in zip(exact, near, strict=True))
    farthest = min(near) - _AS_NEAR if by_cosine else math.inf
    right = sum(1 for hit in found if hit.record.identity in wanted or _nearness(hit, query) >= farthest)
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
    neighbours: int
    took_secs: list[float] = field(default_factory=list)

    def ask(self, record: Record, query: Vector, *, exact: bool = False) -> Hits:
        began = time.perf_counter()
        hits = self.store.search(
            vector=query.values, kinds=record.kind, vector_name=query.name, k=self.neighbours, exact=exact
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
        one, other = _End(left, options.neighbours), _End(right, options.neighbours)
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
        options.neighbours,
        means[0],
        means[1],
        means[2],
        _millis(one.took_secs),
        _millis(other.took_secs),
        indexed,
    )


class Watch:
    """Whether a store that is in use still finds what the one before it finds, after the switch.

    Only records that are in both as they were are asked for and expected: what the application has written since is no
    fault of the migration.

    Args:
        source_url: The store before.
        target_url: The one in use.
        options: How many neighbours, and how many of them are enough.
    """

    def __init__(self, source_url: StoreUrl, target_url: StoreUrl, options: Options) -> None:
        self._urls = source_url, target_url
        self._options = options
        self._samples: list[Record] | None = None

    def look(self, stop: Stop | None = None) -> dict[str, Any]:
        """Asks both; `reached` is None where there was nothing to ask.

        Raises:
            RefusedError: `unsupported`, they cannot be compared.
            StoreError: One of them failed.
        """
        stop = stop or Stop()
        check_comparable(self._options.transform, *self._urls)
        with open_parsed(self._urls[0], read_only=True) as left, open_parsed(self._urls[1], read_only=True) as right:
            samples = self._chosen(left, right, stop)
            one, other = _End(left, self._options.neighbours), _End(right, self._options.neighbours)
            shares: list[float] = []
            for record in samples:
                stop.check()
                query = next(filter(_usable, record.vectors))
                found = one.ask(record, query, exact=True)
                same = _unchanged(right, [record, *(hit.record for hit in found)], query.name)
                exact = [hit for hit in found if hit.record.identity in same]
                if record.identity in same and exact:
                    shares.append(_right(other.ask(record, query), exact, query))
        recall = sum(shares) / len(shares) if shares else None
        enough = self._options.min_recall
        reached = None if recall is None or enough is None else recall >= enough
        return {"samples": len(shares), "neighbours": self._options.neighbours, "recall": recall, "reached": reached}

    def _chosen(self, left: Store, right: Store, stop: Stop) -> list[Record]:
        """The samples, chosen once: that reads the whole store."""
        if self._samples is None:
            kinds = tuple(k for k in left.capabilities().vector_kinds if k in right.capabilities().vector_kinds)
            source = open_source(self._urls[0])
            try:
                most = min(self._options.parity, _WATCHED)
                self._samples = _sample(source, most, kinds, self._options, stop)
            finally:
                source.close()
        return self._samples


def _unchanged(store: Store, records: list[Record], name: str) -> set[tuple[str, str]]:
    """Those of some records that a store has with the same vector of a name."""
    identities = {record.identity: record for record in records}
    same: set[tuple[str, str]] = set()
    for there in store.get_many(identities):
        if there is None:
            continue
        ends = (identities[there.identity], there)
        before, now = (next((v for v in one.vectors if (v.kind, v.name) == ("dense", name)), None) for one in ends)
        if before and now and before.dim == now.dim and _cosine(before.values, now.values) >= 1 - _AS_NEAR:
            same.add(there.identity)
    return same
