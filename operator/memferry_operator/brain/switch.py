"""TrafficSwitch: passes until a short freeze is enough, then the steps of the switch, forth or back."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from memferry.manifest.status import Approval, StallReason, SyncStatus
from memferry_operator.brain import copying, hold, jobs, steps, times
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import Answer, BindingState
from memferry_operator.reasons import Reason

__all__ = ["approved", "ensure_worker", "silent", "synced", "traffic_switch"]

_MOST_RETURNS: Final = 3
_PAUSE: Final = timedelta(seconds=15)
_GROWING: Final = 3
_TRANSIENT: Final = frozenset({"unavailable", "throttled", "store-locked"})
_STICKY: Final = frozenset({StallReason.PASS_FAILED, StallReason.NO_WAY_BACK, StallReason.FREEZE_RETURNED})


def ensure_worker(draft: Draft) -> bool:
    """The switch worker, from Validation to the end of Monitoring; False, and stalled, where it was refused."""
    job = jobs.ensure(draft, "switch")
    if job is None or not job.ended:
        return True
    draft.stall(*jobs.failure(draft, job))
    return False


def traffic_switch(draft: Draft) -> None:
    """Switches the binding to the other side."""
    binding, step = draft.observed.binding, draft.traffic.step
    if binding is None:
        draft.stall(StallReason.BINDING_MISSING, "the MemoryBinding is gone")
        draft.wake(_PAUSE)
        return
    works = ensure_worker(draft)
    forward = draft.traffic.direction == "Forward"
    if step == "Settled" and draft.traffic.active == steps.away(draft):
        _settled(draft)  # While nobody could read the spec.
        return
    if forward and hold.offline(draft) and step not in {"FinalPass", "Flipping", "Serving"}:
        if hold.held(draft) and approved(draft, "Cutover"):
            # It finds nothing, and keeps what the source is like, which the way back needs.
            steps.order(draft, "FinalPass", step="FinalPass", frozen_until=None)
            draft.going(Reason.FINAL_PASS)
        return
    if step in steps.MOVING:
        _moving(draft, binding, works=works)
    elif works and not silent(draft):
        _prepare(draft, binding)


def silent(draft: Draft) -> bool:
    """Whether the switch worker cannot begin, and stalled; one that says nothing any more is replaced. In no freeze."""
    job = draft.observed.job("switch", draft.status.attempt)
    return job is not None and copying.replace_silent(draft, job)


def _moving(draft: Draft, binding: BindingState, *, works: bool) -> None:
    if not works and draft.traffic.step in {"Freezing", "FinalPass", "Flipping"}:
        steps.begin_return(draft, "the switch worker was refused")
    steps.drive(draft, binding)
    step = draft.traffic.step
    words = {"Freezing": Reason.FREEZING, "FinalPass": Reason.FINAL_PASS, "Returning": Reason.RETURNING}
    if step != "Settled":
        if works:
            draft.going(words.get(step, Reason.FLIPPING))
    elif draft.traffic.active == steps.away(draft):
        _settled(draft)
    elif works:
        if draft.traffic.returns >= _MOST_RETURNS:
            text = f"{draft.traffic.returns} freezes were given back; retryToken tries again"
            draft.stall(StallReason.FREEZE_RETURNED, text)
        else:
            draft.going(Reason.SYNCING, "a freeze was given back")


def _settled(draft: Draft) -> None:
    if draft.traffic.direction == "Forward":
        draft.update(approval=None)
        draft.enter("Monitoring", Reason.WATCHING)
    else:
        text = f"{draft.traffic.active} serves, with every write since the switch"
        draft.enter("SwitchedBack", Reason.SWITCHED_BACK, text)


def _prepare(draft: Draft, binding: BindingState) -> None:
    """Passes until everything allows a freeze."""
    draft.wake(timedelta(seconds=5))
    forward = draft.traffic.direction == "Forward"
    if draft.traffic.command != "Pass":
        draft.update(sync=SyncStatus(direction=draft.traffic.direction))
        steps.order(draft, "Pass", step="Preparing", mode=binding.mode, active=binding.active)
    if not _answered(draft, steps.answer(draft)) or draft.stalled in _STICKY:
        return
    sync = draft.status.sync or SyncStatus()
    ready = approved(draft, "Cutover") if forward else True
    if not sync.pass_:
        draft.going(Reason.SYNCING if forward else Reason.SWITCHING_BACK, "no pass has ended yet")
    elif not _fits(draft, sync):
        limit = times.duration(draft.spec.cutover.max_write_freeze).total_seconds()
        text = f"a freeze of {2 * (sync.predicted_freeze_secs or 0):.1f} s is needed, maxWriteFreeze is {limit:g} s"
        if sync.growing >= _GROWING:
            draft.stall(StallReason.FREEZE_TOO_LONG, text)
        else:
            draft.going(Reason.SYNCING, "passes still shrink")
    elif forward and draft.spec.suspend:
        draft.going(Reason.SUSPENDED, "no freeze begins")
    elif ready and _rested(draft) and not steps.alive(draft):
        draft.going(Reason.SYNCING, "no freeze begins before the switch worker reports")
    elif ready and _rested(draft):
        draft.going(Reason.FREEZING)
        steps.begin_freeze(draft, binding, draft.now + times.duration(draft.spec.cutover.max_write_freeze))


def _answered(draft: Draft, said: Answer | None) -> bool:
    """Takes over what the last pass says; False, and stalled, where it does not allow to go on."""
    if said is None:
        return True
    forward = draft.traffic.direction == "Forward"
    if not said.done:
        _pass_failed(draft, said, StallReason.PASS_FAILED if forward else StallReason.NO_WAY_BACK)
        return False
    if conflicts := int(said.body.get("conflicts") or 0):
        text = f"{conflicts} records were changed by someone else since they were written, and were left alone"
        draft.stall(StallReason.VALIDATION_FAILED, text)
        return False
    synced(draft, said)
    return True


def _pass_failed(draft: Draft, said: Answer, reason: StallReason) -> None:
    draft.stall(reason, f"{said.code}: {said.message}")
    since = next((times.instant(c.last_transition_time) for c in draft.status.conditions if c.type == "Stalled"), None)
    if said.code in _TRANSIENT and since and draft.now - since > _PAUSE:
        steps.order(draft, "Pass")
        draft.going(Reason.SYNCING, "tried again")


def synced(draft: Draft, said: Answer) -> None:
    """Takes over what a pass says."""
    old, body = draft.status.sync or SyncStatus(), said.body
    if int(body.get("pass") or 0) in {0, old.pass_}:
        return  # Another worker begins at one again.
    changed = int(body.get("changed") or 0)
    pass_secs, verify_secs = float(body.get("passSecs") or 0), float(body.get("verifySecs") or 0)
    shrinks = not old.pass_ or changed < old.changed * 0.9
    draft.update(
        sync=SyncStatus(
            pass_=int(body["pass"]),
            direction=draft.traffic.direction,
            changed=changed,
            deleted=int(body.get("deleted") or 0),
            pass_secs=pass_secs,
            verify_secs=verify_secs,
            predicted_freeze_secs=round(pass_secs + verify_secs, 3),
            growing=0 if shrinks else old.growing + 1,
        ),
    )


def _fits(draft: Draft, sync: SyncStatus) -> bool:
    """No freeze begins unless its passes and their verification fit in half of what is allowed."""
    limit = times.duration(draft.spec.cutover.max_write_freeze).total_seconds() / 2
    return sync.predicted_freeze_secs is not None and sync.predicted_freeze_secs <= limit


def _rested(draft: Draft) -> bool:
    at, returns = times.instant(draft.traffic.returned_at), draft.traffic.returns
    return not returns or at is None or draft.now >= at + _PAUSE * 2 ** (returns - 1)


def token(draft: Draft, what: str) -> str:
    """What an approval must equal: it stands for this plan, this result, this attempt."""
    plan, done = draft.status.plan, draft.status.validation
    text = f"{what}|{draft.observed.uid}|{draft.status.attempt}|{plan.hash if plan else ''}|"
    return hashlib.blake2b((text + (done.model_dump_json() if done else "")).encode(), digest_size=8).hexdigest()


def approved(draft: Draft, what: str) -> bool:
    """Whether a human has approved exactly this, and it is late enough; says so where not."""
    wanted = token(draft, what)
    given = draft.spec.cutover.approve if what == "Cutover" else draft.spec.decommission.confirm
    field = "spec.cutover.approve" if what == "Cutover" else "spec.decommission.confirm"
    draft.update(approval=Approval.model_validate({"token": wanted, "for": what}))
    if given != wanted:
        draft.going(Reason.APPROVAL_REQUIRED, f"{field} must be {wanted}")
        draft.condition("ApprovalRequired", "True", what, f"{field} must be {wanted}")
        return False
    draft.condition("ApprovalRequired", "False", "Approved")
    earliest = times.instant(draft.spec.cutover.not_before)
    if what == "Cutover" and earliest is not None and draft.now < earliest:
        draft.going(Reason.TOO_EARLY, f"not before {draft.spec.cutover.not_before}")
        draft.wake(earliest - draft.now)
        return False
    return True
