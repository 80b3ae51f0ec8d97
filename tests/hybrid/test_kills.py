"""Kill -9 between the halves and everywhere else; the same command finishes, and so does a rollback."""

from __future__ import annotations

import os
import signal

import pytest

from support.documents import memory, vector
from support.graph import roll
from support.hybrid import Hybrid, check, findings, move, ordinary, run, total
from testbed import forked

POINTS = [
    ("planned", 1),
    ("prepared", 1),
    ("half-written", 1),
    ("half-written", 5),
    ("written", 2),
    ("booked", 2),
    ("half-committed", 6),
    ("committed", 3),
    ("before-finish", 1),
    ("copied", 1),
]


@pytest.mark.parametrize(("point", "count"), POINTS)
def test_killed_anywhere_the_same_command_finishes(point: str, count: int, hybrid: Hybrid) -> None:
    records = ordinary(25)
    origin = hybrid.file(records)
    run(origin, hybrid.url, f"{point}:{count}")
    # Whatever names vectors has them.
    assert hybrid.noted() <= hybrid.points().keys()
    assert run(origin, hybrid.url) == "proven"
    assert (
        hybrid.points().keys() == hybrid.noted() == {(str(r["kind"]), str(r["id"])) for r in records if "vectors" in r}
    )
    assert total(origin) == total(hybrid.url)


@pytest.mark.parametrize("point", ["half-written", "half-committed", "half-settled"])
def test_killed_while_vectors_change_the_same_command_finishes(point: str, hybrid: Hybrid) -> None:
    records = [memory(f"m{n:02}", vectors=[vector([n / 8, 1.0])]) for n in range(20)]
    move(hybrid.file(records), hybrid.url)
    for n in range(0, 20, 3):
        records[n] = memory(f"m{n:02}", content="no vectors any more")
        records[n + 1]["vectors"] = [vector([n / 4, 2.0])]
    origin = hybrid.file(records)
    # The first transactions take the lock and write the plan.
    run(origin, hybrid.url, f"{point}:{4 if point == 'half-committed' else 1}")
    assert hybrid.noted() <= hybrid.points().keys()
    assert run(origin, hybrid.url) == "proven"
    assert hybrid.points().keys() == hybrid.noted()
    assert total(origin) == total(hybrid.url)


@pytest.mark.parametrize("then", ["resume", "rollback"])
@pytest.mark.parametrize(("point", "count"), [("half-written", 1), ("half-committed", 4), ("half-settled", 1)])
def test_vectors_of_others_are_never_lost(point: str, count: int, then: str, hybrid: Hybrid) -> None:
    theirs = [memory("m0", content="theirs", vectors=[vector([9.0, 9.0])]), memory("m1", vectors=[vector([8.0, 8.0])])]
    theirs.append(memory("m2", content="theirs without"))
    move(hybrid.file(theirs, "theirs"), hybrid.url)
    before = total(hybrid.url)
    ours = [memory(f"m{n}", content="ours", vectors=[vector([n / 8, 1.0])]) for n in range(6)]
    ours[1] = memory("m1", content="ours without")
    origin = hybrid.file(ours)
    run(origin, hybrid.url, f"{point}:{count}", on_existing="overwrite")
    if then == "resume":
        assert run(origin, hybrid.url, on_existing="overwrite") == "proven"
        assert hybrid.points().keys() == hybrid.noted()
    migrations = [m for (m,) in hybrid.cypher("MATCH (d:MemferryLedger {name: 'saved/memory/m0'}) RETURN d.migration")]
    if not migrations:  # Killed before anything was written to the graph.
        rows = hybrid.cypher(
            "MATCH (d:MemferryLedger {name: 'run'}) WHERE d.value CONTAINS 'copying' RETURN d.migration"
        )
        migrations = [m for (m,) in rows]
    assert len(migrations) == 1
    done = roll(hybrid.url, migrations[0])
    assert done.kept == []
    assert total(hybrid.url) == before
    assert hybrid.points().keys() == {("memory", "m0"), ("memory", "m1")}


def test_vectors_without_a_record_are_found_and_rolled_back(hybrid: Hybrid) -> None:
    origin = hybrid.file([memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(5)])
    run(origin, hybrid.url, "half-written:1")
    assert hybrid.noted() == set()
    assert len(hybrid.points()) == 5
    assert {what for what, _ in findings(check(origin, hybrid.url))} == {"different"}
    [(migration,)] = hybrid.cypher("MATCH (d:MemferryLedger {name: 'run'}) RETURN d.migration")
    done = roll(hybrid.url, migration)
    assert (done.deleted, done.kept) == (5, [])
    assert hybrid.collections() == []


def test_a_rollback_killed_between_the_halves_is_finished_by_the_next(hybrid: Hybrid) -> None:
    origin = hybrid.file(ordinary(15))
    migration = move(origin, hybrid.url).migration
    # The first transaction takes the lock, the second says that this is a rollback, the third deletes relations.
    run_rollback(hybrid, migration, "half-committed:3")
    left = hybrid.points().keys() - hybrid.noted()
    assert left
    done = roll(hybrid.url, migration)
    assert done.kept == []
    assert done.deleted >= len(left)
    assert hybrid.collections() == []
    assert hybrid.cypher("MATCH (n) WHERE NOT n:MemferryLedger RETURN count(n)") == [[0]]


ROLLBACK = """
import os, sys
from dataclasses import replace
from memferry.ledger import Ledger
from memferry.phases.rollback import rollback
from memferry.stores import open_target
from memferry.urls import Secrets, hybrid_url, parse_url
graph, vectors = (replace(parse_url(u), secrets=Secrets(password=os.environ["PASSWORD"])) for u in sys.argv[1:3])
store = open_target(hybrid_url(graph, vectors))
rollback(store, Ledger(store.documents, sys.argv[3]))
"""


def run_rollback(hybrid: Hybrid, migration: str, failpoint: str) -> None:
    assert hybrid.url.graph is not None
    assert hybrid.url.vectors is not None
    environment = {**os.environ, "MEMFERRY_FAILPOINT": failpoint, "PASSWORD": hybrid.neo4j.password}
    halves = hybrid.url.graph.text, hybrid.url.vectors.text
    done = forked.run("-c", ROLLBACK, *halves, migration, environment=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
