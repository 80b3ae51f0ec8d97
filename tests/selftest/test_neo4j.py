"""Neo4j starts on loopback with a password, dies, comes back with its data, and can be wiped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import neo4j
import pytest
from neo4j.exceptions import AuthError, Neo4jError, ServiceUnavailable

from testbed import wait
from testbed.neo4j import Neo4jServer
from testbed.proxy import FaultyProxy

pytestmark = pytest.mark.ends_neo4j


@pytest.fixture
def server(empty_neo4j: Neo4jServer) -> Neo4jServer:
    """That of the process."""
    return empty_neo4j


def _count(driver: neo4j.Driver) -> int:
    records, _, _ = driver.execute_query("MATCH (n:Thing) RETURN count(n) AS things", database_="neo4j")
    return int(records[0]["things"])


def _fill(server: Neo4jServer, count: int) -> None:
    with server.driver() as driver:
        driver.execute_query("UNWIND range(1, $count) AS number CREATE (:Thing {number: number})", count=count)


def _addresses_listened_on(pid: int) -> set[str]:
    """Addresses of a process's listening TCP sockets, as the kernel writes them."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(link.readlink().name)
        except FileNotFoundError:  # closed since it was listed
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                found.add(words[1].partition(":")[0])
    return found


def test_it_listens_on_loopback_only_and_its_password_is_in_no_command_line(server: Neo4jServer) -> None:
    assert _addresses_listened_on(server.process.pid) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert server.password not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert server.password not in (server.home / "conf" / "neo4j.conf").read_text()


def test_a_wrong_password_is_refused(server: Neo4jServer) -> None:
    with (
        neo4j.GraphDatabase.driver(server.url, auth=("neo4j", "not the password")) as driver,
        pytest.raises(AuthError),
    ):
        driver.verify_connectivity()


def test_data_survive_kill_and_restart(server: Neo4jServer) -> None:
    server.wipe()
    _fill(server, 1000)
    before = server.process.pid, server.url
    server.kill9()
    assert not server.process.is_running
    with server.driver() as driver, pytest.raises(ServiceUnavailable):
        driver.verify_connectivity()
    server.restart()
    assert server.process.pid != before[0]
    assert server.url == before[1]
    with server.driver() as driver:
        assert _count(driver) == 1000


def test_wipe_leaves_nothing(server: Neo4jServer) -> None:
    with server.driver() as driver:
        driver.execute_query("CREATE CONSTRAINT `odd ``name` FOR (n:Thing) REQUIRE n.id IS UNIQUE")
        driver.execute_query("CREATE INDEX FOR (n:Thing) ON (n.number)")
        driver.execute_query(
            "CREATE VECTOR INDEX FOR (n:Thing) ON n.vector "
            "OPTIONS {indexConfig: {`vector.dimensions`: 384, `vector.similarity_function`: 'cosine'}}"
        )
        driver.execute_query("CREATE (:Thing {id: 1})-[:KNOWS]->(:Thing {id: 2})")
        server.wipe()
        assert _count(driver) == 0
        indexes, _, _ = driver.execute_query("SHOW INDEXES YIELD type")
        assert [record["type"] for record in indexes] == ["LOOKUP", "LOOKUP"]
        assert driver.execute_query("SHOW CONSTRAINTS").records == []


def test_a_frozen_server_answers_later(server: Neo4jServer) -> None:
    with server.driver() as driver:
        driver.verify_connectivity()
        with server.process.stop_cont():
            pass
        driver.verify_connectivity()


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_a_driver_stays_behind_the_proxy(server: Neo4jServer, proxy: Callable[[int], FaultyProxy], scheme: str) -> None:
    line = proxy(server.port)
    url = f"{scheme}://{line.address}"
    with neo4j.GraphDatabase.driver(url, auth=(server.user, server.password)) as driver:
        _count(driver)
        assert line.accepted > 0
        line.refuse(cut=True)
        with driver.session() as session, pytest.raises((ServiceUnavailable, Neo4jError, OSError)):
            session.run("RETURN 1").consume()
        line.resume()
        wait.until(lambda: _count(driver) >= 0, what="an answer through the proxy")
