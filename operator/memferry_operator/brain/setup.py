"""Pending and ParallelSetup: everything that can be refused is refused before a byte is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from memferry.manifest.status import PlanStatus, SecretKey, StallReason, TrafficStatus
from memferry_operator import names
from memferry_operator.actions import Emit, WriteBinding
from memferry_operator.brain import copying, hold, jobs, rest, steps
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import BindingState
from memferry_operator.reasons import Reason

__all__ = ["holds", "parallel_setup", "pending"]

_LOOK_AGAIN: Final = timedelta(seconds=30)


def pending(draft: Draft) -> None:
    """Waits until the migration may begin."""
    if not rest.thawed(draft):
        return  # Before anything is waited for.
    if draft.spec.suspend or not _complete(draft) or not _binding_free(draft):
        return
    if not draft.observed.slot:
        draft.going(Reason.QUEUED, "the operator runs as many migrations as it may")
        draft.wake(_LOOK_AGAIN)
        return
    draft.update(attempt=draft.status.attempt + 1)
    if not jobs.fresh(draft):
        draft.update(attempt=draft.status.attempt - 1)
        draft.going(Reason.ENDING_WORKERS, "pods of the attempt before have not ended")
        draft.wake(_LOOK_AGAIN)
        return
    draft.update(plan=None, progress=None, shards=None, validation=None, sync=None, approval=None)
    draft.drop_condition("ApprovalRequired")
    binding = draft.observed.binding
    if binding is not None:
        old = draft.traffic
        draft.update(
            traffic=TrafficStatus(
                active=binding.active,
                revision=max(binding.revision, old.revision),
                mode=binding.mode,
                sequence=max(old.sequence, draft.observed.command.sequence if draft.observed.command else 0),
            ),
        )
    draft.enter("ParallelSetup", Reason.PLANNING)


def _complete(draft: Draft) -> bool:
    """Whether everything that is named is there; what is missing is waited for, and said."""
    found = draft.observed.backends
    wanted = [draft.source, draft.target]
    for name in (draft.source, draft.target):
        if backend := found.get(name):
            wanted += [ref.name for ref in (backend.graph_ref, backend.vectors_ref) if ref]
    missing = [name for name in wanted if name not in found]
    if missing:
        draft.stall(StallReason.BACKEND_MISSING, f"there is no MemoryBackend {', '.join(missing)}")
    elif away := _away(draft):
        draft.stall(StallReason.BACKEND_UNAVAILABLE, away)
    elif not draft.observed.mapping:
        draft.stall(StallReason.MAPPING_MISSING, "the ConfigMap of spec.mapping, or its key, is not there")
    elif draft.spec.cutover.binding_ref and draft.observed.binding is None:
        draft.stall(StallReason.BINDING_MISSING, f"there is no MemoryBinding {draft.spec.cutover.binding_ref.name}")
    else:
        return True
    draft.wake(_LOOK_AGAIN)
    return False


def _away(draft: Draft) -> str:
    """Stores that were not reached, as the probes of their MemoryBackends say; looked at again without being asked."""
    return "; ".join(f"MemoryBackend {name}: {why}" for name, why in sorted(draft.observed.unreachable.items()))


def _binding_free(draft: Draft) -> bool:
    binding = draft.observed.binding
    if binding is None:
        return True
    if not binding.active:
        why = next((c.get("message") for c in binding.status.get("conditions") or [] if c.get("type") == "Ready"), None)
        draft.going(Reason.BINDING_NOT_READY, f"MemoryBinding {binding.name}: {why or 'it has no status yet'}")
    elif binding.locked_by_uid and not draft.locked:
        draft.going(Reason.BINDING_LOCKED, f"MemoryBinding {binding.name} is held by {binding.locked_by_name}")
    elif binding.mode == "Frozen" and not draft.locked:
        draft.going(Reason.BINDING_LOCKED, f"MemoryBinding {binding.name} is frozen, and given back first")
    elif binding.active != draft.source:
        text = f"MemoryBinding {binding.name} is on {binding.active}, the source is {draft.source}"
        draft.stall(StallReason.SOURCE_NOT_ACTIVE, text)
    else:
        return True
    draft.wake(_LOOK_AGAIN)
    return False


def lock(draft: Draft) -> bool:
    """Takes the binding by compare-and-swap; whether this migration holds it."""
    binding = draft.observed.binding
    if draft.spec.cutover.binding_ref is None or draft.locked:
        return True
    if binding is None or binding.locked_by_uid:
        draft.enter("Pending", Reason.BINDING_LOCKED, "the binding was taken by another migration")
        return False
    _take(draft, binding)
    return False


def _take(draft: Draft, binding: BindingState) -> None:
    draft.act(WriteBinding(binding.active, binding.revision, binding.mode, binding.frozen_until, locked=True))


def holds(draft: Draft) -> bool:
    """Whether this migration still holds its binding, or has none; whoever does not, freezes and writes nothing.

    A status of a binding that was lost is made anew without its lock. It is taken again, unless another migration has
    it, or has had it and switched the application away.
    """
    binding = draft.observed.binding
    if draft.spec.cutover.binding_ref is None or binding is None or draft.locked:
        return True
    sides = {steps.home(draft), steps.away(draft)} if draft.traffic.step in steps.FLIPPED else {steps.home(draft)}
    if not binding.active:
        draft.going(Reason.BINDING_NOT_READY, f"MemoryBinding {binding.name}: its status is made anew")
    elif binding.locked_by_uid:
        draft.going(Reason.BINDING_LOCKED, f"MemoryBinding {binding.name} is held by {binding.locked_by_name}")
    elif binding.active not in sides:
        text = f"MemoryBinding {binding.name} is on {binding.active}, and was left on {' or '.join(sorted(sides))}"
        draft.stall(StallReason.SOURCE_NOT_ACTIVE, text)
    else:
        _take(draft, binding)
    draft.wake(_LOOK_AGAIN)
    return False


def parallel_setup(draft: Draft) -> None:
    """Freezes where the strategy is Offline, and plans."""
    if not lock(draft) or not hold.held(draft):
        return
    job = jobs.ensure(draft, "plan", suspend=draft.spec.suspend)
    if job is None or not job.ended:
        if job is None or draft.spec.suspend or not copying.replace_silent(draft, job):
            draft.going(Reason.PLANNING, jobs.trouble(draft, job))
        return
    if not job.complete:
        draft.stall(*jobs.failure(draft, job))
        return
    found = draft.observed.results.get("plan", {})
    plan = PlanStatus(
        hash=str(found.get("planHash", "")),
        secret_ref=SecretKey(name=names.result(draft.observed.name), key="plan.json"),
        records=found.get("records"),
        size_bytes=found.get("sizeBytes"),
        shards=int(found.get("shards") or 1),
        changes=found.get("changes"),
        way_back=bool(found.get("wayBack")),
    )
    draft.update(plan=plan)
    draft.condition("Planned", "True", "Planned", f"{plan.records} records in {plan.shards} shards")
    gaps = [f"{gap.get('name')} ({gap.get('records')})" for gap in found.get("gaps", [])]
    if gaps:
        draft.act(Emit("Normal", "GapsAccepted", f"records that lose something: {', '.join(gaps)[:900]}"))
    if draft.spec.stop_after == "Plan":
        draft.enter("Succeeded", Reason.REHEARSED, "stopped after the plan, as asked")
    else:
        draft.enter("BulkTransfer", Reason.COPYING)
