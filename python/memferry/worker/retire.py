"""Decommission: deletes at the source what the migration moved, and nothing else, after one more look at all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final

from memferry._native import Batch, Keys, classify, standings
from memferry.backends.api import Target
from memferry.errors import NotProvenError, RefusedError
from memferry.failpoints import failpoint
from memferry.model import INTACT, UNCHANGED, inverted, rows_with
from memferry.phases import stages
from memferry.phases.passes import Baseline
from memferry.phases.plan import Plan
from memferry.phases.reading import read_stream
from memferry.phases.stages import Run
from memferry.phases.transform import Transform
from memferry.phases.verify import verify
from memferry.retry import retrying
from memferry.stores import open_target
from memferry.worker.verbs import Work

__all__ = ["retire"]

_SHOWN: Final = 100


@dataclass(frozen=True)
class _Judged:
    """A page of the source.

    Attributes:
        safe: Records that the target has, as they are or as the application made them since.
        missing: Records that the target does not have.
        stray: Records that somebody wrote at the source since the switch.
        left: Records that were not moved, and are not touched.
        unreadable: Rows that are no records.
    """

    safe: Batch
    missing: list[tuple[str, str]]
    stray: list[tuple[str, str]]
    left: int
    unreadable: int


class _Retiring:
    """The source, judged against the target."""

    def __init__(self, run: Run, plan: Plan, source: Target) -> None:
        self._run = run
        self._plan = plan
        self._source = source
        self._transform = Transform(plan.transform, plan.accept, run.options.endpoint, run.stop)
        self._baseline = Baseline(run.ledger)
        quarantined = [row for _, row in retrying(lambda: list(run.ledger.quarantined())) if row.kind and row.id]
        self._not_moved = Keys()
        self._not_moved.add_identities([(row.kind or "", row.id or "") for row in quarantined])
        self._not_moved.add_identities([(c["kind"], c["id"]) for c in retrying(lambda: list(run.ledger.conflicts()))])

    @property
    def switched(self) -> bool:
        """Whether an application has used the target since."""
        return self._baseline.records > 0

    def pages(self) -> Iterator[_Judged]:
        """The source, relations first: what ties records together goes before them."""
        store = retrying(self._source.source)
        if store is None:
            return
        with closing(store):
            for stream in reversed(retrying(store.streams)):
                for page in read_stream(store, stream.name, self._run.options.limits):
                    self._run.stop.check()
                    yield self._judge(page.records, len(page.quarantined))

    def _judge(self, records: Batch, unreadable: int) -> _Judged:
        target, migration = self._run.target, self._plan.migration
        applied = self._transform.apply(records).records
        moved = applied.filter(inverted(self._not_moved.contains(applied)))
        # A moved record may have another id or content there; it stands in the same row here.
        images = target.image(moved)
        held = target.fetch(images)
        actions = classify(images, held, migration)
        there, as_was = Keys(), Keys()
        there.add(held)
        named = Keys()
        named.add(moved)
        here = records.filter(named.contains(records))
        if self.switched:
            as_was.add(here.filter(self._baseline.as_was(here)))
            carried = stages.way_home(self._run)
            as_was.add(here.filter(rows_with(standings(here, carried), INTACT)))
            # The application may have gone on from a record; what it went on from must be what it got.
            ok = bytes(t and w for t, w in zip(there.contains(images), as_was.contains(moved), strict=True))
            stray = moved.filter(inverted(as_was.contains(moved))).identities()
        else:
            ok = rows_with(actions, UNCHANGED)
            fine = bytes(o or not t for o, t in zip(ok, there.contains(images), strict=True))
            stray = moved.filter(inverted(fine)).identities()
        missing = moved.filter(inverted(there.contains(images))).identities()
        safe = Keys()
        safe.add(moved.filter(ok))
        return _Judged(here.filter(safe.contains(here)), missing, stray, len(records) - len(moved), unreadable)


def retire(work: Work) -> dict[str, Any]:
    """Verifies everything, deletes what was moved, and says what remains."""
    url, there = work.ends.source, work.ends.target
    if (work.pod.decommission or work.migration.spec.decommission.policy) != "Delete":
        raise RefusedError("invalid", "spec.decommission.policy is Retain: nothing is deleted")
    if url.profile != "native" or url.backend == "jsonl" or there.profile != "native":
        raise RefusedError(
            "unsupported",
            f"records are not deleted out of a {url.backend} store of profile {url.profile} after they went to one of "
            f"profile {there.profile}",
            hint="the store is retired as a whole, by who keeps it",
        )
    with ExitStack() as opening:
        run = work.opened(opening, work.ends.options)
        opening.enter_context(stages.locked(run))
        document = run.read()
        if document is None or document["state"] != "done":
            raise RefusedError("no-migration", f"migration {run.ledger.migration} has not come to its end")
        plan = stages.bound_plan(run, copied=True)
        source = opening.enter_context(closing(retrying(lambda: open_target(url))))
        retiring = _Retiring(run, plan, source)
        verified = _verified(run, plan, retiring)
        failpoint("verified")
        return {"verified": verified, **_delete(run, plan, source, retiring)}


def _verified(run: Run, plan: Plan, retiring: _Retiring) -> int:
    """Looks at everything.

    Raises:
        NotProvenError: Something would be lost.
    """
    if not retiring.switched:
        found = verify(plan, run.source, run.target, run.ledger, run.options, progress=run.progress, stop=run.stop)
        if found.missing or found.different:
            raise NotProvenError("not-proven", f"{found.missing} records are missing, {found.different} different")
    safe = 0
    missing: list[tuple[str, str]] = []
    stray: list[tuple[str, str]] = []
    for page in retiring.pages():
        safe += len(page.safe)
        missing += page.missing
        stray += page.stray
    if missing or stray:
        shown = ", ".join(f"{kind} {one}" for kind, one in (missing + stray)[:3])
        raise NotProvenError(
            "not-proven",
            f"{len(missing)} records of the source are not in the target, {len(stray)} were written since the switch "
            f"(for example {shown}); nothing is deleted",
            hint="what the application deleted is carried home by a pass; policy Retain keeps the source",
        )
    return safe


def _delete(run: Run, plan: Plan, source: Target, retiring: _Retiring) -> dict[str, Any]:
    """Deletes page by page what is still as it was verified."""
    deleted = left = unreadable = 0
    kept: list[tuple[str, str]] = []
    for page in retiring.pages():
        left += page.left
        unreadable += page.unreadable
        kept += [*page.missing, *page.stray]
        if not len(page.safe):
            continue

        def delete(safe: Batch = page.safe) -> int:
            with run.target.transaction():
                run.ledger.check()
            with source.transaction():
                return source.delete(safe.identities())

        deleted += retrying(delete)
        failpoint("retired")
    retrying(lambda: source.finish(plan.migration, []))
    remains = sum(len(page.safe) + page.left + len(page.missing) + len(page.stray) for page in retiring.pages())
    return {
        "deleted": deleted,
        "remains": {"records": remains, "notMoved": left, "unreadable": unreadable, "kept": kept[:_SHOWN]},
    }
