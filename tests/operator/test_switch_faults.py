"""What goes wrong around a switch: clients, its worker, places in the cluster, the status, the namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.operating import SWITCHED, Life, resource, standin
from support.standin_clients import StandinClients, Told
from testbed.kubernetes.client import KubernetesObject
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("operator")]

HOLD = {"hold": True}
SWITCH = {"memferry.dev/role": "switch"}


def cutover(**changes: str) -> dict[str, Any]:
    """The migration with a switch that is told otherwise."""
    return SWITCHED | {"cutover": SWITCHED["cutover"] | changes}


def returned(life: Life, clients: StandinClients) -> dict[str, Any]:
    """Waits until the freeze was given back: the old side serves; its journals may follow."""
    until(lambda: Told(3, "Serving", "a") in clients.told["memory"], what="the old side back", deadline_secs=40)
    return life.until_step("Returning", "Settled", "Preparing")


def test_client_that_does_not_answer(
    life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", **{"Journal Frozen a": HOLD})
    clients.names = ("app-0", "app-1")
    life.apply(**cutover(ackTimeout="3s"))
    life.until_step("Freezing")
    clients.deaf.add("app-1")
    standin(tmp_path / "standin")
    status = returned(life, clients)
    why = next(c["message"] for c in status["conditions"] if c["type"] == "TrafficSwitched")
    assert why.startswith("1 of 2 clients did not acknowledge: memferry-client-memory-app-1")
    life.apply(**cutover(ackTimeout="3s"), operation="Abort", operationToken="1")
    life.until("Aborted")
    clients.deaf.clear()
    life.at_rest("a", revision=3)


def test_client_that_is_silent_is_waited_for_until_it_has_stopped_by_itself(
    life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", **{"Journal Frozen a": HOLD})
    clients.names = ("app-0", "app-1")
    life.apply(**SWITCHED)
    life.until_step("Freezing")
    clients.silent.add("app-1")
    standin(tmp_path / "standin")
    traffic = life.until("Succeeded")["traffic"]
    assert traffic["writeFreezeMillis"] > 2 * 1000 * clients.lease_secs
    life.at_rest("b", revision=4)


def test_worker_that_hangs_in_the_freeze(
    life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", FinalPass=HOLD)
    life.apply(**cutover(maxWriteFreeze="10s"))
    life.until_step("FinalPass")
    with kubelet.process(SWITCH).stop_cont():
        returned(life, clients)
    life.apply(**cutover(maxWriteFreeze="10s"), operation="Abort", operationToken="1")
    life.until("Aborted")
    life.at_rest("a", revision=3)


@pytest.mark.parametrize("how", ["killed", "deleted"])
def test_worker_that_dies_in_the_freeze(
    how: str, life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", FinalPass=HOLD)
    life.apply(**SWITCHED)
    life.until_step("FinalPass")
    process = kubelet.process(SWITCH)
    if how == "killed":
        process.kill9()
    else:
        life.client.delete("Pod", next(n for n in life.running() if "-switch-" in n), namespace=life.namespace)
    process.wait(deadline_secs=60)
    standin(tmp_path / "standin")
    assert life.until("Succeeded")["attempt"] == 1
    life.at_rest("b", revision=4)


@pytest.mark.parametrize("why", ["quota", "pull"])
def test_no_freeze_begins_before_its_worker_runs(
    why: str, life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", transfer=HOLD)
    life.apply(**SWITCHED)
    life.until("BulkTransfer")
    until(lambda: len(life.running()) == 3, what="every shard")
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "1"}}}
    if why == "quota":
        life.client.apply(quota, namespace=life.namespace)
    standin(tmp_path / "standin", verify=HOLD)
    life.until("Validation")
    kubelet.process({"memferry.dev/role": "verify"})
    if why == "quota":
        quota["spec"] = {"hard": {"pods": "0"}}
        life.client.apply(quota, namespace=life.namespace)
        until(lambda: refused(life), what="a pod that is refused")
        standin(tmp_path / "standin")
        life.until("TrafficSwitch", reason="Syncing")
        assert clients.told["memory"] == [Told(1, "Serving", "a")]
        life.client.delete("ResourceQuota", "full", namespace=life.namespace)
    else:
        worker = kubelet.process(SWITCH)
        with kubelet.holding_starts():
            worker.kill9()
            standin(tmp_path / "standin")
            life.until("TrafficSwitch", reason="Syncing")
            until(lambda: pending(life), what="the next pod of the switch")
            assert clients.told["memory"] == [Told(1, "Serving", "a")]
    life.until("Succeeded")
    life.at_rest("b", revision=4)


def refused(life: Life) -> list[str]:
    """Events that say that a pod could not be made."""
    events = life.client.request("GET", f"/apis/events.k8s.io/v1/namespaces/{life.namespace}/events")["items"]
    return [one["note"] for one in events if one["reason"] == "FailedCreate" and "exceeded quota" in one["note"]]


def pending(life: Life) -> list[KubernetesObject]:
    """Pods that wait to be started."""
    return [pod for pod in life.objects("Pod") if pod["status"]["phase"] == "Pending"]


@pytest.mark.parametrize("when", ["BulkTransfer", "FinalPass", "Succeeded"])
def test_status_that_is_wiped(
    when: str, life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    holds = {"BulkTransfer": "transfer", "FinalPass": "FinalPass"}
    standin(tmp_path / "standin", **({holds[when]: HOLD} if when in holds else {}))
    life.apply(**SWITCHED)
    if when == "FinalPass":
        life.until_step("FinalPass")
    else:
        life.until(when)
    life.client.patch("MemoryMigration", "m", {"status": None}, namespace=life.namespace, subresource="status")
    standin(tmp_path / "standin")
    status = life.until("Succeeded")
    life.at_rest("b")
    assert status["attempt"] == (1 if when == "Succeeded" else 2)
    if when == "Succeeded":
        assert clients.told["memory"][-1].revision == 4, "nothing was switched again"


def test_made_again_after_success(life: Life, kubelet: LocalKubelet, clients: StandinClients) -> None:
    life.apply(**SWITCHED)
    life.until("Succeeded")
    jobs = {job["metadata"]["uid"] for job in life.objects("Job")}
    life.client.delete("MemoryMigration", "m", namespace=life.namespace)
    life.client.until_gone("MemoryMigration", "m", namespace=life.namespace)
    life.apply(**SWITCHED)
    life.until("Pending", reason="SourceNotActive")
    assert {job["metadata"]["uid"] for job in life.objects("Job")} <= jobs, "nothing ran again"
    life.at_rest("b", revision=4)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow_cluster)])
def test_namespace_that_ends_in_the_freeze(
    whole: bool, life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", FinalPass=HOLD)
    life.apply(**SWITCHED)
    life.until_step("FinalPass")
    life.client.delete("Namespace", life.namespace)
    until(lambda: Told(3, "Serving", "a") in clients.told["memory"], what="the old side back")
    life.until_none("Pod")
    if whole:
        life.client.until_gone("Namespace", life.namespace, deadline_secs=110)


def test_workloads_that_are_restarted(life: Life, kubelet: LocalKubelet, clients: StandinClients) -> None:
    """An application that cannot follow its binding is started anew at each step, and waited for."""
    clients.names = ()
    restart = {"initialBackendRef": {"name": "a"}, "restart": [{"kind": "Deployment", "name": "app"}]}
    life.client.apply_all([deployment(), resource("MemoryBinding", "memory", restart)], namespace=life.namespace)
    kubelet.process({"app": "app"})
    life.apply(**SWITCHED)
    life.until("Succeeded")
    life.at_rest("b", revision=4)
    found = life.client.get("Deployment", "app", namespace=life.namespace)
    assert found["spec"]["template"]["metadata"]["annotations"]["memferry.dev/restarted-for"] in {"3", "4"}


def deployment() -> dict[str, Any]:
    """An application that is only started."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "app", "image": "app", "command": ["sleep", "600"], "securityContext": security}
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    spec = {
        "selector": {"matchLabels": {"app": "app"}},
        "template": {"metadata": {"labels": {"app": "app"}}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": spec}
