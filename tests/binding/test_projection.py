"""The Secret of a binding: what is written is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from memferry import TransientError
from memferry.binding.projection import Projection, read_folder
from memferry.manifest import Backend
from memferry.manifest.projection import NotThereError, secret_data

VALUES = {
    ("Secret", "qdrant", "key"): "k-e-y",
    ("Secret", "neo4j", "password"): "p@ss/word",
    ("ConfigMap", "ca", "ca.crt"): "PEM",
}


def lookup(kind: Literal["Secret", "ConfigMap"], name: str, key: str) -> str | None:
    return VALUES.get((kind, name, key))


def backend(**spec: Any) -> Backend:
    return Backend.model_validate(spec)


BACKENDS = {
    "file": backend(backend="embedded", path="memory/agents.db", claimName="agents"),
    "points": backend(
        backend="qdrant",
        address="qdrant.db:7000",
        collection="agents/1",
        distance="dot",
        apiKey={"secretRef": {"name": "qdrant", "key": "key"}},
        tls={"ca": {"configMapRef": {"name": "ca", "key": "ca.crt"}}},
    ),
    "graph": backend(
        backend="neo4j",
        address="neo4j.db",
        user="me@home",
        database="agents",
        password={"secretRef": {"name": "neo4j", "key": "password"}},
    ),
    "both": backend(backend="hybrid", graphRef={"name": "graph"}, vectorsRef={"name": "points"}, identity="agents"),
}


def data(name: str) -> dict[str, str]:
    return secret_data(name, BACKENDS, lookup, revision=7, mode="Frozen")


def test_a_file(tmp_path: Path) -> None:
    told = data("file")
    assert told == {
        "type": "embedded",
        "provider": "memferry",
        "active": "file",
        "revision": "7",
        "mode": "Frozen",
        "uri": "embedded:memory/agents.db",
        "path": "memory/agents.db",
        "claim": "agents",
    }
    assert Projection(told).store(tmp_path, tmp_path).path == tmp_path / "agents/memory/agents.db"


def test_a_server(tmp_path: Path) -> None:
    told = data("points")
    assert (told["host"], told["port"], told["collection"]) == ("qdrant.db", "7000", "agents/1")
    url = Projection(told).store(tmp_path, tmp_path)
    assert (url.backend, url.host, url.port, url.name) == ("qdrant", "qdrant.db", 7000, "agents/1")
    assert (url.tls, url.distance, url.secrets.api_key) == (True, "dot", "k-e-y")
    assert url.secrets.ca_file is not None
    assert url.secrets.ca_file.read_text() == "PEM"


def test_a_graph(tmp_path: Path) -> None:
    told = data("graph")
    assert (told["port"], told["username"], told["password"]) == ("7687", "me@home", "p@ss/word")
    url = Projection(told).store(tmp_path, tmp_path)
    assert (url.host, url.port, url.name, url.tls) == ("neo4j.db", 7687, "agents", False)
    assert url.secrets.password == "p@ss/word"


def test_both(tmp_path: Path) -> None:
    url = Projection(data("both")).store(tmp_path, tmp_path)
    assert url.backend == "hybrid"
    assert url.identity == "agents"
    assert [part.backend for part in url.parts] == ["neo4j", "qdrant"]
    assert url.parts[0].secrets.password == "p@ss/word"
    assert url.parts[1].secrets.api_key == "k-e-y"


@pytest.mark.parametrize(
    ("active", "missing"),
    [
        ("none", "MemoryBackend none"),
        ("lost", "Secret other has no key key"),
        ("local", "spec.apiKey has no secretRef"),
    ],
)
def test_what_is_not_there_is_named(active: str, missing: str) -> None:
    server = {"backend": "qdrant", "address": "h", "collection": "c"}
    lost = backend(**server, apiKey={"secretRef": {"name": "other", "key": "key"}})
    local = backend(**server, apiKey={"env": "KEY"})
    with pytest.raises(NotThereError, match=missing):
        secret_data(active, {"lost": lost, "local": local}, lookup, revision=1, mode="Serving")


def test_a_mounted_secret_is_read_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    for key, value in data("points").items():
        (tmp_path / "..data" / key).write_text(value)
        (tmp_path / key).symlink_to(tmp_path / "..data" / key)
    read = read_folder(tmp_path)
    assert read.data == data("points")
    assert "k-e-y" not in repr(read)
    assert "k-e-y" not in repr(read.store(tmp_path, tmp_path))


def test_a_folder_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TransientError):
        read_folder(tmp_path / "none")


def test_no_uri_is_said(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"`graph\.uri`"):
        Projection({"type": "hybrid"}).store(tmp_path, tmp_path)
