"""Random native documents, as JSON text in all its spellings."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.integers(-(2**64), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda f: f"{f:.9e}"),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True).filter(str.isascii),
)


@st.composite
def strings(draw: st.DrawFn) -> str:
    """A JSON string in one of its spellings."""
    return json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))


@st.composite
def reserved(draw: st.DrawFn) -> str:
    """What plain JSON cannot say."""
    key, text = draw(
        st.one_of(
            st.tuples(
                st.just("$f64"),
                st.builds(
                    lambda sign, rest: f"{sign}{rest.hex()[1:]}",
                    st.sampled_from(["7ff", "fff", "7FF", "3ff", "+7f"]),
                    st.binary(min_size=7, max_size=7),
                ),
            ),
            st.tuples(
                st.just("$number"),
                st.sampled_from(["1e400", "-1e999", "18446744073709551616", "0.10000000000000000001", "1.5", "01e400"]),
            ),
            st.tuples(st.just("$bytes"), st.sampled_from(["", "AA==", "AAE=", "AAEC", "AB==", "AAE", "AA\\u003d="])),
            st.tuples(st.just("$other"), st.just("x")),
        ),
    )
    return f'{{"{key}":"{text}"}}'


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    keys = st.one_of(TEXTS, st.sampled_from(["$$", "$$f64", "$$$x", "kind", "micros", "text"]))
    members = draw(st.dictionaries(keys.filter(lambda key: key[:1] != "$" or key[:2] == "$$"), values, max_size=4))
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    return "{" + space + f",{space}".join(f"{json.dumps(k)}{space}:{v}" for k, v in members.items()) + space + "}"


PLAIN = st.one_of(st.sampled_from(["null", "true", "false"]), NUMBERS, strings())


def nested(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"), objects(inner)),
        max_leaves=8,
    )


JSON_VALUES = nested(PLAIN)
"""JSON texts as any program writes them."""
VALUES = nested(st.one_of(PLAIN, reserved()))
"""JSON texts of native documents."""


@st.composite
def time_texts(draw: st.DrawFn) -> str:
    """Times in the spellings of section 3, and their near misses."""
    two = st.integers(0, 61).map(lambda n: f"{n:02}")
    year = draw(
        st.one_of(st.integers(1, 9998).map(lambda n: f"{n:04}"), st.sampled_from(["0000", "-000044", "+002024"]))
    )
    month = f"{draw(st.integers(0, 13)):02}"
    day = f"{draw(st.integers(0, 32)):02}"
    date = f"{year}-{month}-{day}" if draw(st.booleans()) else f"{year}{month}{day}"
    if draw(st.integers(0, 9)) == 0:
        return date
    hour = f"{draw(st.integers(0, 24)):02}"
    colon = draw(st.sampled_from([":", ":", ":", ""]))
    clock = colon.join([hour, *draw(st.lists(two, max_size=3))])
    fraction = draw(st.sampled_from(["", "", ".5", ",123456", ".1234567", ".999999999", ".", ".1234567890"]))
    offset = draw(
        st.sampled_from(["", "Z", "z", "+02", "-0530", "+05:45", "-00:00", "+25:59", "+26:00", "+01:02:03", " Z"])
    )
    note = draw(
        st.sampled_from(["", "", "", "[Europe/Paris]", "[!UTC]", "[+02:00]", "[u-ca=iso]", "[!u-ca=iso]", "[]", "[é]"])
    )
    return f"{date}{draw(st.sampled_from('Tt x'))}{clock}{fraction}{offset}{note}"


TIMES = st.one_of(
    time_texts().map(json.dumps),
    st.integers(-(2**64), 2**64).map(str),
    st.integers(-(2**55), 2**48).map(str),
    st.tuples(st.one_of(st.none(), st.integers(-(2**63), 2**63)), st.one_of(time_texts(), TEXTS)).map(
        lambda pair: json.dumps({"micros": pair[0], "text": pair[1]}),
    ),
    VALUES,
)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@st.composite
def vector_lists(draw: st.DrawFn) -> str:
    def one() -> dict[str, Any]:
        kind = draw(st.sampled_from(["dense", "sparse", "multi"]))
        rows, dim = (1, draw(st.integers(0, 3))) if kind == "dense" else (draw(st.integers(0, 2)), 2)
        data = draw(st.binary(min_size=4 * rows * dim, max_size=4 * rows * dim))
        vector: dict[str, Any] = {
            "kind": kind,
            "dim": 0 if kind == "sparse" else dim,
            "data": base64.b64encode(data).decode(),
        }
        if kind == "sparse":
            indices = draw(st.lists(st.integers(0, 2**32 - 1), min_size=rows * dim, max_size=rows * dim))
            vector["indices"] = _base64(struct.pack(f"<{rows * dim}I", *indices))
        optional = {"name": TEXTS, "model": TEXTS, "normalized": st.booleans()}
        vector |= {key: draw(value) for key, value in optional.items() if draw(st.booleans())}
        if draw(st.integers(0, 15)) == 0:
            vector[draw(st.sampled_from(["dim", "data", "kind", "name", "new"]))] = draw(
                st.sampled_from([1, "x", None])
            )
        return vector

    return json.dumps([one() for _ in range(draw(st.integers(0, 3)))])


def often(usual: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(usual, usual, usual, VALUES)


MEMBERS: dict[str, st.SearchStrategy[str]] = {
    "scope": often(objects(strings()) | st.just('{"user":"u","agent":"a","tenant":1}') | st.just('{"session":"s"}')),
    **dict.fromkeys(
        ["content", "name", "type", "from_id", "to_id", "owner_id", "supersedes"],
        often(strings()),
    ),
    "provenance": VALUES,
    **dict.fromkeys(["created_at", "updated_at", "valid_from", "valid_to", "observed_at"], TIMES),
    **dict.fromkeys(["confidence", "strength", "importance"], often(NUMBERS)),
    "version": often(st.integers(-(2**64), 2**64).map(str)),
    "tags": often(st.lists(strings(), max_size=4).map(lambda tags: f"[{','.join(tags)}]")),
    "extra": often(objects(VALUES)),
    "vectors": vector_lists(),
    "_memferry": often(st.just(json.dumps({"migration": "m", "digest": "0" * 31 + "F"}))),
    "unknown": VALUES,
}


@st.composite
def documents(draw: st.DrawFn) -> str:
    names = draw(st.sets(st.sampled_from(sorted(MEMBERS)), max_size=8))
    members = {name: draw(MEMBERS[name]) for name in sorted(names)}
    kinds = ["entity", "memory", "observation", "relation"] * 5 + ["thing"]
    members |= {"kind": json.dumps(draw(st.sampled_from(kinds))), "id": draw(strings())}
    order = draw(st.permutations(sorted(members)))
    return "{" + ",".join(f"{json.dumps(name)}:{members[name]}" for name in order) + "}"
