"""What the resources of a manifest mean: stores, decisions and options. Where it is read is injected: laptop or pod."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, urlencode

from memferry._native import gap_names
from memferry.errors import ManifestError, RefusedError
from memferry.manifest import Credential, Manifest, MemoryBackend, MemoryMigration
from memferry.phases.plan import Options
from memferry.phases.transform import Decisions, parse_mapping
from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url

__all__ = ["Ends", "Laptop", "Surroundings", "ends", "store"]

MAX_SECRET_BYTES: Final = 64 << 10


class Surroundings(Protocol):
    """Where a manifest is read, and so where its files and secrets are."""

    def file(self, manifest: Manifest, backend: MemoryBackend) -> Path:
        """The file of a store."""

    def identity(self, backend: MemoryBackend) -> str | None:
        """What names a store whose address does not name it here."""

    def secret(
        self, manifest: Manifest, backend: MemoryBackend, credential: Credential | None, field: str, side: str
    ) -> str | None:
        """What a credential names."""

    def authority(self, manifest: Manifest, backend: MemoryBackend, side: str) -> Path | None:
        """The file of the authority to trust instead of the system's."""


@dataclass(frozen=True)
class Ends:
    """What a migration is about.

    Attributes:
        source: Where from.
        target: Where to.
        options: What was chosen.
        backends: The resources of both ends.
    """

    source: StoreUrl
    target: StoreUrl
    options: Options
    backends: tuple[MemoryBackend, MemoryBackend]


def ends(manifest: Manifest, migration: MemoryMigration, surroundings: Surroundings) -> Ends:
    """Reads a migration.

    Raises:
        ManifestError: Something it names is not there.
    """
    spec = migration.spec
    for gap in spec.accept_gaps:
        if gap not in gap_names():
            raise manifest.error(migration, "spec.acceptGaps", f"got `{gap}`, allowed: {', '.join(gap_names())}")
    source = manifest.backend(migration, "spec.source.backendRef.name", spec.source.backend_ref.name)
    target = manifest.backend(migration, "spec.target.backendRef.name", spec.target.backend_ref.name)
    parity = spec.validation.parity
    caps = [end.spec.caps for end in (source, target)]
    concurrency = [cap.concurrency for cap in caps if cap.concurrency is not None]
    rates = [cap.records_per_second for cap in caps] + [spec.transfer.max_records_per_second]
    options = Options(
        accept=tuple(sorted(set(spec.accept_gaps))),
        max_quarantined=spec.transfer.max_quarantined,
        parallelism=min([spec.transfer.parallelism, *concurrency]),
        parity=parity.queries if parity else 0,
        neighbours=parity.k if parity else Options.neighbours,
        min_recall=float(parity.min_recall) if parity else None,
        transform=_decisions(manifest, migration),
        max_records_per_second=min((float(rate) for rate in rates if rate is not None), default=None),
    )
    return Ends(
        store(manifest, migration, source, "SOURCE", surroundings),
        store(manifest, migration, target, "TARGET", surroundings),
        options,
        (source, target),
    )


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


def store(
    manifest: Manifest,
    user: MemoryMigration | None,
    backend: MemoryBackend,
    side: str,
    surroundings: Surroundings,
) -> StoreUrl:
    """The store that a MemoryBackend describes.

    Args:
        manifest: Where it stands.
        user: The migration that names it; None where it is looked at by itself.
        backend: The resource.
        side: `SOURCE` or `TARGET`.
        surroundings: Where its files and secrets are.

    Raises:
        ManifestError: Something it names is not there.
    """
    spec = backend.spec
    if spec.graph_ref and spec.vectors_ref:
        graph, vectors = (
            store(manifest, user, _half(manifest, user, backend, side, ref.name), side, surroundings)
            for ref in (spec.graph_ref, spec.vectors_ref)
        )
        return hybrid_url(graph, vectors, spec.identity)
    options = {"profile": spec.profile} if spec.profile != "native" else {}
    identity = spec.identity or surroundings.identity(backend)
    if identity:
        options["identity"] = identity
    if spec.distance is not None and spec.distance != "cosine":
        options["distance"] = spec.distance
    if spec.tls and spec.tls.enabled:
        options["tls"] = "1"
    query = f"?{urlencode(options)}" if options else ""
    if spec.path is not None:
        return parse_url(f"{spec.backend}:{surroundings.file(manifest, backend)}{query}")
    login = f"{quote(spec.user, safe='')}@" if spec.user else ""
    name = quote(spec.collection or spec.database or "", safe="")
    secrets = Secrets(
        api_key=surroundings.secret(manifest, backend, spec.api_key, "apiKey", side),
        password=surroundings.secret(manifest, backend, spec.password, "password", side),
        ca_file=surroundings.authority(manifest, backend, side),
    )
    return replace(parse_url(f"{spec.backend}://{login}{spec.address}/{name}{query}"), secrets=secrets)


def _half(
    manifest: Manifest, user: MemoryMigration | None, backend: MemoryBackend, side: str, name: str
) -> MemoryBackend:
    if user is not None:
        return manifest.backend(user, f"spec.{side.lower()}.backendRef.name", name)
    for document in manifest.documents:
        resource = document.resource
        if isinstance(resource, MemoryBackend) and resource.metadata.name == name:
            return resource
    raise manifest.error(backend, "spec", f"there is no MemoryBackend `{name}` in this file")


class Laptop:
    """A file in a folder, the environment, and people."""

    def file(self, manifest: Manifest, backend: MemoryBackend) -> Path:
        """Relative to the manifest, as a person in the current folder would write it."""
        path = (manifest.folder / (backend.spec.path or "")).resolve()
        try:
            return path.relative_to(Path.cwd())
        except ValueError:
            return path

    def identity(self, backend: MemoryBackend) -> None:
        """A file is where it lies."""

    def secret(
        self, manifest: Manifest, backend: MemoryBackend, credential: Credential | None, field: str, side: str
    ) -> str | None:
        """What a credential names; a Secret of a cluster is looked for in the usual variable."""
        if credential is None:
            return None
        if credential.file is not None:
            return read_secret(manifest, backend, f"spec.{field}.file", manifest.folder / credential.file)
        usual = {"apiKey": f"MEMFERRY_{side}_API_KEY", "password": f"MEMFERRY_{side}_PASSWORD"}
        variable = credential.env or usual[field]
        value = os.environ.get(variable)
        if value is None:
            why = f"the variable {variable} is not set"
            where = "env" if credential.env else "secretRef"
            text = why if credential.env else f"a Secret is out of reach here, and {why}"
            raise manifest.error(backend, f"spec.{field}.{where}", text)
        return value

    def authority(self, manifest: Manifest, backend: MemoryBackend, side: str) -> Path | None:
        """A file relative to the manifest, or what the usual variable names."""
        tls = backend.spec.tls
        ca = tls.ca if tls and tls.enabled else None
        if ca is None:
            return None
        if ca.file:
            return manifest.folder / ca.file
        file = os.environ.get(f"MEMFERRY_{side}_CA_FILE")
        return Path(file) if file else None


def read_secret(manifest: Manifest, backend: MemoryBackend, field: str, path: Path) -> str:
    """A file with nothing but a secret in it.

    Raises:
        ManifestError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_SECRET_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise manifest.error(backend, field, f"{path} cannot be read: {error}") from error
