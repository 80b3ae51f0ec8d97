"""One damage at a time in a proven target: `verify` finds it, with kind, id and field."""

from __future__ import annotations

import base64
import gc
import math
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pytest

import reference
from memferry.phases.migrate import Result
from reference.document import KINDS
from support.checker import snapshot, unpacked
from support.documents import Document, memory, plain_documents, vector
from support.moving import move, small_ranges, verify
from support.stores import EmbeddedPlace, JsonlPlace, execute, place

Finding = tuple[str, str, str]
Records = list[dict[str, Any]]
Statement = tuple[str, list[Any]]


def _double(bits: str) -> float:
    (double,) = struct.unpack(">d", bytes.fromhex(bits))
    return float(double)


NAN: Final = _double("7ff8000000000001")
NANOS: Final = "2024-06-15T12:30:00.123456788+02:00"
INDICES: Final = struct.pack("<2I", 3, 70_001)
DENSE: Final = (0.1, -0.0, 1.0, math.nan, 3.5, 1e-45, -2.0, 0.25)
EXTRA: Final[Document] = {
    "n": 1, "nothing": None, "zero": -0.0, "nan": NAN, "big": 2**53 + 1, "deep": {"list": [1, 2]}
}  # fmt: skip
EDGE: Final[Finding] = ("different", "relation", "edge")
HIT: Final[Finding] = ("different", "memory", "hit")


def _records() -> list[Document]:
    sparse: Document = {"kind": "sparse", "dim": 0, "name": "words", "data": _packed([0.5, 2.0])}
    sparse["indices"] = base64.b64encode(struct.pack("<2I", 3, 70_000)).decode()
    hit = memory("hit", content="the whole text, é", tags=["a", "b", "a"], version=3, confidence=0.1, strength=NAN)
    hit |= {"importance": -0.0, "created_at": "2024-06-15T10:30:00.000001Z", "scope": {"user": "ann", "agent": ""}}
    hit |= {"observed_at": "2024-06-15T12:30:00.123456789+02:00", "provenance": {"by": "hand"}, "name": ""}
    hit["extra"] = EXTRA
    dense = vector(DENSE, model="m", normalized=False)
    multi: Document = {"kind": "multi", "dim": 2, "name": "tokens", "data": _packed([1.0, 2.0, 3.0, 4.0])}
    hit["vectors"] = [dense, sparse, multi]
    edge: Document = {"kind": "relation", "id": "edge", "type": "knows", "from_id": "e00002", "to_id": "e00007"}
    return [*plain_documents(100, seed=21), hit, memory("other", tags=["z"], extra={"n": 2}), edge]


def _packed(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


@dataclass(frozen=True)
class Mutation:
    """A damage in both kinds of store.

    Attributes:
        statements: As SQL on an embedded store; `{migration}` is filled in.
        edit: On the lines of a file, decoded.
        found: What `verify` has to say.
        field: The field it has to name, or None.
    """

    statements: list[Statement]
    edit: Callable[[Records], Any]
    found: frozenset[Finding]
    field: str | None = None


def _by_id(records: Records, identity: str) -> dict[str, Any]:
    return next(record for record in records if record["id"] == identity)


def _changed(
    field: str, column: str, value: Any, *, finding: Finding = HIT, expression: str = "?", **members: Any
) -> Mutation:
    """Sets a column and the members of the document that stand for it; None removes one."""

    def edit(records: Records) -> None:
        record = _by_id(records, finding[2])
        record.update(members)
        for name in [name for name, member in members.items() if member is None]:
            del record[name]

    sql = f"UPDATE {finding[1]} SET {column} = {expression} WHERE id = ?"
    return Mutation([(sql, [value, finding[2]])], edit, frozenset({finding}), field)


def _extra(**changes: Any) -> Mutation:
    extra = dict(EXTRA)
    for name, value in changes.items():
        if value is ...:
            del extra[name]
        else:
            extra[name] = value
    return _changed("extra", "extra", reference.canonical(extra), extra=extra)


def _vector(field: str, of: str, sql: str, value: Any, /, **members: Any) -> Mutation:
    """Changes one column of the vector called `of`."""

    def edit(records: Records) -> None:
        for one in _by_id(records, "hit")["vectors"]:
            if one.get("name", "") == of:
                one.update(members)

    owner = "vector_id / 256 = (SELECT seq FROM memory WHERE id = 'hit')"
    statement = f"UPDATE memory_vector SET {sql} WHERE {owner} AND name = ?"
    return Mutation([(statement, [value, of])], edit, frozenset({HIT}), field)


def _flipped(position: int, bit: int) -> bytes:
    data = bytearray(struct.pack(f"<{len(DENSE)}f", *DENSE))
    data[position] ^= 1 << bit
    return bytes(data)


def _drop(records: Records) -> None:
    records.remove(_by_id(records, "hit"))


def _swap(records: Records) -> None:
    left, right = _by_id(records, "hit"), _by_id(records, "other")
    left["id"], right["id"] = "other", "hit"


def _turn(records: Records) -> None:
    edge = _by_id(records, "edge")
    edge["from_id"], edge["to_id"] = edge["to_id"], edge["from_id"]


def _copy(records: Records, **changes: Any) -> None:
    records.append({**_by_id(records, "other"), **changes})


def _unmark(records: Records) -> None:
    records.append({"kind": "memory", "id": "added", "content": "by nobody"})


_COLUMNS = "content, tags, extra, marker_migration, marker_digest"
_DROP_VECTORS: Statement = (
    "DELETE FROM memory_vector WHERE vector_id / 256 = (SELECT seq FROM memory WHERE id = 'hit')",
    [],
)

MUTATIONS: Final[dict[str, Mutation]] = {
    "drop": Mutation(
        [_DROP_VECTORS, ("DELETE FROM memory WHERE id = 'hit'", [])], _drop, frozenset({("missing", "memory", "hit")})
    ),
    "drop an edge": Mutation(
        [("DELETE FROM relation WHERE id = 'edge'", [])],
        lambda records: records.remove(_by_id(records, "edge")),
        frozenset({("missing", "relation", "edge")}),
    ),
    "add marked": Mutation(
        [(f"INSERT INTO memory (id, {_COLUMNS}) SELECT 'added', {_COLUMNS} FROM memory WHERE id = 'other'", [])],
        lambda records: _copy(records, id="added"),
        frozenset({("extra", "memory", "added")}),
    ),
    "duplicate": Mutation(
        [(f"INSERT INTO entity (id, {_COLUMNS}) SELECT id, {_COLUMNS} FROM memory WHERE id = 'other'", [])],
        lambda records: _copy(records, kind="entity"),
        frozenset({("extra", "entity", "other")}),
    ),
    "swap": Mutation(
        [
            ("UPDATE memory SET id = 'x' WHERE id = 'hit'", []),
            ("UPDATE memory SET id = 'hit' WHERE id = 'other'", []),
            ("UPDATE memory SET id = 'other' WHERE id = 'x'", []),
        ],
        _swap,
        frozenset({HIT, ("different", "memory", "other")}),
        "content",
    ),
    "int to float": _extra(n=1.0),
    "null to missing": _extra(nothing=...),
    "missing to null": _extra(more=None),
    "sign of zero": _extra(zero=0.0),
    "payload of a nan": _extra(nan=math.nan),
    "beyond a double": _extra(big=2**53),
    "order in a list": _extra(deep={"list": [2, 1]}),
    "unknown field": _extra(color="red"),
    "a microsecond": _changed(
        "created_at", "created_at", 1718447400000002, created_at="2024-06-15T10:30:00.000002Z"
    ),
    "nanoseconds": _changed(
        "observed_at_text", "observed_at_text", NANOS, observed_at=NANOS
    ),
    "tag order": _changed("tags", "tags", '["b","a","a"]', tags=["b", "a", "a"]),
    "a tag less": _changed("tags", "tags", '["a","b"]', tags=["a", "b"]),
    "no tags": _changed("tags", "tags", None, tags=None),
    "cut text": _changed("content", "content", "the whole text, ", content="the whole text, "),
    "normal form": _changed("content", "content", "the whole text, e\u0301", content="the whole text, e\u0301"),
    "empty to missing": _changed("name", "name", None, name=None),
    "user": _changed("scope_user", "scope_user", "bob", scope={"user": "bob", "agent": ""}),
    "empty scope to missing": _changed("scope_agent", "scope_agent", None, scope={"user": "ann"}),
    "version": _changed("version", "version", 4, version=4),
    "provenance": _changed("provenance", "provenance", '{"by":"Hand"}', provenance={"by": "Hand"}),
    "last digit of a score": _changed(
        "confidence", "confidence", "0.10000000000000002", confidence=0.10000000000000002
    ),
    "payload of a score": _changed(
        "strength", "strength", '{"$f64":"7ff8000000000003"}', strength=_double("7ff8000000000003")
    ),
    "sign of a score": _changed("importance", "importance", "0.0", importance=0.0),
    "direction of an edge": Mutation(
        [("UPDATE relation SET from_id = to_id, to_id = from_id WHERE id = 'edge'", [])],
        _turn,
        frozenset({EDGE}),
        "from_id",
    ),
    "type of an edge": _changed("type", "type", "KNOWS", finding=EDGE, type="KNOWS"),
    "model": _vector('vectors[""]', "", "model = ?", "n", model="n"),
    "no model": _vector('vectors["words"]', "words", "model = ?", "", model=""),
    "name of a vector": _vector('vectors["token"]', "tokens", "name = ?", "token", name="token"),
    "normalized": _vector('vectors[""]', "", "normalized = ?", 1, normalized=True),
    "shape of a multi-vector": _vector('vectors["tokens"]', "tokens", "dim = ?", 1, dim=1),
    "an index": _vector(
        'vectors["words"]', "words", "indices = ?", INDICES, indices=base64.b64encode(INDICES).decode()
    ),
    "no vectors": Mutation(
        [_DROP_VECTORS], lambda records: _by_id(records, "hit").pop("vectors"), frozenset({HIT}), 'vectors[""]'
    ),
}  # fmt: skip


def _random_flips(count: int) -> dict[str, Mutation]:
    rng, found = random.Random(22), {}
    for _ in range(count):
        position, bit = rng.randrange(4 * len(DENSE)), rng.randrange(8)
        data = _flipped(position, bit)
        found[f"bit {bit} of byte {position}"] = _vector(
            f'vectors[""].data[{position // 4}]', "", "data = ?", data, data=base64.b64encode(data).decode()
        )
    return found


MUTATIONS.update(_random_flips(12))

Damaged = tuple[JsonlPlace, EmbeddedPlace | JsonlPlace, str]


@pytest.fixture(scope="session")
def proven(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], tuple[Path, str]]:
    """Proven targets, in an empty store and in one that has records of others."""
    made: dict[tuple[str, str], tuple[Path, str]] = {}

    def make(kind: str, shared: str) -> tuple[Path, str]:
        if (kind, shared) not in made:
            folder = tmp_path_factory.mktemp(f"proven-{kind}")
            source, target = JsonlPlace(folder, "source", ".jsonl"), place(kind, request, folder, "target")
            source.make(_records())
            if shared == "shared":
                target.make([memory(f"theirs {n}") for n in range(20)])
            _identify(source, target)
            with pytest.MonkeyPatch.context() as patch:
                small_ranges(patch)
                result = move(source, target)
            assert result.outcome == "proven"
            gc.collect()
            made[kind, shared] = folder, result.migration
        return made[kind, shared]

    return make


def _identify(*places: Any) -> None:
    for one in places:
        if isinstance(one, JsonlPlace):
            one.url += f"?identity={one.folder.name}"


@pytest.fixture(params=["empty", "shared"])
def damaged(
    request: pytest.FixtureRequest,
    proven: Callable[[str, str], tuple[Path, str]],
    tmp_path: Path,
    kind: Literal["embedded", "jsonl"],
) -> Damaged:
    """A copy that may be damaged."""
    folder, migration = proven(kind, request.param)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    source = JsonlPlace(tmp_path, "source", ".jsonl")
    target = EmbeddedPlace(tmp_path, "target") if kind == "embedded" else JsonlPlace(tmp_path, "target", ".jsonl")
    _identify(source, target)
    return source, target, migration


def _damage(target: EmbeddedPlace | JsonlPlace, mutation: Mutation) -> None:
    if isinstance(target, EmbeddedPlace):
        assert execute(target.path, mutation.statements, rebuild=KINDS) > 0
        return
    records: Any = [reference.parse_canonical(line) for line in unpacked(target.path).splitlines()]
    before = reference.canonical(records)
    mutation.edit(records)
    assert reference.canonical(records) != before
    target.make(records)


def _findings(result: Result) -> set[Finding]:
    assert result.verification is not None
    return {(finding.what, finding.kind, finding.id) for finding in result.verification.findings}


def _fields(result: Result) -> set[str]:
    assert result.verification is not None
    return {name for finding in result.verification.findings for name, _, _ in finding.fields}


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_found(name: str, kind: str, damaged: Damaged) -> None:
    source, target, _ = damaged
    mutation = MUTATIONS[name]
    _damage(target, mutation)
    result = verify(source, target)
    assert (result.outcome, result.exit_code) == ("not_proven", 1)
    assert _findings(result) == mutation.found
    assert mutation.field is None or mutation.field in _fields(result)


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
@pytest.mark.parametrize("name", ["unknown field", "int to float", "tag order", "drop"])
def test_a_mutation_of_the_source_is_found(name: str, kind: str, damaged: Damaged) -> None:
    source, target, _ = damaged
    mutation = MUTATIONS[name]
    _damage(source, mutation)
    result = verify(source, target)
    assert result.outcome == "not_proven"
    assert _findings(result) == ({("extra", "memory", "hit")} if name == "drop" else mutation.found)


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
def test_a_mutation_that_marks_nothing_is_extra_or_foreign(
    kind: str, damaged: Damaged, request: pytest.FixtureRequest
) -> None:
    source, target, _ = damaged
    insert: list[Statement] = [("INSERT INTO memory (id, content) VALUES ('added', 'by nobody')", [])]
    _damage(target, Mutation(insert, _unmark, frozenset()))
    result = verify(source, target)
    assert result.verification is not None
    if "shared" in request.node.callspec.id:
        assert (result.outcome, result.verification.foreign) == ("proven", 21)
    else:
        assert _findings(result) == {("extra", "memory", "added")}


@pytest.mark.parametrize("kind", ["jsonl"])
def test_a_mutation_that_repeats_a_line_is_found(kind: str, damaged: Damaged) -> None:
    source, target, _ = damaged
    _damage(target, Mutation([], _copy, frozenset()))
    result = verify(source, target)
    assert result.outcome == "not_proven"
    assert _findings(result) == {("extra", "memory", "other")}


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
def test_a_mutation_that_makes_a_record_unreadable_is_found(kind: str, damaged: Damaged) -> None:
    source, target, _ = damaged
    if isinstance(target, EmbeddedPlace):
        execute(target.path, [("UPDATE memory SET extra = '{\"n\":' WHERE id = 'hit'", [])])
    else:
        lines = target.path.read_bytes().splitlines(keepends=True)
        target.path.write_bytes(b"".join(line[:-3] + b"\n" if b'"hit"' in line else line for line in lines))
    result = verify(source, target)
    assert result.outcome == "not_proven"
    assert _findings(result) & {HIT, ("missing", "memory", "hit")}


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
def test_a_mutation_that_adds_what_is_no_record_is_found(
    kind: str, damaged: Damaged, request: pytest.FixtureRequest
) -> None:
    """Where the target was empty, nothing can be someone else's."""
    source, target, migration = damaged
    if isinstance(target, EmbeddedPlace):
        sql = "INSERT INTO memory (id, extra, marker_migration) VALUES ('junk', 'no object', ?)"
        execute(target.path, [(sql, [migration])])
    else:
        target.path.write_bytes(target.path.read_bytes() + b'{"kind":"memory","id":"hi\n')
    result = verify(source, target)
    if kind == "jsonl" and "shared" in request.node.callspec.id:
        assert result.outcome == "proven"
    else:
        assert result.outcome == "not_proven"


@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
def test_without_damage_it_is_proven(kind: str, damaged: Damaged) -> None:
    source, target, _ = damaged
    result = verify(source, target)
    assert (result.outcome, _findings(result)) == ("proven", set())
    if isinstance(target, EmbeddedPlace):
        with snapshot(target.path) as connection:
            assert connection.execute("SELECT count(*) FROM memory WHERE id = 'hit'").fetchone() == (1,)
