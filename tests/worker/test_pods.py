"""Workers as pods of Jobs: a real API server and its controllers, a process a pod, rights to exactly what they need."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from support.hybrid import ordinary
from support.stores import EmbeddedPlace
from support.worker import backend
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import KubernetesClient
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until

FOLDER, CLAIMS, STATE = "/etc/memferry", "/var/lib/memferry/claims", "/var/lib/memferry/state"
RUNNER = Path(__file__).parents[1] / "faults" / "command.py"
PROGRESS, ANSWER = "memferry.dev/progress", "memferry.dev/answer"
INDEX = "batch.kubernetes.io/job-completion-index"
LEASES = ["m-plan", "m-shard-0", "m-shard-1", "m-verify", "m-switch", "m-retire"]


class Cluster:
    """A namespace with what the operator makes for a migration."""

    def __init__(self, client: KubernetesClient, kubelet: LocalKubelet, namespace: str, **spec: Any) -> None:
        self.client, self.kubelet, self.namespace = client, kubelet, namespace
        source = kubelet.claim_folder(namespace, "src")
        EmbeddedPlace(source.parent, "src").make(ordinary(50))
        wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        for claim in ("src", "dst"):
            self.make("PersistentVolumeClaim", claim, spec=wanted)
        ends = {side: {"backendRef": {"name": name}} for side, name in (("source", "a"), ("target", "b"))}
        migration = {
            "apiVersion": "memferry.dev/v1alpha1",
            "kind": "MemoryMigration",
            "metadata": {"name": "m"},
            "spec": {**ends, **spec},
        }
        stores = [
            backend(name, backend="embedded", claimName=claim, path=path)
            for name, claim, path in (("a", "src", "agents.db"), ("b", "dst", "target.db"))
        ]
        text = "\n---\n".join(json.dumps(one) for one in [*stores, migration])
        self.make("ConfigMap", "m-manifest-1", data={"migration.yaml": text})
        self.make("ConfigMap", "m-control", data={"command": ""})
        self.make("Secret", "m-result", data={})
        for name in LEASES:
            self.make("Lease", name, api="coordination.k8s.io/v1", spec={})
        self.make("ServiceAccount", "memferry-worker-m")
        rules = [
            self._rule("coordination.k8s.io", "leases", LEASES, ["get", "update", "patch"]),
            self._rule("", "secrets", ["m-result"], ["get", "update", "patch"]),
            self._rule("", "configmaps", ["m-control"], ["get"]),
        ]
        rbac = "rbac.authorization.k8s.io"
        self.make("Role", "memferry-worker-m", api=f"{rbac}/v1", rules=rules)
        subject = {"kind": "ServiceAccount", "name": "memferry-worker-m", "namespace": namespace}
        ref = {"apiGroup": rbac, "kind": "Role", "name": "memferry-worker-m"}
        self.make("RoleBinding", "memferry-worker-m", api=f"{rbac}/v1", roleRef=ref, subjects=[subject])

    @staticmethod
    def _rule(group: str, resource: str, names: list[str], verbs: list[str]) -> dict[str, Any]:
        return {"apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs}

    def make(self, kind: str, name: str, *, api: str = "v1", **content: Any) -> None:
        """Makes an object."""
        head = {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}}
        self.client.create({**head, **content})

    def job(self, verb: str, *, attempt: int = 1, completions: int = 1, **environment: str) -> str:
        """A Job as the operator makes it; its name."""
        name = f"m-{verb}-{attempt}"
        fixed = {
            "MEMFERRY_MIGRATION": "m",
            "MEMFERRY_MIGRATION_UID": "uid-1",
            "MEMFERRY_ATTEMPT": str(attempt),
            "MEMFERRY_TEST_PAGE": "20",
            "MEMFERRY_TEST_RANGE": "60",
            **environment,
        }
        fields = {"MEMFERRY_NAMESPACE": "metadata.namespace", "MEMFERRY_POD_NAME": "metadata.name"}
        claims = [f"{CLAIMS}/{name}" for name in ("src", "dst")]
        container = {
            "name": "worker",
            "image": "memferry",
            "command": [sys.executable, str(RUNNER), "worker", verb],
            "args": ["--folder", FOLDER, "--claims", CLAIMS, "--state", STATE]
            + [part for path in claims for part in ("--claim", path)],
            "env": [{"name": k, "value": v} for k, v in fixed.items()]
            + [{"name": k, "valueFrom": {"fieldRef": {"fieldPath": v}}} for k, v in fields.items()],
            "volumeMounts": [
                {"name": "folder", "mountPath": FOLDER},
                {"name": "state", "mountPath": STATE},
                *({"name": path.rpartition("/")[2], "mountPath": path} for path in claims),
            ],
        }
        volumes = [
            {"name": "folder", "projected": {"sources": [{"configMap": {"name": "m-manifest-1"}}]}},
            {"name": "state", "emptyDir": {}},
            *({"name": name, "persistentVolumeClaim": {"claimName": name}} for name in ("src", "dst")),
        ]
        rules = [
            {"action": action, "onExitCodes": {"operator": "In", "values": [code]}}
            for action, code in (("FailIndex", 42), ("FailJob", 43))
        ]
        spec: dict[str, Any] = {
            "completions": completions,
            "parallelism": completions,
            "completionMode": "Indexed",
            "backoffLimitPerIndex": 3,
            "maxFailedIndexes": completions,
            "podFailurePolicy": {"rules": rules},
            "template": {
                "metadata": {"labels": {"role": verb, "attempt": str(attempt)}},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": "memferry-worker-m",
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        }
        self.make("Job", name, api="batch/v1", spec=spec)
        return name

    def ended(self, name: str, condition: str = "Complete") -> dict[str, Any]:
        """Waits for the end of a Job."""

        def over(job: dict[str, Any]) -> str:
            found = [c["type"] for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"]
            return str(next((one for one in found if one in {"Complete", "Failed"}), ""))

        job = self.client.until("Job", name, over, namespace=self.namespace, deadline_secs=120)
        assert over(job) == condition, "\n".join(pod.log() for pod in self.kubelet.pods())
        return job

    def done(self, verb: str, **more: Any) -> None:
        """Runs a Job to its good end."""
        self.ended(self.job(verb, **more))

    def result(self, key: str) -> Any:
        """What a worker left."""
        data = self.client.get("Secret", "m-result", namespace=self.namespace).get("data", {})
        return json.loads(b64decode(data[f"{key}.json"]))

    def lease(self, name: str) -> dict[str, Any]:
        """A Lease."""
        return self.client.get("Lease", name, namespace=self.namespace)

    def note(self, lease: str, annotation: str) -> Any:
        """What a worker says in its Lease."""
        text = self.lease(lease)["metadata"].get("annotations", {}).get(annotation)
        return None if text is None else json.loads(text)

    def command(self, **command: Any) -> dict[str, Any]:
        """Commands the switch worker; its answer."""
        change = {"data": {"command": json.dumps(command)}}
        self.client.patch("ConfigMap", "m-control", change, namespace=self.namespace)

        def answered() -> dict[str, Any] | None:
            told = self.note("m-switch", ANSWER)
            return told if told and told["sequence"] == command["sequence"] else None

        return until(answered, what=f"the answer to {command}")


@pytest.fixture
def cluster(api_tier: ApiTier, local_kubelet: LocalKubelet, kubernetes_namespace: str) -> Cluster:
    return Cluster(
        api_tier.client,
        local_kubelet,
        kubernetes_namespace,
        # Slow enough that a shard is met at work.
        transfer={"shards": 2, "parallelism": 2, "maxRecordsPerSecond": 40},
        cutover={"bindingRef": {"name": "memory"}},
        decommission={"policy": "Delete"},
    )


@pytest.mark.timeout(400)
def test_a_whole_migration_as_jobs(cluster: Cluster) -> None:
    cluster.done("plan")
    planned = cluster.result("plan")
    assert (planned["shards"], planned["records"], planned["wayBack"]) == (2, 200, True)

    name = cluster.job("transfer", completions=2, MEMFERRY_TEST_PAUSE="committed:1")
    killed = cluster.kubelet.process({"role": "transfer", INDEX: "1"})
    until(lambda: "paused" in killed.log_since_start(), what="a page of shard 1")
    killed.kill9()
    job = cluster.ended(name)
    assert (job["status"]["succeeded"], job["status"]["failed"]) == (2, 1)
    progress = [cluster.note(f"m-shard-{shard}", PROGRESS) for shard in range(2)]
    assert {(one["attempt"], one["phase"], one["quarantined"]) for one in progress} == {(1, "copy", 0)}
    assert sum(one["read"] for one in progress) == sum(one["total"] for one in progress) == 200
    assert sum(one["written"] for one in progress) == 200
    spec = cluster.lease("m-shard-1")["spec"]
    assert spec["leaseTransitions"] == 2
    assert spec["holderIdentity"].startswith("m-transfer-1-1-")
    assert spec["renewTime"] >= spec["acquireTime"]

    cluster.done("verify")
    verified = cluster.result("verify")
    assert (verified["outcome"], verified["verify"]["compared"]) == ("proven", 200)

    switch = cluster.job("switch")
    assert cluster.command(sequence=1, verb="Pass", direction="Forward")["outcome"] == "Done"
    entry = {"revision": 2, "mode": "Frozen", "active": "a", "frozenUntil": None, "lockedBy": "uid-1"}
    assert cluster.command(sequence=2, verb="Journal", **entry)["journal"] == entry
    told = cluster.command(sequence=3, verb="FinalPass", direction="Forward")
    assert (told["outcome"], told["missing"], told["different"]) == ("Done", 0, 0)
    assert cluster.command(sequence=4, verb="Dance")["error"]["code"] == "invalid"
    assert cluster.command(sequence=5, verb="Stop")["outcome"] == "Done"
    cluster.ended(switch)

    cluster.done("retire")
    assert cluster.result("retire")["deleted"] == 200


def test_a_worker_whose_lease_a_later_attempt_took_stops(cluster: Cluster) -> None:
    cluster.done("plan")
    cluster.job("transfer", completions=2, MEMFERRY_TEST_PAUSE="committed:1")
    older = cluster.kubelet.process({"role": "transfer", INDEX: "0"})
    until(lambda: "paused" in older.log_since_start(), what="a page of shard 0")
    taken = {
        "metadata": {"annotations": {PROGRESS: json.dumps({"attempt": 2})}},
        "spec": {"holderIdentity": "m-transfer-2-0-x"},
    }
    cluster.client.patch("Lease", "m-shard-0", taken, namespace=cluster.namespace)
    until(lambda: '"event": "fenced"' in older.log_since_start(), what="the end of shard 0")
    assert cluster.lease("m-shard-0")["spec"]["holderIdentity"] == "m-transfer-2-0-x"


def test_what_is_refused_fails_the_job_and_says_why(cluster: Cluster) -> None:
    (cluster.kubelet.claim_folder(cluster.namespace, "src") / "agents.db").unlink()
    job = cluster.ended(cluster.job("plan"), "Failed")
    [failed] = [c for c in job["status"]["conditions"] if c["type"] == "Failed"]
    assert failed["reason"] == "PodFailurePolicy"
    assert cluster.result("plan")["error"]["code"] == "store-missing"
