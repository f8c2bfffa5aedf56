"""What is read from certificates, against the library that made them."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from duckfast.certificates import Certificate, fields, rfc4514

BEGIN = datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.UTC)
END = datetime.datetime(2051, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # from 2050 the other form of time
KEY = ec.generate_private_key(ec.SECP256R1())


def der(subject: x509.Name, *names: x509.GeneralName, serial: int = 4711) -> bytes:
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "An issuer")]),
        subject_name=subject,
        public_key=KEY.public_key(),
        serial_number=serial,
        not_valid_before=BEGIN,
        not_valid_after=END,
    )
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def name(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])


def test_serial_version_and_dates_are_read() -> None:
    certificate = Certificate.read(der(name((NameOID.COMMON_NAME, "a")), serial=2**158 + 1))
    assert certificate.serial == 2**158 + 1 and certificate.version == 3
    assert (certificate.not_before, certificate.not_after) == (BEGIN, END)
    assert rfc4514(certificate.issuer) == "CN=An issuer"


VALUES = ["plain", "Ducks, Inc.", ' "quoted" + <b> ', "#1", "a\\b;c", "ends with space ", "Füße 鴨", "a=b"]


@pytest.mark.parametrize("value", VALUES)
def test_a_name_is_written_as_the_rfc_says(value: str) -> None:
    subject = name((NameOID.COUNTRY_NAME, "AQ"), (NameOID.ORGANIZATION_NAME, value), (NameOID.COMMON_NAME, "cn"))
    certificate = Certificate.read(der(subject))
    assert rfc4514(certificate.subject) == subject.rfc4514_string()
    assert fields(certificate.subject) == {"C": "AQ", "O": value, "CN": "cn"}


def test_several_attributes_in_one_place_and_unknown_ones_are_kept() -> None:
    subject = x509.Name(
        [
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
            ),
            x509.RelativeDistinguishedName([x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4"), "x")]),
        ]
    )
    text = rfc4514(Certificate.read(der(subject)).subject)
    assert text.startswith("1.2.3.4=#0c0178,") and set(text.split(",")[1].split("+")) == {"CN=a", "UID=b"}


def test_host_names_are_the_alternative_ones_or_else_the_common_name() -> None:
    subject = name((NameOID.COMMON_NAME, "Old.Example"))
    alternatives = (x509.DNSName("A.example"), x509.DNSName("*.b.example"), x509.IPAddress(ipaddress.ip_address("::1")))
    assert Certificate.read(der(subject, *alternatives)).hosts == ("a.example", "*.b.example", "::1")
    assert Certificate.read(der(subject)).hosts == ("old.example",)
    assert Certificate.read(der(name((NameOID.COUNTRY_NAME, "AQ")))).hosts == ()


def test_what_is_no_certificate_is_refused() -> None:
    whole = der(name((NameOID.COMMON_NAME, "a")))
    for size in (0, 1, 2, 5, 30, 100, len(whole) // 2):
        with pytest.raises(ValueError):
            Certificate.read(whole[:size])
    with pytest.raises(ValueError):
        Certificate.read(b"no certificate at all")
