"""The definitions in an API server, until it serves them; the end of what nobody serves any more."""

from __future__ import annotations

import contextlib

from memferry.manifest.crd import crds
from testbed import wait
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import ApiError, KubernetesClient

__all__ = ["let_go", "served", "wait_until_served"]

_REINITIALIZING = 429


def served(tier: ApiTier) -> None:
    """Apply the definitions and wait for them."""
    tier.client.apply_all(crds())
    wait_until_served(tier)


def wait_until_served(tier: ApiTier) -> None:
    """An established kind answers `storage is (re)initializing` for a moment."""
    for one in crds():
        kind = one["spec"]["names"]["kind"]

        def answers(kind: str = kind) -> bool:
            try:
                tier.client.objects(kind, namespace="default")
            except ApiError as error:
                if error.code != _REINITIALIZING:
                    raise
                return False
            return True

        wait.until(answers, what=f"the API of {kind}")


def let_go(client: KubernetesClient) -> None:
    """Takes the finalizers from what is left in namespaces that end, while no operator runs that would.

    Their controller asks for everything in each of them again and again, until the API server has nothing else to do.
    """
    if not client.is_ready():
        return
    ending = {one["metadata"]["name"] for one in client.objects("Namespace") if one["status"]["phase"] == "Terminating"}
    for definition in crds():
        kind = definition["spec"]["names"]["kind"]
        for one in client.objects(kind, all_namespaces=True):
            metadata = one["metadata"]
            if metadata["namespace"] in ending and metadata.get("finalizers"):
                with contextlib.suppress(ApiError):  # It has ended just now.
                    client.patch(
                        kind, metadata["name"], {"metadata": {"finalizers": None}}, namespace=metadata["namespace"]
                    )
