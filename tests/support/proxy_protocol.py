"""Headers of the PROXY protocol, as proxies write them. Knows nothing of duckfast."""

from __future__ import annotations

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

Place = tuple[str, int] | str  # an address and a port, or the path of a unix socket


def v1(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    family = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def v2(source: Place | None = None, destination: Place | None = None, extensions: bytes = b"", command: int = 1) -> bytes:
    """Without addresses: of an unknown family. command 0 is LOCAL."""
    if source is None or destination is None:
        family, addresses = 0x00, b""
    elif isinstance(source, str) or isinstance(destination, str):
        family, addresses = 0x31, b"".join(str(path).encode().ljust(108, b"\0") for path in (source, destination))
    else:
        packed = [ipaddress.ip_address(place[0]).packed for place in (source, destination)]
        family = 0x11 if len(packed[0]) == 4 else 0x21
        addresses = b"".join(packed) + struct.pack(">HH", source[1], destination[1])
    content = addresses + extensions
    return SIGNATURE + bytes((0x20 | command, family)) + struct.pack(">H", len(content)) + content


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack(">BH", kind, len(value)) + value


def with_checksum(header: bytes) -> bytes:
    """The same with the right value in its CRC32C extension, which is there as four zeros."""
    empty = tlv(3, bytes(4))
    assert header.count(empty) == 1
    return header.replace(empty, tlv(3, struct.pack(">I", crc32c(header))))


def crc32c(data: bytes) -> int:
    """Bit by bit, RFC 3720 12.1: another way than the server's table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
