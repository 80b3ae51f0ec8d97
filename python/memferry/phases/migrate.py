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
from memferry.errors import MemferryError, RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger
from memferry.model import Books, Outcome, Range
from memferry.phases.copy import run_copy
from memferry.phases.deletions import carry_deletions
from memferry.phases.parity import Parity, check_comparable, measure
from memferry.phases.plan import Options, Plan, Progress, Stop, make_plan, migration_id
from memferry.phases.verify import Verification, verify
from memferry.retry import retrying
from memferry.stores import has_ledger, ledger_hint, open_source, open_target
from memferry.urls import StoreUrl, same_store

__all__ = ["Result", "migrate", "plan_only", "verify_only"]


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


def plan_only(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Plan:
    """Makes the plan and writes nothing."""
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
    if same_store(source_url, target_url):
        raise RefusedError("invalid", f"source and target are one store: {target_url.text}")
    if options.parity:
        check_comparable(options.transform, source_url, target_url)
    # The first contact is not tried again: a wrong address is told at once.
    fresh_plan: Plan | None = None
    if has_ledger(target_url):
        source = open_source(source_url)
    else:
        fresh_plan = plan_only(source_url, target_url, options, progress=progress, stop=stop)
        approve(fresh_plan)
        source = retrying(lambda: open_source(source_url))
    target = retrying(lambda: open_target(target_url, options.accept))
    try:
        ledger = Ledger(target.documents, migration_id(source, target))
        retrying(lambda: ledger.acquire(target))
        try:
            with ledger.kept_alive(target):
                result = _run(source, target, ledger, options, fresh_plan, progress, stop, approve, command)
                if options.parity:
                    _search(result, source_url, target_url, source, options, progress, stop)
                    _settle(target, ledger, outcome=result.outcome)
                result.elapsed_secs = time.monotonic() - started
                retrying(lambda: ledger.save_report(json.dumps(result.to_json())))
        finally:
            ledger.release()
    finally:
        target.close()
        source.close()
    return result


def _run(
    source: Source,
    target: Target,
    ledger: Ledger,
    options: Options,
    fresh_plan: Plan | None,
    progress: Progress,
    stop: Stop,
    approve: Callable[[Plan], None],
    command: str,
) -> Result:
    run = retrying(ledger.run)
    resumed = run is not None and run["state"] in {"copying", "verifying"}
    if run is not None and resumed:
        plan = _bound_plan(ledger, source, options, copied=run["state"] == "verifying")
        approve(plan)
    else:
        plan = _start(source, target, ledger, options, fresh_plan, progress, stop, approve)
    _note(target, ledger, plan, command)
    retrying(lambda: target.prepare(plan.migration, plan.vectors))
    failpoint("prepared")
    run_copy(plan, source, target, ledger, options, progress=progress, stop=stop, resumed=resumed)
    if options.delete:
        carry_deletions(plan, source, target, ledger, options, stop)
        retrying(lambda: target.finish(plan.migration, list(plan.ranges)))
    _settle(target, ledger, state="verifying")
    failpoint("copied")
    books = retrying(ledger.books)
    if not books.balanced():
        raise MemferryError("books", f"the books do not balance: {books.to_json()}")
    verification = verify(plan, source, target, ledger, options, progress=progress, stop=stop)
    conflicts = retrying(lambda: list(ledger.conflicts()))
    outcome = judge(plan, books, verification, options)
    _settle(target, ledger, state="done", outcome=outcome, verify=verification.counts())
    dropped = any(gap.name in plan.accept for gap in plan.gaps)
    return Result(plan.migration, outcome, not dropped, plan, books, verification, conflicts, resumed=resumed)


def _settle(target: Target, ledger: Ledger, **changes: Any) -> None:
    """Changes the run document, unless another run has taken the migration over."""

    def note() -> None:
        with target.transaction():
            ledger.check()
            ledger.save_run(**changes)

    retrying(note)


def _start(
    source: Source,
    target: Target,
    ledger: Ledger,
    options: Options,
    fresh_plan: Plan | None,
    progress: Progress,
    stop: Stop,
    approve: Callable[[Plan], None],
) -> Plan:
    if fresh_plan is not None:
        store = {"backend": target.backend, "profile": target.profile, "identity": target.identity}
        plan = replace(fresh_plan, migration=ledger.migration, target=store)
    else:
        plan = make_plan(source, target, options, progress=progress, stop=stop)
        approve(plan)

    def start() -> None:
        with target.transaction():
            ledger.check()
            ledger.start_run(plan.to_json(), plan_hash=plan.hash(), source=plan.source, target=plan.target)

    retrying(start)
    failpoint("planned")
    return plan


def _note(target: Target, ledger: Ledger, plan: Plan, command: str) -> None:
    """Notes what `status` tells of the run."""
    _settle(
        target,
        ledger,
        command=command,
        folder=str(Path.cwd()),
        rows=plan.rows,
        began_at=time.time(),
        read_before=retrying(ledger.books).total("read"),
        outcome=None,
    )


def _bound_plan(ledger: Ledger, source: Source, options: Options, *, copied: bool) -> Plan:
    text = retrying(ledger.plan)
    if text is None:
        raise MemferryError("no-migration", f"migration {ledger.migration} is unfinished and has no plan")
    plan = Plan.from_json(text)
    if tuple(sorted(options.accept)) != plan.accept:
        raise RefusedError(
            "plan-changed",
            f"migration {ledger.migration} is unfinished and was planned with accepted gaps "
            f"{list(plan.accept)}, not {sorted(options.accept)}",
            hint="resume with the same options, or `memferry rollback` first",
        )
    changed = plan.transform.changed(options.transform)
    if changed:
        raise RefusedError(
            "plan-changed",
            f"migration {ledger.migration} is unfinished and was planned with another {', '.join(changed)}",
            hint="resume with the same options, or `memferry rollback` first",
        )
    if plan.source.get("witness") != source.witness():
        if copied:  # What is left to do is to compare, and that needs no offsets.
            return replace(plan, ranges=_whole(source))
        raise RefusedError(
            "plan-changed",
            f"the source {plan.source['identity']} is not as it was when migration {ledger.migration} was planned",
            hint="put the source back as it was, or `memferry rollback` first",
        )
    return plan


def _whole(source: Source) -> tuple[Range, ...]:
    """Every stream as one range."""
    return tuple(Range(i, stream.name, None, None) for i, stream in enumerate(source.streams()))


def judge(plan: Plan, books: Books, verification: Verification, options: Options) -> Outcome:
    """One word for a run that came to its end."""
    failed = (
        not verification.equal or books.total("conflicts") > 0 or books.total("quarantined") > options.max_quarantined
    ) or (options.source_frozen and not verification.source_unchanged)
    if failed:
        return "not_proven"
    if plan.transform.partial:
        return "partial"
    return "proven" if verification.source_unchanged else "matched_live"


def _search(
    result: Result,
    source_url: StoreUrl,
    target_url: StoreUrl,
    source: Source,
    options: Options,
    progress: Progress,
    stop: Stop | None,
) -> None:
    """Compares searches; what they come to changes the outcome only where a recall was asked for."""
    check_comparable(result.plan.transform)
    result.parity = measure(source_url, target_url, source, options, progress=progress, stop=stop)
    if not result.parity.reaches(options.min_recall):
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
        plan = replace(plan, ranges=_whole(source))
        verification = verify(plan, source, target, ledger, options, progress=progress, stop=stop)
        books = ledger.books()
        outcome = judge(plan, books, verification, options)
        dropped = any(gap.name in plan.accept for gap in plan.gaps)
        result = Result(plan.migration, outcome, not dropped, plan, books, verification, list(ledger.conflicts()))
        if options.parity:
            _search(result, source_url, target_url, source, options, progress, stop)
    finally:
        target.close()
        source.close()
    result.elapsed_secs = time.monotonic() - started
    return result
