"""The way back: what the application wrote after the switch goes home to the source, and nothing else is touched there.

Untouched is what still is as the migration wrote it: its copy at home is not looked at, and stays as it is. What was
written at home since the switch, by whoever still does, is never written over: it is listed.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from memferry._native import Batch, Keys, standings
from memferry.backends.api import Source
from memferry.backends.seen import SeenSource
from memferry.errors import RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import RangeState
from memferry.model import (
    CONFLICT,
    CREATE,
    EXISTING,
    FOREIGN,
    INTACT,
    Limits,
    Page,
    Range,
    inverted,
    rows_with,
)
from memferry.phases import stages
from memferry.phases.copy import save_originals
from memferry.phases.deletions import DELETIONS, named
from memferry.phases.passes import SHOWN, Baseline, Passed, Seeing, Settled, allowed_deletes, settled
from memferry.phases.plan import Plan, cut
from memferry.phases.reading import read_stream
from memferry.phases.stages import Run
from memferry.retry import retrying

__all__ = ["Home"]


class _Away(SeenSource):
    """The store the application uses now, less what is as the migration wrote it."""

    def __init__(self, source: Source, migration: str) -> None:
        super().__init__(source)
        self._lock = threading.Lock()
        self._counted: dict[tuple[int, str | None], int] = {}
        self.migration = migration
        self.present = Keys()
        self.untouched = Keys()

    def see(self, part: Range, cursor: str | None, page: Page) -> Page:
        """Remembers a page, and passes on the records of it that somebody wrote since."""
        intact = rows_with(standings(page.records, self.migration), INTACT)
        kept = page.records.filter(intact)
        with self._lock:
            # A page that is read again counts once.
            self._counted[part.number, cursor] = len(kept)
        self.untouched.add(kept)
        self.present.add(page.records)
        self.present.add_identities([(row.kind, row.id) for row in page.quarantined if row.kind and row.id])
        return replace(page, records=page.records.filter(inverted(intact)))

    @property
    def untouched_records(self) -> int:
        """Records that are as the migration wrote them."""
        return sum(self._counted.values())

    def lost(self, home: Keys, limits: Limits) -> list[tuple[str, str]]:
        """Untouched records that are not at home any more."""
        found: list[tuple[str, str]] = []
        for stream in retrying(self.streams):
            for page in read_stream(self._source, stream.name, limits):
                kept = page.records.filter(self.untouched.contains(page.records))
                found += kept.filter(inverted(home.contains(kept))).identities()
        return found

    def witness(self) -> None:
        """Nothing."""


class _Arbiter(Seeing):
    """Lets a record be written over at home only where it is as it was at the switch, or as we carried it there."""

    def __init__(self, run: Run, number: int, baseline: Baseline, carried: Keys, touched: Keys | None) -> None:
        super().__init__(run.ledger, number, touched, keep=False)
        self._baseline = baseline
        self._carried = carried

    def judged(self, images: Batch, held: Batch, actions: bytes) -> bytes:
        """See `Observer`."""
        stray = Keys()
        stray.add(held.filter(inverted(self._baseline.as_was(held))))
        judged = bytearray(actions)
        known, deleted = self._baseline.known(images), self._carried.contains(images)
        for row, there in enumerate(stray.contains(images)):
            written_at_home = actions[row] == EXISTING and there
            # It was at home, we did not delete it, and it is gone.
            deleted_at_home = actions[row] == CREATE and known[row] and not deleted[row]
            if written_at_home or deleted_at_home:
                judged[row] = CONFLICT
        return bytes(judged)


@dataclass(frozen=True)
class _Standing:
    """What home is like, against the store the application uses.

    Attributes:
        gone: Records that the application deleted.
        stray: Records that somebody wrote at home since the switch.
        ours: Records there that may be deleted at all.
    """

    gone: list[tuple[str, str]]
    stray: list[tuple[str, str]]
    ours: int


class Home:
    """Passes home, by a process that keeps both ends open.

    Args:
        there: The migration as it went, with its ledger.
        back: The same ends the other way round, under its one lock.
        max_deletes: How many records a pass may delete; None for the larger of 100 and one per cent.

    Raises:
        RefusedError: `no-migration`, nothing was kept of the source at the switch.
    """

    def __init__(self, there: Run, back: Run, max_deletes: int | None = None) -> None:
        self._migration = there.ledger.migration
        self._run = replace(back, options=replace(back.options, on_existing="overwrite", on_conflict="keep"))
        self._max_deletes = max_deletes
        self._baseline = Baseline(there.ledger)
        if not self._baseline.records:
            raise RefusedError(
                "no-migration",
                "what the source was like at the switch is not known, so nothing can be carried back into it",
                hint="`FinalPass` keeps it; a switch without one cannot go home",
            )
        self._carried = Keys()
        for some in retrying(lambda: list(back.ledger.carried())):
            self._carried.add_identities(some)

    def back(self, number: int, *, touched: Keys | None = None) -> tuple[Passed, Keys]:
        """One pass home; what it did, and those of `touched` that are there as they should be.

        Raises:
            RefusedError: `max-deletes`.
        """
        run, began = self._run, time.monotonic()
        away = _Away(run.source, self._migration)
        plan = self._plan(away)

        def begin() -> None:
            with run.target.transaction():
                run.ledger.check()
                run.ledger.start_run(
                    plan.to_json(), plan_hash=plan.hash(), source=plan.source, target=plan.target, at_pass=number
                )

        retrying(begin)
        arbiter = _Arbiter(run, number, self._baseline, self._carried, touched)
        stages.transfer(replace(run, source=away), plan, resumed=True, observer=arbiter)
        books = retrying(run.ledger.books)
        if books.total("quarantined"):
            raise RefusedError("gap", f"{books.total('quarantined')} records that were written since do not fit home")
        standing = self._look(away)
        self._delete(number, standing)
        retrying(lambda: run.target.finish(plan.migration, list(plan.ranges)))
        stages.settle(run, state="done")
        conflicts = {(c["kind"], c["id"]) for c in retrying(lambda: list(run.ledger.conflicts()))} | {*standing.stray}
        secs = time.monotonic() - began
        changed, listed = books.total("written"), tuple(sorted(conflicts)[:SHOWN])
        done = Passed(changed, len(standing.gone), len(conflicts), secs, secs, complete=True, listed=listed)
        return done, arbiter.confirmed

    def final(self, number: int) -> Settled:
        """The last pass while nobody writes, and the comparison that must find nothing to do.

        Raises:
            NotProvenError: It found something, or something was written at home since the switch.
        """
        first, _ = self.back(number)
        touched = Keys()
        for some in retrying(lambda: list(self._run.ledger.touched())):
            touched.add_identities(some)
        second, confirmed = self.back(number + 1, touched=touched)
        return settled(self._run, first, second, confirmed)

    def stray(self) -> list[tuple[str, str]]:
        """Records at home that somebody wrote, changed or deleted since the switch; reads home only."""
        return self._look(None).stray

    def _plan(self, away: _Away) -> Plan:
        """Enough of a plan to copy by: nothing is mapped, filtered or dropped on the way home."""
        run = self._run
        ends = [
            {"backend": end.backend, "profile": end.profile, "identity": end.identity} for end in (away, run.target)
        ]
        ranges = tuple(cut(away, ordered=run.target.ordered))
        rows = sum(stream.rows or 0 for stream in retrying(away.streams))
        return Plan(
            migration=run.ledger.migration,
            source=ends[0],
            target=ends[1],
            ranges=ranges,
            counts={},
            rows=rows,
            gaps=(),
            repeated=(),
            source_total="",
            target_records=max(1, self._baseline.records),
            existing=0,
            accept=(),
            vectors=(),
        )

    def _look(self, away: _Away | None) -> _Standing:
        """Reads home; without the other store only for what was written there."""
        run, migration = self._run, self._run.ledger.migration
        gone: list[tuple[str, str]] = []
        stray: list[tuple[str, str]] = []
        ours = seen = 0
        home = Keys()
        store = retrying(run.target.source)
        if store is None:
            return _Standing([], [], 0)
        for stream in retrying(store.streams):
            for page in read_stream(store, stream.name, run.options.limits):
                run.stop.check()
                standing, as_was = standings(page.records, migration), self._baseline.as_was(page.records)
                foreign = rows_with(standing, FOREIGN)
                intact = rows_with(standing, INTACT)
                mine = bytes(i or (f and w) for i, f, w in zip(intact, foreign, as_was, strict=True))
                ours += sum(mine)
                stray += page.records.filter(inverted(mine)).identities()
                if away is not None:
                    kept = page.records.filter(mine)
                    gone += kept.filter(inverted(away.present.contains(kept))).identities()
                    seen += sum(away.untouched.contains(page.records))
                    home.add(page.records)
        store.close()
        if away is not None and seen < away.untouched_records:
            stray += away.lost(home, run.options.limits)
        return _Standing(gone, stray, ours)

    def _delete(self, number: int, standing: _Standing) -> None:
        """Deletes at home what the application deleted."""
        run, gone = self._run, standing.gone
        limit = allowed_deletes(self._max_deletes, standing.ours)
        if len(gone) > limit:
            raise RefusedError(
                "max-deletes",
                f"{len(gone)} of {standing.ours} records would be deleted at home, allowed are {int(limit)}",
                hint="look at the target first; spec.transfer.maxDeletes raises the limit",
            )
        if not gone:
            return
        state = RangeState(done=True)
        for kind, _ in gone:
            state.books.of(kind).deleted += 1

        def delete() -> None:
            with run.target.transaction():
                run.ledger.check()
                # Said first: a record that is gone without it would look as if somebody had deleted it at home.
                run.ledger.carry(number, gone)
                self._keep(gone)
                failpoint("carried")
                run.target.delete(gone)
                failpoint("deleted")
                run.ledger.save_range(DELETIONS, state)
                run.ledger.touch(number, DELETIONS, 0, gone)

        retrying(delete)
        self._carried.add_identities(gone)

    def _keep(self, gone: list[tuple[str, str]]) -> None:
        """Keeps what is about to be deleted, for a rollback."""
        held = self._run.target.fetch(named(gone))
        save_originals(self._run.ledger, held)
