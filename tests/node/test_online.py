"""Online migrations in a real cluster, with an application that writes all the time, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.on_node import Agents

pytestmark = [pytest.mark.node_tier, pytest.mark.timeout(600)]

WATCHED = {"duration": "10s", "interval": "2s"}


def begin(agents: Agents) -> None:
    """An Online migration."""
    agents.migration["spec"]["transfer"] |= {"shards": 2, "parallelism": 2}
    agents.migrate(monitoring=WATCHED)


def end_without_loss(agents: Agents) -> dict[str, Any]:
    """From the approval to the end; the application's last write is on the new side, and none is lost."""
    agents.until("Monitoring", "Decommission", "Succeeded")
    agents.wait_for_write("agents-hybrid")
    status = agents.until("Succeeded")
    written = agents.stop_application()
    assert agents.lost(written) == []
    assert {one["active"] for one in written} == {"agents-embedded", "agents-hybrid"}
    return {
        "acknowledged writes": len(written),
        "write freeze millis": status["traffic"]["writeFreezeMillis"],
        "longest write millis": max(one["millis"] for one in written),
        "attempt": status["attempt"],
    }


def test_no_write_is_lost_while_workers_are_deleted(
    agents: Agents, record_property: Callable[[str, object], None]
) -> None:
    begin(agents)
    for role in ("transfer", "switch"):
        pod = agents.worker(role)["metadata"]["name"]
        agents.client.delete("Pod", pod, namespace=agents.namespace)
    agents.approve()
    for name, value in end_without_loss(agents).items():
        record_property(name, value)
