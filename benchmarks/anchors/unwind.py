"""The plain loop: `unwind.py URL USER ENTITIES THREADS BATCH [STORE]` prints seconds of nodes, of relations, deadlocks.

Relations come from the store, so that both write the same graph; without it only nodes are written.
"""

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import neo4j

NODES = "UNWIND $rows AS row MERGE (n:Plain {id: row.id}) SET n = row"
RELATIONS = (
    "UNWIND $rows AS row MATCH (a:Plain {id: row.from}) MATCH (b:Plain {id: row.to}) "
    "CREATE (a)-[r:KNOWS]->(b) SET r = row.properties"
)


def main() -> None:
    """Writes the graph."""
    url, user, entities, threads, batch, *store = sys.argv[1:]
    deadlocks, lock = 0, threading.Lock()
    nodes: list[dict[str, Any]] = [
        {"id": f"e{n}", "name": f"entity {n}", "type": f"type-{n % 8}", "rank": n} for n in range(int(entities))
    ]
    found = sqlite3.connect(store[0]).execute("SELECT id, from_id, to_id, type FROM relation") if store else ()
    relations = [
        {"from": start, "to": end, "properties": {"id": name, "type": kind, "weight": n}}
        for n, (name, start, end, kind) in enumerate(found)
    ]

    def write(driver: neo4j.Driver, text: str, rows: list[dict[str, Any]]) -> None:
        nonlocal deadlocks
        while True:
            try:
                with driver.session(database="neo4j") as session, session.begin_transaction() as work:
                    work.run(text, rows=rows).consume()
                    work.commit()
            except neo4j.exceptions.TransientError:
                with lock:
                    deadlocks += 1
            else:
                return

    def timed(driver: neo4j.Driver, text: str, rows: list[dict[str, Any]]) -> float:
        began, size = time.perf_counter(), int(batch)
        with ThreadPoolExecutor(int(threads)) as pool:
            job: Callable[[int], None] = lambda at: write(driver, text, rows[at : at + size])  # noqa: E731
            list(pool.map(job, range(0, len(rows), size)))
        return time.perf_counter() - began

    with neo4j.GraphDatabase.driver(url, auth=(user, os.environ["MEMFERRY_BENCH_PASSWORD"])) as driver:
        driver.execute_query("CREATE CONSTRAINT plain_id IF NOT EXISTS FOR (n:Plain) REQUIRE n.id IS UNIQUE")
        print(timed(driver, NODES, nodes), timed(driver, RELATIONS, relations), deadlocks)


if __name__ == "__main__":
    main()
