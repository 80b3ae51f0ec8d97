"""Who is expected to acknowledge a revision of a MemoryBinding, and who has. Pure; for operator and command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from memferry.manifest import protocol

__all__ = ["Client", "expected_clients"]

_ENDED: Final = frozenset({"Succeeded", "Failed"})
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Client:
    """A client that has to acknowledge.

    Attributes:
        name: Its Lease, or its pod where it has none.
        pod: Its pod.
        heard_at: Last renewal of its Lease, None where it has none.
        live: Whether it was heard of lately.
        revision: What it acknowledged, 0 for nothing.
        mode: Mode of that revision.
        active: The MemoryBackend whose store it has open.
        errors: How often that store failed it.
        problem: Code of what keeps it from acknowledging.
    """

    name: str
    pod: str
    heard_at: datetime | None = None
    live: bool = False
    revision: int = 0
    mode: str = ""
    active: str = ""
    errors: int = 0
    problem: str = ""

    def acknowledged(self, revision: int, mode: str, active: str) -> bool:
        """Whether it has acknowledged exactly this."""
        return (self.revision, self.mode, self.active) == (revision, mode, active)


def expected_clients(
    selector: dict[str, str], pods: Iterable[dict[str, Any]], leases: Iterable[dict[str, Any]], now: datetime
) -> tuple[Client, ...]:
    """Clients that have to acknowledge: running pods that match, and whoever else has a live Lease.

    A pod that runs and has no Lease counts: it may be about to write. One that gave its Lease back does not: nothing of
    it is in flight, and before anything starts it makes a Lease and reads the binding.

    Args:
        selector: `spec.clients.selector`; empty selects no pod.
        pods: Pods of the namespace, or those that match.
        leases: Leases with the label of the binding.
        now: The time.
    """
    found: list[Client] = []
    of_pod: dict[str, list[tuple[Client | None, str]]] = {}
    for lease in leases:
        spec = lease.get("spec") or {}
        annotations = lease["metadata"].get("annotations") or {}
        released = not spec.get("holderIdentity")
        pod = str(spec.get("holderIdentity") or _pod_in(lease))
        entry = None if released else _client(lease, now)
        of_pod.setdefault(pod, []).append((entry, str(annotations.get(protocol.POD_UID, ""))))
    for pod_object in pods:
        metadata, phase = pod_object["metadata"], (pod_object.get("status") or {}).get("phase")
        labels = metadata.get("labels") or {}
        matches = bool(selector) and selector.items() <= labels.items()
        name, uid = metadata["name"], metadata.get("uid", "")
        entries = of_pod.get(name, [])
        mine = [entry for entry, of in entries if of in {"", uid}]
        if phase in _ENDED:
            of_pod[name] = [(entry, of) for entry, of in entries if of not in {"", uid}]
        elif phase == "Running" and matches:
            found += [entry for entry in mine if entry is not None] or ([] if mine else [Client(name, name)])
            of_pod[name] = [(entry, of) for entry, of in entries if of not in {"", uid}]
    rest = [entry for entries in of_pod.values() for entry, _ in entries if entry is not None and entry.live]
    return tuple(sorted([*found, *rest], key=lambda client: client.name))


def _client(lease: dict[str, Any], now: datetime) -> Client:
    spec, annotations = lease["spec"], lease["metadata"].get("annotations") or {}
    heard_at = _instant(spec.get("renewTime"))
    lasts = timedelta(seconds=protocol.LIVE_LEASES * int(spec.get("leaseDurationSeconds") or protocol.LEASE_SECS))
    return Client(
        name=lease["metadata"]["name"],
        pod=spec["holderIdentity"],
        heard_at=heard_at,
        live=now - (heard_at or _NEVER) <= lasts,
        revision=_number(annotations.get(protocol.REVISION)),
        mode=annotations.get(protocol.MODE, ""),
        active=annotations.get(protocol.ACTIVE, ""),
        errors=_number(annotations.get(protocol.ERRORS)),
        problem=annotations.get(protocol.PROBLEM, "")[:64],
    )


def _pod_in(lease: dict[str, Any]) -> str:
    """The pod that gave a Lease back: its owner, or what its name ends with."""
    owners = lease["metadata"].get("ownerReferences") or []
    name, labels = str(lease["metadata"]["name"]), lease["metadata"].get("labels") or {}
    prefix = protocol.client_lease_name(labels.get(protocol.BINDING_LABEL, ""), "")
    return next((str(owner["name"]) for owner in owners if owner["kind"] == "Pod"), name.removeprefix(prefix))


def _number(text: str | None) -> int:
    """What a client wrote, who may write anything."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else 0


def _instant(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
