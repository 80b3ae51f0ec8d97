"""A node of the API tier whose containers are processes of this machine.

It is honest where a test looks: pods, volumes, tokens, exit codes, grace periods and their order are a kubelet's.
It is no container: every pod shares the machine's files and the address 127.0.0.1, no limit is enforced, probes are
not run (started is ready). An argument or variable that begins with a mount path (also behind `--option=`) gets the
local folder in its place, so a program must take its paths from there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from testbed import wait
from testbed.errors import TestbedError
from testbed.kubernetes.client import ApiError, KubernetesClient, KubernetesObject, WatchStop
from testbed.kubernetes.local_pod import LocalPod
from testbed.kubernetes.pki import write_kubeconfig
from testbed.process import ManagedProcess

__all__ = ["LocalKubelet"]

_RETRY_SECS = 0.1
_WATCH_SECS = 300.0
_TOO_MANY = 429

T = TypeVar("T")


class LocalKubelet:
    """Runs the pods of one namespace, from the start of the block to its end.

    Args:
        client: An administrator's.
        namespace: Whose pods; those that another node has are left alone.
        folder: For volumes, claims and logs.
        node: Its name as a Node object.
        entrypoints: What an image runs when a container has no command, by image.
        env: More variables for every container.
    """

    def __init__(
        self,
        client: KubernetesClient,
        *,
        namespace: str,
        folder: Path,
        node: str | None = None,
        entrypoints: Mapping[str, Sequence[str]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.folder = folder
        self.node = node or f"local-{namespace}"
        self.entrypoints = {image: list(command) for image, command in (entrypoints or {}).items()}
        self._env = dict(env or {})
        self._pods: dict[str, LocalPod] = {}
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._watch_stop = WatchStop()
        self._may_start = threading.Event()
        self._may_start.set()
        self._may_report = threading.Event()
        self._may_report.set()
        self._watcher = threading.Thread(target=self._watch, name=f"testbed-{self.node}", daemon=True)

    def __enter__(self) -> Self:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.node}}
        self.client.apply(node)
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        self.client.patch("Node", self.node, {"status": {"conditions": [ready]}}, subresource="status")
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process and remove the pods and the node."""
        self._closing.set()
        self._may_start.set()
        self._may_report.set()
        self._watch_stop()
        self._watcher.join()
        with self._guard:
            pods = list(self._pods.values())
        for pod in pods:
            pod.vanish()
        for pod in pods:
            pod.join()
        with contextlib.suppress(httpx.TransportError, ApiError):
            for pod in pods:
                self.client.delete("Pod", pod.name, namespace=self.namespace, grace_secs=0)
            self.client.delete("Node", self.node)

    def claim_folder(self, namespace: str, claim: str) -> Path:
        """The folder that is a PersistentVolumeClaim, made if missing; what a test puts there, the pods see."""
        folder = self.folder / "claims" / namespace / claim
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def pod(self, name: str) -> LocalPod:
        """The newest pod of this name that came here, running or ended."""
        with self._guard:
            found = [pod for pod in self._pods.values() if pod.name == name]
        if not found:
            raise TestbedError(f"no pod {name} came to {self.node}")
        return found[-1]

    def pods(self, *, labels: Mapping[str, str] | None = None) -> list[LocalPod]:
        """Every pod that came here, oldest first, at most those with the labels."""
        wanted = (labels or {}).items()
        with self._guard:
            return [pod for pod in self._pods.values() if wanted <= pod.labels.items()]

    def process(self, labels: Mapping[str, str], *, deadline_secs: float = 30.0) -> ManagedProcess:
        """The process of the one running pod with these labels, as soon as it runs: `kill9`, `stop_cont`."""

        def found() -> ManagedProcess | None:
            running = [pod for pod in self.pods(labels=labels) if pod.is_running]
            if len(running) > 1:
                raise TestbedError(f"several pods run with {dict(labels)}: {[pod.name for pod in running]}")
            return running[0].process() if running else None

        return wait.until(found, what=f"a running pod with {dict(labels)}", deadline_secs=deadline_secs)

    @contextlib.contextmanager
    def holding_starts(self) -> Iterator[None]:
        """For the block, new pods stay Pending, as with a slow image pull; running ones go on."""
        self._may_start.clear()
        try:
            yield
        finally:
            self._may_start.set()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """For the block, this node hears, reports and ends nothing, as behind a cut cable; its processes go on."""
        self._may_report.clear()
        try:
            yield
        finally:
            self._may_report.set()

    def refresh_volumes(self) -> None:
        """Bring changed Secrets and ConfigMaps into the running pods now; a real kubelet takes up to a minute."""
        for pod in self.pods():
            if pod.is_running:
                pod.files.write_volumes()

    def base_environment(
        self, pod: KubernetesObject, folder: Path, service_account_folder: str | None
    ) -> dict[str, str]:
        """What every container has, as far as its own specification does not say otherwise."""
        server = httpx.URL(self.client.server)
        environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
            "HOSTNAME": pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": server.host,
            "KUBERNETES_SERVICE_PORT": str(server.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(server.port),
        }
        for name in ("home", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if service_account_folder is not None:
            # the in-cluster paths are fixed in Kubernetes clients: a process has these two instead
            environment["MEMFERRY_SERVICE_ACCOUNT_FOLDER"] = service_account_folder
            environment["KUBECONFIG"] = str(
                write_kubeconfig(
                    folder / "kubeconfig",
                    server=self.client.server,
                    authority=Path(service_account_folder) / "ca.crt",
                    token_file=Path(service_account_folder) / "token",
                    namespace=pod["metadata"]["namespace"],
                )
            )
        return environment | self._env

    def may_start(self, timeout_secs: float) -> bool:
        """Whether starts are not held, within this time."""
        return self._may_start.wait(timeout_secs)

    def call(self, request: Callable[[], T]) -> T | None:
        """Tell the API server something; while it is away, or this node silent, again and again.

        Returns:
            The answer, or None if this kubelet closes before there is one.
        """
        while not self._closing.is_set():
            self._may_report.wait()
            try:
                return request()
            except httpx.TransportError:
                pass
            except ApiError as error:
                if error.code < 500 and error.code != _TOO_MANY:
                    raise
            self._closing.wait(_RETRY_SECS)
        return None

    def _watch(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(httpx.TransportError, ApiError, TestbedError):
                self._watch_once()
            self._closing.wait(_RETRY_SECS)

    def _watch_once(self) -> None:
        listed: set[str] = set()
        for kind, pod in self.client.watch(
            "Pod", namespace=self.namespace, timeout_secs=_WATCH_SECS, stop=self._watch_stop
        ):
            if kind == "SYNCED":
                with self._guard:
                    missed = [one for uid, one in self._pods.items() if uid not in listed]
                for one in missed:
                    one.vanish()
                continue
            if kind == "LISTED":
                listed.add(pod["metadata"]["uid"])
            self._see(pod, deleted=kind == "DELETED")

    def _see(self, content: KubernetesObject, *, deleted: bool) -> None:
        self._may_report.wait()
        if content["spec"].get("nodeName", self.node) != self.node:
            return
        uid = content["metadata"]["uid"]
        with self._guard:
            pod = self._pods.get(uid)
            is_new = pod is None and not deleted and content["status"].get("phase") not in {"Succeeded", "Failed"}
            if is_new and not self._closing.is_set():
                pod = self._pods[uid] = LocalPod(self, content)
        if pod is None:
            return
        if is_new:
            pod.start()
        if deleted:
            pod.vanish()
        elif "deletionTimestamp" in content["metadata"]:
            pod.delete(content["metadata"].get("deletionGracePeriodSeconds", 0))
