"""The chart: what it renders is taken by a real API server, by both Helms, and says what the code says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from memferry.manifest.status import Condition, MigrationStatus, MonitoringStatus, Progress, SyncStatus, TrafficStatus
from memferry_operator.hands.metrics import Metrics
from memferry_operator.objects import owned
from memferry_operator.settings import Settings
from support.chart_files import CHART, README, filled_readme
from support.definitions import wait_until_served
from support.manifest_table import migration
from testbed.errors import TestbedError
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.binaries import KUBERNETES_VERSION
from testbed.kubernetes.client import ApiError

NAMESPACE: Final = "memferry-system"
EVERYTHING: Final[dict[str, Any]] = {
    "commonLabels": {"team": "memory"},
    "image": {"repository": "images.example/memferry", "digest": f"sha256:{'a' * 64}"},
    "imagePullSecrets": ["pull"],
    "replicas": 2,
    "worker": {"image": {"repository": "images.example/worker", "tag": "2"}, "imagePullSecrets": ["other"]},
    "serviceAccount": {"name": "ferry", "annotations": {"a": "b"}},
    "rbac": {"bindingClients": [{"namespace": "default", "serviceAccount": "agents", "binding": "agents-memory"}]},
    "customCA": {"configMap": "authorities"},
    "proxy": {"http": "http://proxy:3128", "https": "http://proxy:3128", "noProxy": "10.0.0.0/8"},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "networkPolicy": {
        "enabled": True,
        "apiServer": {"cidrs": ["10.96.0.1/32"], "ports": [443]},
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "resources": {"limits": {"cpu": 1}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "system-cluster-critical",
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
}
MATRIX: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "namespaces": {"watchNamespaces": ["default", "kube-public"]},
    "nothing": {
        "crds": {"install": False},
        "serviceAccount": {"create": False, "name": "default"},
        "rbac": {"create": False},
        "metrics": {"service": {"enabled": False}},
        "podDisruptionBudget": {"enabled": False},
    },
    "crds that go": {"crds": {"keep": False}, "rbac": {"aggregate": False}, "fullnameOverride": "f" * 40},
}


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiTier]:
    """An API server of its own, because a release owns what the others share; with stand-ins of foreign kinds."""
    with ApiTier(tmp_path_factory.mktemp("chart")) as tier:
        for kind in ("ServiceMonitor", "PrometheusRule"):
            tier.client.apply(_stand_in(kind))
        tier.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield tier


def _stand_in(kind: str) -> dict[str, Any]:
    """A kind of the Prometheus operator that takes everything."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [version],
        },
    }


def _render(tier: ApiTier, folder: Path, values: dict[str, Any], *, version: int = 4) -> list[dict[str, Any]]:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    at = ("-n", NAMESPACE, "-f", file, "--kube-version", KUBERNETES_VERSION)
    said = tier.helm("template", "ferry", CHART, *at, version=version)
    return [one for one in yaml.safe_load_all(said) if one]


def _deployment(rendered: list[dict[str, Any]]) -> dict[str, Any]:
    [found] = [one for one in rendered if one["kind"] == "Deployment"]
    return found


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_what_is_rendered_is_taken(tier: ApiTier, tmp_path: Path, values: dict[str, Any]) -> None:
    rendered = _render(tier, tmp_path, values)
    for one in rendered:
        tier.client.apply(one, dry_run=True)
    assert rendered == _render(tier, tmp_path, values, version=3)
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in rendered]
    assert len(names) == len(set(names))


def test_pods_are_restricted(tier: ApiTier, tmp_path: Path) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    with tier.namespace(labels=labels) as namespace:
        for values in ({}, EVERYTHING):
            template = _deployment(_render(tier, tmp_path, values))["spec"]["template"]
            spec = {**template["spec"], "serviceAccountName": "default"}
            metadata = {"name": "operator", "namespace": namespace, "labels": template["metadata"]["labels"]}
            tier.client.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": "2"}, "replicas"),
        ({"replicas": 4}, "replicas"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"image": {"repository": ""}}, "repository"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"watchNamespaces": ["A"]}, "watchNamespaces"),
        ({"watchNamespaces": "default"}, "watchNamespaces"),
        ({"crds": {"instal": True}}, "instal"),
        ({"settings": {"logLevel": "info"}}, "logLevel"),
        ({"settings": {"maxActive": 0}}, "maxActive"),
        ({"runAsUser": 0}, "runAsUser"),
        ({"metrics": {"service": {"port": 80}}}, "port"),
        ({"rbac": {"bindingClients": [{"namespace": "a"}]}}, "serviceAccount"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
    ],
    ids=str,
)
def test_values_that_mean_nothing_are_refused(
    tier: ApiTier, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(TestbedError, match=re.escape(words)):
        _render(tier, tmp_path, values)


@pytest.mark.parametrize("version", [4, 3])
def test_a_release_comes_stays_and_goes(tier: ApiTier, version: int) -> None:
    name, client = f"ferry{version}", tier.client
    with tier.namespace() as namespace:
        at = ("-n", namespace, "--set", f"fullnameOverride={name},watchNamespaces={{{namespace}}}")
        # the definitions of the release before are still there, as they are meant to
        taken = ("--take-ownership",)
        said = tier.helm("install", name, CHART, *at, *taken, version=version)
        assert "BEFORE UNINSTALLING" in said
        deployment = client.get("Deployment", name, namespace=namespace)
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "memferry/memferry:0.1.0"
        wait_until_served(tier)
        made = client.create({**migration(), "metadata": {"name": "row", "namespace": namespace}})
        tier.helm("upgrade", name, CHART, *at, "--set", "replicas=2,image.tag=0.2.0", version=version)
        assert client.get("Deployment", name, namespace=namespace)["spec"]["replicas"] == 2
        assert client.get("PodDisruptionBudget", name, namespace=namespace)
        tier.helm("uninstall", name, "-n", namespace, version=version)
        assert client.find("Deployment", name, namespace=namespace) is None
        kept = client.get("MemoryMigration", "row", namespace=namespace)
        assert kept["metadata"]["uid"] == made["metadata"]["uid"]


def test_rights_of_operator_people_and_clients(tier: ApiTier, tmp_path: Path) -> None:
    client = tier.client
    with tier.namespace() as namespace:
        who = {"namespace": namespace, "serviceAccount": "agents", "binding": "memory"}
        values = {"watchNamespaces": [namespace], "rbac": {"bindingClients": [who]}}
        for one in _render(tier, tmp_path, values):
            client.apply(one)
        wait_until_served(tier)
        with tier.service_account_client(NAMESPACE, "ferry-memferry") as operator:
            by = owned.owner("m", "00000000-0000-0000-0000-000000000000")
            for one in owned.rights("m", by, shards=2):
                del one["metadata"]["ownerReferences"]
                operator.apply(one, namespace=namespace)
            for kind in ("Secret", "ConfigMap"):
                with pytest.raises(ApiError) as caught:
                    operator.objects(kind, namespace=namespace)
                assert caught.value.code == 403
            with pytest.raises(ApiError) as caught:
                operator.objects("MemoryMigration", namespace="default")
            assert caught.value.code == 403
        with tier.service_account_client(namespace, "agents") as application:
            assert application.find("MemoryBinding", "memory", namespace=namespace) is None
            assert application.find("Secret", "memferry-binding-memory", namespace=namespace) is None
            with pytest.raises(ApiError) as caught:
                application.find("Secret", "another", namespace=namespace)
            assert caught.value.code == 403
        bound = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "person", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "person", "namespace": namespace}],
        }
        client.apply(bound)
        client.until("ClusterRole", "edit", lambda role: "memorymigrations" in json.dumps(role["rules"]))
        with tier.service_account_client(namespace, "person") as person:
            person.create({**migration(), "metadata": {"name": "row", "namespace": namespace}})


def test_clients_may_what_the_example_gives_them(tier: ApiTier, tmp_path: Path) -> None:
    who = {"namespace": "agents", "serviceAccount": "agents", "binding": "agents-memory"}
    made = _render(tier, tmp_path, {"rbac": {"bindingClients": [who]}})
    roles = [one for one in made if one["kind"] in {"Role", "ClusterRole"}]
    ours = [one["rules"] for one in roles if one["metadata"]["name"].endswith(("-binding-client", "-secret"))]
    documents = yaml.safe_load_all((CHART.parents[1] / "examples" / "cluster" / "application.yaml").read_text("utf-8"))
    [example] = [one["rules"] for one in documents if one["kind"] == "Role"]

    def verbs(rules: list[dict[str, Any]]) -> dict[str, list[str]]:
        return {rule["resources"][0]: rule["verbs"] for rule in rules}

    assert verbs([rule for rules in ours for rule in rules]) == verbs(example)


def test_every_client_of_every_binding_has_objects_of_its_own(tier: ApiTier, tmp_path: Path) -> None:
    long = "customer-support-agent"
    pairs = [("app", "b1"), ("app", "b2"), ("other", "b1"), *((f"{long}-{one}", f"{long}-{one}") for one in "ab")]
    clients = [{"namespace": "agents", "serviceAccount": who, "binding": binding} for who, binding in pairs]
    values = {"fullnameOverride": "f" * 40, "rbac": {"bindingClients": [*clients, clients[0]]}}
    made = [one for one in _render(tier, tmp_path, values) if one["metadata"].get("namespace") == "agents"]
    names = [(one["kind"], one["metadata"]["name"]) for one in made]
    assert len(names) == len(set(names)) == 3 * len(clients), "and one that is said twice is made once"
    roles = {one["metadata"]["name"]: one["rules"][0]["resourceNames"][0] for one in made if one["kind"] == "Role"}
    bound = {
        (one["subjects"][0]["name"], roles[one["roleRef"]["name"]].removeprefix("memferry-binding-"))
        for one in made
        if one["kind"] == "RoleBinding" and one["roleRef"]["kind"] == "Role"
    }
    assert bound == set(pairs)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, f"images.example/memferry@sha256:{'a' * 64}"),
        ({"tag": "2"}, "images.example/memferry:2"),
        ({"digest": f"sha256:{'b' * 64}"}, f"images.example/memferry@sha256:{'b' * 64}"),
        ({"repository": "images.example/worker"}, "images.example/worker:0.1.0"),
    ],
    ids=["nothing", "tag", "digest", "repository"],
)
def test_what_is_said_of_the_workers_image_counts(
    tier: ApiTier, tmp_path: Path, image: dict[str, str], expected: str
) -> None:
    values = {"image": EVERYTHING["image"], "worker": {"image": image}}
    [container] = _deployment(_render(tier, tmp_path, values))["spec"]["template"]["spec"]["containers"]
    assert {one["name"]: one.get("value") for one in container["env"]}["MEMFERRY_OPERATOR_WORKER_IMAGE"] == expected


def test_the_operator_reads_its_environment(tier: ApiTier, tmp_path: Path) -> None:
    for values in MATRIX.values():
        [container] = _deployment(_render(tier, tmp_path, values))["spec"]["template"]["spec"]["containers"]
        settings = Settings.from_environment({one["name"]: one.get("value", "x") for one in container["env"]})
        assert settings.namespaces == values.get("watchNamespaces", [])
        if values is EVERYTHING:
            assert container["image"] == f"images.example/memferry@sha256:{'a' * 64}"
            assert (settings.worker_image, settings.worker_pull_secrets) == ("images.example/worker:2", "other")


def test_values_and_their_schema_agree() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def check(schema: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(values), path
        for name, one in schema["properties"].items():
            assert one["description"], path
            if one.get("properties"):
                check(one, values[name], f"{path}.{name}")

    check(schema, values, "")
    page = README.read_text("utf-8")
    assert filled_readme(page) == page, "run `python tests/support/chart_files.py`"


def _metrics() -> set[str]:
    """Names of everything that the operator tells Prometheus."""
    metrics = Metrics()
    instant = "2026-01-31T22:00:00Z"
    metrics.known["default", "m"] = MigrationStatus(
        phase="Monitoring",
        progress=Progress(),
        sync=SyncStatus(predicted_freeze_secs=1),
        traffic=TrafficStatus(write_freeze_millis=1),
        monitoring=MonitoringStatus(),
        conditions=(Condition(type="Stalled", status="True", reason="NoProgress", last_transition_time=instant),),
    )
    names = set()
    for family in metrics.registry.collect():
        names |= {family.name} | {sample.name for sample in family.samples}
        kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {f"{family.name}{ending}" for ending in kinds.get(family.type, ())}
    return names


def test_alerts_and_dashboard_name_what_the_operator_tells() -> None:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text("utf-8"))
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text("utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for text in (*alerts, *shown) for name in re.findall(r"\bmemferry_[a-z_]+", text)}
    known = _metrics()
    assert used <= known, used - known
    ours = {name for name in known if name.startswith("memferry_migration")}
    assert ours <= used, f"neither an alert nor the dashboard has {ours - used}"
