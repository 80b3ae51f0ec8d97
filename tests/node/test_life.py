"""A whole life in a real cluster: chart, image and examples as they are shipped, and an application that writes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from support.on_node import Agents

pytestmark = [
    pytest.mark.node_tier,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]

PHASES = [
    "Pending",
    "ParallelSetup",
    "BulkTransfer",
    "Validation",
    "TrafficSwitch",
    "Monitoring",
    "Decommission",
    "Succeeded",
]


@pytest.mark.node_life
def test_offline_life_loses_no_write(agents: Agents, record_property: Callable[[str, object], None]) -> None:
    agents.change("transfer", shards=2, parallelism=2)
    agents.migrate(
        strategy="Offline",
        monitoring={"duration": "10s", "interval": "2s"},
        decommission={"policy": "Delete"},
    )
    agents.approve()
    agents.wait_for_write("agents-hybrid")
    agents.approve("decommission", "confirm", phase="Decommission")
    status = agents.until("Succeeded")
    written = agents.stop_application()
    found = agents.servers.notes()
    lost = {one["id"] for one in written if found.get(one["id"]) != f"note {int(one['id'][-8:])} of app"}
    record_property("acknowledged writes", len(written))
    record_property("write freeze millis", status["traffic"]["writeFreezeMillis"])
    assert not lost
    assert {one["active"] for one in written} == {"agents-embedded", "agents-hybrid"}
    assert [one["phase"] for one in status["history"]] == PHASES, json.dumps(status["history"])
    assert {one["id"] for one in agents.seed if one["kind"] == "memory"} <= set(found)
    assert agents.servers.points(agents.collection) == sum("vectors" in one for one in agents.seed)
