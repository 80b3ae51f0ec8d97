"""The native Qdrant transport against a server, with the official Python client as witness."""

from __future__ import annotations

import json
import math
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from memferry._native import Batch, QdrantStore, normalize_vectors, vectors_not_finite
from memferry.errors import RefusedError, TransientError
from memferry.retry import retrying
from testbed.qdrant import QdrantServer
from testbed.tls import make_certificates

Vector = tuple[str, str | None, int, bool | None, int, bytes | None, bytes]
Row = tuple[str, bytes, list[Vector]]

DENSE, SPARSE, MULTI = 0, 1, 2
MIB = 1 << 20
ODD = [-0.0, 1e-45, 1.1754942e-38, math.inf, -math.inf, 3.4028235e38, 0.1, 1 / 3]


def _url(server: QdrantServer) -> str:
    return f"{'https' if server.uses_tls else 'http'}://{server.host}:{server.port}"


@pytest.fixture
def store(qdrant_server: QdrantServer, qdrant_prefix: str) -> QdrantStore:
    return QdrantStore(_url(qdrant_server), api_key=qdrant_server.api_key)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path / "qdrant", api_key="hunter2", certificates=make_certificates(tmp_path)) as server:
        yield server


def _f32(values: Any) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def _u32(values: Any) -> bytes:
    return np.asarray(values, dtype="<u4").tobytes()


def _dense(name: str, values: Any) -> Vector:
    data = _f32(values)
    return (name, None, len(data) // 4, None, DENSE, None, data)


def _sparse(name: str, indices: Any, values: Any) -> Vector:
    return (name, None, 0, None, SPARSE, _u32(indices), _f32(values))


def _multi(name: str, rows: Any) -> Vector:
    return (name, None, len(rows[0]), None, MULTI, None, _f32(rows))


def _spec(*vectors: dict[str, Any]) -> str:
    return json.dumps(vectors)


def _dense_spec(dim: int, *, name: str = "", distance: str = "dot") -> dict[str, Any]:
    return {"name": name, "kind": "dense", "dim": dim, "distance": distance}


def _all(
    store: QdrantStore, collection: str, *, max_records: int = 1000, max_bytes: int = MIB, **more: Any
) -> list[Row]:
    rows: list[Row] = []
    start = more.pop("start", None)
    until = more.pop("until", None)
    while True:
        raw, read, start = store.scroll(collection, start, until, max_records, max_bytes, **more)
        page = raw.rows()
        assert len(page) == read <= max_records
        rows += page
        if start is None:
            return rows


def _uuid(number: int) -> str:
    return str(uuid.UUID(int=number << 96 | number))


def test_vectors_of_every_kind_come_back_bit_for_bit(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}kinds"
    store.create(
        name,
        _spec(
            _dense_spec(8, name="a"),
            _dense_spec(4, name="b", distance="euclid"),
            {"name": "m", "kind": "multi", "dim": 4, "distance": "dot"},
            {"name": "s", "kind": "sparse"},
        ),
    )
    rows: list[Row] = [
        ("1", b"{}", []),
        ("2", b'{"x":1}', [_dense("a", ODD)]),
        (
            "3",
            b"{}",
            [_dense("b", ODD[:4]), _multi("m", [ODD[:4], ODD[4:]]), _sparse("s", [0, 7, 2**32 - 1], ODD[-3:])],
        ),
        (
            _uuid(7),
            b"{}",
            [_dense("a", ODD), _dense("b", ODD[4:]), _multi("m", [[1, 2, 3, 4]]), _sparse("s", [3], [-0.0])],
        ),
    ]
    assert store.upsert(name, Batch.from_rows(rows)) == []
    assert _all(store, name) == rows
    assert store.get(name, [_uuid(7), "2", "99"]).rows() == [rows[1], rows[3]]
    assert _all(store, name, with_vectors=False) == [(key, body, []) for key, body, _ in rows]


def test_unnamed_vectors_come_back(store: QdrantStore, qdrant_prefix: str) -> None:
    plain, mixed, multi = (f"{qdrant_prefix}{one}" for one in ("plain", "mixed", "multi"))
    store.create(plain, _spec(_dense_spec(8)))
    store.create(mixed, _spec(_dense_spec(8), {"name": "bm25", "kind": "sparse", "modifier": "idf"}))
    store.create(multi, _spec({"name": "", "kind": "multi", "dim": 4, "distance": "dot"}))
    rows: dict[str, list[Row]] = {
        plain: [("1", b"{}", [_dense("", ODD)]), ("2", b"{}", [])],
        mixed: [("1", b"{}", [_dense("", ODD), _sparse("bm25", [1, 5], [0.5, 2])]), ("2", b"{}", [_dense("", ODD)])],
        multi: [("1", b"{}", [_multi("", [ODD[:4], ODD[4:]])])],
    }
    for name, expected in rows.items():
        assert store.upsert(name, Batch.from_rows(expected)) == []
        assert _all(store, name) == expected


def test_nan_comes_back(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}nan"
    store.create(name, _spec(_dense_spec(2)))
    data = np.array([0x7FC0BEEF, 0xFFC00001], dtype="<u4").tobytes()
    rows: list[Row] = [("1", b"{}", [("", None, 2, None, DENSE, None, data)])]
    store.upsert(name, Batch.from_rows(rows))
    assert _all(store, name) == rows


def test_a_collection_that_is_there_is_never_made_anew(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}there"
    store.create(name, _spec(_dense_spec(2)))
    rows: list[Row] = [("1", b"{}", [("", None, 2, None, DENSE, None, np.ones(2, "<f4").tobytes())])]
    store.upsert(name, Batch.from_rows(rows))
    # As after a kill between the request and its answer.
    store.create(name, _spec(_dense_spec(3)))
    assert json.loads(store.info(name))["vectors"][0]["dim"] == 2
    assert _all(store, name) == rows


PAYLOAD: dict[str, Any] = {
    "$": "dollar",
    "$f64": ["reserved elsewhere", {"$$": None}],
    "": "empty key",
    "bool": [True, False],
    "double": [0.5, 1.0, -0.0, 1e300, 5e-324],
    "empty": [{}, []],
    "int": [0, -1, 2**63 - 1, -(2**63)],
    "nested": {"a": {"b": [{"c": None}]}},
    "null": None,
    "text": 'ü\u0000\n\t"\\\u2028😀',
}


def test_payload_types_agree_with_the_official_client(
    store: QdrantStore, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    name = f"{qdrant_prefix}payload"
    store.create(name, "[]")
    with qdrant_server.client() as client:
        client.upsert(name, [models.PointStruct(id=1, vector={}, payload=PAYLOAD)], wait=True)
        [(_, body, _)] = _all(store, name)
        assert store.upsert(name, Batch.from_rows([("2", body, [])])) == []
        points = client.retrieve(name, [1, 2], with_payload=True)
    assert [_typed(point.payload) for point in points] == [_typed(PAYLOAD)] * 2
    escaped = json.loads(body)
    assert escaped["$$"] == "dollar"
    assert escaped["$$f64"] == ["reserved elsewhere", {"$$$": None}]
    assert list(escaped) == sorted(escaped)
    assert b'"double":[0.5,1.0,-0.0,1e300,5e-324]' in body
    assert [row[1] for row in _all(store, name)] == [body, body]


def _typed(value: Any) -> Any:
    """A value that tells 1, 1.0, True and -0.0 from each other."""
    if isinstance(value, dict):
        return {key: _typed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    return (type(value).__name__, repr(value))


def test_rows_that_cannot_be_written_are_named_and_the_others_written(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}rejected"
    store.create(name, _spec(_dense_spec(2)))
    good = [_dense("", [1, 2])]
    bodies = {
        "1": b'{"a":1}',
        "2": b'{"a":18446744073709551615}',
        "3": b'{"a":{"$number":"1e400"}}',
        "4": b'{"a":{"$bytes":"AA=="}}',
        "5": b'{"a":{"$f64":"7ff8000000000000"}}',
        "6": b'{"a":' + b"[" * 120 + b"]" * 120 + b"}",
    }
    rows: list[Row] = [(key, body, good) for key, body in bodies.items()]
    rows += [
        ("no id", b"{}", good),
        ("7", b"{}", [_dense("", [1, 2, 3])]),
        ("8", b"{}", [_dense("other", [1])]),
        ("9", b"{}", good),
    ]
    rejected = store.upsert(name, Batch.from_rows(rows))
    assert [row for row, _ in rejected] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(why for _, why in rejected)
    assert "dimension" in rejected[6][1].lower()
    assert [row[0] for row in _all(store, name)] == ["1", "9"]


def test_deep_payloads_pass_until_the_wire_ends(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}deep"
    store.create(name, "[]")
    deepest = b'{"a":' + b"[" * 47 + b"1" + b"]" * 47 + b"}"
    deepest_object = b'{"a":' * 32 + b"1" + b"}" * 32
    rows: list[Row] = [("1", deepest, []), ("2", deepest_object, [])]
    assert store.upsert(name, Batch.from_rows(rows)) == []
    assert _all(store, name) == rows


def test_pages_cover_ranges_of_both_kinds_of_ids(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}pages"
    store.create(name, _spec(_dense_spec(4)))
    keys = [str(n) for n in (0, 9, 10, 99, 2**63, 2**64 - 1)] + [_uuid(n) for n in (0, 1, 2**31, 2**32 - 1)]
    rows: list[Row] = [(key, b'{"pad":"%s"}' % (b"x" * 1000), [_dense("", [1, 2, 3, 4])]) for key in keys]
    assert store.upsert(name, Batch.from_rows(list(reversed(rows)))) == []
    for max_records in (1, 2, 3, 1000):
        for max_bytes in (1, 2500, MIB):
            assert _all(store, name, max_records=max_records, max_bytes=max_bytes) == rows
    for low in range(len(keys) + 1):
        for high in range(low, len(keys) + 1):
            start = keys[low] if low < len(keys) else None
            until = keys[high] if high < len(keys) else None
            if start is not None:
                assert [row[0] for row in _all(store, name, start=start, until=until, max_records=3)] == keys[low:high]
    assert [row[0] for row in _all(store, name, start="50", until=_uuid(2))] == keys[3:8]
    with pytest.raises(RefusedError):
        store.scroll(name, "not an id", None, 1, 1)


def test_pages_are_bounded_in_bytes(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}bytes"
    store.create(name, "[]")
    sizes = [100] * 3000 + [200_000] * 40 + [100] * 3000
    rows: list[Row] = [(str(n), b'{"t":"%s"}' % (b"x" * size), []) for n, size in enumerate(sizes)]
    for part in range(0, len(rows), 1000):
        assert store.upsert(name, Batch.from_rows(rows[part : part + 1000])) == []
    start: str | None = None
    found: list[Row] = []
    while True:
        raw, _, start = store.scroll(name, start, None, 10_000, MIB)
        page = raw.rows()
        assert sum(len(body) for _, body, _ in page) <= MIB + 200_100
        found += page
        if start is None:
            break
    assert found == rows


def test_filters_counts_documents_and_deletes(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}ledger"
    store.create(name, "[]")
    store.create_payload_index(name, "migration", "keyword")
    store.create_payload_index(name, "number", "integer")
    store.create_payload_index(name, "migration", "keyword")
    documents = [(_uuid(n), json.dumps({"migration": "ab"[n % 2], "number": n, "$x": {}})) for n in range(10)]
    store.put_documents(name, documents)
    assert store.count(name) == 10
    assert store.count(name, filter=[("migration", "a")]) == 5
    rows = _all(store, name, filter=[("migration", "a")], max_records=2)
    assert [row[0] for row in rows] == [_uuid(n) for n in range(0, 10, 2)]
    assert rows[1][1] == b'{"$$x":{},"migration":"a","number":2}'
    store.delete(name, [_uuid(0), _uuid(2), _uuid(99)])
    assert store.count(name, filter=[("migration", "a"), ("migration", "b")]) == 0
    assert store.count(name) == 8
    with pytest.raises(RefusedError):
        store.put_documents(name, [(_uuid(1), "[]")])
    info = json.loads(store.info(name))
    assert info["payload_indexes"] == {"migration": "keyword", "number": "integer"}
    assert info["vectors"] == []


def test_collections_tell_what_they_were_made_of(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}info"
    vectors = [
        {"name": "a", "kind": "dense", "dim": 3, "distance": "cosine", "datatype": "float16", "modifier": None},
        {"name": "m", "kind": "multi", "dim": 4, "distance": "manhattan", "datatype": None, "modifier": None},
        {"name": "s", "kind": "sparse", "dim": 0, "distance": None, "datatype": None, "modifier": "idf"},
    ]
    assert not store.exists(name)
    threshold = store.create(name, json.dumps(vectors), deferred_index=True)
    assert threshold
    assert store.exists(name)
    assert name in store.collections()
    info = json.loads(store.info(name))
    assert info["vectors"] == vectors
    assert info["indexing_threshold"] == 0
    assert info["hnsw"]["m"] == 16
    assert info["points_count"] == 0
    store.set_indexing_threshold(name, threshold)
    assert json.loads(store.info(name))["indexing_threshold"] == threshold
    assert store.wait_green(name, 30)
    assert store.delete_collection(name)
    assert not store.delete_collection(name)
    with pytest.raises(RefusedError) as caught:
        store.info(name)
    assert caught.value.code == "store-missing"


def test_a_deferred_index_is_built_in_the_end(store: QdrantStore, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}deferred"
    threshold = store.create(name, _spec(_dense_spec(64, name="v")), deferred_index=True)
    vectors = np.random.default_rng(1).normal(size=(3000, 64))
    rows: list[Row] = [(str(n), b"{}", [_dense("v", vector)]) for n, vector in enumerate(vectors)]
    tickets = [store.submit(name, Batch.from_rows(rows[part : part + 500])) for part in range(0, 3000, 500)]
    assert [ticket.ack() for ticket in tickets] == [[]] * 6
    with pytest.raises(RefusedError, match="acknowledged before"):
        tickets[0].ack()
    assert store.wait_green(name, 30)
    assert json.loads(store.info(name))["indexed_vectors_count"] == 0
    assert threshold is not None
    store.set_indexing_threshold(name, 100)
    assert store.wait_green(name, 60)
    assert json.loads(store.info(name))["indexed_vectors_count"] > 0
    query = vectors[17].tolist()
    hits = store.query(name, "v", query, 3, exact=True)
    expected = sorted(range(3000), key=lambda n: -float(vectors[n] @ vectors[17]))[:3]
    assert [key for key, _ in hits] == [str(n) for n in expected]
    assert hits[0][1] == pytest.approx(float(vectors[expected[0]] @ vectors[17]), rel=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 15, 16, 31, 32, 33, 100, 384, 768, 1536, 4096])
def test_normalised_vectors_are_kept_bit_for_bit(store: QdrantStore, qdrant_prefix: str, dim: int) -> None:
    name = f"{qdrant_prefix}cosine"
    store.create(
        name,
        _spec(
            _dense_spec(dim, name="d", distance="cosine"),
            {"name": "m", "kind": "multi", "dim": dim, "distance": "cosine"},
        ),
    )
    random = np.random.default_rng(dim)
    vectors = _hard_vectors(random, dim)
    rows: list[Row] = [
        (str(n), b"{}", [_dense("d", vector), _multi("m", [vector, random.normal(size=dim)])])
        for n, vector in enumerate(vectors)
    ]
    unit = normalize_vectors(Batch.from_rows(rows), ["d", "m"])
    assert store.upsert(name, unit) == []
    assert _all(store, name) == unit.rows()
    lengths = [np.linalg.norm(np.frombuffer(row[2][0][6], "<f4").astype("f8")) for row in unit.rows()]
    assert all(length < 4e-4 or abs(length - 1) < 1e-6 for length in lengths)
    again = normalize_vectors(unit, ["d", "m"])
    assert again.rows() == unit.rows()
    # What is left alone is exactly what the server leaves alone.
    assert store.upsert(name, Batch.from_rows(rows)) == []
    for given, ours, theirs in zip(rows, unit.rows(), _all(store, name), strict=True):
        if ours == given:
            assert theirs == given
    assert normalize_vectors(Batch.from_rows(rows), ["other"]).rows() == rows


def _hard_vectors(random: np.random.Generator, dim: int) -> list[Any]:
    """Vectors of all lengths, those around one and around nothing among them."""
    scales = [
        1.0,
        1e-30,
        1e30,
        0.0,
        *(1 + k * 1e-7 for k in range(-12, 13)),
        *(3.4e-4 + k * 1e-6 for k in range(-10, 11)),
    ]
    shapes = (random.normal(size=dim), np.ones(dim), random.uniform(0, 1, size=dim))
    return [(shape / np.linalg.norm(shape) * scale).astype("<f4") for scale in scales for shape in shapes]


def test_vectors_that_nobody_can_normalise_are_named() -> None:
    rows: list[Row] = [("1", b"{}", [_dense("a", [1, 2])]), ("2", b"{}", [_dense("a", [1, math.nan])])]
    batch = Batch.from_rows(rows)
    assert vectors_not_finite(batch, ["a"]) == [1]
    assert normalize_vectors(batch.take([1]), ["a"]).rows() == rows[1:]


def test_throttling_says_when_to_come_back(store: QdrantStore, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    name = f"{qdrant_prefix}throttled"
    store.create(name, "[]")
    batch = Batch.from_rows([("1", b"{}", [])])
    qdrant_server.faults.exhaust(retry_after_secs=7)
    with pytest.raises(TransientError) as caught:
        store.upsert(name, batch)
    assert (caught.value.code, caught.value.retry_after_secs) == ("throttled", 7.0)
    qdrant_server.faults.exhaust()
    with pytest.raises(TransientError) as caught:
        store.upsert(name, batch)
    assert (caught.value.code, caught.value.retry_after_secs) == ("throttled", None)
    qdrant_server.faults.exhaust(retry_after_secs=3, on="read")
    with pytest.raises(TransientError) as caught:
        store.scroll(name, None, None, 1, 1)
    assert caught.value.retry_after_secs == 3.0
    assert store.upsert(name, batch) == []


@pytest.mark.parametrize("fault", ["refuse", "reset_before", "reset_after"])
def test_one_failure_is_transient_and_the_next_calls_work(
    store: QdrantStore, qdrant_server: QdrantServer, qdrant_prefix: str, fault: str
) -> None:
    name = f"{qdrant_prefix}{fault}"
    store.create(name, "[]")
    batch = Batch.from_rows([("1", b"{}", [])])
    before = qdrant_server.faults.struck
    getattr(qdrant_server.faults, fault)(collection=name)
    with pytest.raises(TransientError) as caught:
        store.upsert(name, batch)
    assert caught.value.code == "unavailable"
    assert qdrant_server.faults.struck == before + 1
    # That the connection is gone may be seen by the call after it only: one more that is worth trying again.
    assert retrying(lambda: store.count(name)) == (1 if fault == "reset_after" else 0)
    assert store.upsert(name, batch) == []
    assert store.count(name) == 1


def test_an_answer_that_does_not_come_is_transient(qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    store = QdrantStore(_url(qdrant_server), timeout_secs=0.3)
    name = f"{qdrant_prefix}slow"
    QdrantStore(_url(qdrant_server)).create(name, "[]")
    qdrant_server.faults.delay(2.0, count=1, collection=name)
    with pytest.raises(TransientError, match="no answer within") as caught:
        store.upsert(name, Batch.from_rows([("1", b"{}", [])]))
    assert caught.value.code == "unavailable"


def test_a_server_that_is_not_there_is_transient() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        store = QdrantStore(f"http://127.0.0.1:{closed.getsockname()[1]}", api_key="hunter2", timeout_secs=5)
        with pytest.raises(TransientError) as caught:
            store.exists("any")
    assert caught.value.code == "unavailable"
    assert "refused" in str(caught.value).lower()
    assert "hunter2" not in str(caught.value)


def test_keys_and_certificates_are_checked(own_server: QdrantServer) -> None:
    assert own_server.certificates is not None
    ca_pem = own_server.certificates.authority.read_text()
    store = QdrantStore(_url(own_server), api_key="hunter2", ca_pem=ca_pem)
    store.create("things", "[]")
    assert store.collections() == ["things"]
    for key in ("wrong-secret", None):
        with pytest.raises(RefusedError) as refused:
            QdrantStore(_url(own_server), api_key=key, ca_pem=ca_pem).count("things")
        assert refused.value.code == "unauthorized"
        assert "wrong-secret" not in str(refused.value)
    with pytest.raises(TransientError, match="certificate"):
        QdrantStore(_url(own_server), api_key="hunter2").count("things")


def test_a_lost_server_is_found_again(own_server: QdrantServer) -> None:
    assert own_server.certificates is not None
    store = QdrantStore(_url(own_server), api_key="hunter2", ca_pem=own_server.certificates.authority.read_text())
    store.create("things", "[]")
    store.put_documents("things", [("1", "{}")])
    own_server.kill9()
    with pytest.raises(TransientError):
        store.count("things")
    own_server.start()
    assert store.count("things") == 1


@pytest.mark.parametrize("url", ["", "localhost:6334", "qdrant://localhost:6334", "http://me:pw@localhost:6334"])
def test_bad_urls_are_refused(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        QdrantStore(url)
    assert caught.value.code == "invalid"
