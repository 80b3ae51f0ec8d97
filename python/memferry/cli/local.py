"""What a `MemoryMigration` means on a laptop: stores, options, and what is not acted upon."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from pydantic import BaseModel

from memferry._native import gap_names
from memferry.errors import RefusedError
from memferry.manifest import Credential, Manifest, ManifestError, MemoryBackend, MemoryMigration
from memferry.phases.plan import Options
from memferry.phases.transform import Decisions, parse_mapping
from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url

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
        "spec.validation.parity.queries",
        "spec.validation.parity.minRecall",
    }
)
IN_A_CLUSTER: Final = frozenset(
    {
        "spec.strategy",
        "spec.transfer.shards",
        "spec.transfer.maxRecordsPerSecond",
        "spec.transfer.maxDeletes",
        "spec.transfer.stallTimeout",
        "spec.transfer.resources",
        "spec.transfer.nodeSelector",
        "spec.transfer.tolerations",
        "spec.transfer.stateClaimName",
        "spec.validation.parity.k",
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
_MAX_SECRET_BYTES: Final = 64 << 10


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
    for gap in spec.accept_gaps:
        if gap not in gap_names():
            raise manifest.error(migration, "spec.acceptGaps", f"got `{gap}`, allowed: {', '.join(gap_names())}")
    ends = [
        manifest.backend(migration, "spec.source.backendRef.name", spec.source.backend_ref.name),
        manifest.backend(migration, "spec.target.backendRef.name", spec.target.backend_ref.name),
    ]
    left_out = sorted({_known(path) for path in given} - ACTED_UPON)
    if spec.stop_after == "Copy":
        left_out.append("spec.stopAfter Copy: the copy is verified as well")
    left_out += [f"MemoryBackend/{end.metadata.name} {path}" for end in ends for path in _of_backend(end)]
    source, target = (
        _store(manifest, migration, end, side) for end, side in zip(ends, ("SOURCE", "TARGET"), strict=True)
    )
    parity = spec.validation.parity
    caps = [end.spec.caps.concurrency for end in ends if end.spec.caps.concurrency is not None]
    options = Options(
        accept=tuple(sorted(set(spec.accept_gaps))),
        max_quarantined=spec.transfer.max_quarantined,
        parallelism=min([spec.transfer.parallelism, *caps]),
        parity=parity.queries if parity else 0,
        min_recall=float(parity.min_recall) if parity else None,
        transform=_decisions(manifest, migration),
    )
    return Local(migration.metadata.name, source, target, options, spec.stop_after, left_out)


def _decisions(manifest: Manifest, migration: MemoryMigration) -> Decisions:
    """Which records are moved, and how they are mapped."""
    spec = migration.spec
    conditions = [f"kind in {json.dumps(spec.scope.kinds)}"] if spec.scope.kinds else []
    conditions += [f"({spec.scope.where})"] if spec.scope.where and conditions else [spec.scope.where]
    where = " && ".join(condition for condition in conditions if condition) or None
    mapping = None
    try:
        if spec.mapping is not None:
            ref = spec.mapping.config_map_ref
            text = manifest.config_map(migration, "spec.mapping.configMapRef", ref.name, ref.key)
            mapping = parse_mapping(text.encode(), f"{ref.name}/{ref.key}")
        chosen = Decisions(where=where, mapping=mapping)
        chosen.check()
    except ManifestError:
        raise
    except RefusedError as error:
        path = "spec.scope.where" if error.code == "where" else "spec.mapping"
        raise manifest.error(migration, path, str(error)) from error
    return chosen


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
    cluster_only = ("spec.claimName", "spec.runAs", "spec.caps.recordsPerSecond")
    return sorted({one for path in paths for one in cluster_only if path == one or path.startswith(f"{one}.")})


def _store(manifest: Manifest, migration: MemoryMigration, backend: MemoryBackend, side: str) -> StoreUrl:
    spec = backend.spec
    if spec.graph_ref and spec.vectors_ref:
        graph, vectors = (
            _store(manifest, migration, manifest.backend(migration, f"spec.{end}.backendRef.name", ref.name), side)
            for end, ref in ((side.lower(), spec.graph_ref), (side.lower(), spec.vectors_ref))
        )
        return hybrid_url(graph, vectors, spec.identity)
    options = {"profile": spec.profile} if spec.profile != "native" else {}
    if spec.identity:
        options["identity"] = spec.identity
    if spec.distance is not None and spec.distance != "cosine":
        options["distance"] = spec.distance
    if spec.tls and spec.tls.enabled:
        options["tls"] = "1"
    query = f"?{urlencode(options)}" if options else ""
    if spec.path is not None:
        return parse_url(f"{spec.backend}:{_near(manifest.folder / spec.path)}{query}")
    user = f"{quote(spec.user, safe='')}@" if spec.user else ""
    name = quote(spec.collection or spec.database or "", safe="")
    ca = spec.tls.ca if spec.tls and spec.tls.enabled else None
    secrets = Secrets(
        api_key=_secret(manifest, backend, spec.api_key, "apiKey", f"MEMFERRY_{side}_API_KEY"),
        password=_secret(manifest, backend, spec.password, "password", f"MEMFERRY_{side}_PASSWORD"),
        ca_file=manifest.folder / ca.file if ca and ca.file else _default_ca(side) if ca else None,
    )
    return replace(parse_url(f"{spec.backend}://{user}{spec.address}/{name}{query}"), secrets=secrets)


def _near(path: Path) -> Path:
    """The path as a person in the current folder would write it."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path.resolve()


def _default_ca(side: str) -> Path | None:
    file = os.environ.get(f"MEMFERRY_{side}_CA_FILE")
    return Path(file) if file else None


def _secret(
    manifest: Manifest, backend: MemoryBackend, credential: Credential | None, field: str, default: str
) -> str | None:
    """What a credential names; a Secret of a cluster is looked for in the usual variable."""
    if credential is None:
        return None
    if credential.file is not None:
        path = manifest.folder / credential.file
        try:
            with path.open("rb") as file:
                return file.read(_MAX_SECRET_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise manifest.error(backend, f"spec.{field}.file", f"{path} cannot be read: {error}") from error
    variable = credential.env or default
    value = os.environ.get(variable)
    if value is None:
        why = f"the variable {variable} is not set"
        where = "env" if credential.env else "secretRef"
        text = why if credential.env else f"a Secret is out of reach here, and {why}"
        raise manifest.error(backend, f"spec.{field}.{where}", text)
    return value
