"""The example application as a process: switched, stopped, killed. No acknowledged write is lost."""

from __future__ import annotations

import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

from memferry.manifest.clients import expected_clients
from support.bound import LEASE_SECS, Application, World, carry, switch
from testbed import wait

SWITCHES = 20


def test_nothing_is_lost_over_twenty_switches(world: World, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        freezes = []
        for turn in range(SWITCHES):
            application.goes_on()
            source, target = "ab" if turn % 2 == 0 else "ba"
            freezes.append(switch(world, application, source, target, 1 + 3 * turn))
        application.goes_on()
    sys.stdout.write(f"write freeze: median {statistics.median(freezes):.3f} s, worst {max(freezes):.3f} s\n")
    acknowledged = application.acknowledged()
    assert len(acknowledged) > 4 * SWITCHES
    assert acknowledged <= world.ids("a"), "a serves in the end"
    assert {line["active"] for line in application.lines("written")} == {"a", "b"}
    assert not application.lines("again"), "no write waited for longer than it wanted to"


def test_a_process_that_is_stopped_for_longer_than_it_is_waited_for(world: World, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
        with application.process.stop_cont():
            world.say("a", 2, "Frozen")
            wait.until(lambda: not _expected(world), what="nobody waits for it", deadline_secs=6 * LEASE_SECS)
            carry(world, "a", "b")
            world.say("b", 3, "Frozen")
            world.say("b", 4)
        world.until_said("pod", 4, "Serving", "b")
        application.goes_on()
    assert application.acknowledged() <= world.ids("b")


def test_a_process_that_is_killed_is_waited_for_and_goes_on_in_its_next_life(world: World, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
        application.process.kill9()
        world.say("a", 2, "Frozen")
        assert _expected(world) == 1, "nobody knows yet that it is dead"
        application.process.start()
        world.until_said("pod", 2, "Frozen", "a")
        carry(world, "a", "b")
        world.say("b", 3, "Frozen")
        world.until_said("pod", 3, "Frozen", "b")
        world.say("b", 4)
        application.goes_on()
    assert application.acknowledged() <= world.ids("b")


def test_an_end_in_order_is_not_waited_for(world: World, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
    assert application.lines("closed")
    assert _expected(world) == 0


def _expected(world: World) -> int:
    lease = world.api.lease("memferry-client-memory-pod")
    return len(expected_clients({}, [], [lease] if lease else [], datetime.now(UTC)))
