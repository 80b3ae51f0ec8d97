"""The API tier is a real Kubernetes API, and the local kubelet treats pods as a kubelet does."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from testbed import wait
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import ApiError
from testbed.kubernetes.fake_kubelet import FakeKubelet
from testbed.kubernetes.local_kubelet import LocalKubelet

_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.testbed.invalid"},
    "spec": {
        "group": "testbed.invalid",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {"size": {"type": "integer"}, "color": {"type": "string"}},
                                "x-kubernetes-validations": [
                                    {"rule": "self.size == oldSelf.size", "message": "size is immutable"}
                                ],
                            },
                            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
                        },
                    }
                },
            }
        ],
    },
}


def _pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "command": ["sh", "-c", script]} | spec.pop("container", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


def _job(name: str, script: str, *, completions: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": completions,
            "parallelism": completions,
            "completionMode": "Indexed",
            "template": {"spec": _pod(name, script)["spec"]},
            **spec,
        },
    }


def _restarts(content: dict[str, Any]) -> int:
    containers = content["status"].get("containerStatuses", [])
    return sum(int(one["restartCount"]) for one in containers)


def _condition(content: dict[str, Any], kind: str) -> str:
    conditions = content.get("status", {}).get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == kind), "")


def _terminated(content: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = content["status"]["containerStatuses"][0]["state"]
    return dict(state["terminated"])


def test_a_rule_of_a_custom_resource_is_held_by_the_server(api_tier: ApiTier, kubernetes_namespace: str) -> None:
    client = api_tier.client
    client.apply(_CRD)
    widget = {
        "apiVersion": "testbed.invalid/v1",
        "kind": "Widget",
        "metadata": {"name": "one", "namespace": kubernetes_namespace},
        "spec": {"size": 1},
    }
    client.create(widget)
    with pytest.raises(ApiError, match="size is immutable") as refused:
        client.patch("Widget", "one", {"spec": {"size": 2}}, namespace=kubernetes_namespace)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    with pytest.raises(ApiError, match=r"unknown field \"spec.colour\""):
        client.create(widget | {"metadata": {"name": "two"}, "spec": {"size": 1, "colour": "red"}}, namespace="default")
    old = client.patch(
        "Widget", "one", {"status": {"phase": "New"}}, namespace=kubernetes_namespace, subresource="status"
    )
    client.replace(old | {"status": {"phase": "Newer"}}, subresource="status")
    with pytest.raises(ApiError, match="the object has been modified"):
        client.replace(old | {"status": {"phase": "Lost"}}, subresource="status")
    client.delete("CustomResourceDefinition", "widgets.testbed.invalid")


def test_an_indexed_job_with_a_failing_index(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet
) -> None:
    fail_index = {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}
    job = _job(
        "shards",
        'echo "shard $JOB_COMPLETION_INDEX" >&2; [ "$JOB_COMPLETION_INDEX" != 2 ] || exit 42',
        completions=4,
        backoffLimitPerIndex=3,
        maxFailedIndexes=4,
        podFailurePolicy={"rules": [fail_index]},
    )
    api_tier.client.create(job, namespace=kubernetes_namespace)
    done = api_tier.client.until("Job", "shards", lambda one: _condition(one, "Failed"), namespace=kubernetes_namespace)
    assert done["status"]["completedIndexes"] == "0,1,3"
    assert done["status"]["failedIndexes"] == "2"
    pods = api_tier.client.objects("Pod", namespace=kubernetes_namespace)
    assert sorted(_terminated(pod)["exitCode"] for pod in pods) == [0, 0, 0, 42]  # no retry of the failed index
    assert sorted(pod.log() for pod in local_kubelet.pods()) == [f"shard {index}\n" for index in range(4)]


def test_a_killed_process_is_a_failed_pod(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet
) -> None:
    pod = _pod(
        "killed", "echo started; exec sleep 600", container={"terminationMessagePolicy": "FallbackToLogsOnError"}
    )
    api_tier.client.create(pod, namespace=kubernetes_namespace)
    process = local_kubelet.process({"app": "killed"})
    wait.until(lambda: local_kubelet.pod("killed").log() == "started\n", what="its first line")
    process.kill9()
    done = api_tier.client.until(
        "Pod", "killed", lambda one: one["status"]["phase"] == "Failed", namespace=kubernetes_namespace
    )
    terminated = _terminated(done)
    assert (terminated["exitCode"], terminated["signal"], terminated["reason"]) == (137, 9, "Error")
    assert terminated["message"] == "started\n"


def test_what_a_pod_sees(api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet) -> None:
    client, namespace = api_tier.client, kubernetes_namespace
    client.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"api-key": "s3cret"}},
        namespace=namespace,
    )
    script = """
        cat "$KEY_FILE" && echo " $KEY $NAME $GREETING $ANSWER" && cat "$1" && ls "$SCRATCH" && echo data > "$CLAIM/new"
        [ "$KUBERNETES_SERVICE_HOST" = 127.0.0.1 ] && [ -z "$PYTEST_CURRENT_TEST" ]
        grep -q tokenFile "$KUBECONFIG" && [ -s "$MEMFERRY_SERVICE_ACCOUNT_FOLDER/token" ]
        cat "$MEMFERRY_SERVICE_ACCOUNT_FOLDER/namespace"
    """
    pod = _pod(
        "seer",
        script,
        container={
            "command": ["sh", "-ec", script, "sh"],
            "args": ["/etc/settings/greeting.txt"],
            "env": [
                {"name": "KEY_FILE", "value": "/etc/keys/api-key"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "api-key"}}},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "greeting"}}},
                {"name": "ANSWER", "value": "$(GREETING) $(NAME) $$(NAME) $(NOBODY)"},
                {"name": "SCRATCH", "value": "/scratch"},
                {"name": "CLAIM", "value": "/var/claims/agents"},
            ],
            "volumeMounts": [
                {"name": "keys", "mountPath": "/etc/keys"},
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "claim", "mountPath": "/var/claims/agents"},
            ],
        },
        volumes=[
            {"name": "keys", "secret": {"secretName": "keys"}},
            {
                "name": "settings",
                "projected": {
                    "sources": [
                        {"configMap": {"name": "settings", "items": [{"key": "greeting", "path": "greeting.txt"}]}}
                    ]
                },
            },
            {"name": "scratch", "emptyDir": {}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "agents"}},
        ],
    )
    client.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "agents"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        namespace=namespace,
    )
    client.create(pod, namespace=namespace)

    def waits(content: dict[str, Any]) -> bool:
        states = content["status"].get("containerStatuses", [])
        return bool(states) and 'configmap "settings" not found' in states[0]["state"]["waiting"]["message"]

    client.until("Pod", "seer", waits, namespace=namespace)
    client.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"greeting": "hello"}},
        namespace=namespace,
    )
    done = client.until(
        "Pod", "seer", lambda one: one["status"]["phase"] in {"Succeeded", "Failed"}, namespace=namespace
    )
    log = local_kubelet.pod("seer").log()
    assert (done["status"]["phase"], done["status"]["podIP"]) == ("Succeeded", "127.0.0.1"), log
    assert log == f"s3cret s3cret seer hello hello seer $(NAME) $(NOBODY)\nhello{namespace}"
    assert (local_kubelet.claim_folder(namespace, "agents") / "new").read_text() == "data\n"
    claim = client.get("PersistentVolumeClaim", "agents", namespace=namespace)
    assert claim["status"]["phase"] == "Bound"


def test_a_deleted_pod_gets_its_grace_period(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet
) -> None:
    client = api_tier.client
    polite = _pod("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    stubborn = _pod("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    for pod in (polite, stubborn):
        client.create(pod, namespace=kubernetes_namespace)
        name = pod["metadata"]["name"]
        client.until("Pod", name, lambda one: _condition(one, "Ready") == "True", namespace=kubernetes_namespace)
        wait.until(lambda name=name: "up" in local_kubelet.pod(name).log(), what=name)  # type: ignore[misc]
    started = time.monotonic()
    client.delete("Pod", "polite", namespace=kubernetes_namespace, grace_secs=300)
    client.delete("Pod", "stubborn", namespace=kubernetes_namespace, grace_secs=1)
    client.until_gone("Pod", "stubborn", namespace=kubernetes_namespace)
    client.until_gone("Pod", "polite", namespace=kubernetes_namespace)
    assert time.monotonic() - started >= 1
    assert local_kubelet.pod("polite").log() == "up\nbye\n"
    assert not any(pod.is_running for pod in local_kubelet.pods())


def test_a_pod_that_has_to_run_always_is_started_again(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet
) -> None:
    template = {"metadata": {"labels": {"app": "server"}}, "spec": _pod("server", "echo up; exec sleep 600")["spec"]}
    template["spec"]["restartPolicy"] = "Always"
    api_tier.client.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "server"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "server"}}, "template": template},
        },
        namespace=kubernetes_namespace,
    )
    process = local_kubelet.process({"app": "server"})
    process.kill9()
    pod = local_kubelet.pods()[0]
    status = api_tier.client.until(
        "Pod",
        pod.name,
        lambda one: _restarts(one) == 1 and _condition(one, "Ready") == "True",
        namespace=kubernetes_namespace,
    )["status"]
    assert status["phase"] == "Running"
    assert local_kubelet.process({"app": "server"}).pid != 0


def test_a_silent_node_and_a_node_that_does_not_start_pods(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet
) -> None:
    client = api_tier.client
    with local_kubelet.holding_starts():
        client.create(_pod("slow", "exec sleep 600"), namespace=kubernetes_namespace)
        client.until("Pod", "slow", lambda one: "nodeName" in one["spec"], namespace=kubernetes_namespace)
        assert not local_kubelet.pod("slow").is_running
    client.until("Pod", "slow", lambda one: _condition(one, "Ready") == "True", namespace=kubernetes_namespace)
    process = local_kubelet.pod("slow").process()
    with local_kubelet.silent():
        client.delete("Pod", "slow", namespace=kubernetes_namespace, grace_secs=1)
        found = client.get("Pod", "slow", namespace=kubernetes_namespace)
        assert (found["status"]["phase"], "deletionTimestamp" in found["metadata"]) == ("Running", True)
        assert process.is_running
    assert process.wait(deadline_secs=60) == -signal.SIGTERM
    client.until_gone("Pod", "slow", namespace=kubernetes_namespace)


def test_a_fake_kubelet_says_what_a_test_wants(api_tier: ApiTier, kubernetes_namespace: str) -> None:
    fake = FakeKubelet(api_tier.client, kubernetes_namespace)
    job = _job("faked", "never run", completions=2, backoffLimit=5)
    api_tier.client.create(job, namespace=kubernetes_namespace)
    first, second = (pod["metadata"]["name"] for pod in fake.pods(2))
    fake.run(first)
    fake.succeed(first)
    fake.fail(second, 3)
    fake.succeed(fake.pods(1)[0]["metadata"]["name"])
    done = api_tier.client.until(
        "Job", "faked", lambda one: _condition(one, "Complete"), namespace=kubernetes_namespace
    )
    assert (done["status"]["succeeded"], done["status"]["failed"]) == (2, 1)


def test_rights_tokens_and_the_audit_log(api_tier: ApiTier, kubernetes_namespace: str) -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader"},
        "spec": {"holderIdentity": "one", "leaseDurationSeconds": 15},
    }
    api_tier.client.create(lease, namespace=kubernetes_namespace)
    with api_tier.service_account_client(kubernetes_namespace, "worker") as worker:
        with pytest.raises(ApiError, match='cannot get resource "leases"') as refused:
            worker.get("Lease", "leader")
        assert refused.value.code == 403
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "worker"},
            "rules": [
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "resourceNames": ["leader"],
                    "verbs": ["get"],
                }
            ],
        }
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "worker"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"},
            "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": kubernetes_namespace}],
        }
        api_tier.client.apply_all([role, binding], namespace=kubernetes_namespace)

        def allowed() -> dict[str, Any] | None:
            try:
                return worker.get("Lease", "leader")
            except ApiError:
                return None  # rights take a moment

        assert wait.until(allowed, what="the right")["spec"]["holderIdentity"] == "one"
    kubeconfig = api_tier.service_account_kubeconfig(kubernetes_namespace, "worker")
    told = api_tier.kubectl("--kubeconfig", kubeconfig, "auth", "can-i", "--list")
    assert "leases.coordination.k8s.io" in told
    user = f"system:serviceaccount:{kubernetes_namespace}:worker"

    def decisions() -> set[str]:
        return {
            event["annotations"]["authorization.k8s.io/decision"]
            for event in api_tier.audit_events()
            if event["user"].get("username") == user and event.get("objectRef", {}).get("resource") == "leases"
        }

    wait.until(lambda: decisions() == {"allow", "forbid"}, what="both decisions in the audit log")


def test_an_outage_of_the_api_server(
    api_tier: ApiTier, kubernetes_namespace: str, local_kubelet: LocalKubelet, tmp_path: Path
) -> None:
    script = f"touch {tmp_path}/up; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 7"
    api_tier.client.create(_pod("patient", script), namespace=kubernetes_namespace)
    wait.until((tmp_path / "up").exists, what="the pod")
    process = local_kubelet.process({"app": "patient"})
    with api_tier.outage():
        assert not api_tier.client.is_ready()
        (tmp_path / "go").touch()
        process.wait(deadline_secs=60)
    done = api_tier.client.until(
        "Pod", "patient", lambda one: one["status"]["phase"] == "Failed", namespace=kubernetes_namespace
    )
    assert _terminated(done)["exitCode"] == 7
    api_tier.client.create(_pod("later", "exit 0"), namespace=kubernetes_namespace)  # the watch is back too
    api_tier.client.until(
        "Pod", "later", lambda one: one["status"]["phase"] == "Succeeded", namespace=kubernetes_namespace
    )


def test_helm_and_kubectl_are_the_real_ones(api_tier: ApiTier, kubernetes_namespace: str, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 0.1.0\n")
    (chart / "templates" / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {key: value}\n"
    )
    for version in (4, 3):
        api_tier.helm("install", f"helm{version}", chart, "--namespace", kubernetes_namespace, version=version)
        assert api_tier.client.get("ConfigMap", f"helm{version}", namespace=kubernetes_namespace)["data"]
    assert "v1.36.3" in api_tier.kubectl("version")
