"""The resources `MemoryMigration`, `MemoryBackend` and `MemoryBinding`: one model for file, cluster and docs."""

from memferry.manifest.backend import Backend, Credential
from memferry.manifest.load import Manifest, load_manifest, read_manifest
from memferry.manifest.model import (
    KINDS,
    ConfigMap,
    MemoryBackend,
    MemoryBinding,
    MemoryMigration,
    Migration,
    Resource,
)
from memferry.manifest.words import duration_secs

__all__ = [
    "KINDS",
    "Backend",
    "ConfigMap",
    "Credential",
    "Manifest",
    "MemoryBackend",
    "MemoryBinding",
    "MemoryMigration",
    "Migration",
    "Resource",
    "duration_secs",
    "load_manifest",
    "read_manifest",
]
