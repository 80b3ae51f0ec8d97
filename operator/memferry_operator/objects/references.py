"""Keys of Secrets and ConfigMaps that MemoryBackends reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from memferry.manifest import Backend

__all__ = ["KeyOf", "references"]


class KeyOf(NamedTuple):
    """A key of an object."""

    kind: Literal["Secret", "ConfigMap"]
    name: str
    key: str


def references(backends: Iterable[Backend]) -> list[KeyOf]:
    """Every key that is referenced, once, sorted."""
    found: set[KeyOf] = set()
    for backend in backends:
        for credential in (backend.api_key, backend.password):
            if credential is not None and credential.secret_ref is not None:
                found.add(KeyOf("Secret", credential.secret_ref.name, credential.secret_ref.key))
        authority = backend.tls.ca if backend.tls else None
        if authority is not None and authority.secret_ref is not None:
            found.add(KeyOf("Secret", authority.secret_ref.name, authority.secret_ref.key))
        if authority is not None and authority.config_map_ref is not None:
            found.add(KeyOf("ConfigMap", authority.config_map_ref.name, authority.config_map_ref.key))
    return sorted(found)
