"""Manifests: what is allowed, what is said of the rest, and that `apply` does what `migrate` does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel

from memferry.cli import manifests, pods, worker
from memferry.cli.local import _NOT_HERE, ACTED_UPON, IN_A_CLUSTER, local
from memferry.errors import ManifestError
from memferry.manifest import KINDS, Migration, load_manifest
from support.checker import last_json
from support.cli import memferry
from support.documents import plain_documents, write_jsonl
from support.manifest_docs import PAGE, backend, filled, migration
from testbed.qdrant import QdrantServer

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
SECRET: Final = "hunter2-secret"


def both(more: str = "") -> str:
    return "---\n".join([backend(), backend("b", "{backend: jsonl, path: b.jsonl}"), migration(more)])


def problems(text: str | bytes) -> list[tuple[str, int | None, str]]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(ManifestError) as caught:
        load_manifest(data, "m.yaml", Path.cwd())
    assert caught.value.code == "manifest"
    assert caught.value.exit_code == 2
    return [(p.path, p.line, p.text) for p in caught.value.problems]


# -- what is refused, and how it is told


@pytest.mark.parametrize(
    ("more", "path", "line", "words"),
    [
        ("  shards: 3\n", "spec.shards", 7, "unknown field"),
        ("  stopafter: Plan\n", "spec.stopafter", 7, "meant: stopAfter"),
        ("  transfer:\n    shards: 300\n", "spec.transfer.shards", 8, "got `300`, allowed: at most 256"),
        ("  transfer: {shards: 0}\n", "spec.transfer.shards", 7, "at least 1"),
        ("  transfer: {shards: '3'}\n", "spec.transfer.shards", 7, "integer"),
        ("  transfer: {shards: yes}\n", "spec.transfer.shards", 7, "integer"),
        ("  transfer: {stallTimeout: soon}\n", "spec.transfer.stallTimeout", 7, "a duration as in"),
        ("  transfer: []\n", "spec.transfer", 7, "an object"),
        ("  strategy: offline\n", "spec.strategy", 7, "`Offline` or `Online`"),
        ("  scope: {kinds: [memory, fact]}\n", "spec.scope.kinds[1]", 7, "`entity`, `memory`"),
        ("  acceptGaps: [No Good]\n", "spec.acceptGaps[0]", 7, "words joined by"),
        (f"  acceptGaps: [{', '.join(['x'] * 65)}]\n", "spec.acceptGaps", 7, "at most 64 long"),
        ("  validation: {parity: {minRecall: 0.9}}\n", "spec.validation.parity.minRecall", 7, "in quotes"),
        ("  validation: {parity: {minRecall: '1.1'}}\n", "spec.validation.parity.minRecall", 7, "a share in quotes"),
        ("  cutover: {notBefore: tomorrow}\n", "spec.cutover.notBefore", 7, "an instant as in"),
        (f"  scope: {{where: '{'x' * 5000}'}}\n", "spec.scope.where", 7, "at most 4096 long"),
        ("  mapping: {configMapRef: {name: m}}\n", "spec.mapping.configMapRef.key", 7, "is needed"),
        ("  transfer: {nodeSelector: {'a b': c}}\n", "spec.transfer.nodeSelector.a b", 7, "label key"),
    ],
)
def test_a_field_that_is_not_allowed_is_named_with_its_line(more: str, path: str, line: int, words: str) -> None:
    [(found, where, text)] = problems(migration(more))
    assert (found, where) == (path, line)
    assert words in text


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{backend: embedded}", "needs path"),
        ("{backend: embedded, path: a.db, collection: x}", "collection is for backend qdrant only"),
        ("{backend: qdrant, address: localhost}", "needs collection"),
        ("{backend: qdrant, address: 'http://localhost:6334', collection: x}", "without user or scheme"),
        ("{backend: chroma, path: x}", "`embedded`, `jsonl`"),
        ("{backend: embedded, path: 'a.db?profile=mem0'}", "a path without"),
        ("{backend: hybrid, graphRef: {name: g}}", "needs vectorsRef"),
        ("{backend: neo4j, address: localhost, password: {}}", "one of secretRef, env, file"),
    ],
)
def test_a_backend_has_its_own_fields(spec: str, words: str) -> None:
    [(_, _, text)] = problems(backend(spec=spec))
    assert words in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no resource"),
        ("---\n---\n", "no resource"),
        ("- 1\n", "an object with apiVersion"),
        ("kind: Secret\n", "allowed: MemoryMigration"),
        ("kind: [x]\n", "allowed: MemoryMigration"),
        ("a: 1\na: 2\n", "stands twice"),
        ("1: x\n", "a key that is no text"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not read"),
        ("a: !!binary aGVsbG8=\n", "is not read"),
        ("a: {<<: {b: c}}\n", "a key that is no text"),
        ("[" * 100, "nested deeper"),
        ("a: [\n", "expected"),
        ("a: \x07\n", "not YAML"),
        (b"a: \xff\n", "not UTF-8"),
        ("#" * ((1 << 20) + 1), "larger than"),
        ("---\nkind: x\n" * 101, "more than 100"),
        (backend() + "---\n" + backend(), "stands twice in the file"),
    ],
    ids=range(18),
)
def test_what_is_no_manifest_is_refused(text: str | bytes, words: str) -> None:
    assert words in problems(text)[0][2]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = both("  transfer: {shards: 0, parallelism: 99}\n  strategy: Fast\n") + "---\nkind: Pod\n"
    found = problems(text)
    assert {path for path, _, _ in found} == {
        "spec.transfer.shards",
        "spec.transfer.parallelism",
        "spec.strategy",
        "kind",
    }


@pytest.mark.parametrize(
    "spec",
    [
        f"{{backend: qdrant, address: 'ann:{SECRET}@localhost', collection: x}}",
        f"{{backend: qdrant, address: localhost, collection: x, apiKey: {SECRET}}}",
        f"{{backend: qdrant, address: localhost, collection: x, apiKey: {{value: {SECRET}}}}}",
        f"{{backend: neo4j, address: localhost, password: {{env: '{SECRET}'}}}}",
        f"{{backend: neo4j, address: localhost, passphrase: {SECRET}}}",
    ],
)
def test_a_secret_in_a_manifest_is_refused_and_not_repeated(spec: str) -> None:
    assert SECRET not in str(problems(backend(spec=spec)))


# -- what it means here


def test_stores_and_options_of_a_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    (tmp_path / "password").write_text(f"{SECRET}-2\n")
    text = "---\n".join(
        [
            backend(
                "a",
                "{backend: qdrant, address: 'example.org:7000', collection: 'a b/c', profile: mem0, "
                "tls: {ca: {file: ca.pem}}, "
                "apiKey: {env: MY_KEY, secretRef: {name: s, key: k}}, caps: {concurrency: 3}}",
            ),
            backend("b", "{backend: neo4j, address: '[::1]', database: db, user: ann, password: {file: password}}"),
            migration("  acceptGaps: [versions]\n  transfer: {parallelism: 8, maxQuarantined: 5}\n"),
        ]
    )
    manifest = load_manifest(text.encode(), "m.yaml", tmp_path)
    found = local(manifest, manifest.migrations()[0])
    source, target = found.source, found.target
    assert (source.host, source.port, source.name, source.profile, source.tls) == (
        "example.org",
        7000,
        "a b/c",
        "mem0",
        True,
    )
    assert (source.secrets.api_key, source.secrets.ca_file) == (SECRET, tmp_path / "ca.pem")
    assert (target.host, target.port, target.name, target.user) == ("::1", 7687, "db", "ann")
    assert (target.secrets.password, target.secrets.api_key) == (f"{SECRET}-2", None)
    assert (found.options.accept, found.options.parallelism, found.options.max_quarantined) == (("versions",), 3, 5)
    assert SECRET not in repr(found)


def test_a_hybrid_store_and_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPH", SECRET)
    text = "---\n".join(
        [
            backend(),
            backend("g", "{backend: neo4j, address: localhost, password: {env: GRAPH}}"),
            backend("v", "{backend: qdrant, address: localhost, collection: agents}"),
            backend("h", "{backend: hybrid, graphRef: {name: g}, vectorsRef: {name: v}}"),
            migration("  validation: {parity: {queries: 7, minRecall: '0.5', k: 3}}\n", target="h"),
        ]
    )
    manifest = load_manifest(text.encode(), "m.yaml", tmp_path)
    found = local(manifest, manifest.migrations()[0])
    assert found.target.graph is not None
    assert found.target.vectors is not None
    assert (found.target.backend, found.target.vectors.name) == ("hybrid", "agents")
    assert found.target.graph.secrets.password == SECRET
    assert (found.options.parity, found.options.neighbours, found.options.min_recall) == (7, 3, 0.5)
    assert found.left_out == []


def test_a_secret_of_a_cluster_is_looked_for_in_the_usual_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "{backend: qdrant, address: localhost, collection: x, apiKey: {secretRef: {name: s, key: k}}}"
    text = "---\n".join([backend(), backend("b", spec), migration()])
    manifest = load_manifest(text.encode(), "m.yaml", tmp_path)
    monkeypatch.delenv("MEMFERRY_TARGET_API_KEY", raising=False)
    with pytest.raises(
        ManifestError, match=r"m.yaml:9: MemoryBackend/b spec.apiKey.secretRef: .*MEMFERRY_TARGET_API_KEY"
    ):
        local(manifest, manifest.migrations()[0])
    monkeypatch.setenv("MEMFERRY_TARGET_API_KEY", SECRET)
    assert local(manifest, manifest.migrations()[0]).target.secrets.api_key == SECRET


def test_a_reference_to_nothing_is_named(tmp_path: Path) -> None:
    text = "---\n".join([backend(), migration(target="c")])
    manifest = load_manifest(text.encode(), "m.yaml", tmp_path)
    with pytest.raises(ManifestError, match=r"m.yaml:11: .* spec.target.backendRef.name: got `c`, allowed: a"):
        local(manifest, manifest.migrations()[0])


def _paths(model: type[BaseModel], path: str) -> Iterator[str]:
    for field in model.model_fields.values():
        here = f"{path}.{field.alias}"
        yield here
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, here)


def test_no_field_is_left_out_silently() -> None:
    told = ACTED_UPON | IN_A_CLUSTER | set(_NOT_HERE)
    for path in _paths(Migration, "spec"):
        near = [one for one in told if path == one or path.startswith(f"{one}.") or one.startswith(f"{path}.")]
        assert near, f"{path} is in no list of what is acted upon, left out or refused"


def test_what_means_something_in_a_cluster_only_is_named(tmp_path: Path) -> None:
    more = (
        "  strategy: Online\n  transfer: {shards: 3, parallelism: 2}\n  cutover: {approve: abc, maxWriteFreeze: 10s}\n"
        "  decommission: {policy: Delete}\n  stopAfter: Copy\n  retryToken: ''\n"
    )
    manifest = load_manifest(both(more).encode(), "m.yaml", tmp_path)
    assert local(manifest, manifest.migrations()[0]).left_out == [
        "spec.cutover",
        "spec.decommission",
        "spec.strategy",
        "spec.transfer.shards",
        "spec.stopAfter Copy: the copy is verified as well",
    ]


# -- the page and the schema


def test_the_page_says_what_the_model_says() -> None:
    page = PAGE.read_text("utf-8")
    assert filled(page) == page, "run `python tests/support/manifest_docs.py`"


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_list_and_map_is_bounded(kind: str) -> None:
    def check(schema: Any, path: str) -> None:
        if isinstance(schema, list):
            for part in schema:
                check(part, path)
        if not isinstance(schema, dict):
            return
        if schema.get("type") == "string":
            assert {"maxLength", "enum", "const"} & set(schema), path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "object":
            assert schema.get("additionalProperties") is False or "maxProperties" in schema, path
        if schema.get("type") == "integer":
            assert {"minimum", "maximum"} <= set(schema), path
        for name, part in schema.items():
            check(part, f"{path}.{name}")

    check(KINDS[kind].model_json_schema(), kind)


def test_the_schema_as_a_verb(tmp_path: Path) -> None:
    done = memferry(tmp_path, "manifest", "schema", "MemoryBackend")
    assert done.returncode == 0
    assert json.loads(done.stdout)["properties"]["spec"]
    assert memferry(tmp_path, "manifest", "schema", "Pod").returncode == 2


# -- apply


def test_the_example_runs(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    before = sorted(tmp_path.rglob("*"))
    checked = memferry(tmp_path, "apply", "-f", "examples/migration.yaml", "--dry-run")
    assert (checked.returncode, sorted(tmp_path.rglob("*"))) == (0, before), checked.stderr
    assert "spec.transfer.shards" in checked.stderr
    done = memferry(tmp_path, "apply", "-f", "examples/migration.yaml", "--json")
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["name"]) == (0, "proven", "agents-to-archive"), done.stderr
    assert final["left_out"] == ["spec.monitoring", "spec.transfer.shards"]
    assert len(done.stdout.splitlines()) == 1
    again = memferry(tmp_path, "verify", "examples/demo/agents.db", "examples/memory.jsonl.zst")
    assert again.returncode == 0, "the same migration as that of the command line"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("  suspend: true\n", "suspend"),
        ("  operation: Abort\n  operationToken: x\n", "spec.operation"),
        ("  acceptGaps: [nonsense]\n", "spec.acceptGaps"),
    ],
)
def test_what_would_change_the_outcome_is_refused(tmp_path: Path, more: str, words: str) -> None:
    write_jsonl(tmp_path / "b.jsonl", plain_documents(3, seed=1))
    (tmp_path / "m.yaml").write_text(both(more))
    before = sorted(tmp_path.rglob("*"))
    done = memferry(tmp_path, "apply", "-f", "m.yaml", "--json")
    error = last_json(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "manifest")
    assert words in error["message"]
    assert sorted(tmp_path.rglob("*")) == before


def test_some_of_the_records_mapped(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", plain_documents(60, seed=1))
    table = '  rename.toml: |\n    [[set]]\n    field = "scope_tenant"\n    value = "acme"\n'
    parts = [
        backend("a", "{backend: jsonl, path: a.jsonl}"),
        backend("b", "{backend: jsonl, path: b.jsonl}"),
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tables}}\ndata:\n{table}",
        migration(
            "  scope: {kinds: [memory, entity], where: 'kind == \"memory\" || true'}\n"
            "  mapping: {configMapRef: {name: tables, key: rename.toml}}\n"
        ),
    ]
    done = memferry(tmp_path, "apply", "-f", "-", "--json", text="---\n".join(parts))
    final = last_json(done.stdout)
    assert final["outcome"] == "partial", done.stderr
    found = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert {record["kind"] for record in found} == {"memory", "entity"}
    assert {record["scope"]["tenant"] for record in found} == {"acme"}


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("  scope: {where: 'nonsense('}\n", "spec.scope.where"),
        ("  mapping: {configMapRef: {name: tables, key: x}}\n", "spec.mapping.configMapRef"),
        ("  mapping: {configMapRef: {name: bad, key: x}}\n", "spec.mapping"),
    ],
)
def test_a_scope_or_mapping_that_is_none(tmp_path: Path, more: str, where: str) -> None:
    bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {x: 'no table'}\n"
    manifest = load_manifest("---\n".join([both(more), bad]).encode(), "m.yaml", tmp_path)
    with pytest.raises(ManifestError) as caught:
        local(manifest, manifest.migrations()[0])
    assert [problem.path for problem in caught.value.problems] == [where]


def test_a_rehearsal_ends_with_the_plan(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", plain_documents(30, seed=1))
    text = both("  stopAfter: Plan\n").replace(
        "name: a}}\n  target: {backendRef: {name: b", "name: b}}\n  target: {backendRef: {name: a"
    )
    done = memferry(tmp_path, "apply", "-f", "-", "--json", text=text)
    final = last_json(done.stdout)
    assert (done.returncode, final["outcome"], final["rows"]) == (0, "planned", 30), done.stderr
    assert not (tmp_path / "a.db").exists()


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    done = memferry(tmp_path, "apply", "-f", "none.yaml", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "manifest")


def test_a_manifest_with_a_server(tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    write_jsonl(tmp_path / "a.jsonl", plain_documents(50, seed=3))
    spec = f"{{backend: qdrant, address: '{qdrant_server.host}:{qdrant_server.port}', collection: {qdrant_prefix}m}}"
    accepted = migration("  acceptGaps: [vector-lengths]\n")
    parts = [backend("a", "{backend: jsonl, path: a.jsonl}"), backend("b", spec), accepted]
    (tmp_path / "m.yaml").write_text("---\n".join(parts))
    done = memferry(tmp_path, "apply", "-f", "m.yaml", "--json")
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (0, "proven"), done.stderr


def test_what_the_commands_name_without_its_models_is_what_there_is() -> None:
    assert tuple(KINDS) == manifests.KINDS
    assert worker.VERBS.keys() - {"probe"} == pods.VERBS.keys()


def test_the_models_of_manifests_are_imported_by_nobody_who_reads_none(tmp_path: Path) -> None:
    seen = (
        "import sys; from memferry.cli.main import app; app(['backends'], standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", seen], cwd=tmp_path, capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "memferry.cli.manifests" in modules
    assert [name for name in modules if name.startswith(("memferry.manifest", "memferry.worker", "yaml"))] == []
