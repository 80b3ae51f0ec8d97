"""The stages of a migration, each to be done by this process or by another one: bind, prepare, transfer, finish, prove.

All of them are idempotent and can be killed: what is done stands in the ledger, and the same call goes on after it.
`migrate` does them one after another in one process. In a cluster a worker plans, one for each shard transfers, and a
last one finishes and proves, under locks of their own (`memferry.locks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from memferry.backends.api import Source, Target
from memferry.errors import MemferryError, RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Claim, Ledger
from memferry.model import Books, Outcome, Range
from memferry.phases.copy import Booked, Observer, copy_ranges
from memferry.phases.deletions import carry_deletions
from memferry.phases.plan import Options, Plan, Progress, Stop, make_plan, migration_id
from memferry.phases.verify import Verification, verify
from memferry.retry import retrying
from memferry.stores import open_source, open_target
from memferry.urls import StoreUrl

__all__ = [
    "Proof",
    "Run",
    "bind",
    "bound_plan",
    "cut_shards",
    "dropped",
    "finish",
    "judge",
    "locked",
    "opened",
    "prepare",
    "prove",
    "settle",
    "shards",
    "shareable",
    "told",
    "transfer",
    "way_home",
    "whole",
]


@dataclass
class Run:
    """A migration whose ends are open.

    Attributes:
        source: Where from.
        target: Where to.
        ledger: What is done, and the lock.
        options: What was chosen.
        progress: Called after every page with phase, records so far, records in all.
        stop: Checked between pages.
        booked: Called after every page of the copy.
    """

    source: Source
    target: Target
    ledger: Ledger
    options: Options
    progress: Progress = field(default=lambda *_: None)
    stop: Stop = field(default_factory=Stop)
    booked: Booked = field(default=lambda *_: None)

    def read(self) -> dict[str, Any] | None:
        """The run document.

        Raises:
            RefusedError: `rolling-back`; what the ledger says is done may have been taken out.
        """
        document = retrying(self.ledger.run)
        if document is not None and document["state"] == "rolling_back":
            raise RefusedError(
                "rolling-back",
                f"a rollback of migration {self.ledger.migration} has not come to its end",
                hint="call `memferry rollback` again; after it the migration can begin anew",
            )
        return document


@dataclass(frozen=True)
class Proof:
    """What the comparison of both ends came to.

    Attributes:
        outcome: One word.
        books: Counts by kind.
        verification: What was found.
        conflicts: Target records left alone.
    """

    outcome: Outcome
    books: Books
    verification: Verification
    conflicts: list[dict[str, str]]


@contextmanager
def opened(
    source_url: StoreUrl,
    target_url: StoreUrl,
    options: Options,
    claim: Claim | None = None,
    *,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
    again: bool = False,
) -> Iterator[Run]:
    """Both ends of a migration.

    Args:
        source_url: Where from.
        target_url: Where to; made where there is nothing.
        options: What was chosen.
        claim: The worker that opens them.
        progress: Called after every page.
        stop: Checked between pages.
        again: The source was reached before, so one that does not answer is waited for.
    """
    source = retrying(lambda: open_source(source_url)) if again else open_source(source_url)
    try:
        target = retrying(lambda: open_target(target_url, options.accept))
        try:
            ledger = Ledger(target.documents, migration_id(source, target), claim)
            yield Run(source, target, ledger, options, progress, stop or Stop())
        finally:
            target.close()
    finally:
        source.close()


def locked(run: Run) -> AbstractContextManager[None]:
    """Holds the lock of a run while a block is at work."""
    return run.ledger.held(run.target)


def settle(run: Run, **changes: Any) -> None:
    """Changes the run document, unless another run has taken the migration over."""

    def note() -> None:
        with run.target.transaction():
            run.ledger.check()
            run.ledger.save_run(**changes)

    retrying(note)


def bind(
    run: Run,
    *,
    fresh_plan: Plan | None = None,
    approve: Callable[[Plan], None] = lambda _: None,
) -> tuple[Plan, bool]:
    """The plan of an unfinished run, or a new one, written into the ledger.

    Args:
        run: The migration, under its one lock.
        fresh_plan: A plan made just now, before there was a ledger.
        approve: Called with the plan before anything is written; what it raises ends the run.

    Returns:
        The plan, and whether it was taken up.
    """
    document = run.read()
    if document is not None and document["state"] in {"copying", "verifying"}:
        plan = bound_plan(run, copied=document["state"] == "verifying")
        approve(plan)
        return plan, True
    if fresh_plan is not None:
        target = {
            "backend": run.target.backend,
            "profile": run.target.profile,
            "identity": run.target.identity,
        }
        plan = replace(fresh_plan, migration=run.ledger.migration, target=target)
    else:
        plan = make_plan(run.source, run.target, run.options, progress=run.progress, stop=run.stop)
        approve(plan)

    def start() -> None:
        with run.target.transaction():
            run.ledger.check()
            run.ledger.start_run(plan.to_json(), plan_hash=plan.hash(), source=plan.source, target=plan.target)

    retrying(start)
    failpoint("planned")
    return plan, False


def told(run: Run, plan: Plan, *, command: str) -> dict[str, Any]:
    """What `status` tells of a run that is at work."""
    return {
        "command": command,
        "folder": str(Path.cwd()),
        "rows": plan.rows,
        "began_at": time.time(),
        "max_quarantined": run.options.max_quarantined,
        "read_before": retrying(run.ledger.books).total("read"),
        "outcome": None,
    }


def cut_shards(run: Run, plan: Plan, count: int, **noted: Any) -> list[list[int]]:
    """Cuts the plan into shards and ends the workers of any that were cut before.

    Args:
        run: The migration, under its one lock.
        plan: Its plan.
        count: How many shards there are at most; a target that only one process can write gets one.
        noted: What the run document tells beside them.
    """
    cut = shards(plan, count if shareable(run.target) else 1)

    def note() -> None:
        with run.target.transaction():
            run.ledger.check()
            run.ledger.close_shards(len(cut))
            run.ledger.save_run(shards=cut, **noted)

    retrying(note)
    failpoint("cut")
    return cut


def shareable(target: Target) -> bool:
    """Whether several processes can write a target at once: those that write files or keep a state cannot."""
    return target.native and target.resume == "page"


def shards(plan: Plan, count: int) -> list[list[int]]:
    """Cuts the ranges of a plan into at most `count` groups of about as many rows, each with its first and its end.

    >>> from types import SimpleNamespace
    >>> shards(SimpleNamespace(ranges=range(4), range_rows=(9, 1, 1, 9)), 2)
    [[0, 2], [2, 4]]
    """
    count = min(count, len(plan.ranges))
    if count < 1:
        return []
    weights = [rows + 1 for rows in plan.range_rows] or [1] * len(plan.ranges)
    total, seen, cuts = sum(weights), 0, [0]
    for number, weight in enumerate(weights):
        # As many ranges have to be left as there are shards without one.
        if number and (seen * count >= total * len(cuts) or len(weights) - number <= count - len(cuts)):
            if len(cuts) == count:
                break
            cuts.append(number)
        seen += weight
    return [list(pair) for pair in zip(cuts, [*cuts[1:], len(weights)], strict=True)]


def bound_plan(run: Run, *, copied: bool) -> Plan:
    """The plan that an unfinished run is bound to.

    Args:
        run: The migration.
        copied: Nothing is left to copy, so it is enough to compare.

    Raises:
        RefusedError: `plan-changed`.
    """
    ledger, source, options = run.ledger, run.source, run.options
    text = retrying(ledger.plan)
    if text is None:
        raise MemferryError("no-migration", f"migration {ledger.migration} is unfinished and has no plan")
    plan = Plan.from_json(text)
    hint = "resume with the same options, or `memferry rollback` first"
    unfinished = f"migration {ledger.migration} is unfinished and was planned with"
    if tuple(sorted(options.accept)) != plan.accept:
        message = f"{unfinished} accepted gaps {list(plan.accept)}, not {sorted(options.accept)}"
        raise RefusedError("plan-changed", message, hint=hint)
    changed = plan.transform.changed(options.transform)
    if changed:
        raise RefusedError("plan-changed", f"{unfinished} another {', '.join(changed)}", hint=hint)
    if plan.source.get("witness") != source.witness():
        if copied:  # What is left to do is to compare, and that needs no offsets.
            return replace(plan, ranges=whole(source))
        raise RefusedError(
            "plan-changed",
            f"the source {plan.source['identity']} is not as it was when migration {ledger.migration} was planned",
            hint="put the source back as it was, or `memferry rollback` first",
        )
    return plan


def way_home(run: Run) -> str:
    """The id of the migration that carries home what an application wrote since a switch."""
    return migration_id(run.target, run.source)


def whole(source: Source) -> tuple[Range, ...]:
    """Every stream as one range."""
    return tuple(Range(i, stream.name, None, None) for i, stream in enumerate(source.streams()))


def prepare(run: Run, plan: Plan) -> None:
    """Makes what is missing in the target."""
    retrying(lambda: run.target.prepare(plan.migration, plan.vectors))
    failpoint("prepared")


def transfer(
    run: Run,
    plan: Plan,
    ranges: Sequence[Range] | None = None,
    *,
    resumed: bool,
    observer: Observer | None = None,
) -> None:
    """Copies ranges, all of them or those of a shard.

    Args:
        run: The migration, under a lock.
        plan: Its plan.
        ranges: Which; all where it is missing.
        resumed: A page of ours may be in the target.
        observer: Sees what is done.
    """
    copy_ranges(
        plan,
        run.source,
        run.target,
        run.ledger,
        run.options,
        plan.ranges if ranges is None else ranges,
        progress=run.progress,
        stop=run.stop,
        resumed=resumed,
        booked=run.booked,
        observer=observer,
    )


def finish(run: Run, plan: Plan) -> None:
    """Builds what is built at the end, and carries deletions where they were asked for."""

    def build() -> None:
        run.target.finish(plan.migration, list(plan.ranges))

    failpoint("before-finish")
    retrying(build)
    failpoint("after-finish")
    if run.options.delete:
        try:
            carry_deletions(plan, run.source, run.target, run.ledger, run.options, run.stop)
        except RefusedError:
            # Nothing was deleted, and everything else is copied: the next run begins with a plan of its own.
            settle(run, state="done", outcome="not_proven")
            raise
        retrying(build)
    settle(run, state="verifying")
    failpoint("copied")


def prove(run: Run, plan: Plan) -> Proof:
    """Compares both ends, and judges."""
    books = retrying(run.ledger.books)
    if not books.balanced():
        raise MemferryError("books", f"the books do not balance: {books.to_json()}")
    verification = verify(plan, run.source, run.target, run.ledger, run.options, progress=run.progress, stop=run.stop)
    conflicts = retrying(lambda: list(run.ledger.conflicts()))
    outcome = judge(plan, books, verification, run.options)
    settle(run, state="done", outcome=outcome, verify=verification.counts())
    return Proof(outcome, books, verification, conflicts)


def judge(plan: Plan, books: Books, verification: Verification, options: Options) -> Outcome:
    """One word for a run that came to its end."""
    failed = (
        not verification.equal or books.total("conflicts") > 0 or books.total("quarantined") > options.max_quarantined
    )
    # A plan without a digest of the source is no witness; then the user's word counts, and only then.
    unchanged = verification.source_unchanged if plan.source_total else options.source_frozen
    if failed or (options.source_frozen and not unchanged):
        return "not_proven"
    if plan.transform.partial:
        return "partial"
    return "proven" if unchanged else "matched_live"


def dropped(plan: Plan) -> bool:
    """Whether an accepted gap drops something."""
    return any(gap.name in plan.accept for gap in plan.gaps)
