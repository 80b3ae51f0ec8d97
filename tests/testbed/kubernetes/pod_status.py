"""What a kubelet says about a pod, as patches of its status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["ContainerState", "now", "pod_status", "waiting_status"]

_SIGNAL_BASE = 128


@dataclass
class ContainerState:
    """One container, as far as it got.

    Attributes:
        name: Its name in the pod.
        image: What it runs.
        started_at: When, if it was started.
        finished_at: When, if it has ended.
        exit_code: As a shell says it: 128 + number for a signal.
        message: The end of its log, where the pod asks for it.
        restarts: How often it was started again.
        waiting: Why it does not run, if it is about to.
    """

    name: str
    image: str
    started_at: str | None = None
    finished_at: str | None = None
    exit_code: int | None = None
    message: str = ""
    restarts: int = 0
    waiting: str = "ContainerCreating"

    def started(self) -> None:
        """Note its start, also its next one."""
        self.started_at, self.finished_at, self.exit_code, self.message = now(), None, None, ""

    def ended(self, exit_code: int, message: str = "") -> None:
        """Note its end, by a process's exit code, which is negative for a signal."""
        self.finished_at = now()
        self.exit_code = exit_code if exit_code >= 0 else _SIGNAL_BASE - exit_code
        self.message = message

    def status(self) -> dict[str, Any]:
        """Its entry in `containerStatuses`."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": f"testbed://{self.name}-{self.restarts}",
            "restartCount": self.restarts,
            "ready": self.is_running,
            "started": self.is_running,
            # every key: a patch must also remove the former state
            "state": {"waiting": None, "running": None, "terminated": None} | self._state(),
        }

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.started_at is not None and self.exit_code is None

    def _state(self) -> dict[str, Any]:
        if self.exit_code is not None:
            terminated: dict[str, Any] = {
                "exitCode": self.exit_code,
                "reason": "Completed" if self.exit_code == 0 else "Error",
                "startedAt": self.started_at,
                "finishedAt": self.finished_at,
            }
            if self.exit_code > _SIGNAL_BASE:
                terminated["signal"] = self.exit_code - _SIGNAL_BASE
            if self.message:
                terminated["message"] = self.message
            return {"terminated": terminated}
        if self.started_at is not None:
            return {"running": {"startedAt": self.started_at}}
        return {"waiting": {"reason": self.waiting}}


def pod_status(
    phase: str, containers: list[ContainerState], *, init: list[ContainerState] | None = None, address: str
) -> dict[str, Any]:
    """The status of a pod whose containers are in these states."""
    ready = phase == "Running" and all(one.is_running for one in containers)
    done = "PodCompleted" if phase == "Succeeded" else None
    initialized = all(one.exit_code == 0 for one in init or [])
    status: dict[str, Any] = {
        "phase": phase,
        "hostIP": address,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            _condition("PodScheduled", value=True),
            _condition("Initialized", value=initialized),
            _condition("ContainersReady", value=ready, reason=done),
            _condition("Ready", value=ready, reason=done),
        ],
        "containerStatuses": [one.status() for one in containers],
    }
    started = [one.started_at for one in [*(init or []), *containers] if one.started_at]
    if started:
        status["startTime"] = min(started)
    if init:
        status["initContainerStatuses"] = [one.status() for one in init]
    return status


def waiting_status(containers: list[ContainerState], message: str, *, address: str) -> dict[str, Any]:
    """The status of a pod that cannot start yet, and why."""
    status = pod_status("Pending", containers, address=address)
    for one in status["containerStatuses"]:
        one["state"] = {"waiting": {"reason": "ContainerCreating", "message": message}}
    return status


def now() -> str:
    """This second, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(kind: str, *, value: bool, reason: str | None = None) -> dict[str, Any]:
    return {"type": kind, "status": str(value), "reason": reason, "lastTransitionTime": now()}
