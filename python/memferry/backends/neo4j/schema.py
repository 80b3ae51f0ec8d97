"""Constraints and indexes: what is made, and what of it a migration made."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from memferry.backends.api import Documents
from memferry.backends.neo4j.connection import Connection
from memferry.backends.neo4j.layout import LABELS, LEDGER, RELATION, STORE, quoted, slug
from memferry.errors import StoreError

__all__ = ["Schema"]

LEDGER_CONSTRAINT: Final = "memferry_ledger_key"
CREATED: Final = "schema/"
"""Documents with what a migration made."""
VECTORS: Final = "vectors/"
"""Documents with the vector properties it wrote."""

_AWAIT_SECS: Final = 4 * 3600.0
_FIRST_POLL_SECS: Final = 0.01
_LONGEST_POLL_SECS: Final = 0.5

_RANGES: Final = (
    ("entity", "name"),
    ("entity", "type"),
    ("entity", "scope_user"),
    ("memory", "type"),
    ("memory", "scope_user"),
    ("observation", "owner_id"),
    ("relation", "type"),
)


def _element(kind: str) -> str:
    return f"()-[n:{RELATION}]-()" if kind == "relation" else f"(n:{LABELS[kind]})"


def _constraints() -> dict[str, tuple[str, str]]:
    """Kind and statement by name."""
    return {
        f"memferry_{kind}_id": (
            kind,
            f"CREATE CONSTRAINT memferry_{kind}_id IF NOT EXISTS FOR {_element(kind)} REQUIRE n.id IS UNIQUE",
        )
        for kind in (*LABELS, "relation")
    }


def _indexes() -> dict[str, tuple[str, str]]:
    found = {
        f"memferry_{kind}_{name}": (
            kind,
            f"CREATE INDEX memferry_{kind}_{name} IF NOT EXISTS FOR {_element(kind)} ON (n.{name})",
        )
        for kind, name in _RANGES
    }
    labels = "|".join(LABELS.values())
    found["memferry_text"] = (
        "",
        f"CREATE FULLTEXT INDEX memferry_text IF NOT EXISTS FOR (n:{labels}) ON EACH [n.content, n.name]",
    )
    return found


def _index_name(kind: str, property_name: str) -> str:
    return f"memferry_{kind}_{slug(property_name)}"


def _vector_index(kind: str, property_name: str, dim: int) -> tuple[str, tuple[str, str]]:
    name = _index_name(kind, property_name)
    text = (
        f"CREATE VECTOR INDEX {quoted(name)} IF NOT EXISTS FOR {_element(kind)} ON (n.{quoted(property_name)}) "
        f"OPTIONS {{indexConfig: {{`vector.dimensions`: {dim:d}, `vector.similarity_function`: 'cosine'}}}}"
    )
    return name, (kind, text)


class Schema:
    """Makes and drops constraints and indexes of one database."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._has_ledger = False

    def make_ledger(self) -> None:
        """The constraint that the ledger needs before its first document. It stays: the ledger outlives a rollback."""
        if self._has_ledger:
            return
        # Looked for first: even a statement that makes nothing waits for every transaction that writes the ledger.
        if LEDGER_CONSTRAINT not in self._names():
            self._connection.write(
                f"CREATE CONSTRAINT {LEDGER_CONSTRAINT} IF NOT EXISTS FOR (n:{LEDGER}) REQUIRE n.key IS UNIQUE",
            )
        self._await([LEDGER_CONSTRAINT])
        self._has_ledger = True

    def _names(self) -> set[str]:
        return {name for (name,) in self._connection.read("SHOW INDEXES YIELD name RETURN name")}

    def make_constraints(self, migration: str, documents: Documents) -> None:
        """The constraints that records are found and read by."""
        self._make(migration, documents, _constraints())

    def make_indexes(self, migration: str, documents: Documents) -> None:
        """The indexes that an application searches by, once everything is there."""
        wanted = _indexes()
        for _, text in documents.scan(migration, VECTORS, "", 10_000):
            said: dict[str, Any] = json.loads(text)
            name, made = _vector_index(said["kind"], said["property"], said["dim"])
            wanted[name] = made
        self._make(migration, documents, wanted)

    def make_for_application(self, vectors: dict[tuple[str, str], int]) -> set[str]:
        """Constraints and indexes for an application: nobody's to drop. Their names.

        Args:
            vectors: Dimensions by kind and property.
        """
        wanted = {**_constraints(), **_indexes()}
        wanted |= dict(_vector_index(kind, name, dim) for (kind, name), dim in vectors.items())
        there = self._names()
        for name, (_, text) in wanted.items():
            if name not in there:
                self._connection.write(text)
        self._await(list(wanted))
        return set(wanted)

    @staticmethod
    def vector_index(kind: str, property_name: str) -> str:
        """Name of the index over a vector property."""
        return _index_name(kind, property_name)

    @staticmethod
    def note_vector(migration: str, documents: Documents, kind: str, property_name: str, dim: int) -> None:
        """Remembers a vector property until the indexes are made, in the transaction that wrote it."""
        said = json.dumps({"kind": kind, "property": property_name, "dim": dim})
        documents.put(migration, f"{VECTORS}{kind}/{property_name}", said)

    def drop_created(self, migration: str, documents: Documents) -> None:
        """Drops what this migration made, where no record is left that another one could need it for."""
        for key, text in documents.scan(migration, CREATED, "", 10_000):
            kind, name = json.loads(text)["kind"], key.removeprefix(CREATED)
            if self._in_use(kind):
                continue
            what = "CONSTRAINT" if name in _constraints() else "INDEX"
            self._connection.write(f"DROP {what} {quoted(name)} IF EXISTS")
            documents.delete(migration, key)
        documents.delete(migration, VECTORS)
        if not self._in_use(""):
            self._connection.write(f"MATCH (s:{STORE}) DELETE s")

    def _in_use(self, kind: str) -> bool:
        kinds = [kind] if kind else list(LABELS)
        return any(self._connection.read(f"MATCH {_element(one)} RETURN 1 LIMIT 1") for one in kinds)

    def _make(self, migration: str, documents: Documents, wanted: dict[str, tuple[str, str]]) -> None:
        there = self._names()
        for name, (kind, text) in wanted.items():
            if name not in there:
                # Written first: a kill in between leaves a note too many, never an index nobody owns.
                documents.put(migration, f"{CREATED}{name}", json.dumps({"kind": kind}))
                self._connection.write(text)
        self._await(list(wanted))

    def _await(self, names: list[str]) -> None:
        deadline, pause = time.monotonic() + _AWAIT_SECS, _FIRST_POLL_SECS
        while True:
            rows = self._connection.read(
                "SHOW INDEXES YIELD name, state WHERE name IN $names AND state <> 'ONLINE' RETURN name, state",
                names=names,
            )
            failed = [name for name, state in rows if state == "FAILED"]
            if failed:
                raise StoreError("refused", f"Neo4j could not build its index {failed[0]}")
            if not rows:
                return
            if time.monotonic() > deadline:
                raise StoreError("unavailable", f"Neo4j has not built its index {rows[0][0]} in {_AWAIT_SECS:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECS)
