"""What becomes of a MemoryBinding."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memferry.manifest import Backend
from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus, Lock
from memferry_operator.actions import AddFinalizer, FlagNewerStatus, RemoveFinalizer
from memferry_operator.binding import (
    BindingAction,
    BindingSeen,
    Journal,
    ReadJournal,
    Restart,
    Unread,
    WriteBindingStatus,
    WriteSecret,
    asked_since,
    plan_binding,
)
from memferry_operator.clients import RESTARTED_FOR, clients, restarted
from memferry_operator.observed import Client, User

NOW = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
SECRETS = {("Secret", "qdrant", "key"): "old"}
BACKENDS = {
    name: Backend.model_validate(spec)
    for name, spec in {
        "a": {"backend": "embedded", "path": "a.db", "claimName": "agents"},
        "b": {
            "backend": "qdrant",
            "address": "qdrant",
            "collection": "agents",
            "apiKey": {"secretRef": {"name": "qdrant", "key": "key"}},
        },
        "c": {"backend": "embedded", "path": "c.db"},
    }.items()
}
HOLDER = User("MemoryMigration", "move", "u1", "TrafficSwitch", ("a", "b"))


def lookup(kind: Literal["Secret", "ConfigMap"], name: str, key: str) -> str | None:
    return SECRETS.get((kind, name, key))


def seen(**more: Any) -> BindingSeen:
    spec = Binding.model_validate({"initialBackendRef": {"name": "a"}, **more.pop("spec", {})})
    told = {"finalizer": True, "backends": BACKENDS, "status": BindingStatus(), **more}
    return BindingSeen("memory", 3, spec, **told)


def settled(one: BindingSeen, now: datetime = NOW) -> tuple[BindingSeen, list[BindingAction]]:
    """Does what is asked for until nothing more is; and everything that was."""
    done: list[BindingAction] = []
    for _ in range(20):
        actions = [a for a in plan_binding(one, lookup, now) if not isinstance(a, ReadJournal)]
        if not actions:
            return one, done
        done += actions
        for action in actions:
            if isinstance(action, WriteBindingStatus):
                one = replace(one, status=action.status)
                break  # A write that changes what was observed ends the round.
            if isinstance(action, WriteSecret):
                one = replace(one, secret=action.data)
            if isinstance(action, AddFinalizer):
                one = replace(one, finalizer=True)
    raise AssertionError(f"it does not come to rest: {done[-3:]}")


def condition(status: BindingStatus, kind: str) -> tuple[str, str]:
    return next((c.status, c.reason) for c in status.conditions if c.type == kind)


def wanted(one: BindingSeen) -> list[str]:
    """The stores that are asked for their journal."""
    return [a.backend for a in plan_binding(one, lookup, NOW) if isinstance(a, ReadJournal)]


def test_a_new_binding_serves_from_its_initial_backend_when_the_store_knows_nothing_else() -> None:
    first = plan_binding(seen(finalizer=False), lookup, NOW)
    assert first == [AddFinalizer()], "before anything that leaves something behind"
    (told,) = plan_binding(seen(), lookup, NOW)
    assert isinstance(told, WriteBindingStatus)
    assert (told.status.revision, told.status.active) == (0, "")
    since = asked_since(told.status)
    assert since == "2026-01-31T22:00:00.000Z", "what a store said before is not asked for"
    asking = seen(status=told.status)
    assert [a for a in plan_binding(asking, lookup, NOW) if isinstance(a, ReadJournal)] == [ReadJournal("a", since)]
    done, actions = settled(seen(journals={"a": None}))
    assert (done.status.active, done.status.revision, done.status.mode) == ("a", 1, "Serving")
    assert done.status.binding is not None
    assert done.status.binding.name == "memferry-binding-memory"
    assert done.secret is not None
    assert (done.secret["active"], done.secret["uri"], done.secret["claim"]) == ("a", "embedded:a.db", "agents")
    kinds = [type(action) for action in actions]
    assert kinds.index(WriteBindingStatus) < kinds.index(WriteSecret), "the Secret never runs ahead"
    assert condition(done.status, "Ready") == ("True", "Serving")
    assert condition(done.status, "Switched") == ("False", "InitialBackendActive")
    assert not asked_since(done.status)


def asking(**more: Any) -> BindingSeen:
    """A binding whose status is empty, and whose stores are being asked."""
    (told,) = plan_binding(seen(), lookup, NOW)
    assert isinstance(told, WriteBindingStatus)
    return seen(status=told.status, **more)


def test_the_journals_are_followed_to_the_newest_word() -> None:
    journals: dict[str, Journal | Unread | None] = {"a": Journal("b", 4, "Serving")}
    assert wanted(asking(journals=journals)) == ["b"]
    journals["b"] = Journal("c", 7, "Serving")
    assert wanted(asking(journals=journals)) == ["c"]
    journals["c"] = Journal("c", 7, "Serving")
    done, _ = settled(seen(journals=journals))
    assert (done.status.active, done.status.revision) == ("c", 7), "not what spec.initialBackendRef says"
    assert condition(done.status, "Switched") == ("True", "OtherBackendActive")


def test_a_first_store_that_was_decommissioned_is_not_opened_again() -> None:
    """It is gone or was made anew, so that it knows nothing; the other end of the migration does."""
    journals: dict[str, Journal | Unread | None] = {"a": None}
    one = asking(journals=journals, migrations=(replace(HOLDER, phase=""),))
    assert wanted(one) == ["b"]
    done, _ = settled(replace(one, journals={**journals, "b": Journal("b", 4, "Serving")}))
    assert (done.status.active, done.status.revision) == ("b", 4)


def test_a_store_that_cannot_say_is_waited_for() -> None:
    journals = {"a": None, "b": Unread("unavailable: no route")}
    one = asking(journals=journals, migrations=(HOLDER,))
    told, ask = plan_binding(one, lookup, NOW)
    assert isinstance(told, WriteBindingStatus)
    assert (told.status.revision, ask) == (0, ReadJournal("b", asked_since(one.status)))
    reason = next(c for c in told.status.conditions if c.type == "Ready")
    assert (reason.reason, reason.message) == ("ReadingJournal", "b: unavailable: no route")
    assert asked_since(told.status) == asked_since(one.status), "the question is the same one"


def test_what_the_secret_of_an_earlier_life_says_is_no_more_than_a_hint() -> None:
    secret = {"active": "b", "revision": "4", "mode": "Serving"}
    assert wanted(asking(secret=secret, journals={"a": None})) == ["b"]
    newer = Journal("a", 5, "Serving")
    done, _ = settled(seen(secret=secret, journals={"a": newer, "b": newer}))
    assert (done.status.active, done.status.revision) == ("a", 5)


def test_a_side_that_serves_and_is_no_resource_any_more_is_not_replaced_by_another() -> None:
    journal = Journal("gone", 4, "Serving")
    (action,) = plan_binding(asking(journals={"a": journal}), lookup, NOW)
    assert isinstance(action, WriteBindingStatus)
    assert (action.status.revision, condition(action.status, "Stalled")) == (0, ("True", "BackendMissing"))


def test_a_journal_of_a_freeze_is_taken_up_as_one() -> None:
    journal = Journal("a", 5, "Frozen", "2026-01-31T22:00:10Z")
    (action,) = plan_binding(asking(journals={"a": journal}), lookup, NOW)
    assert isinstance(action, WriteBindingStatus)
    assert (action.status.mode, action.status.frozen_until) == ("Frozen", "2026-01-31T22:00:10Z")


def test_a_status_is_never_made_again() -> None:
    status = BindingStatus(active="b", revision=9)
    done, _ = settled(seen(status=status, journals={"a": Journal("a", 50, "Serving")}))
    assert (done.status.active, done.status.revision) == ("b", 9)


def test_without_its_backend_it_stalls() -> None:
    (action,) = plan_binding(seen(backends={}), lookup, NOW)
    assert isinstance(action, WriteBindingStatus)
    assert condition(action.status, "Stalled") == ("True", "BackendMissing")
    assert action.status.revision == 0


def test_credentials_rotate_into_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = settled(seen(status=BindingStatus(active="b", revision=2)))
    assert done.secret is not None
    assert done.secret["api-key"] == "old"
    monkeypatch.setitem(SECRETS, ("Secret", "qdrant", "key"), "new")
    (action,) = plan_binding(done, lookup, NOW)
    assert isinstance(action, WriteSecret)
    assert action.data["api-key"] == "new"
    assert "new" not in repr(action)
    monkeypatch.delitem(SECRETS, ("Secret", "qdrant", "key"))
    (told,) = plan_binding(done, lookup, NOW)
    assert isinstance(told, WriteBindingStatus)
    assert condition(told.status, "Stalled") == ("True", "SecretNotWritten")
    assert condition(told.status, "Ready") == ("False", "SecretNotWritten")


def test_clients_are_counted() -> None:
    said = (Client("p1", NOW, 2, "Frozen", "a"), Client("p2", NOW, 1, "Serving", "a"), Client("p3"))
    status = BindingStatus(active="a", revision=2, mode="Frozen", locked_by=Lock(uid="u1", name="move"))
    done, _ = settled(seen(status=status, clients=said, migrations=(HOLDER,)))
    assert done.status.clients is not None
    assert (done.status.clients.expected, done.status.clients.acknowledged) == (3, 1)
    assert condition(done.status, "Ready") == ("False", "Frozen")
    assert condition(done.status, "Reconciling") == ("True", "Frozen")


def test_the_lock_of_a_migration_that_is_gone_is_taken_and_its_freeze_ends_in_time() -> None:
    until = "2026-01-31T22:00:10Z"
    lock = Lock(uid="gone", name="move")
    status = BindingStatus(active="a", revision=2, mode="Frozen", frozen_until=until, locked_by=lock)
    early, _ = settled(seen(status=status))
    assert early.status.locked_by is None
    assert (early.status.mode, early.status.revision) == ("Frozen", 2)
    late, _ = settled(early, NOW + timedelta(seconds=10))
    assert (late.status.mode, late.status.active, late.status.revision) == ("Serving", "a", 3)
    assert late.status.frozen_until is None
    assert late.secret is not None
    assert late.secret["revision"] == "3"


def test_a_migration_that_holds_it_is_not_disturbed() -> None:
    status = BindingStatus(
        active="a",
        revision=2,
        mode="Frozen",
        frozen_until="2026-01-31T21:00:00Z",
        locked_by=Lock(uid="u1", name="move"),
    )
    done, _ = settled(seen(status=status, migrations=(HOLDER,)))
    assert (done.status.mode, done.status.revision) == ("Frozen", 2), "its leader returns it, with the journal"
    assert done.status.locked_by is not None


def test_one_that_has_ended_lets_go() -> None:
    status = BindingStatus(active="b", revision=4, locked_by=Lock(uid="u1", name="move"))
    done, _ = settled(seen(status=status, migrations=(replace(HOLDER, phase="Succeeded"),)))
    assert done.status.locked_by is None
    assert (done.status.active, done.status.revision) == ("b", 4)


def test_in_use_it_is_not_deleted() -> None:
    status = BindingStatus(active="a", revision=1)
    used = seen(deleting=True, status=status, migrations=(HOLDER,), clients=(Client("p1"),))
    (told,) = plan_binding(used, lookup, NOW)
    assert isinstance(told, WriteBindingStatus)
    assert condition(told.status, "Ready") == ("False", "InUse")
    assert "MemoryMigration move, client p1" in next(c.message for c in told.status.conditions if c.type == "Ready")
    ended = (replace(HOLDER, phase="Succeeded"),)
    assert plan_binding(seen(deleting=True, status=status, migrations=ended), lookup, NOW) == [RemoveFinalizer()]
    assert plan_binding(seen(deleting=True, finalizer=False), lookup, NOW) == []


def test_a_newer_status_is_left_alone() -> None:
    assert plan_binding(seen(newer_status=True, deleting=True), lookup, NOW) == [FlagNewerStatus()]


# --- workloads that are restarted


def workload(revision: int | None, **status: int) -> dict[str, Any]:
    notes = {RESTARTED_FOR: str(revision)} if revision is not None else {}
    told = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, **status}
    spec = {"replicas": 2, "template": {"metadata": {"annotations": notes}}}
    return {"metadata": {"generation": 2}, "spec": spec, "status": told}


def started(revision: int | None, phase: str = "Running") -> dict[str, Any]:
    """A pod of it."""
    notes = {RESTARTED_FOR: str(revision)} if revision is not None else {}
    return {"metadata": {"annotations": notes}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("found", "pods", "done"),
    [
        (workload(5), [started(5), started(5)], True),
        (workload(5), [started(5), started(4)], False),
        (workload(5), [started(5), started(None)], False),
        (workload(5), [started(5), started(4, "Failed")], True),
        (workload(4), [started(4)], False),
        (workload(None), [], False),
        (workload(5, observedGeneration=1), [], False),
        (workload(5, updatedReplicas=1), [], False),
        (workload(5, replicas=3), [], False),
        (workload(5, desiredNumberScheduled=1, updatedNumberScheduled=1, currentNumberScheduled=1), [], True),
        (workload(5, desiredNumberScheduled=2, updatedNumberScheduled=1, currentNumberScheduled=2), [], False),
    ],
)
def test_a_workload_counts_when_its_old_pods_are_gone(
    found: dict[str, Any], pods: list[dict[str, Any]], done: bool
) -> None:
    assert restarted(found, pods, 5) is done
    spec = Binding.model_validate({"initialBackendRef": {"name": "a"}, "restart": [{"name": "app"}]})
    status = BindingStatus(active="a", revision=5, mode="Frozen")
    key = ("Deployment", "app")
    (client,) = clients(spec, [], [], NOW, {key: found}, {key: pods}, status)
    assert ((client.revision, client.mode, client.active) == (5, "Frozen", "a")) is done


def test_workloads_are_restarted_for_the_revision_of_a_switch() -> None:
    spec = {"restart": [{"name": "app"}, {"kind": "StatefulSet", "name": "gone"}]}
    lock = Lock(uid="u1", name="move")
    status = BindingStatus(active="a", revision=5, mode="Frozen", locked_by=lock)
    found = seen(spec=spec, status=status, migrations=(HOLDER,), workloads={("Deployment", "app"): workload(4)})
    assert Restart("Deployment", "app", 5) in plan_binding(found, lookup, NOW)
    found = replace(found, workloads={("Deployment", "app"): workload(5)})
    assert not [a for a in plan_binding(found, lookup, NOW) if isinstance(a, Restart)]
    free = replace(
        found, status=status.model_copy(update={"locked_by": None}), workloads={("Deployment", "app"): workload(1)}
    )
    assert not [a for a in plan_binding(free, lookup, NOW) if isinstance(a, Restart)]


# --- whatever is there


@given(
    active=st.sampled_from(["", "a", "b", "c", "gone"]),
    revision=st.integers(0, 3),
    mode=st.sampled_from(["Serving", "Frozen"]),
    locked=st.sampled_from([None, "u1", "gone"]),
    phase=st.sampled_from(["", "TrafficSwitch", "Succeeded"]),
    journals=st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.none()
        | st.builds(Unread, st.just("unavailable: no route"))
        | st.builds(
            Journal, st.sampled_from(["a", "b", "c"]), st.integers(1, 9), st.sampled_from(["Serving", "Frozen"])
        ),
    ),
    deleting=st.booleans(),
)
def test_it_comes_to_rest_and_no_revision_ever_falls(
    active: str,
    revision: int,
    mode: Any,
    locked: str | None,
    phase: str,
    journals: dict[str, Journal | Unread | None],
    deleting: bool,
) -> None:
    lock = Lock(uid=locked, name="move") if locked else None
    status = BindingStatus(active=active, revision=revision, mode=mode, locked_by=lock)
    one = seen(status=status, migrations=(replace(HOLDER, phase=phase),), journals=journals, deleting=deleting)
    done, actions = settled(replace(one, deleting=False))
    written = [a.status for a in actions if isinstance(a, WriteBindingStatus)]
    assert [s.revision for s in written] == sorted(s.revision for s in written)
    assert done.status.revision >= revision
    if revision:
        assert done.status.active == active, "only a migration changes sides"
    if done.secret is not None:
        assert (done.secret["active"], done.secret["revision"]) == (done.status.active, str(done.status.revision))
    if deleting and not [a for a in plan_binding(one, lookup, NOW) if isinstance(a, RemoveFinalizer)]:
        assert phase != "Succeeded"
