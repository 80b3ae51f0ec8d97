"""Neo4j over TLS, from one server to another, with names that look like Cypher, and back out again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from memferry.backends import open_source, open_target
from memferry.errors import MemferryError, RefusedError
from memferry.urls import Secrets, parse_url
from support.checker import differences
from support.documents import documents
from support.graph import Graph, entity, move, relation, roll
from testbed.neo4j import Neo4jServer
from testbed.tls import make_certificates


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path) -> Graph:
    return Graph(empty_neo4j, tmp_path)


@pytest.mark.timeout(400)  # Two servers start.
def test_from_one_server_to_another(graph: Graph, second_neo4j_server: Neo4jServer, tmp_path: Path) -> None:
    second_neo4j_server.wipe()
    other = Graph(second_neo4j_server, tmp_path)
    move(graph.file(documents(150, seed=3)), graph.url)
    before = graph.contents("before")
    result = move(graph.url, other.url)
    assert (result.outcome, result.lossless) == ("proven", True)
    assert differences(before, other.contents("after")) == []
    again = move(graph.url, other.url)
    assert (again.books.total("written"), again.books.total("unchanged")) == (0, again.books.total("read"))
    assert graph.cypher("MATCH (d:MemferryLedger {name: 'plan'}) RETURN count(d)") == [[1]]


@pytest.mark.timeout(400)  # A server starts.
def test_tls(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "certificates")
    settings = (
        "server.bolt.tls_level=OPTIONAL\n"  # The testbed looks whether it is there without TLS.
        "dbms.ssl.policy.bolt.enabled=true\n"
        f"dbms.ssl.policy.bolt.base_directory={made.key.parent}\n"
        f"dbms.ssl.policy.bolt.private_key={made.key.name}\n"
        f"dbms.ssl.policy.bolt.public_certificate={made.certificate.name}\n"
    )
    with Neo4jServer(tmp_path / "home", settings) as server:
        graph = Graph(server, tmp_path)
        url = graph.at("?tls=1", ca_file=made.authority)
        assert move(graph.file([entity("a"), relation("r", "a", "a")]), url).outcome == "proven"
        assert graph.cypher("MATCH (n:MemferryEntity) RETURN n.id") == [["a"]]
        # Authorities that did not sign the certificate: those of the system, and another one of our own.
        stranger = make_certificates(tmp_path / "stranger").authority
        for ca_file in (None, stranger):
            with pytest.raises(RefusedError) as caught:
                open_source(graph.at("?tls=1", ca_file=ca_file))
            assert caught.value.code == "unauthorized"
            assert "certificate" in str(caught.value)
            assert server.password not in str(caught.value)


def test_the_scheme_of_the_driver_means_tls() -> None:
    url = parse_url("neo4j+s://ann@example.com/agents?profile=plain")
    assert (url.backend, url.tls, url.user, url.port, url.name) == ("neo4j", True, "ann", 7687, "agents")
    assert not parse_url("neo4j://example.com").tls


def test_a_failed_login_says_what_to_do(graph: Graph) -> None:
    with pytest.raises(RefusedError) as caught:
        open_target(graph.at(password="not it"))
    assert (caught.value.code, caught.value.exit_code) == ("unauthorized", 2)
    assert "not it" not in f"{caught.value} {caught.value.hint}"
    assert "--target-password-env" in (caught.value.hint or "")


HOSTILE = [
    "`) DETACH DELETE n //",
    "x`]->() DETACH DELETE a //",
    "\\u0060 DETACH DELETE n",
    "'; MATCH (n) DETACH DELETE n; //",
    "$row",
    "n.id",
    "a b\nc",
    "``",
    "*",
]


def test_names_that_look_like_cypher_stay_names(graph: Graph) -> None:
    graph.cypher("CREATE (:Witness {id: 'here'})")
    rows = [entity(name, type=name, name=name, extra={name: name}) for name in HOSTILE]
    rows += [relation(f"r{n}", HOSTILE[0], name, type=name, extra={name: name}) for n, name in enumerate(HOSTILE)]
    origin = graph.file(rows)
    assert move(origin, graph.url).outcome == "proven"
    assert graph.cypher("MATCH (n:Witness) RETURN n.id") == [["here"]]
    found = graph.contents("back").records
    assert found.keys() == {(row["kind"], row["id"]) for row in rows}
    assert {found["entity", name]["type"] for name in HOSTILE} == set(HOSTILE)


def test_rollback_counts_what_it_takes_out_and_puts_back(graph: Graph) -> None:
    first = graph.file([entity("a", name="old"), entity("b"), relation("r", "a", "b")], "first")
    second = graph.file([entity("a"), entity("c"), relation("r", "c", "c"), relation("s", "a", "c")], "second")
    move(first, graph.url)
    before = graph.contents("before")
    result = move(second, graph.url, on_existing="overwrite")
    done = roll(graph.url, result.migration)
    # `r` was moved to `c`: only when it is back between `a` and `b` can `c` go.
    assert (done.deleted, done.restored, done.kept) == (2, 2, [])
    assert differences(before, graph.contents("after")) == []


def test_a_missing_password_is_refused(graph: Graph) -> None:
    with pytest.raises(MemferryError) as caught:
        open_source(replace(graph.url, secrets=Secrets()))
    assert caught.value.code == "unauthorized"
