"""Kubernetes, etcd and Helm, built from the Go module proxy and cached by version."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from testbed import cache
from testbed.process import run_tool

__all__ = ["KUBERNETES_VERSION", "installed", "node_installed", "program"]

KUBERNETES_VERSION = "v1.36.3"
_ETCD_VERSION = "v3.6.16"
_HELM_VERSION = "v4.3.1"
_HELM3_VERSION = "v3.22.0"

_MODULES = Path(__file__).resolve().parents[1] / "data" / "kubernetes"
_DEADLINE_SECS = 3600.0


@dataclass(frozen=True)
class _Build:
    """Programs of one little Go module below `data/kubernetes`, whose go.sum fixes every source."""

    name: str
    module: str
    version: str
    packages: dict[str, str]
    """Package of each program."""
    variables: dict[str, str] = field(default_factory=dict)
    """Set by the linker."""

    def folder(self) -> Path:
        """Where the programs are, built first if they are not there."""
        return cache.cached(self.name, version=f"{self.version}-{self._inputs_hash()}", build=self._build)

    def _build(self, into: Path) -> None:
        flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables.items())])
        environment = {
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=readonly -buildvcs=false",
            "GOWORK": "off",
            "CGO_ENABLED": "0",
        }
        for program, package in self.packages.items():
            run_tool(
                ["go", "build", "-trimpath", "-ldflags", flags, "-o", into / program, package],
                what=f"building {program} {self.version} (needs Go and its module proxy)",
                cwd=_MODULES / self.module,
                env=environment,
                deadline_secs=_DEADLINE_SECS,
            )

    def _inputs_hash(self) -> str:
        digest = hashlib.sha256(repr(self).encode())
        for name in ("go.mod", "go.sum"):
            digest.update((_MODULES / self.module / name).read_bytes())
        return digest.hexdigest()[:8]


def _kubernetes_variables() -> dict[str, str]:
    """Without these the servers say v0.0.0 and refuse each other."""
    _, minor, _ = KUBERNETES_VERSION.split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": "1",
        "gitMinor": minor,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{name}": value for package in packages for name, value in values.items()}


def _kubernetes(name: str, *programs: str) -> _Build:
    return _Build(
        name=name,
        module="kubernetes",
        version=KUBERNETES_VERSION,
        packages={program: f"k8s.io/kubernetes/cmd/{program}" for program in programs},
        variables=_kubernetes_variables(),
    )


_ETCD = _Build("etcd", "etcd", _ETCD_VERSION, {"etcd": "go.etcd.io/etcd/server/v3"})
_KUBERNETES = _kubernetes("kubernetes", "kube-apiserver", "kube-controller-manager", "kubectl")
_NODE = _kubernetes("kubernetes-node", "kube-scheduler", "kube-proxy", "kubelet")
_HELM = _Build(
    "helm",
    "helm",
    _HELM_VERSION,
    {"helm": "helm.sh/helm/v4/cmd/helm"},
    {"helm.sh/helm/v4/internal/version.version": _HELM_VERSION},
)
_HELM3 = _Build(
    "helm3",
    "helm3",
    _HELM3_VERSION,
    {"helm3": "helm.sh/helm/v3/cmd/helm"},
    {"helm.sh/helm/v3/internal/version.version": _HELM3_VERSION},
)


_CONTROL_PLANE = (_ETCD, _KUBERNETES)
_BUILDS = {program: build for build in (*_CONTROL_PLANE, _NODE, _HELM, _HELM3) for program in build.packages}


def program(name: str) -> Path:
    """The path of one program, built first if it is not there."""
    return _BUILDS[name].folder() / name


def installed() -> None:
    """Have what the API tier needs: etcd, kube-apiserver, kube-controller-manager, kubectl, helm (4) and helm3."""
    for build in (*_CONTROL_PLANE, _HELM, _HELM3):
        build.folder()


def node_installed() -> None:
    """Have what the node tier needs beside that: kube-scheduler, kube-proxy and kubelet."""
    _NODE.folder()
