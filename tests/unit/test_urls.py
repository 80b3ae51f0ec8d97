"""Store URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memferry.errors import RefusedError
from memferry.urls import Secrets, StoreUrl, parse_url, without_secrets

GOOD: list[tuple[str, dict[str, Any]]] = [
    ("agents.db", {"backend": "embedded", "path": Path("agents.db"), "profile": "native"}),
    ("/var/lib/agents.sqlite", {"backend": "embedded", "path": Path("/var/lib/agents.sqlite")}),
    ("a.sqlite3", {"backend": "embedded"}),
    ("embedded:memory", {"backend": "embedded", "path": Path("memory")}),
    ("embedded:///tmp/x.db", {"backend": "embedded", "path": Path("/tmp/x.db")}),  # noqa: S108
    ("memory.jsonl", {"backend": "jsonl", "path": Path("memory.jsonl")}),
    ("memory.ndjson", {"backend": "jsonl"}),
    ("memory.jsonl.gz", {"backend": "jsonl"}),
    ("memory.jsonl.zst", {"backend": "jsonl"}),
    ("jsonl:memory.json?profile=server-memory", {"path": Path("memory.json"), "profile": "server-memory"}),
    ("memory.jsonl?identity=laptop", {"path": Path("memory.jsonl"), "identity": "laptop"}),
    ("with space & 50%.db", {"path": Path("with space & 50%.db")}),
    ("qdrant://localhost/agents", {"host": "localhost", "port": 6334, "name": "agents", "tls": False}),
    ("qdrant://localhost:7000/agents?tls=1", {"port": 7000, "tls": True}),
    ("qdrant://[::1]:6334/a%20b", {"host": "::1", "name": "a b"}),
    ("qdrant://h/c?profile=mem0&distance=dot", {"profile": "mem0"}),
    ("neo4j://ann@graph.example:7687/db", {"backend": "neo4j", "user": "ann", "name": "db"}),
    ("neo4j://graph.example", {"port": 7687, "name": "", "user": None}),
]

BAD: list[tuple[str, str]] = [
    ("", "names no backend"),
    ("agents", "names no backend"),
    ("agents.txt", "names no backend"),
    ("jsonl:", "no file is named"),
    ("embedded:?profile=native", "no file is named"),
    ("mysql://host/x", "unknown backend `mysql`"),
    ("http://host/x", "unknown backend `http`"),
    ("agents.db?colour=red", "unknown option `colour`"),
    ("qdrant://localhost", "no collection is named"),
    ("qdrant://localhost/", "no collection is named"),
    ("qdrant:///agents", "no host is named"),
    ("qdrant://localhost:port/agents", "ort"),
    ("qdrant://localhost:99999/agents", "ort"),
    ("neo4j://ann:word@host/db", "a password in a URL"),
    ("a\0.db", "NUL"),
    ("x" * 5000 + ".db", "longer than 4096"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD, ids=[text for text, _ in GOOD])
def test_what_a_url_says(text: str, expected: dict[str, Any]) -> None:
    url = parse_url(text)
    assert url.text == text
    assert {name: getattr(url, name) for name in expected} == expected


@pytest.mark.parametrize(("text", "why"), BAD, ids=[repr(text[:30]) for text, _ in BAD])
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_url(text)
    assert caught.value.code == "url"
    assert why in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "neo4j://ann:hunter2@host/db",
        "neo4j://ann:hunter2@host:port/db",
        "qdrant://:hunter2@host/agents",
        "mysql://ann:hunter2@host/db",
        "qdrant://host/agents?api_key=hunter2",
        "neo4j://host/db?password=hunter2",
        "agents.db?token=hunter2",
        "ann:hunter2@host",
        "NEO4J://ann:x.hunter2@host",
        "neo4j://ann:hunter2/7@host/db",
        "neo4j://ann:hunter2?7@host/db",
        "neo4j://ann:7?hunter2@host/db",
        "neo4j://ann:hunter2#7@host/db",
        "neo4j://ann:hunter2" + "7" * 5000 + "@host/db",
        "qdrant://hunter2@host/agents",
        "qdrant://host/agents?api_key=7@hunter2",
    ],
)
def test_a_secret_is_never_repeated(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_url(text)
    assert "hunter2" not in f"{caught.value}{caught.value.hint}"
    assert "hunter2" not in without_secrets(text) + without_secrets(f"--graph={text}")


@pytest.mark.parametrize("word", [*(text for text, _ in GOOD), "migrate", "--json", "--events", "https://host:1/v1"])
def test_a_word_that_holds_no_secret_is_told_as_it_is(word: str) -> None:
    assert without_secrets(word) == word


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to("a.db")
    with pytest.raises(RefusedError, match="leads back to itself"):
        parse_url(str(tmp_path / "a.db"))


def test_secrets_are_not_shown() -> None:
    shown = repr(StoreUrl("x", "qdrant", secrets=Secrets(api_key="hunter2", password="hunter2")))
    assert "hunter2" not in shown


@given(st.text(max_size=60) | st.from_regex(r"(qdrant|neo4j|jsonl|embedded|[a-z]{1,4}):(//)?.{0,40}", fullmatch=True))
@example("qdrant://[")
@example("qdrant://[::1/a")
@example("neo4j://\u2100/x")
@example("jsonl:?profile")
@example("qdrant://h/%ff")
@example("qdrant://h:-1/a")
def test_anything_is_parsed_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except RefusedError as error:
        assert error.code == "url"
    else:
        assert url.backend in {"embedded", "jsonl", "qdrant", "neo4j"}
        assert url.path is not None or url.host
