"""Probes of MemoryBackends in a real API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.operating import Life, Operator, resource, secret, server, standin
from testbed.kubernetes.client import KubernetesObject
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until


def backend(life: Life, reason: str, *, name: str = "a") -> dict[str, Any]:
    """The status of a MemoryBackend whose `Reachable` has a reason."""

    def check(found: KubernetesObject) -> bool:
        conditions = (found.get("status") or {}).get("conditions") or []
        return any((c["type"], c["reason"]) == ("Reachable", reason) for c in conditions)

    found = life.client.until("MemoryBackend", name, check, namespace=life.namespace, what=reason)
    status: dict[str, Any] = found["status"]
    return status


def probes(life: Life) -> list[KubernetesObject]:
    return life.client.objects("Job", namespace=life.namespace, labels="memferry.dev/role=probe")


def test_a_backend_is_probed_when_it_is_made_and_when_it_is_changed(
    life: Life, kubelet: LocalKubelet, operator: Operator
) -> None:
    status = backend(life, "Reachable")
    assert (status["reachable"], status["records"], status["observedGeneration"]) == (True, 300, 1)
    until(lambda: not probes(life), what="no probe")
    changed = server("a")
    changed["spec"]["caps"] = {"concurrency": 2}
    life.client.apply(changed, namespace=life.namespace)
    life.client.until(
        "MemoryBackend",
        "a",
        lambda b: b["status"]["observedGeneration"] == 2,
        namespace=life.namespace,
    )
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "a"}})
    life.client.apply(binding, namespace=life.namespace)
    life.client.until("MemoryBackend", "a", lambda b: bool(b["status"].get("users")), namespace=life.namespace)
    pods = kubelet.pods(labels={"memferry.dev/backend": "b"})
    assert len(pods) == 1, "nothing refers to it and nobody changed it"


def test_what_a_probe_is_made_with_goes_with_its_backend(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    backend(life, "Reachable")
    life.client.delete("MemoryBackend", "a", namespace=life.namespace)
    for kind in ("Job", "ConfigMap", "Secret", "Role", "RoleBinding", "ServiceAccount"):
        life.until_none(kind, labels="memferry.dev/backend=a")


def test_a_store_that_is_away_holds_up_a_migration_until_it_answers(
    life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path
) -> None:
    away = {"reachable": False, "error": {"code": "unavailable", "message": "no route to a"}}
    standin(tmp_path / "standin", probe={"result": away})
    changed = server("a")
    changed["spec"]["caps"] = {"concurrency": 2}
    life.client.apply(changed, namespace=life.namespace)
    backend(life, "Unreachable")
    life.apply()
    life.until("Pending", reason="BackendUnavailable")
    life.until_told("Stalled", "MemoryBackend a: unavailable: no route to a")
    standin(tmp_path / "standin")
    assert life.until("Succeeded", secs=120)["attempt"] == 1, "it goes on without being asked"


def test_a_secret_that_comes_late_is_waited_for_by_name(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    changed = server("a")
    changed["spec"]["apiKey"] = {"secretRef": {"name": "late", "key": "word"}}
    life.client.apply(changed, namespace=life.namespace)
    backend(life, "KeyMissing")
    life.apply()
    life.until("Pending", reason="BackendUnavailable")
    life.until_told("Stalled", "MemoryBackend a: Secret late is not there")
    life.client.apply(secret("late", "word", "open"), namespace=life.namespace)
    assert life.until("Succeeded", secs=120)["attempt"] == 1, "it goes on without being asked"


def test_a_probe_that_dies_is_tried_again(
    life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", probe={"fail": True})
    backend(life, "Reachable")
    changed = server("a")
    changed["spec"]["caps"] = {"concurrency": 2}
    with kubelet.holding_starts():
        life.client.apply(changed, namespace=life.namespace)
        job = until(lambda: probes(life), what="a probe")[0]
        life.client.delete("Job", job["metadata"]["name"], namespace=life.namespace)
    life.client.until(
        "MemoryBackend",
        "a",
        lambda b: b["status"]["observedGeneration"] == 2,
        namespace=life.namespace,
    )


def test_a_binding_that_is_made_again_serves_where_it_served(
    life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path
) -> None:
    """Everything but the stores is gone, as in a new cluster."""
    backend(life, "Reachable")
    journal = {"revision": 4, "mode": "Serving", "active": "b"}
    (tmp_path / "standin" / "memory.journal").write_text(json.dumps(journal))
    life.client.apply(
        resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "a"}}), namespace=life.namespace
    )
    found = life.client.until(
        "MemoryBinding",
        "memory",
        lambda b: bool((b.get("status") or {}).get("active")),
        namespace=life.namespace,
        deadline_secs=120,
    )
    assert (found["status"]["active"], found["status"]["revision"]) == ("b", 4)
