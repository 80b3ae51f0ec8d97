"""The stages as workers do them: plan, transfer, verify. Each gives its result, or raises."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from memferry.errors import NotProvenError, RefusedError, TransientError
from memferry.ledger import RangeState
from memferry.manifest import Manifest, MemoryMigration
from memferry.model import Books
from memferry.phases import migrate, stages
from memferry.phases.parity import Watch
from memferry.phases.plan import Options, Plan, Stop
from memferry.phases.stages import Run
from memferry.phases.wayback import way_back_lost
from memferry.resources import Ends, ends
from memferry.retry import retrying
from memferry.stores import has_ledger, open_source
from memferry.worker.heartbeat import Heartbeat
from memferry.worker.pod import InPod, Pod

__all__ = ["Work", "found_in", "plan", "transfer", "verify"]

_SHOWN: Final = 100
"""Findings in a result; the ledger and `memferry verify` have the others."""


@dataclass
class Work:
    """What a verb works with.

    Attributes:
        pod: Where it runs.
        manifest: What it read.
        migration: Its migration.
        ends: Stores and options.
        beat: Its heartbeat.
        stop: Set by a signal, or when another worker took over.
    """

    pod: Pod
    manifest: Manifest
    migration: MemoryMigration
    ends: Ends
    beat: Heartbeat
    stop: Stop

    @classmethod
    def of(cls, pod: Pod, beat: Heartbeat, stop: Stop) -> Work:
        """Reads the folder."""
        manifest = pod.manifest()
        migration = pod.find(manifest)
        return cls(pod, manifest, migration, ends(manifest, migration, InPod(pod)), beat, stop)

    def opened(self, opening: ExitStack, options: Options, shard: int | None = None) -> Run:
        """Both ends, open until `opening` ends."""
        run = opening.enter_context(
            stages.opened(
                self.ends.source,
                self.ends.target,
                options,
                self.pod.claim(shard),
                progress=self.beat.progress,
                stop=self.stop,
            )
        )
        run.booked = self.beat.booked
        return run


def plan(work: Work) -> dict[str, Any]:
    """Scans, refuses, and writes plan and shards into the ledger of a target that it prepares."""
    spec, pod, options = work.migration.spec, work.pod, work.ends.options
    both = (work.ends.source, work.ends.target)
    fresh: Plan | None = None
    rehearsal = spec.stop_after == "Plan"
    if rehearsal or not has_ledger(work.ends.target):
        fresh = migrate.plan_only(*both, options, progress=work.beat.progress, stop=work.stop)
    with ExitStack() as opening:
        if rehearsal and fresh is not None:
            source = open_source(work.ends.source)
            opening.callback(source.close)
            cut = stages.shards(fresh, spec.transfer.shards)
            return _planned(fresh, cut, way_back_lost(fresh, work.ends.source, source))
        run = work.opened(opening, options)
        opening.enter_context(stages.locked(run))
        document = run.read()
        noted = {"uid": pod.uid, "attempt": pod.attempt}
        if document is not None and (document.get("uid"), document.get("attempt")) == (pod.uid, pod.attempt):
            made = stages.bound_plan(run, copied=document["state"] != "copying")
        else:
            made, resumed = stages.bind(run, fresh_plan=fresh)
            told = stages.told(run, made, command="")
            stages.cut_shards(run, made, spec.transfer.shards, **noted, resumed=resumed, **told)
        stages.prepare(run, made)
        cut = (run.read() or {}).get("shards") or []
        return _planned(made, cut, way_back_lost(made, work.ends.source, run.source))


def _planned(made: Plan, cut: list[list[int]], lost: list[str]) -> dict[str, Any]:
    return {
        "planHash": made.hash(),
        "migration": made.migration,
        "source": made.source["identity"],
        "target": made.target["identity"],
        "records": made.records,
        "kinds": made.counts,
        "sizeBytes": made.size_bytes,
        "shards": len(cut),
        "ranges": len(made.ranges),
        "gaps": [{"name": gap.name, "records": gap.records} for gap in made.gaps],
        "wayBack": not lost,
        "wayBackLost": lost,
        # No backend tells what changed since: see docs/adr/0007-changes-by-scan.md.
        "changes": "scan",
    }


def transfer(work: Work) -> dict[str, Any]:
    """Copies the ranges of the shard that the Job's index names."""
    shard, options = work.pod.index, _shared(work)
    with ExitStack() as opening:
        run = work.opened(opening, options, shard)
        document = run.read()
        if document is None:
            raise RefusedError(
                "no-migration", f"the target knows no migration {run.ledger.migration}: it is not planned"
            )
        if (document.get("uid"), document.get("attempt")) != (work.pod.uid, work.pod.attempt):
            raise RefusedError("plan-changed", "the ledger has the plan of another attempt")
        cut = document.get("shards") or []
        if not shard < len(cut):
            raise RefusedError("invalid", f"shard {shard} of {len(cut)}")
        opening.enter_context(stages.locked(run))
        made = stages.bound_plan(run, copied=document["state"] != "copying")
        mine = made.ranges[cut[shard][0] : cut[shard][1]]
        run.target.prepare(made.migration, made.vectors)
        numbers = {part.number for part in mine}
        before = _books_of(run, numbers)
        work.beat.booked(Books(), before)
        work.beat.progress("copy", before.total("read"), sum(made.range_rows[number] for number in numbers))
        # A page of an earlier worker may be in the target.
        stages.transfer(run, made, mine, resumed=document.get("resumed", True) or run.ledger.number > 1)
        books = _books_of(run, numbers)
        _refuse_quarantined(books, options)
        return {"shard": shard, "ranges": len(mine), "kinds": books.to_json()}


def _books_of(run: Run, numbers: set[int]) -> Books:
    """Counts of some ranges."""
    books = Books()
    states: dict[int, RangeState] = retrying(run.ledger.states)
    for number in numbers & states.keys():
        books.add(states[number].books)
    return books


def _shared(work: Work) -> Options:
    """A worker's part of what all of them may ask of the stores."""
    options, transfer_ = work.ends.options, work.migration.spec.transfer
    workers = max(1, min(transfer_.parallelism, transfer_.shards))
    rate = options.max_records_per_second
    return replace(
        options,
        parallelism=max(1, options.parallelism // workers),
        max_records_per_second=None if rate is None else rate / workers,
    )


def _refuse_quarantined(books: Books, options: Options) -> None:
    quarantined = books.total("quarantined")
    if quarantined > options.max_quarantined:
        raise NotProvenError(
            "not-proven",
            f"{quarantined} records could not be moved and are in quarantine, allowed are {options.max_quarantined}",
            hint="`memferry quarantine list` names them; maxQuarantined allows for them",
        )


def verify(work: Work) -> dict[str, Any]:
    """Finishes the target, and compares every record."""
    options = work.ends.options
    began = time.monotonic()
    with ExitStack() as opening:
        run = work.opened(opening, options)
        opening.enter_context(stages.locked(run))
        document = run.read()
        if document is None or document["state"] == "rolled_back":
            raise RefusedError("no-migration", f"the target knows no migration {run.ledger.migration}")
        made = stages.bound_plan(run, copied=True)
        if document["state"] == "copying":
            _refuse_unfinished(run, made)
            run.target.prepare(made.migration, made.vectors)
            stages.finish(run, made)
        result = migrate.result_of(made, stages.prove(run, made))
        if options.parity:
            migrate.search(result, work.ends.source, work.ends.target, run)
        result.elapsed_secs = time.monotonic() - began
        retrying(lambda: run.ledger.save_report(json.dumps(result.to_json())))
    found = found_in(result)
    live = work.migration.spec.strategy == "Online"
    if live and result.parity is not None and not result.parity.reaches(options.min_recall):
        # The application has written meanwhile: only what the target finds of the rest tells about the migration.
        found["parity"]["unchanged"] = Watch(work.ends.source, work.ends.target, options).look(work.stop)
    return found


def _refuse_unfinished(run: Run, made: Plan) -> None:
    states = retrying(run.ledger.states)
    left = [part for part in made.ranges if part.number not in states or not states[part.number].done]
    if left:
        raise TransientError("unavailable", f"{len(left)} of {len(made.ranges)} ranges are not copied yet")


def found_in(result: migrate.Result) -> dict[str, Any]:
    """The final object without anything out of a record but ids and names of fields."""
    value = result.to_json()
    value["findings"] = [
        {**finding, "fields": [field[0] for field in finding["fields"]]} for finding in value["findings"][:_SHOWN]
    ]
    if result.exit_code:
        found = result.verification
        unequal = (
            "" if found is None else f"{found.missing} missing, {found.extra} extra, {found.different} different, "
        )
        totals = ", ".join(f"{result.books.total(name)} {name}" for name in ("conflicts", "quarantined"))
        parity = result.parity
        recall = "" if parity is None or parity.target_recall is None else f", recall {parity.target_recall:.4f}"
        value["error"] = {"code": "not-proven", "message": unequal + totals + recall, "hint": None}
    return value
