"""Settings of the operator, from the environment."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["Settings", "SettingsError"]

_PREFIX = "MEMFERRY_OPERATOR_"


class SettingsError(Exception):
    """An environment variable that cannot be used."""


class Settings(BaseModel):
    """Read once, at the start; each field is `MEMFERRY_OPERATOR_` and its name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    namespace: str = "default"
    """Where the operator runs and its leader's Lease lies."""
    pod_name: str = Field(default_factory=socket.gethostname)
    """Who this is, in the Lease and in Events."""
    watch_namespaces: str = ""
    """Namespaces to serve, joined by commas; all where it is empty."""
    worker_image: str = "memferry:latest"
    """Image of the workers, by digest in production."""
    worker_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """As on a pod."""
    worker_pull_secrets: str = ""
    """Names of pull Secrets, joined by commas."""
    max_active: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Migrations at work at a time; others wait as Queued."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Migrations looked at side by side."""
    probe_secs: Annotated[float, Field(ge=10, le=86_400)] = 900
    """How often the store of a MemoryBackend is looked at that something refers to."""
    max_probes: Annotated[int, Field(ge=1, le=100)] = 4
    """Stores looked at side by side."""
    resync_secs: Annotated[float, Field(ge=1, le=3600)] = 60
    """Everything that is not over is looked at again so often, whatever the watches say."""
    lease_duration_secs: Annotated[float, Field(ge=1, le=600)] = 15
    """A leader that is silent for so long is replaced."""
    renew_deadline_secs: Annotated[float, Field(ge=0.5, le=600)] = 10
    """A leader that cannot renew for so long ends itself."""
    retry_period_secs: Annotated[float, Field(ge=0.1, le=60)] = 2
    """How often the leader's Lease is renewed, or tried."""
    blind_secs: Annotated[float, Field(ge=10, le=3600)] = 300
    """Without one answer of the API server for so long the process ends, to be started anew."""
    http_host: str = "0.0.0.0"  # noqa: S104 - probes come from the node
    """Where health and metrics are served."""
    http_port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port of it; 0 takes a free one, which the log names."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least level that is logged."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads the environment.

        Raises:
            SettingsError: A variable has a value that is not allowed, or is not known.
        """
        given = {
            key.removeprefix(_PREFIX).lower(): value
            for key, value in environment.items()
            if key.startswith(_PREFIX) and value
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            texts = [f"{_PREFIX}{str(e['loc'][0]).upper()}: got `{e['input']}`, {e['msg']}" for e in error.errors()]
            raise SettingsError("; ".join(texts)) from None

    @property
    def namespaces(self) -> list[str]:
        """Namespaces to serve, none for all."""
        return [name.strip() for name in self.watch_namespaces.split(",") if name.strip()]
