"""Constraints and indexes: what is made, and what of it a migration made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from memferry.backends.api import Documents
from memferry.backends.neo4j.connection import Connection, guard
from memferry.backends.neo4j.layout import FORMAT, LABELS, LEDGER, RELATION, STORE, quoted, slug
from memferry.errors import StoreError

__all__ = ["Schema"]

LEDGER_CONSTRAINT: Final = "memferry_ledger_key"
CREATED: Final = "schema/"
"""Documents with what a migration made."""
VECTORS: Final = "vectors/"
"""Documents with the vector properties it wrote."""

_ALONE: Final = "schema"
_AT_REST: Final = frozenset({"done", "rolled_back"})
"""States of a run in which it needs no constraint before it makes what is missing."""

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


def _state(run: str) -> str:
    """State of a run; one that cannot be read is none at which anything may be dropped."""
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(run)["state"])
    return ""


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

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps others out: what is locked is a node that is never committed, so nothing is left of it."""
        self.make_ledger()
        with guard(), self._connection.session(read_only=False) as session, self._connection.begin(session) as held:
            held.run(f"MERGE (d:{LEDGER} {{key: $key}})", key=_ALONE).consume()
            yield
            held.rollback()

    def claim(self, *, application: bool = False) -> None:
        """Says that there is a store, before anybody looks for what it lacks; a rollback drops nothing meanwhile.

        Args:
            application: Whether an application uses it, which no ledger knows of: from then on nothing is dropped.
        """
        with self._alone():
            self._connection.write(
                f"MERGE (s:{STORE} {{id: 'store'}}) SET s.format = $format{', s.application = true' * application}",
                format=FORMAT,
            )

    def make_constraints(self, migration: str, documents: Documents) -> None:
        """The constraints that records are found and read by."""
        self._make(migration, documents, _constraints())

    def make_indexes(self, migration: str, documents: Documents) -> None:
        """The indexes that an application searches by, once everything is there."""
        # The rollback of another migration may have dropped constraints while this one had nothing to do.
        wanted = {**_constraints(), **_indexes()}
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
        """Drops what this migration and those before it made, where nobody is left who could need it."""
        documents.delete(migration, VECTORS)
        with self._alone():
            if self._connection.read(f"MATCH (s:{STORE}) WHERE s.application RETURN 1 LIMIT 1"):
                documents.delete(migration, CREATED)
                return
            others = self._states(migration, documents)
            if _AT_REST.issuperset(others.values()):
                for owner in (migration, *(one for one, state in others.items() if state == "rolled_back")):
                    self._drop(owner, documents)
            if not self.in_use() and {"rolled_back"}.issuperset(others.values()):
                self._connection.write(f"MATCH (s:{STORE}) DELETE s")

    def _drop(self, owner: str, documents: Documents) -> None:
        for key, text in documents.scan(owner, CREATED, "", 10_000):
            kind, name = json.loads(text)["kind"], key.removeprefix(CREATED)
            if self.in_use(kind):
                continue
            what = "CONSTRAINT" if name in _constraints() else "INDEX"
            self._connection.write(f"DROP {what} {quoted(name)} IF EXISTS")
            documents.delete(owner, key)

    @staticmethod
    def _states(migration: str, documents: Documents) -> dict[str, str]:
        """What the runs of the other migrations are at."""
        runs = {one: documents.get(one, "run") for one in documents.migrations() if one != migration}
        return {one: _state(text) for one, text in runs.items() if text is not None}

    def in_use(self, kind: str = "") -> bool:
        """Whether there are records of a kind, or of any."""
        kinds = [kind] if kind else list(LABELS)
        return any(self._connection.read(f"MATCH {_element(one)} RETURN 1 LIMIT 1") for one in kinds)

    def _make(self, migration: str, documents: Documents, wanted: dict[str, tuple[str, str]]) -> None:
        there = self._names()
        missing = {name: made for name, made in wanted.items() if name not in there}
        # All of them first: a kill in between leaves notes too many, never an index nobody owns. And each index that
        # comes makes the server plan every statement anew.
        for name, (kind, _) in missing.items():
            documents.put(migration, f"{CREATED}{name}", json.dumps({"kind": kind}))
        for _, text in missing.values():
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
