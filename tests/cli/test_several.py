"""Several migrations in one run: what is one, what refuses all, what goes on, what is told at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from memferry.errors import RefusedError
from memferry.several import pairs
from support.checker import differences, last_json, read_jsonl
from support.cli import memferry
from support.documents import plain_documents, write_jsonl
from support.manifest_docs import backend, migration
from testbed.qdrant import QdrantServer

KNOWN = ["a", "a,b", "notes-1", "notes-2", "x[1]"]


def split(source: str, target: str) -> list[tuple[str, str, str]] | None:
    return pairs(source, target, lambda _: KNOWN)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("agents.db", "copy.db", None),
        ("qdrant://h/a", "copy.db", None),
        ("a,b.db", "copy.db", None),
        ("qdrant://h/a%2Cb", "copy.db", None),
        (
            "qdrant://h:6334/b,a?profile=plain",
            "qdrant://i/new-{}",
            [
                ("b", "qdrant://h:6334/b?profile=plain", "qdrant://i/new-b"),
                ("a", "qdrant://h:6334/a?profile=plain", "qdrant://i/new-a"),
            ],
        ),
        (
            "qdrant://h/notes-*,a",
            "backup/{}.jsonl.zst",
            [
                ("notes-1", "qdrant://h/notes-1", "backup/notes-1.jsonl.zst"),
                ("notes-2", "qdrant://h/notes-2", "backup/notes-2.jsonl.zst"),
                ("a", "qdrant://h/a", "backup/a.jsonl.zst"),
            ],
        ),
        ("qdrant://h/x[1]*", "{}.db", [("x[1]", "qdrant://h/x%5B1%5D", "x[1].db")]),
        ("qdrant://h/a%2C*", "qdrant://i/{}", [("a,b", "qdrant://h/a%2Cb", "qdrant://i/a%2Cb")]),
        (
            "qdrant://h/a%2Fb,c",
            "qdrant://i/{}",
            [("a/b", "qdrant://h/a%2Fb", "qdrant://i/a%2Fb"), ("c", "qdrant://h/c", "qdrant://i/c")],
        ),
    ],
)
def test_what_a_source_names(source: str, target: str, expected: list[tuple[str, str, str]] | None) -> None:
    assert split(source, target) == expected


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("qdrant://h/a,b", "copy.db", "url", "2 collections need a place each"),
        ("qdrant://h/a", "{}.db", "url", "names no several"),
        ("agents.db", "{}.db", "url", "names no several"),
        ("qdrant://h/a,,b", "{}.db", "url", "empty"),
        ("qdrant://h/a,b,a", "{}.db", "url", "named twice: a"),
        ("qdrant://h/a,*", "{}.db", "", ""),
        ("qdrant://h/z*", "{}.db", "store-missing", "no collection is called `z*`"),
        ("qdrant://h/a,b?identity=i", "{}.db", "url", "one identity"),
        ("qdrant://h/a%2Fb,c", "{}.db", "url", "cannot be the name of a file"),
        ("qdrant://h/..,c", "{}.db", "url", ""),
    ],
)
def test_what_is_not_told_apart_is_refused(source: str, target: str, code: str, said: str) -> None:
    if not code:
        assert [name for name, _, _ in split(source, target) or []] == KNOWN
        return
    with pytest.raises(RefusedError) as caught:
        split(source, target)
    assert caught.value.code == code
    assert said in str(caught.value)


# -- manifests


def manifest(*migrations: str, **stores: str) -> str:
    parts = [backend(name, f"{{backend: jsonl, path: {path}}}") for name, path in stores.items()]
    return "---\n".join([*parts, *migrations])


def fill(folder: Path, *names: str) -> None:
    for name in names:
        write_jsonl(folder / f"{name}.jsonl", plain_documents(30, seed=ord(name)))


STORES = {name: f"{name}.jsonl" for name in "abcdef"}


def test_one_that_does_not_come_out_well_stops_only_those_that_need_it(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    with (tmp_path / "b.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    text = manifest(
        migration(name="bad", source="b", target="d"),
        migration(name="after-bad", source="d", target="e"),
        migration(name="good", source="a", target="c"),
        migration(name="after-good", source="c", target="f"),
        **STORES,
    )
    done = memferry(tmp_path, "apply", "-f", "-", "--json", text=text)
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["not_begun"]) == (1, "not_proven", ["after-bad"]), done.stderr
    assert {one["name"]: one["outcome"] for one in final["migrations"]} == {
        "bad": "not_proven",
        "good": "proven",
        "after-good": "proven",
    }
    assert differences(read_jsonl(tmp_path / "a.jsonl"), read_jsonl(tmp_path / "f.jsonl")) == []
    assert len(done.stdout.splitlines()) == 1
    assert "not begun: after-bad" in done.stderr


def test_none_is_begun_when_one_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    before = sorted(tmp_path.rglob("*"))
    text = manifest(
        migration(name="first", source="a", target="c"),
        migration(name="second", source="b", target="d"),
        migration(name="third", source="a", target="e"),
        **STORES,
    )
    done = memferry(tmp_path, "apply", "-f", "-", "--json", text=text)
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["not_begun"]) == (2, "refused", ["first", "third"]), done.stderr
    ((name, code),) = [(one["name"], one["error"]["code"]) for one in final["migrations"]]
    assert (name, code) == ("second", "store-missing")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_report_has_a_line_for_each(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    text = manifest(
        migration(name="first", source="a", target="c"), migration(name="second", source="b", target="d"), **STORES
    )
    done = memferry(tmp_path, "apply", "-f", "-", text=text)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first.split() == ["first", "proven", "read", "30,", "written", "30"]
    assert second.split()[:2] == ["second", "proven"]


# -- collections


def collection(server: QdrantServer, name: str, points: int) -> None:
    made = [models.PointStruct(id=i, vector=[i + 0.5, 1, 2], payload={"data": f"{name} {i}"}) for i in range(points)]
    with server.client() as client:
        client.create_collection(name, vectors_config=models.VectorParams(size=3, distance=models.Distance.DOT))
        if made:
            client.upsert(name, made, wait=True)


def test_all_collections_of_a_server_and_back(tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    sizes = {f"{qdrant_prefix}notes": 12, f"{qdrant_prefix}chats": 7, f"{qdrant_prefix}empty": 0}
    for name, points in sizes.items():
        collection(qdrant_server, name, points)
    server = f"qdrant://{qdrant_server.host}:{qdrant_server.port}"
    source, target = f"{server}/{qdrant_prefix}*?profile=plain", "{}.db"
    planned = json.loads(memferry(tmp_path, "plan", source, target, "--json").stdout)
    assert planned["outcome"] == "planned"
    assert not list(tmp_path.glob("*.db"))

    done = memferry(tmp_path, "migrate", source, target, "--json")
    final: dict[str, Any] = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["not_begun"]) == (0, "proven", []), done.stderr
    written = {one["name"]: sum(kind["written"] for kind in one["kinds"].values()) for one in final["migrations"]}
    assert written == sizes
    assert len({one["migration"] for one in final["migrations"]}) == 3

    again = last_json(memferry(tmp_path, "migrate", source, target, "--json").stdout)
    assert [sum(kind["written"] for kind in one["kinds"].values()) for one in again["migrations"]] == [0, 0, 0]
    proof = memferry(tmp_path, "verify", source, target, "--json")
    assert (proof.returncode, last_json(proof.stdout)["outcome"]) == (0, "proven")

    # Into the same server, under other names; companion collections are none of them.
    named = f"{server}/{qdrant_prefix}notes,{qdrant_prefix}chats?profile=plain"
    done = memferry(tmp_path, "migrate", named, f"{server}/{{}}-copy?distance=dot")
    assert done.returncode == 0, done.stderr
    every = last_json(
        memferry(tmp_path, "plan", f"{server}/{qdrant_prefix}*?profile=plain", "x-{}.db", "--json").stdout
    )
    assert {one["name"] for one in every["migrations"]} == {*sizes, *(f"{name}-copy" for name in list(sizes)[:2])}


def test_a_collection_that_is_not_there_refuses_all(
    tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    collection(qdrant_server, f"{qdrant_prefix}there", 3)
    server = f"qdrant://{qdrant_server.host}:{qdrant_server.port}"
    source = f"{server}/{qdrant_prefix}there,{qdrant_prefix}gone?profile=plain"
    done = memferry(tmp_path, "migrate", source, "{}.db", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["not_begun"]) == (2, "refused", [f"{qdrant_prefix}there"])
    assert not list(tmp_path.glob("*.db"))
