"""The operator as a process against the API tier, with stand-in or real workers."""

from __future__ import annotations

import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx

from testbed.errors import TestbedError
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import KubernetesClient, KubernetesObject
from testbed.neo4j import Neo4jServer
from testbed.process import ManagedProcess
from testbed.qdrant import QdrantServer
from testbed.wait import EVENTUALLY_SECS, until

__all__ = [
    "SWITCHED",
    "Life",
    "Operator",
    "OperatorFromNothing",
    "Strikes",
    "embedded",
    "hybrid",
    "migration",
    "resource",
    "secret",
    "server",
    "standin",
]

HERE = Path(__file__).parent


class Operator:
    """One operator process."""

    forked: ClassVar = True
    """From an interpreter that has imported it."""

    def __init__(self, tier: ApiTier, folder: Path, *, home: str, name: str = "operator-0", **settings: str) -> None:
        given: dict[str, str] = {
            "http_host": "127.0.0.1",
            "http_port": "0",
            "namespace": home,
            "pod_name": name,
            **settings,
        }
        environment: dict[str, str | None] = {f"MEMFERRY_OPERATOR_{key.upper()}": value for key, value in given.items()}
        environment["KUBECONFIG"] = str(tier.kubeconfig)
        self.log_path = folder / f"{name}.log"
        self.process = ManagedProcess(
            name,
            [str(Path(sys.executable).parent / "memferry-operator")],
            log_path=self.log_path,
            ready=lambda: '"serves health' in self.process.log_since_start(),
            ready_deadline_secs=60,
            env=environment,
            forked=self.forked,
        )

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill9()

    def restart(self) -> None:
        """Dies and is started anew."""
        self.process.kill9()
        self.process.start()

    def restart_ended(self) -> None:
        """Starts it anew if it has ended, as its Deployment does."""
        if not self.process.is_running:
            self.process.start()

    @property
    def url(self) -> str:
        """Where health and metrics are."""
        found = re.findall(r'"address": "([^"]+)"', self.process.log_since_start())
        return f"http://{found[-1]}"

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

    def errors(self) -> list[dict[str, Any]]:
        """What our own code logged as an error so far; a watch that breaks is one of kopf's."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["level"] == "error" and line["logger"].startswith("memferry")]

    def leads(self) -> None:
        """Waits until it does."""
        until(lambda: '"message": "leads"' in self.process.log_since_start(), what="a leader")


SWITCHED: dict[str, Any] = {
    "strategy": "Online",
    "cutover": {"bindingRef": {"name": "memory"}, "maxWriteFreeze": "60s", "ackTimeout": "30s"},
    "monitoring": {"duration": "1s", "interval": "1s"},
}
"""A migration with the switch of the MemoryBinding `memory`, as quick as it goes."""


Strikes = Callable[[], None]
"""Counts a fault, in a test that has more than one."""


class Life:
    """One migration, `m`."""

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    def apply(self, source: str = "a", target: str = "b", **spec: Any) -> None:
        self.client.apply(migration("m", source, target, **spec), namespace=self.namespace)

    def until(self, *phases: str, reason: str = "", secs: float = EVENTUALLY_SECS) -> dict[str, Any]:
        def check(found: KubernetesObject) -> bool:
            status = found.get("status", {})
            return status.get("phase") in phases and (not reason or status["reason"] == reason)

        what = f"{' or '.join(phases)} {reason}"
        found = self.client.until(
            "MemoryMigration", "m", check, namespace=self.namespace, deadline_secs=secs, what=what
        )
        status: dict[str, Any] = found["status"]
        return status

    def until_step(self, *steps: str, secs: float = EVENTUALLY_SECS) -> dict[str, Any]:
        """Waits until the switch is at one of these steps."""

        def check(found: KubernetesObject) -> bool:
            return (found.get("status", {}).get("traffic") or {}).get("step") in steps

        found = self.client.until(
            "MemoryMigration", "m", check, namespace=self.namespace, deadline_secs=secs, what=f"step {steps}"
        )
        status: dict[str, Any] = found["status"]
        return status

    def until_told(self, condition: str, text: str, *, secs: float = EVENTUALLY_SECS) -> None:
        """Waits until the message of a condition has this in it."""

        def check(found: KubernetesObject) -> bool:
            conditions = found.get("status", {}).get("conditions", [])
            return any(c["type"] == condition and text in c["message"] for c in conditions)

        self.client.until(
            "MemoryMigration", "m", check, namespace=self.namespace, deadline_secs=secs, what=f"{condition}: {text}"
        )

    def at_rest(self, active: str, *, revision: int = 0) -> None:
        """Waits until nothing is frozen, nobody holds the binding, this side serves, and no worker runs."""
        wanted = {"active": active, "mode": "Serving"} | ({"revision": revision} if revision else {})

        def check(found: KubernetesObject) -> bool:
            status = found["status"]
            return "lockedBy" not in status and wanted.items() <= status.items()

        self.client.until(
            "MemoryBinding", "memory", check, namespace=self.namespace, what=f"the binding at rest on {active}"
        )
        until(lambda: not self.running(), what="no workers")

    def jobs_made(self) -> list[str]:
        """Names of the Jobs that were ever made for the migration; those that probe its backends come and go."""
        audit: list[str] = []
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        for event in self.client.request("GET", path)["items"]:
            regarding = event["regarding"]
            if (event["reason"], regarding["kind"]) == ("SuccessfulCreate", "Job") and regarding["name"].startswith(
                "m-"
            ):
                audit += [regarding["name"]] * (event.get("deprecatedCount") or 1)
        return sorted(audit)

    def objects(self, kind: str) -> list[KubernetesObject]:
        return self.client.objects(kind, namespace=self.namespace, labels="memferry.dev/migration=m")

    def until_none(self, kind: str, *, labels: str = "memferry.dev/migration=m") -> None:
        """Waits until no such object is left; says which are, where they stay."""
        left: list[KubernetesObject] = []

        def gone() -> bool:
            left[:] = self.client.objects(kind, namespace=self.namespace, labels=labels)
            return not left

        try:
            until(gone, what=f"no {kind}")
        except TestbedError as error:
            raise TestbedError(f"{error}\n{json.dumps([one['metadata'] for one in left], indent=1)}") from error

    def running(self) -> list[str]:
        over = {"Succeeded", "Failed"}
        return [p["metadata"]["name"] for p in self.objects("Pod") if p.get("status", {}).get("phase") not in over]


class OperatorFromNothing(Operator):
    """One whose memory and time are its own."""

    forked = False


def standin(folder: Path, **behaviour: Any) -> dict[str, str]:
    """Environment for a `LocalKubelet` whose `memferry` is the stand-in; call again to change the behaviour."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (program := folder / "memferry").exists():  # Never written over: a busy one is passed by, to the real one.
        new = folder / "memferry.new"
        new.write_text(f"#!{sys.executable}\n" + (HERE / "standin_worker.py").read_text())
        new.chmod(0o755)
        new.replace(program)
    (folder / "standin.json.new").write_text(json.dumps(behaviour))
    (folder / "standin.json.new").replace(folder / "standin.json")
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "STANDIN": str(folder / "standin.json")}


def server(name: str) -> dict[str, Any]:
    """A MemoryBackend that nobody connects to."""
    spec = {"backend": "qdrant", "address": f"{name}:6334", "collection": name}
    return resource("MemoryBackend", name, spec)


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A resource of ours."""
    return {"apiVersion": "memferry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def embedded(name: str, claim: str) -> list[dict[str, Any]]:
    """A claim and the MemoryBackend of a file on it."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim}, "spec": wanted}
    spec = {"backend": "embedded", "claimName": claim, "path": "agents.db"}
    return [volume, resource("MemoryBackend", name, spec)]


def secret(name: str, key: str, text: str) -> dict[str, Any]:
    """A Secret of one key."""
    data = {key: b64encode(text.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def hybrid(name: str, neo4j: Neo4jServer, qdrant: QdrantServer, prefix: str) -> list[dict[str, Any]]:
    """A MemoryBackend over both servers, its halves and the Secret of the graph's password."""
    password = {"secretRef": {"name": "neo4j", "key": "password"}}
    graph = {"backend": "neo4j", "address": f"127.0.0.1:{neo4j.port}", "password": password}
    vectors = {"backend": "qdrant", "address": f"{qdrant.host}:{qdrant.port}", "collection": f"{prefix}m"}
    refs = {"graphRef": {"name": f"{name}-graph"}, "vectorsRef": {"name": f"{name}-vectors"}}
    return [
        secret("neo4j", "password", neo4j.password),
        resource("MemoryBackend", f"{name}-graph", graph),
        resource("MemoryBackend", f"{name}-vectors", {**vectors, "distance": "dot"}),
        resource("MemoryBackend", name, {"backend": "hybrid", **refs}),
    ]


def migration(name: str, source: str = "a", target: str = "b", **spec: Any) -> dict[str, Any]:
    """A MemoryMigration."""
    ends = {"source": {"backendRef": {"name": source}}, "target": {"backendRef": {"name": target}}}
    return resource("MemoryMigration", name, {**ends, **spec})
