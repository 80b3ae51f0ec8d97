"""The spec of a MemoryBinding."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from memferry.manifest.parts import Labels, Part, Reference, once
from memferry.manifest.words import ObjectName

__all__ = ["Binding", "Clients", "Workload"]


class Clients(Part):
    """Who uses the memory."""

    selector: Labels = Field(default_factory=dict)
    """Labels of the pods that are expected to acknowledge a switch."""


class Workload(Part):
    """Something that is restarted."""

    kind: Literal["Deployment", "StatefulSet", "DaemonSet"] = "Deployment"
    """Its kind."""
    name: ObjectName
    """Its name."""


def _workloads_once(workloads: list[Workload]) -> list[Workload]:
    once([f"{one.kind}/{one.name}" for one in workloads])
    return workloads


_KEYED: Final = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"]}


class Binding(Part):
    """Which store an application uses."""

    initial_backend_ref: Reference
    """The store before the first switch."""
    clients: Clients = Field(default_factory=Clients)
    """Who uses it."""
    restart: Annotated[
        list[Workload], Field(max_length=64, json_schema_extra=_KEYED), AfterValidator(_workloads_once)
    ] = Field(default_factory=list)
    """Workloads that are restarted by a switch."""
