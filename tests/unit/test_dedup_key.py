"""The dedup key against plain Python, by the text of docs/mapping.md."""

from __future__ import annotations

import json
import struct
import unicodedata
from dataclasses import replace
from typing import Any

import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from memferry._native import Batch, DedupKeys, Sample
from memferry.profiles import load_mapper

NATIVE = load_mapper("native", "document")
SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
SCOPES = ("user", "agent", "session", "namespace", "tenant")
# What this Python's tables do not know, a later Unicode may compose; what they know is stable.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=10)
NEAR = st.one_of(
    TEXTS,
    st.sampled_from(
        ["", " ", "caf\u00e9", "cafe\u0301", "\u212b", "A\u030a", "\uac01", "\u1100\u1161\u11a8", "a\u0300\u0316"]
    ),
    st.builds(lambda a, b, c: a + b + c, st.text(SPACE, max_size=2), TEXTS, st.text(SPACE + "\u200b", max_size=2)),
)


def batch(documents: list[dict[str, Any]]) -> Batch:
    rows: list[tuple[str, bytes, list[Any]]] = [(str(i), json.dumps(d).encode(), []) for i, d in enumerate(documents)]
    records, bad, _ = NATIVE.decode(Batch.from_rows(rows))
    assert not bad
    return records


def expected(document: dict[str, Any]) -> str | None:
    kinds = ("entity", "memory", "observation", "relation")
    field = {"entity": "name", "relation": None}.get(document["kind"], "content")
    text = document.get(field, "").strip(SPACE) if field else ""
    if not text:
        return None
    out = b"memferry-dedup-1\n" + bytes([kinds.index(document["kind"])])
    for value in [*(document.get("scope", {}).get(name) for name in SCOPES), document.get("owner_id")]:
        out += b"\0" if value is None else b"\1" + struct.pack("<Q", len(value.encode())) + value.encode()
    return xxhash.xxh3_128_hexdigest(out + unicodedata.normalize("NFC", text).encode())


DOCUMENTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["entity", "memory", "observation", "relation"]), "id": st.just("i")},
    optional={
        "content": NEAR,
        "name": NEAR,
        "owner_id": st.sampled_from(["", "e1", "e2"]),
        "type": st.just("t"),
        "scope": st.dictionaries(st.sampled_from(SCOPES), st.sampled_from(["", "ann", "bob"]), min_size=1),
        "created_at": st.just("2024-06-15T10:30:00Z"),
    },
)


@given(st.lists(DOCUMENTS, max_size=8))
@settings(max_examples=300)
def test_the_key_is_that_of_the_specification(documents: list[dict[str, Any]]) -> None:
    assert DedupKeys().keys(batch(documents)) == [expected(document) for document in documents]


@given(st.lists(DOCUMENTS, max_size=8))
@settings(max_examples=100)
def test_the_exact_key_is_the_digest_without_id_and_times(documents: list[dict[str, Any]]) -> None:
    def body(document: dict[str, Any]) -> str | None:
        record = reference.decode(json.dumps(document).encode())
        bare = replace(record, id="", times=[None] * len(record.times))
        return None if expected(document) is None else reference.digest(bare)

    assert DedupKeys(exact=True).keys(batch(documents)) == [body(document) for document in documents]


@given(st.lists(DOCUMENTS, max_size=30))
@settings(max_examples=50)
def test_groups_are_found(documents: list[dict[str, Any]]) -> None:
    keys = DedupKeys()
    for at in range(0, len(documents), 7):
        keys.add(batch(documents[at : at + 7]))
    repeated, records = keys.repeated()
    found = [key for key in map(expected, documents) if key is not None]
    twice = {key for key in found if found.count(key) > 1}
    assert (len(keys), len(repeated), records) == (len(found), len(twice), sum(found.count(key) for key in twice))
    members = repeated.members(batch(documents))
    assert members == [(row, key) for row, key in enumerate(map(expected, documents)) if key in twice]


def test_a_key_takes_at_most_24_bytes() -> None:
    keys = DedupKeys()
    for at in range(0, 100_000, 10_000):
        keys.add(batch([{"kind": "memory", "id": str(i), "content": str(i)} for i in range(at, at + 10_000)]))
    assert len(keys) == 100_000
    assert keys.held_bytes <= 24 * len(keys)


def test_a_sample_is_the_same_however_it_is_read() -> None:
    documents: list[dict[str, Any]] = [{"kind": "memory", "id": str(i)} for i in range(50)]
    left, right = Sample(7), Sample(7)
    left.add(batch(documents))
    for document in reversed(documents):
        right.add(batch([document]))
    smallest = sorted(xxhash.xxh3_128_hexdigest(b"\1" + d["id"].encode()) for d in documents)
    assert left.largest() == right.largest() == smallest[6]
    assert Sample(7).largest() is None
