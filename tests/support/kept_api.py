"""An API server as the hands see it, in memory: versions, compare-and-swap, merge and apply."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from memferry_operator.hands.api import OURS, Api, ApiError

__all__ = ["NAMESPACE", "KeptApi"]

Object = dict[str, Any]
NAMESPACE = "ns"


class KeptApi(Api):
    """Keeps objects by their path.

    Attributes:
        objects: What is there.
        writes: Method and path of every request that was to change something.
        deletions: Propagation of each deletion, by name.
        before: Called before each request, with its method and path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.deletions: dict[str, str] = {}
        self.before: Callable[[str, str], None] = lambda _method, _where: None
        self._version = 0

    def put(self, where: str, body: Mapping[str, Any]) -> Object:
        """Writes an object, whatever is there."""
        self._version += 1
        made: Object = copy.deepcopy(dict(body))
        known = (self.objects.get(where) or {}).get("metadata") or {}
        made["metadata"] = {
            "name": where.rpartition("/")[2],
            "namespace": NAMESPACE,
            "uid": known.get("uid", f"uid-{self._version}"),
            **made.get("metadata", {}),
            "resourceVersion": str(self._version),
        }
        self.objects[where] = made
        return made

    def ours(self, plural: str, name: str, spec: Object, status: Object | None = None, **meta: Any) -> str:
        """Writes a resource of ours; its path."""
        kind = {"memorymigrations": "MemoryMigration", "memorybackends": "MemoryBackend"}.get(plural, "MemoryBinding")
        where = f"{OURS}/namespaces/{NAMESPACE}/{plural}/{name}"
        body = {"kind": kind, "metadata": {"generation": 1, **meta}, "spec": spec}
        self.put(where, body if status is None else {**body, "status": status})
        return where

    async def request(
        self,
        method: str,
        where: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        tries: int = 1,  # noqa: ARG002 - as the real one has it
    ) -> Object:
        self.before(method, where)
        if method == "GET":
            return self._get(where, params)
        self.writes.append((method, where))
        if method == "POST":
            assert body is not None
            named = f"{where}/{body['metadata']['name']}"
            if named in self.objects:
                raise ApiError(409, f"{named} is there")
            return self.put(named, body)
        kept = where.removesuffix("/status")
        there = self.objects.get(kept)
        if there is None and "apply" not in content_type:
            raise ApiError(404, f"{kept} is not there")
        assert body is not None
        if method == "DELETE":
            self.deletions[kept.rpartition("/")[2]] = body["propagationPolicy"]
            return self.objects.pop(kept)
        asked = (body.get("metadata") or {}).get("resourceVersion")
        if there is not None and asked not in {None, there["metadata"]["resourceVersion"]}:
            raise ApiError(409, f"{kept} has changed")
        if there is not None and kept != where:
            body = {**there, "status": body["status"]}
        elif there is not None and "merge" in content_type:
            body = _merged(there, body)
        return self.put(kept, body)

    def _get(self, where: str, params: Mapping[str, str] | None) -> Object:
        if params is None:
            if where not in self.objects:
                raise ApiError(404, f"{where} is not there")
            return copy.deepcopy(self.objects[where])
        wanted = dict(pair.split("=") for pair in params["labelSelector"].split(",") if pair)
        there = [found for path, found in self.objects.items() if path.rpartition("/")[0] == where]
        return {"items": [copy.deepcopy(one) for one in there if wanted.items() <= _labels(one).items()]}


def _labels(found: Object) -> dict[str, str]:
    return found["metadata"].get("labels") or {}


def _merged(there: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(there) if isinstance(there, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
