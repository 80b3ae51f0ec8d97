"""Coming to rest: serving, no workers, the binding released. Terminal phases and deletion end here."""

from __future__ import annotations

from memferry_operator.actions import DeleteJob, ExpireJob, RemoveFinalizer, WriteBinding
from memferry_operator.brain import steps
from memferry_operator.brain.draft import Draft

__all__ = ["deletion", "terminal", "thawed"]


def thawed(draft: Draft) -> bool:
    """Whether nothing is frozen by this migration; gives the freeze back where something is."""
    binding, traffic = draft.observed.binding, draft.traffic
    if binding is None or not draft.locked:
        return True
    if traffic.step not in {"Serving", "Returning"}:
        if binding.mode == "Serving" and traffic.mode == "Serving":
            return True
        steps.begin_return(draft, "the migration does not go on")
    steps.drive(draft, binding)
    return draft.traffic.step == "Settled"


def terminal(draft: Draft) -> None:
    """Every terminal phase: not frozen, no workers."""
    _rested(draft)
    for job in draft.observed.jobs:
        if job.ended and not job.expires and not job.deleting:
            draft.act(ExpireJob(job.name))


def deletion(draft: Draft) -> None:
    """Deleting the resource is an abort: the side that serves goes on serving, no data is touched.

    A namespace that ends deletes its pods before anything else, and a Job keeps its last pod until it has made another
    one, which it cannot: so the Jobs go first.
    """
    if not draft.observed.finalizer:
        return
    if _rested(draft) and draft.observed.deleting and all(j.ended for j in draft.observed.jobs):
        draft.act(RemoveFinalizer())


def _rested(draft: Draft) -> bool:
    if not thawed(draft):
        return False
    draft.act(*(DeleteJob(j.name) for j in draft.observed.jobs if not j.ended and not j.deleting))
    binding = draft.observed.binding
    if binding is not None and draft.locked:
        draft.act(WriteBinding(binding.active, binding.revision, binding.mode, None, locked=False))
        return False
    return True
