"""Bytes of responses: what applications give is checked before a byte of it leaves."""

from __future__ import annotations

import random
import string
from email.utils import formatdate

import pytest

from duckfast._http1 import HTTP1Connection, Probe
from duckfast._limits import Limits
from duckfast._writer import DefaultFields, format_date

TCHAR = set(b"!#$%&'*+-.^_`|~" + string.ascii_letters.encode() + string.digits.encode())
PLACES = (0, 1, 8, 15, 16, 17, 40)


def requested(raw: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", defaults: DefaultFields | None = None) -> Probe:
    """A connection that has read one whole request."""
    door = Probe(HTTP1Connection(Limits(), defaults or DefaultFields(server=None, date=False)))
    door.feed(raw)
    while door.poll()[0] != "end":
        pass
    return door


def refused(door: Probe, *args: object, **named: object) -> str:
    """The sentence for what is wrong with a response; nothing of it may be written."""
    with pytest.raises(ValueError) as raised:
        door.start_response(*args, **named)  # type: ignore[arg-type]
    assert door.start_response(200, body_size=0).startswith(b"HTTP/1.1 200 OK\r\n")
    return str(raised.value)


def test_dates_are_those_of_the_standard_library() -> None:
    chosen = random.Random(1)
    for second in [0, 951782400, 4102444799, *(chosen.randrange(253402300799) for _ in range(2000))]:
        assert format_date(second).decode() == formatdate(second, usegmt=True)


def test_status_line_has_the_standard_reason() -> None:
    assert requested().start_response(404, body_size=0).startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert requested().start_response(413, body_size=0).startswith(b"HTTP/1.1 413 Content Too Large\r\n")


def test_unregistered_status_keeps_the_space_of_an_empty_reason() -> None:
    assert requested().start_response(299, body_size=0).startswith(b"HTTP/1.1 299 \r\n")


def test_reason_of_an_application_is_kept() -> None:
    assert requested().start_response(200, reason=b"Fine \xe9", body_size=0).startswith(b"HTTP/1.1 200 Fine \xe9\r\n")
    assert requested().start_response(200, reason=b"", body_size=0).startswith(b"HTTP/1.1 200 \r\n")


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 600, 1000, 2**31 - 1])
def test_status_outside_200_to_599_is_refused(status: int) -> None:
    assert "200 to 599" in refused(requested(), status)


@pytest.mark.parametrize("status", range(200, 600))
def test_status_is_three_digits(status: int) -> None:
    assert requested().start_response(status, body_size=0)[:13] == b"HTTP/1.1 %d " % status


@pytest.mark.parametrize("byte", range(256))
def test_name_is_a_token(byte: int) -> None:
    for place in PLACES:
        name = b"n" * place + bytes((byte,)) + b"n" * (48 - place)
        if byte in TCHAR:
            assert b"\r\n" + name + b": v\r\n" in requested().start_response(200, [(name, b"v")], body_size=0)
        else:
            assert "not a token" in refused(requested(), 200, [(name, b"v")])


@pytest.mark.parametrize("byte", range(256))
def test_value_and_reason_hold_no_control_but_tab(byte: int) -> None:
    for place in PLACES:
        value = b"v" * place + bytes((byte,)) + b"v" * (48 - place)
        if byte == 9 or (byte >= 32 and byte != 127):
            assert b"\r\nX: " + value + b"\r\n" in requested().start_response(200, [(b"X", value)], body_size=0)
        else:
            assert "control" in refused(requested(), 200, [(b"X", value)])
            assert "control" in refused(requested(), 200, reason=value)


def test_empty_name_is_refused() -> None:
    assert "not a token" in refused(requested(), 200, [(b"", b"v")])


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1,1", b"0x1", b"1.0", b"one", b"9223372036854775808", b"1" * 40])
def test_content_length_that_is_none_is_refused(value: bytes) -> None:
    assert "Content-Length" in refused(requested(), 200, [(b"Content-Length", value)])


@pytest.mark.parametrize("second", [b"3", b"4"])
def test_second_content_length_is_refused(second: bytes) -> None:
    assert "more than once" in refused(requested(), 200, [(b"Content-Length", b"3"), (b"content-length", second)])


@pytest.mark.parametrize(
    "name", [b"Connection", b"Keep-Alive", b"Transfer-Encoding", b"Upgrade", b"TE", b"Trailer", b"proxy-connection"]
)
def test_hop_by_hop_fields_of_an_application_do_not_leave(name: bytes) -> None:
    head = requested().start_response(200, [(name, b"keep-alive"), (b"X", b"y")], body_size=3)
    assert head == b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\n"


def test_trailer_field_leaves_when_trailers_do() -> None:
    head = requested().start_response(200, [(b"Trailer", b"X-Sum")], trailers=True)
    assert head == b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_date_and_server_are_written_once() -> None:
    head = requested(defaults=DefaultFields()).start_response(200, body_size=0)
    assert head.count(b"Date: ") == head.count(b"Server: duckfast\r\n") == 1
    fields = [(b"date", b"today"), (b"SERVER", b"mine")]
    head = requested(defaults=DefaultFields()).start_response(200, fields, body_size=0)
    assert head == b"HTTP/1.1 200 OK\r\ndate: today\r\nSERVER: mine\r\nContent-Length: 0\r\n\r\n"


def test_date_and_server_can_be_left_out() -> None:
    defaults = DefaultFields(server=None, date=False)
    assert requested(defaults=defaults).start_response(200, body_size=0) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_extra_fields_are_on_every_response_and_stand_in_for_ours() -> None:
    defaults = DefaultFields(extra=[("X-A", "1"), ("x-a", "2"), ("Server", "other"), ("Date", "never")])
    head = b"Content-Length: 0\r\nDate: never\r\nServer: other\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    assert requested(defaults=defaults).start_response(200, body_size=0) == b"HTTP/1.1 200 OK\r\n" + head
    assert b"X-A: 1\r\nx-a: 2\r\n" in requested(defaults=defaults).refuse(400)


@pytest.mark.parametrize(
    "name, value",
    [("", "a"), ("a b", "a"), ("a:", "a"), ("é", "a"), ("a", "b\r\nc"), ("a", "\0"), ("a", "€"), ("Content-Length", "1"),
     ("transfer-encoding", "chunked"), ("Connection", "close")],
)  # fmt: skip
def test_extra_field_that_cannot_be_sent_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name if name in ("a", "Connection") else None):
        DefaultFields(extra=[(name, value)])


def test_server_value_may_be_bytes_or_text() -> None:
    for server in (b"goose", "goose"):
        assert b"\r\nServer: goose\r\n" in requested(defaults=DefaultFields(server=server)).start_response(200)


def test_chunk_sizes_are_hexadecimal() -> None:
    for size in (1, 9, 10, 15, 16, 255, 256, 4095, 4096, 65536):
        door = requested()
        door.start_response(200)
        assert door.send(b"x" * size) == b"%x\r\n" % size + b"x" * size + b"\r\n"
