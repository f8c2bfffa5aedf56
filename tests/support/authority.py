"""Certificates for tests: an authority on disk, servers and clients it vouches for, lists of what it has revoked."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

DAY = datetime.timedelta(days=1)


class Authority:
    """`authority.server("a.test")` is (certificate file, key file); `authority.client()` a context that trusts it."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self._made: dict[str, tuple[str, str]] = {}
        self.path = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(self, *names: str, common_name: str | None = None) -> trustme.LeafCert:
        return self._ca.issue_cert(*names, common_name=common_name, organization_name="Ducks, Inc.")

    def write(self, leaf: trustme.LeafCert, stem: str) -> tuple[str, str]:
        certificate, key = self._folder / f"{stem}.pem", self._folder / f"{stem}-key.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def server(self, *names: str) -> tuple[str, str]:
        """The same files for the same names."""
        stem = "-".join(names).replace("*", "any")
        if stem not in self._made:
            self._made[stem] = self.write(self.issue(*names), stem)
        return self._made[stem]

    def options(self, *names: str) -> list[str]:
        certificate, key = self.server(*names)
        return ["--ssl-certfile", certificate, "--ssl-keyfile", key]

    def client(self, leaf: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.path))
        if leaf is not None:
            leaf.configure_cert(context)
        return context

    def revoke(self, *leaves: trustme.LeafCert) -> str:
        """A revocation list with these certificates on it."""
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder(ca.subject, now - DAY, now + DAY)
        for leaf in leaves:
            certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
            revoked = x509.RevokedCertificateBuilder(certificate.serial_number, now - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        path = self._folder / f"revoked-{len(leaves)}.crl"
        path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return str(path)
