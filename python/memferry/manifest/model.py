"""The resources as types. What is described here is what `docs/manifest.md` and `memferry schema` say.

Strict: unknown fields are refused, nothing is converted, every text, list and map is bounded.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from memferry.manifest import words
from memferry.manifest.words import Duration, EnvName, GapName, LabelKey, LabelValue, Name, Quantity, Share, Text, Token

__all__ = ["KINDS", "Backend", "ConfigMap", "Credential", "MemoryBackend", "MemoryBinding", "MemoryMigration"]
__all__ += ["Migration", "Resource"]

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=64)]
Kind = Literal["entity", "memory", "observation", "relation"]


class _Part(BaseModel):
    model_config = ConfigDict(
        defer_build=True,  # Most commands read no manifest, and building costs more than all other imports.
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        str_max_length=words.MAX_TEXT,
        use_attribute_docstrings=True,
    )


class Metadata(_Part):
    """What the cluster knows a resource by."""

    name: Name
    """Name of the resource."""
    namespace: Name = ""
    """Namespace; references reach no other."""
    labels: Labels = Field(default_factory=dict)
    """For people and tools."""
    annotations: Annotated[dict[LabelKey, Text], Field(max_length=64)] = Field(default_factory=dict)
    """For people and tools."""


class Reference(_Part):
    """A resource of the same namespace."""

    name: Name
    """Its name."""


class KeyReference(Reference):
    """A key of a Secret or a ConfigMap of the same namespace."""

    key: Annotated[str, Field(pattern=words.KEY, max_length=253)]
    """The key in it."""


# --- MemoryBackend


class Credential(_Part):
    """Where a secret is; never the secret itself."""

    secret_ref: KeyReference | None = None
    """In a cluster: a key of a Secret."""
    env: EnvName | None = None
    """On a laptop: the name of an environment variable."""
    file: Annotated[str, Field(min_length=1, max_length=words.MAX_PATH)] | None = None
    """On a laptop: a file with nothing else in it, relative to the manifest."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.secret_ref is None and self.env is None and self.file is None:
            raise ValueError("one of secretRef, env, file is needed")
        if self.env is not None and self.file is not None:
            raise ValueError("env or file, not both")
        return self


class Authority(_Part):
    """The authority that signed the server's certificate."""

    config_map_ref: KeyReference | None = None
    """In a cluster: a key of a ConfigMap with PEM text."""
    secret_ref: KeyReference | None = None
    """In a cluster: a key of a Secret with PEM text."""
    file: Annotated[str, Field(min_length=1, max_length=words.MAX_PATH)] | None = None
    """On a laptop: a PEM file, relative to the manifest."""


class Tls(_Part):
    """Transport security of a server."""

    enabled: bool = True
    """Whether TLS is spoken."""
    ca: Authority | None = None
    """Authority to trust instead of the system's."""


class Caps(_Part):
    """What all migrations together may ask of a store."""

    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    """Ranges at a time."""
    records_per_second: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Records a second."""


_FILES: Final = frozenset({"path", "claimName"})
_SERVERS: Final = frozenset({"address", "tls"})
_OWN: Final[dict[str, frozenset[str]]] = {
    "embedded": _FILES,
    "jsonl": _FILES,
    "qdrant": _SERVERS | {"collection", "apiKey", "distance"},
    "neo4j": _SERVERS | {"database", "user", "password"},
    "hybrid": frozenset({"graphRef", "vectorsRef"}),
}
_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "embedded": ("path",),
    "jsonl": ("path",),
    "qdrant": ("address", "collection"),
    "neo4j": ("address",),
    "hybrid": ("graphRef", "vectorsRef"),
}


class Backend(_Part):
    """A store."""

    backend: Literal["embedded", "jsonl", "qdrant", "neo4j", "hybrid"]
    """What it is."""
    profile: Annotated[str, Field(pattern=words.SLUG, max_length=64)] = "native"
    """How records lie in it."""
    identity: Annotated[str, Field(min_length=1, max_length=253, pattern=words.VISIBLE)] | None = None
    """Names the store where its address does not."""
    path: Annotated[str, Field(min_length=1, max_length=words.MAX_PATH), AfterValidator(words.is_path)] | None = None
    """embedded, jsonl: the file; on a laptop relative to the manifest, in a cluster to the claim."""
    claim_name: Name | None = None
    """embedded, jsonl: the PersistentVolumeClaim the file lies on."""
    address: Annotated[str, Field(pattern=words.ADDRESS, max_length=262)] | None = None
    """qdrant, neo4j: host, and port where it is not the usual one (6334 for gRPC, 7687 for Bolt)."""
    collection: Annotated[str, Field(min_length=1, max_length=255, pattern=words.VISIBLE)] | None = None
    """qdrant: the collection."""
    database: Annotated[str, Field(pattern=words.DATABASE, max_length=63)] | None = None
    """neo4j: the database, the user's home database where it is missing."""
    user: Annotated[str, Field(min_length=1, max_length=128, pattern=words.VISIBLE)] | None = None
    """neo4j: the user, `neo4j` where it is missing."""
    distance: Literal["cosine", "dot", "euclid", "manhattan"] = "cosine"
    """qdrant: metric of a collection that is made."""
    tls: Tls | None = None
    """qdrant, neo4j: transport security; none where it is missing."""
    api_key: Credential | None = None
    """qdrant: where the API key is."""
    password: Credential | None = None
    """neo4j: where the password is."""
    graph_ref: Reference | None = None
    """hybrid: the MemoryBackend that holds the graph."""
    vectors_ref: Reference | None = None
    """hybrid: the MemoryBackend that holds the vectors."""
    caps: Caps = Field(default_factory=Caps)
    """What all migrations together may ask of it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = {to_camel(name) for name in self.model_fields_set if getattr(self, name) is not None}
        everyones = {"backend", "profile", "identity", "caps"}
        for name in sorted(given - everyones - _OWN[self.backend]):
            raise ValueError(f"{name} is not for backend {self.backend}, allowed: {', '.join(_own(self.backend))}")
        for name in _NEEDED[self.backend]:
            if name not in given:
                raise ValueError(f"backend {self.backend} needs {name}")
        return self


def _own(backend: str) -> list[str]:
    return sorted(_OWN[backend])


# --- MemoryMigration


class StoreReference(_Part):
    """One end of a migration."""

    backend_ref: Reference
    """The MemoryBackend."""


class Scope(_Part):
    """What is moved; everything where nothing is said."""

    kinds: Annotated[list[Kind], Field(max_length=4)] = Field(default_factory=list)
    """Kinds of records."""
    where: Annotated[str, Field(max_length=words.MAX_TEXT)] = ""
    """CEL over the record."""


class Mapping(_Part):
    """A mapping file."""

    config_map_ref: KeyReference
    """The ConfigMap it is in; on a laptop one of the same file."""


class Resources(_Part):
    """What a worker may use."""

    requests: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """Set aside for it."""
    limits: Annotated[dict[LabelKey, Quantity], Field(max_length=16)] = Field(default_factory=dict)
    """At most."""


class Toleration(_Part):
    """As on a pod."""

    key: LabelKey = ""
    """Key of the taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue = ""
    """Value of the taint."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint, all where it is empty."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """How long, for ever where it is missing."""


class Transfer(_Part):
    """How records are moved."""

    shards: Annotated[int, Field(ge=1, le=256)] = 16
    """Worker pods the copy is cut into."""
    parallelism: Annotated[int, Field(ge=1, le=64)] = 4
    """Pods, on a laptop ranges, at a time."""
    max_records_per_second: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """No faster than this."""
    max_quarantined: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Quarantined records that are still a success."""
    max_deletes: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    """Deletions carried without asking; missing: the larger of 100 and 1 %."""
    stall_timeout: Duration = "5m"
    """A worker without progress for so long is replaced."""
    resources: Resources = Field(default_factory=Resources)
    """What a worker may use."""
    node_selector: Labels = Field(default_factory=dict)
    """Where workers run."""
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
    """Taints that workers bear."""


class Parity(_Part):
    """Whether both ends find the same."""

    queries: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Sample queries."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Results of each."""
    min_recall: Share = "0.99"
    """Least share of results that agree."""


class Validation(_Part):
    """Beside the content, which is always compared completely."""

    parity: Parity | None = None
    """Whether both ends find the same."""


class Cutover(_Part):
    """The switch of the application."""

    binding_ref: Reference | None = None
    """The MemoryBinding that is switched."""
    approve: Token = ""
    """Must equal `status.approval.token`."""
    max_write_freeze: Duration = "30s"
    """How long writes may wait."""
    ack_timeout: Duration = "60s"
    """How long clients may take to acknowledge."""
    not_before: Annotated[str, Field(pattern=words.INSTANT, max_length=40)] | None = None
    """No switch before this instant."""


class Monitoring(_Part):
    """After the switch."""

    duration: Duration = "24h"
    """How long."""
    interval: Duration = "30s"
    """How often."""
    failure_limit: Annotated[int, Field(ge=1, le=1000)] = 3
    """Failed checks in a row that are too many."""
    auto_switch_back: bool = False
    """Whether to go home by itself."""


class Decommission(_Part):
    """What becomes of the source."""

    policy: Literal["Retain", "Delete"] = "Retain"
    """Retain keeps it."""
    confirm: Token = ""
    """Must equal `status.approval.token` of the deletion."""


class Migration(_Part):
    """A one-shot migration."""

    source: StoreReference
    """Where from."""
    target: StoreReference
    """Where to."""
    strategy: Literal["Offline", "Online"] = "Offline"
    """Offline: nobody writes meanwhile. Online: copy, sync passes, short freeze."""
    scope: Scope = Field(default_factory=Scope)
    """What is moved."""
    mapping: Mapping | None = None
    """How fields are renamed on the way."""
    accept_gaps: Annotated[list[GapName], Field(max_length=64)] = Field(default_factory=list)
    """What the target cannot hold and may be dropped, by name."""
    stop_after: Literal["Plan", "Copy", "Validation"] | None = None
    """A rehearsal that ends there."""
    suspend: bool = False
    """Nothing is begun."""
    transfer: Transfer = Field(default_factory=Transfer)
    """How records are moved."""
    validation: Validation = Field(default_factory=Validation)
    """Beside the content, which is always compared completely."""
    cutover: Cutover = Field(default_factory=Cutover)
    """The switch of the application."""
    monitoring: Monitoring = Field(default_factory=Monitoring)
    """After the switch."""
    decommission: Decommission = Field(default_factory=Decommission)
    """What becomes of the source."""
    operation: Literal["Abort", "SwitchBack"] | None = None
    """Acted on once per `operationToken`."""
    operation_token: Token = ""
    """A new value asks again."""
    retry_token: Token = ""
    """A new value retries a stalled migration once."""

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if self.source.backend_ref.name == self.target.backend_ref.name:
            raise ValueError("source and target are one MemoryBackend")
        return self


# --- MemoryBinding


class Clients(_Part):
    """Who uses the memory."""

    selector: Labels = Field(default_factory=dict)
    """Labels of the pods that are expected to acknowledge a switch."""


class Workload(_Part):
    """Something that is restarted."""

    kind: Literal["Deployment", "StatefulSet", "DaemonSet"] = "Deployment"
    """Its kind."""
    name: Name
    """Its name."""


class Binding(_Part):
    """Which store an application uses."""

    initial_backend_ref: Reference
    """The store before the first switch."""
    clients: Clients = Field(default_factory=Clients)
    """Who uses it."""
    restart: Annotated[list[Workload], Field(max_length=64)] = Field(default_factory=list)
    """Workloads that are restarted by a switch."""


# --- documents


class _Ours(_Part):
    api_version: Literal["memferry.dev/v1alpha1"]
    """Group and version."""


class MemoryBackend(_Ours):
    """A store and how it is reached."""

    kind: Literal["MemoryBackend"]
    """What this is."""
    metadata: Metadata
    """Name and namespace."""
    spec: Backend
    """The store."""


class MigrationMetadata(Metadata):
    """As everywhere, with a shorter name: names of Jobs are made of it."""

    name: Annotated[Name, Field(max_length=40)]
    """Name of the migration, at most 40 characters."""


class MemoryMigration(_Ours):
    """A one-shot migration between two MemoryBackends."""

    kind: Literal["MemoryMigration"]
    """What this is."""
    metadata: MigrationMetadata
    """Name and namespace."""
    spec: Migration
    """What is asked for."""


class MemoryBinding(_Ours):
    """Which store an application uses; only in a cluster."""

    kind: Literal["MemoryBinding"]
    """What this is."""
    metadata: Metadata
    """Name and namespace."""
    spec: Binding
    """What is asked for."""


class ConfigMap(_Part):
    """A ConfigMap in the same file, for mapping files."""

    api_version: Literal["v1"]
    """Of Kubernetes."""
    kind: Literal["ConfigMap"]
    """What this is."""
    metadata: Metadata
    """Name and namespace."""
    data: Annotated[dict[LabelKey, Annotated[str, Field(max_length=words.MAX_FILE)]], Field(max_length=64)] = Field(
        default_factory=dict,
    )
    """Texts by key."""


Resource = MemoryMigration | MemoryBackend | MemoryBinding | ConfigMap

KINDS: Final[dict[str, type[Resource]]] = {
    "MemoryMigration": MemoryMigration,
    "MemoryBackend": MemoryBackend,
    "MemoryBinding": MemoryBinding,
    "ConfigMap": ConfigMap,
}
"""What a file may hold."""
