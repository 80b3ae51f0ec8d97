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
            draft.going(Reason.VERIFYING, jobs.trouble(draft, job))
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
    if live and reason == StallReason.VALIDATION_FAILED and _passes_decide(draft):
        draft.condition("DataValidated", "Unknown", "SourceChanges", "the application writes; the final pass decides")
        draft.enter("TrafficSwitch", Reason.SYNCING, "records changed while they were compared")
        return
    draft.condition("DataValidated", "False", str(reason), message)
    draft.stall(reason, message)


def _passes_decide(draft: Draft) -> bool:
    """Whether what was found is nothing but records that differ: no pass looks at recall or quarantine again."""
    found, spec = draft.observed.results.get("verify", {}), draft.spec
    counts, parity = found.get("verify") or {}, found.get("parity") or {}
    differ = any(int(counts.get(name) or 0) for name in ("missing", "extra", "different"))
    quarantined = sum(int(books.get("quarantined") or 0) for books in (found.get("kinds") or {}).values())
    # Where the application writes, only what it left alone tells how well the target finds.
    recall = parity["unchanged"].get("recall") if parity.get("unchanged") else parity.get("target_recall")
    asked = spec.validation.parity
    finds = asked is None or recall is None or recall >= float(asked.min_recall)
    return differ and quarantined <= spec.transfer.max_quarantined and finds


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
