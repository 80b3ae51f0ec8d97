"""Parts of the hands that need no API server: queue, what is read, settings, bodies of objects."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from memferry.manifest import Backend, Migration, load_manifest
from memferry_operator.actions import CreateJob
from memferry_operator.hands import read
from memferry_operator.hands.queue import Queue
from memferry_operator.objects import owned, pods
from memferry_operator.observed import Command
from memferry_operator.settings import Settings, SettingsError

SPEC = Migration.model_validate({"source": {"backendRef": {"name": "a"}}, "target": {"backendRef": {"name": "b"}}})
OWNER = owned.owner("m", "uid-1")


def test_queue_holds_a_key_once_and_gives_it_to_one() -> None:
    async def use() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        queue.add("a")
        queue.add("b", 0.05)
        assert await queue.get() == "a"
        queue.add("a")  # Something happened while it is worked on.
        assert await queue.get() == "b", "it is not given to a second one"
        queue.done("a")
        assert await queue.get() == "a", "it is looked at again"
        queue.done("a")
        queue.done("b")
        assert len(queue) == 0

    asyncio.run(use())


def test_queue_waits_longer_after_each_failure_and_an_event_cuts_it_short() -> None:
    async def use() -> None:
        queue: Queue[str] = Queue(base_secs=10, cap_secs=25)
        waits = []
        for _ in range(3):
            queue.add("a")
            assert await queue.get() == "a"
            waits.append(queue.failed("a"))
        assert waits == [10, 20, 25]
        queue.add("a")
        assert await queue.get() == "a"
        queue.done("a")
        queue.add("a")
        await queue.get()
        assert queue.failed("a") == 10, "a success is a new begin"

    asyncio.run(use())


def job(role: Any, backends: dict[str, Backend], **spec: Any) -> dict[str, Any]:
    migration = Migration.model_validate({**SPEC.model_dump(by_alias=True, exclude_defaults=True), **spec})
    action = CreateJob(role, 2, completions=3, parallelism=2)
    settings = Settings(worker_image="image@sha256:1", worker_pull_secrets="pull")
    return pods.job(action, name="m", uid="uid-1", spec=migration, backends=backends, owner=OWNER, settings=settings)


def test_pod_has_exactly_the_secrets_that_are_referenced() -> None:
    backends = {
        "a": Backend.model_validate({"backend": "embedded", "claimName": "src", "path": "agents.db"}),
        "b": Backend.model_validate(
            {
                "backend": "neo4j",
                "address": "neo4j:7687",
                "password": {"secretRef": {"name": "neo4j", "key": "password"}},
                "tls": {"ca": {"configMapRef": {"name": "ca", "key": "ca.crt"}}},
            },
        ),
    }
    pod = job("transfer", backends)["spec"]["template"]["spec"]
    sources = next(v for v in pod["volumes"] if v["name"] == "folder")["projected"]["sources"]
    assert [i["path"] for s in sources for one in s.values() for i in one["items"]] == [
        "migration.yaml",
        "secrets/neo4j/password",
        "config/ca/ca.crt",
    ]
    container = pod["containers"][0]
    assert container["args"][-2:] == ["--claim", "/var/lib/memferry/claims/src"]
    assert {"name": "claim-0", "mountPath": "/var/lib/memferry/claims/src"} in container["volumeMounts"]
    assert "fsGroup" not in pod["securityContext"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]


def test_pods_are_never_two_for_a_shard_and_codes_mean_something() -> None:
    spec = job("transfer", {})["spec"]
    assert (spec["completions"], spec["parallelism"], spec["podReplacementPolicy"]) == (3, 2, "Failed")
    rules = {r["action"]: r.get("onExitCodes", {}).get("values") for r in spec["podFailurePolicy"]["rules"]}
    assert rules == {"FailJob": [43], "FailIndex": [42], "Ignore": None}


def test_workers_settings_reach_the_pod() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    transfer = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": tolerations,
        "resources": {"limits": {"memory": "1Gi"}},
    }
    pod = job("plan", {}, transfer=transfer)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["tolerations"] == tolerations
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


def test_rights_are_by_name() -> None:
    _, role, _ = owned.rights("m", OWNER, shards=2)
    assert all(rule["resourceNames"] for rule in role["rules"])
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "patch"}
    assert "m-shard-1" in role["rules"][0]["resourceNames"]
    assert "m-shard-2" not in role["rules"][0]["resourceNames"]


def test_pinned_manifest_is_one_that_a_worker_reads() -> None:
    def raw(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        meta = {"name": name, "namespace": "ns", "uid": "1", "resourceVersion": "5", "managedFields": []}
        head = {"apiVersion": "memferry.dev/v1alpha1", "kind": kind, "metadata": meta}
        return {**head, "spec": spec, "status": {"phase": "Pending"}}

    backends = {n: raw("MemoryBackend", n, {"backend": "embedded", "path": f"{n}.db"}) for n in ("a", "b")}
    migration = raw("MemoryMigration", "m", SPEC.model_dump(by_alias=True, exclude_defaults=True))
    text = owned.manifest(migration, backends, None, OWNER, 1)["data"]["migration.yaml"]
    manifest = load_manifest(text.encode(), "migration.yaml", Path())
    assert [d.resource.metadata.name for d in manifest.documents] == ["m", "a", "b"]
    assert len(list(yaml.safe_load_all(text))) == 3


def test_command_is_read_as_it_was_written() -> None:
    command = Command(7, "Journal", revision=3, mode="Frozen", active="a", frozen_until="2026-01-01T00:00:00Z")
    assert read.command(owned.control("m", OWNER, command)["data"]["command"]) == command


@pytest.mark.parametrize("text", [None, "", "[]", "{", "nonsense", '{"x": 1}'])
def test_what_a_worker_writes_wrongly_is_not_there(text: str | None) -> None:
    lease = {"metadata": {"name": "m-switch", "annotations": {"memferry.dev/answer": text}}, "spec": {}}
    assert read.worker_lease(lease).answer is None


def test_job_and_results_are_read() -> None:
    labels = {"memferry.dev/role": "transfer", "memferry.dev/attempt": "2"}
    conditions = [{"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "why"}]
    status = {"conditions": conditions, "failedIndexes": "0-2,5", "succeeded": 3}
    found = read.job(
        {"metadata": {"name": "m-transfer-2", "labels": labels}, "spec": {"suspend": True}, "status": status}
    )
    assert found is not None
    assert (found.role, found.attempt, found.failure, found.failed, found.ended) == (
        "transfer",
        2,
        "FailedIndexes",
        4,
        True,
    )
    data = {
        "plan.json": b64encode(json.dumps({"records": 1}).encode()).decode(),
        "verify.json": b64encode(b"no").decode(),
    }
    assert read.results({"data": data}) == {"plan": {"records": 1}}


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"MEMFERRY_OPERATOR_WATCH_NAMESPACES": "a, b", "MEMFERRY_OPERATOR_WORKERS": "3"}
    )
    assert (settings.namespaces, settings.workers) == (["a", "b"], 3)
    with pytest.raises(SettingsError, match="MEMFERRY_OPERATOR_WORKERS: got `many`"):
        Settings.from_environment({"MEMFERRY_OPERATOR_WORKERS": "many"})
    with pytest.raises(SettingsError, match="MEMFERRY_OPERATOR_WORKER"):
        Settings.from_environment({"MEMFERRY_OPERATOR_WORKER": "3"})
