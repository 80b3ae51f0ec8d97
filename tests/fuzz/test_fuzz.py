"""Parsers and mappers over broken input for a bounded time: an answer or an error of ours, never a panic.

`MEMFERRY_FUZZ_SECS` (10 in all) says how long, `MEMFERRY_FUZZ_SEED` (0) where it begins.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import zstandard

import reference
from fuzz.mutator import fuzz, mutated, told
from memferry import profiles
from memferry._native import (
    Batch,
    Buckets,
    Drill,
    EmbeddedStore,
    JsonlIndex,
    JsonlPart,
    JsonlReader,
    Keys,
    Mapper,
    QdrantStore,
    classify,
    diff,
    jsonl_align,
    jsonl_concatenate,
    normalize_vectors,
    store_keys,
    vectors_not_finite,
)
from memferry.backends.embedded import EmbeddedSource
from memferry.errors import CATALOGUE, MemferryError
from memferry.ledger import Ledger, RangeState
from memferry.model import KINDS, Limits, Range
from memferry.phases.plan import Gap, Plan
from memferry.profiles import load_mapper, profile_names
from memferry.urls import parse_url
from support.documents import NASTY_TIMES, documents, lines

NATIVE = load_mapper("native", "document")
DOCUMENTS = lines(documents(300, seed=77)).splitlines()
ODD = [
    b"",
    b"null",
    b"{}",
    b'{"kind":"memory","id":"a","id":"b"}',
    b'{"kind":"memory","id":"\\ud800"}',
    b'{"kind":"memory","id":"a","vectors":[{"kind":"dense","dim":4294967295,"data":""}]}',
    b'{"kind":"memory","id":"a","vectors":[{"kind":"multi","dim":0,"data":"AAAA"}]}',
    b'{"kind":"memory","id":"a","vectors":[{"kind":"sparse","dim":0,"data":"AAAAAA==","indices":"AA=="}]}',
    b'{"kind":"memory","id":"a","tags":[1,null,"x"],"scope":{"user":{"a":1}},"version":1e400}',
    b'{"kind":"relation","id":"a","extra":{"$$":{"$f64":1},"$number":"x"}}',
    b'{"type":"entity","name":"n","entityType":"t","observations":["a",{"b":1},null]}',
    b'{"type":"relation","from":"a","to":"b","relationType":"knows"}',
    b'{"kind":"memory","id":"a","x":' + b"[" * 127 + b"]" * 127 + b"}",
]


def row(body: bytes, vectors: Any = ()) -> Batch:
    return Batch.from_rows([("7", body, list(vectors))])


# -- records


@pytest.mark.parametrize("profile", profile_names("document"))
def test_document_lines(profile: str) -> None:
    """What is read is written so that it reads the same; what is not is kept whole, with a reason."""
    mapper = load_mapper(profile, "document")
    read = 0

    def work(body: bytes) -> None:
        nonlocal read
        records, bad, exploded = mapper.decode(row(body))
        assert len(records) + len(bad) == 1 + exploded
        assert all(entry[5] == body and entry[3] and entry[4] for entry in bad)
        if not len(records):
            return
        read += 1
        raw, _, refused, _ = NATIVE.encode(records, marker="0123456789abcdef")
        assert refused == []
        again, bad, _ = NATIVE.decode(raw)
        assert (again.digests(), bad) == (records.digests(), [])
        assert [marker and marker[1] for marker in again.markers()] == records.digests()

    for number, body in fuzz([*ODD, *DOCUMENTS]):
        assert told(lambda: work(body), number, body) is None, body  # noqa: B023
    assert read > 100 or profile != "native"


@pytest.mark.parametrize("shape", ["point", "node"])
def test_rows_of_servers(shape: str) -> None:
    """Payloads, properties and vectors as a server might hand them over."""
    mappers = [load_mapper(profile, shape) for profile in profile_names(shape)]
    native = load_mapper("native", shape)
    records = NATIVE.decode(Batch.from_rows([("1", body, []) for body in DOCUMENTS]))[0]
    rows = native.encode(records, namespace="6ba7b810-9dad-11d1-80b4-00c04fd430c8", marker="0123456789abcdef")[0].rows()
    bodies = [body for _, body, _ in rows]
    vectors = [found for _, _, found in rows if found]

    def work(key: str, body: bytes, given: list[Any]) -> None:
        raw = Batch.from_rows([(key, body, given)])
        for mapper in mappers:
            decoded, bad, _ = mapper.decode(raw)
            assert len(decoded) + len(bad) >= 1
            mapper.gaps(decoded)
            for marker in (None, "m"):
                again = mapper.encode(decoded, namespace="6ba7b810-9dad-11d1-80b4-00c04fd430c8", marker=marker)[0]
                mapper.decode(again)
            names = [name for name, _, _, _ in decoded.vector_specs()]
            normalize_vectors(decoded, names)
            vectors_not_finite(decoded, names)
            NATIVE.quarantine(decoded, "why", "because")
            NATIVE.encode(decoded)

    for number, body in fuzz(bodies):
        rng = random.Random(number)
        given: list[Any] = rng.choice(vectors) if rng.random() < 0.7 else []
        if given and rng.random() < 0.7:
            given = [_bent(one, rng) for one in given]
        key = rng.choice(("7", "", str(2**64), "0193a5f0-0000-7000-8000-000000000000", "4:x:1", "é"))
        told(lambda: work(key, body, given), number, (key, body, given))  # noqa: B023


def _bent(vector: Any, rng: random.Random) -> Any:
    name, model, dim, normalized, kind, indices, data = vector
    match rng.randrange(6):
        case 0:
            dim = rng.choice((0, 1, 2**31, 2**32 - 1, dim + 1))
        case 1:
            kind = rng.choice((0, 1, 2, 3, 255))
        case 2:
            data = mutated(data, rng)
        case 3:
            indices = None if indices else rng.randbytes(rng.randrange(20))
        case 4:
            name = rng.choice(("", "default", "a" * 300, "x\0y", "$"))
        case _:
            model = rng.choice((None, "", "é"))
    return name, model, dim, normalized, kind, indices, data


def test_times_are_read_as_the_reference_reads_them() -> None:
    corpus = [time.encode() for time in NASTY_TIMES if isinstance(time, str)]

    def work(text: str) -> None:
        body = json.dumps({"kind": "memory", "id": "a", "created_at": text}).encode()
        records, bad, _ = NATIVE.decode(row(body))
        try:
            expected = [reference.digest(reference.decode(body))]
        except reference.RefusedError as error:
            assert bad[0][3] == error.reason
        else:
            assert (records.digests(), bad) == (expected, [])

    for number, time in fuzz(corpus):
        text = time.decode("utf-8", "replace")
        assert told(lambda: work(text), number, text) is None  # noqa: B023


def test_profile_tables() -> None:
    """A table that is broken is refused as one; a table that is not runs."""
    folder = files(profiles)
    corpus = [one.read_bytes() for one in folder.iterdir() if one.name.endswith(".json")]
    some = Batch.from_rows([("1", body, []) for body in [*ODD, *DOCUMENTS[:20]]])
    records = NATIVE.decode(some)[0]

    def work(text: bytes, escaped: bool) -> None:
        mapper = Mapper(text.decode("utf-8", "replace"), escaped)
        assert mapper.kinds is not None
        decoded = mapper.decode(some)[0]
        for batch in (decoded, records):
            mapper.gaps(batch)
            mapper.encode(batch, marker="m", accepted=["tags", "extra"])

    for number, text in fuzz(corpus):
        error = told(lambda: work(text, number % 2 == 0), number, text)  # noqa: B023
        assert error is None or error.code in {"profile", "invalid"}, (error.code, text)


# -- files


def test_files_of_lines(tmp_path: Path) -> None:
    """Read whole, in pages, and in byte ranges: every line once, or an error."""
    plain = lines(documents(60, seed=8))
    packed = [plain, gzip.compress(plain), zstandard.ZstdCompressor(write_checksum=True).compress(plain)]
    names = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"]

    def pages(reader: JsonlReader, start: int, until: int | None) -> int:
        lines_read, at = 0, start
        while True:
            raw, read, following = reader.read_page(at, until, 7, 3000)
            NATIVE.decode(raw)
            lines_read += read
            if following is None:
                return lines_read
            assert following > at
            at = following

    def work(path: Path) -> None:
        reader = JsonlReader(path)
        whole = pages(reader, 0, None)
        if reader.seekable:
            size = path.stat().st_size
            cuts = sorted({0, size, *(jsonl_align(path, size * i // 5) for i in range(1, 5))})
            assert sum(pages(reader, *ends) for ends in itertools.pairwise(cuts)) == whole
        index = JsonlIndex(path, NATIVE)
        index.fetch(NATIVE, [("memory", "m00001")])
        index.rest(0)

    for number, text in fuzz(packed):
        for name in names:
            path = tmp_path / name
            path.write_bytes(text)
            told(lambda: work(path), number, (name, text))  # noqa: B023


def test_embedded_files(tmp_path: Path) -> None:
    """A database with bytes that are not what they were: read or refused, and SQLite is not brought down by it."""
    path = tmp_path / "whole.db"
    store = EmbeddedStore.open_target(path)
    store.write(NATIVE.decode(Batch.from_rows([("1", body, []) for body in DOCUMENTS]))[0], fresh=True)
    store.rebuild_text()
    store.ledger_put("m", "run", "{}")
    del store
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
    whole = path.read_bytes()

    def read(broken: Path) -> None:
        source, found = EmbeddedSource(broken), EmbeddedStore.open_source(broken)
        for kind in KINDS:
            reader, cursor, pages = source.reader(), None, 0
            while cursor is not None or pages == 0:
                page = reader.read(Range(0, kind, None, None), cursor, Limits(50, 1 << 20))
                page.records.digests()
                cursor, pages = page.next, pages + 1
                assert pages < 10_000, "a damaged page is read for ever"
            found.bounds(kind)
            found.count(kind)
            found.fetch(kind, ["m00001", ""])
            found.search_text(kind, 'a "b" c*', 3)
            found.search_vector(kind, "", [0.5] * 8, 3)
        found.ledger_scan("m", "", "", 10)
        found.quick_check()

    for number, text in fuzz([whole]):
        broken = tmp_path / f"broken{number % 2}.db"
        rng = random.Random(number)
        damaged = bytearray(whole if number % 3 else text)
        for _ in range(rng.choice((1, 4, 40)) if number else 0):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        broken.write_bytes(damaged)
        told(lambda: read(broken), number, f"{len(damaged)} bytes")  # noqa: B023


# -- addresses and ledgers


def test_addresses() -> None:
    corpus = [
        b"agents.db",
        b"jsonl:memory.json?profile=server-memory",
        b"qdrant://localhost:6334/collection?profile=mem0&tls=1&distance=dot&identity=x",
        b"neo4j://user@[::1]:7687/db",
        b"neo4j://user:password@host:99999/db",
        b"embedded://%2e%2e/a.db",
        "qdrant://höst\uff0f/\uff41?profile=\u2100".encode(),
        b"//",
        b":",
    ]
    for number, text in fuzz(corpus):
        url = text.decode("utf-8", "surrogateescape" if number % 2 else "replace")
        error = told(lambda: parse_url(url), number, url)  # noqa: B023
        assert error is None or error.code in {"url", "invalid"}
        host = "".join(one for one in url if one.isprintable())
        error = told(lambda: QdrantStore(f"http://{host}", api_key=host, timeout_secs=1.0), number, host)  # noqa: B023
        assert error is None or error.code in {"invalid", "unavailable", "url"}, error.code


class Stored:
    """The documents of a ledger, as they are given."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get(self, *_: str) -> str | None:
        return self.text

    def scan(self, _: str, prefix: str, *__: object) -> list[tuple[str, str]]:
        return [(f"{prefix}000001", self.text)]

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def test_ledgers_and_plans() -> None:
    plan = Plan(
        migration="0123456789abcdef",
        source={"backend": "jsonl", "profile": "native", "identity": "jsonl:/a"},
        target={"backend": "embedded", "profile": "native", "identity": "embedded:b"},
        ranges=(Range(0, "lines", None, "7", ("memory",)), Range(1, "lines", "7", None)),
        counts={"memory": 3},
        rows=3,
        gaps=(Gap("tags", 1, "m"),),
        repeated=(("memory", "m"),),
        source_total="0" * 32,
        target_records=0,
        existing=0,
        accept=("tags",),
        vectors=(),
    )
    state = RangeState("7", done=True, page=3)
    state.books.of("memory").read = 3
    corpus = [
        plan.to_json().encode(),
        state.to_json().encode(),
        b'{"format":1,"number":1,"state":"copying"}',
        b'{"format":"1"}',
        b'{"key":"1","kind":null,"id":null,"reason":"r","message":"m","raw":"AAA="}',
        b'{"kind":"memory","id":"m","reason":"r"}',
        b'{"token":"t","host":"h","pid":1,"started":"1","expires":1e300}',
        b"[]",
    ]
    for number, text in fuzz(corpus):
        stored = text.decode("utf-8", "replace")
        ledger = Ledger(Stored(stored), "m")  # type: ignore[arg-type]
        for work in (
            lambda: Plan.from_json(stored).hash(),  # noqa: B023
            lambda: RangeState.from_json(stored).to_json(),  # noqa: B023
            ledger.run,
            ledger.books,
            ledger.ranges_done,
            lambda: list(ledger.quarantined()),  # noqa: B023
            lambda: list(ledger.conflicts()),  # noqa: B023
            ledger.check,
        ):
            error = told(work, number, stored)
            assert error is None or error.code in {"store-corrupt", "format-newer", "fenced"}, (error.code, stored)


# -- the native module, used wrongly


def _misuses(folder: Path) -> dict[str, Callable[[], object]]:
    records = NATIVE.decode(Batch.from_rows([("1", body, []) for body in DOCUMENTS[:5]]))[0]
    raw = Batch.from_rows([("1", b"{}", [])])
    store = EmbeddedStore.open_target(folder / "misuse.db")
    file = folder / "misuse.jsonl"
    file.write_bytes(b'{"kind":"memory","id":"a"}\n')
    ended = JsonlPart(folder / "part", file)
    ended.finish()
    return {
        "short mask": lambda: records.filter(b"\1"),
        "long mask": lambda: records.filter(bytes(1000)),
        "rows that are not there": lambda: records.take([99]),
        "nothing joined": lambda: Batch.concat([]),
        "two sorts joined": lambda: Batch.concat([records, raw]),
        "raw rows of records": records.rows,
        "digests of raw rows": raw.digests,
        "raw rows encoded": lambda: NATIVE.encode(raw),
        "records decoded": lambda: NATIVE.decode(records),
        "no buckets": lambda: Buckets(0).add(records),
        "other buckets": lambda: Buckets(4).unequal(Buckets(8)),
        "buckets out of range": lambda: Drill(4, [7, 2**31]).expect(records),
        "no buckets to drill": lambda: Drill(0, [0]).expect(records),
        "raw rows compared": lambda: diff(raw, records),
        "raw rows classified": lambda: classify(raw, raw, "m"),
        "kinds of others": lambda: Keys().add_identities([("thing", "a"), ("", "")]),
        "no namespace": lambda: store_keys([("memory", "a"), ("thing", "b")], "not a uuid"),
        "no kind": lambda: store.count("thing'; --"),
        "no transaction": store.commit,
        "pages of nothing": lambda: store.read_page("memory", 2**63 - 1, -5, 0, 0),
        "a folder": lambda: JsonlReader(folder).read_page(0, None, 1, 1),
        "beyond the end": lambda: JsonlReader(file).read_page(10**12, 5, 0, 0),
        "align beyond the end": lambda: jsonl_align(file, 10**15),
        "a part after its end": lambda: ended.append(raw),
        "a part ended twice": ended.finish,
        "parts that are missing": lambda: jsonl_concatenate([folder / "none"], folder / "whole"),
        "a rest beyond the end": lambda: JsonlIndex(file, NATIVE).rest(10**9),
        "vectors of length nothing": lambda: normalize_vectors(records, ["", "none", "\0"]),
        "an empty question": lambda: store.search_vector("memory", "", [], 0),
        "odd words": lambda: store.search_text("memory", '" OR * NEAR(', 1),
    }


def _told(work: Callable[[], object]) -> str:
    """The code of an error of ours, the name of another one, or nothing."""
    try:
        work()
    except MemferryError as error:
        return error.code
    except BaseException as error:  # noqa: BLE001 - a panic is none of the others
        return f"{type(error).__name__}: {error}"
    return ""


def test_misuse_is_an_error_and_not_a_panic(tmp_path: Path) -> None:
    answers = {name: _told(work) for name, work in _misuses(tmp_path).items()}
    allowed = {*CATALOGUE, ""}
    assert {name: answer for name, answer in answers.items() if answer not in allowed} == {}
    assert sum(answer in CATALOGUE for answer in answers.values()) > len(answers) / 3
