"""The plan: a full scan of both ends before a byte is written. Everything that can be refused is refused here."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Literal

from memferry._native import Batch, Buckets, Keys, blake3_hex, standings
from memferry.backends.api import ChecksVectors, Source, Target, as_foreign, as_placed
from memferry.errors import RefusedError
from memferry.ledger import parsed
from memferry.model import KINDS, Books, Limits, Quarantined, Range, VectorSpec, either
from memferry.phases.deciding import Deciding
from memferry.phases.gather import Gathering, owners, with_gathering
from memferry.phases.options import Options, Progress, Stop
from memferry.phases.reading import all_done, read_pages, read_stream
from memferry.phases.transform import Decisions, Duplicates, Transform
from memferry.retry import retrying

__all__ = ["BUCKETS", "PLAN_FORMAT", "Gap", "Options", "Plan", "Progress", "Stop", "cut", "make_plan", "migration_id"]

PLAN_FORMAT: Final = 1
BUCKETS: Final = 4096
"""Buckets of the proof; a bucket of a million records holds about 250."""

ROWS_PER_RANGE: Final = 20_000
BYTES_PER_RANGE: Final = 16 << 20
MAX_RANGES: Final = 4096
MAX_REPEATED: Final = 10_000


@dataclass(frozen=True)
class Gap:
    """What the target cannot hold.

    Attributes:
        name: Name to accept it by.
        records: How many records have it.
        example: Id of one.
    """

    name: str
    records: int
    example: str


@dataclass(frozen=True)
class Plan:
    """What a run is bound to.

    Attributes:
        migration: Id made of both identities and profiles.
        source: Backend, profile, identity of the source; its witness, where it has one.
        target: The same of the target.
        ranges: Slices of the source, in the order they are copied.
        counts: Records by kind; `unknown` for rows that are no records.
        rows: Raw rows in the source.
        gaps: Found gaps, accepted ones too.
        repeated: Kind and id of records that stand more than once.
        source_total: Digest over every record of the source.
        target_records: Records the target held, and rows in it that are none.
        target_total: Digest over every record the target held.
        existing: Records of others that the run would write over.
        accept: Accepted gaps.
        vectors: What embeddings there are.
        size_bytes: Size of the records, as they are held in memory.
        transform: Which records go on, and how.
        passing: Records that the mapping and `where` let through.
        duplicates: Records that say the same.
        embedded: How many records get a new vector.
        embedded_bytes: The bytes of their texts.
        scan_secs: How long the source took to be read.
        range_rows: Raw rows of each range; none in a plan of an older memferry.
    """

    migration: str
    source: dict[str, str]
    target: dict[str, str]
    ranges: tuple[Range, ...]
    counts: dict[str, int]
    rows: int
    gaps: tuple[Gap, ...]
    repeated: tuple[tuple[str, str], ...]
    source_total: str
    target_records: int
    existing: int
    accept: tuple[str, ...]
    vectors: tuple[VectorSpec, ...]
    size_bytes: int = 0
    target_total: str = ""
    transform: Decisions = field(default_factory=Decisions)
    passing: int = 0
    duplicates: Duplicates = field(default_factory=Duplicates)
    embedded: int = 0
    embedded_bytes: int = 0
    scan_secs: float = 0.0
    range_rows: tuple[int, ...] = ()
    format: Literal[1] = 1

    @property
    def records(self) -> int:
        """Records in all."""
        return sum(self.counts.values())

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what `to_json` wrote.

        Raises:
            RefusedError: `format-newer`.
            StoreError: `store-corrupt`.
        """
        return parsed("the plan", text, cls._of)

    @classmethod
    def _of(cls, value: Any) -> Plan:
        if value["format"] > PLAN_FORMAT:
            raise RefusedError("format-newer", f"plan format {value['format']}, this memferry knows {PLAN_FORMAT}")
        value["ranges"] = tuple(
            Range(**{**r, "kinds": tuple(r["kinds"]) if r["kinds"] else None}) for r in value["ranges"]
        )
        value["gaps"] = tuple(Gap(**g) for g in value["gaps"])
        value["repeated"] = tuple((kind, identity) for kind, identity in value["repeated"])
        value["accept"] = tuple(value["accept"])
        value["vectors"] = tuple(VectorSpec(**v) for v in value["vectors"])
        value["range_rows"] = tuple(value.get("range_rows", ()))
        if "transform" in value:
            value["transform"] = Decisions.from_json(value["transform"])
            value["duplicates"] = Duplicates.from_json(value["duplicates"])
        return cls(**value)

    def hash(self) -> str:
        """BLAKE3 of what binds a run: stores, profiles, ranges, accepted gaps; inventory is left out."""
        bound: dict[str, Any] = {
            "format": self.format,
            "source": self.source,
            "target": self.target,
            "ranges": [asdict(r) for r in self.ranges],
            "accept": sorted(self.accept),
            "repeated": self.repeated,
            "transform": asdict(self.transform),
        }
        if self.transform.embedding is None:
            del bound["transform"]["embedding"]  # As plans had it before there was one.
        else:
            del bound["transform"]["embedding"]["url"]
        return blake3_hex(json.dumps(bound, sort_keys=True).encode())


def migration_id(source: Source | Target, target: Source | Target) -> str:
    """The id of the migration between two stores: 16 hex digits of BLAKE3."""
    parts = [source.identity, source.profile, target.identity, target.profile]
    return blake3_hex("\0".join(parts).encode())[:16]


def cut(source: Source, *, ordered: bool) -> list[Range]:
    """Cuts the source; with `ordered`, a stream of several kinds is read once for each, in copy order."""
    slices: list[tuple[int, str, str | None, str | None, tuple[str, ...] | None]] = []
    for stream in retrying(source.streams):
        wanted = max((stream.rows or 0) // ROWS_PER_RANGE, stream.size_bytes // BYTES_PER_RANGE) + 1
        kinds = [kind for kind in KINDS if kind in stream.kinds] if ordered and len(stream.kinds) > 1 else [None]
        cuts = retrying(partial(source.split, stream, min(wanted, MAX_RANGES)))
        for kind in kinds:
            stage = KINDS.index(kind) if kind else KINDS.index(stream.kinds[0])
            slices += [(stage, stream.name, start, end, (kind,) if kind else None) for start, end in cuts]
    if ordered:
        slices.sort(key=lambda piece: piece[0])
    return [Range(i, name, start, end, kinds) for i, (_, name, start, end, kinds) in enumerate(slices)]


@dataclass
class _Scan:
    books: Books = field(default_factory=Books)
    rows: int = 0
    range_rows: dict[int, int] = field(default_factory=dict)
    size_bytes: int = 0
    gaps: dict[str, Gap] = field(default_factory=dict)
    vectors: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def add_gaps(self, found: list[tuple[str, int, str]]) -> None:
        for name, records, example in found:
            known = self.gaps.get(name)
            self.gaps[name] = (
                Gap(name, records, example) if known is None else Gap(name, known.records + records, known.example)
            )


def make_plan(
    source: Source,
    target: Target,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Plan:
    """Scans both ends and decides everything.

    Args:
        source: Where from.
        target: Where to.
        options: What the user chose.
        progress: Called after every page.
        stop: Checked between pages.

    Raises:
        RefusedError: `invalid` where both ends are one database, `gap`, `existing`, `repeated-id`.
    """
    stop = stop or Stop()
    if source.backend == target.backend == "neo4j" and source.identity.split("#")[0] == target.identity.split("#")[0]:
        # Its identity names a database by whatever host it is reached.
        raise RefusedError("invalid", f"source and target are one database: {target.identity}")
    deciding = Deciding(options.transform, options.endpoint)
    witness = source.witness()
    ranges = cut(source, ordered=target.ordered)
    expected = sum(s.rows or 0 for s in retrying(source.streams)) or None
    scan, keys, buckets = _Scan(), Keys(), Buckets(BUCKETS)
    filed = _Filed(target, Keys() if as_foreign(target) else keys, Keys())
    lock = threading.Lock()

    def read(part: Range) -> None:
        for page in read_pages(source, part, options.limits):
            stop.check()
            buckets.add(page.records)
            applied = deciding.see(part, page.records)
            keys.add(applied.records)
            filed.add(applied.records)
            gaps = target.gaps(applied.records)
            with lock:
                scan.rows += page.read
                scan.range_rows[part.number] = scan.range_rows.get(part.number, 0) + page.read
                scan.size_bytes += page.records.nbytes
                scan.add_gaps(gaps)
                scan.add_gaps(list(applied.lost))
                for kind, count in page.records.counts():
                    scan.books.of(kind).read += count
                scan.books.of("unknown").read += len(page.quarantined)
                for name, form, dim, count in applied.records.vector_specs():
                    scan.vectors[name, form, dim] = scan.vectors.get((name, form, dim), 0) + count
                progress("plan", scan.rows, expected)

    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=options.parallelism) as pool:
        all_done(pool.submit(read, part) for part in ranges)
    scan_secs = time.monotonic() - began
    twice = filed.repeated()
    repeated = _identities(source, ranges, target, twice, options.limits, deciding) if len(twice) else []
    transform, duplicates = deciding.decide(source, ranges, keys, options.limits)
    gathering = with_gathering(Transform(transform, None, options.endpoint), source, target)
    displaced = gathering.displaced() if isinstance(gathering, Gathering) else None
    scan.add_gaps([("ids", *displaced)] if displaced else [])
    held, existing, target_total = _look_at_target(target, filed, migration_id(source, target), options, stop)
    plan = Plan(
        migration=migration_id(source, target),
        source={**_store(source), **({} if witness is None else {"witness": witness})},
        target=_store(target),
        ranges=tuple(ranges),
        counts={kind: books.read for kind, books in scan.books.kinds.items() if books.read},
        rows=scan.rows,
        gaps=tuple(sorted(scan.gaps.values(), key=lambda gap: gap.name)),
        repeated=tuple(repeated),
        source_total=buckets.total(),
        target_records=held,
        existing=existing,
        size_bytes=scan.size_bytes,
        target_total=target_total,
        accept=tuple(sorted(options.accept)),
        vectors=tuple(
            VectorSpec(name, ("dense", "sparse", "multi")[kind], dim, count)
            for (name, kind, dim), count in sorted(scan.vectors.items())
        ),
        transform=transform,
        passing=deciding.passing,
        duplicates=duplicates,
        embedded=deciding.embedded,
        embedded_bytes=deciding.embedded_bytes,
        scan_secs=round(scan_secs, 3),
        range_rows=tuple(scan.range_rows.get(part.number, 0) for part in ranges),
    )
    _refuse(plan, options)
    if isinstance(target, ChecksVectors):
        target.check_vectors(plan.vectors)
    return plan


def _store(store: Source | Target) -> dict[str, str]:
    return {"backend": store.backend, "profile": store.profile, "identity": store.identity}


class _Filed:
    """Where the target files the records of the source: under kinds and ids, and in places that all kinds share."""

    def __init__(self, target: Target, keys: Keys, places: Keys) -> None:
        self._target, self._placed = target, as_placed(target)
        self.keys, self.places = keys, places

    def __len__(self) -> int:
        return len(self.keys) + len(self.places)

    def add(self, records: Batch) -> None:
        """Adds records of the source; their own kinds and ids are added already, where the target keeps those."""
        if as_foreign(self._target):
            self.keys.add(self._target.image(owners(records, self._target)))
        elif self._placed:
            self._placed.add_places(self.places, records)

    def repeated(self) -> _Filed:
        """Only what was added more than once."""
        return _Filed(self._target, self.keys.repeated(), self.places.repeated())

    def contains(self, held: Batch) -> bytes:
        """A mask of the records, as the target has them, whose kind and id, or place, was added."""
        mask = self.keys.contains(held)
        return either(mask, self._placed.in_places(self.places, held)) if self._placed else mask


def _identities(
    source: Source, ranges: list[Range], target: Target, filed: _Filed, limits: Limits, deciding: Deciding
) -> list[tuple[str, str]]:
    """Kinds and ids, in the source, of records that the target files in one of `filed`."""
    found: set[tuple[str, str]] = set()
    foreign = as_foreign(target)
    for part in ranges:
        for page in read_pages(source, part, limits):
            records = owners(deciding.transform.apply(page.records).records, target)
            records = foreign.fit(records)[0] if foreign else records
            found.update(records.filter(filed.contains(target.image(records) if foreign else records)).identities())
    return sorted(found)


def _look_at_target(
    target: Target, filed: _Filed, migration: str, options: Options, stop: Stop
) -> tuple[int, int, str]:
    held = existing = 0
    total = Buckets(BUCKETS)
    store = retrying(target.source)
    if store is None:
        return 0, 0, total.total()
    for stream in retrying(store.streams):
        for page in read_stream(store, stream.name, options.limits):
            stop.check()
            batch = page.records
            # A row that is no record is somebody's all the same.
            held += len(batch) + len(page.quarantined)
            total.add(batch)
            existing += standings(batch.filter(filed.contains(batch)), migration).count(0)
            existing += filed.keys.contains_identities(_of_others(page.quarantined, migration)).count(1)
    store.close()
    return held, existing, total.total()


def _of_others(rows: list[Quarantined], migration: str) -> list[tuple[str, str]]:
    """Kinds and ids of rows that are no records, but for those that this migration wrote before they were damaged."""
    return [
        (row.kind, row.id)
        for row in rows
        if row.kind is not None and row.id is not None and migration.encode() not in row.raw
    ]


def _refuse(plan: Plan, options: Options) -> None:
    _refuse_embedding(plan)
    open_gaps = [gap for gap in plan.gaps if gap.name not in options.accept]
    if open_gaps:
        what = "; ".join(f"{gap.name} ({gap.records} records, for example {gap.example})" for gap in open_gaps)
        accepts = " ".join(f"--accept {gap.name}" for gap in open_gaps)
        raise RefusedError("gap", f"the target cannot hold: {what}", hint=f"to drop them knowingly: {accepts}")
    if plan.existing and options.on_existing == "refuse":
        raise RefusedError(
            "existing",
            f"{plan.existing} records in the target have ids of the source and were written by someone else",
            hint="--on-existing keep leaves them, --on-existing overwrite saves them first and writes over them",
        )
    if len(plan.repeated) > MAX_REPEATED:
        kind, identity = plan.repeated[0]
        raise RefusedError(
            "repeated-id",
            f"{len(plan.repeated)} ids stand more than once in the source, for example {kind} {identity}",
        )


def _refuse_embedding(plan: Plan) -> None:
    """Refuses a vector name that nothing has, before a run in which nothing would be embedded."""
    embedding, names = plan.transform.embedding, sorted({spec.name for spec in plan.vectors})
    if embedding is None or not plan.passing or embedding.vector in names:
        return
    there = ", ".join(f"`{name}`" for name in names) or "none at all"
    raise RefusedError(
        "invalid",
        f"no record has a vector named `{embedding.vector}` to replace; there are: {there}",
        hint="--embed-vector names one; --embed-kinds gives vectors to records that have none",
    )
