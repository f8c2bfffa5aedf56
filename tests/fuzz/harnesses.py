"""What must hold for any bytes at all. Each harness takes bytes and raises AssertionError when a promise is broken.

A sanitizer or a debug build adds its own: reads beside a buffer, moves outside the tables of states.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from typing import Any

import h11
from fuzz import engine_harnesses as engines
from fuzz import grammar_harnesses as grammar
from fuzz import proxy_harnesses as proxies
from fuzz import websocket_harnesses as websockets
from fuzz.application_harness import check_application
from support.corpus import byte_by_byte, load_cases, probe, random_splits, replay, whole

from duckfast._http1 import Probe
from duckfast._httptools import HttptoolsConnection
from duckfast._logformat import LogFormat
from duckfast.logformat import parse

STATUSES = {400, 413, 414, 417, 431, 501, 505}
CONTROLS = set(range(32)) - {9} | {127}
# Bytes up to which a request is also fed one at a time; longer ones are cut at random places only.
SLOW_UP_TO = 3_000

# Sets of limits that make the limits themselves likely to be met.
LIMITS: tuple[dict[str, int | None], ...] = (
    {},
    {},
    {"request_line": 40, "field_line": 30, "fields": 4, "head": 150},
    {"body": 10, "chunk_extensions": 20, "trailers": 30, "field_line": 60},
    {"fields": 1, "head": 60, "body": 0, "trailers": 2},
)


def limits_for(data: bytes) -> dict[str, int | None]:
    return LIMITS[zlib.crc32(data) % len(LIMITS)]


def check_head(head: dict[str, Any]) -> None:
    """What every accepted head has in common."""
    names = [name.lower() for name, _ in head["fields"]]
    for name, value in head["fields"]:
        assert name and not CONTROLS & set(name) and not set(b" \t:,;") & set(name)
        assert not CONTROLS & set(value) and value == value.strip(b" \t")
    assert head["target"] and not (CONTROLS | {9, 32, 35}) & set(head["target"])
    assert head["path"][:1] in (b"/", b"*")
    assert head["minor"] in (0, 1)
    assert names.count(b"host") == 1 or (head["minor"] == 0 and b"host" not in names)
    assert names.count(b"content-length") <= 1
    assert not (head["chunked"] and (b"content-length" in names or head["minor"] == 0))
    assert head["chunked"] == (b"transfer-encoding" in names)
    assert (head["content_length"] >= 0) == (b"content-length" in names)
    assert head["dropped"] == len(head["underscored"]) == sum(b"_" in name for name in names)


def read_all(door: Probe, data: bytes) -> None:
    """One read of everything, looking at what is not in the lines of replay()."""
    door.feed(data)
    door.feed_eof()
    received = 0
    while True:
        event, *values = door.poll()
        if event == "request":
            check_head(values[0])
            received = 0
        elif event == "data":
            received += len(values[0])
            assert values[0] and door.connection.body_received == received
        elif event == "end":
            assert door.connection.request_complete
            if not door.connection.request_keep_alive:
                return
        elif event == "paused":
            door.next_request()
        elif event == "failed":
            assert values[0] in STATUSES and values[1].isascii() and values[1].isprintable()
            assert door.unread == 0
            assert door.poll() == (event, *values)
            return
        else:
            assert event == "closed"
            return


def check_requests(data: bytes) -> None:
    """Any bytes give the same events however they are cut, and every accepted head keeps the rules."""
    limits = limits_for(data)
    read_all(probe(**limits), data)
    expected = replay(probe(**limits), whole(data), eof=True)
    assert replay(probe(**limits), random_splits(data, zlib.crc32(data)), eof=True) == expected
    if len(data) <= SLOW_UP_TO:
        assert replay(probe(**limits), byte_by_byte(data), eof=True) == expected


def check_memory(data: bytes) -> None:
    """What a connection keeps of unread bytes stays within the head's limit, whatever comes in whatever pieces."""
    limits = limits_for(data)
    door = probe(**limits)
    bound = 2 * (limits.get("head") or 65536) + 2 * (limits.get("trailers") or 8192) + 2 * 300 + 1024
    for piece in random_splits(data, len(data)):
        door.feed(piece)
        while (event := door.poll()[0]) not in ("need_data", "failed"):
            if event == "paused":
                if not door.connection.request_keep_alive:
                    return
                door.next_request()
        door.settle()
        assert door.kept <= bound
        if event == "failed":
            return


def check_llhttp(data: bytes) -> None:
    """The reader behind --http httptools never accepts what ours refuses, and reads the same where both accept."""
    limits = limits_for(data)
    ours = replay(probe(**limits), whole(data), eof=True)
    theirs = replay(probe(HttptoolsConnection, **limits), whole(data), eof=True)
    if theirs[-1].startswith("error"):
        # Up to there they must agree on every request that both have read whole.
        ends = min(sum(line == "end" for line in lines) for lines in (ours, theirs))
        assert up_to_end(theirs, ends) == up_to_end(ours, ends)
    else:
        assert theirs == ours


def up_to_end(lines: list[str], ends: int) -> list[str]:
    kept = []
    for line in lines:
        if ends == 0:
            break
        kept.append(line)
        ends -= line == "end"
    return kept


def check_responses(data: bytes) -> None:
    """Whatever an application answers, the client gets one whole message or a visible break, or nothing leaves at all."""
    chosen = random.Random(data)
    method = chosen.choice(("GET", "HEAD", "POST"))
    minor = chosen.choice((0, 1, 1))
    connection = chosen.choice(("", "Connection: close\r\n", "Connection: keep-alive\r\n"))
    door = probe()
    door.feed(f"{method} / HTTP/1.{minor}\r\nHost: a\r\n{connection}\r\n".encode())
    while door.poll()[0] != "end":
        pass
    status = chosen.choice((200, 200, 200, 204, 304, 404, 500, chosen.randrange(100, 700)))
    pieces = [data[start : start + 50] for start in range(0, len(data), 50)][: chosen.randrange(4)]
    fields = [(b"X-Data", data[:20].strip(b" \t")) for _ in range(chosen.randrange(3))]
    if chosen.random() < 0.3:
        fields.append((b"Content-Length", chosen.choice((b"0", b"3", b"60", str(sum(map(len, pieces))).encode(), data[:3]))))
    if chosen.random() < 0.3:
        fields.append((data[:6], b"v"))
    if chosen.random() < 0.2:
        fields.append((b"Transfer-Encoding", b"chunked"))
    body_size = sum(map(len, pieces)) if chosen.random() < 0.5 else -1
    try:
        wire = door.start_response(status, fields, body_size=body_size)
    except ValueError:
        assert door.writing == "head"
        return
    sent = b""
    for piece in pieces:
        wire += door.send(piece)
        sent += piece
    tail, ending = door.finish(chosen.choice((b"", b"X-Sum: 1\r\n")))
    check_as_client(method, wire + tail, sent, ending)


def check_as_client(method: str, wire: bytes, sent: bytes, ending: str) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")] + [("Content-Length", "0")] * (method == "POST")))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    if ending != "keep_alive":
        client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    content = b""
    try:
        while isinstance(event := client.next_event(), h11.Data):
            content += bytes(event.data)
    except h11.RemoteProtocolError:
        assert ending == "short"
        return
    assert isinstance(event, h11.EndOfMessage) and ending != "short"
    assert client.trailing_data[0] == b""
    if method == "HEAD" or response.status_code in (204, 304):
        assert content == b""
    else:
        assert sent.startswith(content)


TEMPLATE = '%(h)s %(u)s %(t)s "%(r)s" "%(R)s" "%(U)s?%(q)s" %(H)s %(b)s "%({host}i)s" "%({x}i)s" "%({x}o)s" %(request_id)s'
FORMATS = [LogFormat(parse(text), "X-Request-ID") for text in ("common", "combined", "json", TEMPLATE, "%(R)j %(u)j %({x}o)j")]
KEYS = json.loads(FORMATS[2].line(b"GET / HTTP/1.0\r\n\r\n") or b"").keys()


def check_access_lines(data: bytes) -> None:
    """Whatever a client sends, its request is one line of printable ASCII, and JSON has the keys of the format."""
    head = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nX: " + data.replace(b"\n", b"") + b"\r\n\r\n"
    for log_format in FORMATS:
        for request, refused in ((data, True), (head, False)):
            try:
                line = log_format.line(request, refused=refused, client=data[:40], response=response, sent=len(data))
            except ValueError:
                assert not refused
                continue
            assert line is not None and line.endswith(b"\n") and line[:-1].isascii() and line[:-1].decode().isprintable()
            if log_format is FORMATS[2]:
                assert json.loads(line).keys() == KEYS
            room = zlib.crc32(data) % (len(line) + 200)
            written = log_format.line(request, refused=refused, client=data[:40], response=response, room=room)
            assert written is None or len(written) <= room


HARNESSES: dict[str, Callable[[bytes], None]] = {
    "requests": check_requests,
    "heads": grammar.check_heads,
    "chunks": grammar.check_chunks,
    "memory": check_memory,
    "llhttp": check_llhttp,
    "readers": grammar.check_readers,
    "responses": check_responses,
    "application": check_application,
    "asgi": engines.check_asgi,
    "wsgi": engines.check_wsgi,
    "access-lines": check_access_lines,
    "proxy-protocol": proxies.check_proxy_protocol,
    "forwarded": proxies.check_forwarded,
    "frames": websockets.check_frames,
    "conversation": websockets.check_conversation,
}

def seeds() -> list[bytes]:
    """The corpus, and what only some harnesses can make something of."""
    return [*(case.raw for case in load_cases()), *proxies.SEEDS, *websockets.SEEDS, *engines.SEEDS]
