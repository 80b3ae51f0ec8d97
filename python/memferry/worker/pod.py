"""Where a worker runs: its folder, claims and state, its migration and attempt, and its line of JSON."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memferry.backends.jsonl.target import identity_of
from memferry.errors import RefusedError
from memferry.ledger import Claim
from memferry.manifest import Credential, Manifest, MemoryBackend, MemoryMigration, read_manifest
from memferry.resources import read_secret

__all__ = ["InPod", "Pod", "log", "now"]

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_OUT = threading.Lock()


def now() -> str:
    """This instant as Kubernetes writes it in Leases."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def log(event: str, **fields: Any) -> None:
    """A line of JSON on stdout. No secret and no content of a memory is given to it."""
    with _OUT:
        sys.stdout.write(json.dumps({"at": now(), "event": event, **fields}, ensure_ascii=False) + "\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class Pod:
    """What a worker is told.

    Attributes:
        folder: Manifest, projected secrets and ConfigMaps.
        claims: Where claims are mounted, each under its name.
        mounts: Claims that are mounted elsewhere, each in a folder of its name.
        namespace: Its namespace.
        migration: Name of the migration.
        uid: Uid of the migration.
        attempt: Attempt of the migration.
        name: Name of the pod.
        index: Completion index of the Job.
        service_account: Where token and authority of the API server are.
        result: Secret for a probe's result, where it is not the migration's.
        probe: Number of a probe.
        journals: Of a probe: the bindings whose journal is asked for, as JSON.
        decommission: Of `retire`: the policy that was confirmed, where that is not the one of the manifest, which is as
            it was when the attempt began.
        in_cluster: Whether there is an API server.
    """

    folder: Path
    claims: Path
    namespace: str
    migration: str
    uid: str
    attempt: int
    name: str
    index: int
    service_account: Path
    result: str
    in_cluster: bool
    mounts: tuple[Path, ...] = ()
    probe: str = ""
    journals: str = "{}"
    decommission: str = ""

    @classmethod
    def of(
        cls,
        folder: Path,
        claims: Path,
        environment: Mapping[str, str] = os.environ,
        mounts: Sequence[Path] = (),
    ) -> Pod:
        """Reads the environment.

        Raises:
            RefusedError: `invalid`, a variable is missing or no number.
        """

        def text(name: str, usual: str | None = None) -> str:
            value = environment.get(name, usual)
            if not value and usual is None:
                raise RefusedError("invalid", f"the variable {name} is not set")
            return value or ""

        def number(name: str, usual: str) -> int:
            value = text(name, usual)
            if not (value.isdecimal() and len(value) <= 9):
                raise RefusedError("invalid", f"the variable {name} is {value[:40]!r}, allowed: a number")
            return int(value)

        in_cluster = bool(environment.get("KUBERNETES_SERVICE_HOST"))
        # Beside a cluster, in tests, nobody else is there.
        usual = None if in_cluster else "local"
        return cls(
            folder,
            claims,
            namespace=text("MEMFERRY_NAMESPACE", usual),
            migration=text("MEMFERRY_MIGRATION", ""),
            uid=text("MEMFERRY_MIGRATION_UID", "" if environment.get("MEMFERRY_RESULT") else usual),
            attempt=number("MEMFERRY_ATTEMPT", "1"),
            name=text("MEMFERRY_POD_NAME", None if in_cluster else socket.gethostname()),
            index=number("JOB_COMPLETION_INDEX", "0"),
            service_account=Path(text("MEMFERRY_SERVICE_ACCOUNT_FOLDER", _SERVICE_ACCOUNT)),
            result=text("MEMFERRY_RESULT", ""),
            in_cluster=in_cluster,
            mounts=tuple(mounts),
            probe=text("MEMFERRY_PROBE", ""),
            journals=text("MEMFERRY_JOURNALS", "{}"),
            decommission=text("MEMFERRY_DECOMMISSION", ""),
        )

    def claim(self, shard: int | None = None) -> Claim:
        """For whom this worker takes a lock."""
        return Claim(self.uid, self.attempt, shard)

    def manifest(self) -> Manifest:
        """The manifest in the folder."""
        return read_manifest(self.folder / "migration.yaml")

    def find(self, manifest: Manifest) -> MemoryMigration:
        """Its migration.

        Raises:
            RefusedError: `manifest`, there is not exactly one.
        """
        found = [m for m in manifest.migrations() if self.migration in {"", m.metadata.name}]
        if len(found) != 1:
            raise RefusedError(
                "manifest", f"{manifest.file}: {len(found)} MemoryMigrations `{self.migration}`, needed: 1"
            )
        return found[0]


class InPod:
    """Surroundings of a manifest in a pod: claims and projected volumes."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod

    def file(self, manifest: Manifest, backend: MemoryBackend) -> Path:
        """Relative to its claim, and never out of it."""
        spec = backend.spec
        if spec.claim_name is None:
            raise manifest.error(
                backend, "spec.claimName", "in a cluster a file lies on a claim, which has to be named"
            )
        mounted = [path for path in self._pod.mounts if path.name == spec.claim_name]
        claim = (mounted[0] if mounted else self._pod.claims / spec.claim_name).resolve()
        path = (claim / (spec.path or "").lstrip("/")).resolve()
        if not path.is_relative_to(claim):
            raise manifest.error(backend, "spec.path", f"got `{spec.path}`, allowed: a path within the claim")
        return path

    def identity(self, backend: MemoryBackend) -> str | None:
        """A file without an id in it is named by its claim: where that is mounted says nothing."""
        spec = backend.spec
        if spec.backend != "jsonl":
            return None
        place = Path("/", self._pod.namespace, spec.claim_name or "", (spec.path or "").lstrip("/"))
        return identity_of(place)

    def secret(
        self,
        manifest: Manifest,
        backend: MemoryBackend,
        credential: Credential | None,
        field: str,
        side: str,  # noqa: ARG002 - a pod has no variables for the sides
    ) -> str | None:
        """A projected file."""
        if credential is None:
            return None
        if credential.secret_ref is None:
            raise manifest.error(backend, f"spec.{field}", "in a cluster a credential is a key of a Secret: secretRef")
        ref = credential.secret_ref
        return read_secret(
            manifest, backend, f"spec.{field}.secretRef", self._pod.folder / "secrets" / ref.name / ref.key
        )

    def authority(self, manifest: Manifest, backend: MemoryBackend, side: str) -> Path | None:  # noqa: ARG002
        """A projected file."""
        tls = backend.spec.tls
        ca = tls.ca if tls and tls.enabled else None
        if ca is None:
            return None
        if ca.config_map_ref is not None:
            return self._pod.folder / "config" / ca.config_map_ref.name / ca.config_map_ref.key
        if ca.secret_ref is not None:
            return self._pod.folder / "secrets" / ca.secret_ref.name / ca.secret_ref.key
        raise manifest.error(backend, "spec.tls.ca", "in a cluster an authority is a key: configMapRef or secretRef")
