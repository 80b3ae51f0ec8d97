"""What every target gets from sources that are damaged, odd, huge, in use, or of another system."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memferry.errors import MemferryError
from memferry.model import Quarantined
from support import unprivileged
from support.checker import differences, last_json, read_embedded, touched
from support.documents import Document, documents, lines, memory, plain_documents, vector
from support.moving import ledger, move, plan, refused, verify
from support.stores import EmbeddedPlace, JsonlPlace, Place, execute

MakePlace = Callable[[str, str], Place]

BAD_LINES: dict[str, tuple[bytes, str]] = {
    "cut": (b'{"kind":"memory","id":"cut","content":"no en', "not-json"),
    "no object": (b"[1,2]", "not-an-object"),
    "number": (b"5", "not-an-object"),
    "words": (b"# a comment", "not-json"),
    "not utf-8": (b'{"kind":"memory","id":"latin","content":"caf\xe9"}', "not-json"),
    "lone surrogate": (b'{"kind":"memory","id":"half","content":"\\ud83d"}', "not-json"),
    "key twice": (b'{"kind":"memory","id":"k","id":"l"}', "not-json"),
    "nan": (b'{"kind":"memory","id":"nan","extra":{"x":NaN}}', "not-json"),
    "no kind": (b'{"id":"what"}', "unclaimed"),
    "other kind": (b'{"kind":"thing","id":"what"}', "unclaimed"),
    "no id": (b'{"kind":"memory"}', "no-id"),
    "number as id": (b'{"kind":"memory","id":7}', "bad-id"),
    "vector": (b'{"kind":"memory","id":"v","vectors":[{"kind":"dense","dim":3,"data":"AAAA"}]}', "bad-vector"),
    "too deep": (b'{"kind":"memory","id":"deep","x":' + b"[" * 300 + b"]" * 300 + b"}", "not-json"),
    "control": (b'{"kind":"memory","id":"raw\x01"}', "not-json"),
}


@pytest.fixture
def file(make_place: MakePlace) -> JsonlPlace:
    """A plain JSONL source."""
    made = make_place("jsonl", "source")
    assert isinstance(made, JsonlPlace)
    return made


@pytest.fixture
def database(make_place: MakePlace) -> EmbeddedPlace:
    """An embedded source."""
    made = make_place("embedded", "database")
    assert isinstance(made, EmbeddedPlace)
    return made


def quarantined(target: Place, migration: str) -> list[Quarantined]:
    with ledger(target, migration) as found:
        return [row for _, row in found.quarantined()]


# -- what cannot be moved


def test_bad_lines_are_quarantined_whole(file: JsonlPlace, target: Place) -> None:
    good = plain_documents(100, seed=1)
    bad = [line for line, _ in BAD_LINES.values()]
    mixed = lines(good).splitlines()
    for place, line in enumerate(bad):
        mixed.insert(place * 7, line)
    file.write(b"\n".join(mixed))
    result = move(file, target)
    assert (result.outcome, result.exit_code) == ("not_proven", 1)
    rows = quarantined(target, result.migration)
    assert sorted((row.raw, row.reason) for row in rows) == sorted(BAD_LINES.values())
    assert (result.books.total("read"), result.books.total("written")) == (100 + len(bad), 100)
    expected = file.read()
    expected.others.clear()
    assert differences(expected, target.read()) == []
    assert move(file, target, max_quarantined=len(bad)).outcome == "proven"
    assert move(file, target, max_quarantined=len(bad) - 1).outcome == "not_proven"


def test_repeated_ids_are_quarantined_and_never_written_over_each_other(file: JsonlPlace, target: Place) -> None:
    records = plain_documents(100, seed=2)
    twice = memory("m00010", content="the second")
    same_id_other_kind: Document = {"kind": "entity", "id": "m00010"}
    file.make([*records, twice, same_id_other_kind])
    assert plan(file, target).repeated == (("memory", "m00010"),)
    result = move(file, target)
    assert result.outcome == "not_proven"
    rows = quarantined(target, result.migration)
    assert [(row.kind, row.id, row.reason) for row in rows] == [("memory", "m00010", "repeated-id")] * 2
    assert {json.loads(row.raw).get("content") for row in rows} >= {"the second"}
    assert result.books.of("memory").quarantined == 2
    assert ("memory", "m00010") not in target.read().records
    assert ("entity", "m00010") in target.read().records
    assert result.verification is not None
    assert result.verification.equal


def test_more_vectors_than_a_store_takes_are_quarantined(file: JsonlPlace, target: Place) -> None:
    many = memory("many", vectors=[vector([float(n)], name=f"v{n:03}") for n in range(257)])
    file.make([many, *(memory(f"m{n}") for n in range(30))])
    result = move(file, target, max_quarantined=1)
    assert result.outcome == "proven"
    if isinstance(target, EmbeddedPlace):
        assert [row.id for row in quarantined(target, result.migration)] == ["many"]
    else:
        assert differences(file.read(), target.read()) == []


def test_a_database_row_that_is_no_record_is_quarantined(database: EmbeddedPlace, target: Place) -> None:
    database.make(plain_documents(100, seed=3))
    good = database.read()
    edits = {
        "m00000": "extra = 'not json'",
        "m00001": "confidence = 'much'",
        "m00005": "tags = '{}'",
        "m00006": "content = x'c328'",
        "m00010": "created_at = 'yesterday'",
        "m00011": "content = CAST(x'c328' AS TEXT)",
    }
    statements: list[tuple[str, list[object]]] = [
        (f"UPDATE memory SET {edit} WHERE id = ?", [identity]) for identity, edit in edits.items()
    ]
    assert execute(database.path, statements) == len(edits)
    result = move(database, target)
    assert result.outcome == "not_proven"
    rows = quarantined(target, result.migration)
    assert sorted(str(row.id) for row in rows) == sorted(edits)
    assert all(row.kind == "memory" and row.raw for row in rows)
    expected = good.without({("memory", identity) for identity in edits})
    assert differences(expected, target.read()) == []


# -- odd, but sound


@pytest.mark.parametrize("text", [b"", b"\n\n", b" \r\n\t\n"], ids=["empty", "blank", "spaces"])
def test_an_empty_file_is_a_store_without_records(file: JsonlPlace, target: Place, text: bytes) -> None:
    file.write(text)
    result = move(file, target)
    assert (result.outcome, result.books.total("read")) == ("proven", 0)
    assert target.read().records == {}
    assert verify(file, target).outcome == "proven"


def test_an_empty_database_is_a_store_without_records(database: EmbeddedPlace, target: Place) -> None:
    database.make([])
    result = move(database, target)
    assert (result.outcome, result.books.total("read")) == ("proven", 0)


def test_line_ends_of_every_sort_are_read(file: JsonlPlace, target: Place) -> None:
    first, *rest = lines(plain_documents(100, seed=4)).splitlines()
    ends = [b"\r\n", b"\n\n", b" \n", b"\n  \r\n"]
    text = b"\xef\xbb\xbf" + first + b"\r\n" + b"".join(line + ends[n % 4] for n, line in enumerate(rest))
    file.write(text.rstrip())
    result = move(file, target)
    assert (result.outcome, result.books.total("read")) == ("proven", 100)
    file.write(b"\n".join([first, *rest]))
    assert differences(file.read(), target.read()) == []


def test_a_text_of_ten_megabytes(file: JsonlPlace, target: Place) -> None:
    file.make(
        [memory("big", content="Ä" + "x" * 10_000_000), memory("small"), memory("extra", extra={"t": "y" * 10**7})]
    )
    result = move(file, target)
    assert result.outcome == "proven"
    assert differences(file.read(), target.read()) == []


def test_a_hundred_thousand_tags(file: JsonlPlace, target: Place) -> None:
    file.make([memory("tags", tags=[f"t{n % 50_000}" for n in range(100_000)]), memory("none", tags=[])])
    result = move(file, target)
    assert result.outcome == "proven"
    assert differences(file.read(), target.read()) == []


def test_the_file_of_the_mcp_memory_server(file: JsonlPlace, target: Place) -> None:
    people = [
        {
            "type": "entity",
            "name": f"person {n}",
            "entityType": "person",
            "observations": [f"likes {n}", "is here"][: n % 3],
        }
        for n in range(90)
    ]
    knows = [
        {"type": "relation", "from": f"person {n}", "to": f"person {n + 1}", "relationType": "knows"} for n in range(80)
    ]
    file.write(b"\n".join(json.dumps(record).encode() for record in [*people, *knows]))
    file.url += "?profile=server-memory"
    result = move(file, target)
    assert result.outcome == "proven"
    assert {
        kind: (books.read, books.exploded, books.written)
        for kind, books in result.books.kinds.items()
        if books.read or books.exploded
    } == {
        "entity": (90, 0, 90),
        "observation": (0, 90, 90),
        "relation": (80, 0, 80),
    }
    found = target.read()
    likes = {f["owner_id"]: f["content"] for f in found.records.values() if str(f["content"]).startswith("likes")}
    assert likes == {f"person {n}": f"likes {n}" for n in range(90) if n % 3}
    second = move(file, target)
    assert (second.outcome, second.books.total("unchanged")) == ("proven", 260)


# -- a database in use


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has rows in the WAL and keeps the database open until it is told to end."""
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "c.execute(\"INSERT INTO memory (id, content) VALUES ('committed', 'only in the WAL')\")\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute(\"INSERT INTO memory (id, content) VALUES ('uncommitted', 'x')\")\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def test_a_database_in_use_is_read(database: EmbeddedPlace, target: Place) -> None:
    database.make(plain_documents(60, seed=5))
    with writer(database.path):
        result = move(database, target)
    assert (result.outcome, result.books.total("read")) == ("proven", 61)
    found = target.read().records
    assert found["memory", "committed"]["content"] == "only in the WAL"
    assert ("memory", "uncommitted") not in found


@pytest.fixture
def left_behind(database: EmbeddedPlace) -> EmbeddedPlace:
    """A database whose last writer died: a row is only in the WAL."""
    database.make(plain_documents(60, seed=6))
    with writer(database.path):
        pass
    assert database.path.with_name("agents.db-wal").stat().st_size > 0
    return database


def test_a_wal_left_behind_is_read_and_kept(left_behind: EmbeddedPlace, target: Place) -> None:
    before = left_behind.trace()
    result = move(left_behind, target)
    assert (result.outcome, result.books.total("read")) == ("proven", 61)
    assert ("memory", "committed") in target.read().records
    assert touched(before, left_behind.trace()) == []


@pytest.mark.parametrize("shared_memory", [True, False], ids=["with shm", "without shm"])
def test_a_wal_in_a_folder_that_cannot_be_written(
    left_behind: EmbeddedPlace, tmp_path: Path, *, shared_memory: bool
) -> None:
    if not shared_memory:
        left_behind.path.with_name("agents.db-shm").unlink()
    files = list(left_behind.folder.iterdir())
    names = sorted(path.name for path in files)
    for path in files:
        path.chmod(0o444)
    left_behind.folder.chmod(0o555)
    target = tmp_path / "copy.db"
    command: list[str | Path] = [
        sys.executable,
        unprivileged.__file__,
        "-m",
        "memferry",
        "migrate",
        left_behind.url,
        target,
        "--json",
    ]
    try:
        before = left_behind.trace()
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert touched(before, left_behind.trace()) == []
        assert sorted(path.name for path in left_behind.folder.iterdir()) == names
    finally:
        left_behind.folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["outcome"] == "proven"
    assert ("memory", "committed") in read_embedded(target).records


# -- what is refused


def test_a_database_of_a_newer_memferry_is_refused(database: EmbeddedPlace, target: Place) -> None:
    database.make([memory("m")])
    execute(database.path, [("PRAGMA user_version = 2", [])])
    error = refused(lambda: move(database, target))
    assert (error.code, error.exit_code) == ("format-newer", 2)
    assert target.trace() == {}


def test_a_target_of_a_newer_memferry_is_refused(file: JsonlPlace, database: EmbeddedPlace) -> None:
    database.make([memory("m")])
    execute(database.path, [("PRAGMA user_version = 2", [])])
    before = database.trace()
    file.make([memory("n")])
    error = refused(lambda: move(file, database))
    assert (error.code, error.exit_code) == ("format-newer", 2)
    assert touched(before, database.trace()) == []


@pytest.mark.parametrize("what", ["text", "other database", "folder", "nothing", "zeros", "half"])
def test_what_is_no_store_is_refused(database: EmbeddedPlace, target: Place, what: str) -> None:
    path = database.path
    if what == "text":
        path.write_text("this is no database, it is a text\n" * 100)
    elif what == "other database":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")
        connection.close()
    elif what == "folder":
        path.mkdir()
    elif what == "zeros":
        path.write_bytes(bytes(8192))
    elif what == "half":
        database.make(plain_documents(50, seed=7))
        path.write_bytes(path.read_bytes()[:20_000])
    before = database.trace()
    error = refused(lambda: move(database, target))
    codes = {"nothing": {"store-missing"}, "folder": {"store-missing", "store-format"}, "half": {"store-corrupt"}}
    assert error.code in codes.get(what, {"store-format"})
    assert touched(before, database.trace()) == []
    assert target.read().records == {}


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "not packed"])
def test_a_damaged_archive_is_refused(tmp_path: Path, target: Place, ending: str, damage: str) -> None:
    archive = JsonlPlace(tmp_path, "archive", ending)
    archive.make(plain_documents(400, seed=8))
    data = bytearray(archive.path.read_bytes())
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0x10
    else:
        data = bytearray(lines([memory("m")]))
    archive.path.write_bytes(data)
    error = refused(lambda: move(archive, target))
    assert error.code in {"store-corrupt", "store-format"}
    assert target.read().records == {}


def test_a_corrupt_page_is_refused_or_quarantined(database: EmbeddedPlace, target: Place) -> None:
    database.make(documents(400, seed=9))
    expected = database.read()
    damaged = bytearray(database.path.read_bytes())
    middle = len(damaged) // 8192 // 2 * 8192
    damaged[middle : middle + 8192] = bytes(8192)
    database.path.write_bytes(damaged)
    code = "store-corrupt"
    try:
        result = move(database, target)
    except MemferryError as error:
        code = error.code
    else:
        assert result.outcome != "proven" or differences(expected, target.read()) == []
    assert code == "store-corrupt"


def test_a_copy_of_a_store_is_the_same_store(database: EmbeddedPlace, target: Place, tmp_path: Path) -> None:
    """A backup that is moved again is a sync of the same migration, not a second one."""
    database.make(plain_documents(30, seed=10))
    first = move(database, target)
    backup = EmbeddedPlace(tmp_path, "backup")
    shutil.copyfile(database.path, backup.path)
    second = move(backup, target)
    assert (second.migration, second.books.total("unchanged")) == (first.migration, 30)
