"""A client's own Lease: says that it lives, and what it acknowledges."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from memferry.binding.cluster import AbsentError, Cluster, ConflictError, lease_path
from memferry.binding.state import Acknowledgement
from memferry.errors import StoreError, TransientError
from memferry.manifest import protocol

__all__ = ["Identity", "OwnLease", "Said"]


@dataclass(frozen=True)
class Identity:
    """Who a client is.

    Attributes:
        binding: Its MemoryBinding.
        pod: The pod it is in.
        pod_uid: Uid of the pod, with which the Lease goes; empty where it is not known.
        client: Which client of the pod, where it has several.
    """

    binding: str
    pod: str
    pod_uid: str = ""
    client: str = ""

    @property
    def lease(self) -> str:
        """Name of its Lease."""
        return protocol.client_lease_name(self.binding, self.pod, self.client)


@dataclass(frozen=True)
class Said:
    """What the Lease says.

    Attributes:
        acknowledgement: What is acknowledged; None for nothing yet.
        errors: How often the store failed since the revision was first seen.
        problem: Code of what keeps the client from acknowledging.
    """

    acknowledgement: Acknowledgement | None
    errors: int = 0
    problem: str = ""


class OwnLease:
    """The Lease of one process.

    One that another process holds is taken over only when it has not been renewed for as long as it lasts: the other
    one has stopped writing by then.

    Args:
        cluster: Where it is.
        identity: Whose it is.
        lease_secs: How long a renewal counts.
        clock: Tells the time, also while the process is stopped.
    """

    def __init__(self, cluster: Cluster, identity: Identity, lease_secs: int, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._identity = identity
        self._lease_secs = lease_secs
        self._clock = clock
        self._process = secrets.token_hex(8)
        self._held: dict[str, Any] | None = None
        self._gone = False
        self._others: tuple[str, float] = ("", 0.0)
        """Version of another process's Lease, and since when it is known."""

    def renew(self, said: Said) -> None:
        """Says `said`, and that this client lives.

        Raises:
            StoreError: `fenced`, another process has taken its place.
            TransientError: It could not be said, or another process still holds the Lease.
            AbsentError: The Lease is gone, so that nobody counts on this client. The next call makes it again, and
                the one after that counts: where its pod is gone, so is each that is made again.
        """
        made_again = self._held is None and self._gone
        try:
            if self._held is None:
                self._acquire(said)
            else:
                self._write(self._held, said)
        except ConflictError:
            self._again(said)
        except AbsentError:
            self._gone = self._gone or self._held is not None
            self._held = None
            raise
        if made_again:
            self._gone = False
            raise TransientError("binding", f"Lease {self._identity.lease} was deleted and is made again")

    def release(self) -> None:
        """Says that nothing is in flight and nothing will start."""
        if self._held is None:
            return
        body = self._body(self._held, Said(None))
        body["spec"]["holderIdentity"] = ""
        self._cluster.replace(lease_path(self._identity.lease), body)
        self._held = None

    def _again(self, said: Said) -> None:
        """Somebody has changed it; or it was this process, by a request whose answer was lost."""
        found = self._cluster.get(lease_path(self._identity.lease))
        if self._held is not None and _process(found) != self._process:
            raise StoreError(
                "fenced", f"another process has taken Lease {self._identity.lease}; this one writes no more"
            )
        if _process(found) == self._process:
            self._write(found, said)
        else:
            raise TransientError("binding", f"Lease {self._identity.lease} is being changed by another process")

    def _acquire(self, said: Said) -> None:
        try:
            found = self._cluster.get(lease_path(self._identity.lease))
        except AbsentError:
            self._create(said)
            return
        spec, version = found.get("spec") or {}, found["metadata"]["resourceVersion"]
        if spec.get("holderIdentity") and _process(found) != self._process:
            now = self._clock()
            if self._others[0] != version:
                self._others = (version, now)
            if now - self._others[1] < spec.get("leaseDurationSeconds", self._lease_secs):
                raise TransientError(
                    "binding",
                    f"Lease {self._identity.lease} is held by another process of pod {self._identity.pod}, or was "
                    "until just now; where a pod has several clients, each needs a name: connect(..., client=NAME)",
                )
        self._write(found, said, acquired=True)

    def _create(self, said: Said) -> None:
        body = self._body({"metadata": {}, "spec": {}}, said, acquired=True)
        self._held = self._cluster.create(lease_path(), body)

    def _write(self, found: dict[str, Any], said: Said, *, acquired: bool = False) -> None:
        body = self._body(found, said, acquired=acquired)
        self._held = self._cluster.replace(lease_path(self._identity.lease), body)

    def _body(self, found: dict[str, Any], said: Said, *, acquired: bool = False) -> dict[str, Any]:
        identity, spec, now = self._identity, dict(found.get("spec") or {}), _now()
        metadata: dict[str, Any] = {
            "name": identity.lease,
            "namespace": self._cluster.namespace,
            "labels": {"app.kubernetes.io/managed-by": "memferry-client", protocol.BINDING_LABEL: identity.binding},
            "annotations": {**_annotations(said), protocol.PROCESS: self._process, protocol.POD_UID: identity.pod_uid},
        }
        if version := found["metadata"].get("resourceVersion"):
            metadata["resourceVersion"] = version
        if identity.pod_uid:
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Pod", "name": identity.pod, "uid": identity.pod_uid}
            ]
        if acquired:
            transitions = spec.get("leaseTransitions", -1) + 1
            spec |= {"acquireTime": now, "leaseTransitions": transitions}
        spec |= {"holderIdentity": identity.pod, "leaseDurationSeconds": self._lease_secs, "renewTime": now}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _annotations(said: Said) -> dict[str, str]:
    told = {protocol.ERRORS: str(said.errors), protocol.PROBLEM: said.problem}
    if said.acknowledgement is not None:
        told[protocol.REVISION] = str(said.acknowledgement.revision)
        told[protocol.MODE] = said.acknowledgement.mode
        told[protocol.ACTIVE] = said.acknowledgement.active
    return told


def _process(lease: dict[str, Any]) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(protocol.PROCESS, ""))


def _now() -> str:
    """This instant as Kubernetes has it in Leases."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
