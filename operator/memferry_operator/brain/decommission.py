"""Decommission: the source is kept, or deleted after an approval of its own."""

from __future__ import annotations

from memferry.manifest.status import StallReason
from memferry_operator.actions import DeleteJob
from memferry_operator.brain import copying, jobs, monitoring, switch
from memferry_operator.brain.draft import Draft
from memferry_operator.reasons import Reason

__all__ = ["decommission"]


def decommission(draft: Draft) -> None:
    """Retain ends here; Delete waits for its approval and for everything that speaks against it."""
    if draft.spec.decommission.policy == "Retain":
        draft.enter("Succeeded", Reason.SUCCEEDED, f"{draft.source} is kept")
        return
    stray = draft.status.monitoring.stray_writes if draft.status.monitoring else 0
    if stray:
        draft.stall(StallReason.RETIRE_REFUSED, f"{stray} records were written to {draft.source} after the switch")
        return
    if draft.observed.references:
        who = ", ".join(draft.observed.references)
        draft.stall(StallReason.RETIRE_REFUSED, f"{draft.source} is still used by {who}")
        return
    if not switch.approved(draft, "Decommission"):
        monitoring.carry_home(draft)
        return
    if draft.spec.suspend:
        draft.going(Reason.SUSPENDED)
        return
    if not _alone(draft):
        draft.going(Reason.ENDING_WORKERS, "the switch worker has not ended")
        return
    job = jobs.ensure(draft, "retire")
    if job is None or not job.ended:
        if job is None or not copying.unplaced(draft, job):
            draft.going(Reason.RETIRING, jobs.trouble(draft, job))
    elif job.complete:
        draft.condition("SourceDecommissioned", "True", "Deleted")
        draft.enter("Succeeded", Reason.SUCCEEDED, f"what was read from {draft.source} is deleted")
    else:
        draft.stall(*jobs.failure(draft, job))


def _alone(draft: Draft) -> bool:
    """Ends the switch worker: what it carried home from now on would stay in a source that is deleted."""
    left = [job for job in draft.observed.jobs if job.role == "switch" and not job.ended]
    draft.act(*(DeleteJob(job.name) for job in left if not job.deleting))
    return not left and not any(pod.role == "switch" for pod in draft.workers())
