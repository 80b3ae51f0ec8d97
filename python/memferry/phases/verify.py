"""Proof: both ends read completely, compared by buckets, unequal buckets drilled down to id and field."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from memferry._native import Batch, Buckets, DedupKeys, Drill, Keys, diff
from memferry.backends.api import Source, Target, as_foreign
from memferry.ledger import Ledger
from memferry.model import Page, Quarantined, Range, inverted
from memferry.phases.gather import with_gathering
from memferry.phases.plan import BUCKETS, Options, Plan, Progress, Stop
from memferry.phases.reading import OwnCount, all_done, read_pages
from memferry.phases.transform import Transform
from memferry.retry import retrying

__all__ = ["Difference", "Verification", "verify"]

MAX_SHOWN: Final = 100
"""Findings that are shown with their fields; all are counted and named."""


@dataclass(frozen=True)
class Difference:
    """One finding.

    Attributes:
        what: `missing`, `extra` or `different`.
        kind: Kind of the record.
        id: Its id.
        fields: Name, expected and found value of fields that differ, for the first findings.
    """

    what: str
    kind: str
    id: str
    fields: tuple[tuple[str, str | None, str | None], ...] = ()


@dataclass
class Verification:
    """What the comparison found.

    Attributes:
        compared: Records the source was expected to have put into the target.
        missing: Expected and not there.
        extra: Ours, or in a target that was empty, and not expected.
        different: There, and not as expected.
        foreign: Records of others, counted, never judged.
        source_unchanged: Whether the source is as it was when the plan read it.
        unread: How many rows more or fewer were read of an unchanged source than it says it has.
        findings: What was found, by kind and id.
    """

    compared: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    foreign: int = 0
    source_unchanged: bool = False
    unread: int = 0
    findings: list[Difference] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs, and everything was seen."""
        return not (self.missing or self.extra or self.different or self.unread)

    def counts(self) -> dict[str, int]:
        """The numbers for the final object."""
        names = ("compared", "missing", "extra", "different", "foreign")
        return {name: getattr(self, name) for name in (*names, *(["unread"] if self.unread else []))}


class _Verifier:
    def __init__(
        self, plan: Plan, source: Source, target: Target, ledger: Ledger, options: Options, stop: Stop
    ) -> None:
        self.plan = plan
        self.source = source
        self.target = target
        self.options = options
        self.stop = stop
        # Records that bear the marker of another migration are foreign; those without any are, where others had been.
        self.marker = plan.migration
        self.unmarked = plan.target_records == 0
        # Gathers anew: the proof does not rest on what was read for the copy.
        transform = Transform(plan.transform, plan.accept, options.endpoint, stop)
        self.transform = with_gathering(transform, source, target)
        self.repeated = Keys()
        self.repeated.add_identities(list(plan.repeated))
        quarantined = retrying(lambda: list(ledger.quarantined()))
        self.quarantined = {(row.kind, row.id) for _, row in quarantined if row.kind and row.id is not None}
        foreign = as_foreign(target)
        if foreign is not None:
            self.quarantined |= set(foreign.filed_under(sorted(self.quarantined)))
        self.conflicts = {(c["kind"], c["id"]) for c in retrying(lambda: list(ledger.conflicts()))}

    def expected(self, batch: Batch, left_out: Keys | None = None) -> Batch:
        """What the target should hold of a source batch; what it need not hold is added to `left_out`."""
        applied = self.transform.apply(batch)
        if left_out is not None and applied.left_out is not None:
            left_out.add(self.target.image(applied.left_out))
        batch = applied.records
        if self.plan.repeated:
            batch = batch.filter(inverted(self.repeated.contains(batch)))
        return self.target.image(batch)

    def each_source(self, use: Callable[[Batch, int], None]) -> Counter[str]:
        """Reads the source; the rows of each stream."""
        return self._each(self.source, list(self.plan.ranges), lambda page: use(page.records, page.read))

    def _each(self, store: Source, parts: list[Range], use: Callable[[Page], None]) -> Counter[str]:
        """Reads ranges of a store, some at a time; `use` is called by several threads."""
        rows, lock = Counter[str](), threading.Lock()

        def read(part: Range) -> None:
            for page in read_pages(store, part, self.options.limits):
                self.stop.check()
                use(page)
                with lock:
                    rows[part.stream] += page.read

        with ThreadPoolExecutor(max_workers=self.options.parallelism) as pool:
            all_done(pool.submit(read, part) for part in parts)
        return rows

    def each_target(self, use: Callable[[Batch, int], None], spoiled: list[Quarantined] | None = None) -> None:
        """Reads the target; rows that are no records go to `spoiled`."""
        store = retrying(self.target.source)
        if store is None:
            return

        def take(page: Page) -> None:
            use(page.records, page.read)
            if spoiled is not None:
                spoiled.extend(page.quarantined)

        parts = [
            Range(0, stream.name, start, end)
            for stream in retrying(store.streams)
            for start, end in retrying(lambda of=stream: store.split(of, self.options.parallelism))  # type: ignore[misc]
        ]
        self._each(store, parts, take)
        store.close()

    def judge_spoiled(self, spoiled: list[Quarantined], result: Verification) -> None:
        """A row that is no record is one too many where it carries our marker or the target was empty."""
        for row in spoiled:
            if self.unmarked or self.marker.encode() in row.raw:
                result.extra += 1
                result.findings.append(Difference("extra", row.kind or "unknown", row.id or row.key))
            else:
                result.foreign += 1


def verify(
    plan: Plan,
    source: Source,
    target: Target,
    ledger: Ledger,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Verification:
    """Compares every record of both ends.

    Args:
        plan: The plan that was copied.
        source: Read again, completely.
        target: Read completely.
        ledger: Says what was quarantined and left alone.
        options: Bounds and parallelism.
        progress: Called after every page.
        stop: Checked between pages.
    """
    stop = stop or Stop()
    work = _Verifier(plan, source, target, ledger, options, stop)
    result = Verification()
    raw, left, right = Buckets(BUCKETS), Buckets(BUCKETS), Buckets(BUCKETS)
    lock = threading.Lock()
    seen = 0

    def tell(read: int) -> None:
        nonlocal seen
        with lock:
            seen += read
            progress("verify", seen, plan.rows * 2)

    def add_source(batch: Batch, read: int) -> None:
        raw.add_with_images(batch, work.expected(batch), left)
        tell(read)

    def add_target(batch: Batch, read: int) -> None:
        foreign = right.add(batch, only=work.marker, unmarked=work.unmarked)
        with lock:
            result.foreign += foreign
        tell(read)

    spoiled: list[Quarantined] = []
    count, rows = OwnCount(source), Counter[str]()
    # Both ends at once: one waits for its store while the other computes.
    with ThreadPoolExecutor(max_workers=2) as pool:
        ends = [
            pool.submit(lambda: rows.update(work.each_source(add_source))),
            pool.submit(work.each_target, add_target, spoiled),
        ]
        all_done(ends)
    result.compared = sum(left.by_kind())
    result.source_unchanged = raw.total() == plan.source_total
    result.unread = count.unread(rows) if result.source_unchanged else 0
    unequal = left.unequal(right)
    if unequal:
        _drill(work, unequal, result)
    if plan.transform.merged and not result.source_unchanged:
        for kind, identity in _merged_no_more(work):
            result.missing += 1
            result.findings.append(Difference("missing", kind, identity))
    if result.equal:
        # A record that became unreadable is missing already, and is told once.
        work.judge_spoiled(spoiled, result)
    return result


def _merged_no_more(work: _Verifier) -> list[tuple[str, str]]:
    """Records that are left out because another one says the same, which it does not any more."""
    merged = work.plan.transform.merged
    # As the plan looked at them: what an endpoint is to embed is only shown, and is equal for equal texts.
    transform = Transform(replace(work.plan.transform, merged=()), None, work.options.endpoint, work.stop)
    wanted, keys, says = Keys(), DedupKeys(exact=True), dict[tuple[str, str], str | None]()
    for place in (1, 2):
        wanted.add_identities([(one[0], one[place]) for one in merged])
    lock = threading.Lock()

    def see(batch: Batch, _: int) -> None:
        records = transform.apply(batch).records
        records = records.filter(wanted.contains(records))
        found = dict(zip(records.identities(), keys.keys(records), strict=True))
        with lock:
            says.update(found)

    work.each_source(see)
    return [
        (kind, loser)
        for kind, loser, winner in merged
        if (kind, loser) in says and says[kind, loser] != says.get((kind, winner))
    ]


def _drill(work: _Verifier, unequal: list[int], result: Verification) -> None:
    drill = Drill(BUCKETS, unequal)
    left_out = Keys()
    work.each_source(lambda batch, _: drill.expect(work.expected(batch, left_out)))
    work.each_target(lambda batch, _: drill.find(batch, marker=work.marker, unmarked=work.unmarked))
    found = drill.findings()
    # Filtered records of an earlier run stay in the target: present, and not judged.
    present = left_out.contains_identities([(kind, identity) for _, kind, identity in found])
    judged = [f for f, there in zip(found, present, strict=True) if not (there and f[0] == "extra")]
    result.foreign += len(found) - len(judged)
    findings = [
        (what, kind, identity)
        for what, kind, identity in judged
        if (kind, identity) not in work.conflicts and not (what == "missing" and (kind, identity) in work.quarantined)
    ]
    for what in ("missing", "extra", "different"):
        setattr(result, what, sum(1 for finding in findings if finding[0] == what))
    shown = [f for f in findings if f[0] == "different"][:MAX_SHOWN]
    fields = _fields(work, [(kind, identity) for _, kind, identity in shown])
    result.findings = [
        Difference(what, kind, identity, fields.get((kind, identity), ())) for what, kind, identity in findings
    ]


def _fields(
    work: _Verifier,
    identities: list[tuple[str, str]],
) -> dict[tuple[str, str], tuple[tuple[str, str | None, str | None], ...]]:
    if not identities:
        return {}
    keys = Keys()
    keys.add_identities(identities)
    expected: list[Batch] = []
    found: list[Batch] = []

    def pick(batches: list[Batch]) -> Callable[[Batch, int], None]:
        def use(batch: Batch, _: int) -> None:
            mask = keys.contains(batch)
            if any(mask):
                batches.append(batch.filter(mask))

        return use

    keep = pick(expected)
    work.each_source(lambda batch, read: keep(work.expected(batch), read))
    work.each_target(pick(found))
    diffs = diff(Batch.concat(expected), Batch.concat(found))
    return {(kind, identity): tuple(fields) for kind, identity, fields in diffs}
