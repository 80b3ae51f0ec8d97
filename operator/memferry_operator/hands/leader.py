"""Leader election by a Lease: one operator acts, a standby waits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from memferry_operator.hands.api import Api, ApiError, path
from memferry_operator.settings import Settings

__all__ = ["Leader", "LostError"]

log = logging.getLogger(__name__)

NAME: Final = "memferry-operator"


class LostError(Exception):
    """Another one may lead from now on."""


class Leader:
    """Holds the Lease, or waits for it.

    A holder that is silent is judged by the clock of who waits: only a Lease that was seen not to move for its whole
    duration is taken over.
    """

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api, self._settings = api, settings
        self._identity = settings.pod_name
        self._renewed = float("-inf")
        self._seen: tuple[str, str] = ("", "")
        self._seen_at = float("-inf")
        self._where = path("coordination.k8s.io/v1", "leases", settings.namespace)
        self.leading = False

    def check(self) -> None:
        """Before every write.

        Raises:
            LostError: The Lease was not renewed in time; the process may have been stopped.
        """
        if not self.leading or time.monotonic() - self._renewed > self._settings.renew_deadline_secs:
            raise LostError

    async def acquire(self) -> None:
        """Waits until this one leads."""
        while not await self._try():  # noqa: ASYNC110 - the event is at the API server
            await asyncio.sleep(self._settings.retry_period_secs)
        self.leading = True
        log.info("leads", extra={"identity": self._identity})

    async def hold(self) -> None:
        """Renews until it cannot.

        Raises:
            LostError: It could not be renewed in time, or another one holds it.
        """
        while True:
            await asyncio.sleep(self._settings.retry_period_secs)
            self.check()
            if not await self._try():
                self.check()
                if self._seen[0] != self._identity:
                    self.leading = False
                    raise LostError

    async def release(self) -> None:
        """Lets a standby take over at once."""
        if not self.leading:
            return
        self.leading = False
        try:
            lease = await self._api.get(f"{self._where}/{NAME}")
            if lease and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._api.request("PUT", f"{self._where}/{NAME}", lease, tries=1)
        except ApiError as error:
            log.warning("the leader's Lease was not released: %s", error)

    async def _try(self) -> bool:
        """One try to take or renew; by compare-and-swap, so that two cannot both succeed."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.renew_deadline_secs):
                lease = await self._api.request("GET", f"{self._where}/{NAME}", tries=1)
                if not self._free(lease):
                    return False
                await self._api.request("PUT", f"{self._where}/{NAME}", self._taken(lease), tries=1)
        except ApiError as error:
            if error.status == 404:
                return await self._make(begun)
            if error.status != 409:
                log.warning("the leader's Lease: %s", error)
            return False
        except TimeoutError:
            return False
        self._renewed = begun
        return True

    async def _make(self, begun: float) -> bool:
        meta = {"name": NAME, "namespace": self._settings.namespace}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {}}
        try:
            await self._api.request("POST", self._where, self._taken(lease), tries=1)
        except ApiError as error:
            if error.status != 409:
                log.warning("the leader's Lease: %s", error)
            return False
        self._renewed, self._seen = begun, (self._identity, "")
        return True

    def _free(self, lease: Mapping[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        seen = (holder, str(spec.get("renewTime")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, time.monotonic()
        waited = time.monotonic() - self._seen_at
        return holder in {"", self._identity} or waited > float(spec.get("leaseDurationSeconds") or 0)

    def _taken(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        old, at = lease.get("spec") or {}, datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        changed = old.get("holderIdentity") != self._identity
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._settings.lease_duration_secs)),
            "acquireTime": at if changed else old.get("acquireTime", at),
            "renewTime": at,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + int(changed),
        }
        return {**lease, "spec": spec}
