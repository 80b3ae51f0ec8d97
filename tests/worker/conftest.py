"""Ends of migrations that workers carry out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.documents import lines
from support.hybrid import ordinary
from support.stores import EmbeddedPlace
from support.worker import Job, backend

MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(request: pytest.FixtureRequest, tmp_path: Path) -> MakeJob:
    """Makes a job from an embedded store on claim `src` to a target of a kind."""

    def make(kind: str, records: int = 300, **spec: Any) -> Job:
        job = Job(tmp_path / "job", [], spec)
        job.claims.mkdir(parents=True)
        documents = ordinary(records)
        EmbeddedPlace(job.claims, "src").make(documents)
        (job.claims / "dst").mkdir()
        job.resources.append(backend("a", backend="embedded", claimName="src", path="agents.db"))
        job.resources += _target(job, kind, request)
        assert lines(documents)
        return job

    return make


def _target(job: Job, kind: str, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    if kind in {"embedded", "jsonl"}:
        return [backend("b", backend=kind, claimName="dst", path=f"target.{kind}")]
    named = {"neo4j": ("b", ""), "qdrant": ("", "b"), "hybrid": ("graph", "vectors")}[kind]
    found = []
    if named[0]:
        server = request.getfixturevalue("empty_neo4j")
        job.secret("neo4j", "password", server.password)
        password = {"secretRef": {"name": "neo4j", "key": "password"}}
        found.append(backend(named[0], backend="neo4j", address=f"127.0.0.1:{server.port}", password=password))
    if named[1]:
        server = request.getfixturevalue("qdrant_server")
        collection = request.getfixturevalue("qdrant_prefix") + "workers"
        spec = {"backend": "qdrant", "address": f"{server.host}:{server.port}", "collection": collection}
        found.append(backend(named[1], **spec, distance="dot"))
    if kind == "hybrid":
        found.append(backend("b", backend="hybrid", graphRef={"name": "graph"}, vectorsRef={"name": "vectors"}))
    return found
