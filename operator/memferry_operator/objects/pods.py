"""The pods of the workers: restricted pod security, allow-listed settings, exactly the secrets that are referenced."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from memferry.manifest import Backend, Migration
from memferry_operator import names
from memferry_operator.actions import CreateJob
from memferry_operator.brain.jobs import DATA, REFUSED
from memferry_operator.objects.references import KeyOf, references
from memferry_operator.settings import Settings

__all__ = ["job", "pod"]

FOLDER: Final = "/etc/memferry"
CLAIMS: Final = "/var/lib/memferry/claims"
STATE: Final = "/var/lib/memferry/state"
_TRIES: Final = 4
_ALWAYS: Final = 10_000
"""The switch worker is started again as often as it takes."""


def job(
    action: CreateJob,
    *,
    name: str,
    uid: str,
    spec: Migration,
    backends: Mapping[str, Backend],
    owner: Mapping[str, Any],
    settings: Settings,
) -> dict[str, Any]:
    """A Job of workers."""
    job_name = names.job(name, action.role, action.attempt)
    labels = names.labels(name, action.role, action.attempt)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name, "labels": labels, "ownerReferences": [owner]},
        "spec": {
            "completionMode": "Indexed",
            "completions": action.completions,
            "parallelism": action.parallelism,
            "suspend": action.suspend,
            "backoffLimitPerIndex": _ALWAYS if action.role == "switch" else _TRIES,
            "maxFailedIndexes": action.completions,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    _exit("FailJob", REFUSED),
                    _exit("FailIndex", DATA),
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ],
            },
            "template": {
                "metadata": {"labels": {**labels, names.UID: uid}},
                "spec": _pod(action, name, uid, spec, backends, settings),
            },
        },
    }


def _exit(action: str, code: int) -> dict[str, Any]:
    values = {"containerName": "worker", "operator": "In", "values": [code]}
    return {"action": action, "onExitCodes": values}


def _pod(
    action: CreateJob,
    name: str,
    uid: str,
    spec: Migration,
    backends: Mapping[str, Backend],
    settings: Settings,
) -> dict[str, Any]:
    transfer = spec.transfer
    # The manifest of the attempt is pinned; what was confirmed is the policy as it is now.
    confirmed = {"MEMFERRY_DECOMMISSION": spec.decommission.policy} if action.role == "retire" else {}
    found = pod(
        action.role,
        account=names.account(name),
        manifest=names.manifest(name, action.attempt),
        backends=backends.values(),
        state_claim=transfer.state_claim_name,
        environment={
            "MEMFERRY_MIGRATION": name,
            "MEMFERRY_MIGRATION_UID": uid,
            "MEMFERRY_ATTEMPT": str(action.attempt),
            **confirmed,
        },
        settings=settings,
    )
    found["containers"][0]["resources"] = transfer.resources.model_dump(by_alias=True, exclude_defaults=True)
    if transfer.node_selector:
        found["nodeSelector"] = dict(transfer.node_selector)
    if transfer.tolerations:
        found["tolerations"] = [t.model_dump(by_alias=True, exclude_defaults=True) for t in transfer.tolerations]
    return found


def pod(
    verb: str,
    *,
    account: str,
    manifest: str,
    backends: Collection[Backend],
    state_claim: str | None,
    environment: Mapping[str, str],
    settings: Settings,
) -> dict[str, Any]:
    """The pod of a worker.

    Args:
        verb: What it does.
        account: Its ServiceAccount.
        manifest: The ConfigMap with its manifest.
        backends: What it reaches: their claims are mounted, the keys they reference projected, and no others.
        state_claim: The claim of its state directory; one that goes with the pod where there is none.
        environment: What it is told beside who it is.
        settings: Of the operator.
    """
    claims = sorted({b.claim_name for b in backends if b.claim_name})
    pull_secrets = [{"name": one.strip()} for one in settings.worker_pull_secrets.split(",") if one.strip()]
    state: dict[str, Any] = {"persistentVolumeClaim": {"claimName": state_claim}} if state_claim else {"emptyDir": {}}
    found: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 60,
        "enableServiceLinks": False,
        "securityContext": _security(backends),
        "containers": [
            {
                "name": "worker",
                "image": settings.worker_image,
                "imagePullPolicy": settings.worker_pull_policy,
                "command": ["memferry", "worker", verb],
                "args": ["--folder", FOLDER, "--claims", CLAIMS, "--state", STATE, *_claims(claims)],
                "env": _environment(environment),
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "folder", "mountPath": FOLDER, "readOnly": True},
                    {"name": "state", "mountPath": STATE},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
                    *({"name": f"claim-{i}", "mountPath": f"{CLAIMS}/{c}"} for i, c in enumerate(claims)),
                ],
            },
        ],
        "volumes": [
            {"name": "folder", "projected": {"defaultMode": 0o444, "sources": _sources(manifest, backends)}},
            {"name": "state", **state},
            {"name": "tmp", "emptyDir": {}},
            *({"name": f"claim-{i}", "persistentVolumeClaim": {"claimName": c}} for i, c in enumerate(claims)),
        ],
    }
    if pull_secrets:
        found["imagePullSecrets"] = pull_secrets
    return found


def _claims(claims: Iterable[str]) -> list[str]:
    """Each claim where it is mounted."""
    return [part for claim in claims for part in ("--claim", f"{CLAIMS}/{claim}")]


def _security(backends: Iterable[Backend]) -> dict[str, Any]:
    """User and group as the files' owner says, never fsGroup: it would take the application's files over."""
    found: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    for backend in backends:
        if backend.run_as is not None:
            found |= {"runAsUser": backend.run_as.uid, "runAsGroup": backend.run_as.gid}
    return found


def _environment(told: Mapping[str, str]) -> list[dict[str, Any]]:
    fixed = {**told, "MEMFERRY_SERVICE_ACCOUNT_FOLDER": "/var/run/secrets/kubernetes.io/serviceaccount"}
    fields = {
        "MEMFERRY_NAMESPACE": "metadata.namespace",
        "MEMFERRY_POD_NAME": "metadata.name",
        "MEMFERRY_POD_UID": "metadata.uid",
    }
    return [
        *({"name": key, "value": value} for key, value in fixed.items()),
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": field}}} for key, field in fields.items()),
    ]


def _sources(manifest: str, backends: Iterable[Backend]) -> list[dict[str, Any]]:
    """The manifest and every key that a backend references, and no other."""
    items = [{"key": "migration.yaml", "path": "migration.yaml"}]
    return [
        {"configMap": {"name": manifest, "items": items}},
        *(_projected(one) for one in references(backends)),
    ]


def _projected(one: KeyOf) -> dict[str, Any]:
    kind, folder = ("secret", "secrets") if one.kind == "Secret" else ("configMap", "config")
    return {kind: {"name": one.name, "items": [{"key": one.key, "path": f"{folder}/{one.name}/{one.key}"}]}}
