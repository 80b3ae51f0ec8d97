"""A MemoryBinding in a real API server, and clients with no more rights than the example gives them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, Final

import yaml

import memferry
from memferry.manifest.crd import crds
from support.fake_api import projection
from testbed import wait
from testbed.kubernetes.api_tier import ApiTier

__all__ = ["ClusterWorld"]

_EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "cluster" / "application.yaml"
_BINDING: Final = "agents-memory"


class ClusterWorld:
    """Two embedded stores and a binding in a namespace of an API tier.

    Args:
        tier: The cluster.
        namespace: Its namespace.
        folder: Of the stores.
    """

    binding = _BINDING

    def __init__(self, tier: ApiTier, namespace: str, folder: Path) -> None:
        self.tier = tier
        self.namespace = namespace
        self.stores = {"a": folder / "a.db", "b": folder / "b.db"}
        tier.client.apply_all(crds())
        for crd in crds():
            tier.client.until("CustomResourceDefinition", crd["metadata"]["name"], _established)
        documents = yaml.safe_load_all(_EXAMPLE.read_text("utf-8"))
        tier.client.apply_all([one for one in documents if one["kind"] != "Deployment"], namespace=namespace)
        rights = {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "agents-memory-client"}
        subject = {"kind": "ServiceAccount", "name": "agents", "namespace": namespace}
        metadata = {"name": "agents-memory-client"}
        tier.client.apply(rights | {"metadata": metadata, "roleRef": role, "subjects": [subject]}, namespace=namespace)
        self.kubeconfig = tier.service_account_kubeconfig(namespace, "agents")
        self.say("a", 1)

    def say(self, active: str, revision: int, mode: str = "Serving", **more: Any) -> None:
        """What the operator does: the status, then the Secret."""
        status = {"active": active, "revision": revision, "mode": mode, "frozenUntil": None, **more}
        client = self.tier.client
        client.patch("MemoryBinding", _BINDING, {"status": status}, namespace=self.namespace, subresource="status")
        told = projection(active, self.stores[active], revision)
        data = {key: base64.b64encode(value.encode()).decode() for key, value in told.items()}
        metadata = {"name": f"memferry-binding-{_BINDING}", "namespace": self.namespace}
        client.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    def lease(self, pod: str) -> dict[str, Any] | None:
        """The Lease of a client."""
        name = f"memferry-client-{_BINDING}-{pod}"
        return self.tier.client.find("Lease", name, namespace=self.namespace)

    def until_said(self, pod: str, revision: int, mode: str, active: str) -> None:
        """Waits until a client has acknowledged this."""
        wanted = {"memferry.dev/revision": str(revision), "memferry.dev/mode": mode, "memferry.dev/active": active}

        def said() -> bool:
            told = ((self.lease(pod) or {}).get("metadata") or {}).get("annotations") or {}
            return wanted.items() <= told.items()

        wait.until(said, what=f"{pod} acknowledges {wanted}", longest_interval_secs=0.05)

    def ids(self, side: str) -> set[str]:
        """What is in a store."""
        with memferry.open(self.stores[side]) as store:
            return {record.id for record in store.list()}

    def verbs(self) -> set[tuple[str, str]]:
        """Verbs and resources that clients have used so far, and were allowed to."""
        user = f"system:serviceaccount:{self.namespace}:agents"
        return {
            (event["verb"], event["objectRef"]["resource"])
            for event in self.tier.audit_events()
            if event["user"].get("username") == user and event["responseStatus"]["code"] != 403 and "objectRef" in event
        }


def _established(crd: dict[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
