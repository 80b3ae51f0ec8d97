"""The operator as a process against a real API server; workers are stand-ins that keep the contract."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from support.operating import SWITCHED, Life, Operator, migration, resource, server, standin
from support.standin_clients import StandinClients
from testbed.kubernetes.client import ApiError, KubernetesObject
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until


def test_offline(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    life.apply()
    status = life.until("Succeeded")
    assert status["progress"]["percent"] == 100
    assert status["validation"] | {"reportRef": None} == {
        "compared": 300,
        "missing": 0,
        "extra": 0,
        "different": 0,
        "foreign": 0,
        "reportRef": None,
    }
    assert {c["type"]: c["status"] for c in status["conditions"]} | {"Ready": "True", "Stalled": "False"} == {
        c["type"]: c["status"] for c in status["conditions"]
    }
    assert [h["phase"] for h in status["history"]] == [
        "Pending",
        "ParallelSetup",
        "BulkTransfer",
        "Validation",
        "Decommission",
        "Succeeded",
    ]
    assert sorted(j["metadata"]["name"] for j in life.objects("Job")) == ["m-plan-1", "m-transfer-1", "m-verify-1"]
    events = {e["reason"] for e in life.client.objects("Event", namespace=life.namespace)}
    assert {"Planning", "Copying", "Verifying", "Succeeded"} <= events
    metrics = operator.metrics()
    assert metrics['memferry_migrations{phase="Succeeded"}'] >= 1
    assert metrics["memferry_leader"] == 1
    assert httpx.get(f"{operator.url}/healthz").status_code == httpx.get(f"{operator.url}/readyz").status_code == 200


def test_suspend_ends_the_workers_and_resumes(
    life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", transfer={"secs": 3})
    life.apply()
    life.until("BulkTransfer")
    until(life.running, what="workers")
    life.apply(suspend=True)
    life.until("BulkTransfer", reason="Suspended")
    until(lambda: not life.running(), what="no workers")
    standin(tmp_path / "standin")
    life.apply(suspend=False)
    assert life.until("Succeeded")["attempt"] == 1


def test_abort_and_delete(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", transfer={"secs": 60})
    life.apply()
    life.until("BulkTransfer")
    until(life.running, what="workers")
    life.apply(operation="Abort", operationToken="1")
    life.until("Aborted")
    until(lambda: not life.running(), what="no workers")
    life.client.delete("MemoryMigration", "m", namespace=life.namespace)
    life.client.until_gone("MemoryMigration", "m", namespace=life.namespace)
    for kind in ("Job", "Lease", "ConfigMap", "Secret", "Role", "RoleBinding", "ServiceAccount"):
        life.until_none(kind)


def test_deleted_while_it_copies(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", transfer={"secs": 60})
    life.apply()
    life.until("BulkTransfer")
    until(life.running, what="workers")
    life.client.delete("MemoryMigration", "m", namespace=life.namespace)
    life.client.until_gone("MemoryMigration", "m", namespace=life.namespace)
    until(lambda: not life.running(), what="no workers")


def test_refused_plan_stalls_until_it_is_retried(
    life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", plan={"exit": 43})
    life.apply()
    status = life.until("ParallelSetup", reason="PlanRefused")
    stalled = next(c for c in status["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["message"]) == ("True", "gap: asked to fail do not ask")
    standin(tmp_path / "standin")
    life.apply(retryToken="1")
    assert life.until("Succeeded")["attempt"] == 2


def test_mismatch_stops_before_success(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", verify={"exit": 42})
    life.apply()
    life.until("Validation", reason="ValidationFailed")


def test_silent_worker_is_replaced(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", transfer={"silent": True})
    life.apply(transfer={"stallTimeout": "10s"})
    life.until("BulkTransfer")
    first = set(until(life.running, what="workers"))
    until(lambda: first - set(life.running()), what="a replaced worker")
    standin(tmp_path / "standin")
    assert life.until("Succeeded")["shards"]["replaced"] >= 1


@pytest.mark.fault
def test_gitops_applies_every_second(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    """A field manager that owns everything, through the whole life with its switch; a human approves beside it."""
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "a"}})
    owned = [server("a"), server("b"), binding, migration("m", **SWITCHED)]
    ended, failures = threading.Event(), list[str]()

    def manager() -> None:
        while not ended.is_set():
            for one in owned:
                try:
                    life.client.apply(one, namespace=life.namespace, manager="argocd-controller", force=False)
                except ApiError as error:
                    failures.append(str(error))
            ended.wait(1)

    for name in ("a", "b"):
        life.client.delete("MemoryBackend", name, namespace=life.namespace)
    standin(tmp_path / "standin", transfer={"secs": 3})
    thread = threading.Thread(target=manager)
    thread.start()
    try:
        with StandinClients(life.client, life.namespace) as clients:
            status = life.until("Succeeded", secs=110)
            life.at_rest("b", revision=4)
    finally:
        ended.set()
        thread.join()
    assert not failures, "no field is fought over"
    assert not clients.problems()
    assert status["attempt"] == 1


def test_missing_backend_is_waited_for(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    life.client.delete("MemoryBackend", "b", namespace=life.namespace)
    life.apply()
    life.until("Pending", reason="BackendMissing")
    life.client.apply(server("b"), namespace=life.namespace)
    life.until("Succeeded")


def test_status_of_a_newer_operator_is_left_alone(life: Life, operator: Operator) -> None:
    life.apply(suspend=True)
    life.until("Pending", reason="Suspended")
    change = {"status": {"statusVersion": 2, "phase": "Monitoring"}}
    life.client.patch("MemoryMigration", "m", change, namespace=life.namespace, subresource="status")
    life.apply(suspend=False)

    def flagged(found: KubernetesObject) -> bool:
        conditions = found["status"]["conditions"]
        return any(c["type"] == "Stalled" and c["reason"] == "NewerStatus" for c in conditions)

    found = life.client.until("MemoryMigration", "m", flagged, namespace=life.namespace)
    assert (found["status"]["phase"], found["status"]["statusVersion"]) == ("Monitoring", 2)
    assert not life.objects("Job")
