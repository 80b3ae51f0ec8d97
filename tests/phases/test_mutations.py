"""A proven target is damaged in one place; `verify` names the record and the field, every time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memferry.phases.migrate import migrate, verify_only
from memferry.phases.plan import Options
from memferry.urls import parse_url

Documents = dict[str, dict[str, Any]]


def originals() -> list[dict[str, Any]]:
    vector = base64.b64encode(bytes(range(64))).decode()
    records: list[dict[str, Any]] = [{"kind": "entity", "id": f"e{i}", "name": f"n{i}"} for i in range(5)]
    records += [
        {
            "kind": "memory",
            "id": f"m{i}",
            "content": f"the text of number {i}",
            "created_at": "2024-06-15T10:30:00.000001Z",
            "tags": ["a", "b"],
            "confidence": 0.1,
            "extra": {"count": 1, "none": None, "deep": {"x": [1, 2]}},
            "vectors": [{"kind": "dense", "dim": 16, "model": "m", "data": vector}],
        }
        for i in range(30)
    ]
    records += [{"kind": "relation", "id": "r0", "type": "knows", "from_id": "e0", "to_id": "e1"}]
    return records


def _swap(d: Documents) -> None:
    d["m1"]["content"], d["m2"]["content"] = d["m2"]["content"], d["m1"]["content"]


def _flip(d: Documents) -> None:
    data = bytearray(base64.b64decode(d["m1"]["vectors"][0]["data"]))
    data[20] ^= 1
    d["m1"]["vectors"][0]["data"] = base64.b64encode(data).decode()


def _turn(d: Documents) -> None:
    d["r0"]["from_id"], d["r0"]["to_id"] = d["r0"]["to_id"], d["r0"]["from_id"]


def _set(*path: Any, to: Any) -> Callable[[Documents], None]:
    def change(d: Documents) -> None:
        place: Any = d
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def _add(d: Documents) -> None:
    d["m99"] = {"kind": "memory", "id": "m99", "content": "nobody wrote this"}


def _double(d: Documents) -> None:
    d["again"] = d["m1"]


# name: change, expected (what, id), field that must be named
MUTATIONS: dict[str, tuple[Callable[[Documents], Any], set[tuple[str, str]], str | None]] = {
    "drop": (lambda d: d.pop("m1"), {("missing", "m1")}, None),
    "add": (_add, {("extra", "m99")}, None),
    "duplicate": (_double, {("extra", "m1")}, None),
    "swap": (_swap, {("different", "m1"), ("different", "m2")}, "content"),
    "bit of a float": (_flip, {("different", "m1")}, 'vectors[""].data[5]'),
    "int to float": (_set("m1", "extra", "count", to=1.0), {("different", "m1")}, "extra"),
    "null to missing": (lambda d: d["m1"]["extra"].pop("none"), {("different", "m1")}, "extra"),
    "microsecond": (_set("m1", "created_at", to="2024-06-15T10:30:00.000002Z"), {("different", "m1")}, "created_at"),
    "tag order": (_set("m1", "tags", to=["b", "a"]), {("different", "m1")}, "tags"),
    "empty to missing tags": (lambda d: d["m1"].pop("tags"), {("different", "m1")}, "tags"),
    "cut text": (_set("m1", "content", to="the text of number"), {("different", "m1")}, "content"),
    "direction of an edge": (_turn, {("different", "r0")}, "from_id"),
    "unknown field": (_set("m1", "surprise", to=1), {("different", "m1")}, "extra"),
    "last digit of a score": (_set("m1", "confidence", to=0.10000000000000002), {("different", "m1")}, "confidence"),
    "model of a vector": (_set("m1", "vectors", 0, "model", to="n"), {("different", "m1")}, 'vectors[""]'),
    "name of a vector": (_set("m1", "vectors", 0, "name", to="v"), {("different", "m1")}, 'vectors["v"]'),
    "kind": (_set("e1", "kind", to="memory"), {("missing", "e1"), ("extra", "e1")}, None),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_every_damage_is_found_with_id_and_field(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source.jsonl", tmp_path / "target.jsonl"
    source.write_text("".join(json.dumps(r) + "\n" for r in originals()), "utf-8")
    ends = parse_url(str(source)), parse_url(str(target))
    assert migrate(*ends, Options()).outcome == "proven"
    documents: Documents = {d["id"]: d for d in map(json.loads, target.read_text("utf-8").splitlines())}
    change, expected, named = MUTATIONS[name]
    change(documents)
    target.write_text("".join(json.dumps(d) + "\n" for d in documents.values()), "utf-8")

    result = verify_only(*ends, Options())
    assert result.outcome == "not_proven"
    assert result.verification is not None
    assert {(f.what, f.id) for f in result.verification.findings} == expected
    if named is not None:
        fields = {field for finding in result.verification.findings for field, _, _ in finding.fields}
        assert named in fields
