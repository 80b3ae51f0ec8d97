"""Kill -9 over every pair with a server in it: at random instants and at named places, then the same command.

What arrived is seen twice without memferry's proof: by the server's own client, record by record, and field by field
in a file that it is read into.
"""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.ends import Ends, connected_documents
from faults.running import final, run, running
from support import graph
from support.documents import Document, write_jsonl
from support.killing import SERVER_RUNS
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer

STORES = ("embedded", "jsonl", "qdrant", "neo4j")
SERVERS = {"qdrant", "neo4j"}
PAIRS = [pair for pair in itertools.product(STORES, STORES) if SERVERS & set(pair)]
RUNS = [pair for pair in PAIRS for _ in range(1 if "neo4j" in pair else 5)]
"""What a seed stands for: a run with Neo4j takes five times as long as one without."""
RECORDS = 240
PLACES = {"planned": 1, "prepared": 1, "written": 14, "booked": 14, "committed": 14, "copied": 1}
FINISHING = {"before-finish": 1, "after-finish": 1, "deleted": 1}
"""Named places with how often a run passes them, about."""

Filled = Callable[[str], tuple[str, str]]


def kept() -> list[Document]:
    return connected_documents(RECORDS, seed=21)


@pytest.fixture(scope="session")
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Makes a source of each kind once: its URL and its password."""
    made: dict[str, tuple[str, str]] = {}
    folder = tmp_path_factory.mktemp("crash-sources")
    origin = write_jsonl(folder / "origin.jsonl", kept())

    def make(kind: str) -> tuple[str, str]:
        if kind in made and (kind != "neo4j" or _is_filled(request.getfixturevalue("second_neo4j_server"))):
            return made[kind]
        if kind == "qdrant":
            server: QdrantServer = request.getfixturevalue("qdrant_server")
            made[kind] = (f"{server.url}/crash_source?distance=dot", server.api_key or "")
        elif kind == "neo4j":
            second: Neo4jServer = request.getfixturevalue("second_neo4j_server")
            second.wipe()
            made[kind] = (f"neo4j://127.0.0.1:{second.port}", second.password)
        else:
            made[kind] = (str(folder / f"source.{'db' if kind == 'embedded' else kind}"), "")
        url, secret = made[kind]
        told = final(run("migrate", origin, url, "--json", **_secrets("TARGET", secret)), "proven", 0)
        assert told["verify"]["compared"] == RECORDS
        return made[kind]

    return make


def _is_filled(server: Neo4jServer) -> bool:
    """Whether the graph is still the source: other tests wipe that server."""
    found = graph.records(server)
    return found == {(str(one["kind"]), str(one["id"])): one.get("content") for one in kept()}


def _secrets(side: str, secret: str) -> dict[str, str]:
    return {f"{side}_API_KEY": secret, f"{side}_PASSWORD": secret} if secret else {}


@pytest.fixture
def ends(request: pytest.FixtureRequest, filled: Filled, tmp_path: Path) -> Ends:
    """Both ends of the run with the number `seed`, their servers started."""
    seed: int = request.node.callspec.params["seed"]
    source, target = RUNS[seed % len(RUNS)]
    if source == "jsonl":  # A file of its own, so that it can be changed.
        at, secret = str(write_jsonl(tmp_path / "source.jsonl", kept())), ""
    else:
        at, secret = filled(source)
    to, key = str(tmp_path / f"target.{'db' if target == 'embedded' else target}"), ""
    if target == "qdrant":
        server: QdrantServer = request.getfixturevalue("qdrant_server")
        prefix: str = request.getfixturevalue("qdrant_prefix")
        to, key = f"{server.url}/{prefix}crash?distance=dot", server.api_key or ""
    elif target == "neo4j":
        # In half of the rounds, of both sorts of kills, these may strike while constraints and indexes are made.
        bare = seed // len(RUNS) % 4 in {1, 2}
        empty: Neo4jServer = request.getfixturevalue("bare_neo4j" if bare else "empty_neo4j")
        to, key = f"neo4j://127.0.0.1:{empty.port}", empty.password
    return Ends(at, to, tmp_path, kept(), _secrets("SOURCE", secret) | _secrets("TARGET", key))


class Killer:
    """Kills a command now and then.

    Attributes:
        kills: How often that struck.
    """

    def __init__(self, ends: Ends, rng: random.Random, *, at_places: bool) -> None:
        self.ends = ends
        self.rng = rng
        self.at_places = at_places
        self.kills = 0

    def strike(self, *more: str) -> None:
        """One attempt; a command that was quicker is no failure."""
        command = [*self.ends.migrate, *more]
        bounds = {"TEST_PAGE": "20", "TEST_RANGE": "60"}
        if self.at_places:
            places = PLACES | FINISHING
            place = self.rng.choice(sorted(places))
            where = f"{place}:{self.rng.randint(1, places[place])}"
            ended = run(*command, FAILPOINT=where, **bounds, **self.ends.secrets)
        else:
            # The start of the interpreter is waited for, so that the time goes into the work.
            with running(*command, pause="start", **bounds, **self.ends.secrets) as one:
                one.paused()
                one.go()
                ended = one.kill_after(self.rng.uniform(0.0, 0.8))
        self.kills += ended.killed
        assert ended.killed or ended.code == 0, ended.err


def check(ends: Ends, request: pytest.FixtureRequest) -> None:
    """What the server's own client sees: every record once, with its content, and no other."""
    expected = {(str(one["kind"]), str(one["id"])): one.get("content") for one in ends.records}
    if ends.target.startswith("qdrant:"):
        server: QdrantServer = request.getfixturevalue("qdrant_server")
        with server.client() as client:
            name = ends.target.rpartition("/")[2].partition("?")[0]
            points, rest = client.scroll(name, limit=10 * RECORDS, with_payload=True)
        assert rest is None
        payloads = [(point.id, point.payload or {}) for point in points]
        found = {(one["kind"], str(one.get("id", key))): one.get("content") for key, one in payloads}
        assert len(found) == len(points)
    elif ends.target.startswith("neo4j:"):
        found = graph.records(request.getfixturevalue("neo4j_server"))
    else:
        return
    assert found == expected


@pytest.mark.parametrize("seed", range(SERVER_RUNS), ids=lambda seed: f"{seed}-{'-'.join(RUNS[seed % len(RUNS)])}")
def test_killed_and_called_again(
    seed: int,
    ends: Ends,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(seed)
    killer = Killer(ends, rng, at_places=(seed + seed // len(RUNS)) % 2 == 1)
    try:
        _run(ends, killer, rng)
        check(ends, request)
    finally:
        record_property("crash kills", killer.kills)


def _run(ends: Ends, killer: Killer, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 2)):
        killer.strike("--parallelism", "4")
    ends.finish()
    if ends.source.endswith(".jsonl") and rng.random() < 0.5:
        removed = [one for one in ends.records if one["kind"] == "memory" and rng.random() < 0.05]
        ends.records[:] = [
            {**one, "content": "changed"} if one["kind"] == "memory" and rng.random() < 0.1 else one
            for one in ends.records
            if one not in removed
        ]
        write_jsonl(Path(ends.source), ends.records)
        killer.strike("--delete")
        ends.finish("--delete")


def test_a_kill_is_a_kill() -> None:
    """The suite would be worth nothing if its kills did not strike."""
    with running("backends", pause="start") as one:
        one.paused()
        assert one.kill().killed
    assert subprocess.run(["kill", "-0", str(one.pid)], capture_output=True, check=False).returncode != 0
