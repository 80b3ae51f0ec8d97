"""Online migrations in a real cluster, with an application that writes all the time, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.on_node import BINDING, Agents

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


def assert_not_frozen(agents: Agents) -> None:
    """The application writes to where it was."""
    status = agents.client.get("MemoryBinding", BINDING, namespace=agents.namespace)["status"]
    assert (status["mode"], status["active"]) == ("Serving", "agents-embedded")
    agents.wait_for_write("agents-embedded")


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


@contextmanager
def full_quota(agents: Agents) -> Iterator[None]:
    """No more pods than the application's."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
    agents.apply(quota)
    yield
    agents.client.delete("ResourceQuota", "full", namespace=agents.namespace)


def test_no_freeze_while_the_quota_is_full(agents: Agents) -> None:
    begin(agents)
    agents.until("TrafficSwitch", reason="ApprovalRequired")
    worker = agents.worker("switch")
    with full_quota(agents):
        agents.client.delete("Pod", worker["metadata"]["name"], namespace=agents.namespace)
        agents.wait_until(  # its object stays until the Job has made another one
            lambda: all(pod["status"]["phase"] != "Running" for pod in agents.pods("memferry.dev/role=switch")),
            what="the end of the worker",
            secs=90,
        )
        agents.approve()
        for _ in range(5):
            assert_not_frozen(agents)
    assert end_without_loss(agents)["attempt"] == 1
