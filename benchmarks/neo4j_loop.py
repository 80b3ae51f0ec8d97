"""memferry into Neo4j against the best plain `UNWIND` loop we know, side by side in one run.

    python benchmarks/neo4j_loop.py [NODES] [RELATIONS]

The loop gets its rows as dictionaries made beforehand, with the same properties, labels and constraints, in the batch
size that was fastest; what memferry does from the embedded file on is inside its figure: reading, decoding, digest,
ledger, its answer for every row. Both are the same driver, in a process of their own, on the same server. CPU seconds
of client and server stand beside the rates: they are the steady figures on a busy machine.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]
ROUNDS = 3
BATCHES = {"entity": 5000, "memory": 2000, "relation": 5000}
EXPONENT = 0.8
"""Of the power law: the busiest entity of 20,000 has about 3 percent of all ends."""
KINDS = ("entity", "memory", "relation")


def documents(nodes: int, relations: int) -> Iterator[dict[str, Any]]:
    """Entities, a fifth as many memories with 384 numbers, and relations whose ends follow a power law."""
    rng = random.Random(7)  # noqa: S311 - the same rows in every round
    common = {"created_at": "2024-06-15T10:30:00.000000Z", "confidence": 0.5, "scope": {"user": "user-1"}}
    for i in range(nodes):
        named = {"name": f"entity number {i}", "type": ("Person", "Company", "Place")[i % 3]}
        yield {"kind": "entity", "id": f"entity-{i:08}", **named, **common}
    for i in range(nodes // 5):
        numbers = [rng.uniform(-1, 1) for _ in range(384)]
        yield {"kind": "memory", "id": f"memory-{i:08}", "content": f"memory {i} ".ljust(200, "x"), "v": numbers}
    ends = rng.choices(range(nodes), [1 / (i + 1) ** EXPONENT for i in range(nodes)], k=2 * relations)
    for i in range(relations):
        pair = {"from_id": f"entity-{ends[2 * i]:08}", "to_id": f"entity-{ends[2 * i + 1]:08}"}
        yield {"kind": "relation", "id": f"relation-{i:08}", "type": "KNOWS", **pair, **common}


def make_store(path: Path, nodes: int, relations: int) -> None:
    """An embedded store of them."""
    from memferry.phases.migrate import migrate  # noqa: PLC0415 - after the path is set
    from memferry.phases.plan import Options  # noqa: PLC0415
    from memferry.urls import parse_url  # noqa: PLC0415
    from support.documents import vector, write_jsonl  # noqa: PLC0415

    def rows() -> Iterator[dict[str, Any]]:
        for row in documents(nodes, relations):
            numbers = row.pop("v", None)
            yield row if numbers is None else {**row, "vectors": [vector(numbers)]}

    origin = write_jsonl(path.with_suffix(".jsonl"), rows())
    migrate(parse_url(str(origin)), parse_url(str(path)), Options())
    origin.unlink()


def loop(nodes: int, relations: int, server_cpu: Any) -> dict[str, Any]:
    """Rates and CPU seconds of the plain loop."""
    import neo4j  # noqa: PLC0415

    marker = "0123456789abcdef0123456789abcdef 0123456789abcdef0123456789abcdef"
    statements = {
        "entity": "UNWIND $rows AS row CREATE (n:MemferryEntity) SET n = row.properties SET n:$(row.labels)",
        "memory": "UNWIND $rows AS row CREATE (n:MemferryMemory) SET n = row.properties "
        "WITH n, row CALL db.create.setNodeVectorProperty(n, 'vector_384', row.vector)",
        "relation": "UNWIND $rows AS row MATCH (a:MemferryEntity {id: row.start}) "
        "MATCH (b:MemferryEntity {id: row.end}) CREATE (a)-[r:MEMFERRY_RELATION]->(b) SET r = row.properties",
    }
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for row in documents(nodes, relations):
        scope, kind, vector = row.pop("scope", {}), row.pop("kind"), row.pop("v", None)
        ends = {"start": row.pop("from_id", None), "end": row.pop("to_id", None)}
        properties = {**row, "_memferry": marker, **({"scope_user": scope["user"]} if scope else {})}
        if vector:
            properties["vectors"] = '[{"name":"","model":null,"dim":384,"normalized":null,"kind":0,"property":"v"}]'
        labels = [row["type"]] if kind == "entity" else []
        rows[kind].append({"properties": properties, "labels": labels, "vector": vector, **ends})
    found = {}
    address, auth = os.environ["BENCH_URL"], ("neo4j", os.environ["BENCH_PASSWORD"])
    with neo4j.GraphDatabase.driver(address, auth=auth) as driver, driver.session() as session:
        for label in ("Entity", "Memory"):
            session.run(f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:Memferry{label}) REQUIRE n.id IS UNIQUE").consume()
        session.run("CREATE CONSTRAINT IF NOT EXISTS FOR ()-[r:MEMFERRY_RELATION]-() REQUIRE r.id IS UNIQUE").consume()
        session.run("CALL db.awaitIndexes()").consume()
        for kind in KINDS:
            cpu, server, began = _cpu(), server_cpu(), time.perf_counter()
            for start in range(0, len(rows[kind]), BATCHES[kind]):
                with session.begin_transaction() as transaction:
                    transaction.run(statements[kind], rows=rows[kind][start : start + BATCHES[kind]]).consume()
                    transaction.commit()
            found[kind] = _figures(len(rows[kind]), began, cpu, server, server_cpu)
    return found


def ferry(store: str, server_cpu: Any) -> dict[str, Any]:
    """The same of memferry's copy, kind by kind; plan, indexes and proof apart."""
    from dataclasses import replace  # noqa: PLC0415

    from memferry.backends.neo4j import Neo4jTarget  # noqa: PLC0415
    from memferry.phases import copy, migrate  # noqa: PLC0415
    from memferry.phases.plan import Options  # noqa: PLC0415
    from memferry.urls import Secrets, parse_url  # noqa: PLC0415

    found: dict[str, Any] = {}
    stage, deadlocks = copy._run_stage, 0  # noqa: SLF001 - kinds are to be told apart

    def timed(work: Any, ranges: Any, parallelism: int, stop: Any) -> None:
        nonlocal deadlocks
        cpu, server, began, done = _cpu(), server_cpu(), time.perf_counter(), work.done
        stage(work, ranges, parallelism, stop)
        found[ranges[0].stream] = _figures(work.done - done, began, cpu, server, server_cpu)
        assert isinstance(work.target, Neo4jTarget)
        deadlocks = work.target.deadlocks

    copy._run_stage = timed  # type: ignore[assignment]  # noqa: SLF001
    url = parse_url(os.environ["BENCH_URL"].replace("bolt:", "neo4j:"))
    url = replace(url, secrets=Secrets(password=os.environ["BENCH_PASSWORD"]))
    result = migrate.migrate(parse_url(store), url, Options(parallelism=int(os.environ.get("BENCH_PARALLEL", "2"))))
    assert result.outcome == "proven", result.outcome
    return {**found, "deadlocks": deadlocks}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _figures(rows: int, began: float, cpu: float, server: float, server_cpu: Any) -> dict[str, float]:
    per = 100_000 / max(rows, 1)
    return {
        "rate": rows / (time.perf_counter() - began),
        "client": (_cpu() - cpu) * per,
        "server": (server_cpu() - server) * per,
    }


def _server_cpu() -> float:
    fields = Path(f"/proc/{os.environ['BENCH_PID']}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: Any, *arguments: str) -> dict[str, Any]:
    """One side in a process of its own, on an emptied database."""
    server.wipe()
    environment = {
        **os.environ,
        "BENCH_URL": server.url,
        "BENCH_PASSWORD": server.password,
        "BENCH_PID": str(server.process.pid),
    }
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Prints the table."""
    if sys.argv[1:2] == ["loop"]:
        print(json.dumps(loop(int(sys.argv[2]), int(sys.argv[3]), _server_cpu)))
        return
    if sys.argv[1:2] == ["ferry"]:
        print(json.dumps(ferry(sys.argv[2], _server_cpu)))
        return
    from testbed.neo4j import VERSION, Neo4jServer  # noqa: PLC0415

    nodes, relations = (int(n) for n in (*sys.argv[1:], *("20000", "100000")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory(prefix="memferry-bench-") as name, Neo4jServer(Path(name) / "home") as server:
        store = Path(name) / "store.db"
        make_store(store, nodes, relations)
        # The first round of each is for the server to get warm.
        rounds = [
            (measure(server, "loop", str(nodes), str(relations)), measure(server, "ferry", str(store)))
            for _ in range(ROUNDS + 1)
        ][1:]
        print(f"Neo4j {VERSION}, {nodes} entities, {nodes // 5} memories, {relations} relations; medians of {ROUNDS}")
        for kind, reach in zip(KINDS, (0.95, 0.95, 1.5), strict=True):
            line = []
            for who, place in (("memferry", 1), ("loop", 0)):
                rate, client, at_server = (
                    statistics.median(one[place][kind][what] for one in rounds) for what in ("rate", "client", "server")
                )
                line.append(f"{who} {rate:,.0f}/s (CPU s per 100k: client {client:.2f}, server {at_server:.2f})")
            ratio = statistics.median(ours[kind]["rate"] / theirs[kind]["rate"] for theirs, ours in rounds)
            print(f"{kind}: {'; '.join(line)}; ratio {ratio:.2f} (reach {reach})")
        print(f"deadlock retries: {sum(ours['deadlocks'] for _, ours in rounds)}")


if __name__ == "__main__":
    main()
