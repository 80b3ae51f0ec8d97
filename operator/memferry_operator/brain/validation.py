"""Validation: both ends are read completely and compared."""

from __future__ import annotations

from memferry.manifest.status import SecretKey, StallReason, ValidationStatus
from memferry_operator import names
from memferry_operator.brain import copying, hold, jobs, switch
from memferry_operator.brain.draft import Draft
from memferry_operator.reasons import Reason

__all__ = ["validation"]


def validation(draft: Draft) -> None:
    """Verifies, and goes on to the switch where there is a binding."""
    if not hold.held(draft):
        return
    job = jobs.ensure(draft, "verify", suspend=draft.spec.suspend)
    switched = draft.spec.cutover.binding_ref is not None and draft.spec.stop_after is None
    if switched:
        switch.ensure_worker(draft)  # Nothing is scheduled, pulled or installed inside a freeze.
    if job is None or not job.ended:
        if job is not None and not draft.spec.suspend:
            copying.replace_silent(draft, job)
        if draft.stalled is None:
            draft.going(Reason.VERIFYING)
        return
    _report(draft)
    if not job.complete:
        _failed(draft, *jobs.failure(draft, job), live=switched and draft.spec.strategy == "Online")
        return
    done = draft.status.validation or ValidationStatus()
    draft.condition("DataValidated", "True", "Verified", f"{done.compared:,} records compared, all as expected")
    if draft.spec.stop_after == "Validation":
        draft.enter("Succeeded", Reason.REHEARSED, "stopped after the validation, as asked")
    elif switched:
        draft.enter("TrafficSwitch", Reason.SYNCING)
    else:
        draft.enter("Decommission", Reason.RETIRING)


def _failed(draft: Draft, reason: StallReason, message: str, *, live: bool) -> None:
    """A source that is written to is not what it was: each pass compares every record again, the last one frozen."""
    if live and reason == StallReason.VALIDATION_FAILED:
        draft.condition("DataValidated", "Unknown", "SourceChanges", "the application writes; the final pass decides")
        draft.enter("TrafficSwitch", Reason.SYNCING, "records changed while they were compared")
        return
    draft.condition("DataValidated", "False", str(reason), message)
    draft.stall(reason, message)


def _report(draft: Draft) -> None:
    found = draft.observed.results.get("verify", {})
    counts = found.get("verify", found)
    names_of = ("compared", "missing", "extra", "different", "foreign")
    draft.update(
        validation=ValidationStatus(
            **{name: int(counts.get(name) or 0) for name in names_of},
            report_ref=SecretKey(name=names.result(draft.observed.name), key="verify.json"),
        ),
    )
