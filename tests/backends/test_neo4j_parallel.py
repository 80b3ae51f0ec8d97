"""Pages of relations side by side: what Neo4j locks when, and that nothing waits for each other."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import neo4j
import pytest

from memferry import backends
from memferry._native import Batch
from memferry.backends.neo4j import Neo4jTarget, transactions
from memferry.errors import MemferryError, StoreError, TransientError
from memferry.model import Range
from memferry.phases import migrate as phases
from memferry.phases import plan as planning
from memferry.profiles import load_mapper
from support.documents import Document, lines
from support.graph import Graph, entity, move, relation
from testbed.neo4j import Neo4jServer
from testbed.wait import until

PART = Range(0, "s", None, None)


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 200)
    monkeypatch.setattr(planning, "BYTES_PER_RANGE", 30_000)
    return Graph(empty_neo4j, tmp_path)


def batch(records: list[Document]) -> Batch:
    rows: list[tuple[str, bytes, list[Any]]] = [
        (str(n), line, []) for n, line in enumerate(lines(records).splitlines())
    ]
    found, bad, _ = load_mapper("native", "document").decode(Batch.from_rows(rows))
    assert bad == []
    return found


def power_law(nodes: int, relations: int) -> list[Document]:
    """A few hubs have most of the ends; some pairs come twice, some ends are one node."""
    rng = random.Random(5)
    ends = rng.choices(range(nodes), [1 / (i + 1) for i in range(nodes)], k=2 * relations)
    found = [entity(f"e{n}", type="T") for n in range(nodes)]
    found += [{"kind": "observation", "id": f"o{n}", "owner_id": f"e{ends[n]}", "content": "x"} for n in range(nodes)]
    return found + [relation(f"r{n}", f"e{ends[2 * n]}", f"e{ends[2 * n + 1]}") for n in range(relations)]


def test_a_power_law_graph_without_a_deadlock(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Neo4jTarget] = []
    at_once: set[int] = set()
    open_target = backends.open_target

    def watched(*arguments: object) -> object:
        made.append(open_target(*arguments))  # type: ignore[arg-type]
        return made[-1]

    put = Neo4jTarget._put_relations

    def seen(self: Neo4jTarget, *arguments: object, **named: object) -> set[int]:
        slot = self._transactions.slot
        assert slot is not None
        at_once.add(slot)
        return put(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(phases, "open_target", watched)
    monkeypatch.setattr(Neo4jTarget, "_put_relations", seen)
    rows = power_law(200, 4000)
    result = move(graph.file(rows), graph.url)
    assert (result.outcome, result.books.total("written")) == ("proven", len(rows))
    assert len(at_once) > 1
    assert sum(isinstance(one, Neo4jTarget) and one.deadlocks for one in made) == 0
    assert graph.cypher("MATCH (:MemferryEntity)-[r:MEMFERRY_RELATION]->() RETURN count(r)") == [[4000]]
    assert graph.cypher("MATCH (:MemferryObservation)-[r:MEMFERRY_ABOUT]->() RETURN count(r)") == [[200]]


def test_relations_of_one_node_do_not_wait_before_the_commit(graph: Graph) -> None:
    """What the design rests on: `CREATE` locks no node for others until it is committed, `MERGE` does."""
    graph.cypher("UNWIND range(0, 2) AS n CREATE (:N {n: n})")
    made = "MATCH (a:N {n: 0}) MATCH (b:N {n: $n}) CREATE (a)-[:R]->(b)"
    with graph.server.driver() as driver, driver.session() as one, driver.session() as two:
        first, second = one.begin_transaction(timeout=60), two.begin_transaction(timeout=60)
        first.run(made, n=1).consume()
        second.run(made, n=2).consume()
        second.commit()
        first.commit()
        third, fourth = one.begin_transaction(timeout=60), two.begin_transaction(timeout=1)
        third.run(made.replace("CREATE", "MERGE").replace(":R", ":M"), n=1).consume()
        with pytest.raises(neo4j.exceptions.Neo4jError):
            fourth.run(made.replace("CREATE", "MERGE").replace(":R", ":M"), n=2).consume()
        third.commit()
    assert graph.cypher("MATCH (:N {n: 0})-[r]->() RETURN type(r), count(r) ORDER BY type(r)") == [["M", 1], ["R", 2]]


def test_transactions_that_looked_at_the_lock_do_not_wait_and_are_waited_for(graph: Graph) -> None:
    with graph.target() as mine, graph.target() as other:
        with mine.transaction():
            assert mine.documents.get("m", "lock") is None
            mine.documents.put("m", "lock", "mine")
        looked, done, order = threading.Barrier(3), threading.Event(), []

        def look() -> None:
            with mine.transaction():
                assert mine.documents.get("m", "lock") == "mine"
                looked.wait(60)  # Both are here at once.
                done.wait(60)
                order.append("committed")

        def take() -> None:
            with other.transaction():
                other.documents.put("m", "lock", "other")
                order.append("taken")

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        looked.wait(60)
        threads.append(threading.Thread(target=take))
        threads[-1].start()
        waiting = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN count(*)"
        until(lambda: graph.cypher(waiting) != [[0]], what="a transaction that waits")
        assert order == []
        done.set()
        for thread in threads:
            thread.join(60)
        assert order == ["committed", "committed", "taken"]
        with mine.transaction():
            assert mine.documents.get("m", "lock") == "other"
        assert mine.documents.get("m", "lock") == "other"
        mine.documents.delete("m", "lock")
        assert graph.cypher("MATCH (d:MemferryLedger) RETURN count(d)") == [[0]]


def test_of_two_who_find_no_lock_the_second_sees_the_first(graph: Graph) -> None:
    with graph.target() as mine, graph.target() as other:
        other.documents.put("n", "a", "its schema is ready")
        seen: list[str | None] = []

        def second() -> None:
            with other.transaction():
                seen.append(other.documents.get("m", "lock"))

        thread = threading.Thread(target=second)
        with mine.transaction():
            assert mine.documents.get("m", "lock") is None
            thread.start()
            mine.documents.put("m", "lock", "mine")
        thread.join(60)
        assert seen == ["mine"]


def test_a_page_whose_answer_was_lost_is_not_written_twice(graph: Graph) -> None:
    records = batch([entity("a"), entity("b"), {"kind": "observation", "id": "o", "owner_id": "a", "content": "x"}])
    relations = batch([relation("r", "a", "b"), relation("s", "b", "b")])
    with graph.target() as store:
        store.prepare("m", ())
        for some in (records, relations):
            for _ in range(2):
                with store.transaction():
                    assert store.write(PART, some, "m", fresh=True) == []
                store._transactions.doubtful = True  # As after a commit without an answer.
            store._transactions.doubtful = False
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN count(n)") == [[2]]
    assert graph.cypher("MATCH ()-[r]->() RETURN type(r), count(r) ORDER BY type(r)") == [
        ["MEMFERRY_ABOUT", 1],
        ["MEMFERRY_RELATION", 2],
    ]


def test_what_another_wrote_meanwhile_is_not_written_over(graph: Graph) -> None:
    with graph.target() as store:
        store.prepare("m", ())
        graph.cypher("CREATE (:MemferryEntity {id: 'a', name: 'theirs'})")
        for doubtful in (False, True):
            store._transactions.doubtful = doubtful
            with pytest.raises(StoreError), store.transaction():
                store.write(PART, batch([entity("a", name="ours")]), "m", fresh=True)
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN n.id, n.name") == [["a", "theirs"]]


def test_a_turn_that_does_not_come_ends_the_wait(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_TURN_SECS", 0.2)
    with graph.target() as store:
        store.prepare("m", ())
        raised: list[MemferryError] = []

        def other() -> None:
            try:
                with store.transaction():
                    store.delete([("relation", "r")])
            except MemferryError as error:
                raised.append(error)

        thread = threading.Thread(target=other)
        with store.transaction():
            store.delete([("relation", "r")])
            thread.start()
            thread.join(60)
        assert isinstance(raised[0], TransientError)
        with store.transaction():
            assert store.delete([("relation", "r")]) == 0
