"""Jobs of an attempt: made, changed while they run, and what their end means."""

from __future__ import annotations

from memferry.manifest.status import StallReason
from memferry_operator.actions import CreateJob, DeleteJob, PatchJob, Prepare
from memferry_operator.brain import times
from memferry_operator.brain.draft import Draft
from memferry_operator.names import Role
from memferry_operator.observed import Job

__all__ = ["DATA", "REFUSED", "ensure", "failure", "fresh", "trouble"]

DATA, REFUSED = 42, 43
"""Exit codes of a worker: the data are not as they must be, what was asked is refused."""


def fresh(draft: Draft) -> bool:
    """Ends what earlier attempts left running; whether nothing of them is left.

    No pass begins before every earlier pod is seen to have ended: a node that is lost is waited for.
    """
    old = [job for job in draft.observed.jobs if job.attempt < draft.status.attempt]
    for job in old:
        if not job.deleting:
            draft.act(DeleteJob(job.name))
    return not old and not any(pod.attempt < draft.status.attempt for pod in draft.workers())


def ensure(
    draft: Draft, role: Role, *, completions: int = 1, parallelism: int = 1, suspend: bool = False
) -> Job | None:
    """The Job of a role in this attempt; asks for it where it is missing and mends what differs."""
    attempt = draft.status.attempt
    job = draft.observed.job(role, attempt)
    if job is None:
        if fresh(draft):
            shards = draft.status.plan.shards if draft.status.plan else draft.spec.transfer.shards
            draft.act(Prepare(attempt, shards), CreateJob(role, attempt, completions, parallelism, suspend))
        return None
    if not job.ended and (job.suspended != suspend or job.parallelism != parallelism):
        draft.act(PatchJob(job.name, parallelism, suspend))
    return job


def trouble(draft: Draft, job: Job | None) -> str:
    """Why workers of a Job have failed that is still tried; empty where none has."""
    if job is None:
        return ""
    pods = (pod for pod in draft.observed.pods if (pod.role, pod.attempt) == (job.role, job.attempt))
    failed = [pod for pod in pods if pod.error]
    if not failed:
        return ""
    last = max(failed, key=lambda pod: pod.since or times.LONG_AGO)
    return f"tried again, workers that failed so far: {len(failed)}, the last one with {last.error}"


def failure(draft: Draft, job: Job) -> tuple[StallReason, str]:
    """What a failed Job means, and what its worker said."""
    exits = {pod.exit_code for pod in draft.observed.pods if pod.role == job.role and pod.attempt == job.attempt}
    error = draft.observed.results.get(job.role, {}).get("error") or {}
    text = f"{error.get('code', '')}: {error.get('message', '')} {error.get('hint') or ''}".strip(" :")
    if REFUSED in exits or job.failure == "PodFailurePolicy":
        refused = {"plan": StallReason.PLAN_REFUSED, "retire": StallReason.RETIRE_REFUSED}
        return refused.get(job.role, StallReason.WORKER_REFUSED), text or job.message or "see the log of the worker"
    if DATA in exits:
        data = {"verify": StallReason.VALIDATION_FAILED, "retire": StallReason.RETIRE_REFUSED}
        return data.get(job.role, StallReason.RECORDS_REFUSED), text or "see `memferry quarantine list` and the log"
    away = [f"MemoryBackend {name}: {why}" for name, why in sorted(draft.observed.unreachable.items())]
    text = f"{job.name}: its pods failed more often than is tried again; {'; '.join(away) or job.message}"
    return StallReason.BACKEND_UNAVAILABLE, text
