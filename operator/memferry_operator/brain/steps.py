"""The switch in steps: each is written to the status first, then ordered, journaled, shown to the clients.

    Preparing -> Freezing -> FinalPass -> Flipping -> Serving -> Settled
                 (Offline: Frozen, for the whole copy)
    Freezing, Frozen, FinalPass, Flipping -> Returning, when anything fails or a deadline is missed

`Serving` is the point of no return: who wrote it to the status goes on until the new side serves.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from memferry.manifest.status import StallReason
from memferry_operator import names
from memferry_operator.actions import Emit, SendCommand, WriteBinding
from memferry_operator.brain import times
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import Answer, BindingState, Client, Command, Mode

__all__ = [
    "FLIPPED",
    "MOVING",
    "acknowledged",
    "alive",
    "answer",
    "away",
    "begin_flip",
    "begin_freeze",
    "begin_return",
    "drive",
    "home",
    "order",
    "send",
]

MOVING: Final = frozenset({"Freezing", "FinalPass", "Flipping", "Serving", "Returning"})
FLIPPED: Final = frozenset({"Flipping", "Serving"})
"""Steps in which the binding may speak of the new side."""
_LIVE: Final = timedelta(seconds=20)
_POLL: Final = timedelta(seconds=1)
_SKEW: Final = timedelta(seconds=5)
_JOURNAL_WAIT: Final = timedelta(minutes=5)
"""How long a return is not over while its journals are not written; the application is served all the while."""
_FROZEN_WAIT: Final = timedelta(minutes=1)
"""The same for the new side, for which the application waits: both journals have named it since `Flipping`."""


def home(draft: Draft) -> str:
    """The side that served before this switch.

    A target that has served once has writes that the source may not have: a status that was rebuilt knows that, and not
    which way the switch was going.
    """
    if draft.observed.spec is None:
        return draft.traffic.home or draft.traffic.active
    back = draft.traffic.direction == "Back" or draft.traffic.switched_at is not None
    return draft.target if back else draft.source


def away(draft: Draft) -> str:
    """The side that is to serve."""
    return draft.target if draft.traffic.direction == "Forward" else draft.source


def order(draft: Draft, verb: str, **changes: Any) -> None:
    """Gives the switch worker its next command."""
    if "step" in changes:
        changes["step_at"] = times.text(draft.now)
    draft.update_traffic(command=verb, sequence=draft.traffic.sequence + 1, **changes)
    send(draft)


def _command(draft: Draft) -> Command:
    """The command that the status speaks of."""
    traffic = draft.traffic
    verb: Literal["Pass", "Journal", "ReadJournal", "FinalPass", "Probe"] = traffic.command  # type: ignore[assignment]
    if verb == "Journal":
        return Command(
            traffic.sequence,
            verb,
            revision=traffic.revision,
            mode=traffic.mode,
            active=traffic.active,
            frozen_until=traffic.frozen_until,
        )
    if verb == "Probe":
        stray = True if draft.status.plan and draft.status.plan.way_back else None
        return Command(traffic.sequence, verb, stray=stray, parity=True if draft.spec.validation.parity else None)
    return Command(traffic.sequence, verb, direction=None if verb == "ReadJournal" else traffic.direction)


def send(draft: Draft) -> None:
    """Puts the command where the worker reads it, unless it stands there."""
    draft.actions = [a for a in draft.actions if not isinstance(a, SendCommand)]
    if draft.traffic.command and draft.observed.command != _command(draft):
        draft.act(SendCommand(_command(draft)))


def answer(draft: Draft) -> Answer | None:
    """What the worker answered to the command as it stands."""
    send(draft)
    lease = draft.observed.leases.get(names.lease(draft.observed.name, "switch"))
    found = lease.answer if lease else None
    return found if found and (found.sequence, found.verb) == (draft.traffic.sequence, draft.traffic.command) else None


def alive(draft: Draft) -> bool:
    """Whether the switch worker of this attempt runs and reports.

    Where the clock of its node is another one than ours, its Lease has to be seen to be renewed.
    """
    lease = draft.observed.leases.get(names.lease(draft.observed.name, "switch"))
    holders = {
        pod.name
        for pod in draft.observed.pods
        if pod.role == "switch" and pod.attempt == draft.status.attempt and pod.phase == "Running" and not pod.deleting
    }
    if lease is None or lease.renewed_at is None or lease.holder not in holders:
        return False
    if abs(draft.now - lease.renewed_at) < _LIVE:
        return True
    heard, renewed = draft.traffic.heard, times.text(lease.renewed_at)
    draft.update_traffic(heard=renewed)
    return heard is not None and heard != renewed


def acknowledged(clients: tuple[Client, ...], revision: int, mode: Mode, active: str) -> int:
    """How many clients have acknowledged exactly this."""
    return sum((c.revision, c.mode, c.active) == (revision, mode, active) for c in clients)


def begin_freeze(draft: Draft, binding: BindingState, until: datetime) -> None:
    """Writes are to stop, if it is the side to be left that serves."""
    if binding.active != home(draft):
        text = f"MemoryBinding {binding.name} is on {binding.active}, not on {home(draft)}"
        draft.stall(StallReason.SOURCE_NOT_ACTIVE, text)
        return
    order(
        draft,
        "Journal",
        step="Freezing",
        revision=max(draft.traffic.revision, binding.revision) + 1,
        mode="Frozen",
        active=binding.active,
        home=binding.active,
        frozen_at=times.text(draft.now),
        frozen_until=times.text(until),
        acked=0,
        expected=len(binding.clients),
    )
    draft.act(Emit("Normal", "Freezing", f"writes stop, revision {draft.traffic.revision}"))


def begin_flip(draft: Draft) -> None:
    """The other side is to be opened, still frozen."""
    until = draft.traffic.frozen_until or times.text(draft.now + _freeze(draft))
    revision = draft.traffic.revision + 1
    order(draft, "Journal", step="Flipping", revision=revision, active=away(draft), acked=0, frozen_until=until)


def begin_return(draft: Draft, why: str) -> None:
    """The side that served before serves again."""
    binding = draft.observed.binding
    revision = max(draft.traffic.revision, binding.revision if binding else 0) + 1
    _return_to(draft, home(draft), revision)
    draft.act(Emit("Warning", "Returning", f"{home(draft)} serves again: {why}"))
    draft.condition("TrafficSwitched", "False", "Returned", why)


def _return_to(draft: Draft, side: str, revision: int) -> None:
    at = times.text(draft.now)
    changes = {"revision": revision, "mode": "Serving", "active": side, "frozen_until": None, "returned_at": at}
    order(draft, "Journal", step="Returning", **changes)


def drive(draft: Draft, binding: BindingState) -> None:
    """Goes on with the step that the status speaks of."""
    draft.wake(_POLL)
    step = draft.traffic.step
    if binding.revision > draft.traffic.revision:
        _overtaken(draft, binding)
    elif step == "Returning":
        _returning(draft, binding)
    elif step == "Serving":
        _serving(draft, binding)
    elif _in_time(draft) and (said := answer(draft)) is not None:
        _go_on(draft, binding, said)


def _in_time(draft: Draft) -> bool:
    """Whether the freeze may last; gives it back where not."""
    until = times.instant(draft.traffic.frozen_until)
    last = _while_it_moves(draft) if until is None else until - _margin(draft)
    if last is None or draft.now <= last:
        return True
    begin_return(draft, f"{draft.traffic.step} was not done in time")
    return False


def _while_it_moves(draft: Draft) -> datetime | None:
    """A freeze without an end of its own, the last pass of a long copy, lasts as long as its worker makes progress."""
    lease = draft.observed.leases.get(names.lease(draft.observed.name, "switch"))
    told = lease.progress.progressed_at if lease and lease.progress else None
    moved = max((at for at in (told, times.instant(draft.traffic.step_at)) if at is not None), default=None)
    return moved and moved + times.duration(draft.spec.transfer.stall_timeout)


def _go_on(draft: Draft, binding: BindingState, said: Answer) -> None:
    """From one step of a freeze to the next."""
    step, revision = draft.traffic.step, draft.traffic.revision
    if not said.done:
        _failed(draft, said)
    elif said.verb == "ReadJournal":
        _journal_read(draft, said)
    elif step == "FinalPass":
        _final_pass(draft, said)
    elif draft.traffic.frozen_until is None:
        draft.update_traffic(frozen_until=times.text(draft.now + _freeze(draft)))
    elif not (_shown(draft, binding) and _all(draft, binding)):
        return
    elif step == "Flipping":
        order(draft, "Journal", step="Serving", revision=revision + 1, mode="Serving", frozen_until=None)
    elif draft.traffic.direction == "Forward" and (
        draft.spec.strategy == "Offline" or draft.status.phase != "TrafficSwitch"
    ):
        draft.update_traffic(step="Frozen", step_at=times.text(draft.now))
    else:
        order(draft, "FinalPass", step="FinalPass")


def _freeze(draft: Draft) -> timedelta:
    return times.duration(draft.spec.cutover.max_write_freeze)


def _margin(draft: Draft) -> timedelta:
    """Clocks of leader and clients may differ by so much."""
    return min(_SKEW, _freeze(draft) / 4)


def _shown(draft: Draft, binding: BindingState) -> bool:
    """Whether the binding says what the status says; writes it where it does not."""
    traffic = draft.traffic
    if binding.revision == traffic.revision:
        return True
    until = times.instant(traffic.frozen_until)
    draft.act(WriteBinding(traffic.active, traffic.revision, traffic.mode, until, locked=True))
    return False


def _all(draft: Draft, binding: BindingState) -> bool:
    traffic, expected = draft.traffic, len(binding.clients)
    acked = acknowledged(binding.clients, traffic.revision, traffic.mode, traffic.active)
    draft.update_traffic(acked=acked, expected=expected)
    if acked == expected:
        return True
    begun = times.instant(traffic.frozen_at) or draft.now
    if traffic.step == "Freezing" and draft.now > begun + times.duration(draft.spec.cutover.ack_timeout):
        silent = [c.name for c in binding.clients if c.revision != traffic.revision]
        begin_return(draft, f"{expected - acked} of {expected} clients did not acknowledge: {', '.join(silent[:10])}")
    return False


def _final_pass(draft: Draft, said: Answer) -> None:
    wrong = {name: int(said.body.get(name) or 0) for name in ("missing", "different")}
    if any(wrong.values()):
        begin_return(draft, f"the final pass is not proven: {wrong['missing']} missing, {wrong['different']} different")
    else:
        text = f"{int(said.body.get('verified') or 0):,} records that were touched compared while nobody wrote"
        draft.condition("DataValidated", "True", "FinalPass", text)
        begin_flip(draft)


def _failed(draft: Draft, said: Answer) -> None:
    """A command that failed ends the freeze; the journal that refused may know better and is asked first."""
    if said.verb == "Journal" and said.code == "journal":
        order(draft, "ReadJournal")
    else:
        begin_return(draft, f"{said.verb} failed: {said.code}: {said.message}")


def _journal_read(draft: Draft, said: Answer) -> None:
    """A journal that says that the new side serves is followed; else the freeze is given back above it."""
    stands = said.body.get("journal") or {}
    revision, traffic = int(stands.get("revision") or 0), draft.traffic
    if revision > traffic.revision and (stands.get("mode"), stands.get("active")) == ("Serving", away(draft)):
        order(
            draft, "Journal", step="Serving", revision=revision, mode="Serving", active=away(draft), frozen_until=None
        )
    else:
        draft.update_traffic(revision=max(traffic.revision, revision))
        begin_return(draft, f"the journal of the binding is at revision {revision}")


def _serving(draft: Draft, binding: BindingState) -> None:
    """The journals first. Who waits is the application: where one of them, or nobody, can be written, it is served."""
    said = answer(draft)
    if _gone_beyond(draft, binding, said):
        return
    written = _written(said)
    if not written and not _nobody_writes(draft, _FROZEN_WAIT):
        if said is not None:
            order(draft, "Journal")
        return
    if not _shown(draft, binding):
        return
    _tell_unwritten(draft, written=written)
    begun, side = times.instant(draft.traffic.frozen_at), draft.traffic.active
    millis = round((draft.now - begun).total_seconds() * 1000) if begun else None
    at = times.text(draft.now)
    draft.update_traffic(step="Settled", switched_at=at, write_freeze_millis=millis, command="", returns=0)
    draft.condition("TrafficSwitched", "True", "Switched", f"{side} serves, writes waited {millis} ms")
    draft.act(Emit("Normal", "Switched", f"{side} serves, writes waited {millis} ms"))


def _returning(draft: Draft, binding: BindingState) -> None:
    """The binding first, at once: it never spoke of the other side as serving. The journals are waited for."""
    shown, said = _shown(draft, binding), answer(draft)
    if _gone_beyond(draft, binding, said):
        return
    written = _written(said)
    if not shown or not (written or _nobody_writes(draft, _JOURNAL_WAIT)):
        return
    _tell_unwritten(draft, written=written)
    draft.update_traffic(step="Settled", returns=draft.traffic.returns + 1, frozen_until=None)


def _gone_beyond(draft: Draft, binding: BindingState, said: Answer | None) -> bool:
    """Whether a journal has gone on: it is read, and what stands there is gone beyond."""
    if said is not None and said.verb == "ReadJournal" and said.done:
        stands = int((said.body.get("journal") or {}).get("revision") or 0)
        order(draft, "Journal", revision=max(stands, draft.traffic.revision, binding.revision) + 1)
    elif said is not None and not said.done and said.code == "journal":
        order(draft, "ReadJournal")
    else:
        return False
    return True


def _written(said: Answer | None) -> bool:
    """Whether the first journal says it, that of the side that serves: whoever reads both goes by the newer."""
    return said is not None and (said.done or bool(said.body.get("kept")))


def _tell_unwritten(draft: Draft, *, written: bool) -> None:
    if not written:
        text = f"no journal in a store says that {draft.traffic.active} serves, revision {draft.traffic.revision}"
        draft.act(Emit("Warning", "JournalNotWritten", f"{text}; until the next switch only the MemoryBinding does"))


def _nobody_writes(draft: Draft, wait: timedelta) -> bool:
    """Whether there is no worker to write the journals, or there was one for long enough."""
    job, since = draft.observed.job("switch", draft.status.attempt), times.instant(draft.traffic.step_at)
    gone = draft.observed.ending or job is None or job.ended or job.deleting
    return gone or since is None or draft.now > since + wait


def _overtaken(draft: Draft, binding: BindingState) -> None:
    """Someone else raised the revision: what the binding says, holds, and the journals are brought to it."""
    draft.act(Emit("Warning", "Overtaken", f"the binding was changed by someone else, revision {binding.revision}"))
    if binding.mode == "Frozen":
        begin_return(draft, "the binding was left frozen by someone else")
    else:
        _return_to(draft, binding.active, binding.revision)
