"""Names that operator, workers, clients and command line have to agree on."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACTIVE",
    "BINDING_LABEL",
    "ERRORS",
    "GROUP",
    "LEASE_SECS",
    "LIVE_LEASES",
    "MODE",
    "POD_UID",
    "PROBLEM",
    "PROCESS",
    "REVISION",
    "VERSION",
    "binding_secret_name",
    "client_lease_name",
]

GROUP: Final = "memferry.dev"
VERSION: Final = "v1alpha1"

BINDING_LABEL: Final = f"{GROUP}/binding"
"""Label of a client's Lease: the binding it is of."""

# Annotations of a client's Lease.
REVISION: Final = f"{GROUP}/revision"
"""The revision that is acknowledged."""
MODE: Final = f"{GROUP}/mode"
"""Its mode: `Frozen` says that nothing is in flight and nothing will start."""
ACTIVE: Final = f"{GROUP}/active"
"""The MemoryBackend whose store is open."""
ERRORS: Final = f"{GROUP}/errors"
"""How often the store failed the application since that revision was first seen."""
PROBLEM: Final = f"{GROUP}/problem"
"""Code of the error that keeps the client from acknowledging, if one does."""
PROCESS: Final = f"{GROUP}/process"
"""Which process of the pod holds it."""
POD_UID: Final = f"{GROUP}/pod-uid"
"""The pod it is in."""

LEASE_SECS: Final = 15
"""Duration of a client's Lease: without a renewal for so long, the client stops writing by itself."""
LIVE_LEASES: Final = 3
"""Lease durations for which a client that is silent is waited for."""


def binding_secret_name(binding: str) -> str:
    """The Secret of a MemoryBinding."""
    return f"memferry-binding-{binding}"


def client_lease_name(binding: str, pod: str, client: str = "") -> str:
    """The Lease of a client.

    Args:
        binding: The MemoryBinding.
        pod: The pod.
        client: Which one, where a pod has several.
    """
    return f"memferry-client-{binding}-{pod}{f'.{client}' if client else ''}"
