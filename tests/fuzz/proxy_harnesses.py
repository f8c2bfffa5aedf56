"""What proxies say of their clients: headers of the PROXY protocol, and the fields they add.

The harnesses take bytes and raise AssertionError when a promise is broken, as those of harnesses.py, which lists them.
"""

from __future__ import annotations

import ipaddress
import random
import re
import struct
import zlib

from support.proxy_protocol import SIGNATURE, v1, v2, with_checksum
from support.proxy_protocol import tlv as extension

from duckfast._forwarded import Forwarded
from duckfast._forwarded import read as read_forwarded
from duckfast._proxy_protocol import parse as parse_proxy_header
from duckfast._trust import Proxies
from duckfast.engine import BELIEVED_FIELDS

CONTROLS = set(range(32)) - {9} | {127}


def check_proxy_protocol(data: bytes) -> None:
    """A header is decided by its own bytes alone, and at the first of them that decides it; what it names are addresses."""
    check_proxy_header(data)
    check_proxy_header(make_v1(data))
    check_proxy_header(make_v2(data))


ADDRESSES = (
    b"203.0.113.9", b"10.0.0.1", b"::1", b"2001:db8::9", b"::ffff:1.2.3.4", b"1::2::3", b"01.2.3.4", b"1.2.3", b"", b"x",
    b"::1%1",
)  # fmt: skip
PORTS = (b"0", b"80", b"65535", b"65536", b"080", b"-1", b"+80", b"", b"x", b"8 0")


def make_v1(data: bytes) -> bytes:
    """A line in which each part is right or nearly so."""
    chosen = random.Random(data)
    family = chosen.choice((b"TCP4", b"TCP4", b"TCP6", b"UNKNOWN", b"TCP5", b"tcp4", data[:4]))
    good = ADDRESSES[:2] if family == b"TCP4" else ADDRESSES[2:5]
    parts = [b"PROXY", family, chosen.choice(good), chosen.choice(good), chosen.choice(PORTS[:3]), chosen.choice(PORTS[:3])]
    for _ in range(chosen.choice((0, 0, 1, 2))):
        place = chosen.randrange(2, 6)
        parts[place] = chosen.choice(ADDRESSES if place < 4 else PORTS)
    if chosen.random() < 0.1:
        parts.append(data[:100])
    line = chosen.choice((b" ", b" ", b" ", b" ", b" ", b"  ", b"\t")).join(parts)
    end = chosen.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\rx\n", b"", b"x" * 80))
    return line[: chosen.choice((None, None, 20))] + end + b"GET /"


def make_v2(data: bytes) -> bytes:
    """A binary header in which each part is right or nearly so."""
    chosen = random.Random(data)
    family = chosen.choice((0x00, 0x11, 0x11, 0x21, 0x21, 0x31, 0x12, 0x01, 0x41, 0x13))
    addresses = {0x11: 12, 0x21: 36, 0x31: 216}.get(family, 0)
    content = data[: addresses + chosen.choice((0, 0, 0, -1))].ljust(addresses, b"\x7f")
    for _ in range(chosen.choice((0, 0, 1, 3))):
        kind, value = chosen.choice((2, 3, 4, 5, 0x20, 0x30)), data[: chosen.choice((0, 2, 4, 5, 20))]
        content += extension(kind, value)[: chosen.choice((None, None, None, -1, 2))]
    length = min(max(0, len(content) + chosen.choice((0, 0, 0, 0, 1, -1, 20_000))), 65_535)
    header = bytes((chosen.choice((0x21, 0x21, 0x21, 0x20, 0x11, 0x22)), family)) + struct.pack(">H", length) + content
    return (SIGNATURE + header + b"GET /")[: chosen.choice((None, None, None, 15, 20))]


def check_proxy_header(data: bytes) -> None:
    versions = zlib.crc32(data) % 3 + 1
    found = parse_proxy_header(data, versions)
    if isinstance(found, dict):
        size = found["size"]
        assert 8 <= size <= 16 * 1024 and size <= len(data)
        line = size <= 107 and data[size - 2 : size] == b"\r\n"
        assert (line and versions & 1) or (data.startswith(SIGNATURE) and versions & 2)
        assert parse_proxy_header(data[:size], versions) == found
        for place in {size - 1, size // 2, 7, 1}:
            assert parse_proxy_header(data[:place], versions) is None
        for host, port in (found["source"], found["destination"]):
            assert 0 <= port <= 65535
            assert str(ipaddress.ip_address(host)) == host if host else port == 0
        assert not (found["local"] and (found["https"] or found["source"][0]))
    elif isinstance(found, str):
        assert found.isascii() and "PROXY" in found
        assert parse_proxy_header(data + b"\0" * 300, versions) == found


INSIDE = ("127.0.0.1", "10.0.0.0/8", "fd00::/8")
FORWARDED_NAMES = (*BELIEVED_FIELDS["forwarded"], *BELIEVED_FIELDS["x-forwarded"])


BELIEVERS = [
    *(Proxies(names, senders) for names in BELIEVED_FIELDS.values() for senders in (INSIDE, ("*",))),
    Proxies(senders=INSIDE, schemes=((b"x-ssl", b"on"), (b"x-scheme", b"https"))),
    Proxies(BELIEVED_FIELDS["x-forwarded"], INSIDE, admitted=(b"script_name", b"x_forwarded_for", b"content_length")),
    Proxies(BELIEVED_FIELDS["forwarded"], ("*",), admitted=(b"*",)),
]

# What proxies write, and what somebody wrote to look like it.
WORDS = {
    b"X-Forwarded-For": (b"203.0.113.9", b"10.0.0.1", b"[fd00::1]:80", b"fd00::1", b"127.0.0.1:1", b"unknown", b"_x", b""),
    b"X-Forwarded-Proto": (b"https", b"http", b"wss", b"WS", b"HTTPS", b"ftp", b"", b"https, http"),
    b"X-Forwarded-Host": (b"example.org", b"a:8443", b"[::1]:1", b"[::1]", b":80", b"a:", b"a:99999", b"a/b", b"a@b", b""),
    b"X-Forwarded-Port": (b"443", b"80", b"0", b"65536", b"8443", b"x", b""),
    b"X-Forwarded-Prefix": (b"/shop", b"/a/b/", b"/", b"//a", b"/a//b", b"/..", b"/a/./b", b"/a b", b"/a%2f", b"x", b"/a...b/.c"),
    b"SCRIPT_NAME": (b"/shop", b"", b"/", b"/a/../b", b"x"),
    b"Script-Name": (b"/mine",),
    b"X_Forwarded_For": (b"203.0.113.9",),
    b"X-SSL": (b"on", b"off", b"on, off"),
    b"X-Scheme": (b"https", b"http"),
    b"Content_Length": (b"5",),
}
HOSTS = (b"a", b"a:80", b"[::1]", b"[::1]:80", b"")
PAIRS = (
    b"for=203.0.113.9", b"for=10.0.0.1", b'for="[fd00::1]:80"', b'for="[fd00::1]"', b"for=unknown", b"for=_x", b'for="_x:80"',
    b'for="10.0.0.1:_p"', b'for="10.0.0.1:99999"', b"for=[::1]", b"For=127.0.0.1", b"for=", b'for=""', b"for", b"=x",
    b"proto=https", b"proto=http", b"Proto=WSS", b"proto=ftp", b"host=example.org", b'host="a:8443"', b'host="a\\"b"',
    b"host=a/b", b"by=_x", b"secret=y", b'by="', b'by="\\', b'x="' + b"y" * 300 + b'"', b"", b" ", b'x="a;b,c"',
    b"for=10.0.0.1 x", b"f\xe9r=10.0.0.1",
)  # fmt: skip


def make_fields(chosen: random.Random) -> list[tuple[bytes, bytes]]:
    fields = [(b"Host", chosen.choice(HOSTS))] if chosen.random() < 0.7 else []
    for _ in range(chosen.randrange(1, 7)):
        if chosen.random() < 0.4:
            elements = [b";".join(chosen.choices(PAIRS, k=chosen.randrange(4))) for _ in range(chosen.randrange(1, 4))]
            fields.append((b"Forwarded", chosen.choice((b",", b", ")).join(elements).strip()))
        else:
            name = chosen.choice(list(WORDS))
            values = chosen.choices(WORDS[name], k=chosen.choice((1, 1, 2, 3)))
            fields.append((name, chosen.choice((b",", b" , ")).join(values).strip()))
    return fields


def check_forwarded(data: bytes) -> None:
    """Whatever the fields hold, what is believed is well formed; and what a trusted proxy has added cannot be changed by it."""
    values = [value.strip(b" \t") for value in data.translate(None, bytes(CONTROLS)).split(b"\xff")] or [b""]
    chosen = random.Random(data)
    fields = [(chosen.choice(FORWARDED_NAMES), value) for value in values[:20]]
    made = make_fields(chosen)
    for proxies in BELIEVERS:
        check_believed(read_forwarded([(b"Host", b"a"), *fields], proxies))
        check_believed(read_forwarded(fields, proxies))
        check_believed(read_forwarded(made, proxies))
    lists = Proxies(BELIEVED_FIELDS["client"], INSIDE)
    elements = Proxies(BELIEVED_FIELDS["forwarded"], INSIDE)
    for value in values:
        for joined in ([value + b", 203.0.113.9,10.0.0.1"], [value, b"203.0.113.9", b"10.0.0.1"]):
            told = read_forwarded([(b"X-Forwarded-For", one) for one in joined], lists)
            assert told is not None and told.client_host == "203.0.113.9"
        for joined in ([value + b", for=203.0.113.9;proto=https, for=10.0.0.1"], [value, b"for=203.0.113.9;proto=https"]):
            told = read_forwarded([(b"Forwarded", one) for one in joined], elements)
            assert told is not None and (told.client_host, told.scheme) == ("203.0.113.9", "https")


def check_believed(told: Forwarded | None) -> None:
    if told is None:
        return
    assert (told.client == 1) == (told.client_host != "")
    assert str(ipaddress.ip_address(told.client_host or "::")) == (told.client_host or "::")
    assert told.scheme in (None, "http", "https")
    assert told.server_port is None or 0 <= told.server_port <= 65535
    if told.host is not None:
        assert told.host and not set(told.host) & (CONTROLS | set(b" \t/@?#\\,\"<>^`{|}")) and told.server_port is not None
    if told.prefix:
        assert re.fullmatch(r"(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+", told.prefix)
        assert not {".", ".."} & set(told.prefix.split("/"))


_CLIENT, _SERVER = ("203.0.113.9", 4711), ("198.51.100.1", 443)
_CLIENT6, _SERVER6 = ("2001:db8::9", 1), ("::ffff:10.0.0.1", 65535)
SEEDS = (
    v1(_CLIENT, _SERVER),
    v1(_CLIENT6, _SERVER6) + b"GET / HTTP/1.1\r\n",
    b"PROXY UNKNOWN ffff::1 x\r\n",
    v2(_CLIENT, _SERVER, extension(0x20, b"\1\0\0\0\0" + extension(0x21, b"TLSv1.3")) + extension(2, b"example.org")),
    v2(_CLIENT6, _SERVER6, extension(5, b"id")),
    with_checksum(v2(_CLIENT6, _SERVER6, extension(3, bytes(4)) + extension(4, bytes(9)))),
    v2("/run/a", "/run/b"),
    v2(command=0),
    v2(),
    b'198.51.100.7, 203.0.113.9:4711 ,\t[fd00::1]:80\xffunknown\xffhttps, http\xff_hidden\xffexample.org:8443\xff443\xff/shop/a',
    b'for=192.0.2.43;proto=https;host="example.org:8443", for="[2001:db8::1]:4711";by=_x\xff'
    b'for="_a\\"b", FOR=unknown; ; a="\\\\,"',
)
