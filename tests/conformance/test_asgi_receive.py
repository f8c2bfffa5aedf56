"""ASGI receive(): bodies, disconnects, cancellation, and when the client is told to go on."""

from __future__ import annotations

import pytest
from support.probe import Probe, literal
from support.wire import chunked, request


def test_first_receive_of_a_bodyless_request_is_empty_and_final(asgi: Probe) -> None:
    message = asgi.value("receive_first")
    assert message["type"] == "http.request"
    assert message.get("body", b"") == b""
    assert message.get("more_body", False) is False


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PURGE"])
def test_content_length_zero_is_an_empty_body_for_every_method(asgi: Probe, method: str) -> None:
    assert asgi.ask("echo", method=method, body=b"").body == b""


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "POST", "PUT", "QUERY"])
def test_body_is_framed_for_every_method(asgi: Probe, method: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method=method, body=b"GET / HTTP/1.1\r\n\r\n"))
        assert wire.read_response().body == b"GET / HTTP/1.1\r\n\r\n"
        wire.send(asgi.request("echo", method=method, body=b"again"))
        assert wire.read_response().body == b"again"


def test_body_of_a_head_request_is_not_the_next_request(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="HEAD", body=b"12345") + asgi.request("echo", method="POST", body=b"next"))
        response = wire.read_response("HEAD")
        assert (response.status, response.get("content-length")) == (200, b"5")
        assert wire.read_response().body == b"next"


def test_messages_of_a_body_carry_bytes_and_end_once(asgi: Probe) -> None:
    body = bytes(range(256)) * 2000
    messages = asgi.value("receive_messages", method="POST", body=body)
    assert b"".join(message["body"] for message in messages) == body
    assert all(type(message["body"]) is bytes and message["type"] == "http.request" for message in messages)
    assert [message.get("more_body", False) for message in messages[:-1]] == [True] * (len(messages) - 1)
    assert messages[-1].get("more_body", False) is False


def test_body_arriving_byte_by_byte_is_whole(asgi: Probe) -> None:
    with asgi.connect() as wire:
        for byte in asgi.request("echo", method="POST", body=b"one byte at a time"):
            wire.send(bytes([byte]))
        assert wire.read_response().body == b"one byte at a time"


def test_chunked_body_is_delivered_without_its_framing(asgi: Probe) -> None:
    head = asgi.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")])
    with asgi.connect() as wire:
        wire.send(head + chunked(b"one", b"two" * 1000, b"\r\n0\r\n\r\n"))
        assert wire.read_response().body == b"one" + b"two" * 1000 + b"\r\n0\r\n\r\n"
        wire.send(head + b'3;ext="a;b"\r\nabc\r\n000A;x\r\n0123456789\r\n00\r\n\r\n')
        assert wire.read_response().body == b"abc0123456789"


def test_trailers_of_a_request_reach_neither_body_nor_headers(asgi: Probe) -> None:
    head = asgi.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
    with asgi.connect() as wire:
        wire.send(head + chunked(b"body", trailers=b"X-Sum: 1\r\nContent-Length: 99\r\nHost: evil\r\n"))
        assert wire.read_response().body == b"body"
        wire.send(asgi.request("show_scope"))
        assert b"x-sum" not in dict(map(tuple, literal(wire.read_response())["headers"]))


def test_receive_waits_after_the_body_and_tells_the_end_any_number_of_times(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("receive_blocks_after_body", key, method="POST", body=b"abc"))
        assert wire.read_response().body == b"ok"
        notes = asgi.wait_for_notes(key, 4)  # the client is still there: the response's end alone is told
    assert notes == [("early", False), "http.disconnect", "http.disconnect", "http.disconnect"]


def test_receive_after_the_response_says_disconnect_even_if_the_body_was_not_read(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("receive_after_response_without_reading", key, method="POST", body=b"unread"))
        assert wire.read_response().body == b"ok"
        assert asgi.wait_for_notes(key, 2) == ["http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_is_told_as_disconnect(asgi: Probe, key: str, how: str) -> None:
    wire = asgi.connect()
    wire.send(asgi.request("wait_for_disconnect", key, method="POST", body=b"abc"))
    asgi.wait_for_notes(key, 1)
    wire.close() if how == "close" else wire.reset()
    assert asgi.wait_for_notes(key, 3) == [b"abc", "http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_inside_the_body_is_told_as_disconnect_not_as_its_end(asgi: Probe, key: str, how: str) -> None:
    wire = asgi.connect()
    wire.send(asgi.request("read_until_disconnect", key, method="POST", headers=[("Content-Length", "10")]) + b"abc")
    asgi.wait_for_notes(key, 1)
    wire.close() if how == "close" else wire.reset()
    body = asgi.wait_for_notes(key, 2)[1]
    assert body in ((b"abc<disconnect>",) if how == "close" else (b"abc<disconnect>", b"<disconnect>"))


def test_client_that_leaves_inside_a_chunked_body_is_told_as_disconnect(asgi: Probe, key: str) -> None:
    head = asgi.request("read_until_disconnect", key, method="POST", headers=[("Transfer-Encoding", "chunked")])
    wire = asgi.connect()
    wire.send(head + b"3\r\nabc\r\n")
    asgi.wait_for_notes(key, 1)
    wire.close()
    assert asgi.wait_for_notes(key, 2)[1] == b"abc<disconnect>"


@pytest.mark.parametrize("rest", [b"X\r\n", b"3\r\nabcX\r\n", b"-1\r\n", b"3\nabc\n"])
def test_broken_chunk_is_a_disconnect_for_the_app_and_400_for_the_client(asgi: Probe, key: str, rest: bytes) -> None:
    head = asgi.request("read_until_disconnect", key, method="POST", headers=[("Transfer-Encoding", "chunked")])
    with asgi.connect() as wire:
        wire.send(head + b"3\r\nabc\r\n")
        asgi.wait_for_notes(key, 1)
        wire.send(rest)
        assert asgi.wait_for_notes(key, 2)[1].endswith(b"<disconnect>")
        response = wire.read_response()
        assert (response.status, response.closes) == (400, True)
        wire.expect_end()


def test_cancelled_receive_loses_nothing(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("cancel_receive", key, method="POST", headers=[("Content-Length", "6")]))
        asgi.wait_for_notes(key, 1)
        wire.send(b"abc")
        asgi.notes(key)
        wire.send(b"def")
        assert literal(wire.read_response()) == (b"abcdef", True)


def test_receive_that_timed_out_in_the_app_still_tells_the_end_later(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("time_out_receive", key))
        assert wire.read_response().status == 200
        assert asgi.wait_for_notes(key, 2) == ["timed out", "http.disconnect"]


def test_two_listeners_for_the_disconnect_both_come_back(asgi: Probe, key: str) -> None:
    """Two libraries waiting at once is defined: each hears of the disconnect, or is refused, and none hangs."""
    wire = asgi.connect()
    wire.send(asgi.request("receive_twice_at_once", key))
    asgi.wait_for_notes(key, 1)
    wire.close()
    results = asgi.wait_for_notes(key, 2)[1]
    assert "http.disconnect" in results and set(results) <= {"http.disconnect", "error"}


# 100 Continue (RFC 9110 10.1.1)

EXPECT = [("Expect", "100-continue"), ("Content-Length", "4")]


def test_100_is_sent_when_the_app_first_asks_for_the_body_and_not_before(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("wait_then_read", key, method="POST", headers=EXPECT))
        asgi.wait_for_notes(key, 1)
        assert wire.buffered() == b""
        asgi.open_gate(key)
        assert wire.read_interim() == (100, [])
        wire.send(b"body")
        response = wire.read_response()
        assert response.interim == []
        assert literal(response) == b"body"


def test_100_is_sent_once_however_often_the_app_receives(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", headers=EXPECT))
        assert wire.read_interim()[0] == 100
        for byte in b"body":
            wire.send(bytes([byte]))
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"body")


def test_100_is_never_sent_to_an_app_that_does_not_read(asgi: Probe) -> None:
    """The client may have kept its body back, so the connection cannot be reused unless the body is known to come."""
    with asgi.connect() as wire:
        wire.send(asgi.request("ignore_body", method="POST", headers=EXPECT))
        response = wire.read_response()
        assert (response.status, response.interim) == (200, [])
        assert response.closes
        wire.expect_end()


def test_expectation_is_recognised_in_any_case(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", headers=[("EXPECT", "100-Continue"), ("Content-Length", "4")]))
        assert wire.read_interim()[0] == 100
        wire.send(b"body")
        assert wire.read_response().body == b"body"


def test_client_that_does_not_wait_for_100_is_served(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", headers=[("Expect", "100-continue")], body=b"body"))
        assert wire.read_response().body == b"body"
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_http10_client_is_never_sent_100(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", headers=EXPECT, version="1.0") + b"body")
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"body")


def test_expectation_without_a_body_brings_no_100(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("receive_first", headers=[("Expect", "100-continue")]))
        response = wire.read_response()
        assert (response.status, response.interim) == (200, [])


def test_unknown_expectation_is_417(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", headers=[("Expect", "200-ok")], body=b"body"))
        response = wire.read_response()
        assert (response.status, response.closes) == (417, True)


# Flow control of the request body


def test_unread_upload_is_held_back_by_the_socket(asgi: Probe, key: str) -> None:
    """While the app does not receive, the server stops reading: the client's send blocks, memory stays bounded."""
    size = 64 * 1024 * 1024
    with asgi.connect() as wire:
        wire.send(asgi.request("count_received", key, method="POST", headers=[("Content-Length", str(size))]))
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
                asgi.notes(key)
        assert sent < size // 2
        asgi.open_gate(key)
        wire.socket.settimeout(30)
        while sent < size:
            sent += wire.socket.send(piece[: size - sent])
        assert literal(wire.read_response()) == size


def test_pipelined_request_is_not_parsed_into_the_previous_body(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", method="POST", body=b"first") + asgi.request("echo", method="POST", body=b"second"))
        assert wire.read_response().body == b"first"
        assert wire.read_response().body == b"second"


def test_unread_small_body_does_not_become_the_next_request(asgi: Probe) -> None:
    smuggled = request(target="/smuggled")
    with asgi.connect() as wire:
        wire.send(asgi.request("ignore_body", method="POST", body=smuggled) + asgi.request("echo", method="POST", body=b"b"))
        first = wire.read_response()
        assert literal(first) == "not read"
        if first.closes:
            wire.expect_end()
        else:
            assert wire.read_response().body == b"b"
