"""Clients of a MemoryBinding in a real API server, with the rights of `examples/cluster/application.yaml`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from memferry.cli.main import app
from memferry.phases.journal import Entry, read_journal
from memferry.urls import parse_url
from support.bound import Application, carry, switch
from support.bound_cluster import ClusterWorld
from support.operating import resource
from testbed import wait
from testbed.kubernetes.api_tier import ApiTier

SWITCHES = 20
ROLE = Path(__file__).parents[2] / "examples" / "cluster" / "application.yaml"


@pytest.fixture
def world(api_tier: ApiTier, kubernetes_namespace: str, tmp_path: Path) -> ClusterWorld:
    """A binding that serves from `a`."""
    return ClusterWorld(api_tier, kubernetes_namespace, tmp_path)


def test_nothing_is_lost_over_twenty_switches_and_no_right_is_missing_or_unused(
    world: ClusterWorld, tmp_path: Path
) -> None:
    with Application(world, tmp_path) as application:
        freezes = []
        for turn in range(SWITCHES):
            application.goes_on()
            source, target = "ab" if turn % 2 == 0 else "ba"
            freezes.append(switch(world, application, source, target, 1 + 3 * turn))
        application.goes_on()
        shown = CliRunner().invoke(
            app,
            [
                "binding",
                "status",
                world.binding,
                "-n",
                world.namespace,
                "--kubeconfig",
                str(world.tier.kubeconfig),
                "--json",
            ],
        )
    told = json.loads(shown.stdout)
    assert (told["active"], told["revision"], told["mode"]) == ("a", 1 + 3 * SWITCHES, "Serving")
    assert [(c["pod"], c["acknowledged"]) for c in told["clients"]] == [("pod", True)]
    lost = application.acknowledged() - world.ids("a")
    sys.stdout.write(
        f"{SWITCHES} switches, {len(application.acknowledged())} acknowledged writes, {len(lost)} lost; write freeze: "
        f"median {statistics.median(freezes):.3f} s, worst {max(freezes):.3f} s\n"
    )
    assert not lost
    assert not application.lines("again"), "no write waited for longer than it wanted to"
    role = next(one for one in yaml.safe_load_all(ROLE.read_text("utf-8")) if one["kind"] == "Role")
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert world.verbs() == granted


def test_the_api_server_is_away_for_a_while(world: ClusterWorld, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
        with world.tier.outage():
            wait.until(
                lambda: any(line["code"] == "lease-lost" for line in application.lines("again")),
                what="it stops by itself",
            )
        application.goes_on()
        switch(world, application, "a", "b", 1)
        application.goes_on()
    assert application.acknowledged() <= world.ids("b")


def test_a_freeze_is_ended_by_hand(world: ClusterWorld, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
        spec = {"backend": "embedded", "path": str(world.stores["a"])}
        world.tier.client.apply(resource("MemoryBackend", "a", spec), namespace=world.namespace)
        world.say("a", 2, "Frozen", frozenUntil="2030-01-01T00:00:00Z")
        world.until_said("pod", 2, "Frozen", "a")
        written = len(application.lines("written"))
        place = ["-n", world.namespace, "--kubeconfig", str(world.tier.kubeconfig)]
        done = CliRunner().invoke(app, ["binding", "unfreeze", world.binding, *place, "--json"])
        assert done.exit_code == 0, done.output
        world.until_said("pod", 3, "Serving", "a")
        application.goes_on()
    assert json.loads(done.stdout)["after"]["revision"] == 3
    assert len(application.lines("written")) > written
    assert read_journal(parse_url(str(world.stores["a"])), world.binding) == Entry(3, "Serving", "a")
    assert application.acknowledged() <= world.ids("a")


def test_a_client_that_is_stopped_in_the_freeze_holds_it_up(world: ClusterWorld, tmp_path: Path) -> None:
    with Application(world, tmp_path) as application:
        application.goes_on()
        with application.process.stop_cont():
            world.say("a", 2, "Frozen")
            lease = world.lease("pod")
            assert lease is not None
            assert lease["metadata"]["annotations"].get("memferry.dev/revision") != "2"
            world.say("a", 3)
        application.goes_on()
        carry(world, "a", "b")
    assert application.acknowledged() <= world.ids("a")
