"""The rules for request heads and chunks once more, in regular expressions: slow, plain, and written from the RFCs alone.

What the compiled parser accepts must be exactly what this file accepts, as long as no limit is met. Knows nothing of duckfast.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
VALUE = rb"[\t\x20-\x7e\x80-\xff]*"  # RFC 9110 5.5
REQUEST_LINE = re.compile(rb"(%b) ([!\"$-~\x80-\xff]+) HTTP/1\.([0-9])" % TOKEN)  # "#" is no part of a target
FIELD = re.compile(rb"(%b):(%b)" % (TOKEN, VALUE))
# RFC 3986 3.2.2
HOST_BYTE = rb"[A-Za-z0-9\-._~!$&'()*+,;=]"
REG_NAME = re.compile(rb"(?:%b|%%[0-9A-Fa-f]{2})*" % HOST_BYTE)
FUTURE_ADDRESS = re.compile(rb"[vV][0-9A-Fa-f]+\.(?:%b|:)+" % HOST_BYTE)
ABSOLUTE = re.compile(rb"https?://([^/?]*)(?:[/?].*)?", re.IGNORECASE | re.DOTALL)

CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:;%b)?\r\n" % VALUE)
MOST = 2**63 - 1


@dataclass(frozen=True)
class Head:
    """What follows from an accepted head."""

    method: bytes
    target: bytes
    minor: int
    fields: list[tuple[bytes, bytes]]
    content_length: int
    chunked: bool
    keep_alive: bool


def is_authority(text: bytes) -> bool:
    """host or host:port; nothing at all is allowed, as in an empty Host."""
    host, port = text, b""
    if text.startswith(b"["):
        literal, bracket, rest = text[1:].partition(b"]")
        if not bracket or rest[:1] not in (b"", b":"):
            return False
        return is_address(literal) and (not rest or rest[1:].isdigit() or rest == b":")
    host, _, port = text.partition(b":")
    return REG_NAME.fullmatch(host) is not None and (not port or port.isdigit()) and bool(host or not text)


def is_address(literal: bytes) -> bool:
    if FUTURE_ADDRESS.fullmatch(literal):
        return True
    try:
        ipaddress.IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return b"%" not in literal


def accepts_target(method: bytes, target: bytes) -> bool:
    if method == b"CONNECT":
        return False
    if target.startswith(b"/"):
        return True
    if target == b"*":
        return method == b"OPTIONS"
    absolute = ABSOLUTE.fullmatch(target)
    return absolute is not None and absolute[1] != b"" and is_authority(absolute[1])


def elements(values: list[bytes]) -> set[bytes]:
    """The elements of a comma-separated list in lower case."""
    return {element.strip(b" \t").lower() for value in values for element in value.split(b",")}


def read_head(raw: bytes) -> Head | None:
    """The head that `raw` is, which ends with its empty line; None when a server has to refuse it."""
    first, *lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = REQUEST_LINE.fullmatch(first)
    found = [FIELD.fullmatch(line) for line in lines]
    if line is None or None in found:
        return None
    fields = [(field[1], field[2].strip(b" \t")) for field in found if field]
    method, target, minor = line[1], line[2], min(int(line[3]), 1)

    def values(name: bytes) -> list[bytes]:
        return [value for other, value in fields if other.lower() == name]

    lengths, codings, hosts = values(b"content-length"), values(b"transfer-encoding"), values(b"host")
    accepted = (
        accepts_target(method, target)
        # RFC 9112 6: one length or one coding, the coding is chunked, and not in HTTP/1.0.
        and len(lengths) + len(codings) <= 1
        and all(length.isdigit() for length in lengths)
        and all(coding.lower() == b"chunked" for coding in codings)
        and not (codings and minor == 0)
        and not any(name.lower().replace(b"_", b"-") == b"transfer-encoding" for name, _ in fields if b"_" in name)
        # RFC 9112 3.2
        and (len(hosts) == 1 or (not hosts and minor == 0))
        and all(is_authority(host) for host in hosts)
        and (minor == 0 or all(expected.lower() == b"100-continue" for expected in values(b"expect")))
    )
    if not accepted:
        return None
    options = elements(values(b"connection"))
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    return Head(method, target, minor, fields, int(lengths[0]) if lengths else -1, bool(codings), keep_alive)


def read_chunks(raw: bytes) -> tuple[bytes, int] | None:
    """The content of the chunked body that `raw` begins with, and its size with trailers; None: it does not hold a whole one."""
    content = b""
    place = 0
    while True:
        line = CHUNK.match(raw, place)
        if line is None:
            return None
        size = int(line[1], 16)
        place = line.end()
        if size == 0:
            break
        if size > len(raw) - place or raw[place + size : place + size + 2] != b"\r\n":
            return None
        content += raw[place : place + size]
        place += size + 2
    while raw[place : place + 2] != b"\r\n":
        end = raw.find(b"\r\n", place)
        if end < 0 or FIELD.fullmatch(raw[place:end]) is None:
            return None
        place = end + 2
    return content, place + 2
