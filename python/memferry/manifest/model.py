"""The resources as types. What is described here is what `docs/manifest.md` and `memferry manifest schema` say."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from memferry.manifest import words
from memferry.manifest.backend import Backend
from memferry.manifest.binding import Binding
from memferry.manifest.parts import KeyReference, Labels, Metadata, Part, Reference, Rule, immutable, once
from memferry.manifest.words import (
    Between,
    Duration,
    GapName,
    Instant,
    LabelKey,
    LabelValue,
    Name,
    ObjectName,
    Quantity,
    Share,
    TaintKey,
    Token,
    duration_secs,
)

__all__ = ["KINDS", "ConfigMap", "MemoryBackend", "MemoryBinding", "MemoryMigration", "Migration", "Resource"]

Kind = Literal["entity", "memory", "observation", "relation"]


_SET: Final = {"x-kubernetes-list-type": "set"}
_ATOMIC: Final = {"x-kubernetes-list-type": "atomic"}


# --- MemoryMigration


class StoreReference(Part):
    """One end of a migration."""

    backend_ref: Reference
    """The MemoryBackend."""


class Scope(Part):
    """What is moved; everything where nothing is said."""

    kinds: Annotated[list[Kind], Field(max_length=4, json_schema_extra=_SET), AfterValidator(once)] = Field(
        default_factory=list
    )
    """Kinds of records."""
    where: Annotated[str, Field(max_length=words.MAX_TEXT)] = ""
    """CEL over the record."""


class Mapping(Part):
    """A mapping file."""

    config_map_ref: KeyReference
    """The ConfigMap it is in; on a laptop one of the same file."""


class Quantities(Part):
    """Amounts as on a container."""

    cpu: Quantity | None = None
    """Cores."""
    memory: Quantity | None = None
    """Memory."""
    ephemeral_storage: Quantity | None = Field(default=None, alias="ephemeral-storage")
    """Disk that goes with the pod."""


class Resources(Part):
    """What a worker may use."""

    requests: Quantities = Field(default_factory=Quantities)
    """Set aside for it."""
    limits: Quantities = Field(default_factory=Quantities)
    """At most."""


class Toleration(Part):
    """As on a pod."""

    RULES = (
        Rule(
            "self.operator == 'Equal' || self.value == ''",
            "operator Exists has no value",
            "value",
            holds=lambda toleration: toleration.operator == "Equal" or not toleration.value,
        ),
        Rule(
            "self.operator == 'Exists' || self.key != ''",
            "operator Equal needs a key",
            "key",
            holds=lambda toleration: toleration.operator == "Exists" or bool(toleration.key),
        ),
        Rule(
            "!has(self.tolerationSeconds) || self.effect == 'NoExecute'",
            "tolerationSeconds is for effect NoExecute only",
            "tolerationSeconds",
            holds=lambda toleration: toleration.toleration_seconds is None or toleration.effect == "NoExecute",
        ),
    )

    key: TaintKey = ""
    """Key of the taint, all where it is empty."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How the value is compared."""
    value: LabelValue = ""
    """Value of the taint."""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    """Effect of the taint, all where it is empty."""
    toleration_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """How long, for ever where it is missing."""


class Transfer(Part):
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
    stall_timeout: Annotated[Duration, Between("10s", "24h")] = "5m"
    """A worker without progress for so long is replaced."""
    resources: Resources = Field(default_factory=Resources)
    """What a worker may use."""
    node_selector: Labels = Field(default_factory=dict)
    """Where workers run."""
    tolerations: Annotated[list[Toleration], Field(max_length=16, json_schema_extra=_ATOMIC)] = Field(
        default_factory=list
    )
    """Taints that workers bear."""
    state_claim_name: ObjectName | None = None
    """The PersistentVolumeClaim of the state directory, for stores of other systems, which hold no ledger."""


class Parity(Part):
    """Whether both ends find the same."""

    queries: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Sample queries."""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """Results of each."""
    min_recall: Share = "0.99"
    """Least share of results that agree."""


class Validation(Part):
    """Beside the content, which is always compared completely."""

    parity: Parity | None = None
    """Whether both ends find the same."""


_ASKED: Final = "what was begun goes on as it was asked for; make another MemoryMigration"


class Cutover(Part):
    """The switch of the application."""

    RULES = (immutable("bindingRef", _ASKED, optional=True),)

    binding_ref: Reference | None = None
    """The MemoryBinding that is switched."""
    approve: Token = ""
    """Must equal `status.approval.token`."""
    max_write_freeze: Annotated[Duration, Between("10s", "1h")] = "30s"
    """How long writes may wait."""
    ack_timeout: Annotated[Duration, Between("1s", "1h")] = "60s"
    """How long clients may take to acknowledge."""
    not_before: Instant | None = None
    """No switch before this instant."""


class Monitoring(Part):
    """After the switch."""

    RULES = (
        Rule(
            "duration(self.duration) == duration('0s') || duration(self.interval) <= duration(self.duration)",
            "the interval is longer than the duration",
            "interval",
            holds=lambda spec: (
                duration_secs(spec.interval) <= (duration_secs(spec.duration) or duration_secs(spec.interval))
            ),
        ),
    )

    duration: Annotated[Duration, Between("0s", "8760h")] = "24h"
    """How long."""
    interval: Annotated[Duration, Between("1s", "24h")] = "30s"
    """How often."""
    failure_limit: Annotated[int, Field(ge=1, le=1000)] = 3
    """Failed checks in a row that are too many."""
    auto_switch_back: bool = False
    """Whether to go home by itself."""


class Decommission(Part):
    """What becomes of the source."""

    policy: Literal["Retain", "Delete"] = "Retain"
    """Retain keeps it."""
    confirm: Token = ""
    """Must equal `status.approval.token` of the deletion."""


_NEW: Final = "a migration is between two stores; make another MemoryMigration"


class Migration(Part):
    """A one-shot migration."""

    RULES = (
        Rule(
            "self.source.backendRef.name != self.target.backendRef.name",
            "source and target are one MemoryBackend",
            "target",
            holds=lambda spec: spec.source.backend_ref.name != spec.target.backend_ref.name,
        ),
        Rule(
            "!has(self.operation) || self.operationToken != ''",
            "an operation needs an operationToken; a new one asks again",
            "operationToken",
            holds=lambda spec: spec.operation is None or bool(spec.operation_token),
        ),
        Rule(
            "!self.monitoring.autoSwitchBack || has(self.cutover.bindingRef)",
            "autoSwitchBack needs cutover.bindingRef: without a binding nothing is switched",
            "monitoring",
            holds=lambda spec: not spec.monitoring.auto_switch_back or spec.cutover.binding_ref is not None,
        ),
        immutable("source", _NEW),
        immutable("target", _NEW),
        immutable("strategy", _ASKED),
    )

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
    accept_gaps: Annotated[list[GapName], Field(max_length=64, json_schema_extra=_SET), AfterValidator(once)] = Field(
        default_factory=list
    )
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


# --- documents


_NAME_LENGTH: Final = 63
_MIGRATION_LENGTH: Final = 40


def _name_rules(length: int) -> tuple[Rule, ...]:
    """What a file is told by the type of the name."""
    return (
        Rule(f"self.metadata.name.size() <= {length}", f"metadata.name is at most {length} characters"),
        Rule("!self.metadata.name.contains('.')", f"metadata.name: {words.ALLOWED[words.NAME]}"),
    )


class _Ours(Part):
    RULES = _name_rules(_NAME_LENGTH)

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

    name: Annotated[Name, Field(max_length=_MIGRATION_LENGTH)]
    """Name of the migration, at most 40 characters."""


class MemoryMigration(_Ours):
    """A one-shot migration between two MemoryBackends."""

    RULES = _name_rules(_MIGRATION_LENGTH)

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


class ConfigMap(Part):
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
