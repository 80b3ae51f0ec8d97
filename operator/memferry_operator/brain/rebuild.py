"""A status that is empty: a new migration, or one whose status was lost."""

from __future__ import annotations

from memferry.manifest.status import Handled, MigrationStatus, TrafficStatus
from memferry_operator.brain import times
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import BindingState
from memferry_operator.reasons import Reason

__all__ = ["rebuild", "waits"]


def waits(draft: Draft) -> bool:
    """Whether it cannot be told yet how far a migration came: the binding's own status is being read back."""
    observed = draft.observed
    begun = bool(observed.jobs or observed.results)
    return begun and observed.binding is not None and not observed.binding.active


def rebuild(draft: Draft) -> None:
    """Says where the migration stands by what is there, never further back than the binding.

    A command that stands in the spec counts as acted on: what it did cannot be told from what it did not do. Only an
    Abort is acted on again, or what was ended would begin anew.
    """
    observed, binding = draft.observed, draft.observed.binding
    attempt = max((job.attempt for job in observed.jobs), default=0)
    draft.status = MigrationStatus(observed_generation=observed.generation, attempt=attempt)
    if observed.jobs or observed.results or draft.locked:
        key = f"SwitchBack:{draft.spec.operation_token}" if draft.spec.operation == "SwitchBack" else ""
        draft.update(handled=Handled(retry_token=draft.spec.retry_token, operation_token=key))
    switched = binding is not None and binding.active == draft.target
    proven = "verify" in observed.results and "error" not in observed.results["verify"]
    if binding is not None and draft.locked:
        _traffic(draft, binding)
        if switched and binding.mode == "Frozen":
            draft.enter("TrafficSwitch", Reason.FLIPPING, "rebuilt: the binding is frozen on the target")
            return
        if switched:
            draft.enter("Monitoring", Reason.WATCHING, "rebuilt: the binding has been switched")
            return
    elif (binding is None or switched) and (proven or "retire" in observed.results):
        draft.enter("Succeeded", Reason.SUCCEEDED, "rebuilt from the results of the workers")
        return
    draft.enter("Pending", Reason.QUEUED)


def _traffic(draft: Draft, binding: BindingState) -> None:
    """A freeze on the source is given back. One on the target is gone on with, as the journal says."""
    frozen, switched = binding.mode == "Frozen", binding.active == draft.target
    sequence = draft.observed.command.sequence if draft.observed.command else 0
    draft.update(
        traffic=TrafficStatus(
            active=binding.active,
            home=binding.active,
            revision=binding.revision,
            mode=binding.mode,
            step_at=times.text(draft.now),
            step="Settled" if not frozen else "Flipping" if switched else "Frozen",
            sequence=sequence + 1,
            command="Journal" if frozen and switched else "",
            switched_at=times.text(draft.now) if switched else None,
        ),
    )
