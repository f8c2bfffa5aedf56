"""The grammar of heads and chunks, byte class by byte class. What a whole request means is in the corpus."""

from __future__ import annotations

import ipaddress
import random
import string

import pytest
from support.corpus import byte_by_byte, probe, random_splits, replay, whole

from duckfast._parser import find_value_end

TCHAR = set(b"!#$%&'*+-.^_`|~" + string.ascii_letters.encode() + string.digits.encode())  # RFC 9110 5.6.2
VCHAR_OBS = {9, 32} | set(range(0x21, 0x7F)) | set(range(0x80, 0x100))  # RFC 9110 5.5
REG_NAME = set(b"-._~!$&'()*+,;=" + string.ascii_letters.encode() + string.digits.encode())  # RFC 3986 3.2.2
# Places of a byte in a run: in front of, inside and behind the blocks of sixteen and eight that are scanned at once.
PLACES = (0, 1, 7, 8, 15, 16, 17, 31, 40)


def verdict(raw: bytes) -> str:
    """The first event: "request", "failed" or "need_data"."""
    door = probe()
    door.feed(raw)
    return str(door.poll()[0])


def only(head: bytes) -> dict[str, object]:
    """The head that the bytes must give."""
    door = probe()
    door.feed(head)
    event, value = door.poll()
    assert event == "request"
    return dict(value)


@pytest.mark.parametrize("byte", range(256))
def test_field_name_holds_token_characters_and_nothing_else(byte: int) -> None:
    for place in PLACES:
        name = b"n" * place + bytes((byte,)) + b"n" * (48 - place)
        raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": v\r\n\r\n"
        expected = byte in TCHAR or (byte == 0x3A and place > 0)  # a colon ends the name early
        assert verdict(raw) == ("request" if expected else "failed"), place


@pytest.mark.parametrize("byte", range(256))
def test_field_value_holds_no_control_but_tab(byte: int) -> None:
    for place in PLACES:
        value = b"v" * place + bytes((byte,)) + b"v" * (48 - place)
        raw = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + value + b"\r\n\r\n"
        if byte not in VCHAR_OBS:
            assert verdict(raw) == "failed", place
            continue
        assert only(raw)["fields"] == [(b"Host", b"a"), (b"X", value.strip(b" \t"))]


@pytest.mark.parametrize("byte", range(256))
def test_target_holds_no_control_space_or_fragment(byte: int) -> None:
    for place in PLACES:
        target = b"/" + b"t" * place + bytes((byte,)) + b"t" * (48 - place)
        raw = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        if byte <= 0x20 or byte in (0x23, 0x7F):
            assert verdict(raw) == "failed", place
            continue
        path, _, query = target.partition(b"?")
        head = only(raw)
        assert (head["target"], head["path"], head["query"]) == (target, path, query)
        assert head["path_escaped"] == (b"%" in path)


@pytest.mark.parametrize("byte", range(256))
def test_method_holds_token_characters_and_nothing_else(byte: int) -> None:
    raw = b"GE" + bytes((byte,)) + b"T / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert verdict(raw) == ("request" if byte in TCHAR else "failed")


@pytest.mark.parametrize("byte", range(256))
def test_host_holds_what_rfc_3986_allows(byte: int) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a" + bytes((byte,)) + b"b\r\n\r\n"
    assert verdict(raw) == ("request" if byte in REG_NAME else "failed")


@pytest.mark.parametrize("byte", range(256))
def test_chunk_size_begins_with_a_hexadecimal_digit(byte: int) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    door = probe()
    door.feed(raw)
    assert door.poll()[0] == "request"
    door.feed(bytes((byte,)))
    assert door.poll()[0] == ("need_data" if byte in string.hexdigits.encode() else "failed")


@pytest.mark.parametrize("byte", set(range(256)) - set(string.hexdigits.encode()))
def test_chunk_size_is_followed_by_crlf_or_an_extension(byte: int) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3" + bytes((byte,))
    door = probe()
    door.feed(raw)
    assert door.poll()[0] == "request"
    assert door.poll()[0] == ("need_data" if byte in b"\r;" else "failed")


def test_ipv6_literals_are_judged_as_the_standard_library_judges_them() -> None:
    chosen = random.Random(6)
    groups = ["", "0", "1", "ab", "ffff", "12345", "g", "1.2.3.4", "256.1.1.1", "1.2.3", "01.2.3.4"]
    seen = set()
    for _ in range(20_000):
        text = ":".join(chosen.choices(groups, weights=(6, 4, 4, 4, 4, 1, 1, 1, 1, 1, 1), k=chosen.randint(1, 9)))
        try:
            ipaddress.IPv6Address(text)
            legal = True
        except ValueError:
            legal = False
        seen.add(legal)
        raw = b"GET / HTTP/1.1\r\nHost: [" + text.encode() + b"]\r\n\r\n"
        assert verdict(raw) == ("request" if legal else "failed"), text
    assert seen == {True, False}


@pytest.mark.parametrize("size", [0, 1, 9, 2**31, 2**32, 2**62, 2**63 - 808])
def test_length_is_read_up_to_63_bits(size: int) -> None:
    head = only(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    assert head["content_length"] == size


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**64, 2**64 + 3, 10**30])
def test_length_that_does_not_fit_is_refused(size: int) -> None:
    assert verdict(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size) == "failed"


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 4095, 65537])
def test_chunks_of_any_size_are_joined(size: int) -> None:
    content = random.Random(size).randbytes(size)
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"%x\r\n" % size + content + b"\r\n1;x\r\n!\r\n0\r\n\r\n"
    door = probe()
    received = b""
    for piece in random_splits(raw, size):
        door.feed(piece)
        while (event := door.poll())[0] not in ("need_data", "end"):
            received += event[1] if event[0] == "data" else b""
    assert event == ("end",)
    assert received == content + b"!"
    assert door.connection.body_received == size + 1


def test_chunk_size_may_be_the_largest_that_fits() -> None:
    door = probe()
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc")
    assert [door.poll()[0] for _ in range(3)] == ["request", "data", "need_data"]


def test_sizes_that_fit_alone_but_not_together_are_refused() -> None:
    door = probe()
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n7fffffffffffffff\r\nabc")
    assert [door.poll()[0] for _ in range(3)] == ["request", "data", "failed"]


def test_head_that_fills_its_limits_exactly_is_read_in_any_pieces() -> None:
    lines = [b"GET /%s HTTP/1.1" % (b"t" * (8190 - 14)), b"Host: a"]
    lines += [b"X-%02d: %s" % (number, b"v" * (8190 - 6)) for number in range(6)]
    raw = b"\r\n".join(lines) + b"\r\n\r\n"
    assert len(raw) <= 65536
    expected = replay(probe(), whole(raw))
    assert expected[0].startswith("request GET")
    assert replay(probe(), byte_by_byte(raw)) == expected


def test_every_truncation_of_a_head_waits_for_more() -> None:
    raw = b"POST /a?b HTTP/1.1\r\nHost: example.com:80\r\nX-Long-Name-Here: some value\r\nContent-Length: 1\r\n\r\nx"
    for size in range(1, len(raw) - 1):
        assert verdict(raw[:size]) == "need_data", raw[:size]


def test_portable_scan_of_values_finds_what_the_fast_one_finds() -> None:
    chosen = random.Random(8)
    bytes_that_stop = [byte for byte in range(256) if byte not in VCHAR_OBS]
    for _ in range(20_000):
        text = bytearray(chosen.choices(b"ab\t \x80\xff~", k=chosen.randint(0, 70)))
        for _ in range(chosen.choice((0, 0, 1, 3))):
            text.insert(chosen.randint(0, len(text)), chosen.choice(bytes_that_stop))
        start = chosen.randint(0, min(len(text), 9))
        expected = next((at for at in range(start, len(text)) if text[at] not in VCHAR_OBS), len(text))
        assert find_value_end(bytes(text), start) == (expected, expected), text
