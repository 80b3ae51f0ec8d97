"""The independent check can fail: what it must see, it sees."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reference import Value
from support.checker import Contents, differences, read_jsonl, touched, tree
from support.documents import Document, documents, lines, memory, vector, write_jsonl
from support.stores import EmbeddedPlace, execute

BASE: Document = memory("m", extra={"n": 1, "none": None}, tags=["a", "b"], confidence=0.5)
BASE["vectors"] = [vector([0.0, 1.0], name="v")]
OTHERS: dict[str, Document] = {
    "int to float": {**BASE, "extra": {"n": 1.0, "none": None}},
    "null to missing": {**BASE, "extra": {"n": 1}},
    "tag order": {**BASE, "tags": ["b", "a"]},
    "content": {**BASE, "content": ""},
    "no content": {key: value for key, value in BASE.items() if key != "content"},
    "sign": {**BASE, "vectors": [vector([-0.0, 1.0], name="v")]},
    "nan": {**BASE, "confidence": math.nan},
    "vector": {**BASE, "vectors": [vector([0.0, 1.0], name="w")]},
    "unknown": {**BASE, "unknown": None},
    "time": {**BASE, "created_at": "2024-06-15T10:30:00Z"},
}


def contents(folder: Path, *records: Document) -> Contents:
    return read_jsonl(write_jsonl(folder / "check.jsonl", records))


@pytest.mark.parametrize("name", OTHERS)
def test_one_change_is_one_difference(tmp_path: Path, name: str) -> None:
    told = differences(contents(tmp_path, BASE), contents(tmp_path, OTHERS[name]))
    assert told
    assert all(line.startswith("different: ('memory', 'm')") for line in told)


def test_missing_extra_repeated_and_unreadable_are_told(tmp_path: Path) -> None:
    one, two = contents(tmp_path, BASE), contents(tmp_path, BASE, memory("n"))
    assert differences(one, two) == ["extra: ('memory', 'n')"]
    assert differences(two, one) == ["missing: ('memory', 'n')"]
    assert differences(one, contents(tmp_path, BASE, BASE)) == ["unsound: twice: ('memory', 'm')"]
    path = tmp_path / "check.jsonl"
    path.write_bytes(lines([BASE]) + b"junk\n")
    assert differences(one, read_jsonl(path)) == ["other lines: 0 became 1"]


def test_markers_are_told_when_asked(tmp_path: Path) -> None:
    marked: Document = {**BASE, "_memferry": {"migration": "m", "digest": "0" * 32}}
    one, two = contents(tmp_path, BASE), contents(tmp_path, marked)
    assert differences(one, two) == []
    assert differences(one, two, markers=True) != []


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE memory SET content = 'x' WHERE seq = 3", "different"),
        ("UPDATE memory SET importance = '0.25' WHERE seq = 3", "different"),
        ("DELETE FROM memory WHERE seq = 3", "missing"),
        ("UPDATE memory_vector SET data = zeroblob(length(data)) WHERE dim = 8", "different"),
        ("INSERT INTO memory_vector VALUES (999999999, '', NULL, 0, NULL, 0, NULL, x'')", "unsound"),
        ("INSERT INTO memferry_meta VALUES ('text_index', 'stale')", "unsound"),
    ],
)
def test_changes_of_a_database_are_told(tmp_path: Path, sql: str, told: str) -> None:
    place = EmbeddedPlace(tmp_path, "store")
    place.make(documents(60, seed=1))
    before = place.read()
    assert differences(before, place.read(), markers=True) == []
    assert execute(place.path, [(sql, [])]) > 0
    assert any(line.startswith(told) for line in differences(before, place.read()))


def test_touched_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one")
    before = tree(tmp_path)
    assert touched(before, tree(tmp_path)) == []
    path.write_text("two")
    (tmp_path / "b").mkdir()
    assert touched(before, tree(tmp_path)) == ["a", "b"]


def test_the_documents_are_the_same_for_the_same_seed_and_nasty() -> None:
    values: list[Value] = [*documents(300, seed=5)]
    assert lines(documents(300, seed=5)) == lines(documents(300, seed=5))
    assert lines(documents(300, seed=5)) != lines(documents(300, seed=6))
    text = lines(documents(300, seed=5)).decode()
    assert len(values) == 300
    for nasty in (
        '"$f64"',
        '"$number"',
        '"$bytes"',
        "18446744073709551615",
        "-0.0",
        "DROP TABLE",
        "DETACH",
        '"sparse"',
    ):
        assert nasty in text, nasty
