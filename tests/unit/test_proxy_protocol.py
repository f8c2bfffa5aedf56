"""_proxy_protocol: headers of both versions, however they are cut, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from support.proxy_protocol import SIGNATURE, crc32c, tlv, v1, v2, with_checksum

from duckfast._proxy_protocol import parse

SOURCE, DESTINATION = ("203.0.113.9", 4711), ("198.51.100.1", 443)
SOURCE6, DESTINATION6 = ("2001:db8::9", 4711), ("2001:db8::1", 443)

HEADERS = {
    "v1 TCP4": v1(SOURCE, DESTINATION),
    "v1 TCP6": v1(SOURCE6, DESTINATION6),
    "v1 UNKNOWN": b"PROXY UNKNOWN\r\n",
    "v1 UNKNOWN with more": b"PROXY UNKNOWN ffff::1 whatever 1\r\n",
    "v2 TCP4": v2(SOURCE, DESTINATION),
    "v2 TCP6": v2(SOURCE6, DESTINATION6),
    "v2 unix": v2("/run/a", "/run/b"),
    "v2 LOCAL": v2(command=0),
    "v2 LOCAL with more": v2(SOURCE, DESTINATION, tlv(1, b"h2"), command=0),
    "v2 UNSPEC": v2(extensions=b"anything"),
    "v2 with extensions": v2(SOURCE, DESTINATION, tlv(1, b"h2") + tlv(2, b"example.org") + tlv(5, b"id") + tlv(0xEE, b"")),
    "v2 with checksum": with_checksum(v2(SOURCE6, DESTINATION6, tlv(4, b"pad") + tlv(3, bytes(4)) + tlv(2, b"a"))),
    "v2 TLS": v2(SOURCE, DESTINATION, tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))),
}


def parsed(data: bytes, versions: int = 3) -> dict[str, Any]:
    found = parse(data, versions)
    assert isinstance(found, dict), found
    return found


def refusal(data: bytes, versions: int = 3) -> str:
    found = parse(data, versions)
    assert isinstance(found, str), found
    return found


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_header_is_read_at_its_last_byte_and_no_sooner(header: bytes) -> None:
    for size in range(len(header)):
        assert parse(header[:size]) is None
    assert parsed(header)["size"] == len(header)
    assert parse(header + b"GET / HTTP/1.1\r\n\r\n") == parse(header + b"\0" * 500) == parse(header)


@pytest.mark.parametrize("name", ["v1 TCP4", "v2 TCP4", "v2 with extensions", "v2 TLS"])
def test_ipv4_addresses_and_ports(name: str) -> None:
    found = parsed(HEADERS[name])
    assert (found["source"], found["destination"], found["local"]) == (SOURCE, DESTINATION, False)
    assert found["https"] == (name == "v2 TLS")


@pytest.mark.parametrize("name", ["v1 TCP6", "v2 TCP6", "v2 with checksum"])
def test_ipv6_addresses_and_ports(name: str) -> None:
    assert (parsed(HEADERS[name])["source"], parsed(HEADERS[name])["destination"]) == (SOURCE6, DESTINATION6)


@pytest.mark.parametrize("name", ["v1 UNKNOWN", "v1 UNKNOWN with more", "v2 unix", "v2 LOCAL", "v2 LOCAL with more", "v2 UNSPEC"])
def test_headers_that_name_nobody(name: str) -> None:
    found = parsed(HEADERS[name])
    assert found["source"] == found["destination"] == ("", 0)
    assert found["local"] == name.startswith("v2 LOCAL")
    assert found["unix"] == (name == "v2 unix")


def test_mapped_addresses_become_ipv4() -> None:
    for header in (v1(("::ffff:203.0.113.9", 1), ("::ffff:10.0.0.1", 2)), v2(("::ffff:203.0.113.9", 1), ("::ffff:10.0.0.1", 2))):
        assert (parsed(header)["source"], parsed(header)["destination"]) == (("203.0.113.9", 1), ("10.0.0.1", 2))


def test_only_the_asked_version_is_accepted() -> None:
    assert parse(HEADERS["v1 TCP4"], 1) and parse(HEADERS["v2 TCP4"], 2)
    assert refusal(HEADERS["v1 TCP4"], 2) == "a PROXY header of version 1, which is not accepted here"
    assert refusal(HEADERS["v2 TCP4"], 1) == "a PROXY header of version 2, which is not accepted here"


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"PROXX", b"P\0", b"\x16\x03\x01", b"\r\n\r\nGET", b"\n", b" PROXY", b"proxy "]
)
def test_what_begins_otherwise_is_refused_at_once(data: bytes) -> None:
    assert refusal(data) == "no PROXY header"


ADDRESSES = "203.0.113.9 198.51.100.1"


@pytest.mark.parametrize(
    "line",
    [
        "TCP4", "TCP4 ", f"TCP4 {ADDRESSES}", f"TCP4 {ADDRESSES} 1", f"TCP4 {ADDRESSES} 1 ", f"TCP4 {ADDRESSES} 1 2 ",
        f"TCP4 {ADDRESSES} 1 2 3", f"TCP4  {ADDRESSES} 1 2", f"TCP4 {ADDRESSES}  1 2", f"TCP4 {ADDRESSES} 1\t2",
        f"TCP4 {ADDRESSES} 01 2", f"TCP4 {ADDRESSES} 1 65536", f"TCP4 {ADDRESSES} -1 2", f"TCP4 {ADDRESSES} 1 x",
        f"TCP6 {ADDRESSES} 1 2", "TCP4 ::1 ::1 1 2", "TCP4 203.0.113.09 198.51.100.1 1 2", "TCP4 203.0.113 198.51.100.1 1 2",
        "TCP4 203.0.113.9:1 198.51.100.1 1 2", "TCP6 [::1] [::1] 1 2", f"tcp4 {ADDRESSES} 1 2",
        f"TCP5 {ADDRESSES} 1 2", f"UDP4 {ADDRESSES} 1 2",
        "UNKNOWNX", "unknown", "", " ", f"TCP4 {ADDRESSES} 1 2\r",
    ],
    ids=repr,
)  # fmt: skip
def test_line_that_is_not_exactly_one_is_refused(line: str) -> None:
    assert refusal(f"PROXY {line}\r\n".encode()).startswith("a PROXY line")


def test_line_ends_with_crlf() -> None:
    assert refusal(HEADERS["v1 TCP4"].replace(b"\r\n", b"\n")) == "a PROXY line that does not end with CRLF"
    assert refusal(b"PROXY \n") == "a PROXY line that does not end with CRLF"


def test_line_has_107_bytes_at_most() -> None:
    longest = b"PROXY UNKNOWN ".ljust(105, b"x") + b"\r\n"
    assert parsed(longest)["size"] == 107
    too_long = b"PROXY UNKNOWN ".ljust(106, b"x") + b"\r\n"
    assert parse(too_long[:106]) is None
    assert refusal(too_long[:107]) == refusal(too_long) == "a PROXY line longer than 107 bytes"


def binary(version_command: int = 0x21, family: int = 0x11, content: bytes = bytes(12), length: int | None = None) -> bytes:
    told = len(content) if length is None else length
    return SIGNATURE + bytes((version_command, family)) + told.to_bytes(2, "big") + content


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (binary(0x11), "unknown version or command"),
        (binary(0x31), "unknown version or command"),
        (binary(0x22), "unknown version or command"),
        (binary(family=0x41), "unknown family"),
        (binary(family=0x13), "unknown family"),
        (binary(family=0x12), "datagrams"),
        (binary(family=0x22, content=bytes(36)), "datagrams"),
        (binary(content=bytes(11)), "too short"),
        (binary(content=b""), "too short"),
        (binary(family=0x21, content=bytes(35)), "too short"),
        (binary(family=0x31, content=bytes(215)), "too short"),
        (binary(length=65535), "longer than 16 KiB"),
        (binary(length=16 * 1024 - 15), "longer than 16 KiB"),
        (binary(content=bytes(13)), "cut off"),
        (binary(content=bytes(14)), "cut off"),
        (binary(content=bytes(12) + b"\x01\0\x05abcd"), "cut off"),
        (binary(content=bytes(12) + tlv(1, b"h2") + b"\x02\xff\xff"), "cut off"),
        (binary(content=bytes(12) + tlv(0x20, b"\x01\0\0\0")), "cut off"),
        (binary(content=bytes(12) + tlv(3, b"\0\0\0")), "checksum"),
        (binary(content=bytes(12) + tlv(3, bytes(4))), "checksum"),
    ],
)  # fmt: skip
def test_binary_header_that_is_not_exactly_one_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal(data)


def test_hopeless_binary_header_is_refused_before_it_is_whole() -> None:
    assert "longer" in refusal(binary(length=65535)[:16])
    assert "family" in refusal(binary(family=0x51)[:16])
    assert "too short" in refusal(binary(length=11)[:16])


def test_every_flipped_bit_breaks_the_checksum() -> None:
    header = HEADERS["v2 with checksum"]
    addresses, pad, checksum, last = range(16, 52), range(55, 58), range(61, 65), range(68, 69)
    for place in (*addresses, *pad, *checksum, *last):
        for bit in range(8):
            changed = bytearray(header)
            changed[place] ^= 1 << bit
            assert refusal(bytes(changed)) == "a PROXY header with a wrong checksum"


def test_checksum_is_crc32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of RFC 3720's polynomial


def test_largest_header_is_16_kib() -> None:
    header = binary(content=bytes(12) + tlv(4, bytes(16 * 1024 - 16 - 12 - 3)))
    assert parsed(header)["size"] == len(header) == 16 * 1024
