"""Parts of the hands that need no API server: queue, what is read, settings, bodies of objects."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from memferry.manifest import Backend, Migration, load_manifest
from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.status import MigrationStatus
from memferry_operator.actions import CreateJob, DeleteJob, FlagNewerStatus, Prepare, WriteBinding
from memferry_operator.hands import read
from memferry_operator.hands.act import Hands
from memferry_operator.hands.api import ApiError, owner, path
from memferry_operator.hands.backends import look_at_backend
from memferry_operator.hands.bindings import binding_clients, look_at_binding
from memferry_operator.hands.keys import Key
from memferry_operator.hands.leader import Leader, LostError
from memferry_operator.hands.metrics import Metrics
from memferry_operator.hands.observe import Seen, observe
from memferry_operator.hands.queue import Queue
from memferry_operator.hands.reconciler import Reconciler
from memferry_operator.objects import owned, pods
from memferry_operator.observed import Command, Observed
from memferry_operator.settings import Settings, SettingsError
from support.kept_api import NAMESPACE, KeptApi

SPEC = Migration.model_validate({"source": {"backendRef": {"name": "a"}}, "target": {"backendRef": {"name": "b"}}})
OWNER = owned.owner("m", "uid-1")


def test_queue_holds_a_key_once_and_gives_it_to_one() -> None:
    async def use() -> None:
        queue: Queue[str] = Queue()
        queue.add("a")
        queue.add("a")
        queue.add("b", 0.05)
        assert await queue.get() == "a"
        queue.add("a")  # Something happened while it is worked on.
        assert await queue.get() == "b", "it is not given to a second one"
        queue.done("a")
        assert await queue.get() == "a", "it is looked at again"
        queue.done("a")
        queue.done("b")
        assert len(queue) == 0

    asyncio.run(use())


def test_queue_waits_longer_after_each_failure_and_an_event_cuts_it_short() -> None:
    async def use() -> None:
        queue: Queue[str] = Queue(base_secs=10, cap_secs=25)
        waits = []
        for _ in range(3):
            queue.add("a")
            assert await queue.get() == "a"
            waits.append(queue.failed("a"))
        assert waits == [10, 20, 25]
        queue.add("a")
        assert await queue.get() == "a"
        queue.done("a")
        queue.add("a")
        await queue.get()
        assert queue.failed("a") == 10, "a success is a new begin"

    asyncio.run(use())


def job(role: Any, backends: dict[str, Backend], **spec: Any) -> dict[str, Any]:
    migration = Migration.model_validate({**SPEC.model_dump(by_alias=True, exclude_defaults=True), **spec})
    action = CreateJob(role, 2, completions=3, parallelism=2)
    settings = Settings(worker_image="image@sha256:1", worker_pull_secrets="pull")
    return pods.job(action, name="m", uid="uid-1", spec=migration, backends=backends, owner=OWNER, settings=settings)


def test_pod_has_exactly_the_secrets_that_are_referenced() -> None:
    backends = {
        "a": Backend.model_validate({"backend": "embedded", "claimName": "src", "path": "agents.db"}),
        "b": Backend.model_validate(
            {
                "backend": "neo4j",
                "address": "neo4j:7687",
                "password": {"secretRef": {"name": "neo4j", "key": "password"}},
                "tls": {"ca": {"configMapRef": {"name": "ca", "key": "ca.crt"}}},
            },
        ),
    }
    pod = job("transfer", backends)["spec"]["template"]["spec"]
    sources = next(v for v in pod["volumes"] if v["name"] == "folder")["projected"]["sources"]
    paths = [i["path"] for s in sources for one in s.values() for i in one["items"]]
    assert sorted(paths) == ["config/ca/ca.crt", "migration.yaml", "secrets/neo4j/password"]
    container = pod["containers"][0]
    assert container["args"][-2:] == ["--claim", "/var/lib/memferry/claims/src"]
    assert {"name": "claim-0", "mountPath": "/var/lib/memferry/claims/src"} in container["volumeMounts"]
    assert "fsGroup" not in pod["securityContext"]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_pod_that_failed_says_why() -> None:
    log = '{"event": "progress"}\nerror[unavailable]: nobody answers\nhint: start it\n'
    state = {"state": {"terminated": {"exitCode": 3, "message": log}}}
    labels = {"memferry.dev/role": "transfer", "memferry.dev/attempt": "1"}
    raw = {"metadata": {"name": "m", "labels": labels}, "status": {"phase": "Failed", "containerStatuses": [state]}}
    found = read.pod(raw)
    assert found is not None
    assert (found.exit_code, found.error) == (3, "error[unavailable]: nobody answers")


def test_pods_are_never_two_for_a_shard_and_codes_mean_something() -> None:
    spec = job("transfer", {})["spec"]
    assert (spec["completions"], spec["parallelism"], spec["podReplacementPolicy"]) == (3, 2, "Failed")
    rules = {r["action"]: r.get("onExitCodes", {}).get("values") for r in spec["podFailurePolicy"]["rules"]}
    assert rules == {"FailJob": [43], "FailIndex": [42], "Ignore": None}


def test_workers_settings_reach_the_pod() -> None:
    tolerations = [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    transfer = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": tolerations,
        "resources": {"limits": {"memory": "1Gi"}},
    }
    pod = job("plan", {}, transfer=transfer)["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"disk": "fast"}
    assert pod["tolerations"] == tolerations
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}


def test_the_worker_that_deletes_is_told_the_policy_that_was_confirmed() -> None:
    def told(role: str) -> Any:
        container = job(role, {}, decommission={"policy": "Delete"})["spec"]["template"]["spec"]["containers"][0]
        return {one["name"]: one.get("value") for one in container["env"]}.get("MEMFERRY_DECOMMISSION")

    assert told("retire") == "Delete"
    assert told("verify") is None


def test_rights_are_by_name() -> None:
    _, role, _ = owned.rights("m", OWNER, shards=2)
    assert all(rule["resourceNames"] for rule in role["rules"])
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "patch"}
    assert "m-shard-1" in role["rules"][0]["resourceNames"]
    assert "m-shard-2" not in role["rules"][0]["resourceNames"]


def test_an_owner_is_named_without_a_right_to_hold_its_deletion_up() -> None:
    assert OWNER["controller"]
    assert "blockOwnerDeletion" not in OWNER


def test_pinned_manifest_is_one_that_a_worker_reads() -> None:
    def raw(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        meta = {"name": name, "namespace": "ns", "uid": "1", "resourceVersion": "5", "managedFields": []}
        head = {"apiVersion": "memferry.dev/v1alpha1", "kind": kind, "metadata": meta}
        return {**head, "spec": spec, "status": {"phase": "Pending"}}

    backends = {n: raw("MemoryBackend", n, {"backend": "embedded", "path": f"{n}.db"}) for n in ("a", "b")}
    migration = raw("MemoryMigration", "m", SPEC.model_dump(by_alias=True, exclude_defaults=True))
    text = owned.manifest(migration, backends, None, OWNER, 1)["data"]["migration.yaml"]
    manifest = load_manifest(text.encode(), "migration.yaml", Path())
    assert [d.resource.metadata.name for d in manifest.documents] == ["m", "a", "b"]
    assert len(list(yaml.safe_load_all(text))) == 3


def test_command_is_read_as_it_was_written() -> None:
    command = Command(7, "Journal", revision=3, mode="Frozen", active="a", frozen_until="2026-01-01T00:00:00Z")
    assert read.command(owned.control("m", OWNER, command)["data"]["command"]) == command


@pytest.mark.parametrize("text", [None, "", "[]", "{", "nonsense", '{"x": 1}'])
def test_what_a_worker_writes_wrongly_is_not_there(text: str | None) -> None:
    lease = {"metadata": {"name": "m-switch", "annotations": {"memferry.dev/answer": text}}, "spec": {}}
    assert read.worker_lease(lease).answer is None


def test_job_and_results_are_read() -> None:
    labels = {"memferry.dev/role": "transfer", "memferry.dev/attempt": "2"}
    conditions = [{"type": "Failed", "status": "True", "reason": "FailedIndexes", "message": "why"}]
    status = {"conditions": conditions, "failedIndexes": "0-2,5", "succeeded": 3}
    found = read.job(
        {"metadata": {"name": "m-transfer-2", "labels": labels}, "spec": {"suspend": True}, "status": status}
    )
    assert found is not None
    assert (found.role, found.attempt, found.failure, found.failed, found.ended) == (
        "transfer",
        2,
        "FailedIndexes",
        4,
        True,
    )
    data = {
        "plan.json": b64encode(json.dumps({"records": 1}).encode()).decode(),
        "verify.json": b64encode(b"no").decode(),
    }
    assert read.results({"data": data}) == {"plan": {"records": 1}}


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {"MEMFERRY_OPERATOR_WATCH_NAMESPACES": "a, b", "MEMFERRY_OPERATOR_WORKERS": "3"}
    )
    assert (settings.namespaces, settings.workers) == (["a", "b"], 3)
    with pytest.raises(SettingsError, match="MEMFERRY_OPERATOR_WORKERS: got `many`"):
        Settings.from_environment({"MEMFERRY_OPERATOR_WORKERS": "many"})
    with pytest.raises(SettingsError, match="MEMFERRY_OPERATOR_WORKER"):
        Settings.from_environment({"MEMFERRY_OPERATOR_WORKER": "3"})


SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/memferry-binding-app"
SERVES = {"statusVersion": 1, "active": "a", "revision": 5, "mode": "Serving"}


def binding() -> KeptApi:
    """The binding `app`, which serves from `a`; nothing but its Secret is still to be written."""
    api = KeptApi()
    for name in "ab":
        api.ours("memorybackends", name, {"backend": "qdrant", "address": f"{name}:6334", "collection": "c"})
    api.ours("memorybindings", "app", {"initialBackendRef": {"name": "a"}}, SERVES, finalizers=["memferry.dev/cleanup"])
    asyncio.run(look_at_binding(api, NAMESPACE, "app", lambda: None))
    del api.objects[SECRET]
    api.writes.clear()
    return api


def secret_of(api: KeptApi) -> dict[str, str]:
    return {key: b64decode(text).decode() for key, text in api.objects[SECRET]["data"].items()}


def test_an_operator_that_may_no_longer_lead_writes_nothing() -> None:
    def lost() -> None:
        raise LostError

    api = binding()
    with pytest.raises(LostError):
        asyncio.run(look_at_binding(api, NAMESPACE, "app", lost))
    with pytest.raises(LostError):
        look = look_at_backend(api, Settings(), NAMESPACE, "a", users=(), asked={}, slot=True, check=lost)
        asyncio.run(look)
    assert not api.writes


@pytest.mark.parametrize("there", [False, True], ids=["the Secret was missing", "the Secret was old"])
def test_an_operator_that_was_stopped_before_it_wrote_leaves_the_secret_of_the_next_one(*, there: bool) -> None:
    api = binding()
    if there:
        api.put(SECRET, {"data": {"active": b64encode(b"z").decode()}})

    def stopped(method: str, where: str) -> None:
        if method != "GET" and SECRET.startswith(where):
            api.put(SECRET, {"data": {"active": b64encode(b"b").decode()}})

    api.before = stopped
    with pytest.raises(ApiError) as raised:
        asyncio.run(look_at_binding(api, NAMESPACE, "app", lambda: None))
    assert raised.value.status == 409, "it looks again"
    assert secret_of(api) == {"active": "b"}


def test_the_secret_of_a_binding_has_no_key_of_the_side_before() -> None:
    api = binding()
    api.put(SECRET, {"data": {"active": b64encode(b"z").decode(), "password": b64encode(b"old").decode()}})
    asyncio.run(look_at_binding(api, NAMESPACE, "app", lambda: None))
    found = secret_of(api)
    assert (found["active"], found["host"]) == ("a", "a")
    assert "password" not in found


def test_a_workload_that_was_changed_meanwhile_is_not_restarted_for_what_was_seen_before() -> None:
    api = binding()
    where = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/shop"
    api.put(where, {"spec": {"selector": {}, "template": {"metadata": {"annotations": {}}}}})
    spec = {"initialBackendRef": {"name": "a"}, "restart": [{"kind": "Deployment", "name": "shop"}]}
    status = {**SERVES, "lockedBy": {"uid": "uid-1", "name": "m"}}
    migration = {"source": {"backendRef": {"name": "a"}}, "target": {"backendRef": {"name": "b"}}}
    api.ours("memorymigrations", "m", {**migration, "cutover": {"bindingRef": {"name": "app"}}}, uid="uid-1")
    api.ours("memorybindings", "app", spec, status, finalizers=["memferry.dev/cleanup"])
    newer = {"spec": {"selector": {}, "template": {"metadata": {"annotations": {"memferry.dev/restarted-for": "8"}}}}}

    def stopped(method: str, at: str) -> None:
        if method == "PATCH" and at == where:
            api.put(where, newer)

    api.before = stopped
    asyncio.run(look_at_binding_until_conflict(api))
    assert api.objects[where]["spec"] == newer["spec"]


async def look_at_binding_until_conflict(api: KeptApi) -> None:
    for _ in range(3):
        try:
            await look_at_binding(api, NAMESPACE, "app", lambda: None)
        except ApiError as error:
            assert error.status == 409
            return
    raise AssertionError("nothing was refused")


def made_again() -> tuple[KeptApi, Seen]:
    """A migration `m`, in a namespace where the garbage collector has not taken yet what one before it had."""
    api, old = KeptApi(), owned.owner("m", "uid-old")
    raw = api.objects[api.ours("memorymigrations", "m", SPEC.model_dump(by_alias=True, exclude_defaults=True))]
    observed = Observed("m", NAMESPACE, raw["metadata"]["uid"], 1, "1", SPEC, MigrationStatus())
    left = owned.manifest({**raw, "spec": {"old": True}}, {}, None, old, 1)
    for one in (left, owned.result("m", old), *owned.leases("m", old, shards=1)):
        group = "v1" if one["apiVersion"] == "v1" else one["apiVersion"]
        api.put(path(group, f"{one['kind'].lower()}s", NAMESPACE, one["metadata"]["name"]), one)
    return api, Seen(observed, raw, {}, None, None)


def test_what_a_migration_of_the_same_name_has_left_is_not_taken_for_its_own() -> None:
    api, seen = made_again()
    hands = Hands(api, Settings())
    with pytest.raises(ApiError, match="is not ours") as raised:
        asyncio.run(hands.do(Prepare(1, 1), seen))
    assert raised.value.status != 409, "it takes its time to go: later, not at once"
    for where in [one for one, found in api.objects.items() if owner(found) == "uid-old"]:
        del api.objects[where]
    asyncio.run(hands.do(Prepare(1, 1), seen))
    asyncio.run(hands.do(Prepare(1, 1), seen))
    owners = {owner(found) for where, found in api.objects.items() if "/memferry.dev/" not in where}
    assert owners == {seen.observed.uid}, "and what is there of its own is left as it is"


def test_a_job_of_a_migration_of_the_same_name_is_not_taken_for_its_own() -> None:
    api, seen = made_again()
    hands = Hands(api, Settings())
    asyncio.run(hands.do(CreateJob("plan", 1), seen))
    asyncio.run(hands.do(CreateJob("plan", 1), seen))
    where = path("batch/v1", "jobs", NAMESPACE, "m-plan-1")
    api.put(where, {**api.objects[where], "metadata": {**api.objects[where]["metadata"], "ownerReferences": []}})
    with pytest.raises(ApiError, match="Job m-plan-1 is there already"):
        asyncio.run(hands.do(CreateJob("plan", 1), seen))


def test_pods_are_seen_until_they_have_gone_also_when_their_job_has() -> None:
    api, seen = made_again()
    uid, hands = seen.observed.uid, Hands(api, Settings())
    meta = {"finalizers": ["memferry.dev/cleanup"], "uid": uid}
    spec, status = SPEC.model_dump(by_alias=True, exclude_defaults=True), {"phase": "ParallelSetup", "attempt": 1}
    api.ours("memorymigrations", "m", spec, status, **meta)
    asyncio.run(hands.do(CreateJob("plan", 1), seen))
    template = api.objects[path("batch/v1", "jobs", NAMESPACE, "m-plan-1")]["spec"]["template"]
    for name, labels in (("ours", {}), ("other", {"memferry.dev/migration-uid": "uid-old"})):
        pod = {"metadata": {**template["metadata"], "labels": template["metadata"]["labels"] | labels}, "status": {}}
        api.put(path("v1", "pods", NAMESPACE, name), pod)
    asyncio.run(hands.do(DeleteJob("m-plan-1"), seen))
    assert api.deletions == {"m-plan-1": "Foreground"}, "the Job goes when its pods have gone"
    found = asyncio.run(observe(api, NAMESPACE, "m", slot=True))
    assert found is not None
    assert [pod.name for pod in found.observed.pods] == ["ours"]


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param({}, (), id="nobody"),
        pytest.param({"binding": ("b", "a")}, (), id="a binding that was switched"),
        pytest.param({"binding": ("a", "b")}, ("MemoryBinding shop",), id="a binding"),
        pytest.param({"binding": (None, "a")}, ("MemoryBinding shop",), id="a binding whose status is made again"),
        pytest.param({"binding": ("alias", "b")}, ("MemoryBinding shop",), id="a binding on its place by another name"),
        pytest.param({"binding": ("moved", "b")}, ("MemoryBinding shop",), id="a binding on its store elsewhere"),
        pytest.param({"binding": ("whole", "b")}, ("MemoryBackend whole",), id="a hybrid of it"),
        pytest.param({"source": "alias"}, ("MemoryMigration other",), id="a migration of its place by another name"),
        pytest.param({"source": "alias", "phase": "Succeeded"}, (), id="a migration that is over"),
    ],
)
def test_nothing_is_deleted_from_a_store_that_is_still_used(others: dict[str, Any], expected: tuple[str, ...]) -> None:
    api = KeptApi()
    places = {"a": ("q:6334", "one"), "b": ("r:6334", "two"), "alias": ("q:6334", "one"), "moved": ("s:6334", "one")}
    for name, (address, identity) in places.items():
        backend = {"backend": "qdrant", "address": address, "collection": "c"}
        api.ours("memorybackends", name, backend, {"storeIdentity": identity})
    if "whole" in others.get("binding", ()):
        halves = {"graphRef": {"name": "b"}, "vectorsRef": {"name": "alias"}}
        api.ours("memorybackends", "whole", {"backend": "hybrid", **halves})
    if "binding" in others:
        active, initial = others["binding"]
        status = {"active": active, "revision": 1, "mode": "Serving"} if active else {}
        api.ours("memorybindings", "shop", {"initialBackendRef": {"name": initial}}, status)
    if "source" in others:
        ends = {"source": {"backendRef": {"name": others["source"]}}, "target": {"backendRef": {"name": "b"}}}
        api.ours("memorymigrations", "other", ends, {"phase": others.get("phase", "BulkTransfer")})
    spec = {**SPEC.model_dump(by_alias=True, exclude_defaults=True), "decommission": {"policy": "Delete"}}
    status = {"phase": "Decommission", "attempt": 1}
    api.ours("memorymigrations", "m", spec, status, finalizers=["memferry.dev/cleanup"])
    found = asyncio.run(observe(api, NAMESPACE, "m", slot=True))
    assert found is not None
    assert found.observed.references == expected


def test_a_look_that_fails_gives_no_place_away() -> None:
    api, settings = KeptApi(), Settings(max_active=1)
    leader = Leader(api, settings)
    reconciler = Reconciler(api, settings, leader, Metrics())
    active, waiting = Key("migration", NAMESPACE, "m"), Key("migration", NAMESPACE, "n")
    spec = SPEC.model_dump(by_alias=True, exclude_defaults=True)
    for key, phase in ((active, "BulkTransfer"), (waiting, "Pending")):
        where = api.ours("memorymigrations", key.name, spec, {"phase": phase, "attempt": 1})
        reconciler.tell("memorymigrations", None, api.objects[where])

    def away(_method: str, _where: str) -> None:
        raise ApiError(503, "away")

    async def looks() -> list[Key]:
        places: list[Key] = []
        for key in (active, waiting, active):
            with pytest.raises(ApiError):
                await reconciler._look(key)
            places += reconciler._slots
        return places

    api.before = away
    assert asyncio.run(looks()) == [active] * 3


def test_pods_of_a_workload_are_read_by_its_whole_selector() -> None:
    api = KeptApi()
    api.put(
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/shop",
        {
            "spec": {
                "selector": {
                    "matchLabels": {"app": "shop"},
                    "matchExpressions": [
                        {"key": "tier", "operator": "In", "values": ["a", "b"]},
                        {"key": "tier", "operator": "NotIn", "values": ["c"]},
                        {"key": "track", "operator": "Exists"},
                        {"key": "canary", "operator": "DoesNotExist"},
                    ],
                },
            },
        },
    )
    asked: list[str] = []

    async def listed(where: str, selector: str) -> list[dict[str, Any]]:
        asked.append(selector)
        return []

    api.list = listed  # type: ignore[method-assign]
    spec = Binding.model_validate({"initialBackendRef": {"name": "a"}, "restart": [{"name": "shop"}]})
    status = BindingStatus(active="a", revision=1)
    (found,) = asyncio.run(binding_clients(api, NAMESPACE, "app", spec, status))
    assert found.revision == 0
    assert asked[-1] == "app=shop,tier in (a,b),tier notin (c),track,!canary"


@pytest.mark.parametrize(("phase", "told"), [("BulkTransfer", ("Stalled", "NewerStatus")), ("Succeeded", None)])
def test_a_binding_of_a_newer_operator_is_left_alone(phase: str, told: tuple[str, str] | None) -> None:
    api = KeptApi()
    status = {"statusVersion": 2, "active": "a", "revision": 4, "mode": "Draining", "newField": {"x": 1}}
    where = api.ours("memorybindings", "app", {"initialBackendRef": {"name": "a"}}, status)
    spec = {**SPEC.model_dump(by_alias=True, exclude_defaults=True), "cutover": {"bindingRef": {"name": "app"}}}
    mine = api.ours("memorymigrations", "m", spec, {"phase": phase, "attempt": 1, "statusVersion": 1})
    found = asyncio.run(observe(api, NAMESPACE, "m", slot=True))
    assert found is not None
    assert found.observed.newer_status is (told is not None)
    hands = Hands(api, Settings())
    with pytest.raises(ApiError, match="newer operator"):
        asyncio.run(hands.do(WriteBinding("a", 5, "Frozen", None, locked=True), found))
    asyncio.run(look_at_binding(api, NAMESPACE, "app", lambda: None))
    assert api.objects[where]["status"] == status
    if told is not None:
        asyncio.run(hands.do(FlagNewerStatus(), found))
        assert api.objects[mine]["status"]["phase"] == phase, "what stands there stays"
        (condition,) = api.objects[mine]["status"]["conditions"]
        assert (condition["type"], condition["reason"]) == told
        assert "of its MemoryBinding" in condition["message"]


def test_the_binding_of_a_spec_that_cannot_be_read_is_seen() -> None:
    api = KeptApi()
    frozen = {"statusVersion": 1, "active": "a", "revision": 4, "mode": "Frozen"}
    api.ours("memorybindings", "app", {"initialBackendRef": {"name": "a"}}, frozen)
    api.ours("memorymigrations", "m", {"cutover": {"bindingRef": {"name": "app"}}}, {"phase": "TrafficSwitch"})
    found = asyncio.run(observe(api, NAMESPACE, "m", slot=True))
    assert found is not None
    assert found.observed.invalid
    assert found.observed.binding is not None
    assert found.observed.binding.mode == "Frozen"


def test_an_event_whose_answer_was_lost_is_not_asked_for() -> None:
    def refused(method: str, where: str) -> None:
        if method == "GET":
            raise ApiError(403, f"no right to read {where}")

    api = KeptApi()
    where, event = path("events.k8s.io/v1", "events", NAMESPACE), {"kind": "Event", "metadata": {"name": "m.1"}}
    api.before = refused
    for _ in range(2):
        asyncio.run(api.create(where, event))
    assert list(api.objects) == [f"{where}/m.1"]
