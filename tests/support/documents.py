"""Native documents with every value that is known to go wrong somewhere, the same ones for the same seed."""

from __future__ import annotations

import base64
import math
import random
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from reference import Number, Value, canonical

__all__ = ["Document", "Value", "documents", "lines", "memory", "plain_documents", "vector", "write_jsonl"]

Document = dict[str, Value]

_NFC = unicodedata.normalize("NFC", "café Å 각")
_NFD = unicodedata.normalize("NFD", "café Å 각")

NASTY_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\u0000",
    "line\nfeed\r\n\ttab \u0085 \u2028 \u2029 end",
    _NFC,
    _NFD,
    "👩‍👩‍👧‍👦 \U0010ffff \ufeff\u200b",
    "null",
    "NaN",
    '{"$f64":"7ff8000000000000"}',
    "'; DROP TABLE memory; --",
    "x') DETACH DELETE n //",
    "MATCH (n) DETACH DELETE n",
    "`label`:`other`",
    "$param {{mustache}} ${HOME} %s \\u0041 \\",
    '"quoted" \\"twice\\"',
    "../../etc/passwd",
    'a/b:c*d?e"f<g>h|i%j_k',
    "0x10",
    "1e400",
    "-0",
    "true",
)
"""As contents, names, tags, ids and keys of `extra`."""

NASTY_VALUES: dict[str, Value] = {
    "zero": 0,
    "beyond_double": 2**53 + 1,
    "i64_max": 2**63 - 1,
    "i64_min": -(2**63),
    "u64": 2**63,
    "u64_max": 2**64 - 1,
    "bigger": Number(str(2**64)),
    "smaller": Number(str(-(2**63) - 1)),
    "huge": Number("1e400"),
    "denormal_text": Number("4.9e-324"),
    "exact": Number("9007199254740993.0"),
    "minus_zero": -0.0,
    "plus_zero": 0.0,
    "one": 1.0,
    "tenth": 0.1,
    "third": 1 / 3,
    "smallest": 5e-324,
    "largest": 1.7976931348623157e308,
    "edge": 1e16,
    "below_edge": 9999999999999998.0,
    "small_edge": 1e-5,
    "twenty": 123456789012345680000.0,
    "inf": math.inf,
    "minus_inf": -math.inf,
    "nan": math.nan,
    "nan_payload": struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0],
    "nan_negative": struct.unpack(">d", bytes.fromhex("fff8dead0000beef"))[0],
    "null": None,
    "yes": True,
    "no": False,
    "empty_text": "",
    "empty_list": [],
    "empty_object": {},
    "list_of_null": [None, [], {}, ""],
    "bytes": b"\x00\xff\x01",
    "$$f64": "data, not ours",
    "$$$top": {"$$number": "data too"},
    "deep": [[[[[[[[{"a": [{"b": [None]}]}]]]]]]]],
    _NFC: "composed",
    _NFD: "decomposed",
    "": "the empty key",
    "'; DROP TABLE memory; --": "key",
    "a.b": {"a": {"b": 1}},
}
"""Members of `extra`, in the form of `tests/reference`."""

NASTY_TIMES: tuple[Value, ...] = (
    "2024-06-15T10:30:00.000000Z",
    "2024-06-15T10:30:00Z",
    "2024-06-15T10:30:00.123456789Z",
    "2024-06-15T10:30:00+05:45",
    "2024-06-15T10:30:00-00:00",
    "2024-06-15 10:30:00",
    "2024-06-15",
    "20240615T103000Z",
    "2016-12-31T23:59:60Z",
    "1969-12-31T23:59:59.999999Z",
    "1582-10-10T00:00:00Z",
    "0000-01-01T00:00:00.000000Z",
    "0001-01-01T00:00:00Z",
    "-000044-03-15T12:00:00Z",
    "9999-12-30T22:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z",
    "+010000-01-01T00:00:00Z",
    "2024-06-15T10:30:00+02:00[Europe/Paris]",
    "2023-02-29T00:00:00Z",
    "yesterday",
    "",
    300_000_000_000_000_000,
    -(2**63),
    2**63 - 1,
    {"micros": 5, "text": "about then"},
    {"micros": None, "text": "2024-06-15T10:30:00Z"},
    1718447400,
    None,
)

NASTY_SCORES: tuple[Value, ...] = (
    0.0,
    -0.0,
    0.1,
    1.0,
    math.inf,
    math.nan,
    struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0],
    5e-324,
    1,
    None,
    "0.5",
)

_FLOATS = (0.0, -0.0, 1.0, 0.1, 1e-45, 3.4028235e38, math.inf, -math.inf, math.nan, 1.1754942e-38)


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def vector(values: Sequence[float], **members: Value) -> Value:
    """A dense vector of a native document."""
    return {"kind": "dense", "dim": len(values), "data": _packed(values), **members}


def _nasty_vectors(rng: random.Random) -> list[Value]:
    dense = [rng.choice([*_FLOATS, rng.uniform(-1, 1)]) for _ in range(8)]
    indices = base64.b64encode(struct.pack("<3I", 0, 7, 2**32 - 1)).decode()
    sparse: Document = {"kind": "sparse", "dim": 0, "data": _packed([0.5, -0.0, math.nan]), "indices": indices}
    choices: list[Value] = [
        vector(dense, model="m", normalized=False),
        vector([rng.uniform(-1, 1) for _ in range(8)], name="title", normalized=True),
        {**sparse, "name": "words", "model": ""},
        {"kind": "multi", "dim": 2, "data": _packed(dense[:6]), "name": "tokens"},
        {"kind": "multi", "dim": 3, "data": "", "name": "no rows"},
        vector([], name="no numbers"),
    ]
    return rng.sample(choices, rng.randrange(1, 4))


def memory(identity: str, **members: Value) -> Document:
    """A small memory."""
    return {"kind": "memory", "id": identity, "content": f"about {identity}", **members}


def _pick(rng: random.Random, *values: Value) -> Value:
    return rng.choice(values)


def _common(rng: random.Random, index: int) -> Document:
    """Fields that every kind can have; the first documents walk through all nasty values."""
    found: Document = {}
    texts, times, scores = NASTY_TEXTS, NASTY_TIMES, NASTY_SCORES
    for place, name in enumerate(("created_at", "updated_at", "valid_from", "valid_to", "observed_at")):
        if rng.random() < 0.6:
            found[name] = times[(index * 5 + place) % len(times)]
    for place, name in enumerate(("confidence", "strength", "importance")):
        if rng.random() < 0.5:
            found[name] = scores[(index * 3 + place) % len(scores)]
    scope: Document = {
        name: rng.choice(texts) for name in ("user", "agent", "session", "namespace", "tenant") if rng.random() < 0.4
    }
    if rng.random() < 0.05:
        scope["tenant"] = 7
    if scope or rng.random() < 0.1:
        found["scope"] = scope
    if rng.random() < 0.5:
        found["version"] = _pick(rng, 0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 1.0, None)
    if rng.random() < 0.6:
        found["tags"] = _pick(rng, [], ["b", "a", "b"], [*texts], [texts[index % len(texts)]], ["x", None], None)
    if rng.random() < 0.3:
        found["provenance"] = _pick(rng, [], {}, "by hand", {"source": None, "n": 2**53 + 1}, [1, 1.0], None)
    names = list(NASTY_VALUES)
    extra = {name: NASTY_VALUES[name] for name in rng.sample(names, rng.randrange(0, 6))}
    extra[names[index % len(names)]] = NASTY_VALUES[names[index % len(names)]]
    found["extra"] = extra
    if rng.random() < 0.2:
        name = rng.choice(["unknown", "Content", "ID", "color", texts[index % len(texts)] or "x"])
        found[name] = _pick(rng, 1, None, -0.0, "text", {"nested": [None]})
    if rng.random() < 0.5:
        found["vectors"] = _nasty_vectors(rng)
    return found


def _identity(index: int, kind: str) -> str:
    """Nasty texts first, then plain ids; the same id stands in several kinds."""
    return NASTY_TEXTS[index] if index < len(NASTY_TEXTS) else f"{kind[0]}{index:05d}"


def documents(count: int, seed: int) -> list[Document]:
    """`count` documents of all kinds, at least one with each nasty value when there are a few hundred."""
    rng = random.Random(seed)
    shares = {"entity": 0.2, "memory": 0.4, "observation": 0.2, "relation": 0.2}
    found: list[Document] = []
    entities = [_identity(index, "entity") for index in range(int(count * shares["entity"]))]
    for kind, share in shares.items():
        for index in range(int(count * share)):
            text = NASTY_TEXTS[(index // 2) % len(NASTY_TEXTS)] if index % 2 else f"{kind} {index} {rng.random()}"
            document: Document = {"kind": kind, "id": _identity(index, kind)}
            document |= _common(rng, index)
            if kind == "relation":
                document |= {"from_id": rng.choice(entities), "to_id": rng.choice(entities), "type": text}
            elif kind == "observation":
                document |= {"owner_id": rng.choice(entities), "content": text}
            elif kind == "entity":
                document |= {"name": text, "type": rng.choice(NASTY_TEXTS)}
            elif index % 7:
                document["content"] = [text, text, text, None, 5][index % 5]
            found.append(document)
    rng.shuffle(found)
    return found


def plain_documents(count: int, seed: int) -> list[Document]:
    """`count` ordinary documents of all kinds, small and quick to move."""
    rng = random.Random(seed)
    found: list[Document] = []
    for index in range(count):
        kind = ("memory", "memory", "entity", "observation", "relation")[index % 5]
        document: Document = {"kind": kind, "id": f"{kind[0]}{index:05d}", "extra": {"n": index}}
        document["created_at"] = f"2024-06-15T10:{index % 60:02d}:00.000001Z"
        document["confidence"] = rng.random()
        document["tags"] = ["a", "b", str(index % 3)]
        if kind == "relation":
            document |= {"from_id": f"e{index - 2:05d}", "to_id": f"e{2 + index % 20:05d}", "type": "knows"}
        elif kind == "entity":
            document |= {"name": f"entity {index}", "type": "thing"}
        else:
            document["content"] = f"{kind} {index} {rng.getrandbits(64):x}"
            if kind == "observation":
                document["owner_id"] = f"e{index - 1:05d}"
        if kind == "memory":
            document["vectors"] = [vector([rng.uniform(-1, 1) for _ in range(8)], model="m", normalized=False)]
        found.append(document)
    rng.shuffle(found)
    return found


def lines(records: Iterable[Document]) -> bytes:
    """The documents as the text of a native JSONL file."""
    return b"".join(canonical(record).encode() + b"\n" for record in records)


def write_jsonl(path: Path, records: Iterable[Document]) -> Path:
    """Writes a plain native JSONL file."""
    path.write_bytes(lines(records))
    return path
