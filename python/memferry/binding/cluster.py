"""The API server, as far as a client and the command line need it. By the official client, with plain objects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memferry.api_server import failures, send
from memferry.errors import MemferryError, RefusedError, TransientError
from memferry.manifest.protocol import GROUP, VERSION

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import RESTResponse

__all__ = ["AbsentError", "Cluster", "ConflictError", "binding_path", "connected", "lease_path", "secret_path"]

_CONNECT_SECS: Final = 3.0
_READ_SECS: Final = 10.0
_WATCH_SECS: Final = 20
"""The server ends a watch after so long. One that is dead without a word is noticed soon after that."""
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


class AbsentError(MemferryError):
    """There is no such object."""


class ConflictError(MemferryError):
    """The object has been changed since it was read, or is there already."""


class Cluster:
    """One namespace of a cluster.

    Args:
        api: The official client.
        namespace: The namespace.
        read_secs: How long an answer may take.
    """

    def __init__(self, api: ApiClient, namespace: str, *, read_secs: float = _READ_SECS) -> None:
        self._api = api
        self.namespace = namespace
        self._read_secs = read_secs

    def get(self, path: str) -> dict[str, Any]:
        """Reads an object, not from a cache."""
        return self._call("GET", path)

    def list(self, path: str, selector: dict[str, str]) -> list[dict[str, Any]]:
        """Objects with these labels."""
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        return list(self._call("GET", path, query={"labelSelector": labels})["items"])

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Makes an object; `path` is that of the collection."""
        return self._call("POST", path, body=body)

    def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Writes over an object, if it is still of the resourceVersion in `body`."""
        return self._call("PUT", path, body=body)

    def watch(self, path: str, name: str, stopper: Callable[[Callable[[], None]], None]) -> Iterator[dict[str, Any]]:
        """What happens to one object: first how it is, then each change; ends after some seconds.

        Args:
            path: Of the collection.
            name: Of the object.
            stopper: Is handed what ends the watch from another thread.
        """
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(_WATCH_SECS)}
        with self._told(path):
            response = self._send("GET", path, query=query, read_secs=_WATCH_SECS + self._read_secs)
            raw = response.response
            stopper(raw.shutdown)
            try:
                rest = b""
                for part in raw.stream(amt=None, decode_content=False):
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _event(line)
            finally:
                raw.close()
                raw.release_conn()

    def close(self) -> None:
        """Ends the connections."""
        self._api.rest_client.close()

    def _call(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        with self._told(path):
            response = self._send(method, path, query=query, body=body, read_secs=self._read_secs)
            return dict(json.loads(response.read()))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        read_secs: float,
    ) -> RESTResponse:
        response = send(
            self._api,
            method,
            path.format(namespace=self.namespace),
            query=query,
            body=body,
            timeout_secs=(_CONNECT_SECS, read_secs),
        )
        if not 200 <= response.status <= 299:
            raise _refusal(path, response.status, response.read())
        return response

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except failures() as error:
            text = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise TransientError("cluster", f"API server, {path.rpartition('/')[2]}: {text}") from error


def _refusal(path: str, status: int, body: bytes) -> MemferryError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")[:200]
    told = f"API server, {path.rpartition('/')[2]}: {status} {message}"
    if status == 404:
        return AbsentError("cluster", told)
    if status == 409:
        return ConflictError("cluster", told)
    if status in {401, 403}:
        # A token may be about to be renewed, a Role about to be made.
        return TransientError("cluster", told)
    if status == 429 or status >= 500:
        return TransientError("cluster", told)
    return RefusedError("cluster", told)


def _event(line: bytes) -> dict[str, Any]:
    event = json.loads(line)
    if event.get("type") == "ERROR":
        raise TransientError("cluster", f"API server, watch: {event.get('object', {}).get('message', 'ended')}")
    return dict(event)


def binding_path(name: str = "") -> str:
    """A MemoryBinding, or all of them."""
    path = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/memorybindings"
    return f"{path}/{name}" if name else path


def lease_path(name: str = "") -> str:
    """A Lease, or all of them."""
    path = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return f"{path}/{name}" if name else path


def secret_path(name: str) -> str:
    """A Secret."""
    return f"/api/v1/namespaces/{{namespace}}/secrets/{name}"


def connected(
    namespace: str | None = None,
    *,
    kubeconfig: str | os.PathLike[str] | None = None,
    context: str | None = None,
    read_secs: float = _READ_SECS,
) -> Cluster:
    """A cluster: that of the pod this runs in, else that of a kubeconfig.

    Args:
        namespace: Where the binding is; the pod's own, or that of the context, where none is given.
        kubeconfig: A file; `KUBECONFIG`, or `~/.kube/config`, where none is given and this is no pod.
        context: One of its contexts.
        read_secs: How long an answer may take.

    Raises:
        RefusedError: `extra-missing` without the package, `cluster` where there is no cluster to be found.
    """
    try:
        from kubernetes import client, config  # noqa: PLC0415 - an optional package, large
        from kubernetes.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415
    except ImportError as error:
        hint = "pip install memferry[kubernetes]"
        raise RefusedError("extra-missing", "the kubernetes client is not installed", hint=hint) from error
    settings = client.Configuration()
    try:
        if kubeconfig is None and context is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            folder = Path(os.environ.get("MEMFERRY_SERVICE_ACCOUNT_FOLDER", _ACCOUNT))
            InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(settings)
            known = os.environ.get("MEMFERRY_NAMESPACE") or (folder / "namespace").read_text("utf-8").strip()
        else:
            file = None if kubeconfig is None else os.fspath(kubeconfig)
            config.load_kube_config(file, context, client_configuration=settings, persist_config=False)
            contexts, current = config.list_kube_config_contexts(file)
            chosen = current if context is None else next(c for c in contexts if c["name"] == context)
            known = chosen["context"].get("namespace") or "default"
    except (config.ConfigException, OSError, StopIteration) as error:
        raise RefusedError("cluster", f"no cluster to talk to: {error}") from error
    settings.retries = False  # Whoever calls tries again, and knows how long.
    return Cluster(client.ApiClient(settings), namespace or known, read_secs=read_secs)
