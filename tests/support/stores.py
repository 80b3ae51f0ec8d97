"""Stores to move between, each with the edits that an application or a person would make to it.

A backend joins every suite by a class with the methods of `Place` and a line in `STORES`.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import reference
from memferry.phases.migrate import migrate
from memferry.phases.plan import Options
from memferry.urls import parse_url
from reference.document import KINDS
from support.checker import Contents, read_embedded, read_jsonl, tree, unpacked
from support.documents import Document, lines, write_jsonl

if TYPE_CHECKING:
    import pytest

__all__ = ["STORES", "EmbeddedPlace", "JsonlPlace", "Place", "execute", "place"]

Key = tuple[str, str]
_TOOL: Final = Path(__file__).with_name("sqlite_tool.py")


class Place(Protocol):
    """A store, or where one will be."""

    url: str

    def make(self, documents: Iterable[Document]) -> None:
        """Makes a store that an application could have made, with these records."""

    def read(self) -> Contents:
        """What is in it, read without memferry."""

    def change(self, key: Key, content: str) -> None:
        """Changes the content of a record and nothing else, as someone who knows no marker would."""

    def add(self, document: Document) -> None:
        """Adds a record with no more than kind, id, content and extra."""

    def remove(self, keys: Iterable[Key]) -> None:
        """Deletes records."""

    def trace(self) -> dict[str, str]:
        """For `touched`: says whether somebody has written to the store, or beside it."""


def execute(path: Path, statements: list[tuple[str, list[Any]]], *, rebuild: Iterable[str] = ()) -> int:
    """Executes SQL on a file in a process of its own; how many rows changed."""
    encoded = [[sql, [{"hex": p.hex()} if isinstance(p, bytes) else p for p in ps]] for sql, ps in statements]
    work = json.dumps({"path": str(path), "statements": encoded, "kinds": list(rebuild)})
    done = subprocess.run(
        [sys.executable, "-I", "-S", _TOOL], input=work, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


class EmbeddedPlace:
    """An embedded store in a folder of its own."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder = folder / stem
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / "agents.db"
        self.url = str(self.path)

    def make(self, documents: Iterable[Document]) -> None:
        """Through memferry: the only writer of the format."""
        origin = write_jsonl(self.folder.parent / f"{self.folder.name}-origin.jsonl", documents)
        result = migrate(parse_url(str(origin)), parse_url(self.url), Options())
        assert result.outcome == "proven"

    def read(self) -> Contents:
        """See `Place`."""
        return read_embedded(self.path)

    def change(self, key: Key, content: str) -> None:
        """See `Place`."""
        assert self.execute(f"UPDATE {key[0]} SET content = ? WHERE id = ?", content, key[1]) == 1

    def add(self, document: Document) -> None:
        """See `Place`."""
        kind, extra = str(document["kind"]), document.get("extra")
        sql = f"INSERT INTO {kind} (id, content, extra) VALUES (?, ?, ?)"
        self.execute(sql, document["id"], document.get("content"), reference.canonical(extra) if extra else None)

    def remove(self, keys: Iterable[Key]) -> None:
        """See `Place`."""
        statements: list[tuple[str, list[Any]]] = []
        for kind, identity in keys:
            vectors = f"SELECT seq * 256 + 255 FROM {kind} WHERE id = ?"
            low = f"(SELECT seq * 256 FROM {kind} WHERE id = ?)"
            of = f"DELETE FROM {kind}_vector WHERE vector_id BETWEEN {low} AND ({vectors})"
            statements += [(of, [identity] * 2), (f"DELETE FROM {kind} WHERE id = ?", [identity])]
        execute(self.path, statements, rebuild=KINDS)

    def execute(self, sql: str, *parameters: Any) -> int:
        """One statement; how many rows it changed."""
        return execute(self.path, [(sql, list(parameters))], rebuild=KINDS)

    def trace(self) -> dict[str, str]:
        """See `Place`."""
        return tree(self.folder)


class JsonlPlace:
    """A JSONL file in a folder of its own."""

    def __init__(self, folder: Path, stem: str, ending: str) -> None:
        self.folder = folder / stem
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / f"memory{ending}"
        self.url = str(self.path)

    def make(self, documents: Iterable[Document]) -> None:
        """Straight from the documents."""
        self.write(lines(documents))

    def write(self, text: bytes) -> None:
        """Packs a text as the ending says."""
        if self.path.suffix == ".gz":
            text = gzip.compress(text)
        elif self.path.suffix == ".zst":
            import zstandard  # noqa: PLC0415 - only the suites with .zst need the package

            text = zstandard.ZstdCompressor(write_checksum=True).compress(text)
        self.path.write_bytes(text)

    def read(self) -> Contents:
        """See `Place`."""
        return read_jsonl(self.path)

    def change(self, key: Key, content: str) -> None:
        """See `Place`."""

        def edit(line: bytes) -> bytes:
            body = reference.parse_canonical(line)
            assert isinstance(body, dict)
            return reference.canonical({**body, "content": content}).encode()

        self._each(key, edit)

    def add(self, document: Document) -> None:
        """See `Place`."""
        self.write(unpacked(self.path) + lines([document]))

    def remove(self, keys: Iterable[Key]) -> None:
        """See `Place`."""
        for key in keys:
            self._each(key, lambda _: None)

    def _each(self, key: Key, edit: Callable[[bytes], bytes | None]) -> None:
        out, met = [], 0
        for line in unpacked(self.path).splitlines():
            body = json.loads(line)
            if (body["kind"], body["id"]) == key:
                met += 1
                changed = edit(line)
                out += [] if changed is None else [changed]
            else:
                out.append(line)
        assert met == 1, f"{key} stands {met} times"
        self.write(b"".join(line + b"\n" for line in out))

    def trace(self) -> dict[str, str]:
        """See `Place`."""
        return tree(self.folder)


STORES: Final[dict[str, Callable[[pytest.FixtureRequest, Path, str], Place]]] = {
    "embedded": lambda _, folder, stem: EmbeddedPlace(folder, stem),
    "jsonl": lambda _, folder, stem: JsonlPlace(folder, stem, ".jsonl"),
    "jsonl.gz": lambda _, folder, stem: JsonlPlace(folder, stem, ".jsonl.gz"),
    "jsonl.zst": lambda _, folder, stem: JsonlPlace(folder, stem, ".jsonl.zst"),
}
"""Every kind of store that the suites run over."""


def place(kind: str, request: pytest.FixtureRequest, folder: Path, stem: str) -> Place:
    """A place for a store of a kind."""
    return STORES[kind](request, folder, stem)
