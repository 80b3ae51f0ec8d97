"""Says of pods that they run or have ended, and runs nothing."""

from __future__ import annotations

from collections.abc import Callable

from testbed.kubernetes.client import ApiError, KubernetesClient, KubernetesObject
from testbed.kubernetes.pod_status import ContainerState, now, pod_status
from testbed.wait import until

__all__ = ["FakeKubelet", "bind"]

_CONFLICT = 409


class FakeKubelet:
    """Plays the node of a namespace's pods, one status patch at a time.

    Args:
        client: An administrator's.
        namespace: Whose pods.
    """

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    def pods(self, count: int, *, labels: str = "", deadline_secs: float = 30.0) -> list[KubernetesObject]:
        """Exactly so many unfinished pods, by name, as soon as there are."""

        def found() -> list[KubernetesObject] | None:
            pods = [
                pod
                for pod in self._client.objects("Pod", namespace=self._namespace, labels=labels)
                if pod["status"].get("phase") not in {"Succeeded", "Failed"} and not _is_deleted(pod)
            ]
            return sorted(pods, key=_name) if len(pods) == count else None

        return until(found, what=f"{count} unfinished pods", deadline_secs=deadline_secs)

    def run(self, pod: str, *, node: str = "fake-node") -> None:
        """The pod is on the node, all its containers run and are ready."""
        bind(self._client, self._namespace, pod, node)
        self._report(pod, "Running", lambda _: None)

    def succeed(self, pod: str) -> None:
        """All its containers have ended with 0."""
        self._report(pod, "Succeeded", lambda one: one.ended(0))

    def fail(self, pod: str, exit_code: int = 1, *, message: str = "") -> None:
        """All its containers have ended with this code."""
        self._report(pod, "Failed", lambda one: one.ended(exit_code, message))

    def finish_deletion(self, pod: str) -> None:
        """The node has ended a pod that was deleted: the object goes."""
        self._client.delete("Pod", pod, namespace=self._namespace, grace_secs=0)

    def _report(self, pod: str, phase: str, change: Callable[[ContainerState], None]) -> None:
        content = self._client.get("Pod", pod, namespace=self._namespace)
        states = [ContainerState(one["name"], one["image"], now()) for one in content["spec"]["containers"]]
        for state in states:
            change(state)
        status = {"status": pod_status(phase, states, address="127.0.0.1")}
        self._client.patch("Pod", pod, status, namespace=self._namespace, subresource="status", strategic=True)


def bind(client: KubernetesClient, namespace: str, pod: str, node: str, uid: str | None = None) -> None:
    """Put a pod on a node, as the scheduler does; one that is on a node stays there."""
    content = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod, "namespace": namespace, **({"uid": uid} if uid else {})},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    try:
        client.request("POST", client.path("Pod", namespace, pod, "binding"), content)
    except ApiError as error:
        if error.code != _CONFLICT:
            raise


def _is_deleted(pod: KubernetesObject) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _name(pod: KubernetesObject) -> str:
    return str(pod["metadata"]["name"])
