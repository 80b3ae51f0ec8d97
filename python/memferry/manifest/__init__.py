"""The resources `MemoryMigration`, `MemoryBackend` and `MemoryBinding`: one model for file, cluster and docs."""

from memferry.manifest.load import Manifest, ManifestError, Problem, load_manifest, read_manifest
from memferry.manifest.model import (
    KINDS,
    Backend,
    ConfigMap,
    Credential,
    MemoryBackend,
    MemoryBinding,
    MemoryMigration,
    Migration,
    Resource,
)

__all__ = [
    "KINDS",
    "Backend",
    "ConfigMap",
    "Credential",
    "Manifest",
    "ManifestError",
    "MemoryBackend",
    "MemoryBinding",
    "MemoryMigration",
    "Migration",
    "Problem",
    "Resource",
    "load_manifest",
    "read_manifest",
]
