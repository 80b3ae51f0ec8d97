"""The life of one pod of a `LocalKubelet`, in a thread of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed.errors import TestbedError
from testbed.kubernetes.client import ApiError, KubernetesObject
from testbed.kubernetes.fake_kubelet import bind
from testbed.kubernetes.pod_files import NotYetError, PodFiles
from testbed.kubernetes.pod_status import ContainerState, pod_status, waiting_status
from testbed.process import ManagedProcess

if TYPE_CHECKING:
    from testbed.kubernetes.local_kubelet import LocalKubelet

__all__ = ["LocalPod"]

_ADDRESS = "127.0.0.1"
_RETRY_SECS = 0.1
_RESTART_SECS = 1.0  # a real one waits 10 s, and longer each time
_FOREVER_SECS = 86400.0
_SERVICE_ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_MESSAGE_BYTES = 2048
_START_ERROR = 128


class LocalPod:
    """One pod: volumes, init containers, containers, its status and its end.

    Attributes:
        name: Of its object.
        labels: Of its object.
        folder: Its volumes and logs.
        files: Its volumes and environment.
    """

    def __init__(self, kubelet: LocalKubelet, content: KubernetesObject) -> None:
        metadata = content["metadata"]
        self.name: str = metadata["name"]
        self.labels: dict[str, str] = metadata.get("labels", {})
        self.folder = kubelet.folder / "pods" / f"{self.name}-{metadata['uid'][:8]}"
        self._kubelet = kubelet
        self._content = content
        self.files = PodFiles(kubelet.client, content, self.folder / "volumes", kubelet.claim_folder)
        spec = content["spec"]
        self._init = [ContainerState(one["name"], one["image"]) for one in spec.get("initContainers", [])]
        self._states = [ContainerState(one["name"], one["image"]) for one in spec["containers"]]
        self._processes: dict[str, ManagedProcess] = {}
        self._changed = threading.Condition()
        self._grace_ends_at: float | None = None
        self._gone = False
        self._running = False
        self._finished = False
        self._thread = threading.Thread(target=self._live, name=f"testbed-pod-{self.name}", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether its containers were started and the pod has not ended."""
        return self._running and self._thread.is_alive()

    def process(self, container: str | None = None) -> ManagedProcess:
        """The process of a container, of the first one if not named."""
        name = container or self._states[0].name
        if name not in self._processes:
            raise TestbedError(f"container {name} of pod {self.name} was not started")
        return self._processes[name]

    def log(self, container: str | None = None) -> str:
        """What a container has written so far, on both streams and over all its starts."""
        path = self._log_path(container or self._states[0].name)
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Begin its life."""
        self._thread.start()

    def delete(self, grace_secs: float) -> None:
        """End it in good order: SIGTERM, after the grace period SIGKILL, then the object goes."""
        with self._changed:
            ends_at = time.monotonic() + grace_secs
            self._grace_ends_at = min(ends_at, self._grace_ends_at or ends_at)
            self._changed.notify_all()
            is_late = self._finished
        if is_late:
            self._remove()

    def vanish(self) -> None:
        """Its object is gone: kill what runs and tell nobody."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for its end."""
        if self._thread.ident is not None:
            self._thread.join()

    def _live(self) -> None:
        try:
            self._kubelet.call(self._bind)
            if self._prepare():
                self._run()
            else:
                self._finish("Failed")  # so that its Job counts it
        except ApiError as error:
            if error.code not in {404, 409}:  # the object went or is another one
                raise
        except TestbedError as error:
            self._give_up(str(error))
        finally:
            self._running = False
            self._kill()
        with self._changed:
            self._finished = True
            is_deleted = self._is_deleted()
        if is_deleted:
            self._remove()

    def _bind(self) -> None:
        if "nodeName" not in self._content["spec"]:
            metadata = self._content["metadata"]
            bind(self._kubelet.client, self._kubelet.namespace, self.name, self._kubelet.node, metadata["uid"])
            self._content["spec"]["nodeName"] = self._kubelet.node

    def _prepare(self) -> bool:
        """Make volumes and check the environment; False if the pod was deleted meanwhile."""
        said = ""
        while not self._is_deleted() and not self._kubelet.may_start(_RETRY_SECS):
            pass  # held
        while not self._is_deleted():
            try:
                self._kubelet.call(self._write)
            except NotYetError as missing:
                if str(missing) != said:
                    said = str(missing)
                    self._report(waiting_status(self._states, said, address=_ADDRESS))
            else:
                return True
            with self._changed:
                self._changed.wait_for(self._is_deleted, _RETRY_SECS)
        return False

    def _write(self) -> None:
        self.files.write_volumes()
        for container in self._containers("initContainers") + self._containers("containers"):
            self.files.environment(container)

    def _run(self) -> None:
        for container, state in zip(self._containers("initContainers"), self._init, strict=True):
            self._start(container, state)
            self._report(pod_status("Pending", self._states, init=self._init, address=_ADDRESS))
            self._wait([(container, state)], restarts=self._restart_policy != "Never", until_zero=True)
            if state.exit_code != 0:
                self._finish("Failed")
                return
        pairs = list(zip(self._containers("containers"), self._states, strict=True))
        for container, state in pairs:
            self._start(container, state)
        self._running = True
        self._report(pod_status("Running", self._states, init=self._init, address=_ADDRESS))
        self._wait(pairs, restarts=self._restart_policy != "Never", until_zero=self._restart_policy == "OnFailure")
        self._running = False
        self._finish("Succeeded" if all(state.exit_code == 0 for state in self._states) else "Failed")

    def _start(self, container: Mapping[str, Any], state: ContainerState) -> None:
        entrypoint = self._kubelet.entrypoints.get(container["image"], [])
        own = self.files.environment(container)
        account = self.files.local(container, _SERVICE_ACCOUNT_PATH)
        mounted = account if account != _SERVICE_ACCOUNT_PATH else None
        environment = self._kubelet.base_environment(self._content, self.folder, mounted) | own
        nothing_inherited: dict[str, str | None] = dict.fromkeys(os.environ)
        directory = container.get("workingDir")
        process = ManagedProcess(
            f"{self.name}/{state.name}",
            self.files.command(container, entrypoint, environment),
            log_path=self._log_path(state.name),
            env=nothing_inherited | environment,
            cwd=Path(self.files.local(container, directory)) if directory else self.folder,
            forked=True,
        )
        process.start()
        state.started()
        self._processes[state.name] = process
        group = process.pid
        threading.Thread(
            target=self._watch_process,
            args=(process, group, container, state),
            name=f"testbed-{self.name}",
            daemon=True,
        ).start()

    def _watch_process(
        self, process: ManagedProcess, group: int, container: Mapping[str, Any], state: ContainerState
    ) -> None:
        exit_code = process.wait(deadline_secs=_FOREVER_SECS)
        with contextlib.suppress(ProcessLookupError):  # what it left behind ends with the container
            os.killpg(group, signal.SIGKILL)
        message = ""
        if exit_code != 0 and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = process.log_since_start()[-_MESSAGE_BYTES:]
        with self._changed:
            state.ended(exit_code, message)
            self._changed.notify_all()

    def _wait(
        self, pairs: Sequence[tuple[Mapping[str, Any], ContainerState]], *, restarts: bool, until_zero: bool
    ) -> None:
        """Until the containers have ended for good, or the pod was deleted and they were ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_deleted() or any(not one.is_running for _, one in pairs))
            if self._is_deleted():
                self._terminate()
                return
            if not restarts or (until_zero and all(state.exit_code == 0 for _, state in pairs)):
                with self._changed:
                    self._changed.wait_for(lambda: self._is_deleted() or all(not one.is_running for _, one in pairs))
                if self._is_deleted():
                    self._terminate()
                return
            self._restart_ended(pairs, until_zero=until_zero)

    def _restart_ended(self, pairs: Sequence[tuple[Mapping[str, Any], ContainerState]], *, until_zero: bool) -> None:
        self._report_running()
        with self._changed:
            self._changed.wait_for(self._is_deleted, _RESTART_SECS)
        if self._is_deleted():
            return
        for container, state in pairs:
            if not state.is_running and not (until_zero and state.exit_code == 0):
                state.restarts += 1
                self._start(container, state)
        self._report_running()

    def _report_running(self) -> None:
        self._report(pod_status("Running", self._states, init=self._init, address=_ADDRESS))

    def _terminate(self) -> None:
        """SIGTERM to every container, SIGKILL to those that outlive the grace period."""
        running = [process for process in self._processes.values() if process.is_running]
        if not self._gone:
            for process in running:
                with contextlib.suppress(TestbedError, ProcessLookupError):
                    os.kill(process.pid, signal.SIGTERM)
            with self._changed:
                self._changed.wait_for(lambda: self._gone or self._all_ended(), self._grace_left())
        self._kill()
        with self._changed:
            self._changed.wait_for(self._all_ended)

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill9()

    def _all_ended(self) -> bool:
        return not any(state.is_running for state in [*self._init, *self._states])

    def _grace_left(self) -> float:
        return max(0.0, (self._grace_ends_at or 0.0) - time.monotonic())

    def _finish(self, phase: str) -> None:
        if not self._gone:
            self._report(pod_status(phase, self._states, init=self._init, address=_ADDRESS))

    def _give_up(self, reason: str) -> None:
        """What a real kubelet calls a start error."""
        for state in self._states:
            if state.exit_code is None:
                state.ended(_START_ERROR, reason)
        with contextlib.suppress(ApiError):
            self._finish("Failed")

    def _report(self, status: dict[str, Any]) -> None:
        metadata = {"uid": self._content["metadata"]["uid"]}  # refused for another pod of this name
        change = {"metadata": metadata, "status": status}
        self._kubelet.call(
            lambda: self._kubelet.client.patch(
                "Pod",
                self.name,
                change,
                namespace=self._kubelet.namespace,
                subresource="status",
                strategic=True,
            )
        )

    def _remove(self) -> None:
        if self._gone:
            return
        client, namespace = self._kubelet.client, self._kubelet.namespace
        uid = self._content["metadata"]["uid"]
        with contextlib.suppress(ApiError):  # it is gone, or another one has its name
            self._kubelet.call(lambda: client.delete("Pod", self.name, namespace=namespace, grace_secs=0, uid=uid))

    def _is_deleted(self) -> bool:
        return self._gone or self._grace_ends_at is not None

    def _containers(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._content["spec"].get(kind, [])
        return found

    @property
    def _restart_policy(self) -> str:
        return str(self._content["spec"].get("restartPolicy", "Always"))

    def _log_path(self, container: str) -> Path:
        return self.folder / "logs" / f"{container}.log"
