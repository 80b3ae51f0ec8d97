"""What a `MemoryMigration` means on a laptop: stores, options, and what is not acted upon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from memferry.manifest import Manifest, MemoryBackend, MemoryMigration
from memferry.phases.plan import Options
from memferry.resources import Laptop, ends
from memferry.urls import StoreUrl

__all__ = ["ACTED_UPON", "IN_A_CLUSTER", "Local", "local"]

ACTED_UPON: Final = frozenset(
    {
        "spec.source",
        "spec.target",
        "spec.scope",
        "spec.mapping",
        "spec.acceptGaps",
        "spec.stopAfter",
        "spec.suspend",
        "spec.transfer.parallelism",
        "spec.transfer.maxQuarantined",
        "spec.transfer.maxRecordsPerSecond",
        "spec.validation.parity.k",
        "spec.validation.parity.queries",
        "spec.validation.parity.minRecall",
    }
)
IN_A_CLUSTER: Final = frozenset(
    {
        "spec.strategy",
        "spec.transfer.shards",
        "spec.transfer.maxDeletes",
        "spec.transfer.stallTimeout",
        "spec.transfer.resources",
        "spec.transfer.nodeSelector",
        "spec.transfer.tolerations",
        "spec.transfer.stateClaimName",
        "spec.cutover",
        "spec.monitoring",
        "spec.decommission",
        "spec.operationToken",
        "spec.retryToken",
    }
)
"""Accepted, and said not to be acted upon."""

_NOT_HERE: Final = {
    "spec.operation": "is acted upon in a cluster only; `memferry rollback` takes a migration back",
}
"""What would change the outcome, and so is refused rather than left out."""

_AS_HERE: Final = (("spec.strategy", "Offline"), ("spec.decommission.policy", "Retain"))
"""Meant for a cluster, and what happens here anyway."""

_NOTHING: Final[tuple[object, ...]] = ("", [], None)


@dataclass(frozen=True)
class Local:
    """A migration as the command line runs it.

    Attributes:
        name: Name of the resource.
        source: Where from.
        target: Where to.
        options: What was chosen.
        stop_after: Where a rehearsal ends.
        left_out: Fields that were set and are not acted upon.
    """

    name: str
    source: StoreUrl
    target: StoreUrl
    options: Options
    stop_after: str | None
    left_out: list[str]


def local(manifest: Manifest, migration: MemoryMigration) -> Local:
    """Reads a migration for this machine.

    Raises:
        ManifestError: Something it names is not there, or would change the outcome and is not possible here.
    """
    spec = migration.spec
    given = [path for path, value in _given(spec, "spec") if (path, value) not in _AS_HERE and value not in _NOTHING]
    for path, why in _NOT_HERE.items():
        if any(one == path or one.startswith(f"{path}.") for one in given):
            raise manifest.error(migration, path, why)
    meant = ends(manifest, migration, Laptop())
    left_out = sorted({_known(path) for path in given} - ACTED_UPON)
    if spec.stop_after == "Copy":
        left_out.append("spec.stopAfter Copy: the copy is verified as well")
    left_out += [f"MemoryBackend/{end.metadata.name} {path}" for end in meant.backends for path in _of_backend(end)]
    name = migration.metadata.name
    return Local(name, meant.source, meant.target, meant.options, spec.stop_after, left_out)


def _given(part: BaseModel, path: str) -> Iterator[tuple[str, object]]:
    """Paths and values of the fields that the manifest sets."""
    for name in type(part).model_fields:
        if name not in part.model_fields_set:
            continue
        value, here = getattr(part, name), f"{path}.{type(part).model_fields[name].alias}"
        if isinstance(value, BaseModel):
            yield from _given(value, here)
        else:
            yield here, value


def _known(path: str) -> str:
    """The entry of the two lists that a path falls under."""
    return next((p for p in ACTED_UPON | IN_A_CLUSTER if path == p or path.startswith(f"{p}.")), path)


def _of_backend(backend: MemoryBackend) -> list[str]:
    paths = [path for path, _ in _given(backend.spec, "spec")]
    cluster_only = ("spec.claimName", "spec.runAs")
    return sorted({one for path in paths for one in cluster_only if path == one or path.startswith(f"{one}.")})
