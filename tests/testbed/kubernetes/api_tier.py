"""The API tier: etcd, kube-apiserver and kube-controller-manager on loopback, without a node and without root."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.errors import TestbedError
from testbed.kubernetes.binaries import program
from testbed.kubernetes.client import KubernetesClient
from testbed.kubernetes.pki import ClusterKeys, write_kubeconfig
from testbed.ports import release_port, reserve_port
from testbed.process import ManagedProcess, run_tool

__all__ = ["CONTROLLERS", "ApiTier"]

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "replicaset-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
)

_START_DEADLINE_SECS = 120.0
_PORT_TRIES = 3
_PORT_TAKEN = "address already in use"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ApiTier:
    """A Kubernetes API with its controllers, RBAC on, made but not started.

    Jobs make real Pod objects; nobody runs them but a `LocalKubelet` or a `FakeKubelet`.

    Args:
        folder: Of its data and logs; a temporary one, removed by `close`, if not given.
        audit: Log every request (`audit_events`).
        controllers: Of kube-controller-manager.

    Attributes:
        authority: The certificate authority of the API server.
        kubeconfig: An administrator's.
    """

    def __init__(
        self, folder: Path | None = None, *, audit: bool = False, controllers: Sequence[str] = CONTROLLERS
    ) -> None:
        self._temporary = folder is None
        self._folder = folder or Path(tempfile.mkdtemp(prefix="memferry-kubernetes-"))
        self._audit = audit
        self._controllers = controllers
        self._keys = ClusterKeys(self._folder / "pki")
        self._ports: list[int] = []
        self._processes: dict[str, ManagedProcess] = {}
        self._client: KubernetesClient | None = None
        self.authority = self._keys.authority
        self.kubeconfig = self._folder / "kubeconfig"
        self._certificate = self._keys.client("admin", user="admin", group="system:masters")
        self._controllers_certificate = self._keys.client("controllers", user="controllers", group="system:masters")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The API server's, the same over all restarts."""
        if not self._ports:
            raise TestbedError("this API tier was never started")
        return self._ports[0]

    @property
    def url(self) -> str:
        """Where the API server is."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def client(self) -> KubernetesClient:
        """An administrator's client."""
        if self._client is None:
            raise TestbedError("this API tier was never started")
        return self._client

    @property
    def api_server(self) -> ManagedProcess:
        """The API server's process: `kill9`, `stop_cont`, `log_path`."""
        return self._processes["kube-apiserver"]

    def start(self) -> None:
        """Start everything and wait until the API server is ready."""
        for attempt in range(1, _PORT_TRIES + 1):
            self._ports = [reserve_port() for _ in range(3)]
            self._prepare()
            try:
                # both at once: the API server waits for etcd
                self._processes["etcd"].start()
                self._processes["kube-apiserver"].start()
                self._processes["kube-controller-manager"].start()
            except TestbedError as error:
                self._end()
                if attempt == _PORT_TRIES or _PORT_TAKEN not in str(error):
                    raise
            else:
                return

    def close(self) -> None:
        """Kill everything and remove the data; the logs of a folder that was given stay."""
        if self._client is not None:
            self._client.close()
            self._client = None
        self._end()
        shutil.rmtree(self._folder if self._temporary else self._folder / "etcd", ignore_errors=True)

    def stop_api_server(self) -> None:
        """End the API server alone; etcd and the controllers go on."""
        self.api_server.kill9()

    def start_api_server(self) -> None:
        """Start the API server again and wait until it is ready."""
        self.api_server.start()

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """No API server for the length of the block."""
        self.stop_api_server()
        try:
            yield
        finally:
            self.start_api_server()

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
            if self.api_server.is_running:
                self.client.delete("Namespace", name)

    def service_account_token(self, namespace: str, name: str, *, expiration_secs: int = 3600) -> str:
        """A token of a service account, made if the account is not there."""
        self._ensure_service_account(namespace, name)
        return self.client.token(name, namespace=namespace, expiration_secs=expiration_secs)

    def service_account_client(self, namespace: str, name: str) -> KubernetesClient:
        """A client with the rights of a service account; the caller closes it."""
        token = self.service_account_token(namespace, name)
        return KubernetesClient(self.url, authority=self.authority, token=token, namespace=namespace)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with the rights of a service account, for a process such as the operator."""
        token_file = self._folder / f"{namespace}-{name}.token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.service_account_token(namespace, name, expiration_secs=86400))
        return write_kubeconfig(
            self._folder / f"{namespace}-{name}.kubeconfig",
            server=self.url,
            authority=self.authority,
            token_file=token_file,
            namespace=namespace,
        )

    def kubectl(self, *arguments: str | Path) -> str:
        """What `kubectl` says, as the administrator."""
        return self._run_tool("kubectl", *arguments)

    def helm(self, *arguments: str | Path, version: int = 4) -> str:
        """What `helm` says, as the administrator; 4 or 3."""
        return self._run_tool("helm" if version == 4 else "helm3", *arguments)

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """Every answered request so far, oldest first, without contents."""
        if not self._audit:
            raise TestbedError("this API tier was made without audit=True")
        with (self._folder / "logs" / "audit.log").open(encoding="utf-8") as log:
            for line in log:
                if line.endswith("\n"):  # the last one may be half written
                    yield json.loads(line)

    def _run_tool(self, name: str, *arguments: str | Path) -> str:
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(home), "KUBECACHEDIR": str(home / "cache")}
        return run_tool([program(name), *arguments], what=name, env=environment, deadline_secs=120)

    def _ensure_service_account(self, namespace: str, name: str) -> None:
        if self.client.find("ServiceAccount", name, namespace=namespace) is None:
            metadata = {"name": name, "namespace": namespace}
            self.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})

    def _prepare(self) -> None:
        write_kubeconfig(self.kubeconfig, server=self.url, authority=self.authority, certificate=self._certificate)
        controllers_kubeconfig = write_kubeconfig(
            self._folder / "controllers.kubeconfig",
            server=self.url,
            authority=self.authority,
            certificate=self._controllers_certificate,
        )
        if self._client is not None:
            self._client.close()
        self._client = KubernetesClient(self.url, authority=self.authority, certificate=self._certificate)
        self._processes = {
            "etcd": self._process("etcd", self._etcd_flags()),
            "kube-apiserver": self._process("kube-apiserver", self._api_server_flags(), ready=True),
            "kube-controller-manager": self._process(
                "kube-controller-manager",
                {
                    "kubeconfig": controllers_kubeconfig,
                    "service-account-private-key-file": self._keys.service_account_key,
                    "root-ca-file": self.authority,
                    "controllers": ",".join(self._controllers),
                    "leader-elect": "false",
                    "secure-port": 0,
                    # the defaults are for clusters of many users
                    "kube-api-qps": 200,
                    "kube-api-burst": 400,
                    "flex-volume-plugin-dir": self._folder / "plugins",
                },
            ),
        }

    def _process(self, name: str, flags: dict[str, object], *, ready: bool = False) -> ManagedProcess:
        return ManagedProcess(
            name,
            [program(name), *(f"--{flag}={value}" for flag, value in flags.items())],
            log_path=self._folder / "logs" / f"{name}.log",
            ready=self.client.is_ready if ready else None,
            ready_deadline_secs=_START_DEADLINE_SECS,
            cwd=self._folder,
        )

    def _etcd_flags(self) -> dict[str, object]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in self._ports[1:])
        return {
            "data-dir": self._folder / "etcd",
            "unsafe-no-fsync": "true",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
        }

    def _api_server_flags(self) -> dict[str, object]:
        certificate, key = self._keys.server(
            "kube-apiserver", ["127.0.0.1", "localhost", "10.96.0.1", "kubernetes", "kubernetes.default.svc"]
        )
        flags: dict[str, object] = {
            "etcd-servers": f"http://127.0.0.1:{self._ports[1]}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self.port,
            "endpoint-reconciler-type": "none",
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.authority,
            "authorization-mode": "RBAC",
            "service-account-key-file": self._keys.service_account_public_key,
            "service-account-signing-key-file": self._keys.service_account_key,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-cluster-ip-range": "10.96.0.0/16",
        }
        if self._audit:
            policy = self._folder / "audit-policy.json"
            policy.write_text(json.dumps(_AUDIT_POLICY))
            flags |= {"audit-policy-file": policy, "audit-log-path": self._folder / "logs" / "audit.log"}
            flags |= {"audit-log-maxsize": 1000}
        return flags

    def _end(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill9()
        for port in self._ports:
            release_port(port)
