"""Servers that die, connections that break, answers that say no, lines that are slow: whole runs of the command."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from faults.conftest import MakeEnds
from faults.ends import Ends
from faults.running import final, run, running
from support.documents import Document, write_jsonl
from support.killing import Ended
from testbed import wait
from testbed.neo4j import Neo4jServer
from testbed.proxy import Direction, FaultyProxy
from testbed.qdrant import QdrantServer

MakeProxy = Callable[[int], FaultyProxy]
PLACES = ["plan:2", "written:2", "booked:3", "before-finish", "verify:2"]


def server_of(request: pytest.FixtureRequest, backend: str) -> QdrantServer | Neo4jServer:
    server: QdrantServer | Neo4jServer = request.getfixturevalue(
        {"qdrant": "own_qdrant", "neo4j": "neo4j_server"}[backend]
    )
    return server


def behind(ends: Ends, line: FaultyProxy, port: int) -> Ends:
    """The same stores, those on `port` by way of the proxy, and one identity for both addresses."""

    def at(url: str) -> str:
        if f":{port}" not in url:
            return url
        sign = "&" if "?" in url else "?"
        return f"{url.replace(f':{port}', f':{line.port}')}{sign}identity=behind"

    return ends.through(source=at(ends.source), target=at(ends.target))


# -- killed and started again


@pytest.mark.parametrize("place", PLACES)
def test_qdrant_is_killed_and_comes_back(place: str, make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    """One run, no second command: it waits for the server."""
    ends = make_ends("qdrant")
    with running(*ends.migrate, pause=place, **ends.secrets) as one:
        one.paused()
        own_qdrant.kill9()
        one.go()
        own_qdrant.start()
        ends.arrived(one.ended())


@pytest.mark.parametrize("place", ["deleted:1", "restored:1"])
def test_a_rollback_waits_for_a_server_that_comes_back(
    place: str, make_ends: MakeEnds, own_qdrant: QdrantServer, tmp_path: Path
) -> None:
    ends = make_ends("qdrant")
    if place.startswith("restored"):
        theirs: list[Document] = [{**record, "tags": ["theirs"]} for record in ends.records]
        other = replace(ends, source=str(write_jsonl(tmp_path / "theirs.jsonl", theirs)), records=theirs)
        other.arrived(run(*other.migrate, **other.secrets))
    migrated = ends.arrived(run(*ends.migrate, "--on-existing", "overwrite", **ends.secrets))
    rollback = ["rollback", ends.target, "--migration", migrated["migration"], "--json"]
    with running(*rollback, pause=place, **ends.secrets) as one:
        one.paused()
        own_qdrant.kill9()
        one.go()
        own_qdrant.start()
        told = final(one.ended(), "rolled_back", 0)
    done = told["restored" if place.startswith("restored") else "deleted"]
    assert (done, told["kept"]) == (len(ends.records), [])
    assert final(run(*rollback, **ends.secrets), "rolled_back", 0)["deleted"] == 0


@pytest.mark.parametrize("place", ["plan:2", "written:3", "verify:2"])
def test_a_source_is_killed_and_comes_back(place: str, stored_in_qdrant: Ends, own_qdrant: QdrantServer) -> None:
    with running(*stored_in_qdrant.migrate, pause=place, **stored_in_qdrant.secrets) as one:
        one.paused()
        own_qdrant.kill9()
        one.go()
        own_qdrant.start()
        stored_in_qdrant.arrived(one.ended())


@pytest.mark.ends_neo4j
@pytest.mark.timeout(500)
@pytest.mark.parametrize("place", ["written:4", "booked:9"])
def test_neo4j_is_killed_and_comes_back(place: str, make_ends: MakeEnds, neo4j_server: Neo4jServer) -> None:
    ends = make_ends("neo4j")
    # A busy machine takes its time to start Java, longer than a run waits by itself.
    with running(*ends.migrate, pause=place, TEST_RETRY_SECS="300", **ends.secrets) as one:
        one.paused()
        neo4j_server.kill9()
        one.go()
        neo4j_server.start()
        ends.arrived(one.ended(300.0))


@pytest.mark.parametrize("place", ["planned", "written:2", "verify:2"])
def test_qdrant_stays_away_and_the_same_command_resumes(
    place: str, make_ends: MakeEnds, own_qdrant: QdrantServer
) -> None:
    ends = make_ends("qdrant")
    with running(*ends.migrate, pause=place, TEST_RETRY_SECS="1", **ends.secrets) as one:
        one.paused()
        own_qdrant.kill9()
        one.go()
        told = final(one.ended(), "failed", 3)
    assert told["error"]["code"] == "unavailable"
    own_qdrant.start()
    assert ends.finish()["resumed"] is True


def test_a_server_that_was_never_there(make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    ends = make_ends("qdrant")
    own_qdrant.kill9()
    told = final(run(*ends.migrate, TEST_RETRY_SECS="1", **ends.secrets), "failed", 3)
    assert told["error"]["code"] == "unavailable"
    own_qdrant.start()
    ends.finish()


# -- connections that break


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.value)
@pytest.mark.parametrize("backend", ["qdrant", "neo4j"])
def test_connections_are_reset_again_and_again(
    backend: str, direction: Direction, make_ends: MakeEnds, request: pytest.FixtureRequest, proxy: MakeProxy
) -> None:
    """Mid-batch and mid-response: after so many bytes, wherever that is, until the run is through."""
    ends, server = make_ends(backend), server_of(request, backend)
    line = proxy(server.port)
    there = behind(ends, line, server.port)
    resets = line.reset_after_each((4_000, 11_000, 7_000, 23_000, 17_000, 41_000), direction=direction)
    with running(*there.migrate, **ends.secrets) as one:
        ended = one.ended()
    line.resume()
    happened, told = sum(reset.fired for reset in resets), there.arrived(ended)
    assert happened >= 2, (happened, told)


@pytest.mark.parametrize("direction", Direction, ids=lambda direction: direction.value)
def test_connections_to_a_source_are_reset(
    direction: Direction, stored_in_qdrant: Ends, own_qdrant: QdrantServer, proxy: MakeProxy
) -> None:
    line = proxy(own_qdrant.port)
    there = behind(stored_in_qdrant, line, own_qdrant.port)
    sizes = (20_000, 31_000, 9_000) if direction is Direction.TO_CLIENT else (1_000, 1_700, 600)
    resets = line.reset_after_each(sizes, direction=direction)
    with running(*there.migrate, **there.secrets) as one:
        ended = one.ended()
    line.resume()
    there.arrived(ended)
    assert sum(reset.fired for reset in resets) >= 2


# -- answers that say no


@pytest.mark.parametrize(
    ("fault", "ledger"),
    [("refuse", False), ("exhaust", True), ("reset_before", False), ("reset_after", False), ("reset_after", True)],
)
def test_qdrant_says_no_for_a_while(fault: str, ledger: bool, make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    ends = make_ends("qdrant")
    collection = "faults0_memferry_ledger" if ledger else "faults0"
    with running(*ends.migrate, pause="prepared", **ends.secrets) as one:
        one.paused()
        for skip in (0, 2, 5):
            getattr(own_qdrant.faults, fault)(count=2, skip=skip, collection=collection)
        one.go()
        ends.arrived(one.ended())
    assert own_qdrant.faults.struck == 6


def test_the_wait_that_qdrant_asks_for_is_kept(make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    ends = make_ends("qdrant")
    with running(*ends.migrate, pause="prepared", **ends.secrets) as one:
        one.paused()
        own_qdrant.faults.exhaust(retry_after_secs=3, count=1, collection="faults0")
        one.go()
        ended = one.ended()
    ends.arrived(ended)
    assert own_qdrant.faults.struck == 1
    assert ended.secs >= 3.0


def test_qdrant_says_no_for_ever(make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    ends = make_ends("qdrant")
    own_qdrant.faults.exhaust(retry_after_secs=1, count=None, skip=5, collection="faults0")
    told = final(run(*ends.migrate, TEST_RETRY_SECS="2", **ends.secrets), "failed", 3)
    assert told["error"]["code"] == "throttled"
    own_qdrant.faults.clear()
    assert ends.finish()["resumed"] is True


# -- slow


def test_a_slow_target_keeps_its_lock(make_ends: MakeEnds, own_qdrant: QdrantServer, proxy: MakeProxy) -> None:
    """Slower than the lease is long: nobody takes it over, and it is proven without a second command."""
    ends, line = make_ends("qdrant"), proxy(own_qdrant.port)
    there = behind(ends, line, own_qdrant.port)
    lease_secs = 1.5
    lease = {"TEST_LEASE_SECS": str(lease_secs), "TEST_RETRY_SECS": "1"}
    with running(*there.migrate, pause="planned", **lease, **ends.secrets) as one:
        one.paused()
        line.throttle(20_000)
        one.go()
        begun, refused = time.monotonic(), 0
        while time.monotonic() < begun + 2 * lease_secs:
            other = run(*there.migrate, TEST_HOST="elsewhere", **lease, **ends.secrets)
            assert not one.is_over, "the line is too fast for this test"
            assert final(other, "refused", 2)["error"]["code"] == "busy"
            refused += 1
        assert refused >= 2
        line.resume()
        there.arrived(one.ended())


def test_a_dead_line_comes_back(make_ends: MakeEnds, own_qdrant: QdrantServer, proxy: MakeProxy) -> None:
    """Nothing goes through and nothing is closed, as when a network is gone; then the connection is given up."""
    ends, line = make_ends("qdrant"), proxy(own_qdrant.port)
    there = behind(ends, line, own_qdrant.port)
    with running(*there.migrate, pause="committed:4", **ends.secrets) as one:
        one.paused()
        line.stall()
        one.go()
        with pytest.raises(AssertionError, match="not over"):
            one.ended(1.0)
        line.cut()
        line.resume()
        there.arrived(one.ended())


@pytest.mark.parametrize("backend", ["embedded", "jsonl", "qdrant"])
def test_the_lock_is_kept_while_everything_is_compared(backend: str, make_ends: MakeEnds) -> None:
    ends = make_ends(backend)
    with running(*ends.migrate, pause="verify:2", TEST_HOST="far", TEST_LEASE_SECS="1", **ends.secrets) as one:
        one.paused()
        for _ in range(3):  # Each of them takes a good part of the lease to start.
            assert final(run(*ends.migrate, **ends.secrets), "refused", 2)["error"]["code"] == "busy"
        one.go()
        ends.arrived(one.ended())


@pytest.mark.parametrize("place", ["committed:4", "verify:2"])
@pytest.mark.parametrize("backend", ["embedded", "jsonl", "qdrant"])
def test_a_late_run_of_a_lost_host_is_fenced(backend: str, place: str, make_ends: MakeEnds) -> None:
    """Its host stands still and another takes over; when it goes on again it stops, and has harmed nothing."""
    ends = make_ends(backend)
    alone = [*ends.migrate, "--parallelism", "1"]
    with running(*alone, pause=place, TEST_HOST="lost", TEST_LEASE_SECS="1", **ends.secrets) as late:
        late.paused()
        late.signal(signal.SIGSTOP)

        def taken_over() -> Ended | None:
            ended = run(*alone, **ends.secrets)
            return None if ended.code == 2 else ended

        told = ends.arrived(wait.until(taken_over, what="the lease to end"))
        assert told["resumed"] is True
        late.signal(signal.SIGCONT)
        late.go()
        assert final(late.ended(), "failed", 3)["error"]["code"] == "fenced"
    ends.check()
    ends.finish()
