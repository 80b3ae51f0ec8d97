"""`--where`: what an expression sees, what is refused, what is quarantined."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memferry._native import Batch, Transform, check_where
from memferry.errors import RefusedError
from memferry.profiles import load_mapper

NATIVE = load_mapper("native", "document")
MEMORY: dict[str, Any] = {
    "kind": "memory",
    "id": "m1",
    "scope": {"user": "ann", "namespace": "n"},
    "content": "Tea",
    "created_at": "2024-06-15T12:30:00+02:00",
    "updated_at": "yesterday",
    "valid_from": "2024-06-15T10:30:00",
    "confidence": 0.5,
    "version": 3,
    "tags": ["x", "a.b"],
    "provenance": {"by": "me"},
    "extra": {"n": 5, "f": 1e16, "a": {"b": [1, None]}, "big": {"$number": "1e400"}, "u": 2**63, "yes": True},
    "color": None,
    "vectors": [{"kind": "dense", "dim": 2, "data": "AACAPgAAQMA=", "model": "mm"}],
}
WORDS = """
kind == "memory" && || ! ( ) [ ] { } , . ? : - + * / % in null true tags extra.a extra["n"] content size( has(
tags.exists( t, t == 9223372036854775807 1.5e308 -1 0 created_at timestamp( duration( '1s' matches( '(a' vectors[0]
"""
BARE: dict[str, Any] = {"kind": "relation", "id": "r1"}


def batch(*documents: dict[str, Any]) -> Batch:
    rows: list[tuple[str, bytes, list[Any]]] = [(str(i), json.dumps(d).encode(), []) for i, d in enumerate(documents)]
    records, bad, _ = NATIVE.decode(Batch.from_rows(rows))
    assert not bad
    return records


def fates(expression: str) -> str:
    """One letter a record: kept, filtered, quarantined."""
    done = Transform(json.dumps({"where": expression})).apply(batch(MEMORY, BARE))
    assert [row[3] for row in done[2]] == ["where"] * done[1].count(3)
    assert len(done[0]) == done[1].count(0)
    return "".join("kf?q"[fate] for fate in done[1])


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("true", "kk"),
        ('kind == "memory"', "kf"),
        ('kind in ["memory", "relation"]', "kk"),
        ('id == "m1"', "kf"),
        ("id.size() == 2", "kk"),
        ('scope_user == "ann"', "kf"),
        ("scope_user == null", "fk"),
        ('scope_namespace == "n" && scope_agent == null', "kf"),
        ('content == "Tea"', "kf"),
        ('content != null && content.contains("ea")', "kf"),
        ('content.startsWith("T")', "kq"),
        ('content.matches("^T.a$")', "kq"),
        ("type == null && name == null && from_id == null && to_id == null && owner_id == null", "kk"),
        ("supersedes == null", "kk"),
        ('created_at == timestamp("2024-06-15T10:30:00Z")', "kf"),
        ('created_at > timestamp("2024-06-15T10:29:59.999999Z")', "kq"),
        ('created_at != null && created_at - timestamp("2024-06-15T10:00:00Z") == duration("30m")', "kf"),
        ("created_at != null && created_at.getFullYear() == 2024", "kf"),
        ("updated_at == null", "kk"),
        ("valid_from == created_at", "kk"),
        ("valid_to == null && observed_at == null", "kk"),
        ("version == 3", "kf"),
        ("version == 3.0", "kf"),
        ("confidence == 0.5", "kf"),
        ("confidence != null && confidence >= 0.5 && strength == null && importance == null", "kf"),
        ('"x" in tags', "kf"),
        ("size(tags) == 0", "fk"),
        ('tags[1] == "a.b"', "kq"),
        ('tags.exists(t, t.endsWith("b"))', "kf"),
        ("tags.all(t, size(t) < 2)", "fk"),
        ('size(tags.filter(t, t.startsWith("a"))) == 1', "kf"),
        ('vectors.exists_one(v, v.dim == 2 && v.kind == "dense" && v.model == "mm" && v.name == "")', "kf"),
        ("has(extra.n) && extra.n == 5", "kf"),
        ("extra.n == 5", "kq"),
        ("has(extra.n)", "kf"),
        ('extra["a"].b[1] == null', "kq"),
        ("has(extra.big) && extra.big > 1e308", "kf"),
        ("has(extra.u) && extra.u > 9223372036854775807u", "kf"),
        ("has(extra.f) && type(extra.f) == double", "kf"),
        ('"$top" in extra && extra["$top"].color == null', "kf"),
        ('provenance != null && provenance.by == "me"', "kf"),
        ("extra.yes", "kq"),
        ("extra.a", "qq"),
        ("has(extra.n) ? extra.n / 0 == 1 : true", "qk"),
        ('kind == "memory" || content.contains("x")', "kq"),
    ],
)
def test_what_an_expression_sees(expression: str, found: str) -> None:
    assert fates(expression) == found


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "line 1, column 1: Syntax error"),
        ('kind = "x"', "line 1, column 6: Syntax error"),
        ("kind ==", "line 1, column 8: Syntax error"),
        ('\n  knd == "x"', 'line 2, column 3: unknown name "knd"'),
        ('kind == "é" && nope', 'line 1, column 17: unknown name "nope"'),
        ("content", "line 1, column 1: gives a field, not yes or no"),
        ('"true"', "gives a constant"),
        ("size(tags)", "gives a value"),
        ("tags.filter(t, true)", "gives a list"),
        ("version == 1 ? 1 : 2", "gives a constant"),
        ("lower(content) == 'x'", "column 6: unknown function: lower"),
        ("Thing{a: 1} == 1", "no messages are known"),
        ('content.matches("(")', "does not compile"),
        ("content.matches(id)", "must be a constant"),
        ("tags.exists(t, tags.exists(u, u == t))", "column 27: a macro within a macro costs too much"),
        ('tags.exists(t, t + t == "x")', "`+` within a macro costs too much"),
        ('tags.exists(t, t.matches("x"))', "matches() within a macro costs too much"),
        ("size(tags.map(t, t)) == 1", "map() costs too much"),
        ("(" * 120 + "true" + ")" * 120, "nested too deep"),
        (f'id == "{"x" * 5000}"', "longer than 4096 bytes"),
    ],
)
def test_what_is_refused(expression: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check_where(expression)
    assert caught.value.code == "where"
    assert str(caught.value).startswith("--where")
    assert message in str(caught.value)


def test_an_error_shows_nothing_of_the_record() -> None:
    secret = {"kind": "memory", "id": "m", "content": "the-secret", "extra": {"the-secret": 1}}
    for expression in ("content > 5", "extra[content] / 0 == 1", "int(content) == 1", "extra[content + content] == 1"):
        done = Transform(json.dumps({"where": expression})).apply(batch(secret))
        (row,) = done[2]
        assert "the-secret" not in row[4]
        assert b"the-secret" in row[5]
        assert row[:4] == ("0", "memory", "m", "where")


def test_a_large_record_is_decided_in_bounded_time() -> None:
    """A hundred thousand tags against every macro that is allowed: linear, or this would never end."""
    large = {"kind": "memory", "id": "m", "tags": [f"tag {i}" for i in range(100_000)], "content": "x" * 1_000_000}
    expression = " || ".join(f'tags.filter(t, t.startsWith("{i}")).exists(t, t.contains("{i}"))' for i in range(20))
    done = Transform(json.dumps({"where": f'{expression} || content.matches("(x+x+)+y")'})).apply(batch(large))
    assert list(done[1]) == [1]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)))
@settings(max_examples=400)
def test_any_text_compiles_or_is_refused(expression: str) -> None:
    try:
        check_where(expression)
    except RefusedError as error:
        assert error.code == "where"
        return
    assert set(fates(expression)) <= set("kfq")
