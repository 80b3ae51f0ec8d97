"""What a person asks of a binding: how it stands, and that it serves again. `memferry binding status|unfreeze`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from memferry.binding.cluster import AbsentError, Cluster, ConflictError, binding_path, lease_path, secret_path
from memferry.binding.journals import Journals
from memferry.binding.projection import Projection, default_claims
from memferry.errors import MemferryError, RefusedError
from memferry.manifest.backend import Backend
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.clients import Client, expected_clients
from memferry.manifest.projection import NotThereError, secret_data
from memferry.manifest.protocol import BINDING_LABEL, GROUP, VERSION, binding_secret_name
from memferry.manifest.status import STATUS_VERSION
from memferry.urls import StoreUrl

__all__ = ["Report", "Unfrozen", "binding_report", "unfreeze"]

_TRIES: Final = 5
_OURS: Final = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}"


@dataclass(frozen=True)
class Report:
    """How a binding stands.

    Attributes:
        name: Its name.
        status: What clients go by.
        clients: Who has to acknowledge.
    """

    name: str
    status: BindingStatus
    clients: tuple[Client, ...]

    @property
    def silent(self) -> tuple[Client, ...]:
        """Who has not acknowledged what the status says."""
        now = self.status
        return tuple(c for c in self.clients if not c.acknowledged(now.revision, now.mode, now.active))

    def to_json(self) -> dict[str, Any]:
        """The final object."""
        told = {"binding": self.name, **self.status.to_json()}
        told["clients"] = [
            {
                "name": client.name,
                "pod": client.pod,
                "heardAt": client.heard_at.isoformat() if client.heard_at else None,
                "live": client.live,
                "revision": client.revision,
                "mode": client.mode,
                "active": client.active,
                "errors": client.errors,
                "problem": client.problem,
                "acknowledged": client not in self.silent,
            }
            for client in self.clients
        ]
        return told


@dataclass(frozen=True)
class Unfrozen:
    """What was done.

    Attributes:
        name: The binding.
        before: As it was.
        after: As it is; the same where it served already.
        said: What was done and what is left to others, in sentences.
    """

    name: str
    before: BindingStatus
    after: BindingStatus
    said: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return self.before != self.after

    def to_json(self) -> dict[str, Any]:
        """The final object."""
        ends = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {"binding": self.name, "changed": self.changed, **ends, "said": list(self.said)}


def binding_report(cluster: Cluster, name: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Report:
    """Reads how a binding stands.

    Raises:
        RefusedError: `cluster`, there is no such binding.
    """
    binding = _binding(cluster, name)
    selector = ((binding.get("spec") or {}).get("clients") or {}).get("selector") or {}
    pods = cluster.list("/api/v1/namespaces/{namespace}/pods", selector) if selector else []
    leases = cluster.list(lease_path(), {BINDING_LABEL: name})
    return Report(name, _status(binding), expected_clients(selector, pods, leases, now()))


def unfreeze(cluster: Cluster, name: str, *, journal: bool = True) -> Unfrozen:
    """Ends a freeze by hand: a higher revision, on which the side serves that served before the freeze.

    As in a switch, the journals in the stores say so first. A switch that is under way sees the higher revision and
    gives up. No write of the operator is written over: where it changes the binding meanwhile, what to do is thought
    over again. Where the switch has come to its end by then, the journals are brought to what it came to.

    Args:
        cluster: Where the binding is.
        name: Its name.
        journal: Whether to refuse where the journal of the side that serves cannot be written from here.

    Raises:
        RefusedError: `cluster`, there is no such binding; `format-newer`; `journal`; `busy`, it changes all the time.
    """
    journaled: BindingStatus | None = None
    for _ in range(_TRIES):
        binding = _binding(cluster, name)
        before = _status(binding)
        if before.status_version > STATUS_VERSION:
            raise RefusedError("format-newer", f"MemoryBinding {name}: a newer memferry wrote its status")
        if before.mode == "Frozen":
            after, others, said = _serving_again(cluster, before)
        elif journaled is not None and journaled.active != before.active:
            after, others, said = _serving_meanwhile(before, journaled)
        else:
            return Unfrozen(name, before, before, (f"binding {name} serves already from {before.active}",))
        if journal:
            journals = Journals(name, after.active, others, lambda side, scratch: _store(cluster, side, scratch))
            try:
                revision, left = journals.write(after.revision)
            except RefusedError as error:
                raise _left_wrong(error, before, journaled) from error
            journaled = after = after.model_copy(update={"revision": revision})
            said += left
        else:
            said.append(_LEFT)
        said.insert(0, f"writes go on at {after.active}, revision {after.revision}")
        # Fields of others stay as they are; these are the ones that change.
        status = {**(binding.get("status") or {}), "mode": after.mode, "active": after.active}
        status |= {"revision": after.revision}
        status.pop("frozenUntil", None)
        try:
            cluster.replace(f"{binding_path(name)}/status", {**binding, "status": status})
        except ConflictError:
            continue
        return Unfrozen(name, before, after, (*said, *_project(cluster, name, after)))
    raise RefusedError("busy", f"MemoryBinding {name} is being changed all the time", hint="try again")


_LEFT: Final = (
    "the journals in the stores say what they said before: until the operator or the next switch has written them the "
    "status of the MemoryBinding is all there is, so do not delete it"
)


def _serving_again(cluster: Cluster, before: BindingStatus) -> tuple[BindingStatus, tuple[str, ...], list[str]]:
    """The status without the freeze, the other side of the switch, and what there is to say."""
    home, others, highest, said = before.active, tuple[str, ...](), before.revision, list[str]()
    if before.locked_by is None:
        said.append("no migration holds the binding: it serves where it is")
    else:
        migration: dict[str, Any] = {}
        with suppress(AbsentError):
            migration = cluster.get(f"{_OURS}/memorymigrations/{before.locked_by.name}")
        if (migration.get("metadata") or {}).get("uid") != before.locked_by.uid:
            said.append(f"migration {before.locked_by.name}, which holds the binding, is gone: it serves where it is")
        else:
            traffic = (migration.get("status") or {}).get("traffic") or {}
            highest = max(highest, int(traffic.get("revision") or 0))
            ends = [migration["spec"][end]["backendRef"]["name"] for end in ("source", "target")]
            # A target that has served once has writes that the source may not have, whatever a rebuilt status says.
            back = traffic.get("direction") == "Back" or bool(traffic.get("switchedAt"))
            home, other = ends[::-1] if back else ends
            others = (other,)
            said.append(f"migration {before.locked_by.name} sees the higher revision and gives this switch up")
    if home != before.active:
        said.append(f"{before.active} was frozen too, so nothing was written to it since")
    changes = {"mode": "Serving", "active": home, "revision": highest + 1, "frozen_until": None}
    return before.model_copy(update=changes), others, said


def _serving_meanwhile(
    before: BindingStatus, journaled: BindingStatus
) -> tuple[BindingStatus, tuple[str, ...], list[str]]:
    """A switch that ended while it was taken back: what the binding says, holds, and the journals are to say it too."""
    after = before.model_copy(update={"revision": max(before.revision, journaled.revision) + 1})
    said = f"the switch came to its end meanwhile: {before.active} serves, and the journals say so again"
    return after, (journaled.active,), [said]


def _left_wrong(error: RefusedError, before: BindingStatus, journaled: BindingStatus | None) -> RefusedError:
    """What to say where the journals name a side that does not serve, and cannot be mended from here."""
    if before.mode == "Frozen" or journaled is None:
        return error
    return RefusedError(
        "journal",
        f"{before.active} serves, as the switch came to its end meanwhile, and the journals say {journaled.active}, "
        f"revision {journaled.revision}: {error}",
        hint="until the next switch has written them the status of the MemoryBinding is all there is: do not delete it",
    )


def _store(cluster: Cluster, name: str, scratch: Path) -> StoreUrl:
    """The store of a MemoryBackend, as a client of the binding would reach it."""
    try:
        data = secret_data(name, _backends(cluster, name), _lookup(cluster), revision=0, mode="Serving")
    except AbsentError as error:
        raise NotThereError(f"MemoryBackend {name} is not there") from error
    return Projection(data).store(default_claims(), scratch)


def _project(cluster: Cluster, name: str, after: BindingStatus) -> list[str]:
    """Brings the Secret to the side that serves, where it is of the other one."""
    secret = binding_secret_name(name)
    try:
        found = cluster.get(secret_path(secret))
        there = base64.b64decode((found.get("data") or {}).get("active", "")).decode()
        if there == after.active:
            return []
        backends = _backends(cluster, after.active)
        data = secret_data(after.active, backends, _lookup(cluster), revision=after.revision, mode=after.mode)
        found["data"] = {key: base64.b64encode(value.encode()).decode("ascii") for key, value in data.items()}
        cluster.replace(secret_path(secret), found)
    except (MemferryError, NotThereError, ValueError) as error:
        return [
            f"Secret {secret} is not of {after.active} yet, and clients that have to open it wait for that: {error}"
        ]
    return [f"Secret {secret} is of {after.active} again"]


def _backends(cluster: Cluster, name: str) -> Mapping[str, Backend]:
    found: dict[str, Backend] = {}
    wanted = [name]
    while wanted:
        one = wanted.pop()
        resource = cluster.get(f"{_OURS}/memorybackends/{one}")
        try:
            spec = Backend.model_validate(resource["spec"])
        except ValidationError:
            raise NotThereError(f"MemoryBackend {one} cannot be read") from None
        found[one] = spec
        wanted += [ref.name for ref in (spec.graph_ref, spec.vectors_ref) if ref is not None and ref.name not in found]
    return found


def _lookup(cluster: Cluster) -> Callable[[Literal["Secret", "ConfigMap"], str, str], str | None]:
    def look(kind: Literal["Secret", "ConfigMap"], name: str, key: str) -> str | None:
        path = secret_path(name) if kind == "Secret" else f"/api/v1/namespaces/{{namespace}}/configmaps/{name}"
        try:
            value = (cluster.get(path).get("data") or {}).get(key)
        except AbsentError:
            return None
        return base64.b64decode(value).decode() if kind == "Secret" and value is not None else value

    return look


def _binding(cluster: Cluster, name: str) -> dict[str, Any]:
    try:
        return cluster.get(binding_path(name))
    except AbsentError as error:
        raise RefusedError("cluster", f"no MemoryBinding {name} in namespace {cluster.namespace}: {error}") from error


def _status(binding: dict[str, Any]) -> BindingStatus:
    try:
        return BindingStatus.model_validate(binding.get("status") or {})
    except ValidationError as error:
        told = f"MemoryBinding {binding['metadata']['name']}: its status cannot be read: {error.error_count()} fields"
        raise RefusedError("cluster", told) from error
