"""What is accepted and what is refused, by the API server and by `memferry apply --dry-run` alike."""

# ruff: noqa: E501 - a row is a line
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import yaml

__all__ = ["CHANGES", "ROWS", "Change", "Row"]

API_VERSION: Final = "memferry.dev/v1alpha1"


@dataclass(frozen=True)
class Row:
    """A resource.

    Attributes:
        name: Of the row.
        resource: What is applied.
        path: The field that is refused; empty where the resource is accepted.
        laptop: The field that is refused on a laptop, where that is another one.
    """

    name: str
    resource: dict[str, Any]
    path: str = ""
    laptop: str | None = None

    @property
    def documents(self) -> str:
        """A file with the resource and the backends it may name."""
        known = [backend("embedded, path: a.db", "a"), backend("jsonl, path: b.jsonl", "b")]
        return "---\n".join(json.dumps(one) + "\n" for one in (*known, self.resource))


@dataclass(frozen=True)
class Change:
    """A resource that is there, and what is made of its spec.

    Attributes:
        name: Of the row.
        resource: What is there.
        change: What is merged into its spec.
        path: The field that is refused; empty where the change is accepted.
    """

    name: str
    resource: dict[str, Any]
    change: dict[str, Any]
    path: str = ""


def _resource(kind: str, name: str, spec: str) -> dict[str, Any]:
    value = yaml.safe_load(f"{{{spec}}}")
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": value}


def backend(spec: str, name: str = "row") -> dict[str, Any]:
    """A MemoryBackend."""
    return _resource("MemoryBackend", name, f"backend: {spec}")


def migration(more: str = "", name: str = "row") -> dict[str, Any]:
    """A MemoryMigration."""
    ends = "source: {backendRef: {name: a}}, target: {backendRef: {name: b}}"
    return _resource("MemoryMigration", name, ", ".join(filter(None, (ends, more))))


def binding(more: str = "", name: str = "row") -> dict[str, Any]:
    """A MemoryBinding."""
    return _resource("MemoryBinding", name, ", ".join(filter(None, ("initialBackendRef: {name: a}", more))))


def _without(resource: dict[str, Any], field: str) -> dict[str, Any]:
    return {**resource, "spec": {name: value for name, value in resource["spec"].items() if name != field}}


_WHOLE = """
strategy: Online, scope: {kinds: [memory, entity], where: "kind == 'memory'"}, acceptGaps: [versions, vector-lengths],
stopAfter: Validation, suspend: false,
transfer: {shards: 256, parallelism: 64, maxRecordsPerSecond: 1000, maxQuarantined: 5, maxDeletes: 0, stallTimeout: 1h30m,
  resources: {requests: {cpu: 500m, memory: 1.5Gi}, limits: {cpu: "2", memory: 2Gi, ephemeral-storage: 1Gi}},
  nodeSelector: {kubernetes.io/os: linux, "disk": ""}, stateClaimName: state.of-foreign,
  tolerations: [{key: a, value: b, effect: NoExecute, tolerationSeconds: 5}, {operator: Exists}]},
validation: {parity: {queries: 1, k: 1000, minRecall: "1.0"}},
cutover: {bindingRef: {name: agents}, approve: "sha256:ab-c_d.e", maxWriteFreeze: 10s, ackTimeout: 500ms500ms, notBefore: "2026-01-31T22:00:00.5+01:00"},
monitoring: {duration: 0s, interval: 30s, failureLimit: 1, autoSwitchBack: true},
decommission: {policy: Delete, confirm: abc}, retryToken: "1"
"""

_NULLS = """
strategy: null, scope: null, mapping: null, acceptGaps: null, stopAfter: null, suspend: null, transfer: null,
validation: null, cutover: {bindingRef: null, notBefore: null}, monitoring: null, operation: null, operationToken: null
"""

_SERVER = "qdrant, address: localhost, collection: x"
_GRAPH = "neo4j, address: localhost"

ROWS: Final = [
    # --- MemoryMigration
    Row("the least", migration()),
    Row("everything", migration(_WHOLE)),
    Row("null is what is not there", migration(_NULLS)),
    Row("no source", _without(migration(), "source"), "spec.source"),
    Row("source is null", {**migration(), "spec": {**migration()["spec"], "source": None}}, "spec.source"),
    Row("one store", migration("target: {backendRef: {name: a}}"), "spec.target"),
    Row("a reference without a name", migration("target: {backendRef: {}}"), "spec.target.backendRef.name"),
    Row("a name with capitals", migration("target: {backendRef: {name: B}}"), "spec.target.backendRef.name"),
    Row("an empty name", migration("target: {backendRef: {name: ''}}"), "spec.target.backendRef.name"),
    Row("a long reference", migration(f"target: {{backendRef: {{name: {'b' * 64}}}}}"), "spec.target.backendRef.name"),
    Row("a reference to a namespace", migration("target: {backendRef: {name: b, namespace: c}}"), "spec.target.backendRef.namespace"),
    Row("a name of 40", migration(name="m" * 40)),
    Row("a name of 41", migration(name="m" * 41), "metadata.name"),
    Row("a name with a dot", migration(name="a.b"), "metadata.name"),
    Row("an unknown field", migration("shards: 3"), "spec.shards"),
    Row("an unknown field below", migration("transfer: {shard: 3}"), "spec.transfer.shard"),
    Row("a misspelt strategy", migration("strategy: online"), "spec.strategy"),
    Row("an unknown kind", migration("scope: {kinds: [memory, fact]}"), "spec.scope.kinds[1]"),
    Row("a kind twice", migration("scope: {kinds: [memory, memory]}"), "spec.scope.kinds"),
    Row("five kinds", migration("scope: {kinds: [memory, entity, relation, observation, memory]}"), "spec.scope.kinds"),
    Row("a long filter", migration(f"scope: {{where: {'x' * 4097}}}"), "spec.scope.where"),
    Row("a filter that is none", migration("scope: {where: 'nonsense('}"), laptop="spec.scope.where"),
    Row("a mapping that is not in the file", migration("mapping: {configMapRef: {name: m.n, key: a.toml}}"), laptop="spec.mapping.configMapRef"),
    Row("a mapping without a key", migration("mapping: {configMapRef: {name: m}}"), "spec.mapping.configMapRef.key"),
    Row("a key with a slash", migration("mapping: {configMapRef: {name: m, key: a/b}}"), "spec.mapping.configMapRef.key"),
    Row("a gap that no backend has", migration("acceptGaps: [nonsense]"), laptop="spec.acceptGaps"),
    Row("a gap that is no word", migration("acceptGaps: ['No Good']"), "spec.acceptGaps[0]"),
    Row("a gap twice", migration("acceptGaps: [versions, versions]"), "spec.acceptGaps"),
    Row("65 gaps", migration(f"acceptGaps: [{', '.join(f'g{i}' for i in range(65))}]"), "spec.acceptGaps"),
    Row("a rehearsal of nothing", migration("stopAfter: Copying"), "spec.stopAfter"),
    Row("suspend as a text", migration("suspend: 'true'"), "spec.suspend"),
    Row("suspended", migration("suspend: true")),
    Row("no shards", migration("transfer: {shards: 0}"), "spec.transfer.shards"),
    Row("257 shards", migration("transfer: {shards: 257}"), "spec.transfer.shards"),
    Row("shards as a text", migration("transfer: {shards: '3'}"), "spec.transfer.shards"),
    Row("half a shard", migration("transfer: {shards: 1.5}"), "spec.transfer.shards"),
    Row("a list for an object", migration("transfer: []"), "spec.transfer"),
    Row("65 at a time", migration("transfer: {parallelism: 65}"), "spec.transfer.parallelism"),
    Row("no records a second", migration("transfer: {maxRecordsPerSecond: 0}"), "spec.transfer.maxRecordsPerSecond"),
    Row("less than no quarantine", migration("transfer: {maxQuarantined: -1}"), "spec.transfer.maxQuarantined"),
    Row("a duration that is none", migration("transfer: {stallTimeout: soon}"), "spec.transfer.stallTimeout"),
    Row("a duration without a unit", migration("transfer: {stallTimeout: '300'}"), "spec.transfer.stallTimeout"),
    Row("a duration too short", migration("transfer: {stallTimeout: 9s}"), "spec.transfer.stallTimeout"),
    Row("a duration too long", migration("transfer: {stallTimeout: 24h1ms}"), "spec.transfer.stallTimeout"),
    Row("a duration of centuries", migration(f"transfer: {{stallTimeout: {'999999h' * 4}}}"), "spec.transfer.stallTimeout"),
    Row("an unknown resource", migration("transfer: {resources: {limits: {nvidia.com/gpu: '1'}}}"), "spec.transfer.resources.limits"),
    Row("a quantity that is none", migration("transfer: {resources: {limits: {memory: lots}}}"), "spec.transfer.resources.limits.memory"),
    Row("a quantity as a number", migration("transfer: {resources: {requests: {cpu: 1}}}"), "spec.transfer.resources.requests.cpu"),
    Row("a label key that is none", migration("transfer: {nodeSelector: {'a b': c}}"), "spec.transfer.nodeSelector"),
    Row("a label value that is none", migration("transfer: {nodeSelector: {a: 'b c'}}"), "spec.transfer.nodeSelector.a"),
    Row("65 labels", migration(f"transfer: {{nodeSelector: {{{', '.join(f'l{i}: x' for i in range(65))}}}}}"), "spec.transfer.nodeSelector"),
    Row("Exists with a value", migration("transfer: {tolerations: [{operator: Exists, value: x}]}"), "spec.transfer.tolerations[0].value"),
    Row("Equal without a key", migration("transfer: {tolerations: [{value: x}]}"), "spec.transfer.tolerations[0].key"),
    Row("seconds without NoExecute", migration("transfer: {tolerations: [{key: a, tolerationSeconds: 1}]}"), "spec.transfer.tolerations[0].tolerationSeconds"),
    Row("no queries", migration("validation: {parity: {queries: 0}}"), "spec.validation.parity.queries"),
    Row("a share as a number", migration("validation: {parity: {minRecall: 0.9}}"), "spec.validation.parity.minRecall"),
    Row("a share above 1", migration("validation: {parity: {minRecall: '1.1'}}"), "spec.validation.parity.minRecall"),
    Row("an approval with a blank", migration("cutover: {approve: 'a b'}"), "spec.cutover.approve"),
    Row("a long approval", migration(f"cutover: {{approve: {'a' * 129}}}"), "spec.cutover.approve"),
    Row("a freeze shorter than the margin", migration("cutover: {maxWriteFreeze: 5s}"), "spec.cutover.maxWriteFreeze"),
    Row("a freeze of a day", migration("cutover: {maxWriteFreeze: 24h}"), "spec.cutover.maxWriteFreeze"),
    Row("no time to acknowledge", migration("cutover: {ackTimeout: 0s}"), "spec.cutover.ackTimeout"),
    Row("tomorrow", migration("cutover: {notBefore: tomorrow}"), "spec.cutover.notBefore"),
    Row("a day that is none", migration("cutover: {notBefore: '2026-02-30T00:00:00Z'}"), "spec.cutover.notBefore"),
    Row("an hour that is none", migration("cutover: {notBefore: '2026-02-03T24:00:00Z'}"), "spec.cutover.notBefore"),
    Row("an instant without a zone", migration("cutover: {notBefore: '2026-02-03T04:00:00'}"), "spec.cutover.notBefore"),
    Row("digits of another script", migration("cutover: {notBefore: '٢٠٢٦-02-03T04:00:00Z'}"), "spec.cutover.notBefore"),
    Row("checks all the time", migration("monitoring: {interval: 0s}"), "spec.monitoring.interval"),
    Row("an interval longer than the whole", migration("monitoring: {duration: 10s, interval: 1m}"), "spec.monitoring.interval"),
    Row("no failures allowed", migration("monitoring: {failureLimit: 0}"), "spec.monitoring.failureLimit"),
    Row("home by itself without a binding", migration("monitoring: {autoSwitchBack: true}"), "spec.monitoring"),
    Row("a policy that is none", migration("decommission: {policy: Erase}"), "spec.decommission.policy"),
    Row("an operation", migration("operation: Abort, operationToken: '1'"), laptop="spec.operation"),
    Row("an operation without a token", migration("operation: Abort"), "spec.operationToken"),
    Row("an operation that is none", migration("operation: Rollback, operationToken: '1'"), "spec.operation"),
    Row("a token that is a number", migration("retryToken: 1"), "spec.retryToken"),
    # --- MemoryBackend
    Row("embedded", backend("embedded, path: agents.db, claimName: data, runAs: {uid: 1000, gid: 1000}")),
    Row("embedded, a folder up without a claim", backend("embedded, path: ../agents.db")),
    Row("embedded, caps", backend("embedded, path: a.db, caps: {concurrency: 256, recordsPerSecond: 1}")),
    Row("jsonl", backend("jsonl, path: memory.jsonl.zst, profile: server-memory, identity: 'the one'")),
    Row("qdrant", backend("qdrant, address: 'q.memory.svc:6334', collection: 'a b/c', distance: dot, profile: mem0, apiKey: {secretRef: {name: q.s, key: k}, env: KEY}, tls: {ca: {configMapRef: {name: ca, key: ca.crt}}}")),
    Row("neo4j", backend("neo4j, address: '[::1]:65535', database: neo4j, user: ann, password: {secretRef: {name: n, key: p}, file: x}, tls: {enabled: false}")),
    Row("hybrid", backend("hybrid, graphRef: {name: g}, vectorsRef: {name: v}")),
    Row("no backend", {**backend("x"), "spec": {}}, "spec.backend"),
    Row("no spec", {key: value for key, value in backend("x").items() if key != "spec"}, "spec"),
    Row("a backend that is none", backend("chroma, path: x"), "spec.backend"),
    Row("embedded without a path", backend("embedded"), "spec.path"),
    Row("embedded with a collection", backend("embedded, path: x, collection: y"), "spec.collection"),
    Row("embedded with a distance", backend("embedded, path: x, distance: cosine"), "spec.distance"),
    Row("a path with a question mark", backend("embedded, path: 'a.db?profile=mem0'"), "spec.path"),
    Row("an empty path", backend("embedded, path: ''"), "spec.path"),
    Row("a path with a line in it", backend('embedded, path: "a\\nb"'), "spec.path"),
    Row("a path out of the claim", backend("embedded, path: a/../../b, claimName: data"), "spec.path"),
    Row("a path from the root of a claim", backend("embedded, path: /b, claimName: data"), "spec.path"),
    Row("a path with dots in a claim", backend("embedded, path: a..b/...c, claimName: data")),
    Row("root", backend("embedded, path: b, runAs: {uid: 0, gid: 1}"), "spec.runAs.uid"),
    Row("a user without a group", backend("embedded, path: b, runAs: {uid: 5}"), "spec.runAs.gid"),
    Row("a profile with capitals", backend("embedded, path: b, profile: Mem0"), "spec.profile"),
    Row("an identity with a hash", backend("embedded, path: b, identity: 'a#b'"), "spec.identity"),
    Row("qdrant without a collection", backend("qdrant, address: x"), "spec.collection"),
    Row("qdrant without an address", backend("qdrant, collection: x"), "spec.address"),
    Row("an address with a scheme", backend("qdrant, address: 'http://x:1', collection: x"), "spec.address"),
    Row("an address with a user", backend("qdrant, address: 'ann:secret@x', collection: x"), "spec.address"),
    Row("a port that is none", backend("qdrant, address: 'x:65536', collection: x"), "spec.address"),
    Row("a distance that is none", backend(f"{_SERVER}, distance: Cosine"), "spec.distance"),
    Row("a key that stands there", backend(f"{_SERVER}, apiKey: secret"), "spec.apiKey"),
    Row("a credential of nothing", backend(f"{_SERVER}, apiKey: {{}}"), "spec.apiKey"),
    Row("a credential of two places", backend(f"{_SERVER}, apiKey: {{env: A, file: b}}"), "spec.apiKey.env"),
    Row("a Secret without a key", backend(f"{_SERVER}, apiKey: {{secretRef: {{name: s}}}}"), "spec.apiKey.secretRef.key"),
    Row("a variable that is none", backend(f"{_SERVER}, apiKey: {{env: A-B}}"), "spec.apiKey.env"),
    Row("qdrant with a password", backend(f"{_SERVER}, password: {{env: A}}"), "spec.password"),
    Row("an authority of nothing", backend(f"{_SERVER}, tls: {{ca: {{}}}}"), "spec.tls.ca"),
    Row("an authority of two places", backend(f"{_SERVER}, tls: {{ca: {{configMapRef: {{name: a, key: b}}, secretRef: {{name: a, key: b}}}}}}"), "spec.tls.ca.configMapRef"),
    Row("neo4j with an API key", backend(f"{_GRAPH}, apiKey: {{env: A}}"), "spec.apiKey"),
    Row("a database with a slash", backend(f"{_GRAPH}, database: a/b"), "spec.database"),
    Row("hybrid without vectors", backend("hybrid, graphRef: {name: g}"), "spec.vectorsRef"),
    Row("hybrid of one store", backend("hybrid, graphRef: {name: g}, vectorsRef: {name: g}"), "spec.vectorsRef"),
    Row("hybrid with an address", backend("hybrid, graphRef: {name: g}, vectorsRef: {name: v}, address: x"), "spec.address"),
    Row("257 at a time", backend("embedded, path: x, caps: {concurrency: 257}"), "spec.caps.concurrency"),
    Row("a backend's name of 64", backend("embedded, path: x", "x" * 64), "metadata.name"),
    # --- MemoryBinding
    Row("a binding", binding()),
    Row("a binding with clients", binding("clients: {selector: {app: agents, app.kubernetes.io/part-of: x}}, restart: [{name: a}, {kind: StatefulSet, name: a}]")),
    Row("a binding of nothing", _without(binding(), "initialBackendRef"), "spec.initialBackendRef"),
    Row("a selector with a bad key", binding("clients: {selector: {'/x': y}}"), "spec.clients.selector"),
    Row("a workload that is none", binding("restart: [{kind: Job, name: a}]"), "spec.restart[0].kind"),
    Row("a workload twice", binding("restart: [{name: a}, {kind: Deployment, name: a}]"), "spec.restart"),
    Row("a workload without a name", binding("restart: [{kind: Deployment}]"), "spec.restart[0].name"),
]  # fmt: skip

_CLAIMED = backend("embedded, path: a.db, claimName: data")
_NAMED = backend("qdrant, address: x, collection: y, identity: one, apiKey: {env: A}")

CHANGES: Final = [
    Change("another source", migration(), {"source": {"backendRef": {"name": "c"}}}, "spec.source"),
    Change("another target", migration(), {"target": {"backendRef": {"name": "c"}}}, "spec.target"),
    Change("another strategy", migration(), {"strategy": "Online"}, "spec.strategy"),
    Change("the strategy that is the default, said", migration(), {"strategy": "Offline"}),
    Change("another binding", migration("cutover: {bindingRef: {name: a}}"), {"cutover": {"bindingRef": {"name": "b"}}}, "spec.cutover.bindingRef"),
    Change("a binding from now on", migration(), {"cutover": {"bindingRef": {"name": "b"}}}, "spec.cutover.bindingRef"),
    Change("no binding any more", migration("cutover: {bindingRef: {name: a}}"), {"cutover": None}, "spec.cutover.bindingRef"),
    Change("approval, operation and tokens", migration(), {"cutover": {"approve": "x"}, "operation": "Abort", "operationToken": "1"}),
    Change("suspended and slower", migration(), {"suspend": True, "transfer": {"parallelism": 1}}),
    Change("another backend", _CLAIMED, {"backend": "jsonl"}, "spec.backend"),
    Change("another profile", _CLAIMED, {"profile": "mem0"}, "spec.profile"),
    Change("another path", _CLAIMED, {"path": "b.db"}, "spec.path"),
    Change("another claim", _CLAIMED, {"claimName": "other"}, "spec.claimName"),
    Change("no claim any more", _CLAIMED, {"claimName": None}, "spec.claimName"),
    Change("a claim from now on", backend("embedded, path: a.db"), {"claimName": "data"}, "spec.claimName"),
    Change("an identity from now on", _CLAIMED, {"identity": "x"}, "spec.identity"),
    Change("another user of the files", _CLAIMED, {"runAs": {"uid": 5, "gid": 5}}),
    Change("another collection", _NAMED, {"collection": "z"}, "spec.collection"),
    Change("another identity", _NAMED, {"identity": "two"}, "spec.identity"),
    Change("another address of a store with an identity", _NAMED, {"address": "z"}),
    Change("another address of a store without", backend(_SERVER), {"address": "z"}, "spec.address"),
    Change("another API key", _NAMED, {"apiKey": {"env": "B"}}),
    Change("no API key any more", _NAMED, {"apiKey": None}),
    Change("another database", backend(f"{_GRAPH}, database: a"), {"database": "b"}, "spec.database"),
    Change("another half", backend("hybrid, graphRef: {name: g}, vectorsRef: {name: v}"), {"graphRef": {"name": "h"}}, "spec.graphRef"),
    Change("a binding that starts elsewhere in a new cluster", binding(), {"initialBackendRef": {"name": "b"}}),
]  # fmt: skip
