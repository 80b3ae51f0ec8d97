"""Online migrations in a real cluster, with an application that writes all the time, and what goes wrong."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from support import image
from support.bound import switches
from support.on_node import BINDING, MIGRATION, SYSTEM, Agents, install
from testbed.kubernetes.node_tier import NODE, NodeTier

pytestmark = [pytest.mark.node_tier, pytest.mark.timeout(600)]

WATCHED = {"duration": "10s", "interval": "2s"}


def begin(agents: Agents, **monitoring: str) -> None:
    """An Online migration."""
    agents.migration["spec"]["transfer"] |= {"shards": 2, "parallelism": 2}
    agents.migrate(monitoring=WATCHED | monitoring)


def end_without_loss(agents: Agents, earlier: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """From the approval to the end; the application's last write is on the new side, and none is lost.

    Args:
        agents: The application.
        earlier: What was acknowledged to a pod that is no more.
    """
    agents.until("Monitoring", "Decommission", "Succeeded")
    agents.wait_for_write("agents-hybrid")
    status = agents.until("Succeeded")
    written = [*earlier, *agents.stop_application()]
    assert not agents.lost(written)
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


@pytest.mark.fault
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


def end_switch_worker(agents: Agents) -> None:
    """Deletes the pod, and waits until it does not run; its object stays until the Job has made another one."""
    worker = agents.worker("switch")
    agents.client.delete("Pod", worker["metadata"]["name"], namespace=agents.namespace)
    agents.wait_until(
        lambda: all(pod["status"]["phase"] != "Running" for pod in agents.pods("memferry.dev/role=switch")),
        what="the end of the worker",
        secs=90,
    )


@contextmanager
def full_quota(agents: Agents) -> Iterator[None]:
    """No more pods than the application's."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
    agents.apply(quota)
    yield
    agents.client.delete("ResourceQuota", "full", namespace=agents.namespace)


@pytest.mark.fault
def test_no_freeze_while_the_quota_is_full(agents: Agents) -> None:
    begin(agents)
    agents.until("TrafficSwitch", reason="ApprovalRequired")
    with full_quota(agents):
        end_switch_worker(agents)
        agents.approve()
        for _ in range(5):
            assert_not_frozen(agents)
    assert end_without_loss(agents)["attempt"] == 1


@pytest.mark.fault
def test_no_freeze_while_the_image_is_gone(node: NodeTier, agents: Agents) -> None:
    begin(agents)
    agents.until("TrafficSwitch", reason="ApprovalRequired")
    node.unload_image(image.IMAGE)
    try:
        end_switch_worker(agents)
        agents.approve()
        for _ in range(5):
            assert_not_frozen(agents)
    finally:
        node.load_image(image.archive())
    assert end_without_loss(agents)["attempt"] == 1


@pytest.mark.fault
def test_chart_upgraded_in_the_copy(node: NodeTier, agents: Agents) -> None:
    begin(agents)
    worker = agents.worker("transfer")
    (operator,) = agents.client.objects("Pod", namespace=SYSTEM)
    agents.signal(worker, signal.SIGSTOP)
    install(node, **{"podAnnotations.upgraded": "once"})
    agents.client.until_gone("Pod", operator["metadata"]["name"], namespace=SYSTEM)
    assert agents.status()["phase"] == "BulkTransfer"
    agents.signal(worker, signal.SIGCONT)
    agents.approve()
    assert end_without_loss(agents)["attempt"] == 1
    assert agents.status()["shards"]["replaced"] == 0


@pytest.mark.fault
def test_node_that_is_lost_before_the_switch(node: NodeTier, agents: Agents) -> None:
    """The cluster forgets it, and with it operator, worker and application, which go on until it is there again."""
    begin(agents)
    agents.until("TrafficSwitch", reason="ApprovalRequired")
    (zombie,) = agents.pods("app=agents")
    node.process("kubelet").kill9()
    agents.client.delete("Node", NODE)
    for pod in [zombie, *agents.pods("memferry.dev/role=switch")]:
        agents.client.until_gone("Pod", pod["metadata"]["name"], namespace=agents.namespace, deadline_secs=110)
    earlier = agents.end_zombie(zombie)
    node.process("kubelet").start()
    agents.wait_until(agents.written, what="a write of the next application", secs=90)
    agents.approve()
    assert end_without_loss(agents, earlier)["attempt"] == 1


@pytest.mark.timeout(2400)
def test_twenty_switches(agents: Agents, record_property: Callable[[str, object], None]) -> None:
    """There and back ten times, while the application writes; the source has every write in the end."""
    spec, told = copy.deepcopy(agents.migration["spec"]), []
    for number in range(10):
        # What an earlier migration left in a target is somebody else's to a new one: each has stores of its own.
        agents.servers.neo4j.wipe()
        agents.add_target(f"target-{number}")
        target = f"target-{number}-hybrid"
        agents.migration["spec"] = copy.deepcopy(spec) | {"target": {"backendRef": {"name": target}}}
        begin(agents, duration="1h")
        agents.approve()
        told.append(agents.until("Monitoring"))
        agents.wait_for_write(target)
        assert not agents.lost(agents.written())
        agents.migrate(operation="SwitchBack", operationToken="1")
        told.append(agents.until("SwitchedBack"))
        agents.wait_for_write("agents-embedded")
        assert not agents.lost_at_home(agents.written())
        agents.client.delete("MemoryMigration", MIGRATION, namespace=agents.namespace)
        agents.client.until_gone("MemoryMigration", MIGRATION, namespace=agents.namespace)
    written = agents.stop_application()
    missing = agents.lost_at_home(written)
    seen = switches(written)
    assert len(seen) == len(told) == 20
    for secs, status in zip(seen, told, strict=True):
        record_property("switch", (secs, status["traffic"]["writeFreezeMillis"] / 1000))
    record_property("lost writes", len(missing))
    assert not missing
