"""What a human asks for while it runs: suspend, Abort, SwitchBack, retry. Each is acted on once."""

from __future__ import annotations

from memferry_operator.actions import Emit
from memferry_operator.brain import monitoring
from memferry_operator.brain.draft import TERMINAL, Draft
from memferry_operator.reasons import Reason

__all__ = ["handle"]

_COPYING = frozenset({"Pending", "ParallelSetup", "BulkTransfer", "Validation"})


def handle(draft: Draft) -> None:
    """Reads the commands of the spec."""
    _suspend(draft)
    _retry(draft)
    _operation(draft)


def _suspend(draft: Draft) -> None:
    if draft.status.phase in TERMINAL:
        draft.drop_condition("Suspended")
    elif draft.spec.suspend:
        draft.condition("Suspended", "True", "Suspended", "nothing is begun while spec.suspend is true")
        if draft.stalled is None and draft.status.phase in _COPYING:
            draft.going(Reason.SUSPENDED)
    elif draft.is_true("Suspended"):
        draft.condition("Suspended", "False", "Resumed")


def _retry(draft: Draft) -> None:
    token, handled = draft.spec.retry_token, draft.status.handled
    if token == handled.retry_token:
        return
    draft.update(handled=handled.model_copy(update={"retry_token": token}))
    if not token or draft.stalled is None:
        return
    phase = draft.status.phase
    if phase in _COPYING or (draft.traffic.direction == "Forward" and phase == "TrafficSwitch" and _offline(draft)):
        draft.enter("Pending", Reason.QUEUED, "asked to try again")
        return
    if phase == "TrafficSwitch" and draft.traffic.step in {"Preparing", "Settled"}:
        draft.update_traffic(returns=0, returned_at=None, command="")
    if phase == "Monitoring":
        draft.update(monitoring=None)
    draft.update(attempt=draft.status.attempt + 1)
    draft.going(Reason.SYNCING, "asked to try again")


def _offline(draft: Draft) -> bool:
    return draft.spec.strategy == "Offline"


def _operation(draft: Draft) -> None:
    operation, handled = draft.spec.operation, draft.status.handled
    key = f"{operation}:{draft.spec.operation_token}" if operation else ""
    if key == handled.operation_token:
        return
    draft.update(handled=handled.model_copy(update={"operation_token": key}))
    if operation is None:
        draft.drop_condition("OperationRefused")
        return
    why = _abort(draft) if operation == "Abort" else _switch_back(draft)
    if why:
        draft.condition("OperationRefused", "True", operation, why)
        draft.act(Emit("Warning", "OperationRefused", f"{operation}: {why}"))
    else:
        draft.drop_condition("OperationRefused")


def _abort(draft: Draft) -> str | None:
    """What serves stays active and unfrozen; both stores stay as they are."""
    phase, traffic = draft.status.phase, draft.traffic
    if phase in TERMINAL:
        return f"the migration is over: {phase}"
    forward = traffic.direction == "Forward"
    if phase in _COPYING or (phase == "TrafficSwitch" and forward and traffic.step != "Serving"):
        draft.enter("Aborted", Reason.ABORTED, "as asked; `memferry rollback` removes what was written")
        return None
    if phase == "TrafficSwitch" and not forward:
        if traffic.step == "Serving":
            return f"{draft.source} serves already"
        monitoring.stay(draft)
        return None
    return f"{draft.target} serves already; SwitchBack goes home"


def _switch_back(draft: Draft) -> str | None:
    if draft.status.phase != "Monitoring":
        return f"only possible while Monitoring, the phase is {draft.status.phase}"
    if not (draft.status.plan and draft.status.plan.way_back):
        return "the way back is not lossless; the plan said so"
    monitoring.switch_back(draft, "as asked")
    return None
