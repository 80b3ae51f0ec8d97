"""A small client of the Kubernetes API: objects are plain dicts, kinds are named as in manifests."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from testbed import wait
from testbed.errors import TestbedError

__all__ = ["ApiError", "KubernetesClient", "KubernetesObject", "WatchStop"]

KubernetesObject = dict[str, Any]

_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_TIMEOUT_SECS = 30.0
_KIND_DEADLINE_SECS = 60.0


class ApiError(TestbedError):
    """The API server refused a request.

    Attributes:
        code: The HTTP status.
        reason: Kubernetes' word for it, for example `NotFound`, `Invalid`, `Forbidden`.
    """

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class _Resource:
    base: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        place = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        parts = [self.base + place, self.plural, *(part for part in (name, subresource) if part)]
        return "/".join(parts)


class WatchStop:
    """Ends a watch that another thread waits in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._stopped = False

    def __call__(self) -> None:
        """End the watch, or the next one at its begin."""
        with self._lock:
            self._stopped = True
            self._cut()

    def attach(self, response: httpx.Response) -> None:
        """Remember the connection of a watch."""
        stream = response.extensions["network_stream"]
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            # a second handle of the connection, below TLS: cutting it wakes the reader as a broken network would
            self._connection = socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno()))
            if self._stopped:
                self._cut()

    def _cut(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
            self._connection = None


class KubernetesClient:
    """One user's view of one API server. Safe to use from several threads.

    Kinds are those of manifests (`Pod`, `Job`, `MemoryMigration`); where two groups have one of the same name
    (`Event`), the core group's is meant.

    Args:
        server: Its URL.
        authority: The certificate authority to trust.
        certificate: Certificate and key of the user, or
        token: a bearer token.
        namespace: Where namespaced objects are looked for when a call names none.
    """

    def __init__(
        self,
        server: str,
        *,
        authority: Path,
        certificate: tuple[Path, Path] | None = None,
        token: str | None = None,
        namespace: str = "default",
    ) -> None:
        self.server = server
        self.namespace = namespace
        self._resources: dict[str, _Resource] = {}
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        self._http = httpx.Client(
            base_url=server,
            verify=context,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT_SECS,
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=32),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> KubernetesObject:
        """One object.

        Raises:
            ApiError: It is not there (404), or the user may not see it (403).
        """
        return self.request("GET", self.path(kind, namespace, name))

    def find(self, kind: str, name: str, *, namespace: str | None = None) -> KubernetesObject | None:
        """One object, or None if it is not there."""
        try:
            return self.get(kind, name, namespace=namespace)
        except ApiError as error:
            if error.code != httpx.codes.NOT_FOUND:
                raise
            return None

    def objects(
        self, kind: str, *, namespace: str | None = None, labels: str = "", all_namespaces: bool = False
    ) -> list[KubernetesObject]:
        """The objects of a kind, at most those with the labels."""
        return self._list(kind, namespace, labels, all_namespaces)[0]

    def create(self, content: Mapping[str, Any], *, namespace: str | None = None) -> KubernetesObject:
        """Create an object; unknown fields are refused, as by `kubectl create`."""
        path = self.path(content["kind"], _namespace_of(content, namespace))
        return self.request("POST", path, content, params={"fieldValidation": "Strict"})

    def apply(
        self,
        content: Mapping[str, Any],
        *,
        namespace: str | None = None,
        manager: str = "testbed",
        force: bool = True,
        dry_run: bool = False,
    ) -> KubernetesObject:
        """Server-side apply, as by `kubectl apply --server-side`."""
        path = self.path(content["kind"], _namespace_of(content, namespace), content["metadata"]["name"])
        params = {"fieldManager": manager, "force": json.dumps(force), "fieldValidation": "Strict"}
        if dry_run:
            params["dryRun"] = "All"
        return self.request("PATCH", path, content, params=params, content_type="application/apply-patch+yaml")

    def apply_all(self, contents: Iterable[Mapping[str, Any]], *, namespace: str | None = None) -> None:
        """Apply several objects in their order."""
        for content in contents:
            self.apply(content, namespace=namespace)

    def replace(self, content: Mapping[str, Any], *, subresource: str | None = None) -> KubernetesObject:
        """PUT an object, with its resourceVersion a compare-and-swap."""
        metadata = content["metadata"]
        path = self.path(content["kind"], metadata.get("namespace"), metadata["name"], subresource)
        return self.request("PUT", path, content)

    def patch(
        self,
        kind: str,
        name: str,
        change: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        strategic: bool = False,
    ) -> KubernetesObject:
        """A merge patch: dicts are merged, lists replaced, null removes.

        A strategic one, for built-in kinds, merges lists by their keys.
        """
        path = self.path(kind, namespace, name, subresource)
        content_type = f"application/{'strategic-' if strategic else ''}merge-patch+json"
        return self.request("PATCH", path, change, content_type=content_type)

    def delete(
        self,
        kind: str,
        name: str,
        *,
        namespace: str | None = None,
        grace_secs: int | None = None,
        propagation: str = "Background",
        uid: str | None = None,
    ) -> None:
        """Delete an object; one that is not there is no error."""
        options: KubernetesObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_secs is not None:
            options["gracePeriodSeconds"] = grace_secs
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", self.path(kind, namespace, name), options)
        except ApiError as error:
            if error.code != httpx.codes.NOT_FOUND:
                raise

    def watch(
        self,
        kind: str,
        *,
        namespace: str | None = None,
        labels: str = "",
        all_namespaces: bool = False,
        timeout_secs: float = 60.0,
        stop: WatchStop | None = None,
    ) -> Iterator[tuple[str, KubernetesObject]]:
        """What is there, as `LISTED` and one `SYNCED`, then what happens: `ADDED`, `MODIFIED`, `DELETED`.

        It ends when the time is over, when `stop` says so, and with the connection. That is not an error: call it
        again, it begins with what is there then.
        """
        objects, version = self._list(kind, namespace, labels, all_namespaces)
        for one in objects:
            yield "LISTED", one
        yield "SYNCED", {}
        params = {"watch": "1", "resourceVersion": version, "labelSelector": labels}
        params["timeoutSeconds"] = str(max(1, round(timeout_secs)))
        path = self._resource(kind).path(None if all_namespaces else namespace or self.namespace)
        limits = httpx.Timeout(_TIMEOUT_SECS, read=timeout_secs + 5)
        with (
            contextlib.suppress(httpx.TransportError),
            self._http.stream("GET", path, params=params, timeout=limits) as response,
        ):
            if response.is_error:
                response.read()
                raise _refusal(response)
            if stop is not None:
                stop.attach(response)
            for line in response.iter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":  # the version is too old: begin anew
                    return
                yield event["type"], event["object"]

    def until(
        self,
        kind: str,
        name: str,
        check: Callable[[KubernetesObject], object],
        *,
        namespace: str | None = None,
        what: str = "",
        deadline_secs: float = wait.EVENTUALLY_SECS,
    ) -> KubernetesObject:
        """Wait until an object is there and `check` of it is true; an outage of the API server is waited for.

        Returns:
            The object.
        """
        last: KubernetesObject | None = None

        def found() -> KubernetesObject | None:
            nonlocal last
            with contextlib.suppress(httpx.TransportError):
                last = self.find(kind, name, namespace=namespace)
            return last if last is not None and check(last) else None

        try:
            return wait.until(found, what=what or f"{kind} {name}", deadline_secs=deadline_secs)
        except TestbedError as error:
            status = json.dumps((last or {}).get("status"), indent=1)
            raise TestbedError(f"{error}\n{kind} {name} {'is not there' if last is None else status}") from error

    def until_gone(
        self, kind: str, name: str, *, namespace: str | None = None, deadline_secs: float = wait.EVENTUALLY_SECS
    ) -> None:
        """Wait until an object is not there."""
        wait.until(
            lambda: self.find(kind, name, namespace=namespace) is None,
            what=f"the end of {kind} {name}",
            deadline_secs=deadline_secs,
        )

    def token(self, service_account: str, *, namespace: str | None = None, expiration_secs: int = 3600) -> str:
        """A token of a service account, by TokenRequest."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": expiration_secs},
        }
        made = self.request("POST", self.path("ServiceAccount", namespace, service_account, "token"), request)
        return str(made["status"]["token"])

    def path(
        self, kind: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The path of a kind's objects in a namespace, of one of them, or of a part of it."""
        return self._resource(kind).path(namespace or self.namespace, name, subresource)

    def request(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> KubernetesObject:
        """One request, for what has no method of its own.

        Raises:
            ApiError: It was refused.
            httpx.TransportError: The API server did not answer.
        """
        body = None if content is None else json.dumps(content).encode()
        response = self._http.request(
            method, path, content=body, params=params, headers={"Content-Type": content_type} if body else None
        )
        if response.is_error:
            raise _refusal(response)
        answer: KubernetesObject = response.json()
        return answer

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self._http.get("/readyz", timeout=5.0).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _list(
        self, kind: str, namespace: str | None, labels: str, all_namespaces: bool
    ) -> tuple[list[KubernetesObject], str]:
        resource = self._resource(kind)
        path = resource.path(None if all_namespaces else namespace or self.namespace)
        answer = self.request("GET", path, params={"labelSelector": labels})
        items: list[KubernetesObject] = answer["items"]
        for one in items:
            one.setdefault("kind", kind)
            one.setdefault("apiVersion", answer["apiVersion"])
        return items, str(answer["metadata"]["resourceVersion"])

    def _resource(self, kind: str) -> _Resource:
        def known() -> _Resource | None:
            if kind not in self._resources:
                self._discover()
            return self._resources.get(kind)

        return wait.until(known, what=f"the API of {kind}", deadline_secs=_KIND_DEADLINE_SECS)

    def _discover(self) -> None:
        found: dict[str, _Resource] = {}
        for root in ("/api", "/apis"):
            response = self._http.get(root, headers={"Accept": _DISCOVERY})
            if response.is_error:
                raise _refusal(response)
            for group in response.json()["items"]:
                for version in reversed(group["versions"]):  # the preferred one comes first and stays
                    name = group["metadata"].get("name", "")
                    base = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                    for one in version.get("resources", []):
                        resource = _Resource(base, one["resource"], one["scope"] == "Namespaced")
                        known = found.get(one["responseKind"]["kind"])
                        if known is None or known.base.startswith(base.rpartition("/")[0] + "/"):
                            found[one["responseKind"]["kind"]] = resource
        self._resources = found


def _namespace_of(content: Mapping[str, Any], namespace: str | None) -> str | None:
    own: str | None = content["metadata"].get("namespace")
    return own or namespace


def _refusal(response: httpx.Response) -> ApiError:
    try:
        status = response.json()
    except ValueError:
        status = {}
    return ApiError(response.status_code, status.get("reason", ""), status.get("message", response.text))
