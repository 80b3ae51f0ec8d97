"""One table of manifests, held against a real API server and against the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from typer.testing import CliRunner

from memferry.cli.main import app
from support.definitions import served
from support.manifest_table import CHANGES, ROWS, Change, Row
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import ApiError

EXAMPLES: Final = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def cluster(api_tier: ApiTier) -> ApiTier:
    """An API server that knows the resources."""
    served(api_tier)
    return api_tier


def _refusal(cluster: ApiTier, resource: dict[str, Any]) -> str:
    """What the API server says against a resource; nothing where it takes it."""
    try:
        _dry_run(cluster, resource)
    except ApiError as error:
        assert error.code in {400, 422}, error
        return str(error)
    return ""


def _dry_run(cluster: ApiTier, resource: dict[str, Any]) -> dict[str, Any]:
    path = cluster.client.path(resource["kind"])
    return cluster.client.request("POST", path, resource, params={"dryRun": "All", "fieldValidation": "Strict"})


@pytest.mark.parametrize("row", ROWS, ids=[f"{one.resource['kind']}: {one.name}" for one in ROWS])
def test_the_api_server(cluster: ApiTier, row: Row) -> None:
    said = _refusal(cluster, row.resource)
    assert bool(said) == bool(row.path), said
    assert row.path in said


@pytest.mark.parametrize("row", ROWS, ids=[f"{one.resource['kind']}: {one.name}" for one in ROWS])
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    monkeypatch.setenv("KEY", "x")
    (tmp_path / "m.yaml").write_text(row.documents, "utf-8")
    done = CliRunner().invoke(app, ["apply", "--dry-run", "-f", str(tmp_path / "m.yaml")])
    path = row.path if row.laptop is None else row.laptop
    assert done.exit_code == (2 if path else 0), done.output
    assert path in done.output


@pytest.mark.parametrize("row", CHANGES, ids=[f"{one.resource['kind']}: {one.name}" for one in CHANGES])
def test_a_change(cluster: ApiTier, kubernetes_namespace: str, row: Change) -> None:
    resource = {**row.resource, "metadata": {"name": "row", "namespace": kubernetes_namespace}}
    cluster.client.create(resource)
    said = ""
    try:
        cluster.client.patch(resource["kind"], "row", {"spec": row.change}, namespace=kubernetes_namespace)
    except ApiError as error:
        assert error.code == 422
        said = str(error)
    assert bool(said) == bool(row.path), said
    assert row.path in said


def test_defaults_are_in_the_schema(cluster: ApiTier) -> None:
    """What is not said is what the models say, also for another client than ours."""
    row = next(row for row in ROWS if row.name == "the least")
    spec = _dry_run(cluster, row.resource)["spec"]
    assert spec["strategy"] == "Offline"
    assert spec["transfer"]["shards"] == 16
    assert spec["cutover"]["maxWriteFreeze"] == "30s"
    assert spec["decommission"] == {"policy": "Retain", "confirm": ""}
    assert "mapping" not in spec


@pytest.mark.parametrize("file", EXAMPLES, ids=[file.name for file in EXAMPLES])
def test_the_examples_are_taken(cluster: ApiTier, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    for variable in ("QDRANT_API_KEY", "MEMFERRY_TARGET_PASSWORD", "MEMFERRY_TARGET_API_KEY"):
        monkeypatch.setenv(variable, "x")
    for document in yaml.safe_load_all(file.read_text("utf-8")):
        assert _refusal(cluster, document) == "", document
    done = CliRunner().invoke(app, ["apply", "--dry-run", "-f", str(file)])
    assert done.exit_code == 0, done.output
