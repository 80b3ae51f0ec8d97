"""The node tier: a whole Kubernetes of one node, with real containers, in a box of its own. Needs root.

In the box: etcd, kube-apiserver (Node and RBAC authorization, NodeRestriction), every controller, the scheduler,
kubelet, kube-proxy, containerd and runc. Pods get addresses of 10.244.0.0/24 and reach the node at 10.200.0.1; there
is no way out of the box, no DNS and no NetworkPolicy. `expose` makes a server of the machine reachable from pods.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.errors import TestbedError
from testbed.kubernetes import binaries, debian, images
from testbed.kubernetes.box import ADDRESS, Box, BoxProcess
from testbed.kubernetes.client import KubernetesObject
from testbed.kubernetes.cluster import Cluster, command
from testbed.kubernetes.node_settings import (
    CLUSTER_CIDR,
    cni_settings,
    containerd_settings,
    kubelet_settings,
    proxy_settings,
)
from testbed.kubernetes.pki import write_kubeconfig

__all__ = ["NODE", "NodeTier", "installed"]

NODE = "node-1"

_PORT = 6443
_DEADLINE_SECS = 180.0


def installed() -> None:
    """Have everything: programs, Debian packages, the base image."""
    binaries.installed()
    binaries.node_installed()
    images.pause_archive()
    images.busybox_archive()
    images.base_archive()


class NodeTier(Cluster):
    """A cluster of one node, made but not started.

    Args:
        folder: Of its configuration and logs; a temporary one, removed by `close`, if not given. It must not be
            below /run or /var, which the box has for itself.
        audit: Log every request (`audit_events`).
    """

    def __init__(self, folder: Path | None = None, *, audit: bool = True) -> None:
        super().__init__(folder or Path(tempfile.mkdtemp(prefix="memferry-node-")), audit=audit)
        self._temporary = folder is None
        self._box = Box(self.folder)
        self._processes: dict[str, BoxProcess] = {}
        self._exposed: dict[int, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def box(self) -> Box:
        """What everything runs in."""
        return self._box

    def process(self, name: str) -> BoxProcess:
        """One of the cluster's own programs: `kill9`, `start`, `stop_cont`, `log_path`."""
        return self._processes[name]

    def start(self) -> None:
        """Start everything and wait until a pod could run."""
        try:
            self._box.start()
            self._connect(self._box.forward_out(f"{ADDRESS}:{_PORT}"))
            self._start_all()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything and remove the data; the logs of a folder that was given stay."""
        self._disconnect()
        self._box.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def expose(self, port: int) -> str:
        """Make a server on a loopback port of the machine reachable from pods.

        Returns:
            Its HOST:PORT for them, the same port at the node's address.
        """
        if port not in self._exposed:
            self._exposed[port] = self._box.forward_in(port)
        return self._exposed[port]

    def load_image(self, archive: Path) -> None:
        """Give the node an image, by an archive of `testbed.kubernetes.images`."""
        self._ctr("-n", "k8s.io", "image", "import", archive, what=f"loading {archive.name}")

    def unload_image(self, name: str) -> None:
        """Take an image from the node; containers that run go on."""
        self._ctr("-n", "k8s.io", "image", "rm", "--sync", name, what=f"removing {name}")

    def claim(self, name: str, *, namespace: str, folder: Path) -> None:
        """Make a PersistentVolumeClaim over a folder of the machine, and its volume."""
        folder.mkdir(parents=True, exist_ok=True)
        size = {"storage": "1Gi"}
        modes = ["ReadWriteOnce"]
        reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "namespace": namespace}
        self.client.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{namespace}-{name}"},
                "spec": {
                    "capacity": size,
                    "accessModes": modes,
                    "storageClassName": "",
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": str(folder)},
                    "claimRef": reference,
                },
            }
        )
        self.client.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {
                    "accessModes": modes,
                    "storageClassName": "",
                    "volumeName": f"{namespace}-{name}",
                    "resources": {"requests": size},
                },
            },
            namespace=namespace,
        )

    def log(self, pod: str, *, namespace: str, container: str | None = None) -> str:
        """What a container has written, by way of the kubelet."""
        which = ("-c", container) if container else ()
        return self.kubectl("logs", pod, "-n", namespace, *which)

    def _start_all(self) -> None:
        state, pki = self._box.state, self._keys
        socket = state / "containerd.sock"
        networks = self.folder / "networks"
        networks.mkdir(exist_ok=True)
        cni = debian.tool("containerd").parents[1] / "lib" / "cni"
        (networks / "10-pods.conflist").write_text(cni_settings(state=state))
        containerd = self._write(
            "containerd.toml",
            containerd_settings(state=state, socket=socket, pause=images.PAUSE_IMAGE, cni=cni, networks=networks),
        )
        self._add("etcd", command("etcd", self._etcd_flags(data=state / "etcd", client_port=2379, peer_port=2380)))
        self._add("kube-apiserver", command("kube-apiserver", self._server_flags()), ready=self.client.is_ready)
        self._add("containerd", [debian.tool("containerd"), "-c", containerd], ready=self._containerd_answers)
        for name in ("etcd", "containerd", "kube-apiserver"):  # the API server waits for etcd
            self._processes[name].start()
        for archive in (images.pause_archive(), images.busybox_archive()):
            self.load_image(archive)
        self._add(
            "kube-controller-manager",
            command(
                "kube-controller-manager",
                {
                    "kubeconfig": self._user("kube-controller-manager", "controllers", group="system:masters"),
                    "service-account-private-key-file": pki.service_account_key,
                    "root-ca-file": self.authority,
                    "allocate-node-cidrs": "true",
                    "cluster-cidr": CLUSTER_CIDR,
                    "leader-elect": "false",
                    "bind-address": "127.0.0.1",
                    "node-monitor-period": "500ms",
                    "flex-volume-plugin-dir": state / "kubelet" / "plugins",
                },
            ),
        )
        self._add(
            "kube-scheduler",
            command(
                "kube-scheduler",
                {
                    "kubeconfig": self._user("kube-scheduler", "system:kube-scheduler"),
                    "leader-elect": "false",
                    "bind-address": "127.0.0.1",
                },
            ),
        )
        settings = kubelet_settings(state=state, socket=socket, address=ADDRESS, authority=self.authority)
        self._add(
            "kubelet",
            command(
                "kubelet",
                {
                    "config": self._write("kubelet.json", settings),
                    "kubeconfig": self._user("kubelet", f"system:node:{NODE}", group="system:nodes"),
                    "root-dir": state / "kubelet",
                    "cert-dir": state / "kubelet" / "pki",
                    "node-ip": ADDRESS,
                    "hostname-override": NODE,
                    "v": 2,
                },
            ),
        )
        proxy = proxy_settings(node=NODE, kubeconfig=self._user("kube-proxy", "system:kube-proxy"))
        self._add("kube-proxy", command("kube-proxy", {"config": self._write("kube-proxy.json", proxy)}))
        for name in ("kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"):
            self._processes[name].start()
        self.client.until("Node", NODE, _is_usable, deadline_secs=_DEADLINE_SECS)
        self.client.until("ServiceAccount", "default", bool)

    def _add(self, name: str, argv: list[str | Path], *, ready: Callable[[], bool] | None = None) -> None:
        environment = debian.environment() | {"HOME": "/run", "KUBECACHEDIR": "/run/cache"}
        self._processes[name] = self._box.process(
            name, argv, env=environment, ready=ready, ready_deadline_secs=_DEADLINE_SECS
        )

    def _server_flags(self) -> dict[str, object]:
        certificate, key = self._keys.client("kubelet-client", user="kubelet-client", group="system:masters")
        return self._api_server_flags(names=[ADDRESS]) | {
            "etcd-servers": "http://127.0.0.1:2379",
            "bind-address": "0.0.0.0",  # noqa: S104 - inside the box
            "advertise-address": ADDRESS,
            "secure-port": _PORT,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "kubelet-client-certificate": certificate,
            "kubelet-client-key": key,
            "kubelet-preferred-address-types": "InternalIP",
            "allow-privileged": "true",
        }

    def _user(self, name: str, user: str, *, group: str | None = None) -> Path:
        """A kubeconfig for one of the cluster's own programs."""
        return write_kubeconfig(
            self.folder / f"{name}.kubeconfig",
            server=f"https://{ADDRESS}:{_PORT}",
            authority=self.authority,
            certificate=self._keys.client(name, user=user, group=group),
        )

    def _write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path

    def _containerd_answers(self) -> bool:
        try:
            self._ctr("version", what="asking containerd")
        except TestbedError:
            return False
        return True

    def _ctr(self, *arguments: str | Path, what: str) -> str:
        return self._box.run(
            [debian.tool("ctr"), "--address", self._box.state / "containerd.sock", *arguments],
            what=what,
            env=debian.environment(),
        )


def _is_usable(node: KubernetesObject) -> bool:
    """Ready, and the taint is gone that says the contrary."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and not node["spec"].get("taints")
