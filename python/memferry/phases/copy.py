"""The copy: ranges in parallel, each page read, decoded, compared, written, acknowledged and booked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Final

from memferry._native import Batch, Keys, Mapper, classify, gathered
from memferry.backends.api import Reader, Source, Target, as_foreign
from memferry.errors import StoreError, TransientError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger, RangeState
from memferry.model import (
    CONFLICT,
    CREATE,
    EXISTING,
    UNCHANGED,
    UPDATE,
    Books,
    Limits,
    Quarantined,
    Range,
    inverted,
    rows_with,
)
from memferry.phases.gather import Gathering, with_gathering
from memferry.phases.plan import Options, Plan, Progress, Stop
from memferry.phases.reading import LOOK_UP_SECS, read_page, read_stream
from memferry.phases.transform import Transform
from memferry.profiles import load_mapper
from memferry.retry import retrying

__all__ = ["Booked", "Observer", "Pace", "copy_ranges", "save_originals"]

Booked = Callable[[Books, Books], None]
"""Called with the counts of a range before a page and after it."""

_WAIT_SECS: Final = 600.0
"""How long ranges of other workers may stand still before a worker that needs them gives up."""
_POLL_SECS: Final = 1.0


class Observer:
    """Sees what a copy does, and may have a say in what is written over. Called inside the transaction of a page."""

    def seen(self, part: Range, page: int, records: Batch) -> None:
        """Records as they were read."""

    def judged(self, images: Batch, held: Batch, actions: bytes) -> bytes:  # noqa: ARG002
        """What is done with records; `held` is what the target has under their ids."""
        return actions

    def unchanged(self, images: Batch) -> None:
        """Records that the target has as they should be."""

    def written(self, part: Range, page: int, images: Batch) -> None:
        """Records that were written."""


class Pace:
    """Holds a rate, shared by all threads."""

    def __init__(self, per_second: float | None, stop: Stop) -> None:
        self._per_second = per_second
        self._stop = stop
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def take(self, records: int) -> None:
        """Waits until so many more records are due."""
        if self._per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            wait_secs = self._next - now
            self._next = max(self._next, now) + records / self._per_second
        if wait_secs > 0:
            self._stop.wait(wait_secs)


class _Copy:
    """One copy at work."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        target: Target,
        ledger: Ledger,
        options: Options,
        progress: Progress,
        stop: Stop,
        *,
        fresh: bool,
        done: int,
        expected: int,
    ) -> None:
        self.plan = plan
        self.source = source
        self.target = target
        self.foreign = as_foreign(target)
        self.ledger = ledger
        self.options = options
        self.progress = progress
        self.stop = stop
        # A target that was empty and has no page of ours yet: nothing can be there, so nothing is looked for.
        self.fresh = fresh
        self.pace = Pace(options.max_records_per_second, stop)
        transform = Transform(plan.transform, plan.accept, options.endpoint, stop)
        self.transform = with_gathering(transform, source, target)
        self.repeated = Keys()
        self.repeated.add_identities(list(plan.repeated))
        self.done = done
        self.expected = expected
        self.lock = threading.Lock()
        self.booked: Booked = lambda *_: None
        self.observer: Observer | None = None

    def range(self, part: Range) -> None:
        """Copies one range from where the ledger says."""
        state = retrying(lambda: self.ledger.range_state(part.number))
        if state.done:
            return
        if self.target.resume == "range":
            with self.lock:
                self.done -= state.books.total("read")
            state = RangeState()
            retrying(lambda: self.ledger.forget_range(part.number))
        retrying(lambda: self.target.begin_range(part))
        reader = self.source.reader()
        while not state.done:
            self.stop.check()
            before = state
            state = retrying(lambda before=before: self.page(part, reader, before))  # type: ignore[misc]
            with self.lock:
                self.progress("copy", self.done, self.expected)

    def page(self, part: Range, reader: Reader, before: RangeState) -> RangeState:
        """Copies one page and books it; the state after it."""
        page = read_page(reader, part, before.cursor, self.options.limits)
        state = RangeState.from_json(before.to_json())
        state.cursor, state.done, state.page = page.next, page.next is None, before.page + 1
        books = state.books
        for kind, count in page.records.counts():
            books.of(kind).read += count
        # Exploded observations stand beside what was read.
        books.of("observation").read -= page.exploded
        books.of("observation").exploded += page.exploded
        for row in page.quarantined:
            books.of(row.kind or "unknown").read += 1
        applied = self.transform.apply(page.records)
        # Observations that are kept inside their entities are counted with them.
        books.of("observation").read += applied.nested - applied.taken
        for kind, count in applied.filtered:
            books.of(kind).filtered += count
        for kind, count in applied.deduplicated:
            books.of(kind).deduplicated += count
        with self.target.transaction():
            self.ledger.check()
            if self.observer is not None:
                self.observer.seen(part, before.page, page.records)
            written = self.write(part, applied.records, state)
            quarantined = [*page.quarantined, *applied.quarantined, *written]
            failpoint("written")
            for row in quarantined:
                books.of(row.kind or "unknown").quarantined += 1
            self.ledger.quarantine(part.number, before.page, quarantined)
            if state.done:
                self.target.end_range(part)
                failpoint("range-ended")
            if state.done or self.target.resume == "page":
                self.ledger.save_range(part.number, state)
            failpoint("booked")
        failpoint("committed")
        with self.lock:
            self.done += page.read
            self.booked(before.books, books)
        self.pace.take(page.read)
        return state

    def write(self, part: Range, records: Batch, state: RangeState) -> list[Quarantined]:
        """Writes what is to be written of a page; what could not be moved."""
        quarantined: list[Quarantined] = []
        if self.plan.repeated:
            twice = self.repeated.contains(records)
            bad = Mapper.quarantine(records.filter(twice), "repeated-id", "this id stands more than once in the source")
            quarantined += [Quarantined(*row) for row in bad]
            self.count_nested(state, records.filter(twice), "quarantined")
            records = records.filter(inverted(twice))
        if self.foreign:
            fitting, bad_rows = self.foreign.fit(records)
            self.count_dropped(state, records, fitting, bad_rows)
            quarantined += bad_rows
            self.count_nested(state, records, "quarantined")
            self.count_nested(state, fitting, "quarantined", -1)
            records = fitting
        if not len(records):
            return quarantined
        if not self.fresh:
            records = self.choose(part, records, state)
        if len(records):
            refused = self.target.write(part, records, self.plan.migration, fresh=self.fresh)
            quarantined += refused
            if self.observer is not None:
                self.observer.written(part, state.page, self.target.image(records))
            self.count(state, records, "written")
            for row in refused:
                state.books.of(row.kind or "unknown").written -= 1
        return quarantined

    def choose(self, part: Range, records: Batch, state: RangeState) -> Batch:
        """Compares with what the target holds; the records to write."""
        held = self.target.fetch(records)
        # A foreign target may file them under other ids.
        images = self.target.image(records)
        actions = classify(images, held, self.plan.migration)
        if self.observer is not None:
            actions = self.observer.judged(images, held, actions)
            self.observer.unchanged(images.filter(rows_with(actions, UNCHANGED)))
        left: list[tuple[str, str, str]] = []
        write = {CREATE, UPDATE}
        for action, reason, overwrite in (
            (CONFLICT, "changed in the target since it was written", self.options.on_conflict == "source"),
            (EXISTING, "written by someone else", self.options.on_existing == "overwrite"),
        ):
            chosen = images.filter(rows_with(actions, action))
            if not len(chosen):
                continue
            if overwrite:
                write.add(action)
                keys = Keys()
                keys.add(chosen)
                save_originals(self.ledger, held.filter(keys.contains(held)))
            else:
                left += [(kind, identity, reason) for kind, identity in chosen.identities()]
                self.count(state, chosen, "conflicts")
        self.ledger.conflict(part.number, state.page, left)
        self.count(state, records.filter(rows_with(actions, UNCHANGED)), "unchanged")
        return records.filter(rows_with(actions, *write))

    def count_dropped(self, state: RangeState, records: Batch, fitting: Batch, bad: list[Quarantined]) -> None:
        """Counts what an accepted gap leaves out: a whole kind that the target has no place for."""
        left = dict(fitting.counts())
        for kind, count in records.counts():
            state.books.of(kind).filtered += count - left[kind] - sum(row.kind == kind for row in bad)

    def count(self, state: RangeState, records: Batch, column: str) -> None:
        for kind, count in records.counts():
            books = state.books.of(kind)
            setattr(books, column, getattr(books, column) + count)
        self.count_nested(state, records, "nested" if column in {"written", "unchanged"} else column)

    def count_nested(self, state: RangeState, records: Batch, column: str, sign: int = 1) -> None:
        """Counts the observations that share the fate of their entities."""
        if isinstance(self.transform, Gathering):
            books = state.books.of("observation")
            setattr(books, column, getattr(books, column) + sign * gathered(records))


def save_originals(ledger: Ledger, originals: Batch) -> None:
    """Keeps target records that are about to be written over or deleted, with the markers they have.

    Raises:
        StoreError: `refused`, one cannot be kept.
    """
    documents: Mapper = load_mapper("native", "document")
    raw, rows, bad, _ = documents.encode(originals)
    identities = originals.identities()
    if bad:
        raise StoreError(
            "refused",
            f"{len(bad)} records of the target cannot be kept for a rollback, first {bad[0][1]} {bad[0][2]}: "
            f"{bad[0][4]}; they are not written over",
            hint="take them out, or keep them with --on-existing keep",
        )
    for row, (_, body, _) in zip(rows, raw.rows(), strict=True):
        ledger.save_original(*identities[row], body.decode())


def copy_ranges(
    plan: Plan,
    source: Source,
    target: Target,
    ledger: Ledger,
    options: Options,
    ranges: Sequence[Range],
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
    resumed: bool = False,
    booked: Booked = lambda *_: None,
    observer: Observer | None = None,
) -> None:
    """Copies those of `ranges` that the ledger does not call done.

    Where kinds come one after another, ranges of other workers are waited for.

    Args:
        plan: What they are of.
        source: Where from.
        target: Where to.
        ledger: Holds the lock; says what is done.
        options: What the user chose.
        ranges: All ranges of the plan, or those of a shard.
        progress: Called after every page.
        stop: Checked between pages.
        resumed: A page of ours may be there; others may have written since.
        booked: Called after every page.
        observer: Sees what is done.

    Raises:
        MemferryError: `interrupted`, or what a store raised when retries ran out.
    """
    stop = stop or Stop()
    chosen = {part.number for part in ranges}
    counts = plan.range_rows or (0,) * len(plan.ranges)
    expected = plan.rows if len(chosen) == len(plan.ranges) else sum(counts[number] for number in chosen)
    before = Books()
    begun = retrying(ledger.states)
    for number, state in begun.items():
        if number in chosen:
            before.add(state.books)
    read = before.total("read")
    # Somebody may have written since the plan was made. Where other workers have begun, what is there is theirs.
    fresh = plan.target_records == 0 and not resumed and (bool(begun) or retrying(lambda: _is_empty(target)))
    copy = _Copy(plan, source, target, ledger, options, progress, stop, fresh=fresh, done=read, expected=expected)
    copy.booked, copy.observer = booked, observer
    earlier: set[int] = set()
    for stage in _stages(plan, target):
        mine = [part for part in stage if part.number in chosen]
        if mine:
            _wait_for(copy, earlier)
            _run_stage(copy, mine, options.parallelism, stop)
        earlier |= {part.number for part in stage} - chosen


def _is_empty(target: Target) -> bool:
    """Whether there is nothing in the target."""
    store = target.source()
    if store is None:
        return True
    try:
        pages = (page for stream in store.streams() for page in read_stream(store, stream.name, Limits(records=1)))
        return not any(page.read for page in pages)
    finally:
        store.close()


def _wait_for(copy: _Copy, numbers: set[int]) -> None:
    """Waits until other workers have done their ranges."""
    left, moved = len(numbers) + 1, time.monotonic()
    while numbers:
        states = retrying(copy.ledger.states)
        waiting = sum(not states[number].done for number in numbers if number in states)
        waiting += sum(number not in states for number in numbers)
        if not waiting:
            return
        copy.stop.check()
        if waiting < left:
            left, moved = waiting, time.monotonic()
        elif time.monotonic() - moved > _WAIT_SECS:
            message = f"{waiting} ranges of other shards have to be copied first, and do not move"
            raise TransientError("unavailable", message)
        copy.stop.wait(_POLL_SECS)


def _stages(plan: Plan, target: Target) -> list[list[Range]]:
    """Ranges that may be copied at the same time, one list after another."""
    if not target.ordered:
        return [list(plan.ranges)]
    stages = dict.fromkeys((part.stream, part.kinds) for part in plan.ranges)
    return [[part for part in plan.ranges if (part.stream, part.kinds) == stage] for stage in stages]


def _run_stage(copy: _Copy, ranges: list[Range], parallelism: int, stop: Stop) -> None:
    with ThreadPoolExecutor(max_workers=parallelism, thread_name_prefix="memferry-range") as pool:
        futures = [pool.submit(copy.range, part) for part in ranges]
        done, left = wait(futures, timeout=LOOK_UP_SECS, return_when=FIRST_EXCEPTION)
        while left and not any(future.exception() for future in done):
            done, left = wait(futures, timeout=LOOK_UP_SECS, return_when=FIRST_EXCEPTION)
        failed = next((f for f in done if f.exception()), None)
        if failed is not None:
            # The other ranges finish their page and stop; the first error is the one that is told.
            already = stop.is_set()
            stop.set()
            for future in futures:
                future.cancel()
            wait(futures)
            if not already:
                stop.clear()
            failed.result()
