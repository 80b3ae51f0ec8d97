"""A `Record` says exactly what the native document says."""

from __future__ import annotations

import json
import math
import struct
from array import array
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from memferry import NumberText, Record, RefusedError, Reserved, Scope, Time, Vector
from memferry._native import Batch
from memferry.batches import from_batch, to_batch
from memferry.profiles import load_mapper
from reference.strategies import documents as random_documents
from support.documents import documents, lines

DOCUMENT = load_mapper("native", "document")
PUBLISHED = json.loads((Path(__file__).parents[1] / "vectors" / "record-1.json").read_text("utf-8"))["vectors"]


def _through(text: str | bytes) -> tuple[Batch, list[Record], Batch]:
    raw = Batch.from_rows([("k", text.encode() if isinstance(text, str) else text, [])])
    held = DOCUMENT.decode(raw)[0]
    records = from_batch(held)
    return held, records, to_batch(records)


def _same(text: str | bytes) -> None:
    held, records, again = _through(text)
    assert held.digests() == again.digests()
    for record in records:
        assert Record.from_json(record.to_json()) == record


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["name"])
def test_published_vectors_come_through_with_their_digest(vector: dict[str, Any]) -> None:
    held, _, again = _through(vector["document"])
    assert held.digests() == again.digests() == [vector["digest"]]


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(random_documents())
def test_any_document_comes_through(text: str) -> None:
    _same(text)


@pytest.mark.parametrize("seed", [1, 2])
def test_documents_with_nasty_values_come_through(seed: int) -> None:
    for line in lines(documents(200, seed)).splitlines():
        _same(line)


def test_values_are_what_python_calls_them() -> None:
    nan = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0]
    extra = {
        "int": 2**64,
        "small": -(2**70),
        "nan": nan,
        "inf": -math.inf,
        "zero": -0.0,
        "bytes": b"\0\xff",
        "text": NumberText("1e400"),
        "$ref": {"$f64": "the data's own"},
        Reserved("$position"): 3,
        "none": None,
        "list": [True, [], {}, ""],
    }
    (back,) = from_batch(to_batch([Record("memory", "m", extra=extra)]))
    assert back == Record("memory", "m", extra=extra)
    assert {key: back.extra[key] for key in extra if key != "nan"} == {k: v for k, v in extra.items() if k != "nan"}
    assert struct.pack(">d", back.extra["nan"]) == struct.pack(">d", nan)
    assert math.copysign(1, back.extra["zero"]) == -1
    assert isinstance(back.extra["text"], NumberText)
    assert "$position" not in back.extra


def test_a_marker_is_no_part_of_a_record() -> None:
    held, records, again = _through(
        '{"kind":"memory","id":"m","_memferry":{"migration":"x","digest":"' + "0" * 32 + '"}}'
    )
    assert held.markers() != [None]
    assert again.markers() == [None]
    assert records == [Record("memory", "m")]
    assert (
        Record.from_document({"kind": "memory", "id": "m", "_memferry": {"migration": "x", "digest": "1"}})
        == records[0]
    )
    with pytest.raises(RefusedError, match="migrations only"):
        to_batch([Record("memory", "m", unmapped={"_memferry": {"migration": "x", "digest": "0" * 32}})])


def test_times() -> None:
    at = datetime(2024, 6, 15, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    record = Record(
        "memory",
        "m",
        created_at=at,
        updated_at=at.replace(tzinfo=None),
        valid_from="yesterday",
        valid_to=Time(300_000_000_000_000_000),
        observed_at=Time(5, "about then"),
    )
    assert (record.created_at, record.updated_at) == ("2024-06-15T10:30:00.000000Z", "2024-06-15T12:30:00.000000")
    (back,) = from_batch(to_batch([record]))
    assert back == record
    assert back.valid_to == Time(300_000_000_000_000_000)
    assert back.observed_at == Time(5, "about then")
    assert datetime.fromisoformat(str(back.created_at)).astimezone(UTC) == at


def test_vectors_are_taken_from_any_buffer_and_given_back_as_one() -> None:
    single = np.asarray([0.1, -0.0, np.inf], dtype=np.float32)
    expected = single.tobytes()
    for given_as in (single, array("f", single.tolist()), single.tolist(), single.astype(np.float64)):
        assert Vector.dense(given_as).data == expected
    record = Record(
        "memory",
        "m",
        vectors=[
            Vector.dense(single, name="a", model="mini", normalized=False),
            Vector.sparse({7: 1.0, 2: 0.5}, name="s"),
            Vector.multi([[1.0, 2.0], [3.0, 4.0]], name="m"),
        ],
    )
    (back,) = from_batch(to_batch([record]))
    assert back == record
    dense, sparse, multi = back.vectors
    assert np.asarray(dense.values).tobytes() == expected
    assert (sparse.indices, list(sparse.values)) == (struct.pack("<2I", 2, 7), [0.5, 1.0])
    assert (multi.dim, list(multi.values)) == (2, [1.0, 2.0, 3.0, 4.0])


def test_equality_is_exact() -> None:
    assert Record("memory", "m", confidence=0.0) != Record("memory", "m", confidence=-0.0)
    assert Record("memory", "m", confidence=math.nan) == Record("memory", "m", confidence=math.nan)
    assert Record("memory", "m", tags=[]) != Record("memory", "m")
    assert Record("memory", "m", unmapped={"content": None}) != Record("memory", "m")
    assert Record("memory", "m", extra={"a": 1}) != Record("memory", "m", extra={"a": 1.0})
    assert len({Record("memory", "m", scope={"user": "u"}), Record("memory", "m", scope=Scope(user="u"))}) == 1


ODD: Any = Record
"""The class for those who do not check their types."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ODD("thing", "m"), "unknown kind"),
        (lambda: ODD("memory", 1), "id: expected a text"),
        (lambda: ODD("memory", "m", content=5), "content: expected a text, got int"),
        (lambda: ODD("memory", "m", confidence="high"), "confidence: expected a number"),
        (lambda: Record("memory", "m", version=2**63), "version"),
        (lambda: Record("memory", "m", tags="abc"), "tags"),
        (lambda: Record("memory", "m", scope={"team": "x"}), "unknown part `team`"),
        (lambda: Record("memory", "m", created_at=Time(0)), "created_at"),
        (lambda: Record("memory", "m", extra={"at": datetime.now(UTC)}).to_json(), "cannot hold a datetime"),
        (lambda: ODD("memory", "m", extra={1: 2}).to_json(), "a key is a text"),
        (lambda: Record("memory", "m", content="\ud800").to_json(), "lone surrogate"),
        (lambda: Record("memory", "m", content="c", unmapped={"content": 1}).to_json(), "unmapped too"),
        (lambda: to_batch([Record("memory", "m", extra={"n": NumberText("1")})]), "not-json"),
        (lambda: to_batch([Record("memory", "m", vectors=[Vector(b"123", 1)])]), "bad-vector"),
        (lambda: to_batch([Record("memory", "m"), Record("memory", "m")]), "given twice"),
        (lambda: Vector.multi([[1.0], [1.0, 2.0]]), "of one length"),
        (lambda: Vector.sparse({-1: 1.0}), "no u32"),
        (lambda: Vector.dense(b"1234"), "floats or doubles"),
        (lambda: Vector.dense(["x"]), "vector"),
        (lambda: Record.from_json("[1]"), "no object"),
        (lambda: Record.from_json('{"id":"x"}'), "kind and id"),
        (lambda: Record.from_json("{"), "record"),
        (lambda: Record.from_json('{"kind":"memory","id":"x","vectors":"x"}'), "vectors"),
        (lambda: Record.from_json('{"kind":"memory","id":"x","vectors":[5]}'), "vectors"),
    ],
)
def test_what_cannot_be_held_is_refused(make: Any, said: str) -> None:
    with pytest.raises(RefusedError, match=said) as caught:
        make()
    assert caught.value.code in {"invalid", "repeated-id"}
