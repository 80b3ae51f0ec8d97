"""Who has to acknowledge a revision of a MemoryBinding: its clients, and workloads that are restarted instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.clients import expected_clients
from memferry_operator.names import GROUP
from memferry_operator.observed import Client

__all__ = ["RESTARTED_FOR", "clients", "restarted"]

RESTARTED_FOR: Final = f"{GROUP}/restarted-for"
"""On the pods of a workload that is restarted by a switch: the revision they were started for."""


def clients(
    spec: Binding,
    pods: Iterable[dict[str, Any]],
    leases: Iterable[dict[str, Any]],
    now: datetime,
    workloads: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    started: Mapping[tuple[str, str], Iterable[Mapping[str, Any]]] | None = None,
    status: BindingStatus | None = None,
) -> tuple[Client, ...]:
    """Who has to acknowledge, with what each says: pods, live Leases, and workloads that are restarted instead.

    Args:
        spec: Of the binding.
        pods: Pods that match its selector.
        leases: Leases with its label.
        now: The time.
        workloads: What `spec.restart` names, by kind and name.
        started: The pods of each of them, read after it.
        status: Of the binding: what a restarted workload acknowledges by being there.
    """
    found = [
        Client(
            name=one.name,
            heard_at=one.heard_at,
            revision=one.revision,
            mode="Frozen" if one.mode == "Frozen" else "Serving" if one.mode == "Serving" else None,
            active=one.active,
            errors=one.errors,
        )
        for one in expected_clients(spec.clients.selector, pods, leases, now)
    ]
    for workload in spec.restart:
        there = (workloads or {}).get((workload.kind, workload.name))
        its = (started or {}).get((workload.kind, workload.name))
        done = status is not None and there is not None and its is not None and restarted(there, its, status.revision)
        name = f"{workload.kind}/{workload.name}"
        found.append(
            Client(name, None, status.revision, status.mode, status.active) if done and status else Client(name)
        )
    return tuple(found)


def restarted(workload: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], revision: int) -> bool:
    """Whether all pods of a workload were started for this revision, and the old ones are gone.

    A status says nothing of pods that are still ending in every version of Kubernetes, and nothing of those of a node
    that is lost: each pod says itself what it was started for.
    """
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    metadata = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    if metadata.get(RESTARTED_FOR) != str(revision):
        return False
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False
    daemon = "desiredNumberScheduled" in status
    wanted = status["desiredNumberScheduled"] if daemon else spec.get("replicas", 1)
    new = status.get("updatedNumberScheduled" if daemon else "updatedReplicas", 0)
    everyone = status.get("currentNumberScheduled" if daemon else "replicas", 0)
    return bool(new == wanted == everyone) and all(_ended(pod) or _started_for(pod) == str(revision) for pod in pods)


def _ended(pod: Mapping[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _started_for(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(RESTARTED_FOR, ""))
