"""Names, labels and annotations of everything the operator makes."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

GROUP: Final = "memferry.dev"
VERSION: Final = "v1alpha1"
MANAGER: Final = "memferry-operator"
FINALIZER: Final = f"{GROUP}/cleanup"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MIGRATION: Final = f"{GROUP}/migration"
UID: Final = f"{GROUP}/migration-uid"
"""On pods: they are of the migration also when their Job is gone."""
ROLE: Final = f"{GROUP}/role"
ATTEMPT: Final = f"{GROUP}/attempt"
BINDING: Final = f"{GROUP}/binding"
BACKEND: Final = f"{GROUP}/backend"
PROBE: Final = f"{GROUP}/probe"
PROGRESS: Final = f"{GROUP}/progress"
ANSWER: Final = f"{GROUP}/answer"

Role = Literal["plan", "transfer", "verify", "switch", "retire"]
ROLES: Final[tuple[Role, ...]] = ("plan", "transfer", "verify", "switch", "retire")


def job(migration: str, role: Role, attempt: int) -> str:
    """Name of a Job."""
    return f"{migration}-{role}-{attempt}"


def lease(migration: str, role: Role) -> str:
    """Name of the Lease of a worker that has no shard."""
    return f"{migration}-{role}"


def shard(migration: str, index: int) -> str:
    """Name of the Lease of a shard."""
    return f"{migration}-shard-{index}"


def result(migration: str) -> str:
    """Name of the Secret that workers leave their results in."""
    return f"{migration}-result"


def control(migration: str) -> str:
    """Name of the ConfigMap with the switch worker's command."""
    return f"{migration}-control"


def manifest(migration: str, attempt: int) -> str:
    """Name of the ConfigMap with the manifest of an attempt."""
    return f"{migration}-manifest-{attempt}"


def account(migration: str) -> str:
    """Name of the workers' ServiceAccount, Role and RoleBinding."""
    return f"memferry-worker-{migration}"


_LONGEST_PROBED: Final = 45
"""A Job's name and an index behind it are a host name, which ends at 63 characters."""


def probe(backend: str) -> str:
    """Name of everything that a MemoryBackend is probed with."""
    if len(backend) > _LONGEST_PROBED:
        digest = hashlib.blake2b(backend.encode(), digest_size=5).hexdigest()
        backend = f"{backend[:34]}-{digest}"
    return f"memferry-probe-{backend}"


def labels(migration: str, role: str | None = None, attempt: int | None = None) -> dict[str, str]:
    """Labels of something owned by a migration."""
    found = {MANAGED_BY: MANAGER, MIGRATION: migration}
    if role is not None:
        found[ROLE] = role
    if attempt is not None:
        found[ATTEMPT] = str(attempt)
    return found
