"""The API tier: etcd, kube-apiserver and kube-controller-manager on loopback, without a node and without root."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import TestbedError
from testbed.kubernetes.cluster import Cluster, command
from testbed.kubernetes.pki import write_kubeconfig
from testbed.ports import release_port, reserve_port
from testbed.process import ManagedProcess

__all__ = ["CONTROLLERS", "ApiTier"]

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "persistentvolumeclaim-protection-controller",
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


class ApiTier(Cluster):
    """A Kubernetes API with its controllers, RBAC on, made but not started.

    Jobs make real Pod objects; nobody runs them but a `LocalKubelet` or a `FakeKubelet`.

    Args:
        folder: Of its data and logs; a temporary one, removed by `close`, if not given.
        audit: Log every request (`audit_events`).
        controllers: Of kube-controller-manager.
    """

    def __init__(
        self, folder: Path | None = None, *, audit: bool = False, controllers: Sequence[str] = CONTROLLERS
    ) -> None:
        super().__init__(folder or Path(tempfile.mkdtemp(prefix="memferry-kubernetes-")), audit=audit)
        self._temporary = folder is None
        self._controllers = controllers
        self._ports: list[int] = []
        self._processes: dict[str, ManagedProcess] = {}

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
    def api_server(self) -> ManagedProcess:
        """The API server's process: `kill9`, `stop_cont`, `log_path`."""
        return self._processes["kube-apiserver"]

    def start(self) -> None:
        """Start everything and wait until the API server is ready."""
        for attempt in range(1, _PORT_TRIES + 1):
            self._ports = [reserve_port() for _ in range(3)]
            self._prepare()
            try:
                for process in self._processes.values():
                    process.start()
            except TestbedError as error:
                self._end()
                if attempt == _PORT_TRIES or _PORT_TAKEN not in str(error):
                    raise
            else:
                return

    def close(self) -> None:
        """Kill everything and remove the data; the logs of a folder that was given stay."""
        self._disconnect()
        self._end()
        shutil.rmtree(self.folder if self._temporary else self.folder / "etcd", ignore_errors=True)

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

    def _prepare(self) -> None:
        port, etcd_port, peer_port = self._ports
        self._connect(port)
        controllers_kubeconfig = write_kubeconfig(
            self.folder / "controllers.kubeconfig",
            server=self.url,
            authority=self.authority,
            certificate=self._keys.client("controllers", user="controllers", group="system:masters"),
        )
        etcd = self._etcd_flags(data=self.folder / "etcd", client_port=etcd_port, peer_port=peer_port)
        api_server = self._api_server_flags(names=[]) | {
            "etcd-servers": f"http://127.0.0.1:{etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": port,
            "endpoint-reconciler-type": "none",
            "authorization-mode": "RBAC",
        }
        controllers: dict[str, object] = {
            "kubeconfig": controllers_kubeconfig,
            "service-account-private-key-file": self._keys.service_account_key,
            "root-ca-file": self.authority,
            "controllers": ",".join(self._controllers),
            "leader-elect": "false",
            "secure-port": 0,
            # the defaults would hold back a test that makes thousands of objects
            "kube-api-qps": 200,
            "kube-api-burst": 400,
            "flex-volume-plugin-dir": self.folder / "plugins",
        }
        self._processes = {
            "etcd": self._process("etcd", etcd),  # the API server waits for it
            "kube-apiserver": self._process("kube-apiserver", api_server, ready=True),
            "kube-controller-manager": self._process("kube-controller-manager", controllers),
        }

    def _process(self, name: str, flags: dict[str, object], *, ready: bool = False) -> ManagedProcess:
        return ManagedProcess(
            name,
            command(name, flags),
            log_path=self.folder / "logs" / f"{name}.log",
            ready=self.client.is_ready if ready else None,
            ready_deadline_secs=_START_DEADLINE_SECS,
            cwd=self.folder,
            # Memory there is, and one core will do: garbage collection and idle threads were a quarter of their CPU.
            env={"GOGC": "400", "GOMAXPROCS": "1"},
        )

    def _end(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill9()
        for port in self._ports:
            release_port(port)
