"""`--map`: the documented example, what moves and what stays, what is refused and where."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from memferry._native import Batch, Transform
from memferry.errors import RefusedError
from memferry.phases.transform import load_mapping
from memferry.profiles import load_mapper

NATIVE = load_mapper("native", "document")
PAGE = Path(__file__).parents[2] / "docs" / "mapping.md"
Json = dict[str, Any]


def mapping(folder: Path, toml: str) -> str:
    path = folder / "map.toml"
    path.write_text(toml, "utf-8")
    return load_mapping(path)


def run(mapped: str, *documents: Json, accepted: list[str] | None = None) -> tuple[list[Json], list[str], Json]:
    """Documents that came out, reasons of quarantine, gaps."""
    rows: list[tuple[str, bytes, list[Any]]] = [(str(i), json.dumps(d).encode(), []) for i, d in enumerate(documents)]
    records, bad, _ = NATIVE.decode(Batch.from_rows(rows))
    assert not bad
    changed, _, quarantined, lost = Transform(json.dumps({"map": mapped, "accepted": accepted})).apply(records)
    out = [json.loads(body) for _, body, _ in NATIVE.encode(changed)[0].rows()]
    return out, [row[3] for row in quarantined], {name: count for name, count, _ in lost}


def test_the_documented_example(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    before, after = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    assert run(mapping(tmp_path, toml), before) == ([after], [], {"extra-fields": 1})


def test_every_field_goes_to_extra_and_back(tmp_path: Path) -> None:
    record = {
        "kind": "memory",
        "id": "m",
        "scope": {name: name for name in ("user", "agent", "session", "namespace", "tenant")},
        "content": "c",
        "name": "n",
        "type": "t",
        "provenance": {"by": [1]},
        "created_at": "2024-06-15T10:30:00Z",
        "updated_at": "yesterday",
        "valid_from": {"micros": 5, "text": "odd"},
        "valid_to": 253402300799000000,
        "observed_at": "2024-06-15T10:30:00.123456Z",
        "confidence": 0.5,
        "strength": -0.0,
        "importance": 1e300,
        "version": -3,
        "tags": [],
    }
    names = [f"scope_{name}" for name in ("user", "agent", "session", "namespace", "tenant")]
    names += [name for name in record if name not in {"kind", "id", "scope"}]
    away = "\n".join(f'[[move]]\nfrom = "{name}"\nto = ["extra", "was.here", "{name}"]' for name in names)
    back = "\n".join(f'[[move]]\nto = "{name}"\nfrom = ["extra", "was.here", "{name}"]' for name in names)
    (moved,), bad, lost = run(mapping(tmp_path, away), record)
    assert (set(moved), bad, lost) == ({"kind", "id", "extra"}, [], {})
    assert len(moved["extra"]["was.here"]) == len(names)
    assert run(mapping(tmp_path, back), moved) == ([record], [], {})


def test_what_a_field_does_not_take_stays(tmp_path: Path) -> None:
    toml = '[[move]]\nfrom = "extra.a.b"\nto = "content"\n[[move]]\nfrom = "extra.n"\nto = "confidence"'
    odd = {"kind": "memory", "id": "m", "extra": {"a": {"b": 1}, "n": 2**60}}
    fit = {"kind": "memory", "id": "n", "extra": {"a": {"b": "x"}, "n": 3}}
    out, bad, _ = run(mapping(tmp_path, toml), odd, fit)
    assert bad == []
    assert out == [odd, {"kind": "memory", "id": "n", "content": "x", "confidence": 3.0}]


def test_two_values_for_one_place_are_quarantined(tmp_path: Path) -> None:
    toml = '[[move]]\nfrom = "extra.a"\nto = "content"\n[[move]]\nfrom = "name"\nto = "extra.b.c"'
    out, bad, _ = run(
        mapping(tmp_path, toml),
        {"kind": "memory", "id": "1", "content": "x", "extra": {"a": "y"}},
        {"kind": "memory", "id": "2", "name": "x", "extra": {"b": 1}},
        {"kind": "memory", "id": "3", "name": "x", "extra": {"b": {"c": None}}},
        {"kind": "memory", "id": "4", "content": "x"},
    )
    assert [document["id"] for document in out] == ["4"]
    assert bad == ["field-clash"] * 3


def test_what_is_lost_is_a_gap(tmp_path: Path) -> None:
    toml = '[[drop]]\nfield = "vectors"\n[[set]]\nfield = "name"\nvalue = "x"\nreplace = true\n'
    toml += '[[set]]\nfield = "type"\nvalue = "t"'
    dense = {"kind": "dense", "dim": 1, "data": "AACAPw=="}
    full = {"kind": "memory", "id": "1", "name": "y", "type": "u", "vectors": [dense]}
    same = {"kind": "memory", "id": "2", "name": "x"}
    mapped = mapping(tmp_path, toml)
    out, bad, lost = run(mapped, full, same)
    assert out == [{"kind": "memory", "id": i, "name": "x", "type": t} for i, t in (("1", "u"), ("2", "t"))]
    assert (bad, lost) == ([], {"names": 1, "vectors": 1})
    out, bad, lost = run(mapped, full, same, accepted=["vectors"])
    assert ([document["id"] for document in out], bad, lost) == (["2"], ["gap"], {})
    assert run(mapped, full, same, accepted=["vectors", "names"])[2] == {"names": 1, "vectors": 1}


def test_scopes_are_renamed_at_once_and_kinds_chosen(tmp_path: Path) -> None:
    toml = '[[set]]\nfield = "type"\nvalue = "t"\nkinds = ["entity"]\n'
    toml += '[scope.user]\na = "b"\nb = "c"\n[scope.agent]\na = "z"'
    out, _, _ = run(
        mapping(tmp_path, toml),
        {"kind": "memory", "id": "1", "scope": {"user": "a", "agent": "a"}},
        {"kind": "entity", "id": "2", "scope": {"user": "b", "agent": "b"}},
        {"kind": "memory", "id": "3"},
    )
    assert out == [
        {"kind": "memory", "id": "1", "scope": {"user": "b", "agent": "z"}},
        {"kind": "entity", "id": "2", "scope": {"user": "c", "agent": "b"}, "type": "t"},
        {"kind": "memory", "id": "3"},
    ]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[[move]", "at line 1"),
        ("[rename]\na = 1", "mapping: unknown key `rename`"),
        ('[move]\nfrom = "a"', "move: tables headed [[move]] are needed"),
        ('[[move]]\nfrom = "extra.a"', "move[0].to: is missing"),
        ('[[move]]\nfrom = "extra.a"\nto = "colour"', "move[0].to: unknown field `colour`"),
        ('[[move]]\nfrom = "extra"\nto = "content"', "move[0].from: unknown field `extra`"),
        ('[[move]]\nfrom = "extra.a"\nto = "from_id"', "move[0].to: `from_id` is an id"),
        ('[[move]]\nfrom = "extra.a"\nto = "id"', "move[0].to: unknown field `id`"),
        ('[[move]]\nfrom = "extra.a"\nto = "name"\nformat = "unix"', "move[0].format: unknown"),
        ('[[move]]\nfrom = "extra.a"\nto = "name"\nkinds = ["note"]', "move[0].kinds: unknown kind"),
        ('[[move]]\nfrom = "extra.a"\nto = "name"\nkind = "memory"', "move[0]: unknown key `kind`"),
        ('[[move]]\nfrom = "name"\nto = "name"', "move[0]: from and to are one field"),
        ('[[move]]\nfrom = "vectors"\nto = "extra.v"', "move[0]: `vectors` can only be dropped"),
        (
            '[[move]]\nfrom = "extra.a"\nto = "name"\n[[move]]\nfrom = "extra.b"\nto = "name"',
            "move[1].to: the same field as in move[0]",
        ),
        ('[[set]]\nfield = "version"\nvalue = "x"', "set[0].value: the field does not take a text"),
        ('[[set]]\nfield = "vectors"\nvalue = []', "set[0].value: the field does not take a list"),
        ('[[set]]\nfield = "name"\nvalue = "x"\nreplace = 1', "set[0].replace: true or false is needed"),
        ('[scope.team]\na = "b"', "scope: unknown key `team`"),
        ("[scope.user]\na = 1", "scope.user.a: a text is needed"),
    ],
)
def test_a_refusal_names_file_and_place(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        mapping(tmp_path, toml)
    assert caught.value.code == "profile"
    assert str(caught.value).startswith(f"{tmp_path / 'map.toml'}: ")
    assert message in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"none\.toml: No such file"):
        load_mapping(tmp_path / "none.toml")
