"""The definitions in an API server, until it serves them."""

from __future__ import annotations

from memferry.manifest.crd import crds
from testbed import wait
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.client import ApiError

__all__ = ["served", "wait_until_served"]

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
