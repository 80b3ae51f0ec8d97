"""No write under an acknowledged freeze, none after the Lease ran out, none confirmed too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memferry.binding.state import Acknowledgement, ClientState, Denied, Permit, Seen

LEASE = 15.0
LIVE = 3 * LEASE


def serving(state: ClientState, *, revision: int = 1, active: str = "a", now: float = 0.0) -> None:
    """Brings a client to where it may write."""
    state.renewed(now, now)
    state.saw(Seen(active, revision, "Serving"), read_began=now)
    state.opened(active)


def begun(state: ClientState, now: float) -> Permit:
    permit = state.begin(now)
    assert isinstance(permit, Permit), permit
    return permit


def test_a_client_writes_once_it_has_a_lease_and_then_read_the_binding_and_opened_the_store() -> None:
    state = ClientState(LEASE)
    assert state.refusal(0) == "unknown"
    state.saw(Seen("a", 1, "Serving"), read_began=0.0)
    assert state.refusal(0) == "lease-lost"
    state.renewed(1.0, 1.1)
    assert state.refusal(1.2) == "unread", "what was read before the Lease may have changed without this client"
    state.saw(Seen("a", 1, "Serving"), read_began=1.2)
    assert state.refusal(1.3) == "opening"
    state.opened("a")
    assert state.begin(1.4) == Permit(1, "a", 1.1)


def test_a_freeze_is_acknowledged_when_nothing_is_in_flight() -> None:
    state = ClientState(LEASE)
    serving(state)
    permit = begun(state, 1.0)
    assert state.saw(Seen("a", 2, "Frozen"))
    assert state.begin(1.1) == Denied("frozen")
    assert state.acknowledgement() is None
    assert state.finish(permit, 1.2), "it ended before the freeze was acknowledged: the final pass sees it"
    assert state.acknowledgement() == Acknowledgement(2, "Frozen", "a")


def test_the_other_side_is_acknowledged_when_its_store_is_open() -> None:
    state = ClientState(LEASE)
    serving(state)
    state.saw(Seen("b", 2, "Frozen"))
    assert state.acknowledgement() is None
    state.opened("b")
    assert state.acknowledgement() == Acknowledgement(2, "Frozen", "b")
    assert state.refusal(1.0) == "frozen"
    state.saw(Seen("b", 3, "Serving"))
    assert begun(state, 1.0).active == "b"


def test_without_a_renewal_it_stops_and_reads_again_before_it_goes_on() -> None:
    state = ClientState(LEASE)
    serving(state)
    assert state.refusal(LEASE - 0.01) is None
    assert state.refusal(LEASE) == "lease-lost"
    state.renewed(20.0, 20.5)
    assert state.refusal(20.6) == "unread"
    state.saw(Seen("a", 1, "Serving"))
    assert state.refusal(20.6) == "unread", "what a watch tells may be old"
    state.saw(Seen("a", 1, "Serving"), read_began=20.4)
    assert state.refusal(20.6) == "unread", "the read began before the renewal was known"
    state.saw(Seen("a", 1, "Serving"), read_began=20.5)
    assert state.refusal(20.6) is None


def test_a_renewal_counts_from_its_begin() -> None:
    state = ClientState(LEASE)
    serving(state)
    state.renewed(10.0, 14.9)
    assert state.refusal(24.9) is None
    assert state.refusal(25.0) == "lease-lost"


def test_a_write_that_ends_after_the_lease_is_in_doubt_also_when_it_was_renewed_since() -> None:
    state = ClientState(LEASE)
    serving(state)
    late, paused = begun(state, 1.0), begun(state, 1.0)
    assert not state.finish(late, LEASE)
    state.renewed(40.0, 40.1)
    state.saw(Seen("a", 1, "Serving"), read_began=40.2)
    assert not state.finish(paused, 40.3), "somebody may have gone on without it in between"


def test_a_write_under_which_the_lease_was_deleted_is_in_doubt_however_soon_it_is_made_again() -> None:
    state = ClientState(LEASE)
    serving(state)
    during, after = begun(state, 1.0), begun(state, 1.0)
    state.lost()
    assert state.refusal(1.1) == "lease-lost"
    assert not state.finish(during, 1.1)
    serving(state, now=1.2)
    assert not state.finish(after, 1.3), "nobody counted on it in between"
    assert state.finish(begun(state, 1.3), 1.4)


def test_what_is_older_or_wiped_is_not_believed() -> None:
    state = ClientState(LEASE)
    serving(state, revision=5, active="b")
    assert not state.saw(Seen("a", 4, "Serving"), read_began=1.0)
    assert not state.saw(None, read_began=1.0)
    assert state.seen == Seen("b", 5, "Serving")
    assert begun(state, 1.0).active == "b"


def test_two_things_said_of_one_revision_stop_the_writes_until_the_next_one() -> None:
    state = ClientState(LEASE)
    serving(state)
    state.saw(Seen("b", 1, "Serving"))
    assert state.refusal(1.0) == "contradiction"
    assert state.acknowledgement() is None
    state.saw(Seen("a", 2, "Serving"))
    assert state.refusal(1.0) is None


def test_a_freeze_that_is_made_longer_is_the_same_freeze() -> None:
    state = ClientState(LEASE)
    serving(state)
    assert state.saw(Seen("a", 2, "Frozen", "2026-01-01T00:00:00Z"))
    assert not state.saw(Seen("a", 2, "Frozen", "2026-01-01T00:01:00Z"))
    assert state.seen == Seen("a", 2, "Frozen", "2026-01-01T00:01:00Z")
    assert state.refusal(1.0) == "frozen"


@pytest.mark.parametrize("reason", ["closed", "fenced"])
def test_an_end_is_final(reason: str) -> None:
    state = ClientState(LEASE)
    serving(state)
    state.end(reason)  # type: ignore[arg-type]
    state.saw(Seen("a", 9, "Serving"), read_began=1.0)
    state.renewed(2.0, 2.0)
    assert state.refusal(2.0) == reason


@dataclass
class Write:
    """A write of the simulated client: it reaches the store at some moment between begin and end."""

    permit: Permit
    landed: bool = False


class Switches(RuleBasedStateMachine):
    """One client, an operator that switches between two stores, and a network that delays, loses and partitions.

    The operator goes on when the Lease says what it wants to hear, or when the client has been silent for three lease
    durations. Whatever happens in between, a confirmed write is on the side that serves, and is carried there by the
    final pass where it was made on the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = ClientState(LEASE)
        self.truth = Seen("a", 1, "Serving")
        self.step: Literal["freezing", "copied", "flipped"] = "flipped"
        self.lease_said: Acknowledgement | None = None
        self.lease_at = 0.0
        self.events: list[Seen] = []
        self.read: tuple[float, Seen] | None = None
        self.asked: float | None = None
        self.in_flight: list[Write] = []
        self.sides: dict[str, list[Write]] = {"a": [], "b": []}
        self.confirmed: list[Write] = []
        serving(self.state)

    # --- the world

    @rule(secs=st.sampled_from([1.0, 16.0, 50.0]))
    def time_passes(self, secs: float) -> None:
        self.now += secs

    def say(self, mode: Literal["Serving", "Frozen"], active: str) -> None:
        self.truth = Seen(active, self.truth.revision + 1, mode)
        self.events.append(self.truth)

    @rule()
    def operator_goes_on(self) -> None:
        here, there = self.truth.active, "b" if self.truth.active == "a" else "a"
        if self.truth.mode == "Serving":
            self.step = "freezing"
            self.say("Frozen", here)
        elif self.step == "freezing" and self.may_go_on():
            self.step = "copied"
            self.sides[there] = list(self.sides[here])
        elif self.step == "copied":
            self.step = "flipped"
            self.say("Frozen", there)
        elif self.step == "flipped":
            self.say("Serving", here)

    @rule(steps=st.integers(2, 4))
    def operator_goes_on_while_the_client_is_cut_off(self, steps: int) -> None:
        self.now += 50.0
        for _ in range(steps):
            self.operator_goes_on()

    def may_go_on(self) -> bool:
        """Whether the operator may go on: the client says so, or has been silent for too long."""
        wanted = Acknowledgement(self.truth.revision, self.truth.mode, self.truth.active)
        return self.lease_said == wanted or self.now - self.lease_at > LIVE

    @precondition(lambda self: self.truth.mode == "Frozen" and self.step != "flipped")
    @rule()
    def operator_gives_back(self) -> None:
        self.say("Serving", self.truth.active)

    # --- the network

    @precondition(lambda self: self.asked is None)
    @rule(answered=st.booleans())
    def renewal(self, answered: bool) -> None:
        self.lease_at = self.now
        self.lease_said = self.state.acknowledgement() or self.lease_said
        if answered:
            self.state.renewed(self.now, self.now)
        else:
            self.asked = self.now

    @precondition(lambda self: self.asked is not None)
    @rule(lost=st.booleans())
    def late_answer_to_the_renewal(self, lost: bool) -> None:
        if self.asked is not None and not lost:
            self.state.renewed(self.asked, self.now)
        self.asked = None

    @rule(answered=st.booleans())
    def reading(self, answered: bool) -> None:
        if answered:
            self.state.saw(self.truth, read_began=self.now)
        else:
            self.read = (self.now, self.truth)

    @precondition(lambda self: self.read)
    @rule()
    def late_answer_to_the_reading(self) -> None:
        if self.read:
            self.state.saw(self.read[1], read_began=self.read[0])
        self.read = None

    @precondition(lambda self: self.events)
    @rule(all_of_it=st.booleans())
    def watch_tells(self, all_of_it: bool) -> None:
        told = self.events if all_of_it else self.events[:1]
        self.events = self.events[len(told) :]
        for seen in told:
            self.state.saw(seen)

    # --- the client

    @rule()
    def store_opens(self) -> None:
        if self.state.seen is not None:
            self.state.opened(self.state.seen.active)

    @rule(landed=st.booleans())
    def write_begins(self, landed: bool) -> None:
        permit = self.state.begin(self.now)
        if isinstance(permit, Permit):
            self.in_flight.append(Write(permit))
            if landed:
                self.write_lands(len(self.in_flight) - 1)

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 1))
    def write_lands(self, which: int) -> None:
        write = self.in_flight[min(which, len(self.in_flight) - 1)]
        if not write.landed:
            write.landed = True
            self.sides[write.permit.active].append(write)

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 1))
    def write_ends(self, which: int) -> None:
        self.write_lands(which)
        write = self.in_flight.pop(min(which, len(self.in_flight) - 1))
        if self.state.finish(write.permit, self.now):
            self.confirmed.append(write)

    # --- what holds

    @invariant()
    def nothing_confirmed_is_lost(self) -> None:
        here = self.sides[self.truth.active]
        assert all(any(write is kept for kept in here) for write in self.confirmed)

    @invariant()
    def nothing_is_in_flight_under_an_acknowledged_freeze(self) -> None:
        said = self.lease_said
        if said is not None and said.mode == "Frozen":
            assert all(write.permit.revision > said.revision for write in self.in_flight)

    @invariant()
    def nothing_begins_after_the_lease(self) -> None:
        if self.state.refusal(self.now) is None:
            assert self.now - self.lease_at < LEASE
            assert self.state.seen is not None
            assert self.state.seen.mode == "Serving"


TestSwitches = Switches.TestCase
TestSwitches.settings = settings(max_examples=500, stateful_step_count=40, suppress_health_check=list(HealthCheck))
