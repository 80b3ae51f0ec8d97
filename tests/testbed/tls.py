"""Certificates for servers on loopback, from an authority that only the test knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificates", "make_certificates"]


@dataclass(frozen=True)
class Certificates:
    """PEM files for one server and its clients.

    Attributes:
        authority: What clients trust.
        certificate: The server's certificate, for `127.0.0.1` and `localhost`.
        key: The server's private key.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a server certificate below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(made.authority)
    server.private_key_pem.write_to_path(made.key)
    for number, blob in enumerate(server.cert_chain_pems):
        blob.write_to_path(made.certificate, append=number > 0)
    made.key.chmod(0o600)
    return made
