"""SIGTERM and Ctrl-C: the page at hand is finished, the run is saved, and the person is told how to go on."""

from __future__ import annotations

import signal

import pytest

from faults.conftest import MakeEnds
from faults.running import Running, final, running
from support.killing import Ended
from testbed import wait
from testbed.qdrant import QdrantServer

SIGNALS = [signal.SIGTERM, signal.SIGINT]


def interrupted(ended: Ended) -> None:
    told = final(ended, "interrupted", 130)
    assert told["error"]["code"] == "interrupted"
    assert "finishing the page at hand" in ended.err
    assert "hint: the same command resumes" in ended.err
    assert "Traceback" not in ended.err


def ask(one: Running, number: signal.Signals) -> None:
    """Sends a signal and waits until the process has heard it."""
    one.signal(number)
    wait.until(lambda: f"{number.name}: finishing" in one.told(), what="an answer")


@pytest.mark.parametrize(
    ("backend", "place", "number"),
    [
        ("embedded", "plan:3", signal.SIGTERM),
        ("embedded", "written:3", signal.SIGINT),
        ("embedded", "verify:3", signal.SIGTERM),
        ("jsonl", "committed:4", signal.SIGTERM),
        ("jsonl", "before-finish", signal.SIGINT),
        ("qdrant", "written:3", signal.SIGTERM),
        ("qdrant", "booked:4", signal.SIGINT),
        ("neo4j", "committed:3", signal.SIGTERM),
    ],
)
def test_a_signal_ends_after_the_page(backend: str, place: str, number: signal.Signals, make_ends: MakeEnds) -> None:
    ends = make_ends(backend)
    with running(*ends.migrate, pause=place, **ends.secrets) as one:
        one.paused()
        ask(one, number)
        one.go()
        interrupted(one.ended())
    told = ends.finish()
    assert told["resumed"] is (not place.startswith("plan"))


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_at_once(number: signal.Signals, make_ends: MakeEnds) -> None:
    """Whoever sends it again and again does not have to wait for the page."""
    ends = make_ends("embedded")
    with running(*ends.migrate, pause="written:3") as one:
        one.paused()
        ask(one, number)

        def again() -> bool:
            one.signal(number)
            return one.is_over

        wait.until(again, what="its end")
        assert one.ended().code == -number
    ends.finish()


def test_a_signal_that_comes_twice_at_the_same_time_is_one(make_ends: MakeEnds) -> None:
    """A supervisor signals the process, and then the group it is in."""
    ends = make_ends("embedded")
    with running(*ends.migrate, pause="written:3") as one:
        one.paused()
        one.signal(signal.SIGTERM)
        ask(one, signal.SIGTERM)
        one.go()
        interrupted(one.ended())
    ends.finish()


@pytest.mark.parametrize("place", ["plan:2", "committed:3", "verify:2"])
def test_a_signal_ends_the_waiting_for_a_server(place: str, make_ends: MakeEnds, own_qdrant: QdrantServer) -> None:
    """Two minutes of trying again would be longer than any supervisor waits."""
    ends = make_ends("qdrant")
    with running(*ends.migrate, pause=place, **ends.secrets) as one:
        one.paused()
        own_qdrant.kill9()
        one.go()
        wait.until(lambda: "trying again in" in one.told(), what="a try")
        ask(one, signal.SIGTERM)
        interrupted(one.ended(25.0))
    own_qdrant.start()
    ends.finish()
