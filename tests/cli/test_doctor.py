"""`doctor`: what is healthy, what is not, and that nothing is changed by looking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memferry.errors import StoreError
from memferry.phases import doctor
from memferry.phases.doctor import look_at_store
from memferry.urls import Secrets, parse_url
from support.checker import last_json
from support.cli import memferry
from support.documents import plain_documents, write_jsonl
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "memory.jsonl", plain_documents(60, seed=5))
    return tmp_path


def looked(
    folder: Path, *stores: str, healthy: bool = True, **environment: str
) -> dict[tuple[str, str], dict[str, Any]]:
    done = memferry(folder, "doctor", *stores, "--json", **environment)
    final = last_json(done.stdout)
    assert (done.returncode, final["healthy"]) == ((0, True) if healthy else (3, False)), done.stdout
    assert all(check["hint"] for check in final["checks"] if check["verdict"] == "warn"), "a warning says what to do"
    return {(check["about"], check["name"].split()[0]): check for check in final["checks"]}


def test_a_healthy_machine_and_its_stores(folder: Path) -> None:
    assert memferry(folder, "migrate", "memory.jsonl", "agents.db").returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = looked(folder, "memory.jsonl", "agents.db", "none.db")
    assert "SQLite 3." in found["machine", "core"]["detail"]
    assert "60 rows" in found["agents.db", "read"]["detail"]
    assert "done proven" in found["agents.db", "migration"]["detail"]
    assert found["memory.jsonl", "migrations"]["verdict"] == "ok"
    assert found["none.db", "read"]["verdict"] == "warn"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {p: b for p, b in after.items() if not p.name.endswith(("-shm", "-wal"))} == before
    text = memferry(folder, "doctor", "agents.db").stdout
    assert max(map(len, text.splitlines())) <= 80


def test_a_run_that_was_killed_and_what_stayed_behind(folder: Path) -> None:
    killed = memferry(folder, "migrate", "memory.jsonl", "agents.db", MEMFERRY_FAILPOINT="written:1")
    assert killed.returncode == -9
    check = looked(folder, "agents.db")["agents.db", "migration"]
    assert (check["verdict"], check["hint"]) == ("warn", "memferry migrate memory.jsonl agents.db")
    with (folder / "bad.jsonl").open("wb") as file:
        file.write(b"nonsense\n")
    assert memferry(folder, "migrate", "bad.jsonl", "bad.db").returncode == 1
    check = looked(folder, "bad.db")["bad.db", "migration"]
    assert "quarantined 1" in check["detail"]
    assert check["hint"] == "memferry quarantine list bad.db"


@pytest.mark.parametrize(
    ("store", "name", "words"),
    [
        ("text.db", "read", "store-format"),
        ("no/folder/agents.db", "disk", "no folder"),
        ("qdrant://127.0.0.1:1/x", "reach", "unavailable"),
    ],
)
def test_what_is_not_healthy_exits_3(folder: Path, store: str, name: str, words: str) -> None:
    (folder / "text.db").write_text("no database\n" * 500)
    check = looked(folder, store, healthy=False)[store, name]
    assert check["verdict"] == "fail"
    assert words in check["detail"]


def test_no_url_is_refused(folder: Path) -> None:
    done = memferry(folder, "doctor", "mysql://host/x", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "url")


def test_little_disk_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_BYTES", 1 << 60)
    checks = {check.name: check for check in look_at_store(parse_url(str(folder / "memory.jsonl")))}
    assert checks["disk"].verdict == "warn"
    assert "may need" in (checks["disk"].hint or "")


@pytest.mark.parametrize(
    ("url", "verdict", "words"),
    [
        ("qdrant://127.0.0.1:1/x", "ok", "this machine"),
        ("qdrant://localhost:1/x", "ok", "this machine"),
        ("qdrant://[::1]:1/x", "ok", "this machine"),
        ("qdrant://192.0.2.1:1/x?tls=1", "ok", "certificate"),
        ("qdrant://192.0.2.1:1/x", "warn", "credentials and memories"),
    ],
)
def test_what_crosses_the_network_in_clear_text(
    url: str, verdict: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any) -> Any:
        raise StoreError("unavailable", "no")

    monkeypatch.setattr(doctor, "connect_qdrant", unreachable)
    store = parse_url(url)
    object.__setattr__(store, "secrets", Secrets(api_key="k"))
    checks = {check.name: check for check in look_at_store(store)}
    assert (checks["tls"].verdict, words in checks["tls"].detail) == (verdict, True)
    assert checks["reach"].verdict == "fail"


def test_a_collection(folder: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}d"
    found = looked(folder, "memory.jsonl", target)
    assert (found[target, "reach"]["verdict"], found[target, "read"]["verdict"]) == ("ok", "warn")
    arguments = ["migrate", "memory.jsonl", target, "--accept", "vector-lengths"]
    assert memferry(folder, *arguments).returncode == 0
    found = looked(folder, "memory.jsonl", target)
    assert " ms" in found[target, "reach"]["detail"]
    assert "60 rows" in found[target, "read"]["detail"]
    assert "done proven" in found[target, "migration"]["detail"]


def test_a_graph(folder: Path, empty_neo4j: Neo4jServer) -> None:
    url = f"neo4j://127.0.0.1:{empty_neo4j.port}"
    found = looked(folder, url, MEMFERRY_SOURCE_PASSWORD=empty_neo4j.password)
    assert "Neo4j 5" in found[url, "server"]["detail"]
    assert found[url, "clock"]["verdict"] == "ok"
    assert found[url, "credentials"]["detail"] == "sent"
    found = looked(folder, url, healthy=False, MEMFERRY_SOURCE_PASSWORD="wrong")
    assert "unauthorized" in found[url, "reach"]["detail"]
