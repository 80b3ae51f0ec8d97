"""Qdrant starts, keeps its data over kills, breaks on demand; a real one is used with care."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from qdrant_client import QdrantClient, models

from testbed.errors import TestbedError
from testbed.qdrant import API_KEY_VARIABLE, URL_VARIABLE, QdrantServer
from testbed.tls import make_certificates


@pytest.fixture(autouse=True)
def no_external(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests kill: never a server that the environment names."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    """A server of the test's own."""
    with QdrantServer(tmp_path / "qdrant") as server:
        yield server


def _make(client: QdrantClient, name: str, points: int) -> None:
    client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    _put(client, name, range(points))


def _put(client: QdrantClient, name: str, ids: range) -> None:
    vector = [0.1, 0.2, 0.3, 0.4]
    client.upsert(name, [models.PointStruct(id=one, vector=vector, payload={"number": one}) for one in ids], wait=True)


def test_data_survive_kill_and_restart(server: QdrantServer) -> None:
    with server.client() as client:
        _make(client, "things", 500)
        port, pid = server.port, server.process.pid
        server.kill9()
        with pytest.raises(grpc.RpcError):
            client.count("things")
    server.start()
    assert server.port == port
    assert server.process.pid != pid
    with server.client() as client:
        assert client.count("things", exact=True).count == 500
    server.restart()
    with server.client() as client:
        assert client.count("things", exact=True).count == 500


def test_faults_strike_and_are_counted(server: QdrantServer) -> None:
    with server.client() as client:
        _make(client, "things", 0)
        server.faults.refuse(skip=1, collection="things")
        _put(client, "things", range(1))
        with pytest.raises(grpc.RpcError) as refused:
            _put(client, "things", range(1, 2))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        _put(client, "things", range(1, 2))
        assert server.faults.struck == 1
        server.faults.reset_after()
        with pytest.raises(grpc.RpcError):
            _put(client, "things", range(2, 3))
    with server.client() as client:
        assert client.count("things", exact=True).count == 3
        server.faults.delay(0.05, count=None)
        assert len(server.faults.status()["faults"]) == 1
        server.faults.clear()
        assert server.faults.status()["faults"] == []


def test_a_fault_that_makes_no_sense_is_refused(server: QdrantServer) -> None:
    with pytest.raises(TestbedError, match="refused `refuse count=0`"):
        server.faults.refuse(count=0)


def test_api_key_and_tls(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "tls")
    with QdrantServer(tmp_path / "qdrant", api_key="a secret", certificates=certificates) as server:
        assert "a secret" not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
        with server.client() as client:
            assert client.get_collections().collections == []
        server.api_key = "another secret"
        with server.client() as client, pytest.raises(grpc.RpcError) as refused:
            client.get_collections()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_prefixed_collections_are_deleted(server: QdrantServer) -> None:
    with server.client() as client:
        _make(client, "kept", 1)
        with server.collections() as prefix:
            _make(client, f"{prefix}one", 1)
            assert len(client.get_collections().collections) == 2
        assert [collection.name for collection in client.get_collections().collections] == ["kept"]


def test_a_real_server_is_used_and_never_broken(server: QdrantServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv(API_KEY_VARIABLE, "")
    with QdrantServer() as external:
        assert external.is_external
        assert external.url == server.url
        with external.collections() as prefix, external.client() as client:
            _make(client, f"{prefix}one", 1)
        for break_it in (external.kill9, external.restart, lambda: external.faults, lambda: external.process):
            with pytest.raises(TestbedError, match=f"unset {URL_VARIABLE}"):
                break_it()
    assert server.process.is_running


@pytest.mark.parametrize("url", ["ftp://host", "localhost:6334", "http://user:secret@host"])
def test_a_bad_url_of_a_real_server_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(URL_VARIABLE, url)
    with pytest.raises(TestbedError, match=URL_VARIABLE):
        QdrantServer()


def test_a_real_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, "qdrant://127.0.0.1:1")
    with pytest.raises(TestbedError, match="does not answer"):
        QdrantServer().start()
