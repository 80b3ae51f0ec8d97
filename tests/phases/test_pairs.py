"""The main job over every pair of stores: moved, proven, moved back, synced, rolled back."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memferry
from memferry._native import Buckets
from memferry.backends import open_source, open_target
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options
from memferry.phases.reading import read_stream
from memferry.phases.rollback import rollback
from memferry.urls import Secrets, StoreUrl
from memferry.urls import parse_url as parse_plain_url
from testbed import forked
from testbed.qdrant import QdrantServer

VECTORS = Path(__file__).parents[1] / "vectors" / "record-1.json"
STORES = ["embedded", "jsonl", "jsonl.gz", "jsonl.zst", "qdrant"]
TARGETS = [*STORES, "neo4j"]
"""Community has one database a server, so Neo4j is not a target beside itself here."""
PASSWORDS: dict[int, str] = {}
SMALL = Options(limits=Limits(records=7), parallelism=3)


@pytest.fixture
def url(
    tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str, request: pytest.FixtureRequest
) -> Callable[[str, str], str]:
    def make(store: str, name: str) -> str:
        if store == "neo4j":
            server = request.getfixturevalue("empty_neo4j")
            PASSWORDS[server.port] = server.password
            return f"neo4j://{server.user}@127.0.0.1:{server.port}/neo4j"
        if store == "qdrant":
            return f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}{name}?distance=dot"
        return str(tmp_path / f"{name}.{'db' if store == 'embedded' else store}")

    return make


def documents() -> list[str]:
    """The nasty values of the test vectors, each with an id of its own, as native documents."""
    lines = []
    for number, vector in enumerate(json.loads(VECTORS.read_text("utf-8"))["vectors"]):
        text: str = vector["document"].replace("\n", " ")
        old = json.loads(text)["id"]
        lines.append(text.replace(json.dumps(old, ensure_ascii=False), json.dumps(f"r{number}"), 1))
    return lines


def plain_documents() -> list[str]:
    """Records of every kind that any store takes, one dense vector name."""
    records: list[dict[str, Any]] = [
        {"kind": "entity", "id": f"e{i}", "name": f"`Entity` {i}'); DROP", "type": "MATCH (n) DETACH DELETE n"}
        for i in range(20)
    ]
    records += [
        {
            "kind": "memory",
            "id": f"m{i}",
            "content": f"text {i} \u00e9 e\u0301 \u0000",
            "scope": {"user": "u", "session": ""},
            "tags": [] if i % 3 else ["b", "a"],
            "confidence": -0.0 if i % 2 else i / 3,
            "created_at": "2024-06-15T10:30:00" if i % 2 else "2024-06-15T10:30:00.123456789+02:00",
            "extra": {"n": i / 3, "big": 2**63 + i, "null": None, "$x": [], "deep": {"a": [{"b": -0.0}]}},
            "vectors": [{"kind": "dense", "dim": 2, "model": "m", "data": "AACAPwAAAIA="}],
        }
        for i in range(60)
    ]
    records += [
        {"kind": "observation", "id": f"o{i}", "owner_id": f"e{i}", "content": "seen", "version": i} for i in range(20)
    ]
    records += [
        {"kind": "relation", "id": f"r{i}", "type": "knows", "from_id": f"e{i}", "to_id": f"e{(i * 7) % 20}"}
        for i in range(20)
    ]
    return [json.dumps(record) for record in records]


@pytest.fixture
def origin(tmp_path: Path) -> str:
    path = tmp_path / "origin.jsonl"
    path.write_text("\n".join(plain_documents()) + "\n", "utf-8")
    return str(path)


def parse_url(text: str) -> StoreUrl:
    """Reads a URL and adds the password of the server behind it."""
    url = parse_plain_url(text)
    return replace(url, secrets=Secrets(password=PASSWORDS.get(url.port)))


def run(source: str, target: str, **changes: Any) -> Result:
    options = Options(**{**SMALL.__dict__, **changes})
    return migrate(parse_url(source), parse_url(target), options)


def total(store: str) -> str:
    buckets = Buckets(64)
    source = open_source(parse_url(store))
    for stream in source.streams():
        for page in read_stream(source, stream.name, Limits()):
            assert not page.quarantined
            buckets.add(page.records)
    source.close()
    return buckets.total()


@pytest.mark.parametrize(("left", "right"), list(itertools.product(STORES, TARGETS)))
def test_there_and_back(left: str, right: str, url: Callable[[str, str], str], origin: str) -> None:
    first, second, third = url(left, "first"), url(right, "second"), url(left, "third")
    for source, target in itertools.pairwise([origin, first, second, third]):
        result = run(source, target)
        assert (result.outcome, result.lossless) == ("proven", True)
        assert result.books.balanced()
        assert result.books.total("written") == 120
    assert total(origin) == total(third)
    again = run(first, second)
    assert (again.outcome, again.books.total("written"), again.books.total("unchanged")) == ("proven", 0, 120)


def test_nasty_values_survive_every_file_store(tmp_path: Path) -> None:
    path = tmp_path / "nasty.jsonl"
    path.write_text("\n".join(documents()) + "\n", "utf-8")
    stores = [str(path), str(tmp_path / "a.db"), str(tmp_path / "b.jsonl.zst"), str(tmp_path / "c.db")]
    for source, target in itertools.pairwise(stores):
        assert run(source, target).outcome == "proven"
    assert total(stores[0]) == total(stores[-1])


def change(path: Path) -> None:
    """One record changed, one added, one gone."""
    lines = path.read_text("utf-8").splitlines()
    lines[25] = lines[25].replace('"content": "text 5', '"content": "changed 5')
    del lines[30]
    lines.append(json.dumps({"kind": "memory", "id": "new", "content": "new"}))
    path.write_text("\n".join(lines) + "\n", "utf-8")


@pytest.mark.parametrize("store", TARGETS)
def test_sync_writes_only_what_changed_and_deletes_when_asked(
    store: str, url: Callable[[str, str], str], origin: str
) -> None:
    target = url(store, "target")
    run(origin, target)
    change(Path(origin))
    result = run(origin, target)
    assert tuple(result.books.total(c) for c in ("written", "unchanged", "deleted")) == (2, 118, 0)
    assert result.outcome == "not_proven"  # The deleted record is still there, and ours.
    assert [(f.what, f.kind, f.id) for f in result.verification.findings] == [("extra", "memory", "m10")]  # type: ignore[union-attr]
    result = run(origin, target, delete=True)
    assert (result.outcome, result.books.total("deleted")) == ("proven", 1)


@pytest.mark.parametrize("store", TARGETS)
def test_rollback_of_a_first_run_leaves_nothing(store: str, url: Callable[[str, str], str], origin: str) -> None:
    target = url(store, "target")
    migration = run(origin, target).migration
    opened = open_target(parse_url(target))
    rollback(opened, Ledger(opened.documents, migration))
    left = opened.source()
    if left is not None:
        assert sum(s.rows or s.size_bytes for s in left.streams()) == 0
        left.close()
    opened.close()
    assert run(origin, target).outcome == "proven"


@pytest.mark.parametrize("store", ["embedded", "qdrant"])
def test_what_others_changed_is_kept_and_what_was_there_comes_back(
    store: str, url: Callable[[str, str], str], origin: str, tmp_path: Path
) -> None:
    target, other = url(store, "target"), tmp_path / "other.jsonl"
    other.write_text(json.dumps({"kind": "memory", "id": "m1", "content": "theirs", "vectors": []}) + "\n", "utf-8")
    run(str(other), target)
    before = total(target)
    kept = run(origin, target, on_existing="keep") if store == "embedded" else None
    if kept is not None:
        assert (kept.outcome, kept.books.total("conflicts")) == ("not_proven", 1)
        result = run(origin, target, on_existing="overwrite")
        assert result.outcome == "proven"
        opened = open_target(parse_url(target))
        done = rollback(opened, Ledger(opened.documents, result.migration))
        opened.close()
        assert (done.deleted, done.restored, done.kept) == (119, 1, [])
        assert before == total(target)


def take_back(store: str, migration: str) -> tuple[int, int, list[tuple[str, str]]]:
    """Rolls a migration back; what was deleted, restored, kept."""
    opened = open_target(parse_url(store))
    done = rollback(opened, Ledger(opened.documents, migration))
    opened.close()
    return done.deleted, done.restored, done.kept


def contents(store: str) -> dict[str, str]:
    """Contents by id."""
    with memferry.open(parse_url(store)) as opened:
        return {record.id: record.content or "" for record in opened.list()}


def one_after_another(target: str, folder: Path, names: str) -> dict[str, str]:
    """Migrations that write the one record `r` over each other; their names by that of the source."""
    made = {}
    for name in dict.fromkeys(names):
        source = folder / f"{name}.jsonl"
        source.write_text(json.dumps({"kind": "memory", "id": "r", "content": name}) + "\n", "utf-8")
    for name in names:
        result = run(str(folder / f"{name}.jsonl"), target, on_existing="overwrite")
        assert result.outcome == "proven"
        made[name] = result.migration
    return made


@pytest.mark.parametrize("store", ["embedded", "qdrant", "neo4j"])
@pytest.mark.parametrize("before", [{}, {"r": "the application's"}], ids=["made", "written-over"])
@pytest.mark.parametrize("order", ["ab", "ba", "abc", "bac", "cab"])
def test_migrations_may_be_taken_back_in_any_order(
    store: str, before: dict[str, str], order: str, url: Callable[[str, str], str], tmp_path: Path
) -> None:
    target = url(store, "target")
    with memferry.open(parse_url(target)) as opened:
        for identity, content in {**before, "other": "stays"}.items():
            opened.put(memferry.Record("memory", identity, content=content))
    made = one_after_another(target, tmp_path, "".join(sorted(order)))
    for name in order:
        take_back(target, made[name])
    assert contents(target) == {**before, "other": "stays"}
    assert [take_back(target, one) for one in made.values()] == [(0, 0, [])] * len(made)


def test_two_that_wrote_over_each_other_leave_nothing(url: Callable[[str, str], str], tmp_path: Path) -> None:
    target = url("embedded", "target")
    made = one_after_another(target, tmp_path, "aba")
    assert take_back(target, made["b"])[2] == [], "it is as it was before"
    assert take_back(target, made["a"]) == (1, 0, [])
    assert contents(target) == {}


def test_what_an_application_changed_in_between_is_no_migration_s_to_take(
    url: Callable[[str, str], str], tmp_path: Path
) -> None:
    """Changed beside memferry, with the marker of the first migration still on it."""
    target = url("embedded", "target")
    made = one_after_another(target, tmp_path, "a")
    with contextlib.closing(sqlite3.connect(target)) as database, database:
        database.execute("UPDATE memory SET content = 'edited'")
    assert take_back(target, made["a"]) == (0, 0, [("memory", "r")])
    made |= one_after_another(target, tmp_path, "b")
    assert take_back(target, made["b"]) == (0, 1, [])
    assert contents(target) == {"r": "edited"}


def test_rows_of_ours_that_cannot_be_read_are_told(url: Callable[[str, str], str], tmp_path: Path) -> None:
    target = url("embedded", "target")
    made = one_after_another(target, tmp_path, "a")
    with contextlib.closing(sqlite3.connect(target)) as database, database:
        database.execute("UPDATE memory SET extra = '{broken'")
    assert take_back(target, made["a"]) == (0, 0, [("memory", "r")])


RUNNER = """
import os, sys
from dataclasses import replace
from memferry.phases import plan
from memferry.phases.migrate import migrate
from memferry.model import Limits
from memferry.urls import Secrets, parse_url
plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = 30, 9000
options = plan.Options(limits=Limits(records=7), parallelism=3)
target = replace(parse_url(sys.argv[2]), secrets=Secrets(password=os.environ.get("PASSWORD")))
print(migrate(parse_url(sys.argv[1]), target, options).outcome)
"""
CRASHES = [
    (point, count)
    for point in ("planned", "prepared", "written", "booked", "committed", "before-finish", "after-finish", "copied")
    for count in (1, 4)
]
SLOW = [(point, 1) for point in ("planned", "written", "booked", "committed", "before-finish", "copied")]
"""Neo4j makes and drops its indexes for every test, so it meets each failpoint once."""


@pytest.mark.parametrize(
    ("store", "point", "count"),
    [(store, *crash) for store in STORES for crash in CRASHES] + [("neo4j", *crash) for crash in SLOW],
)
def test_killed_anywhere_the_same_command_finishes(
    store: str, point: str, count: int, url: Callable[[str, str], str], origin: str
) -> None:
    target = url(store, "target")
    command = ["-c", RUNNER, origin, target]
    killed = forked.run(*command, environment=_environment(f"{point}:{count}"))
    assert killed.returncode in {0, -signal.SIGKILL}, killed.stderr
    finished = forked.run(*command, environment=_environment(""))
    assert finished.stdout == "proven\n", finished.stderr
    copy = url("embedded", "check")
    assert run(target, copy).books.total("written") == 120
    assert total(origin) == total(copy)


def _environment(failpoint: str) -> dict[str, str]:
    import os  # noqa: PLC0415 - one place

    return {**os.environ, "MEMFERRY_FAILPOINT": failpoint, "PASSWORD": next(reversed(PASSWORDS.values()), "")}


def test_the_source_is_never_touched(origin: str, tmp_path: Path, url: Callable[[str, str], str]) -> None:
    store = tmp_path / "source.db"
    run(origin, str(store))
    shutil.copy(store, tmp_path / "before.db")
    run(str(store), url("jsonl", "out"))
    assert (tmp_path / "before.db").read_bytes() == store.read_bytes()


def test_qdrant_comes_back_in_mid_run(qdrant_prefix: str, tmp_path: Path, origin: str) -> None:
    with QdrantServer(tmp_path / "storage") as server:
        target = f"qdrant://{server.host}:{server.port}/{qdrant_prefix}killed?distance=dot"
        server.faults.refuse(count=3)
        assert run(origin, target).outcome == "proven"
        server.restart()
        again = run(origin, target)
        assert (again.books.total("unchanged"), again.outcome) == (120, "proven")
