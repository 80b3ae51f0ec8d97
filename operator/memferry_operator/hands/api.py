"""The API server over aiohttp, with kopf's credentials. The official client costs 100 MiB more."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import kopf

from memferry_operator.names import GROUP, MANAGER, VERSION

__all__ = ["OURS", "Api", "ApiError", "items", "login", "owner", "path"]

log = logging.getLogger(__name__)

OURS: Final = f"/apis/{GROUP}/{VERSION}"
_FRESH_SECS: Final = 600.0
"""A token of a service account is rotated on disk; it is read anew so often."""
_TRIES: Final = 4
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=5)


class ApiError(Exception):
    """The API server refused, or could not be reached.

    Attributes:
        status: HTTP status, 0 where there was no answer.
        ending: Whether it was refused because the namespace is being deleted.
    """

    def __init__(self, status: int, message: str, *, ending: bool = False) -> None:
        super().__init__(message)
        self.status, self.ending = status, ending


def login() -> kopf.ConnectionInfo:
    """Credentials of the pod, or of a kubeconfig; they expire, so that a rotated token is read again."""
    settings = kopf.OperatorSettings()
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    found = kopf.login_with_service_account(settings=settings)
    if found is not None and host:
        # kopf goes by a name; like other clients of a pod this one needs no DNS.
        found = dataclasses.replace(found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    found = found or kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("neither a service account nor a kubeconfig")
    return dataclasses.replace(found, expiration=datetime.now(UTC) + timedelta(seconds=_FRESH_SECS))


def path(group: str, kind: str, namespace: str, name: str = "") -> str:
    """Path of an object or a collection.

    Args:
        group: Group and version, `v1` for the core.
        kind: Plural.
        namespace: Where.
        name: The object; the collection where it is empty.
    """
    root = "/api/v1" if group == "v1" else f"/apis/{group}"
    return f"{root}/namespaces/{namespace}/{kind}{f'/{name}' if name else ''}"


class Api:
    """One session; made anew when its credentials are old or refused.

    Args:
        answered: Told the status of every answer.
        credentials: Read anew for every session.
    """

    def __init__(
        self,
        answered: Callable[[int], None] = lambda _: None,
        credentials: Callable[[], kopf.ConnectionInfo] = login,
    ) -> None:
        self._answered = answered
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self._server = ""
        self._made = 0.0
        self._lock = asyncio.Lock()
        self.heard_at = float("-inf")

    async def close(self) -> None:
        """Ends the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        tries: int = _TRIES,
    ) -> dict[str, Any]:
        """Does a request, again where the server asks to wait or cannot be reached.

        Raises:
            ApiError: It was refused, or every try failed.
        """
        for attempt in range(1, tries + 1):
            wait = min(8.0, 0.25 * 2**attempt)
            try:
                return await self._once(method, where, body, params, content_type)
            except _AgainError as error:
                if attempt == tries:
                    raise ApiError(error.status, f"{method} {where}: {error}") from error.__cause__
                wait = max(wait, error.after)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == tries:
                    raise ApiError(0, f"{method} {where}: {error!r}") from error
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _once(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None,
        params: Mapping[str, str] | None,
        content_type: str,
    ) -> dict[str, Any]:
        session = await self._fresh()
        async with session.request(
            method,
            self._server + where,
            json=body,
            params=params,
            headers={"Content-Type": content_type} if body is not None else None,
            timeout=_TIMEOUT,
        ) as response:
            self.heard_at = time.monotonic()
            self._answered(response.status)
            if response.status < 400:
                found: dict[str, Any] = await response.json()
                return found
            message, said = (await response.text())[:2000], dict[str, Any]()
            with contextlib.suppress(aiohttp.ClientError, ValueError):
                said = await response.json()
                message = said.get("message", message)
            if response.status == 401:
                await self._forget(session)
            if response.status in {401, 429} or response.status >= 500:
                raise _AgainError(response.status, message, float(response.headers.get("Retry-After") or 0))
            causes = (said.get("details") or {}).get("causes") or []
            ending = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
            raise ApiError(response.status, message, ending=ending)

    async def _fresh(self) -> aiohttp.ClientSession:
        async with self._lock:
            if self._session is not None and time.monotonic() - self._made < _FRESH_SECS:
                return self._session
            old, info = self._session, self._credentials()
            self._server = info.server.rstrip("/")
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=32, ssl=info.as_ssl_context()),
                headers={**info.as_http_headers(), "User-Agent": MANAGER, "Accept": "application/json"},
                trust_env=False,
            )
            self._made = time.monotonic()
            if old is not None:
                # Requests under way keep their connections until they are done.
                asyncio.get_running_loop().call_later(60, lambda: asyncio.ensure_future(old.close()))
            return self._session

    async def _forget(self, session: aiohttp.ClientSession) -> None:
        async with self._lock:
            if self._session is session:
                self._made = 0.0

    async def get(self, where: str) -> dict[str, Any] | None:
        """An object, None where there is none."""
        try:
            return await self.request("GET", where)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, where: str, selector: str) -> list[dict[str, Any]]:
        """Objects of a collection by label."""
        return items(await self.request("GET", where, params={"labelSelector": selector}))

    async def create(self, where: str, body: Mapping[str, Any]) -> None:
        """Makes an object; one of the same owner, or one that nobody owns, is left as it is where it is there.

        Raises:
            ApiError: Also where one of another owner is there: of one that was deleted and made again under its name,
                which the garbage collector takes soon.
        """
        try:
            await self.request("POST", where, body)
        except ApiError as error:
            if error.status != 409:
                raise
            if not owner(body):
                return  # As an event, which the operator may not read.
            kind, name = body["kind"], body["metadata"]["name"]
            if kind == "Job":  # Which the operator lists anyway, and may not get.
                by = ",".join(f"{key}={value}" for key, value in body["metadata"]["labels"].items())
                there = {one["metadata"]["name"]: one for one in await self.list(where, by)}
                found = there.get(name)
            else:
                found = await self.get(f"{where}/{name}")
            if found is None or owner(found) != owner(body):
                raise ApiError(0, f"{kind} {name} is there already and is not ours, or has just gone") from error

    async def ending(self, namespace: str) -> bool:
        """Whether a namespace is being deleted: nothing can be made there; asked without a right to read it."""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": f"{MANAGER}-"}}
        try:
            await self.request("POST", path("v1", "configmaps", namespace), body, params={"dryRun": "All"})
        except ApiError as error:
            return error.ending
        return False

    async def apply(self, where: str, body: Mapping[str, Any]) -> None:
        """Server-side apply, only for what the operator owns."""
        await self.request(
            "PATCH",
            where,
            body,
            params={"fieldManager": MANAGER, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    async def merge(self, where: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch."""
        params = {"fieldManager": MANAGER}
        return await self.request("PATCH", where, body, params=params, content_type="application/merge-patch+json")

    async def put_status(self, plural: str, found: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Writes the status of a resource of ours: one writer, by compare-and-swap.

        Args:
            plural: Its kind.
            found: The resource as it was read; 409 where it is no longer so.
            status: The whole status.
        """
        meta = {key: found["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": found["kind"], "metadata": meta, "spec": found["spec"]}
        where = f"{OURS}/namespaces/{meta['namespace']}/{plural}/{meta['name']}/status"
        await self.request("PUT", where, {**body, "status": status}, params={"fieldManager": MANAGER})

    async def delete(self, where: str, *, last: bool = False) -> None:
        """Deletes an object and what it owns; one that is gone is fine.

        Args:
            where: Its path.
            last: Whether it stays, as one that is being deleted, until what it owns has gone.
        """
        try:
            await self.request("DELETE", where, {"propagationPolicy": "Foreground" if last else "Background"})
        except ApiError as error:
            if error.status != 404:
                raise


class _AgainError(Exception):
    """Worth another try."""

    def __init__(self, status: int, message: str, after: float) -> None:
        super().__init__(message)
        self.status, self.after = status, after


def owner(found: Mapping[str, Any] | None) -> str:
    """Uid of what an object belongs to; empty where it belongs to nobody."""
    owners = ((found or {}).get("metadata") or {}).get("ownerReferences") or []
    return next((str(one["uid"]) for one in owners if one.get("controller")), "")


def items(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Objects of a list."""
    return list(found.get("items") or [])
