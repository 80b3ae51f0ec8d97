"""`quarantine retry`: what a target refused once and takes now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from memferry import backends, stores
from memferry._native import Batch, Mapper
from memferry.backends.embedded import EmbeddedTarget
from memferry.backends.jsonl import JsonlTarget
from memferry.backends.qdrant import QdrantTarget
from memferry.ledger import Ledger
from memferry.model import Quarantined, Range
from memferry.phases.migrate import migrate, verify_only
from memferry.phases.plan import Options
from memferry.phases.quarantine import retry
from memferry.urls import StoreUrl, parse_url
from support.checker import differences, last_json, read_embedded, read_jsonl
from support.cli import memferry
from support.documents import plain_documents, write_jsonl
from support.stores import execute
from testbed import forked
from testbed.qdrant import QdrantServer

RUNNER: Final = Path(__file__).parents[1] / "support" / "runner.py"
REFUSED: Final = {"m00000", "m00005", "m00010"}
KINDS: Final = {"agents.db": EmbeddedTarget, "copy.jsonl": JsonlTarget, "copy.jsonl.gz": JsonlTarget}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    documents = plain_documents(60, seed=5)
    assert {d["id"] for d in documents} >= REFUSED
    write_jsonl(tmp_path / "memory.jsonl", documents)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusing(monkeypatch: pytest.MonkeyPatch, kind: type[Any]) -> None:
    """A target that does not take some of the records."""
    inner: Callable[..., list[Quarantined]] = kind.write

    def write(self: Any, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:
        taken = bytes(identity not in REFUSED for _, identity in records.identities())
        bad = Mapper.quarantine(records.filter(bytes(1 - flag for flag in taken)), "rejected", "over the limit")
        rest = inner(self, part, records.filter(taken), migration, fresh=fresh)
        return [*rest, *(Quarantined(*row) for row in bad)]

    monkeypatch.setattr(kind, "write", write)


def quarantine(target: str, kind: type[Any], accept: tuple[str, ...] = ()) -> StoreUrl:
    url = parse_url(target)
    with pytest.MonkeyPatch.context() as patch:
        refusing(patch, kind)
        result = migrate(parse_url("memory.jsonl"), url, Options(accept=accept))
    assert (result.outcome, result.books.total("quarantined")) == ("not_proven", len(REFUSED))
    return url


def books(url: StoreUrl) -> dict[str, int]:
    with stores.read_ledger(url) as documents:
        assert documents is not None
        [migration] = documents.migrations()
        found = Ledger(documents, migration).books()
    assert found.balanced()
    return {name: found.total(name) for name in ("read", "written", "quarantined")}


def same(target: str) -> bool:
    found = read_embedded(Path(target)) if target.endswith(".db") else read_jsonl(Path(target))
    return differences(read_jsonl(Path("memory.jsonl")), found) == []


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", [False, True])
def test_records_are_moved_once_the_target_takes_them(folder: Path, target: str, source: bool) -> None:
    url = quarantine(target, KINDS[target])
    assert books(url) == {"read": 60, "written": 57, "quarantined": 3}
    done = memferry(folder, "quarantine", "retry", target, *(["--source", "memory.jsonl"] if source else []), "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["moved"], final["left"]) == (0, 3, []), done.stderr
    assert final["outcome"] == ("proven" if source else None)
    assert books(url) == {"read": 60, "written": 60, "quarantined": 0}
    assert same(target)
    assert memferry(folder, "quarantine", "list", target).stdout == ""
    [row] = last_json(memferry(folder, "status", target, "--json").stdout)
    assert (row["state"], row["outcome"]) == ("done", "proven" if source else "not_proven")
    if source:
        report = last_json(memferry(folder, "report", target, "--json").stdout)
        assert (report["outcome"], report["kinds"]["memory"]["quarantined"]) == ("proven", 0)
    assert verify_only(parse_url("memory.jsonl"), url, Options()).outcome == "proven"
    again = memferry(folder, "quarantine", "retry", target, "--json")
    assert (again.returncode, last_json(again.stdout)["moved"]) == (0, 0)
    done = memferry(folder, "migrate", "memory.jsonl", target, "--json")
    assert (done.returncode, last_json(done.stdout)["kinds"]["memory"]["written"]) == (0, 0), "nothing is left to sync"
    assert memferry(folder, "rollback", target).returncode == 0


def test_what_is_refused_again_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = quarantine("agents.db", EmbeddedTarget)
    with stores.read_ledger(url) as documents:
        assert documents is not None
        [migration] = documents.migrations()
    refusing(monkeypatch, EmbeddedTarget)
    result = retry(url, migration, source_url=parse_url("memory.jsonl"))
    assert (result.moved, len(result.left), result.exit_code) == (0, 3, 1)
    assert {row.id for _, row, _ in result.left} == REFUSED
    assert all("over the limit" in why for _, _, why in result.left)
    assert result.proof is not None
    assert result.proof.outcome == "not_proven"
    assert books(url)["quarantined"] == 3


@pytest.mark.parametrize(
    ("target", "places"),
    [
        ("agents.db", ["x-ledger:3", "written:1", "booked:1", "before-finish:1"]),
        ("copy.jsonl", ["written:1", "before-finish:1", "x-before-join:1", "x-after-join:1", "x-unlinked:1"]),
    ],
)
def test_a_retry_that_is_killed_is_done_by_the_next_one(folder: Path, target: str, places: list[str]) -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith("MEMFERRY_")}
    source = (folder / "memory.jsonl").read_bytes()
    for place in places:
        shutil.rmtree(folder)
        folder.mkdir()
        os.chdir(folder)
        (folder / "memory.jsonl").write_bytes(source)
        quarantine(target, KINDS[target])
        armed = {**environment, "MEMFERRY_FAILPOINT": place}
        killed = forked.run(RUNNER, "quarantine", "retry", target, environment=armed, folder=folder)
        assert killed.returncode == -9, place
        url = parse_url(target)
        state = books(url)
        assert state["written"] + state["quarantined"] == 60, place
        done = memferry(folder, "quarantine", "retry", target, "--source", "memory.jsonl", "--json")
        final = last_json(done.stdout)
        assert (done.returncode, final["outcome"]) == (0, "proven"), (place, done.stderr)
        assert books(url) == {"read": 60, "written": 60, "quarantined": 0}, place
        assert same(target), place


def test_what_cannot_be_retried_is_said(folder: Path) -> None:
    documents = plain_documents(20, seed=5)
    write_jsonl(folder / "memory.jsonl", [*documents, documents[-1]])
    with (folder / "memory.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    assert memferry(folder, "migrate", "memory.jsonl", "agents.db").returncode == 1
    done = memferry(folder, "quarantine", "retry", "agents.db", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["moved"], len(final["left"])) == (1, 0, 3), done.stderr
    assert sorted("more than once" in row["reason"] for row in final["left"]) == [False, True, True]
    done = memferry(folder, "quarantine", "retry", "agents.db", "--source", "memory.jsonl", "--json")
    assert (done.returncode, last_json(done.stdout)["moved"]) == (1, 0)


def test_a_row_that_can_be_read_by_now_is_moved(folder: Path) -> None:
    with (folder / "memory.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    assert memferry(folder, "migrate", "memory.jsonl", "agents.db").returncode == 1
    # As a newer memferry would see it: the same bytes, and they are a record.
    whole = json.dumps({"kind": "memory", "id": "late", "content": "x"}).encode()
    lines = (folder / "memory.jsonl").read_bytes().replace(b"nonsense", whole)
    (folder / "memory.jsonl").write_bytes(lines)
    target = backends.open_target(parse_url("agents.db"))
    [migration] = target.documents.migrations()
    [(number, row)] = Ledger(target.documents, migration).quarantined()
    part, page, _ = number.split("/")
    Ledger(target.documents, migration).quarantine(int(part), int(page), [row._replace(raw=whole)])
    target.close()
    done = memferry(folder, "quarantine", "retry", "agents.db", "--json")
    assert (done.returncode, last_json(done.stdout)["moved"]) == (0, 1), done.stderr
    assert books(parse_url("agents.db")) == {"read": 61, "written": 61, "quarantined": 0}
    assert same("agents.db")


def test_a_record_of_somebody_else_is_left_alone(folder: Path) -> None:
    url = quarantine("agents.db", EmbeddedTarget)
    execute(folder / "agents.db", [("INSERT INTO memory (id, content) VALUES ('m00000', 'mine')", [])])
    done = memferry(folder, "quarantine", "retry", "agents.db", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["moved"]) == (1, 2), done.stderr
    assert [(row["id"], "another record" in row["reason"]) for row in final["left"]] == [("m00000", True)]
    assert books(url)["quarantined"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.db"], "no-migration"),
        (["memory.jsonl"], "no-migration"),
        (["agents.db", "--source", "none.jsonl"], "store-missing"),
        (["agents.db", "--source", "other.jsonl"], "no-migration"),
        (["agents.db", "--migration", "0123"], "no-migration"),
    ],
)
def test_what_is_refused(folder: Path, arguments: list[str], code: str) -> None:
    write_jsonl(folder / "other.jsonl", plain_documents(5, seed=1))
    quarantine("agents.db", EmbeddedTarget)
    done = memferry(folder, "quarantine", "retry", *arguments, "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, code), done.stderr


def test_an_unfinished_run_comes_first(folder: Path) -> None:
    killed = memferry(folder, "migrate", "memory.jsonl", "agents.db", MEMFERRY_FAILPOINT="written:1")
    assert killed.returncode == -9
    done = memferry(folder, "quarantine", "retry", "agents.db", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "invalid")
    assert "resume" in done.stderr


def test_into_a_collection(folder: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}q"
    url = quarantine(target, QdrantTarget, ("vector-lengths",))
    killed = memferry(folder, "quarantine", "retry", target, MEMFERRY_FAILPOINT="written:1")
    assert killed.returncode == -9
    assert books(url)["quarantined"] == 3
    done = memferry(folder, "quarantine", "retry", target, "--source", "memory.jsonl", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["moved"]) == (0, "proven", 3), done.stderr
    assert books(url) == {"read": 60, "written": 60, "quarantined": 0}


def test_a_file_that_somebody_changed_is_left_alone(folder: Path) -> None:
    url = quarantine("copy.jsonl", JsonlTarget)
    with (folder / "copy.jsonl").open("ab") as file:
        file.write(b'{"kind":"memory","id":"mine","content":"x"}\n')
    before = (folder / "copy.jsonl").read_bytes()
    done = memferry(folder, "quarantine", "retry", "copy.jsonl", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "existing"), done.stderr
    assert (folder / "copy.jsonl").read_bytes() == before
    assert books(url)["quarantined"] == 3
    assert memferry(folder, "migrate", "memory.jsonl", "copy.jsonl").returncode == 0
