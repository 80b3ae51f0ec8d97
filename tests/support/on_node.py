"""The shipped chart, image and examples on the node tier, and the application's store as a test sees it."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import random
import signal
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import yaml

from support.bound import Notes, graph_notes, lost, notes
from support.chart_files import CHART
from support.documents import Document, memory, vector
from support.image import IMAGE
from support.stores import EmbeddedPlace
from testbed.errors import TestbedError
from testbed.kubernetes.node_tier import NodeTier
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer
from testbed.wait import until

__all__ = ["BINDING", "MIGRATION", "RESTRICTED", "SYSTEM", "Agents", "Servers", "install"]

SYSTEM: Final = "memferry-system"
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}
MIGRATION: Final = "agents-to-hybrid"
BINDING: Final = "agents-memory"

_EXAMPLES: Final = Path(__file__).parents[2] / "examples"
_OWNER: Final = 1000
_SEED: Final = 100
_DIMENSIONS: Final = 32


def install(tier: NodeTier, **values: str) -> None:
    """Install the chart, or upgrade it, and wait until the operator is ready."""
    repository, _, tag = IMAGE.rpartition(":")
    given = {"image.repository": repository, "image.tag": tag, **values}
    options = [part for key, value in given.items() for part in ("--set-string", f"{key}={value}")]
    command = ("upgrade", "--install", "memferry", CHART, "--namespace", SYSTEM)
    tier.helm(*command, *options, "--wait", "--timeout", "100s")


class Servers:
    """A Neo4j and a Qdrant outside of the cluster, as pods reach them."""

    def __init__(self, tier: NodeTier, neo4j: Neo4jServer, qdrant: QdrantServer) -> None:
        self.neo4j, self.qdrant = neo4j, qdrant
        self.graph_address = tier.expose(neo4j.port)
        self.vectors_address = tier.expose(qdrant.port)

    def notes(self) -> Notes:
        """Content of every memory in the graph, by id; past memferry."""
        return graph_notes(self.neo4j)

    def points(self, collection: str) -> int:
        """How many points are in a collection; past memferry."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
            with self.qdrant.client() as client:
                return int(client.count(collection, exact=True).count)


class Agents:
    """The examples `online.yaml` and `cluster/application.yaml` in a namespace.

    Args:
        tier: The cluster.
        namespace: The application's.
        servers: The target.
        folder: Of the claim.
    """

    def __init__(self, tier: NodeTier, namespace: str, servers: Servers, folder: Path) -> None:
        self.tier, self.client, self.namespace, self.servers = tier, tier.client, namespace, servers
        self.collection = namespace
        self._resources = {(one["kind"], one["metadata"]["name"]): one for one in self._examples()}
        place = EmbeddedPlace(folder, "agents-data")
        self.seed = _seed()
        place.make(self.seed)
        for path in (place.folder, *place.folder.iterdir()):
            os.chown(path, _OWNER, _OWNER)
        tier.claim("agents-data", namespace=namespace, folder=place.folder)
        self.path = place.path

    @classmethod
    @contextlib.contextmanager
    def started(cls, tier: NodeTier, servers: Servers, folder: Path) -> Iterator[Self]:
        """In a namespace of its own under restricted pod security; the application writes."""
        with tier.namespace("agents", labels=RESTRICTED) as namespace:
            agents = cls(tier, namespace, servers, folder)
            try:
                agents.start()
                yield agents
            finally:  # it would write into the servers of the next test
                agents.client.delete("Deployment", "agents", namespace=namespace)
                agents.wait_until(lambda: not agents.pods("app=agents"), what="the application's end", secs=90)

    @property
    def migration(self) -> dict[str, Any]:
        """The MemoryMigration, to be changed before it is applied."""
        return self._resources["MemoryMigration", MIGRATION]

    @property
    def backends(self) -> list[str]:
        """Names of the MemoryBackends."""
        return [name for kind, name in self._resources if kind == "MemoryBackend"]

    def start(self) -> None:
        """Everything but the migration, until the application writes."""
        for name, key, value in (
            ("agents-graph", "password", self.servers.neo4j.password),
            ("agents-vectors", "api-key", self.servers.qdrant.api_key or ""),
        ):
            data = {key: b64encode(value.encode()).decode()}
            self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})
        for one in self._resources.values():
            if one["kind"] != "MemoryMigration":
                self.apply(one)
        self.wait_until(self.written, what="a write of the application", secs=90)

    def apply(self, content: Mapping[str, Any]) -> None:
        """Server-side apply."""
        self.client.apply(content, namespace=self.namespace)

    def add_target(self, name: str) -> None:
        """The same hybrid under another name, and into a collection of its own."""
        self.collection = f"{self.namespace}-{name}"
        for kind in ("graph", "vectors", "hybrid"):
            made = copy.deepcopy(self._resources["MemoryBackend", f"agents-{kind}"])
            made["metadata"]["name"] = f"{name}-{kind}"
            if kind == "vectors":
                made["spec"]["collection"] = self.collection
            if kind == "hybrid":
                made["spec"] |= {"graphRef": {"name": f"{name}-graph"}, "vectorsRef": {"name": f"{name}-vectors"}}
            self.apply(made)

    def migrate(self, **spec: Any) -> None:
        """Applies the migration, changed."""
        self.migration["spec"] |= copy.deepcopy(spec)
        self.apply(self.migration)

    def change(self, section: str, **values: Any) -> None:
        """Edits a section of the migration's spec, as a person does."""
        self.migrate(**{section: self.migration["spec"].get(section, {}) | values})

    def status(self) -> dict[str, Any]:
        """Of the migration."""
        found: dict[str, Any] = self.client.get("MemoryMigration", MIGRATION, namespace=self.namespace)
        status: dict[str, Any] = found.get("status", {})
        return status

    def until(self, *phases: str, reason: str = "", secs: float = 120) -> dict[str, Any]:
        """Waits for a phase; the status."""

        def reached() -> dict[str, Any] | None:
            status = self.status()
            there = status.get("phase") in phases and reason in {"", status.get("reason")}
            return status if there else None

        found: dict[str, Any] = self.wait_until(reached, what=f"{' or '.join(phases)} {reason}", secs=secs)
        return found

    def approve(self, section: str = "cutover", field: str = "approve", *, phase: str = "TrafficSwitch") -> None:
        """Waits until an approval is asked for, and gives it."""
        asked = self.until(phase, reason="ApprovalRequired", secs=180)
        self.change(section, **{field: asked["approval"]["token"]})

    def wait_until(self, check: Callable[[], Any], *, what: str, secs: float) -> Any:
        """Waits; where it was in vain, tells what pods say."""
        try:
            return until(check, what=what, deadline_secs=secs)
        except TestbedError as error:
            raise TestbedError(f"{error}\n{self.report()}") from error

    def pods(self, labels: str = "") -> list[dict[str, Any]]:
        """Of the namespace."""
        return self.client.objects("Pod", namespace=self.namespace, labels=labels)

    def lines(self) -> list[dict[str, Any]]:
        """What the application has said so far, oldest first."""
        said = ""
        for pod in self.pods("app=agents"):
            name = pod["metadata"]["name"]
            for container in pod["status"].get("containerStatuses", []):
                if container["restartCount"]:
                    said += self.tier.kubectl("logs", name, "-n", self.namespace, "--previous")
                if "waiting" not in container["state"]:
                    said += self.tier.log(name, namespace=self.namespace)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def written(self) -> list[dict[str, Any]]:
        """Every write that was acknowledged to the application."""
        return [line for line in self.lines() if line["event"] == "written"]

    def wait_for_write(self, active: str, *, secs: float = 60) -> None:
        """Waits until the application has written one more note, to that side."""
        before = len(self.written())
        self.wait_until(
            lambda: any(line["active"] == active for line in self.written()[before:]),
            what=f"a write to {active}",
            secs=secs,
        )

    def stop_application(self) -> list[dict[str, Any]]:
        """Ends its process in good order; every write that was acknowledged."""
        pod = self.pods("app=agents")[0]["metadata"]["name"]
        # The Deployment would start another one, and the log would go with the pod.
        self.tier.kubectl("exec", pod, "-n", self.namespace, "--", "sh", "-c", f"kill -{signal.SIGTERM.value} 1")

        def closed() -> list[dict[str, Any]] | None:
            lines = [json.loads(x) for x in self.tier.kubectl("logs", pod, "-n", self.namespace).splitlines()]
            return lines if lines and lines[-1]["event"] == "closed" else None

        said: list[dict[str, Any]] = self.wait_until(closed, what="the end of the application", secs=60)
        return [line for line in said if line["event"] == "written"]

    def lost(self, written: Iterable[Mapping[str, Any]]) -> set[str]:
        """Ids of those writes that the target has not, or not as they were written."""
        return lost((one["id"] for one in written), self.servers.notes())

    def lost_at_home(self, written: Iterable[Mapping[str, Any]]) -> set[str]:
        """Ids of those writes that the embedded store has not, or not as they were written."""
        return lost((one["id"] for one in written), notes(self.path))

    def end_zombie(self, pod: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Kills the application of a pod that the cluster has forgotten; every write that was acknowledged to it."""
        self.signal(pod, signal.SIGKILL)
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        script = 'cat "/var/log/pods/$0_$1_$2/agents/"*.log'
        said = self.tier.box.run(["sh", "-c", script, self.namespace, name, uid], what="reading the log of a zombie")
        told = [json.loads(line.split(" ", 3)[3]) for line in said.splitlines() if " stdout F {" in line]
        return [line for line in told if line["event"] == "written"]

    def worker(self, role: str) -> dict[str, Any]:
        """A pod that works in a role, as soon as it has said something."""
        labels = f"memferry.dev/migration={MIGRATION},memferry.dev/role={role}"

        def works() -> dict[str, Any] | None:
            for pod in self.pods(labels):
                running = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
                if running and '"started"' in self.tier.log(pod["metadata"]["name"], namespace=self.namespace):
                    return pod
            return None

        found: dict[str, Any] = self.wait_until(works, what=f"a pod that does {role}", secs=60)
        return found

    def signal(self, pod: Mapping[str, Any], number: signal.Signals) -> None:
        """Sends a signal to the process of a worker, past the kubelet."""
        script = 'for p in /proc/[0-9]*; do tr "\\0" "\\n" < $p/environ | grep -qx "MEMFERRY_POD_UID=$0" && '
        script += 'kill "-$1" "${p#/proc/}"; done 2>/dev/null; true'
        uid, name = pod["metadata"]["uid"], number.name.removeprefix("SIG")
        self.tier.box.run(["sh", "-c", script, uid, name], what=f"{number.name} to a worker")

    def stall_worker(self, role: str) -> None:
        """Stops a worker for longer than `stallTimeout`, until the operator gives it up; another one takes over."""
        pod = self.worker(role)
        self.signal(pod, signal.SIGSTOP)

        def given_up() -> bool:
            found = self.client.find("Pod", pod["metadata"]["name"], namespace=self.namespace)
            return found is None or "deletionTimestamp" in found["metadata"]

        self.wait_until(given_up, what="the end of a worker that says nothing", secs=90)
        self.signal(pod, signal.SIGCONT)

    def report(self) -> str:
        """What went on, for a test that failed."""
        parts = [
            json.dumps(self.client.objects(kind, namespace=self.namespace)[0].get("status"), indent=1)
            for kind in ("MemoryMigration", "MemoryBinding")
            if self.client.objects(kind, namespace=self.namespace)
        ]
        for namespace in (self.namespace, SYSTEM):
            parts.append(self.tier.kubectl("get", "pods,jobs", "-n", namespace, "-o", "wide"))
            for pod in self.client.objects("Pod", namespace=namespace):
                name = pod["metadata"]["name"]
                try:
                    text = self.tier.kubectl("logs", name, "-n", namespace, "--tail", "30")
                except TestbedError as error:
                    text = str(error)
                parts.append(f"--- {name}\n{text}")
        events = ("get", "events", "-n", self.namespace, "--sort-by", ".lastTimestamp")
        return "\n".join([*parts, self.tier.kubectl(*events)])

    def _examples(self) -> list[dict[str, Any]]:
        """Both files, with this test's addresses."""
        found: list[dict[str, Any]] = []
        for name in ("online.yaml", "cluster/application.yaml"):
            found += yaml.safe_load_all((_EXAMPLES / name).read_text("utf-8"))
        for one in found:
            key, spec = (one["kind"], one["metadata"]["name"]), one.get("spec", {})
            if key == ("MemoryBackend", "agents-graph"):
                spec |= {"address": self.servers.graph_address, "database": "neo4j"}
            elif key == ("MemoryBackend", "agents-vectors"):
                spec |= {"address": self.servers.vectors_address, "collection": self.collection, "distance": "dot"}
            elif one["kind"] == "Deployment":
                spec["template"]["spec"]["containers"][0]["image"] = IMAGE
        return found


def _seed() -> list[Document]:
    """Records of three kinds; memories with vectors of length one, whose neighbours are the same by every metric."""
    rng, found = random.Random(1), list[Document]()
    for n in range(_SEED):
        values = [rng.gauss(0, 1) for _ in range(_DIMENSIONS)]
        length = math.hypot(*values)
        unit = vector([value / length for value in values], model="m", normalized=True)
        found.append(memory(f"m{n:04}", vectors=[unit]))
        found.append({"kind": "entity", "id": f"e{n:04}", "name": f"entity {n}", "type": "Person"})
        found.append({"kind": "relation", "id": f"r{n:04}", "from_id": f"e{n:04}", "to_id": "e0000", "type": "KNOWS"})
    return found
