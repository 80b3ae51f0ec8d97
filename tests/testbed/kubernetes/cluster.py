"""What both tiers have: an administrator, its tools, service accounts, namespaces, the audit log."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.kubernetes.binaries import program
from testbed.kubernetes.client import KubernetesClient
from testbed.kubernetes.pki import ClusterKeys, write_kubeconfig
from testbed.process import run_tool

__all__ = ["Cluster", "command"]

_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_HELM = {4: "helm", 3: "helm3"}


class Cluster:
    """One Kubernetes, as its tests see it.

    Args:
        folder: Of its keys, data and logs.
        audit: Log every request (`audit_events`).

    Attributes:
        authority: The certificate authority of the API server.
        folder: Of its keys, data and logs.
        kubeconfig: An administrator's.
    """

    def __init__(self, folder: Path, *, audit: bool) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._audit = audit
        self._url = ""
        self._client: KubernetesClient | None = None
        self._keys = ClusterKeys(folder / "pki")
        self._administrator = self._keys.client("admin", user="admin", group="system:masters")
        self.authority = self._keys.authority

    @property
    def url(self) -> str:
        """Where the API server is, from this machine."""
        if not self._url:
            raise TestbedError("this cluster was never started")
        return self._url

    @property
    def client(self) -> KubernetesClient:
        """An administrator's client."""
        if self._client is None:
            raise TestbedError("this cluster was never started")
        return self._client

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", *, labels: dict[str, str] | None = None) -> Iterator[str]:
        """A namespace that pods can be made in; it is deleted in the end, without waiting for it."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        metadata = {"name": name, "labels": labels or {}}
        self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        # made by controllers; a pod needs both
        self.client.until("ServiceAccount", "default", bool, namespace=name)
        self.client.until("ConfigMap", "kube-root-ca.crt", bool, namespace=name)
        try:
            yield name
        finally:
            if self.client.is_ready():
                self.client.delete("Namespace", name)

    def service_account_token(self, namespace: str, name: str, *, expiration_secs: int = 3600) -> str:
        """A token of a service account, which is made if it is not there."""
        if self.client.find("ServiceAccount", name, namespace=namespace) is None:
            metadata = {"name": name, "namespace": namespace}
            self.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return self.client.token(name, namespace=namespace, expiration_secs=expiration_secs)

    def service_account_client(self, namespace: str, name: str) -> KubernetesClient:
        """A client with the rights of a service account; the caller closes it."""
        token = self.service_account_token(namespace, name)
        return KubernetesClient(self.url, authority=self.authority, token=token, namespace=namespace)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with the rights of a service account, for a process such as the operator."""
        token_file = self.folder / f"{namespace}-{name}.token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.service_account_token(namespace, name, expiration_secs=86400))
        return write_kubeconfig(
            self.folder / f"{namespace}-{name}.kubeconfig",
            server=self.url,
            authority=self.authority,
            token_file=token_file,
            namespace=namespace,
        )

    def kubectl(self, *arguments: str | Path) -> str:
        """What `kubectl` says, as the administrator."""
        return self._run_tool("kubectl", *arguments)

    def helm(self, *arguments: str | Path, version: int = 4) -> str:
        """What `helm` says, as the administrator; version 4 or 3."""
        return self._run_tool(_HELM[version], *arguments)

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """Every answered request so far, oldest first, without contents; `user` is empty where none was recognised."""
        if not self._audit:
            raise TestbedError("this cluster was made without audit=True")
        with self._audit_log.open(encoding="utf-8") as log:
            for line in log:
                if line.endswith("\n"):  # the last one may be half written
                    yield json.loads(line)

    def _connect(self, port: int) -> None:
        """Take the API server at this loopback port for the tests' side."""
        self._url = f"https://127.0.0.1:{port}"
        write_kubeconfig(self.kubeconfig, server=self._url, authority=self.authority, certificate=self._administrator)
        self._disconnect()
        self._client = KubernetesClient(self._url, authority=self.authority, certificate=self._administrator)

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _api_server_flags(self, *, names: list[str]) -> dict[str, object]:
        """What every API server here is told, known by these names and addresses."""
        certificate, key = self._keys.server(
            "kube-apiserver", ["127.0.0.1", "localhost", "10.96.0.1", "kubernetes", "kubernetes.default.svc", *names]
        )
        flags: dict[str, object] = {
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.authority,
            "service-account-key-file": self._keys.service_account_public_key,
            "service-account-signing-key-file": self._keys.service_account_key,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.96.0.0/16",
        }
        if self._audit:
            policy = self.folder / "audit-policy.json"
            policy.write_text(json.dumps(_AUDIT_POLICY))
            self._audit_log.parent.mkdir(parents=True, exist_ok=True)
            flags |= {"audit-policy-file": policy, "audit-log-path": self._audit_log, "audit-log-maxsize": 1000}
        return flags

    def _etcd_flags(self, *, data: Path, client_port: int, peer_port: int) -> dict[str, object]:
        clients, peers = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        return {
            "data-dir": data,
            "unsafe-no-fsync": "true",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
        }

    @property
    def _audit_log(self) -> Path:
        return self.folder / "logs" / "audit.log"

    def _run_tool(self, name: str, *arguments: str | Path) -> str:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(home), "KUBECACHEDIR": str(home / "cache")}
        return run_tool([program(name), *arguments], what=name, env=environment, deadline_secs=120)


def command(name: str, flags: dict[str, object]) -> list[str | Path]:
    """The command line of one of our programs."""
    return [program(name), *(f"--{flag}={value}" for flag, value in flags.items())]
