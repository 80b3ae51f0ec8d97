"""The native record and its digest against the plain-Python reference and the published test vectors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from memferry._native import Batch
from memferry.profiles import load_mapper
from reference.strategies import NUMBERS, documents, time_texts
from vectors import make

NATIVE = load_mapper("native", "document")
PUBLISHED: dict[str, list[dict[str, str]]] = json.loads(make.FILE.read_text("utf-8"))
Quarantined = tuple[str, str | None, str | None, str, str, bytes]


def decode(document: str | bytes) -> tuple[Batch, list[Quarantined]]:
    body = document.encode() if isinstance(document, str) else document
    records, quarantined, exploded = NATIVE.decode(Batch.from_rows([("7", body, [])]))
    assert exploded == 0
    assert len(records) + len(quarantined) == 1
    return records, quarantined


def outcome(document: str | bytes) -> str:
    """Digest of the native side, or the reason of its refusal."""
    records, quarantined = decode(document)
    return records.digests()[0] if len(records) else f"refused: {quarantined[0][3]}"


def expected(document: str | bytes) -> str:
    """What the reference says to the same."""
    try:
        return reference.digest(reference.decode(document))
    except reference.RefusedError as error:
        return f"refused: {error.reason}"


def written(document: str | bytes, marker: str | None = None) -> str:
    """The document as the native side writes it back."""
    raw, rows, quarantined, nested = NATIVE.encode(decode(document)[0], marker=marker)
    assert (rows, quarantined, nested) == ([0], [], 0)
    return raw.rows()[0][1].decode()


def memory(**members: object) -> str:
    return json.dumps({"kind": "memory", "id": "a", **members})


# -- the published vectors


def test_the_file_is_what_the_generator_makes() -> None:
    assert make.FILE.read_text("utf-8") == make.content()


@pytest.mark.parametrize("vector", PUBLISHED["vectors"], ids=lambda vector: vector["name"])
def test_reference_and_native_agree_with_the_file(vector: dict[str, str]) -> None:
    record = reference.decode(vector["document"])
    assert reference.identity(record) == vector["identity"]
    assert reference.encode(record).hex() == vector.get("encoding", reference.encode(record).hex())
    assert reference.digest(record) == vector["digest"]
    assert outcome(vector["document"]) == vector["digest"]


@pytest.mark.parametrize("vector", PUBLISHED["vectors"], ids=lambda vector: vector["name"])
def test_a_written_document_reads_back(vector: dict[str, str]) -> None:
    assert expected(written(vector["document"])) == vector["digest"]


@pytest.mark.parametrize("vector", PUBLISHED["refused"], ids=lambda vector: vector["name"])
def test_refused_documents_are_quarantined_whole(vector: dict[str, str]) -> None:
    body = bytes.fromhex(vector["document_hex"])
    records, quarantined = decode(body)
    assert len(records) == 0
    [(key, _, _, reason, message, raw)] = quarantined
    assert (key, reason, raw) == ("7", vector["reason"], body)
    assert message
    assert expected(body) == f"refused: {reason}"


def test_the_worked_example_of_the_specification() -> None:
    page = (Path(__file__).parents[2] / "docs" / "record.md").read_text("utf-8")
    [vector] = [vector for vector in PUBLISHED["vectors"] if vector["name"] == "worked example"]
    shown = page.split("### Worked example")[1].split("```")[1]
    first_digits = [
        re.match(r" *((?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*)(?:  |$)", line) for line in shown.splitlines()
    ]
    assert f"`{vector['document']}`" in page
    assert "".join(found[1].replace(" ", "") for found in first_digits if found) == vector["encoding"]
    assert f"digest   {vector['digest']}" in shown
    assert f"identity {vector['identity']}" in shown


def test_different_records_have_different_digests() -> None:
    one_record = [
        {"same number, other spelling"},
        {"extra: empty", "marker is no part", "nothing but kind and id", "vectors: none", "white space and order"},
        {"number: minus zero", "number: minus zero as integer"},
        {"vectors: several", "vectors: several in another order"},
        {"vectors: sparse", "vectors: sparse in another order"},
    ]
    same: dict[str, set[str]] = {}
    for vector in PUBLISHED["vectors"]:
        same.setdefault(vector["digest"], set()).add(vector["name"])
    assert [names for names in same.values() if len(names) > 1 and names not in one_record] == []


def test_null_empty_and_missing_are_three_things() -> None:
    digests = {outcome(memory(**members)) for members in ({}, {"content": ""}, {"content": None})}
    assert len(digests) == 3


# -- the order of the batch and the marker


def test_the_marker_carries_the_digest_and_does_not_change_it() -> None:
    text = memory(content="x")
    marked = written(text, marker="run-1")
    assert reference.decode(marked).marker == reference.Marker("run-1", outcome(text))
    assert outcome(marked) == outcome(text)
    assert decode(marked)[0].markers() == [("run-1", outcome(text))]


def test_rows_that_are_refused_leave_the_others_in_order() -> None:
    bodies = [memory(content="a"), "{", memory(content="b"), "[]"]
    batch = Batch.from_rows([(str(i), body.encode(), []) for i, body in enumerate(bodies)])
    records, quarantined, _ = NATIVE.decode(batch)
    assert records.digests() == [expected(bodies[0]), expected(bodies[2])]
    assert [(row[0], row[3], row[5]) for row in quarantined] == [
        ("1", "not-json", b"{"),
        ("3", "not-an-object", b"[]"),
    ]


# -- random documents


@settings(max_examples=400)
@given(documents())
def test_random_documents_have_one_digest_and_read_back(document: str) -> None:
    digest = expected(document)
    assert outcome(document) == digest
    if not digest.startswith("refused"):
        again = written(document)
        assert expected(again) == digest
        assert outcome(again) == digest
        assert written(again) == again


@settings(max_examples=400)
@given(time_texts())
def test_times_are_read_alike(text: str) -> None:
    assert outcome(memory(created_at=text)) == expected(memory(created_at=text))


@settings(max_examples=400)
@given(st.one_of(NUMBERS, st.floats(allow_nan=False, allow_infinity=False).map(repr)))
def test_numbers_are_sorted_and_printed_alike(number: str) -> None:
    document = f'{{"kind":"memory","id":"a","extra":{{"n":{number}}}}}'
    value = reference.canonical(reference.parse_canonical(number))
    assert outcome(document) == expected(document)
    assert f'"extra":{{"n":{value}}}' in written(document)


@given(st.binary(max_size=30), st.integers(0, 60))
def test_broken_bytes_are_quarantined_or_read_alike(noise: bytes, at: int) -> None:
    body = memory(content="some content", tags=["x"]).encode()
    body = body[:at] + noise + body[at + len(noise) :]
    assert outcome(body) == expected(body)
    for row in decode(body)[1]:
        assert row[5] == body


# -- quarantine entries


def entry_of(records: Batch) -> bytes:
    [entry] = NATIVE.quarantine(records, "conflict", "why")
    return entry[5]


@given(documents())
def test_quarantine_entries_are_native_documents(document: str) -> None:
    records, refused = decode(document)
    if not refused:
        assert outcome(entry_of(records)) == records.digests()[0]


def test_the_quarantine_entry_of_a_memory_spells_its_fields_as_documents_do() -> None:
    document = memory(scope={"user": "u"}, provenance={"a": 1}, unknown=1)
    assert reference.parse_canonical(entry_of(decode(document)[0])) == reference.parse_canonical(document)
