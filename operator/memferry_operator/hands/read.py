"""What the API server gives, as what the brain sees."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from memferry.manifest.status import STATUS_VERSION
from memferry_operator import names
from memferry_operator.brain import times
from memferry_operator.names import Role
from memferry_operator.observed import Answer, Command, Job, Pod, Progress, WorkerLease

__all__ = ["answer", "command", "ends", "job", "newer", "pod", "problem", "results", "unreachable", "worker_lease"]

_ROLES = frozenset(get_args(Role))
_AWAY = frozenset({"Unreachable", "KeyMissing"})
_LONGEST_ERROR = 500
Object = Mapping[str, Any]


def ends(spec: Object) -> tuple[str, ...]:
    """The MemoryBackends that a migration names."""
    named = (((spec.get(end) or {}).get("backendRef") or {}).get("name") for end in ("source", "target"))
    return tuple(name for name in named if name)


def unreachable(backend: Object) -> str:
    """Why a MemoryBackend cannot be reached, as its last probe said; empty where it can, or where that is not known."""
    for condition in (backend.get("status") or {}).get("conditions") or []:
        now = condition.get("observedGeneration") == _meta(backend).get("generation")
        if now and condition.get("type") == "Reachable" and condition.get("reason") in _AWAY:
            return str(condition.get("message") or "it did not answer")
    return ""


def newer(found: Object) -> bool:
    """Whether a newer operator wrote the status of a resource of ours."""
    return int((found.get("status") or {}).get("statusVersion") or 0) > STATUS_VERSION


def _meta(found: Object) -> Object:
    return cast("Object", found.get("metadata") or {})


def role(found: Object) -> Role | None:
    """What a Job or a pod is for."""
    said = (_meta(found).get("labels") or {}).get(names.ROLE)
    return cast("Role", said) if said in _ROLES else None


def attempt(found: Object) -> int:
    """Of which attempt."""
    said = (_meta(found).get("labels") or {}).get(names.ATTEMPT, "0")
    return int(said) if said.isdigit() else 0


def job(found: Object) -> Job | None:
    """A Job, None where it is not one of ours."""
    its_role, spec, status = role(found), found.get("spec") or {}, found.get("status") or {}
    if its_role is None:
        return None
    true = {c["type"]: c for c in status.get("conditions") or [] if c.get("status") == "True"}
    failed = true.get("Failed")
    return Job(
        name=_meta(found)["name"],
        role=its_role,
        attempt=attempt(found),
        complete="Complete" in true,
        failure=(failed.get("reason") or "Failed") if failed else None,
        message=(failed.get("message") or "") if failed else "",
        suspended=bool(spec.get("suspend")),
        parallelism=int(spec.get("parallelism", 1)),
        active=int(status.get("active") or 0),
        succeeded=int(status.get("succeeded") or 0),
        failed=_count(status.get("failedIndexes") or ""),
        since=times.instant(status.get("startTime")),
        deleting="deletionTimestamp" in _meta(found),
        expires=spec.get("ttlSecondsAfterFinished") is not None,
    )


def _count(indexes: str) -> int:
    """How many indexes `0-3,7` are."""
    ends = [part.split("-") for part in indexes.split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def pod(found: Object) -> Pod | None:
    """A pod of a worker, None where it is not one of ours."""
    its_role, status = role(found), found.get("status") or {}
    if its_role is None:
        return None
    states = [c.get("state") or {} for c in status.get("containerStatuses") or []]
    ended = [s["terminated"] for s in states if "terminated" in s]
    waits = [s["waiting"].get("reason") or "" for s in states if "waiting" in s]
    conditions = {c["type"]: c for c in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    index = (_meta(found).get("annotations") or {}).get("batch.kubernetes.io/job-completion-index", "0")
    return Pod(
        name=_meta(found)["name"],
        role=its_role,
        attempt=attempt(found),
        index=int(index),
        phase=status.get("phase") or "Pending",
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting="deletionTimestamp" in _meta(found),
        exit_code=ended[0].get("exitCode") if ended else None,
        since=times.instant(status.get("startTime") or _meta(found).get("creationTimestamp")),
        waiting=waits[0] if waits else scheduled.get("message") or "",
        error=_error(ended[0].get("message") or "") if ended else "",
    )


def _error(log: str) -> str:
    """The line of a worker's log that tells why it ended."""
    return next((line[:_LONGEST_ERROR] for line in reversed(log.splitlines()) if line.startswith("error[")), "")


def worker_lease(found: Object) -> WorkerLease:
    """The Lease of a worker."""
    spec, notes = found.get("spec") or {}, _meta(found).get("annotations") or {}
    return WorkerLease(
        name=_meta(found)["name"],
        holder=spec.get("holderIdentity") or "",
        renewed_at=times.instant(spec.get("renewTime")),
        progress=_progress(notes.get(names.PROGRESS)),
        answer=answer(notes.get(names.ANSWER)),
    )


def _json(text: str | None) -> Object | None:
    """An object, None for anything else: what a worker writes does not stop the operator."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _progress(text: str | None) -> Progress | None:
    said = _json(text)
    if said is None:
        return None
    return Progress(
        attempt=int(said.get("attempt") or 0),
        phase=str(said.get("phase") or ""),
        read=int(said.get("read") or 0),
        written=int(said.get("written") or 0),
        quarantined=int(said.get("quarantined") or 0),
        total=said.get("total"),
        records_per_second=float(said.get("recordsPerSecond") or 0),
        progressed_at=_instant(said.get("progressedAt")),
    )


def _instant(text: Any) -> datetime | None:
    try:
        return times.instant(text)
    except (TypeError, ValueError):
        return None


def answer(text: str | None) -> Answer | None:
    """What the switch worker said."""
    said = _json(text)
    if said is None or "sequence" not in said:
        return None
    error = said.get("error") or {}
    return Answer(
        sequence=int(said["sequence"]),
        verb=str(said.get("verb") or ""),
        done=said.get("outcome") == "Done",
        code=str(error.get("code") or ""),
        message=str(error.get("message") or ""),
        body=said,
    )


def command(text: str | None) -> Command | None:
    """The command as it stands in the control ConfigMap."""
    said = _json(text)
    if said is None:
        return None
    return Command(
        sequence=int(said["sequence"]),
        verb=said["verb"],
        direction=said.get("direction"),
        revision=said.get("revision"),
        mode=said.get("mode"),
        active=said.get("active"),
        frozen_until=said.get("frozenUntil"),
        stray=said.get("stray"),
        parity=said.get("parity"),
    )


def results(secret: Object | None) -> dict[str, Object]:
    """Final objects of the verbs, by verb."""
    found: dict[str, Object] = {}
    for key, text in ((secret or {}).get("data") or {}).items():
        said = _json(base64.b64decode(text).decode("utf-8", "replace"))
        if said is not None:
            found[key.removesuffix(".json")] = said
    return found


def problem(model: type[BaseModel], value: Any) -> str:
    """What is wrong with a value, without the value."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:3]
        return "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found)
    return ""
