"""The Secret of a MemoryBinding, as servicebinding.io has it, read back into a store."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from memferry.binding.cluster import Cluster, secret_path
from memferry.errors import TransientError
from memferry.manifest.protocol import binding_secret_name
from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url

__all__ = ["Projection", "default_claims", "read_folder", "read_secret"]

_CLAIMS: Final = "/var/lib/memferry/claims"
_MAX_BYTES: Final = 1 << 20


def default_claims() -> Path:
    """Where claims are mounted, each under its name."""
    return Path(os.environ.get("MEMFERRY_CLAIMS", _CLAIMS))


@dataclass(frozen=True, repr=False)
class Projection:
    """What the Secret says; never printed.

    Attributes:
        data: Its keys.
    """

    data: Mapping[str, str]

    @property
    def active(self) -> str:
        """The MemoryBackend it is of."""
        return self.data.get("active", "")

    def store(self, claims: Path, scratch: Path) -> StoreUrl:
        """The store and how it is reached.

        Args:
            claims: Where claims are mounted.
            scratch: A folder for the certificate of an authority.
        """
        if self.data.get("type") != "hybrid":
            return self._part("", claims, scratch)
        graph, vectors = (self._part(half, claims, scratch) for half in ("graph.", "vectors."))
        return hybrid_url(graph, vectors, self.data.get("identity"))

    def _part(self, prefix: str, claims: Path, scratch: Path) -> StoreUrl:
        told = {key.removeprefix(prefix): value for key, value in self.data.items() if key.startswith(prefix)}
        if "uri" not in told:
            raise TransientError("binding", f"the Secret of the binding has no key `{prefix}uri`")
        url = parse_url(told["uri"])
        if url.path is not None and "claim" in told:
            url = replace(url, path=claims / told["claim"] / url.path)
        certificates = None
        if "certificates" in told:
            # What cleans folders of temporary files up takes one that nobody touched for days.
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            certificates = scratch / f"{prefix}certificates.pem"
            certificates.write_text(told["certificates"], "utf-8")
        secrets = Secrets(api_key=told.get("api-key"), password=told.get("password"), ca_file=certificates)
        return replace(url, secrets=secrets)


def read_secret(cluster: Cluster, binding: str) -> Projection:
    """Reads it through the API.

    Raises:
        AbsentError: There is none.
        TransientError: It cannot be read.
    """
    data = cluster.get(secret_path(binding_secret_name(binding))).get("data") or {}
    try:
        return Projection({key: base64.b64decode(value, validate=True).decode() for key, value in data.items()})
    except (binascii.Error, UnicodeDecodeError):
        raise TransientError("binding", f"Secret {binding_secret_name(binding)}: a key is no text") from None


def read_folder(folder: Path) -> Projection:
    """Reads it where it is mounted; what stands there may be a minute old.

    Raises:
        TransientError: It is not there.
    """
    try:
        # Kubernetes keeps links into folders whose names begin with two dots.
        files = [file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file()]
        data = {file.name: file.read_bytes()[:_MAX_BYTES].decode() for file in files}
    except (OSError, UnicodeDecodeError) as error:
        raise TransientError("binding", f"{folder}: {type(error).__name__}") from None
    return Projection(data)
