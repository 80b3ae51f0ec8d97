"""When a MemoryBackend is probed, and what its status becomes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memferry.manifest.backend_status import BackendStatus
from memferry_operator import names
from memferry_operator.actions import WakeAt
from memferry_operator.backend import (
    Ask,
    BackendAction,
    BackendSeen,
    EndProbe,
    Probe,
    StartProbe,
    WaitForProbe,
    WriteBackendStatus,
    plan_backend,
)
from memferry_operator.hands.keys import Key
from memferry_operator.hands.probes import Probes
from memferry_operator.observed import User

NOW = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
EVERY = timedelta(minutes=15)
USERS = (User("MemoryBinding", "memory"), User("MemoryMigration", "move", "u1", "TrafficSwitch"))
ENDED = (User("MemoryMigration", "old", phase="Succeeded"),)
SAID = {
    "reachable": True,
    "version": "5.26",
    "identity": "store-1",
    "records": 7,
    "counts": {"memory": 7},
    "changes": "scan",
    "capabilities": ["write", "atomic"],
}
AWAY = {"reachable": False, "error": {"code": "unavailable", "message": "no route"}}


def seen(**more: Any) -> BackendSeen:
    return BackendSeen("a", 2, **{"status": BackendStatus(), **more})


def plan(one: BackendSeen, now: datetime = NOW) -> list[BackendAction]:
    return plan_backend(one, now, EVERY)


def probed(one: BackendSeen, said: dict[str, Any] | None, now: datetime = NOW) -> BackendSeen:
    """A whole probe: it is begun, comes to its end, is taken over and goes."""
    (start,) = [a for a in plan(one, now) if isinstance(a, StartProbe)]
    job = Probe("memferry-probe-a", start.number, one.generation)
    running = replace(one, probe=job)
    assert not [a for a in plan(running, now) if isinstance(a, StartProbe | EndProbe)], "one at a time"
    ended = replace(running, probe=replace(job, ended=True, message="DeadlineExceeded"))
    if said is not None:
        ended = replace(ended, said={"probe": start.number, **said})
    actions = plan(ended, now)
    (write,) = [a for a in actions if isinstance(a, WriteBackendStatus)]
    assert actions.index(EndProbe(job.name)) > actions.index(write), "what it found stands in the status first"
    again = plan(replace(ended, status=write.status), now + timedelta(seconds=1))
    assert not [a for a in again if isinstance(a, WriteBackendStatus)], "taken over once"
    return replace(ended, status=write.status, probe=None)


def due(one: BackendSeen) -> datetime | None:
    """When it is probed next."""
    return next((a.at for a in plan(one) if isinstance(a, WakeAt)), None)


def condition(status: BackendStatus, kind: str) -> tuple[str, str]:
    return next((c.status, c.reason) for c in status.conditions if c.type == kind)


def test_what_a_probe_says() -> None:
    one = probed(seen(users=(*USERS, *ENDED)), SAID)
    status = one.status
    assert (status.reachable, status.store_identity, status.records, status.changes) == (True, "store-1", 7, "scan")
    assert (status.server_version, status.observed_generation, status.failures) == ("5.26", 2, 0)
    assert status.counts is not None
    assert status.counts.memory == 7
    assert [(u.kind, u.name) for u in status.users] == [("MemoryBinding", "memory"), ("MemoryMigration", "move")]
    assert condition(status, "Ready") == condition(status, "Reachable") == ("True", "Reachable")
    assert status.checked_at == "2026-01-31T22:00:00.000Z"


def test_one_that_is_used_is_probed_now_and_then_and_one_that_is_not_only_when_it_changed() -> None:
    used, idle = probed(seen(users=USERS), SAID), probed(seen(users=ENDED), SAID)
    assert due(used) == NOW + EVERY
    assert plan(idle) == []
    assert [type(a) for a in plan(replace(idle, generation=3))] == [StartProbe]
    assert [type(a) for a in plan(used, NOW + EVERY)] == [StartProbe]


def test_a_change_while_it_is_probed_is_probed_again() -> None:
    one = seen()
    (start,) = plan(one)
    assert isinstance(start, StartProbe)
    ended = Probe("memferry-probe-a", start.number, 2, ended=True)
    (write, _, _) = plan(replace(one, generation=3, probe=ended, said={"probe": start.number, **SAID}))
    assert isinstance(write, WriteBackendStatus)
    assert write.status.observed_generation == 2
    assert [type(a) for a in plan(replace(one, generation=3, status=write.status))] == [StartProbe]


def test_without_a_place_it_waits() -> None:
    assert plan(seen(slot=False)) == [WaitForProbe()]


def test_one_that_is_away_keeps_what_is_known_of_it_and_is_tried_again_after_growing_waits() -> None:
    one, waits, now = probed(seen(users=USERS), SAID), [], NOW + EVERY
    for _ in range(6):
        one = probed(one, AWAY, now)
        at = due(one)
        assert at is not None
        waits.append((at - now).total_seconds())
        now = at
    assert waits == [10, 20, 40, 80, 120, 120]
    status = one.status
    assert (status.reachable, status.records, status.store_identity, status.failures) == (False, 7, "store-1", 6)
    assert condition(status, "Reachable") == ("False", "Unreachable")
    ready = next(c for c in status.conditions if c.type == "Ready")
    assert (ready.message, ready.last_transition_time) == ("unavailable: no route", "2026-01-31T22:15:00.000Z")
    one = probed(one, SAID, now)
    assert (one.status.failures, condition(one.status, "Ready")) == (0, ("True", "Reachable"))


def test_nobody_is_told_for_ever_that_a_store_nobody_uses_is_away() -> None:
    one, now = seen(), NOW
    for _ in range(3):
        one = probed(one, AWAY, now)
        now += timedelta(minutes=10)
    assert plan(one, now) == []
    assert [type(a) for a in plan(replace(one, users=USERS), now)] == [WriteBackendStatus, StartProbe]


@pytest.mark.parametrize(
    ("said", "reachable", "ready"),
    [
        (None, ("Unknown", "ProbeFailed"), ("False", "ProbeFailed")),
        (
            {"reachable": False, "error": {"code": "unauthorized", "message": "wrong key"}},
            ("False", "Refused"),
            ("False", "Refused"),
        ),
        (
            {"reachable": True, "error": {"code": "store-missing", "message": "no file"}},
            ("True", "Reachable"),
            ("True", "Reachable"),
        ),
    ],
)
def test_what_else_it_may_say(said: dict[str, Any] | None, reachable: Any, ready: Any) -> None:
    status = probed(seen(users=USERS), said).status
    assert (condition(status, "Reachable"), condition(status, "Ready")) == (reachable, ready)
    assert status.failures == (0 if ready[0] == "True" else 1)


def test_another_store_at_the_same_address_is_not_taken_for_it() -> None:
    one = probed(seen(users=USERS), SAID)
    status = probed(one, {**SAID, "identity": "store-2"}, NOW + EVERY).status
    assert status.store_identity == "store-1"
    assert condition(status, "Ready") == ("False", "IdentityChanged")


def test_the_result_of_an_earlier_probe_is_none() -> None:
    one = seen(said={"probe": "1-0", **SAID}, users=USERS)
    status = probed(one, None).status
    assert (status.reachable, condition(status, "Reachable")) == (None, ("Unknown", "ProbeFailed"))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"problem": "spec.backend: wrong"}, "InvalidSpec"),
        ({"missing": ("graph",)}, "BackendMissing"),
        ({"lacking": ("Secret graph is not there",)}, "KeyMissing"),
    ],
)
def test_what_cannot_be_probed_says_so_and_is_probed_when_it_can_be(more: dict[str, Any], reason: str) -> None:
    """Also one that was probed before, and that nothing refers to."""
    one = probed(seen(), SAID)
    write, *rest = plan(replace(one, **more))
    assert isinstance(write, WriteBackendStatus)
    assert condition(write.status, "Ready") == ("False", reason)
    assert condition(write.status, "Reachable") == ("Unknown", reason)
    assert [type(one) for one in rest] == ([WakeAt] if "lacking" in more else []), "nobody watches Secrets"
    again = probed(replace(one, status=write.status), SAID, NOW + EVERY)
    assert condition(again.status, "Ready") == ("True", "Reachable")


def test_who_names_it_is_kept_up_to_date_without_a_probe() -> None:
    one = probed(seen(), SAID)
    (write, wake) = plan(replace(one, users=USERS))
    assert isinstance(write, WriteBackendStatus)
    assert [u.name for u in write.status.users] == ["memory", "move"]
    assert wake == WakeAt(NOW + EVERY)


def test_a_status_of_a_newer_operator_and_one_that_is_deleted_are_left_alone() -> None:
    assert plan(seen(newer_status=True)) == plan(seen(deleting=True)) == []


def test_a_journal_that_is_asked_for_is_read_at_once_and_until_it_is_known() -> None:
    one = replace(probed(seen(users=USERS), SAID), asked={"memory": Ask("t1")})
    (start,) = plan(one)
    assert isinstance(start, StartProbe)
    assert start.asked == {"memory": Ask("t1")}
    failed = {"since": "t1", "error": {"code": "io", "message": "no"}}
    now = NOW + timedelta(seconds=1)
    one = probed(one, {**SAID, "journals": {"memory": failed}}, now)
    later = now + timedelta(seconds=10)
    assert due(one) == later
    one = probed(one, {**SAID, "journals": {"memory": {"since": "t1", "journal": None}}}, later)
    assert [type(a) for a in plan(one, later)] == [WakeAt], "it is known"
    asked = replace(one, asked={"memory": Ask("t2")})
    assert [type(a) for a in plan(asked, later)] == [StartProbe], "what was read before is not an answer"


# --- places


def test_no_more_probes_than_allowed_and_bindings_come_first() -> None:
    probes = Probes()
    a, b, c = (Key("backend", "ns", name) for name in "abc")
    assert probes.place(a, 1)
    probes.looked(a, probes=True, waits=False)
    for one in (b, c):
        assert not probes.place(one, 1)
        probes.looked(one, probes=False, waits=True)
    assert probes.ask(Key("binding", "ns", "memory"), {"c": Ask("t1")}) == [c]
    assert probes.ask(Key("binding", "ns", "memory"), {"c": Ask("t1")}) == [], "it was asked that before"
    assert probes.looked(a, probes=False, waits=False) == c
    assert probes.ask(Key("binding", "ns", "memory"), {}) == []
    assert not probes.asked(c)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["look", "end", "delete"])), max_size=60))
def test_a_place_is_never_lost(steps: list[tuple[int, str]]) -> None:
    probes, running = Probes(), set[Key]()
    for number, what in steps:
        key = Key("backend", "ns", str(number))
        if what == "delete":
            running.discard(key)
            probes.tell(key, "DELETED", 1, [])
            continue
        if what == "end":
            running.discard(key)
        place = probes.place(key, 2)
        if place and what == "look":
            running.add(key)
        assert len(running) <= 2
        following = probes.looked(key, probes=key in running, waits=not place)
        assert following is None or following not in running
    for key in list(running):
        probes.looked(key, probes=False, waits=False)
    assert all(probes.place(Key("backend", "ns", name), 2) for name in ("x", "y"))


def test_names_of_long_backends_fit_and_differ() -> None:
    long = [names.probe("b" * 62 + end) for end in "xy"]
    assert len(set(long)) == 2
    assert all(len(name) + len("-0") <= 63 for name in [*long, names.probe("b" * 45)])
