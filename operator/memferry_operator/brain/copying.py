"""BulkTransfer: one Indexed Job, an index a shard; Leases report, the ledger knows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from memferry.manifest.status import Progress, ShardCounts, StallReason
from memferry_operator import names
from memferry_operator.actions import DeletePod
from memferry_operator.brain import hold, jobs, times
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import Job, Pod
from memferry_operator.observed import Progress as Reported
from memferry_operator.reasons import Reason

__all__ = ["bulk_transfer", "replace_silent", "unplaced"]

_MOST_REPLACED: Final = 10
_UNSCHEDULABLE_AFTER: Final = timedelta(minutes=5)


def bulk_transfer(draft: Draft) -> None:
    """Copies every shard."""
    if not hold.held(draft):
        return
    shards = draft.status.plan.shards if draft.status.plan else 1
    job = jobs.ensure(
        draft,
        "transfer",
        completions=shards,
        parallelism=min(shards, parallelism(draft)),
        suspend=draft.spec.suspend,
    )
    if job is None:
        draft.going(Reason.COPYING)
        return
    _report(draft, job, shards)
    if job.complete:
        draft.condition(
            "DataTransferred", "True", "Copied", draft.status.progress.summary if draft.status.progress else ""
        )
        if draft.spec.stop_after == "Copy":
            draft.enter("Succeeded", Reason.REHEARSED, "stopped after the copy, as asked")
        else:
            draft.enter("Validation", Reason.VERIFYING)
    elif job.failure is not None:
        draft.stall(*jobs.failure(draft, job))
    elif not draft.spec.suspend and not replace_silent(draft, job):
        draft.going(Reason.COPYING, jobs.trouble(draft, job))


def parallelism(draft: Draft) -> int:
    """Pods at a time: one where the target is a file, and no more than the backends bear."""
    ends = [draft.observed.backends.get(draft.source), draft.observed.backends.get(draft.target)]
    target = ends[1]
    if target is not None and target.backend in {"embedded", "jsonl"}:
        return 1
    caps = [end.caps.concurrency for end in ends if end is not None and end.caps.concurrency]
    return min([draft.spec.transfer.parallelism, *caps])


def _report(draft: Draft, job: Job, shards: int) -> None:
    reports: list[Reported] = []
    for index in range(shards):
        lease = draft.observed.leases.get(names.shard(draft.observed.name, index))
        if lease and lease.progress and lease.progress.attempt == draft.status.attempt:
            reports.append(lease.progress)
    total = draft.status.plan.records if draft.status.plan else None
    read = sum(r.read for r in reports)
    rate = round(sum(r.records_per_second for r in reports)) if job.active else 0
    percent = 100 if job.complete else min(99, read * 100 // total) if total else None
    left = max(0, total - read) if total is not None else None
    draft.update(
        shards=ShardCounts(
            total=shards,
            succeeded=job.succeeded,
            active=job.active,
            failed=job.failed,
            replaced=draft.status.shards.replaced if draft.status.shards else 0,
        ),
        progress=Progress(
            read=read,
            written=sum(r.written for r in reports),
            quarantined=sum(r.quarantined for r in reports),
            total=total,
            percent=percent,
            records_per_second=rate,
            eta_secs=round(left / rate) if rate and left is not None else None,
            summary=f"{percent}% ({read:,}/{total:,})" if percent is not None and total is not None else f"{read:,}",
        ),
    )


def replace_silent(draft: Draft, job: Job) -> bool:
    """Ends pods whose numbers have not moved for `stallTimeout`; their Job starts others.

    These deletions are counted here, apart from the Job's own backoff.

    Returns:
        Whether one cannot be started or replaced any more, and stalled.
    """
    limit = times.duration(draft.spec.transfer.stall_timeout)
    replaced = draft.status.shards.replaced if draft.status.shards else 0
    if unplaced(draft, job):
        return True
    for pod in draft.observed.pods:
        if pod.role != job.role or pod.attempt != job.attempt or pod.ended or pod.deleting:
            continue
        moved = _moved(draft, pod)
        if pod.phase != "Running" or moved is None:
            continue
        if draft.now - moved <= limit:
            draft.wake(limit - (draft.now - moved) + timedelta(seconds=1))
        elif replaced >= _MOST_REPLACED:
            draft.stall(StallReason.NO_PROGRESS, f"pod {pod.name}: no progress, and {replaced} were replaced before")
            return True
        else:
            replaced += 1
            draft.act(DeletePod(pod.name))
    if draft.status.shards:
        draft.update(shards=draft.status.shards.model_copy(update={"replaced": replaced}))
    return False


def unplaced(draft: Draft, job: Job) -> bool:
    """Whether a pod of a Job waits for a place, or it for its first pod, for so long that it stalled."""
    pods = [pod for pod in draft.observed.pods if (pod.role, pod.attempt) == (job.role, job.attempt)]
    for pod in pods:
        waits = pod.phase == "Pending" and not pod.deleting
        if waits and pod.since and draft.now - pod.since > _UNSCHEDULABLE_AFTER:
            draft.stall(StallReason.WORKER_UNSCHEDULABLE, f"pod {pod.name} waits: {pod.waiting or 'not scheduled'}")
            return True
    if pods or job.since is None or job.suspended or job.ended or job.succeeded or job.failed or _reported(draft, job):
        return False
    waited = draft.now - job.since
    if waited <= _UNSCHEDULABLE_AFTER:
        draft.wake(_UNSCHEDULABLE_AFTER - waited + timedelta(seconds=1))
        return False
    text = f"Job {job.name} is given no pod; its Events say why: a quota that is used up, or who admits pods"
    draft.stall(StallReason.WORKER_UNSCHEDULABLE, text)
    return True


def _reported(draft: Draft, job: Job) -> bool:
    """Whether a pod of it ever reported: one that has gone since is followed by the next in a moment."""
    name, shards = draft.observed.name, draft.status.plan.shards if draft.status.plan else 1
    leases = [names.shard(name, i) for i in range(shards)] if job.role == "transfer" else [names.lease(name, job.role)]
    found = (draft.observed.leases.get(lease) for lease in leases)
    return any(lease.progress is not None and lease.progress.attempt == job.attempt for lease in found if lease)


def _moved(draft: Draft, pod: Pod) -> datetime | None:
    """When the pod's numbers moved last, at the earliest when it began; the switch worker rests, and only beats."""
    name = draft.observed.name
    lease = draft.observed.leases.get(
        names.shard(name, pod.index) if pod.role == "transfer" else names.lease(name, pod.role),
    )
    told = lease.progress.progressed_at if lease and lease.progress and lease.holder == pod.name else None
    if pod.role == "switch" and lease and lease.holder == pod.name:
        told = lease.renewed_at
    return max([at for at in (told, pod.since) if at is not None], default=None)
