"""The connection read by llhttp: what differs from ours, always towards strictness. The corpus holds the two together."""

from __future__ import annotations

import pytest
from support.corpus import probe, replay, whole

from duckfast._httptools import HttptoolsConnection


def events(raw: bytes, **limits: int) -> list[str]:
    return replay(probe(HttptoolsConnection, **limits), whole(raw))


def test_request_is_the_one_our_own_parser_reads() -> None:
    raw = (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: example.com:80\r\nX-One:  a\t b \r\nX_Two: 2\r\nTE: trailers\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        b"HEAD http://other/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    )
    assert events(raw) == replay(probe(), whole(raw))
    assert not any(line.startswith("error") for line in events(raw))


@pytest.mark.parametrize(
    "rest", [b"/ HTTP/1.2\r\nHost: a\r\n\r\n", b"/ HTTP/1.1\r\n=: a\r\n\r\n", b"/ HTTP/1.1\r\nX: a\nb\r\n\r\n"]
)
def test_refused_head_request_is_answered_without_a_body(rest: bytes) -> None:
    for method, ends_with_head in ((b"HEAD", True), (b"GET", False), (b"HEADS", False)):
        door = probe(HttptoolsConnection)
        door.feed(method + b" " + rest)
        assert door.poll()[0] == "failed"
        assert door.refuse(400, b"no").endswith(b"\r\n\r\n") == ends_with_head


@pytest.mark.parametrize("line", [b"BREW / HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/1.2", b"GET /\xff HTTP/1.1"])
def test_what_llhttp_does_not_know_is_refused(line: bytes) -> None:
    assert events(line + b"\r\nHost: a\r\n\r\n")[-1].startswith("error 400")
    assert "end" in replay(probe(), whole(line + b"\r\nHost: a\r\n\r\n"))


@pytest.mark.parametrize(
    "raw",
    [
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"SOURCE /x ICE/1.0\r\nHost: a\r\n\r\n",
        b"DESCRIBE /x RTSP/1.0\r\nHost: a\r\n\r\n",
    ],
)
def test_rules_of_ours_hold_on_top(raw: bytes) -> None:
    assert events(raw)[-1].startswith("error 400")


def test_limits_of_ours_hold_on_top() -> None:
    assert events(b"GET /" + b"a" * 9000)[-1].startswith("error 414")
    assert events(b"GET / HTTP/1.1\r\nX: " + b"a" * 9000)[-1].startswith("error 431")
    assert events(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n")[-1] == 'error 431 "too many fields"'
    head = b"POST / HTTP/1.1\r\nHost: a\r\n"
    assert events(head + b"Content-Length: 11\r\n\r\n", body=10)[-1].startswith("error 413")
    assert events(head + b"Transfer-Encoding: chunked\r\n\r\nb\r\n", body=10)[-1].startswith("error 413")


def test_body_of_a_request_that_llhttp_takes_for_an_upgrade_is_still_framed() -> None:
    raw = (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    assert events(raw) == replay(probe(), whole(raw))


def test_spans_outlive_the_bytes_they_were_read_from() -> None:
    door = probe(HttptoolsConnection)
    for number in range(3):
        door.feed(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
        event, head = door.poll()
        assert (event, head["target"]) == ("request", b"/%d" % number)
        assert door.poll() == ("end",)
        door.settle()
        door.next_request()


def test_large_body_is_what_was_sent() -> None:
    content = bytes(range(256)) * 400
    door = probe(HttptoolsConnection)
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content) + content[:1000])
    received = b""
    while (event := door.poll())[0] != "end":
        if event[0] == "data":
            received += event[1]
        elif event[0] == "need_data":
            door.feed(content[len(received) : len(received) + 30_000])
    assert received == content
