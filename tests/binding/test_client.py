"""A client in this process, against a small API server: freeze, flip, other processes, new credentials."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memferry import Record, RefusedError, StoreError, TransientError
from memferry.binding import BoundStore, FrozenError, InDoubtError, LeaseLostError, connect
from memferry.binding.projection import Projection
from support.bound import LEASE_SECS, World
from support.fake_api import kubeconfig, projection
from testbed import wait
from testbed.proxy import FaultyProxy

Connect = Callable[..., BoundStore]
NOTHING = (0, "", "")


def note(identity: str) -> Record:
    return Record("memory", identity, content=f"note {identity}")


def test_it_is_a_store_like_any_other(world: World, client: Connect) -> None:
    memory = client()
    assert memory.put([note("1"), note("2"), note("3")]) == 3
    assert memory.get("memory", "1") == note("1")
    assert memory.get_many([("memory", "2"), ("memory", "9")]) == [note("2"), None]
    assert [hit.record.id for hit in memory.search("note 3")] == ["3"]
    assert memory.delete("memory", "1")
    assert memory.delete_many([("memory", "2")]) == 1
    assert [record.id for record in memory.list(kind="memory")] == ["3"]
    assert memory.capabilities().backend == "embedded"
    assert memory.wait_indexed()
    standing = memory.standing()
    assert (standing.active, standing.revision, standing.mode, standing.writable) == ("a", 1, "Serving", True)
    assert not standing.problems


def test_it_says_what_it_is(world: World, client: Connect) -> None:
    client()
    world.until_said("pod", 1, "Serving", "a")
    lease = world.api.lease("memferry-client-memory-pod")
    assert lease is not None
    assert lease["metadata"]["labels"]["memferry.dev/binding"] == "memory"
    assert lease["spec"]["holderIdentity"] == "pod"
    assert lease["spec"]["leaseDurationSeconds"] == LEASE_SECS
    assert len(lease["spec"]["renewTime"]) == len("2026-01-01T00:00:00.000000Z")


def test_a_switch(world: World, client: Connect) -> None:
    memory = client()
    memory.put(note("1"))
    world.say("a", 2, "Frozen", frozenUntil="2026-01-01T00:00:30Z")
    world.until_said("pod", 2, "Frozen", "a")
    with pytest.raises(FrozenError, match="revision 2, until 2026-01-01T00:00:30Z"):
        memory.put(note("2"))
    assert memory.get("memory", "1") == note("1"), "reads go on"
    world.say("b", 3, "Frozen")
    world.until_said("pod", 3, "Frozen", "b")
    assert memory.get("memory", "1") is None, "reads are of the new side"
    world.say("b", 4)
    world.until_said("pod", 4, "Serving", "b")
    memory.put(note("3"))
    assert (world.ids("a"), world.ids("b")) == ({"1"}, {"3"})


def test_a_write_waits_for_the_end_of_a_freeze(world: World, client: Connect) -> None:
    memory = client(freeze_wait_secs=20)
    world.say("a", 2, "Frozen")
    world.until_said("pod", 2, "Frozen", "a")
    done = threading.Event()

    def write() -> None:
        memory.put(note("1"))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not done.wait(0.2)
    world.say("a", 3)
    writer.join(20)
    assert done.is_set()
    assert world.ids("a") == {"1"}


def test_what_is_in_flight_ends_before_the_freeze_is_acknowledged(world: World, client: Connect) -> None:
    memory = client()
    begun = memory.try_begin()
    assert isinstance(begun, tuple)
    world.say("a", 2, "Frozen")
    wait.until(lambda: memory.standing().mode == "Frozen", what="it knows")
    assert memory.standing().in_flight == 1
    assert world.said("pod") != (2, "Frozen", "a")
    with memory.finishing(*begun) as store:
        store.put(note("1"))
    world.until_said("pod", 2, "Frozen", "a")
    assert world.ids("a") == {"1"}


def test_a_listing_ends_in_the_store_it_began_in(world: World, client: Connect) -> None:
    memory = client()
    memory.put([note(str(n)) for n in range(10)])
    pages = memory.pages(kind="memory", size=3)
    seen = [record.id for record in next(pages).records]
    world.say("b", 2)
    world.until_said("pod", 2, "Serving", "b")
    seen += [record.id for page in pages for record in page.records]
    assert sorted(seen, key=int) == [str(n) for n in range(10)]


def test_a_client_that_starts_in_a_freeze_reads_and_does_not_write(world: World, client: Connect) -> None:
    world.say("a", 2, "Frozen")
    memory = client()
    assert memory.get("memory", "1") is None
    with pytest.raises(FrozenError):
        memory.put(note("1"))
    world.until_said("pod", 2, "Frozen", "a")


def test_a_store_that_cannot_be_opened_is_told_and_not_acknowledged(world: World, client: Connect) -> None:
    memory = client()
    world.stores["b"] = world.folder / "missing" / "b.db"
    world.say("b", 2, "Frozen")
    lease = "memferry-client-memory-pod"
    wait.until(
        lambda: (world.api.lease(lease) or {})["metadata"]["annotations"]["memferry.dev/problem"] == "store-missing",
        what="the problem is told",
    )
    assert world.said("pod") == NOTHING
    assert memory.standing().problems == {"store": "store-missing"}
    world.say("a", 3)
    world.until_said("pod", 3, "Serving", "a")
    memory.put(note("1"))


def test_a_status_that_is_wiped_or_older_changes_nothing(world: World, client: Connect) -> None:
    world.say("b", 7)
    memory = client()
    world.api.binding("memory")
    world.say("a", 1)
    world.api.secret("memferry-binding-memory", active="b")
    memory.put(note("1"))
    assert world.ids("b") == {"1"}


def test_failures_of_the_store_are_counted_until_the_next_revision(
    world: World, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = client()

    def fail(*_: object, **__: object) -> None:
        raise StoreError("io", "no disk")

    monkeypatch.setattr("memferry.backends.embedded.access.EmbeddedAccess.put", fail)
    for _ in range(2):
        with pytest.raises(StoreError, match="no disk"):
            memory.put(note("1"))
    assert memory.standing().errors == 2
    lease = "memferry-client-memory-pod"
    wait.until(
        lambda: (world.api.lease(lease) or {})["metadata"]["annotations"]["memferry.dev/errors"] == "2",
        what="they are told",
    )
    world.say("b", 2)
    world.until_said("pod", 2, "Serving", "b")
    assert memory.standing().errors == 0


def test_two_processes_of_a_pod_need_names(world: World, client: Connect) -> None:
    client()
    with pytest.raises(TransientError, match="client=NAME"):
        client(wait_secs=1)
    client(client="second").put(note("1"))
    world.until_said("pod.second", 1, "Serving", "a")


def test_a_process_whose_place_is_taken_writes_no_more(world: World, client: Connect) -> None:
    memory = client()
    lease = world.api.lease("memferry-client-memory-pod")
    assert lease is not None
    lease["metadata"]["annotations"]["memferry.dev/process"] = "another"
    world.api.put("/apis/coordination.k8s.io/v1/namespaces/default/leases/memferry-client-memory-pod", lease)
    wait.until(lambda: memory.standing().reason == "fenced", what="it is fenced")
    with pytest.raises(StoreError) as raised:
        memory.put(note("1"))
    assert raised.value.code == "fenced"


LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/memferry-client-memory-pod"


def test_a_write_is_in_doubt_when_the_lease_is_deleted_under_it(world: World, client: Connect) -> None:
    memory = client(freeze_wait_secs=20)
    begun = memory.try_begin()
    assert isinstance(begun, tuple)
    del world.api.objects[LEASE]  # No switch waits for it from now on.
    wait.until(lambda: world.api.lease("memferry-client-memory-pod"), what="it is made again")
    with pytest.raises(InDoubtError), memory.finishing(*begun) as store:
        store.put(note("1"))
    wait.until(lambda: memory.standing().writable, what="it goes on")
    memory.put(note("2"))


def test_a_client_whose_lease_is_taken_each_time_stops(world: World, client: Connect) -> None:
    """The pod was deleted by force: its process runs on, and every Lease it makes goes with the pod."""
    memory = client()
    ended = threading.Event()

    def take() -> None:
        while not ended.wait(0.005):
            with world.api.changed:
                world.api.objects.pop(LEASE, None)

    taker = threading.Thread(target=take)
    taker.start()
    try:
        wait.until(lambda: memory.standing().reason == "lease-lost", what="it finds that its Lease is gone")
        ends = time.monotonic() + LEASE_SECS
        while time.monotonic() < ends:
            assert not memory.standing().writable
            time.sleep(0.01)
        with pytest.raises(LeaseLostError):
            memory.put(note("1"))
    finally:
        ended.set()
        taker.join()
    wait.until(lambda: memory.standing().writable, what="it goes on with a Lease that stays")


def test_a_place_that_was_given_back_is_taken_at_once(world: World, client: Connect) -> None:
    with connect("memory", pod="pod", kubeconfig=world.kubeconfig, lease_secs=60) as first:
        first.put(note("1"))
    lease = world.api.lease("memferry-client-memory-pod")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""
    with pytest.raises(RefusedError, match="closed"):
        first.put(note("2"))
    client(lease_secs=60).put(note("2"))
    assert world.ids("a") == {"1", "2"}


def test_after_a_fork_the_child_is_told(world: World, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = client()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RefusedError, match="forked"):
        memory.put(note("1"))
    monkeypatch.undo()


def scratch_folders(folder: Path) -> list[Path]:
    return list(folder.glob("memferry-binding-*"))


def test_a_child_that_ends_leaves_the_parents_files(
    world: World, client: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory = client()
    child = os.fork()
    if child == 0:
        memory._link._clean()  # As at the end of the interpreter; what else stands there is of the tests.
        os._exit(0)
    os.waitpid(child, 0)
    assert scratch_folders(tmp_path)
    memory.close()
    assert not scratch_folders(tmp_path)


def test_a_certificate_is_written_where_the_folder_was_cleaned_up(tmp_path: Path) -> None:
    told = {"uri": "qdrant://localhost:6334/agents", "certificates": "PEM"}
    url = Projection(told).store(tmp_path, tmp_path / "gone")
    assert url.secrets.ca_file is not None
    assert url.secrets.ca_file.read_text("utf-8") == "PEM"


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), ValueError("s3cret")])
def test_whatever_fails_is_told_and_tried_again(
    world: World, client: Connect, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    memory = client()

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("memferry.binding.link.open_store", fail)
        world.say("b", 2)
        wait.until(lambda: "store" in memory.standing().problems, what="it is told")
        with pytest.raises(TransientError, match=type(error).__name__) as raised:
            memory.put(note("1"))
        assert "s3cret" not in str(raised.value)
        patch.setattr("memferry.binding.link.binding_path", fail)
        patch.setattr("memferry.binding.link._seen", fail)
        patch.setattr("memferry.binding.lease.lease_path", fail)
        world.say("b", 3)
        wait.until(lambda: set(memory.standing().problems) == {"store", "lease", "watch"}, what="all of it is told")
    world.until_said("pod", 3, "Serving", "b")
    memory.put(note("1"))
    assert world.ids("b") == {"1"}


def test_without_the_cluster_it_stops_by_itself_and_comes_back(
    world: World, client: Connect, proxy: Callable[[int], FaultyProxy], tmp_path: Path
) -> None:
    between = proxy(world.api.port)
    memory = client(kubeconfig=kubeconfig(tmp_path, int(between.address.rpartition(":")[2])))
    memory.put(note("1"))
    between.stall()
    wait.until(lambda: memory.standing().reason == "lease-lost", what="its Lease runs out")
    with pytest.raises(LeaseLostError):
        memory.put(note("2"))
    assert memory.get("memory", "1") == note("1"), "reads go on"
    world.say("b", 2)
    between.resume()
    world.until_said("pod", 2, "Serving", "b")
    # The API server may have it and the client not know: the answer went to a request that it had given up.
    wait.until(lambda: memory.standing().writable, what="a Lease that it knows it holds")
    memory.put(note("3"))
    assert (world.ids("a"), world.ids("b")) == ({"1"}, {"3"})


@pytest.mark.parametrize(
    ("chosen", "code"), [({"lease_secs": 1}, "invalid"), ({"kubeconfig": "/nonexistent"}, "cluster")]
)
def test_what_cannot_be_is_refused(world: World, client: Connect, chosen: dict[str, object], code: str) -> None:
    with pytest.raises(RefusedError) as raised:
        client(**chosen)
    assert raised.value.code == code


def test_no_binding_is_said(world: World) -> None:
    with pytest.raises(TransientError) as raised:
        connect("other", pod="pod", kubeconfig=world.kubeconfig, lease_secs=LEASE_SECS, wait_secs=0.5)
    assert raised.value.code == "binding"
    assert "other" in str(raised.value)


def test_new_credentials_are_taken_when_the_store_refuses_the_old_ones(
    world: World, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = client()
    assert world.ids("b") == set()

    def refuse(*_: object, **__: object) -> None:
        raise RefusedError("unauthorized", "who are you")

    with monkeypatch.context() as patch:
        patch.setattr("memferry.backends.embedded.access.EmbeddedAccess.put", refuse)
        told = projection("a", world.stores["a"]) | {"password": "new", "uri": f"embedded:{world.stores['b']}"}
        world.api.secret("memferry-binding-memory", **told)
        with pytest.raises(RefusedError):
            memory.put(note("1"))
    wait.until(
        lambda: memory.put(note("1")) and "1" in world.ids("b"),
        what="the store is opened anew",
    )
    assert memory.standing().revision == 1
