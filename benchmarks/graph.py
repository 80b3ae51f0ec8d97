"""To Neo4j: nodes, and the relations of a power-law graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measure import Row, migrate, plain, write_documents

DEGREE = 4
"""Relations for each entity."""


def make_graph(path: Path, entities: int) -> None:
    """Entities, and relations whose far ends follow a power law: a few entities have most of them."""
    import numpy as np  # noqa: PLC0415 - as in measure.py

    random = np.random.default_rng(2)

    def nodes(base: int, count: int) -> list[dict[str, Any]]:
        return [
            {"kind": "entity", "id": f"e{n}", "name": f"entity {n}", "type": f"type-{n % 8}", "extra": {"rank": n}}
            for n in range(base, base + count)
        ]

    def edges(base: int, count: int) -> list[dict[str, Any]]:
        far = np.minimum(random.zipf(1.3, count), entities) - 1
        near = random.integers(0, entities, count)
        return [
            {
                "kind": "relation",
                "id": f"r{base + i}",
                "type": "knows",
                "from_id": f"e{near[i]}",
                "to_id": f"e{far[i]}",
                "extra": {"weight": i},
            }
            for i in range(count)
        ]

    write_documents(path, nodes, entities)
    write_documents(path, edges, entities * DEGREE)


def neo4j(folder: Path, records: int) -> list[Row]:
    """Nodes and relations beside the best plain loop."""
    from testbed.neo4j import Neo4jServer  # noqa: PLC0415 - only where it is wanted

    entities = min(records // 10, 20_000)
    relations = entities * DEGREE
    store = folder / f"graph-{entities}.db"
    if not store.exists():
        make_graph(store, entities)
    with Neo4jServer() as server:
        secret = {"MEMFERRY_BENCH_PASSWORD": server.password}
        plain("unwind", server.url, server.user, str(entities // 10), "1", "2000", **secret)  # Warms the server.
        loops: list[tuple[str, float, float, float]] = []
        for threads, batch in ((1, 1000), (1, 5000), (2, 1000)):
            server.wipe()
            arguments = (server.url, server.user, str(entities), str(threads), str(batch), str(store))
            words = plain("unwind", *arguments, **secret).output.split()
            node_secs, relation_secs, deadlocks = map(float, words)
            loops.append((f"{threads} x {batch}", node_secs, relation_secs, deadlocks))
        server.wipe()
        times = migrate(str(store), f"neo4j://{server.user}@127.0.0.1:{server.port}/neo4j", **secret)
    marks = [(done, wall) for phase, done, wall in times["marks"] if phase == "copy"]
    nodes_end = max(wall for done, wall in marks if done <= entities)
    node_secs, relation_secs = nodes_end - times["copy_began"], marks[-1][1] - nodes_end
    best_nodes = min(loops, key=lambda loop: loop[1])
    best_relations = min(loops, key=lambda loop: loop[2])
    cpu = times["phases"]["run_copy"]["cpu"]
    return [
        Row(
            f"embedded -> Neo4j, {entities:,} nodes",
            f"the best plain UNWIND loop ({best_nodes[0]} rows), same driver",
            ">= 0.95",
            f"{best_nodes[1] / node_secs:.2f}",
            f"{entities / node_secs:,.0f} and {entities / best_nodes[1]:,.0f} a second; client CPU of the whole copy "
            f"{cpu:.1f} s",
        ),
        Row(
            f"embedded -> Neo4j, {relations:,} relations of a power-law graph",
            f"the best plain UNWIND loop ({best_relations[0]} rows), same driver",
            ">= 1.5 x, no deadlock retry",
            f"{best_relations[2] / relation_secs:.2f} x, {times['retries']} retries",
            f"{relations / relation_secs:,.0f} and {relations / best_relations[2]:,.0f} a second; deadlocks of the "
            f"plain loop with two threads: {loops[-1][3]:.0f}",
        ),
    ]
