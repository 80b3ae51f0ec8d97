"""What a worker reads and writes in the cluster: its Lease, one Secret, the command. By the official client."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final, Protocol

from memferry.api_server import failures, send
from memferry.errors import MemferryError, RefusedError, TransientError

__all__ = ["Alone", "Cluster", "ConflictError", "Connected"]

_TIMEOUT_SECS: Final = 10.0
_MERGE: Final = "application/merge-patch+json"


class ConflictError(MemferryError):
    """Somebody else has changed the object."""

    def __init__(self, message: str) -> None:
        super().__init__("fenced", message)


class Cluster(Protocol):
    """The API server, as far as a worker needs it."""

    def lease(self, name: str) -> dict[str, Any]:
        """Reads a Lease."""

    def patch_lease(self, name: str, change: dict[str, Any]) -> dict[str, Any]:
        """Changes a Lease; with a resourceVersion in it only if that still holds, else `ConflictError`."""

    def put_result(self, secret: str, key: str, result: dict[str, Any]) -> None:
        """Writes an object into a key of a Secret."""

    def config(self, name: str, key: str) -> str | None:
        """A key of a ConfigMap."""


class Connected:
    """An API server, reached with the service account of the pod.

    Args:
        namespace: Where everything is.
        folder: Token and authority of the service account.
    """

    def __init__(self, namespace: str, folder: Path) -> None:
        try:
            from kubernetes import client  # noqa: PLC0415 - an optional package, large
            from kubernetes.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415
        except ImportError as error:
            raise RefusedError(
                "extra-missing",
                "the kubernetes client is not installed",
                hint="pip install memferry[kubernetes]",
            ) from error
        configuration = client.Configuration()
        InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(configuration)
        # The heartbeat tries again by itself.
        configuration.retries = 0
        self._api = client.ApiClient(configuration)
        self._core = f"/api/v1/namespaces/{namespace}"
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    def _call(self, method: str, path: str, change: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = send(self._api, method, path, body=change, content_type=_MERGE, timeout_secs=_TIMEOUT_SECS)
            content = response.read()
            if 200 <= response.status <= 299:
                return dict(json.loads(content))
        except failures() as error:
            raise TransientError("unavailable", f"API server: {error}") from error
        told = f"API server: {response.status} {response.reason}"
        raise ConflictError(told) if response.status == 409 else TransientError("unavailable", told)

    def lease(self, name: str) -> dict[str, Any]:
        """See `Cluster`."""
        return self._call("GET", f"{self._leases}/{name}")

    def patch_lease(self, name: str, change: dict[str, Any]) -> dict[str, Any]:
        """See `Cluster`."""
        return self._call("PATCH", f"{self._leases}/{name}", change)

    def put_result(self, secret: str, key: str, result: dict[str, Any]) -> None:
        """See `Cluster`."""
        value = base64.b64encode(json.dumps(result).encode()).decode("ascii")
        self._call("PATCH", f"{self._core}/secrets/{secret}", {"data": {key: value}})

    def config(self, name: str, key: str) -> str | None:
        """See `Cluster`."""
        found = self._call("GET", f"{self._core}/configmaps/{name}")
        return (found.get("data") or {}).get(key)


class Alone:
    """No cluster: a Lease that nobody else sees, and results on stdout."""

    def __init__(self) -> None:
        self._lease: dict[str, Any] = {"metadata": {}, "spec": {}}

    def lease(self, name: str) -> dict[str, Any]:  # noqa: ARG002
        """See `Cluster`."""
        return self._lease

    def patch_lease(self, name: str, change: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """See `Cluster`."""
        self._lease = {part: {**self._lease[part], **change.get(part, {})} for part in self._lease}
        return self._lease

    def put_result(self, secret: str, key: str, result: dict[str, Any]) -> None:
        """See `Cluster`; the worker prints it."""

    def config(self, name: str, key: str) -> str | None:
        """See `Cluster`; there is none."""
