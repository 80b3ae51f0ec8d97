"""To Neo4j: `neo4j_loop.py` as rows of the table."""

from __future__ import annotations

import statistics
from pathlib import Path

import neo4j_loop
from measure import Row

ROUNDS = 2
RELATIONS_EACH = 5


def neo4j(folder: Path, records: int) -> list[Row]:
    """Nodes and relations beside the best plain loop, in turn on one server."""
    from testbed.neo4j import VERSION, Neo4jServer  # noqa: PLC0415 - only where it is wanted

    nodes = min(records // 10, 20_000)
    store = folder / f"graph-{nodes}.db"
    neo4j_loop.make_store(store, nodes, nodes * RELATIONS_EACH)
    with Neo4jServer() as server:
        # The first round of each is for the server to get warm.
        rounds = [
            (
                neo4j_loop.measure(server, "loop", str(nodes), str(nodes * RELATIONS_EACH)),
                neo4j_loop.measure(server, "ferry", str(store)),
            )
            for _ in range(ROUNDS + 1)
        ][1:]
    retries = sum(ours["deadlocks"] for _, ours in rounds)
    rows = []
    for kind, reach in zip(neo4j_loop.KINDS, (">= 0.95", ">= 0.95", ">= 1.5 x, no deadlock retry"), strict=True):
        line = []
        for who, place in (("memferry", 1), ("the loop", 0)):
            rate, client, there = (
                statistics.median(one[place][kind][what] for one in rounds) for what in ("rate", "client", "server")
            )
            line.append(f"{who} {rate:,.0f} a second, CPU s per 100k: client {client:.2f}, server {there:.2f}")
        ratio = statistics.median(ours[kind]["rate"] / theirs[kind]["rate"] for theirs, ours in rounds)
        measured = f"{ratio:.2f}, {retries} retries" if kind == "relation" else f"{ratio:.2f}"
        what = f"embedded -> Neo4j {VERSION}, {kind}"
        rows.append(Row(what, "the best plain UNWIND loop, same driver", reach, measured, "; ".join(line)))
    return rows
