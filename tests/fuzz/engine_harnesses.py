"""Both engines as they serve: any bytes over a socket, in any pieces, to applications that do whatever they like.

The harnesses take bytes and raise AssertionError when a promise is broken, as those of harnesses.py, which lists them. An engine
is started when it is first needed and serves until the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import random
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h11
from support.corpus import probe, random_splits
from support.engine import RunningEngine
from support.websocket import asking, closing, frame
from support.wire import DEADLINE

HEADERS: tuple[list[tuple[bytes, bytes]], ...] = (
    [], [], [(b"content-length", b"5")], [(b"content-length", b"0")], [(b"content-type", b"text/plain"), (b"x", b"y")],
    [(b"connection", b"close")], [(b"transfer-encoding", b"chunked")], [(b"x", b"a\r\nb")], [(b"content-length", b"x")],
)  # fmt: skip


class OnPurpose(Exception):
    """What the applications raise."""


async def asgi_app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    chosen = random.Random(repr((scope["path"], scope.get("method"))))
    if scope["type"] != "http":
        await receive()
        if chosen.random() < 0.5:
            await send({"type": "websocket.accept"})
            while (await receive())["type"] != "websocket.disconnect":
                await send({"type": "websocket.send", "text": "quack"})
        return
    for _ in range(chosen.choice((0, 1, 1, 5))):
        if not (await receive()).get("more_body"):
            break
    if chosen.random() < 0.1:
        raise OnPurpose
    status = chosen.choice((200, 200, 204, 304, 404))
    trailers = chosen.random() < 0.1
    await send({"type": "http.response.start", "status": status, "headers": chosen.choice(HEADERS), "trailers": trailers})
    for _ in range(chosen.choice((0, 0, 1, 3))):
        await send({"type": "http.response.body", "body": b"quack" * chosen.choice((0, 1, 1, 2_000)), "more_body": True})
        if chosen.random() < 0.2:
            await asyncio.sleep(0)
    if chosen.random() < 0.1:
        raise OnPurpose
    if chosen.random() < 0.9:
        await send({"type": "http.response.body", "body": b"quack"})
        if trailers:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})
    if chosen.random() < 0.2:
        await receive()


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    chosen = random.Random(repr((environ["PATH_INFO"], environ["REQUEST_METHOD"])))
    read = environ["wsgi.input"]
    for _ in range(chosen.choice((0, 1, 3))):
        if not chosen.choice((read.read, read.readline, lambda: read.read(3)))():
            break
    if chosen.random() < 0.1:
        raise OnPurpose
    headers = [(name.decode(), value.decode()) for name, value in chosen.choice(HEADERS)]
    write = start_response(chosen.choice(("200 OK", "200 Fine", "204 No Content", "304 Not Modified", "404 Nope")), headers)
    if chosen.random() < 0.2:
        write(b"quack")
    for _ in range(chosen.choice((0, 1, 1, 3))):
        yield b"quack" * chosen.choice((0, 1, 1, 2_000))
    if chosen.random() < 0.1:
        raise OnPurpose


# The one believes its peer and writes lines of access, the other one does neither.
SETTINGS: dict[str, dict[str, Any]] = {
    "duckfast": {},
    "httptools": {
        "proxy_headers": "x-forwarded",
        "forwarded_allow_ips": ["*"],
        "access_log": True,
        "access_log_file": os.devnull,
    },
}


@cache
def engine(kind: str, http: str) -> RunningEngine:
    # An application that fails on purpose is no news.
    logging.getLogger("duckfast").setLevel(logging.CRITICAL + 1)
    folder = tempfile.TemporaryDirectory()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(Path(folder.name, "socket")))
    listener.listen(128)
    app = wsgi_app if kind == "threads" else asgi_app
    running = RunningEngine(kind, app, sockets=[listener], http=http, timeout_keep_alive=5, **SETTINGS[http])
    running.__enter__()

    def end() -> None:
        running.__exit__(None, None, None)
        folder.cleanup()

    atexit.register(end)
    return running


def check_asgi(data: bytes) -> None:
    """Whatever comes and whatever an ASGI application does, each request gets one whole response, or a visible break."""
    check_engine(data, "asyncio")


def check_wsgi(data: bytes) -> None:
    """The same for WSGI applications on threads."""
    check_engine(data, "threads")


def check_engine(data: bytes, kind: str) -> None:
    number = zlib.crc32(data)
    running = engine(kind, "httptools" if number % 8 == 0 else "duckfast")
    received = exchange(str(running.address), data, number)
    assert running.failure is None
    check_responses(received, methods_of(data))


def exchange(address: str, data: bytes, number: int) -> bytes:
    """What the server answers to `data`, sent in pieces, until it closes."""
    chosen = random.Random(number)
    received = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(address)
        # A server may be done before it has read everything.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in [data] if chosen.random() < 0.7 else random_splits(data[:300], number) + [data[300:]]:
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                received += piece
    return received


def methods_of(data: bytes) -> list[bytes]:
    """The method of each request that the core accepts in these bytes; b"" stands for a refusal."""
    door = probe()
    door.feed(data)
    door.feed_eof()
    methods = []
    while (event := door.poll())[0] != "closed":
        if event[0] == "request":
            methods.append(event[1]["method"])
        elif event[0] == "paused":
            if not door.connection.request_keep_alive:
                break
            door.next_request()
        elif event[0] == "failed":
            methods.append(b"HEAD" if door.connection.head_request else b"")
            break
    return methods


def check_responses(wire: bytes, methods: list[bytes]) -> None:
    for method in methods:
        if not wire:
            return
        if wire.startswith(b"HTTP/1.1 101 "):
            return  # frames from there on
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(wire)
        event = client.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = client.next_event()
        assert isinstance(event, h11.Response), event
        while isinstance(event := client.next_event(), h11.Data):
            pass
        if event is h11.NEED_DATA:
            return  # it breaks off, or ends with the connection
        assert isinstance(event, h11.EndOfMessage)
        wire = bytes(client.trailing_data[0])
    assert wire == b"", f"more than the answers to {methods}: {wire!r}"


SEEDS = (
    asking() + frame(1, b"hello") + frame(9, b"ping") + closing(1000, "done"),
    asking("/a") + frame(1, b"hel", fin=False) + frame(0, b"lo") + frame(8, b""),
    asking("/b", (("Sec-WebSocket-Extensions", "permessage-deflate"),)) + frame(2, bytes(300)) + frame(3, b"x"),
    asking("/c") + b"\x81\x05hello",
    b"GET http://b/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-Port: 8443\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n",
    b"GET /%c3%a9/%C3?%zz HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /p\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX-Unfinished: ",
)
