"""What stands in the Secret of a MemoryBinding: the active store as servicebinding.io has it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal
from urllib.parse import quote, urlencode

from memferry.manifest.backend import Backend, Credential

__all__ = ["Lookup", "NotThereError", "secret_data"]

Lookup = Callable[[Literal["Secret", "ConfigMap"], str, str], str | None]
"""Gives the text at kind, name and key; None where there is none."""

_PORTS: Final = {"qdrant": "6334", "neo4j": "7687"}


class NotThereError(Exception):
    """Something that the store is reached with is not there; the text names it, and no secret."""


def secret_data(
    active: str, backends: Mapping[str, Backend], lookup: Lookup, *, revision: int, mode: str
) -> dict[str, str]:
    """The keys of the Secret.

    Args:
        active: The MemoryBackend that serves.
        backends: MemoryBackends by name, with those that it is made of.
        lookup: Reads what they refer to.
        revision: Of the binding.
        mode: Whether clients may write.

    Raises:
        NotThereError: A MemoryBackend, Secret or ConfigMap.
    """
    backend = _named(active, backends)
    told = {"type": backend.backend, "provider": "memferry", "active": active, "revision": str(revision), "mode": mode}
    if backend.graph_ref is None or backend.vectors_ref is None:
        return told | _part(backend, lookup)
    if backend.identity:
        told["identity"] = backend.identity
    for half, ref in (("graph", backend.graph_ref), ("vectors", backend.vectors_ref)):
        part = _part(_named(ref.name, backends), lookup)
        told |= {f"{half}.{key}": value for key, value in part.items()}
    return told


def _named(name: str, backends: Mapping[str, Backend]) -> Backend:
    if name not in backends:
        raise NotThereError(f"MemoryBackend {name} is not there")
    return backends[name]


def _part(backend: Backend, lookup: Lookup) -> dict[str, str]:
    options = {"profile": backend.profile} if backend.profile != "native" else {}
    if backend.identity:
        options["identity"] = backend.identity
    if backend.path is not None:
        told = {"uri": f"{backend.backend}:{backend.path}{_query(options)}", "path": backend.path}
        return told | ({"claim": backend.claim_name} if backend.claim_name else {})
    secure = backend.tls is not None and backend.tls.enabled
    if backend.distance is not None and backend.distance != "cosine":
        options["distance"] = backend.distance
    if secure:
        options["tls"] = "1"
    host, _, port = (backend.address or "").rpartition(":")
    if not host or port.endswith("]"):
        host, port = backend.address or "", _PORTS[backend.backend]
    user = f"{quote(backend.user, safe='')}@" if backend.user else ""
    name = backend.collection or backend.database or ""
    told = {
        "uri": f"{backend.backend}://{user}{backend.address}/{quote(name, safe='')}{_query(options)}",
        "host": host,
        "port": port,
        "collection" if backend.backend == "qdrant" else "database": name,
        "username": backend.user or "",
        "api-key": _credential("apiKey", backend.api_key, lookup),
        "password": _credential("password", backend.password, lookup),
    }
    ca = backend.tls.ca if backend.tls is not None and secure else None
    if ca is not None:
        kind: Literal["Secret", "ConfigMap"] = "ConfigMap" if ca.config_map_ref else "Secret"
        ref = ca.config_map_ref or ca.secret_ref
        told["certificates"] = _looked_up(lookup, kind, ref.name, ref.key) if ref else ""
    return {key: value for key, value in told.items() if value}


def _query(options: dict[str, str]) -> str:
    return f"?{urlencode(options)}" if options else ""


def _credential(field: str, credential: Credential | None, lookup: Lookup) -> str:
    if credential is None:
        return ""
    if credential.secret_ref is None:
        raise NotThereError(f"spec.{field} has no secretRef")
    return _looked_up(lookup, "Secret", credential.secret_ref.name, credential.secret_ref.key)


def _looked_up(lookup: Lookup, kind: Literal["Secret", "ConfigMap"], name: str, key: str) -> str:
    found = lookup(kind, name, key)
    if found is None:
        raise NotThereError(f"{kind} {name} has no key {key}, or is not there")
    return found
