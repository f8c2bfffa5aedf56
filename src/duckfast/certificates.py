"""What an X.509 certificate says: names, serial, dates, read from its DER. Judges nothing: OpenSSL has done that.

Python's ssl module tells these only of a certificate it has verified on a socket of its own, so they are read here, from the
same bytes whichever way a connection is driven. Names are written as RFC 4514 has them.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

# RFC 4514 3, and the names that OpenSSL adds to them.
ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.42": "GN",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
SUBJECT_ALTERNATIVE_NAMES = "2.5.29.17"
UTC_TIME, CONTEXT_0, CONTEXT_3 = 0x17, 0xA0, 0xA3
UNIVERSAL_STRING, BMP_STRING = 0x1C, 0x1E
DNS_NAME, ADDRESS = 0x82, 0x87  # the tags of a GeneralName (RFC 5280 4.2.1.6)

Name = list[list[tuple[str, int, bytes]]]  # relative names of (object identifier, tag, value)


@dataclass(frozen=True)
class Certificate:
    """One certificate. Raises ValueError out of read() when the bytes are none."""

    version: int
    serial: int
    subject: Name
    issuer: Name
    not_before: datetime.datetime
    not_after: datetime.datetime
    names: tuple[str, ...]  # subjectAltName: DNS names in lower case, and addresses

    @classmethod
    def read(cls, der: bytes) -> Certificate:
        try:
            return cls._read(der)
        except (IndexError, UnicodeDecodeError, StopIteration) as error:
            raise ValueError(f"not a certificate: {error}") from error

    @classmethod
    def _read(cls, der: bytes) -> Certificate:
        # RFC 5280 4.1: Certificate { TBSCertificate { [0] version, serial, algorithm, issuer, validity, subject, key, ... } ... }
        parts = list(_items(_content(_content(der))))
        version = 1
        if parts[0][0] == CONTEXT_0:
            version = int.from_bytes(_content(parts.pop(0)[1]), "big") + 1
        serial, _, issuer, validity, subject = (part[1] for part in parts[:5])
        begin, end = (_time(tag, value) for tag, value in _items(validity))
        extensions = next((value for tag, value in parts[5:] if tag == CONTEXT_3), b"")
        return cls(
            version=version,
            serial=int.from_bytes(serial, "big", signed=True),
            subject=_name(subject),
            issuer=_name(issuer),
            not_before=begin,
            not_after=end,
            names=tuple(_alternative_names(extensions)),
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names a client may ask for: the alternative ones, or without any the subject's common name (RFC 6125 6.4.4)."""
        common = [_text(tag, value) for kind, tag, value in _flat(self.subject) if ATTRIBUTES.get(kind) == "CN"]
        return self.names or tuple(name.lower() for name in common[-1:])


def rfc4514(name: Name) -> str:
    """A distinguished name as text: the last relative name first, special characters behind a backslash."""
    return ",".join(
        "+".join(f"{ATTRIBUTES.get(kind, kind)}={_escaped(kind, tag, value)}" for kind, tag, value in relative)
        for relative in reversed(name)
    )


def fields(name: Name) -> dict[str, str]:
    """The attributes that have a short name, by it; the last of several with one name."""
    return {ATTRIBUTES[kind]: _text(tag, value) for kind, tag, value in _flat(name) if kind in ATTRIBUTES}


def _flat(name: Name) -> Iterator[tuple[str, int, bytes]]:
    for relative in name:
        yield from relative


def _escaped(kind: str, tag: int, value: bytes) -> str:
    if kind not in ATTRIBUTES:  # RFC 4514 2.4: a type without a name goes with its value in BER
        size = len(value)
        length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
        return "#" + (bytes([tag]) + length + value).hex()
    text = _text(tag, value)
    escaped = "".join("\\" + letter if letter in '"+,;<>\\' else "\\00" if letter == "\0" else letter for letter in text)
    if escaped[:1] in (" ", "#"):
        escaped = "\\" + escaped
    if len(text) > 1 and escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped


def _text(tag: int, value: bytes) -> str:
    encoding = {BMP_STRING: "utf-16-be", UNIVERSAL_STRING: "utf-32-be"}.get(tag, "utf-8")
    try:
        return value.decode(encoding)
    except UnicodeDecodeError:
        return value.decode("latin-1")  # a TeletexString, which is read like this everywhere


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, value) pairs of a sequence. DER has definite lengths, and X.509 no tags above 30."""
    place = 0
    while place < len(data):
        tag, size = data[place], data[place + 1]
        place += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[place : place + count], "big")
            place += count
        if place + size > len(data):
            raise ValueError("not a certificate: it ends too early")
        yield tag, data[place : place + size]
        place += size


def _content(data: bytes) -> bytes:
    return next(_items(data))[1]


def _identifier(value: bytes) -> str:
    numbers = [min(value[0] // 40, 2)]
    numbers.append(value[0] - 40 * numbers[0])
    number = 0
    for byte in value[1:]:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    return ".".join(map(str, numbers))


def _name(value: bytes) -> Name:
    name: Name = []
    for _, relative in _items(value):
        pairs = [list(_items(pair)) for _, pair in _items(relative)]
        name.append([(_identifier(kind), tag, text) for (_, kind), (tag, text) in pairs])
    return name


def _time(tag: int, value: bytes) -> datetime.datetime:
    text = value.decode("ascii")
    if tag == UTC_TIME:  # RFC 5280 4.1.2.5.1: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _alternative_names(extensions: bytes) -> Iterator[str]:
    for _, extension in _items(_content(extensions) if extensions else b""):
        parts = list(_items(extension))
        if _identifier(parts[0][1]) != SUBJECT_ALTERNATIVE_NAMES:
            continue
        for tag, value in _items(_content(parts[-1][1])):
            if tag == DNS_NAME:
                yield value.decode("ascii").lower()
            elif tag == ADDRESS and len(value) in (4, 16):
                yield str(ipaddress.ip_address(value))
