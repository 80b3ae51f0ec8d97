"""The custom resource definitions, made of the models.

What the API server cannot know is left to the operator: whether `where` is CEL over a record, and whether a gap is one
that a backend has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from memferry.manifest.backend_status import BackendStatus
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.model import KINDS
from memferry.manifest.status import MigrationStatus

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["GROUP", "VERSION", "crd", "crds", "crds_text", "text"]

GROUP: Final = "memferry.dev"
VERSION: Final = "v1alpha1"

_KEPT: Final = (
    "type",
    "description",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "maxItems",
    "maxProperties",
    "format",
    "required",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)


@dataclass(frozen=True)
class _Column:
    """A column of `kubectl get`; those of priority 1 only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            found["description"] = self.description
        if self.priority:
            found["priority"] = self.priority
        return found


@dataclass(frozen=True)
class _Definition:
    status: type[BaseModel]
    short_names: tuple[str, ...]
    columns: tuple[_Column, ...]
    selectable: tuple[str, ...] = field(default=())


_READY: Final = '.status.conditions[?(@.type=="Ready")].status'
_AGE: Final = _Column("Age", ".metadata.creationTimestamp", "date")

_DEFINITIONS: Final[dict[str, _Definition]] = {
    "MemoryMigration": _Definition(
        MigrationStatus,
        ("memmig",),
        (
            _Column("Phase", ".status.phase"),
            _Column("Reason", ".status.reason"),
            _Column("Percent", ".status.progress.percent", "integer"),
            _Column("Rate", ".status.progress.recordsPerSecond", "integer", description="records a second"),
            _Column("ETA", ".status.progress.etaSecs", "integer", description="seconds to go"),
            _Column("Active", ".status.traffic.active", description="the MemoryBackend that serves"),
            _AGE,
            _Column("Ready", _READY, priority=1),
            _Column("Source", ".spec.source.backendRef.name", priority=1),
            _Column("Target", ".spec.target.backendRef.name", priority=1),
            _Column("Attempt", ".status.attempt", "integer", priority=1),
            _Column("Approval", ".status.approval.token", priority=1),
        ),
        (".status.phase", ".spec.source.backendRef.name", ".spec.target.backendRef.name"),
    ),
    "MemoryBackend": _Definition(
        BackendStatus,
        ("membackend",),
        (
            _Column("Backend", ".spec.backend"),
            _Column("Profile", ".spec.profile"),
            _Column("Reachable", ".status.reachable", "boolean"),
            _Column("Version", ".status.serverVersion"),
            _Column("Records", ".status.records", "integer"),
            _AGE,
            _Column("Identity", ".status.storeIdentity", priority=1),
            _Column("Checked", ".status.checkedAt", "date", priority=1),
        ),
        (".spec.backend", ".status.storeIdentity"),
    ),
    "MemoryBinding": _Definition(
        BindingStatus,
        ("membinding",),
        (
            _Column("Active", ".status.active"),
            _Column("Mode", ".status.mode"),
            _Column("Revision", ".status.revision", "integer"),
            _Column("Acknowledged", ".status.clients.acknowledged", "integer"),
            _Column("Expected", ".status.clients.expected", "integer"),
            _Column("Migration", ".status.lockedBy.name"),
            _AGE,
            _Column("Ready", _READY, priority=1),
            _Column("Secret", ".status.binding.name", priority=1),
        ),
        (".status.active", ".status.mode"),
    ),
}


class _Dumper(yaml.SafeDumper):
    """Writes everything out."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is that of yaml
        return True


def crds() -> list[dict[str, Any]]:
    """All definitions."""
    return [crd(kind) for kind in _DEFINITIONS]


def crds_text() -> str:
    """All definitions as YAML, as they are applied."""
    return "---\n".join(text(one) for one in crds())


def text(definition: dict[str, Any]) -> str:
    """One definition as YAML."""
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


def crd(kind: str) -> dict[str, Any]:
    """The definition of a kind."""
    definition, plural = _DEFINITIONS[kind], f"{kind.lower()}s"
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _root(kind, definition.status)},
        "selectableFields": [{"jsonPath": path} for path in definition.selectable],
        "additionalPrinterColumns": [column.to_json() for column in definition.columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {f"{GROUP}/made-by": "memferry manifest crds"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(definition.short_names),
                "categories": ["memory"],
            },
            "versions": [version],
        },
    }


def _root(kind: str, status: type[BaseModel]) -> dict[str, Any]:
    schema = KINDS[kind].model_json_schema()
    found = _structural({**schema, "optional": True}, schema["$defs"], defaults=True)
    found["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": found["properties"]["spec"],
        "status": _status(status),
    }
    found["required"] = ["spec"]
    return found


def _status(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    return _structural(schema, schema["$defs"], defaults=False)


def _structural(schema: dict[str, Any], definitions: dict[str, Any], *, defaults: bool) -> dict[str, Any]:
    """A schema of pydantic as the API server wants it: no references, alternatives and `additionalProperties: false`.

    Args:
        schema: The schema.
        definitions: What references point to.
        defaults: Whether defaults are said; in a status nothing is there that nobody wrote.
    """
    for one in schema.get("anyOf", []):
        if one.get("type") != "null":
            outer = {key: value for key, value in schema.items() if key not in {"anyOf", "default"}}
            return _structural({**one, **outer, "optional": True}, definitions, defaults=defaults)
    if "$ref" in schema:
        behind = definitions[schema["$ref"].rsplit("/", maxsplit=1)[-1]]
        outer = {key: value for key, value in schema.items() if key != "$ref"}
        return _structural({**behind, **outer}, definitions, defaults=defaults)
    found: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        found["enum"] = [schema["const"]]
    if found["type"] == "integer":
        found["format"] = "int64"
    if "items" in schema:
        found["items"] = _structural({**schema["items"], "optional": True}, definitions, defaults=defaults)
    values = next(iter(schema.get("patternProperties", {}).values()), None)
    if values is not None:
        found["additionalProperties"] = _structural(values, definitions, defaults=defaults)
    if "properties" in schema:
        found["properties"] = {
            name: _structural(one, definitions, defaults=defaults) for name, one in schema["properties"].items()
        }
    if defaults:
        _add_default(found, schema)
    return found


def _add_default(found: dict[str, Any], schema: dict[str, Any]) -> None:
    """Objects that need nothing are always there, so that the defaults in them are."""
    inner = {name: one["default"] for name, one in found.get("properties", {}).items() if "default" in one}
    if isinstance(schema.get("default"), str | int | bool):
        found["default"] = schema["default"]
    elif inner and "required" not in found and "optional" not in schema:
        found["default"] = inner  # Written out, because the API server applies rules to it as it stands.
