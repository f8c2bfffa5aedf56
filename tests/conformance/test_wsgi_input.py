"""PEP 3333, wsgi.input: every method, mixed; chunked bodies; broken bodies; 100 Continue."""

from __future__ import annotations

from typing import Any

import pytest
from support.probe import Probe, literal
from support.wire import chunked, request

LINES = b"first\nsecond\r\n\n\nlast without newline"


def results(probe: Probe, plan: str, body: bytes = LINES, coding: str = "length") -> Any:
    """What the calls of a plan returned."""
    with probe.connect() as wire:
        if coding == "length":
            wire.send(probe.request("read_plan", method="POST", plan=plan, body=body))
        else:
            size = 1 if coding == "one byte chunks" else 7
            chunks = [body[start : start + size] for start in range(0, len(body), size)]
            head = probe.request("read_plan", method="POST", plan=plan, headers=[("Transfer-Encoding", "chunked")])
            wire.send(head + chunked(*chunks))
        response = wire.read_response()
        assert response.status == 200, response
        value = literal(response)
        wire.send(probe.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next", "the connection must be usable after the body"
    return value


@pytest.mark.parametrize("coding", ["length", "chunked", "one byte chunks"])
@pytest.mark.parametrize(
    "plan, expected",
    [
        ("read", [LINES]),
        ("read:-1", [LINES]),
        ("read read", [LINES, b""]),
        ("read:5 read:1 read", [b"first", b"\n", LINES[6:]]),
        ("read:0 read:5", [b"", b"first"]),
        ("read:1000 read:1", [LINES, b""]),
        ("readline " * 7, [b"first\n", b"second\r\n", b"\n", b"\n", b"last without newline", b"", b""]),
        ("readline:3 readline:3 readline:100 readline:0", [b"fir", b"st\n", b"second\r\n", b""]),
        ("readline:-1 readline:-1", [b"first\n", b"second\r\n"]),
        ("readlines", [[b"first\n", b"second\r\n", b"\n", b"\n", b"last without newline"]]),
        ("readlines readlines read", [[b"first\n", b"second\r\n", b"\n", b"\n", b"last without newline"], [], b""]),
        ("list list", [[b"first\n", b"second\r\n", b"\n", b"\n", b"last without newline"], []]),
        ("next next read:3 readline list", [b"first\n", b"second\r\n", b"\n\nl", b"ast without newline", []]),
        ("read:8 readline readlines", [b"first\nse", b"cond\r\n", [b"\n", b"\n", b"last without newline"]]),
        ("readline read:2 next read", [b"first\n", b"se", b"cond\r\n", b"\n\nlast without newline"]),
    ],
)
def test_methods_mix_and_keep_newlines(wsgi: Probe, plan: str, expected: list[Any], coding: str) -> None:
    assert results(wsgi, plan, coding=coding) == expected


def test_readlines_hint_ends_early_but_with_whole_lines(wsgi: Probe) -> None:
    first, rest = results(wsgi, "readlines:8 readlines")
    assert b"".join(first + rest) == LINES
    assert first[0] == b"first\n"


@pytest.mark.parametrize(
    "plan, expected", [("read", [b""]), ("readline", [b""]), ("readlines", [[]]), ("list", [[]]), ("next", ["end"])]
)
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_empty_body_is_the_end_at_once(wsgi: Probe, plan: str, expected: list[Any], coding: str) -> None:
    assert results(wsgi, plan, b"", coding) == expected


def test_request_without_a_body_is_the_end_at_once(wsgi: Probe) -> None:
    assert wsgi.value("read_plan", plan="read readline readlines list") == [b"", b"", [], []]


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 1_000_000])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_bodies_around_the_buffer_size_are_whole(wsgi: Probe, size: int, coding: str) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    with wsgi.connect() as wire:
        if coding == "length":
            wire.send(wsgi.request("echo", method="POST", body=body))
        else:
            chunks = [body[start : start + 10_000] for start in range(0, size, 10_000)]
            wire.send(wsgi.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")]) + chunked(*chunks))
        assert wire.read_response().body == body
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_long_line_without_newline_is_read_whole(wsgi: Probe) -> None:
    body = b"x" * 200_000
    assert results(wsgi, "readline readline", body) == [body, b""]


def test_wrappers_of_the_standard_library_work(wsgi: Probe) -> None:
    body = bytes(range(256)) * 1000
    assert wsgi.value("read_with_wrappers", method="POST", body=body) == body


def test_body_arriving_byte_by_byte_is_whole(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        for byte in wsgi.request("echo", method="POST", body=b"one byte at a time"):
            wire.send(bytes([byte]))
        assert wire.read_response().body == b"one byte at a time"


def test_read_never_goes_past_content_length(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("read_plan", method="POST", body=b"abc", plan="read:100 readline read") + wsgi.request("echo"))
        assert literal(wire.read_response()) == [b"abc", b"", b""]
        assert wire.read_response().status == 200


def test_input_can_be_read_while_the_response_is_iterated(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("read_after_start", method="POST", body=b"abcdef"))
        assert wire.read_response().body == b"head abcdef"


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_client_that_leaves_inside_a_long_body_is_an_error_of_read(wsgi: Probe, key: str, coding: str) -> None:
    """Longer than what is read before the app is called, so that the app is inside read() when it happens."""
    body = b"x" * 200_000
    wire = wsgi.connect()
    if coding == "length":
        wire.send(wsgi.request("read_broken", key, method="POST", size="50000", headers=[("Content-Length", "300000")]) + body)
    else:
        head = wsgi.request("read_broken", key, method="POST", size="50000", headers=[("Transfer-Encoding", "chunked")])
        wire.send(head + b"493e0\r\n" + body)
    wire.close()
    notes = wsgi.wait_for_notes(key, lambda notes: bool(notes) and notes[-1][0] in ("raised", "complete"))
    assert notes[-1][:2] == ("raised", True), "a cut body must never look complete"


def test_client_that_leaves_inside_a_short_body_is_never_a_complete_body(wsgi: Probe, key: str) -> None:
    wire = wsgi.connect()
    wire.send(wsgi.request("read_broken", key, method="POST", headers=[("Content-Length", "10")]) + b"abc")
    wire.close()
    other = wsgi.notes(key)  # served by the same threads, so the first request has been dealt with or is still waiting
    assert not any(note[0] == "complete" for note in other)


def test_half_closed_client_with_a_cut_body_gets_an_error(wsgi: Probe, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("read_broken", key, method="POST", headers=[("Content-Length", "10")]) + b"abc")
        wire.half_close()
        data = wire.read_rest()
    assert not data or data.split(b" ")[1] in (b"400", b"408", b"500")
    assert not any(note[0] == "complete" for note in wsgi.notes(key))


@pytest.mark.parametrize("rest", [b"X\r\n", b"3\r\nabcX\r\n", b"-1\r\n", b"3\nabc\n"])
def test_broken_chunk_is_an_error_and_closes(wsgi: Probe, key: str, rest: bytes) -> None:
    head = wsgi.request("read_broken", key, method="POST", headers=[("Transfer-Encoding", "chunked")])
    with wsgi.connect() as wire:
        wire.send(head + b"3\r\nabc\r\n" + rest)
        response = wire.read_response()
        assert (response.status, response.closes) in ((400, True), (500, True))
        wire.expect_end()
    notes = wsgi.notes(key)
    assert not any(note[0] == "complete" for note in notes)
    assert not notes or notes[-1][:2] == ("raised", True)


def test_broken_chunk_behind_a_long_body_raises_out_of_read(threaded_wsgi: Probe, key: str) -> None:
    head = threaded_wsgi.request("read_broken", key, method="POST", size="50000", headers=[("Transfer-Encoding", "chunked")])
    with threaded_wsgi.connect() as wire:
        wire.send(head + b"30d40\r\n" + b"x" * 200_000 + b"\r\n")
        threaded_wsgi.wait_for_notes(key, 2)
        wire.send(b"nonsense\r\n")
        response = wire.read_response()
        assert response.closes and response.status in (400, 500)
        wire.expect_end()
    notes = threaded_wsgi.wait_for_notes(key, lambda notes: notes[-1][0] in ("raised", "complete"))
    assert notes[-1][:2] == ("raised", True)


# 100 Continue


EXPECT = [("Expect", "100-continue"), ("Content-Length", "4")]


def test_100_is_sent_on_the_first_read_and_not_before(threaded_wsgi: Probe, key: str) -> None:
    with threaded_wsgi.connect() as wire:
        wire.send(threaded_wsgi.request("wait_then_read", key, method="POST", headers=EXPECT))
        threaded_wsgi.wait_for_notes(key, 1)
        assert wire.buffered() == b""
        threaded_wsgi.open_gate(key)
        assert wire.read_interim() == (100, [])
        wire.send(b"body")
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"body")
        wire.send(threaded_wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_100_is_sent_once_however_often_the_app_reads(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("read_plan", method="POST", plan="read:1 read:1 read", headers=EXPECT))
        assert wire.read_interim()[0] == 100
        wire.send(b"body")
        response = wire.read_response()
        assert (response.interim, literal(response)) == ([], [b"b", b"o", b"dy"])


def test_100_is_never_sent_to_an_app_that_does_not_read(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("ignore_body", method="POST", headers=EXPECT))
        response = wire.read_response()
        assert (response.status, response.interim) == (200, [])
        assert response.closes, "the client may or may not send the body now: the connection cannot be reused"
        wire.expect_end()


def test_client_that_does_not_wait_for_100_is_served(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("echo", method="POST", headers=[("Expect", "100-continue")], body=b"body"))
        assert wire.read_response().body == b"body"
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_http10_client_is_never_sent_100(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("echo", method="POST", headers=EXPECT, version="1.0") + b"body")
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"body")


def test_unknown_expectation_is_417(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("echo", method="POST", headers=[("Expect", "200-ok")], body=b"body"))
        response = wire.read_response()
        assert (response.status, response.closes) == (417, True)


# What the app leaves unread


def test_unread_small_body_does_not_become_the_next_request(wsgi: Probe) -> None:
    smuggled = request(target="/smuggled")
    for scenario, answer in (("ignore_body", "not read"), ("read_some", b"GET")):
        with wsgi.connect() as wire:
            wire.send(wsgi.request(scenario, method="POST", body=smuggled) + wsgi.request("echo", method="POST", body=b"b"))
            first = wire.read_response()
            assert literal(first) == answer
            if first.closes:
                wire.expect_end()
            else:
                assert wire.read_response().body == b"b"


def test_unread_upload_is_held_back_by_the_socket(threaded_wsgi: Probe, key: str) -> None:
    size = 64 * 1024 * 1024
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(probe.request("count_received", key, method="POST", headers=[("Content-Length", str(size))]))
        wire.socket.setblocking(False)
        sent = 0
        piece = b"x" * 65536
        blocked = 0
        while blocked < 50:  # looks: each asks the same server something, so it had its chance to read more
            try:
                sent += wire.socket.send(piece)
                blocked = 0
            except BlockingIOError:
                blocked += 1
                probe.notes(key)
        assert sent < size // 2
        probe.open_gate(key)
        wire.socket.settimeout(30)
        while sent < size:
            sent += wire.socket.send(piece[: size - sent])
        assert literal(wire.read_response()) == size
