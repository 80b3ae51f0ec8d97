"""Re-embedding: what arrives, what it costs, what the proof says, what fails and how."""

from __future__ import annotations

import base64
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memferry
from memferry import Embedding, EndpointSettings, MemferryError, Record, Vector
from memferry.ledger import Ledger
from memferry.phases.embedding import cache_file
from memferry.stores import open_target
from memferry.urls import parse_url
from support.cli import memferry as command
from support.endpoint import ScriptedEndpoint
from support.moving import small_ranges
from testbed.embeddings import EmbeddingsServer
from testbed.minilm import embed
from testbed.qdrant import QdrantServer

RECORDS = 90
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("memferry.retry.DEADLINE_SECS", 3.0)


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as server:
        yield server


def text_of(i: int) -> str:
    """Every third text stands twice."""
    return f"text {i - i % 3 // 2}"


def old(i: int) -> Vector:
    return Vector.dense([i + 0.5, 1.0, -2.0], model="old")


def fill(path: Path, *others: Record, count: int = RECORDS) -> Path:
    with memferry.open(path) as store:
        store.put(
            [Record("memory", f"m{i:03}", content=text_of(i), vectors=[old(i)]) for i in range(count)]
            + [Record("entity", "ann", name="Ann"), *others]
        )
    return path


def wanted(endpoint: ScriptedEndpoint, **chosen: Any) -> Embedding:
    return Embedding(**{"url": endpoint.url, "model": "new", **chosen})


def run(source: Path, target: str | Path, embedding: Embedding, **chosen: Any) -> memferry.Result:
    accept = chosen.pop("accept", ("re-embedded",))
    result = memferry.migrate(source, target, embedding=embedding, accept=accept, **chosen)
    assert result.books.balanced(), result.books.to_json()
    return result


def vectors(path: Path) -> dict[str, list[Vector]]:
    with memferry.open(path, read_only=True) as store:
        return {record.id: list(record.vectors) for record in store.list()}


def test_a_real_model_replaces_the_vectors(tmp_path: Path, embeddings_server: EmbeddingsServer) -> None:
    source = fill(tmp_path / "a.db", count=20)
    chosen = Embedding(embeddings_server.url, "all-MiniLM-L6-v2", text="content")
    result = run(source, tmp_path / "b.db", chosen)
    assert (result.outcome, result.lossless) == ("proven", False)
    assert [(gap.name, gap.records) for gap in result.plan.gaps] == [("re-embedded", 20)]
    found = vectors(tmp_path / "b.db")
    assert found.pop("ann") == []
    expected = embed([text_of(i) for i in range(20)])
    for i, (identity, (new,)) in enumerate(sorted(found.items())):
        assert (identity, new.name, new.model, new.dim) == (f"m{i:03}", "", "all-MiniLM-L6-v2", 384)
        assert np.allclose(new.values, expected[i], atol=1e-5)


def test_the_plan_asks_for_one_text_and_refuses_what_was_not_accepted(
    tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    source = fill(tmp_path / "a.db")
    plan = memferry.plan(source, tmp_path / "b.db", embedding=wanted(endpoint), accept=["re-embedded"])
    assert (plan.embedded, plan.embedded_bytes) == (RECORDS, sum(len(text_of(i)) for i in range(RECORDS)))
    assert [(v.name, v.dim, v.count) for v in plan.vectors] == [("", 4, RECORDS)]
    assert plan.transform.embedding == wanted(endpoint, dimensions=4)
    with pytest.raises(MemferryError) as caught:
        memferry.plan(source, tmp_path / "b.db", embedding=wanted(endpoint))
    assert (caught.value.code, "re-embedded (90 records" in str(caught.value)) == ("gap", True)
    assert not (tmp_path / "b.db").exists()
    assert not endpoint.asked
    assert not (tmp_path / "state" / "embeddings").exists()


def test_every_text_is_asked_once_and_all_passes_have_the_same_numbers(
    tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    source, target = fill(tmp_path / "a.db"), tmp_path / "b.db"
    first = run(source, target, wanted(endpoint), parallelism=4)
    assert (first.outcome, first.books.of("memory").written) == ("proven", RECORDS)
    assert endpoint.asked == {text_of(i): 1 for i in range(RECORDS)}
    again = run(source, target, wanted(endpoint))
    assert (again.outcome, again.books.of("memory").unchanged) == ("proven", RECORDS)
    other = run(source, tmp_path / "c.jsonl", wanted(endpoint))
    assert other.outcome == "proven"
    assert set(endpoint.asked.values()) == {1}


def test_verify_needs_no_endpoint_and_finds_what_is_different(tmp_path: Path) -> None:
    source, target = fill(tmp_path / "a.db"), tmp_path / "b.db"
    with ScriptedEndpoint() as endpoint:
        assert run(source, target, wanted(endpoint)).outcome == "proven"
    assert memferry.verify(source, target).outcome == "proven"
    with memferry.open(target) as store:
        changed = store.get("memory", "m007")
        assert changed is not None
        store.put(replace(changed, vectors=(Vector.dense([1.0, 0, 0, 0], model="new"),)))
    found = memferry.verify(source, target)
    assert (found.outcome, [f.id for f in found.verification.findings]) == ("not_proven", ["m007"])  # type: ignore[union-attr]


def test_requests_are_bounded_in_texts_and_in_number(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.delay_secs = 0.01
    settings = EndpointSettings(batch=7, parallelism=2)
    run(fill(tmp_path / "a.db"), tmp_path / "b.db", wanted(endpoint), endpoint=settings, parallelism=4)
    assert max(len(request["input"]) for request in endpoint.requests) == 7
    assert endpoint.busiest <= 2 + 1  # The probe of the run is beside them.
    assert all("dimensions" not in request for request in endpoint.requests)


def test_dimensions_that_are_named_are_asked_for(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    source = fill(tmp_path / "a.db")
    run(source, tmp_path / "b.db", wanted(endpoint, dimensions=4))
    assert {request["dimensions"] for request in endpoint.requests} == {4}
    with pytest.raises(MemferryError) as caught:
        memferry.plan(source, tmp_path / "c.db", embedding=wanted(endpoint, dimensions=5))
    assert (caught.value.code, str(caught.value)) == ("invalid", "model new gives 4 dimensions, not 5")


def test_the_old_vector_is_kept_under_another_name(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    source, target = fill(tmp_path / "a.db", count=10), tmp_path / "b.db"
    result = run(source, target, wanted(endpoint, keep_old="before"), accept=())
    assert (result.outcome, result.lossless, result.plan.gaps) == ("proven", True, ())
    new, kept = vectors(target)["m003"]
    assert (new.name, new.model, new.dim) == ("", "new", 4)
    assert kept == replace(old(3), name="before")


def test_vectors_without_a_text_are_a_gap_of_their_own(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    mute = [Record("memory", f"x{i}", content=text, vectors=[old(i)]) for i, text in enumerate([None, "", " \n"])]
    source = fill(tmp_path / "a.db", *mute)
    with pytest.raises(MemferryError) as caught:
        run(source, tmp_path / "b.db", wanted(endpoint))
    assert (caught.value.code, "vectors-without-text (3 records" in str(caught.value)) == ("gap", True)
    result = run(source, tmp_path / "b.db", wanted(endpoint), accept=("re-embedded", "vectors-without-text"))
    assert result.outcome == "proven"
    assert [vectors(tmp_path / "b.db")[f"x{i}"] for i in range(3)] == [[], [], []]


def test_kinds_get_vectors_that_had_none_and_those_of_the_model_stay(
    tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    there = Vector.dense([1.0, 2.0, 3.0, 4.0], model="new")
    source = fill(tmp_path / "a.db", Record("memory", "there", content="new text", vectors=[there]), count=3)
    run(source, tmp_path / "b.db", wanted(endpoint, kinds=("entity",)))
    found = vectors(tmp_path / "b.db")
    assert found["there"] == [there]
    assert [(v.model, v.dim) for v in found["ann"]] == [("new", 4)]
    assert endpoint.asked == {"text 0": 1, "text 1": 1, "Ann": 1}


@pytest.mark.parametrize(
    ("chosen", "code", "said"),
    [
        ({"vector": "dense"}, "invalid", "no record has a vector named `dense` to replace; there are: ``"),
        ({"model": ""}, "invalid", "a name is needed"),
        ({"dimensions": 0}, "invalid", "allowed: 1 to 65,535"),
        ({"kinds": ("relation",)}, "invalid", "allowed: entity, memory, observation"),
        ({"text": "title"}, "invalid", "allowed: content-or-name, content, name"),
        ({"keep_old": ""}, "invalid", "under the name of the new one"),
        ({"url": "ftp://host/v1"}, "url", "a URL as in"),
        ({"url": "http://:port/v1"}, "url", "a URL as in"),
        ({"url": f"http://ann:{KEY}@host/v1"}, "url", "neither user, query nor fragment"),
        ({"url": f"http://host/v1?key={KEY}"}, "url", "neither user, query nor fragment"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, endpoint: ScriptedEndpoint, chosen: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(MemferryError) as caught:
        run(fill(tmp_path / "a.db", count=2), tmp_path / "b.db", wanted(endpoint, **chosen))
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert said in str(caught.value)
    assert KEY not in str(caught.value)
    assert not (tmp_path / "b.db").exists() or not vectors(tmp_path / "b.db")


def test_busy_and_broken_endpoints_are_asked_again(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    endpoint.script = [
        (429, {"Retry-After": "0.1"}, {"error": {"message": "slow down"}}),
        (503, {}, b"starting"),
        None,
        (500, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"error": "oops"}),
    ]
    result = run(fill(tmp_path / "a.db"), tmp_path / "b.db", wanted(endpoint))
    assert (result.outcome, endpoint.script) == ("proven", [])
    assert set(endpoint.asked.values()) == {1}


BAD = [
    pytest.param(lambda _: [0.5, 0.5, 0.5], "3 dimensions, planned are 4", id="dimensions"),
    pytest.param(lambda _: [0.5, float("nan"), 0.5, 0.5], "NaN", id="nan"),
    pytest.param(lambda _: [0.5, 1e39, 0.5, 0.5], "no answer to it", id="beyond f32"),
    pytest.param(lambda _: ["a", 0, 0, 0], "no list of numbers", id="texts"),
    pytest.param(lambda _: "no base64!", "no base64", id="base64"),
]


@pytest.mark.parametrize(("vector", "said"), BAD)
def test_bad_vectors_end_the_run_and_nothing_is_written(
    tmp_path: Path, endpoint: ScriptedEndpoint, vector: Any, said: str
) -> None:
    good = ScriptedEndpoint._numbers
    endpoint.vector = lambda text: good(endpoint, text, 0) if text.startswith("memferry") else vector(text)
    with pytest.raises(MemferryError) as caught:
        run(fill(tmp_path / "a.db"), tmp_path / "b.db", wanted(endpoint))
    assert (caught.value.code, caught.value.exit_code) == ("refused", 3)
    assert said in str(caught.value)
    assert vectors(tmp_path / "b.db").keys() <= {"ann"}
    endpoint.vector = None
    assert run(tmp_path / "a.db", tmp_path / "b.db", wanted(endpoint)).outcome == "proven"


@pytest.mark.parametrize(
    ("script", "code", "exit_code", "said"),
    [
        ((401, {}, {"error": {"message": f"bad key {KEY}"}}), "unauthorized", 2, "does not take the key"),
        ((404, {}, {"error": {"message": "no model new"}}), "refused", 3, "HTTP 404: no model new"),
        ((400, {}, {"error": {"message": f"no model new for {KEY}"}}), "refused", 3, "no model new for ***"),
        ((200, {}, {"data": []}), "refused", 3, "0 vectors for 1 texts"),
        ((200, {}, b"<html>"), "refused", 3, "no answer to it"),
        ((200, {}, {"data": [{"index": 0, "embedding": [float("nan")]}]}), "refused", 3, "with NaN"),
        ((200, {}, [1]), "refused", 3, "no answer to it"),
        ((307, {"Location": "http://127.0.0.1:1/"}, b""), "refused", 3, "HTTP 307"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_found_by_the_plan(
    tmp_path: Path, endpoint: ScriptedEndpoint, script: Any, code: str, exit_code: int, said: str
) -> None:
    endpoint.script = [script]
    with pytest.raises(MemferryError) as caught:
        run(
            fill(tmp_path / "a.db", count=2),
            tmp_path / "b.jsonl",
            wanted(endpoint),
            endpoint=EndpointSettings(api_key=KEY),
        )
    assert (caught.value.code, caught.value.exit_code) == (code, exit_code)
    assert said in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "b.jsonl").exists()


def test_an_endpoint_that_is_away_is_a_failed_backend(tmp_path: Path) -> None:
    with ScriptedEndpoint() as gone:
        chosen = wanted(gone)
    with pytest.raises(MemferryError) as caught:
        run(fill(tmp_path / "a.db", count=2), tmp_path / "b.db", chosen)
    assert (caught.value.code, caught.value.exit_code) == ("unavailable", 3)


def test_a_text_that_is_not_taken_is_quarantined_and_its_neighbours_go_on(
    tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    endpoint.refuses = frozenset({text_of(40)})
    source, target = fill(tmp_path / "a.db"), tmp_path / "b.db"
    result = run(source, target, wanted(endpoint))
    bad = sum(text_of(i) == text_of(40) for i in range(RECORDS))
    memories = result.books.of("memory")
    assert (result.outcome, memories.quarantined, memories.written) == ("not_proven", bad, RECORDS - bad)
    assert (result.verification is not None, result.verification and result.verification.equal) == (True, True)
    with_store = open_target(parse_url(str(target)))
    try:
        rows = [row for _, row in Ledger(with_store.documents, result.migration).quarantined()]
    finally:
        with_store.close()
    assert {row.reason for row in rows} == {"embedding"}
    assert "1 texts are too long for me" in rows[0].message
    endpoint.refuses = frozenset()
    assert run(source, target, wanted(endpoint)).outcome == "proven"
    assert set(endpoint.asked.values()) == {1}


def test_an_unfinished_run_is_bound_to_its_model_but_not_to_its_endpoint(
    tmp_path: Path, endpoint: ScriptedEndpoint
) -> None:
    source, target = fill(tmp_path / "a.db"), tmp_path / "b.db"
    stop, pages = memferry.Stop(), 0

    def progress(phase: str, *_: object) -> None:
        nonlocal pages
        pages += phase == "copy"
        if pages == 2:
            stop.set()

    with pytest.raises(MemferryError) as caught:
        run(source, target, wanted(endpoint), progress=progress, stop=stop)
    assert caught.value.code == "interrupted"
    for chosen in ({"model": "other"}, {"dimensions": 5}, {"vector": "v"}, {"keep_old": "o"}, {"text": "name"}):
        with pytest.raises(MemferryError) as caught:
            run(source, target, wanted(endpoint, **chosen))
        assert caught.value.code == "plan-changed"
    with pytest.raises(MemferryError) as caught:
        memferry.migrate(source, target, accept=["re-embedded"])
    assert (caught.value.code, "another embedding" in str(caught.value)) == ("plan-changed", True)
    before = set(endpoint.asked)
    with ScriptedEndpoint() as moved:
        result = run(source, target, wanted(moved))
        # Where an unfinished run was planned to ask, unless it is told another place.
        assert (result.outcome, result.resumed) == ("proven", True)
        assert before.isdisjoint(moved.asked)
        assert {*before, *moved.asked} == {text_of(i) for i in range(RECORDS)}


def test_another_model_under_the_same_name_is_refused(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    source = fill(tmp_path / "a.db", count=10)
    run(source, tmp_path / "b.db", wanted(endpoint))
    fill(source, Record("memory", "later", content="later", vectors=[old(1)]), count=0)
    endpoint.model = "two"
    with pytest.raises(MemferryError) as caught:
        run(source, tmp_path / "b.db", wanted(endpoint))
    assert (caught.value.code, "with other vectors than before" in str(caught.value)) == ("plan-changed", True)
    assert "later" not in vectors(tmp_path / "b.db")
    cache_file("new", 4).unlink()
    assert run(source, tmp_path / "c.db", wanted(endpoint)).outcome == "proven"


def test_the_key_is_sent_and_told_nowhere(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    fill(tmp_path / "a.db", count=5)
    (tmp_path / "key").write_text(f"{KEY}\n")
    asked = ["--embed-url", endpoint.url, "--embed-model", "new", "--accept", "re-embedded"]
    state = {"MEMFERRY_STATE_DIR": str(tmp_path / "state")}
    for target, how in (("b.db", []), ("c.db", ["--embed-key-file", "key"]), ("d.db", ["--embed-key-env", "OTHER"])):
        variable = "OTHER" if how[:1] == ["--embed-key-env"] else "MEMFERRY_EMBEDDING_API_KEY"
        environment = {variable: KEY} if how[:1] != ["--embed-key-file"] else {}
        endpoint.headers.clear()
        done = command(tmp_path, "migrate", "a.db", target, *asked, *how, "--json", **state, **environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outcome"] == "proven"
        assert {headers["Authorization"] for headers in endpoint.headers} == {f"Bearer {KEY}"}
        assert KEY not in done.stdout + done.stderr
    plan = command(tmp_path, "plan", "a.db", "e.db", *asked, "--save", "plan.json", **state)
    assert "re-embed: 5 records, 30 B of text, by new (4 dimensions)" in plan.stdout
    done = command(tmp_path, "migrate", "a.db", "e.db", "--plan", "plan.json", **state)
    assert done.returncode == 0, done.stderr
    for path in tmp_path.rglob("*"):
        assert path.name == "key" or not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_into_qdrant_whose_collection_gets_the_new_dimensions(
    tmp_path: Path, endpoint: ScriptedEndpoint, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    source = fill(tmp_path / "a.db")
    target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}new"
    accept = ("re-embedded", "vector-lengths")
    with pytest.raises(MemferryError) as caught:
        run(source, target, wanted(endpoint))
    assert f"vector-lengths ({RECORDS} records" in str(caught.value)
    assert run(source, target, wanted(endpoint), accept=accept).outcome == "proven"
    assert run(source, target, wanted(endpoint), accept=accept).books.of("memory").unchanged == RECORDS
    back = memferry.migrate(target, tmp_path / "back.db")
    (vector,) = vectors(tmp_path / "back.db")["m001"]
    assert (back.outcome, vector.model, vector.dim) == ("proven", "new", 4)
    assert set(endpoint.asked.values()) == {1}


def test_records_that_say_the_same_are_merged_by_their_new_vectors(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    result = run(fill(tmp_path / "a.db"), tmp_path / "b.db", wanted(endpoint), dedup="exact")
    assert (result.outcome, result.books.of("memory").deduplicated) == ("proven", RECORDS // 3)


def test_base64_is_read_as_it_is(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    numbers = struct.pack("<4f", 0.1, -0.0, 3e38, 1e-45)
    endpoint.vector = lambda _: base64.b64encode(numbers).decode()
    run(fill(tmp_path / "a.db", count=1), tmp_path / "b.db", wanted(endpoint))
    (vector,) = vectors(tmp_path / "b.db")["m000"]
    assert vector.data == numbers


def test_a_killed_run_asks_again_for_no_more_than_was_on_its_way(tmp_path: Path, endpoint: ScriptedEndpoint) -> None:
    fill(tmp_path / "a.db", count=300)
    processes: list[subprocess.Popen[bytes]] = []

    def vector(text: str) -> list[float]:
        if processes and endpoint.asked.total() >= 80:
            processes.pop().kill()  # In the middle of a request.
        return endpoint._numbers(text, len(endpoint.requests) * 1e-6)

    endpoint.vector = vector
    arguments = ["migrate", "a.db", "b.db", "--accept", "re-embedded", "--embed-url", endpoint.url]
    arguments += ["--embed-model", "new", "--embed-batch", "5", "--embed-parallelism", "2", "--json"]
    environment = {**os.environ, "MEMFERRY_STATE_DIR": str(tmp_path / "state")}
    program = [sys.executable, "-m", "memferry", *arguments]
    with subprocess.Popen(
        program, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        processes.append(process)
        process.wait(60)
    assert process.returncode == -signal.SIGKILL
    distinct = {text_of(i) for i in range(300)}
    assert endpoint.asked.total() < len(distinct)
    done = command(tmp_path, *arguments, MEMFERRY_STATE_DIR=str(tmp_path / "state"))
    final = json.loads(done.stdout)
    assert (done.returncode, final["outcome"], final["resumed"]) == (0, "proven", True), done.stderr
    assert endpoint.asked.keys() == distinct
    assert sum(n - 1 for n in endpoint.asked.values()) <= 5 * 2
    assert memferry.verify(tmp_path / "a.db", tmp_path / "b.db").outcome == "proven"
