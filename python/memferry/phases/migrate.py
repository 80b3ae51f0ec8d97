"""The phases one after another: plan, copy, delete, verify, report. The same call resumes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memferry.backends.api import Source, Target
from memferry.errors import RefusedError
from memferry.ledger import Ledger
from memferry.model import Books, Outcome
from memferry.phases import stages
from memferry.phases.parity import Parity, check_comparable, measure
from memferry.phases.plan import Options, Plan, Progress, Stop, make_plan, migration_id
from memferry.phases.stages import Proof, Run
from memferry.phases.verify import Verification, verify
from memferry.retry import retrying
from memferry.stores import has_ledger, ledger_hint, open_source, open_target
from memferry.urls import StoreUrl, same_store

__all__ = ["Result", "migrate", "plan_only", "result_of", "search", "verify_only"]


@dataclass
class Result:
    """What a run came to.

    Attributes:
        migration: Id of the migration.
        outcome: One word.
        lossless: Nothing was dropped by an accepted gap.
        plan: The plan.
        books: Counts by kind.
        verification: What the proof found, None when there was none.
        conflicts: Target records left alone.
        elapsed_secs: Wall time.
        resumed: Whether an unfinished run was taken up.
        parity: How searches on both ends compare, None where it was not asked for.
    """

    migration: str
    outcome: Outcome
    lossless: bool
    plan: Plan
    books: Books = field(default_factory=Books)
    verification: Verification | None = None
    conflicts: list[dict[str, str]] = field(default_factory=list)
    elapsed_secs: float = 0.0
    resumed: bool = False
    parity: Parity | None = None

    @property
    def exit_code(self) -> int:
        """0 proven, matched live or partial as asked, 1 not proven."""
        return 0 if self.outcome in {"proven", "matched_live", "partial"} else 1

    def to_json(self) -> dict[str, Any]:
        """The final object of `--json`."""
        records = self.books.total("read")
        return {
            "migration": self.migration,
            "outcome": self.outcome,
            "lossless": self.lossless,
            "gaps": [{"name": gap.name, "records": gap.records} for gap in self.plan.gaps],
            "kinds": self.books.to_json(),
            "verify": self.verification.counts() if self.verification else None,
            "findings": [
                {"what": f.what, "kind": f.kind, "id": f.id, "fields": [list(x) for x in f.fields]}
                for f in (self.verification.findings if self.verification else [])
            ],
            "elapsed_secs": round(self.elapsed_secs, 3),
            "records_per_sec": round(records / self.elapsed_secs, 1) if self.elapsed_secs else 0.0,
            "source_unchanged": self.verification.source_unchanged if self.verification else None,
            "resumed": self.resumed,
            "parity": self.parity.to_json() if self.parity else None,
        }


@contextmanager
def _open(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
) -> Iterator[tuple[Source, Target, Path | None]]:
    """Both ends; a target that is not there yet is made in a scratch folder first."""
    source = open_source(source_url)
    with tempfile.TemporaryDirectory(prefix="memferry-") as folder:
        scratch = None if has_ledger(target_url) else Path(folder)
        target = open_target(target_url, options.accept, scratch)
        try:
            yield source, target, scratch
        finally:
            target.close()
            source.close()


def _refuse_one_store(source_url: StoreUrl, target_url: StoreUrl) -> None:
    if same_store(source_url, target_url):
        raise RefusedError("invalid", f"source and target are one store: {target_url.text}")


def plan_only(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Plan:
    """Makes the plan and writes nothing."""
    _refuse_one_store(source_url, target_url)
    with _open(source_url, target_url, options) as (source, target, _):
        return make_plan(source, target, options, progress=progress, stop=stop)


def migrate(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
    approve: Callable[[Plan], None] = lambda _: None,
    command: str = "",
) -> Result:
    """Moves everything, or takes up what was left of an unfinished run.

    Args:
        source_url: Where from.
        target_url: Where to.
        options: What the user chose.
        progress: Called after every page with phase, records so far, records in all.
        stop: Set it to end between two pages.
        approve: Called with the plan before anything is written; what it raises ends the run.
        command: What a person would enter to resume, for `status`.

    Raises:
        RefusedError: Before anything is written.
        MemferryError: `interrupted`, or a store failed.
    """
    started = time.monotonic()
    stop = stop or Stop()
    _refuse_one_store(source_url, target_url)
    if options.parity:
        check_comparable(options.transform, source_url, target_url)
    # The first contact is not tried again: a wrong address is told at once.
    fresh_plan: Plan | None = None
    if not has_ledger(target_url):
        fresh_plan = plan_only(source_url, target_url, options, progress=progress, stop=stop)
        approve(fresh_plan)
    again = fresh_plan is not None
    opened = stages.opened(source_url, target_url, options, progress=progress, stop=stop, again=again)
    with opened as run, stages.locked(run):
        result = _run(run, fresh_plan, approve, command)
        if options.parity:
            search(result, source_url, target_url, run)
            stages.settle(run, outcome=result.outcome)
        result.elapsed_secs = time.monotonic() - started
        retrying(lambda: run.ledger.save_report(json.dumps(result.to_json())))
    return result


def _run(run: Run, fresh_plan: Plan | None, approve: Callable[[Plan], None], command: str) -> Result:
    """All stages, one after another."""
    plan, resumed = stages.bind(run, fresh_plan=fresh_plan, approve=approve)
    stages.settle(run, **stages.told(run, plan, command=command))
    stages.prepare(run, plan)
    stages.transfer(run, plan, resumed=resumed)
    stages.finish(run, plan)
    return result_of(plan, stages.prove(run, plan), resumed=resumed)


def result_of(plan: Plan, proof: Proof, *, resumed: bool = False) -> Result:
    """The result of a run that came to its end."""
    lossless = not stages.dropped(plan)
    return Result(
        plan.migration,
        proof.outcome,
        lossless,
        plan,
        proof.books,
        proof.verification,
        proof.conflicts,
        resumed=resumed,
    )


def search(result: Result, source_url: StoreUrl, target_url: StoreUrl, run: Run) -> None:
    """Compares searches; what they come to changes the outcome only where a recall was asked for."""
    check_comparable(result.plan.transform)
    result.parity = measure(source_url, target_url, run.source, run.options, progress=run.progress, stop=run.stop)
    if not result.parity.reaches(run.options.min_recall):
        result.outcome = "not_proven"


def verify_only(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Result:
    """Compares both ends of a migration that was run before.

    Raises:
        RefusedError: `no-migration`.
    """
    started = time.monotonic()
    stop = stop or Stop()
    if options.parity:
        check_comparable(options.transform, source_url, target_url)
    if not has_ledger(target_url):
        raise RefusedError("no-migration", f"there is nothing at {target_url.text}", hint=ledger_hint(target_url))
    source, target = open_source(source_url), open_target(target_url, options.accept)
    try:
        ledger = Ledger(target.documents, migration_id(source, target))
        text = ledger.plan()
        if text is None:
            raise RefusedError(
                "no-migration",
                f"{target_url.text} knows no migration from {source_url.text}",
                hint="`memferry status TARGET` lists those it knows",
            )
        plan = Plan.from_json(text)
        if plan.accept != tuple(sorted(options.accept)):
            # What was given up then is not expected now.
            target.close()
            target = open_target(target_url, plan.accept)
            ledger = Ledger(target.documents, plan.migration)
        # The source may have grown since: the whole of it is compared, not the ranges of the plan.
        plan = replace(plan, ranges=stages.whole(source))
        allowed = (ledger.run() or {}).get("max_quarantined", 0)
        options = replace(options, max_quarantined=max(options.max_quarantined, allowed))
        verification = verify(plan, source, target, ledger, options, progress=progress, stop=stop)
        books = ledger.books()
        outcome = stages.judge(plan, books, verification, options)
        result = result_of(plan, Proof(outcome, books, verification, list(ledger.conflicts())))
        if options.parity:
            search(result, source_url, target_url, Run(source, target, ledger, options, progress, stop))
    finally:
        target.close()
        source.close()
    result.elapsed_secs = time.monotonic() - started
    return result
