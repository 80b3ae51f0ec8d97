"""A whole life in a real cluster: chart, image and examples as they are shipped, and an application that writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from memferry_operator import names
from support.on_node import MIGRATION, SYSTEM, Agents, Servers
from support.rights import Account, everywhere, table
from testbed.kubernetes.node_tier import NodeTier

pytestmark = [pytest.mark.node_tier, pytest.mark.node_life, pytest.mark.timeout(400)]

PHASES: Final = [
    *("Pending", "ParallelSetup", "BulkTransfer", "Validation", "TrafficSwitch", "Monitoring", "Decommission"),
    "Succeeded",
]
PAGE: Final = Path(__file__).parents[2] / "docs" / "least-privilege.md"
BEGIN, END = "<!-- rights -->\n", "<!-- end rights -->"


@dataclass
class Lived:
    """What a life left.

    Attributes:
        agents: The application and what is around it.
        status: Of the migration in the end.
        written: Every write that the application was told of.
        operator: Its service account, as all others while the migration was there.
        worker: Of the migration.
        probes: Of the MemoryBackends.
        application: The one of the example.
    """

    agents: Agents
    status: dict[str, Any]
    written: list[dict[str, Any]]
    operator: Account
    worker: Account
    probes: list[Account]
    application: Account


@pytest.fixture(scope="module")
def lived(node: NodeTier, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    """An Offline migration to its end: a worker replaced, the source deleted, and then it itself."""
    servers.neo4j.wipe()
    with Agents.started(node, servers, tmp_path_factory.mktemp("life")) as agents:
        transfer = {"shards": 2, "parallelism": 2, "maxRecordsPerSecond": 40, "stallTimeout": "10s"}
        agents.migrate(
            strategy="Offline",
            transfer=agents.migration["spec"].get("transfer", {}) | transfer,
            monitoring={"duration": "10s", "interval": "2s"},
            decommission={"policy": "Delete"},
        )
        agents.until("BulkTransfer")
        agents.stall_worker("transfer")
        agents.approve()
        agents.wait_for_write("agents-hybrid")
        agents.approve("decommission", "confirm", phase="Decommission")
        status = agents.until("Succeeded")
        written = agents.stop_application()
        operator, worker, application, *probes = (
            Account(node, SYSTEM, "memferry"),
            Account(node, agents.namespace, f"memferry-worker-{MIGRATION}"),
            Account(node, agents.namespace, "agents"),
            *(Account(node, agents.namespace, names.probe(one)) for one in agents.backends),
        )
        agents.client.delete("MemoryMigration", MIGRATION, namespace=agents.namespace)
        agents.client.until_gone("MemoryMigration", MIGRATION, namespace=agents.namespace)
        for account in (operator, worker, application, *probes):
            account.read_log()
        yield Lived(agents, status, written, operator, worker, probes, application)


def test_no_write_is_lost(lived: Lived, record_property: Callable[[str, object], None]) -> None:
    record_property("acknowledged writes", len(lived.written))
    record_property("write freeze millis", lived.status["traffic"]["writeFreezeMillis"])
    assert not lived.agents.lost(lived.written)
    assert {one["active"] for one in lived.written} == {"agents-embedded", "agents-hybrid"}


def test_everything_else_arrived_too(lived: Lived) -> None:
    assert [one["phase"] for one in lived.status["history"]] == PHASES, json.dumps(lived.status["history"])
    assert lived.status["attempt"] == 1
    assert lived.status["shards"]["succeeded"] == 2
    assert lived.status["shards"]["replaced"] >= 1
    memories = {one["id"] for one in lived.agents.seed if one["kind"] == "memory"}
    assert memories <= set(lived.agents.servers.notes())
    points = lived.agents.servers.points(lived.agents.collection)
    assert points == sum("vectors" in one for one in lived.agents.seed)


def test_rights_are_those_that_were_used(lived: Lived) -> None:
    given = [lived.worker, *lived.probes]
    for account in (lived.operator, lived.application, *given):
        assert account.granted, account.name
        assert not account.refused, account.name
        assert not account.unused(given if account is lived.operator else ()), account.name
    shown = {
        "operator": lived.operator,
        "workers": lived.worker,
        "probes": lived.probes[0],
        "application": lived.application,
    }
    namespace = lived.agents.namespace
    found = table(shown, {everywhere: "served namespaces", SYSTEM: "its own namespace", namespace: "its namespace"})
    assert PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0] == found, found
