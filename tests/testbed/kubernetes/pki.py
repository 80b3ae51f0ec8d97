"""Certificates and keys of a cluster, and the kubeconfigs that use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

__all__ = ["ClusterKeys", "write_kubeconfig"]


class ClusterKeys:
    """The authority of one cluster, and what it has signed, as PEM files below a folder.

    Attributes:
        authority: What clients trust.
        folder: Where the files are.
        service_account_key: Signs the tokens of service accounts.
        service_account_public_key: Checks them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._signer = trustme.CA()
        self.authority = folder / "authority.crt"
        self._signer.cert_pem.write_to_path(self.authority)
        self.service_account_key = folder / "service-account.key"
        self.service_account_public_key = folder / "service-account.pub"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_secret(self.service_account_key, private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.service_account_public_key.write_bytes(public)

    def server(self, name: str, identities: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of a server known by these host names and addresses."""
        return self._written(name, self._signer.issue_cert(*identities, common_name=name))

    def client(self, name: str, *, user: str, group: str | None = None) -> tuple[Path, Path]:
        """Certificate and key of a user; without a group it is in none that Kubernetes knows."""
        # Go refuses a certificate without any alternative name, so there is one that nobody asks for
        leaf = self._signer.issue_cert(f"{name}.testbed.invalid", common_name=user, organization_name=group)
        return self._written(name, leaf)

    def _written(self, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        _write_secret(key, leaf.private_key_pem.bytes())
        return certificate, key


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: Path,
    certificate: tuple[Path, Path] | None = None,
    token_file: Path | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig for one user, by client certificate or by a file with a token.

    Returns:
        The path.
    """
    user: dict[str, str] = {}
    if certificate is not None:
        user = {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
    if token_file is not None:
        user = {"tokenFile": str(token_file)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [
            {"name": "testbed", "context": {"cluster": "testbed", "user": "user", "namespace": namespace}},
        ],
        "current-context": "testbed",
    }
    path.write_text(json.dumps(content, indent=2))  # JSON is YAML
    path.chmod(0o600)
    return path


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
