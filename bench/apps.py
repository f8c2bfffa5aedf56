"""The two measured applications, `wsgi` and `asgi`: raw callables, no framework, no library.

Both answer the same paths with the same bytes, so a difference between two rows is the servers' alone:

    /          13 bytes                     /upload    reads the body in pieces, answers how long it was
    /10k       10 KiB in one piece          /download  1 GiB in pieces of 64 KiB, with its length
    /stream    10 pieces of 1 KiB, no length (the server must choose chunked)
    /post      reads 1 KiB, answers 13 bytes, or 400 if the body is not exactly 1 KiB
    /sleep     13 bytes after 10 ms of blocking (WSGI) or suspended (ASGI)

Header lists are built once and handed to every server as they are; a server that changed them would break its own
next answer. The ASGI app sends str-free, lower-case headers as the specification asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HELLO = b"Hello, world!"
TEN_KIB = b"x" * 10240
PIECE = b"y" * 1024
PIECES = 10
POST_SIZE = 1024  # bytes; what the post scenario sends
SLEEP = 0.010  # seconds; one database query of a slow view
DOWNLOAD_PIECE = b"z" * 65536
DOWNLOAD_PIECES = 16384  # x 64 KiB = 1 GiB


def wsgi_headers(length: int) -> list[tuple[str, str]]:
    return [("Content-Type", "text/plain"), ("Content-Length", str(length))]


WSGI_HELLO = wsgi_headers(len(HELLO))
WSGI_TEN_KIB = wsgi_headers(len(TEN_KIB))
WSGI_DOWNLOAD = wsgi_headers(len(DOWNLOAD_PIECE) * DOWNLOAD_PIECES)
WSGI_STREAM = [("Content-Type", "text/plain")]


def wsgi_hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", WSGI_HELLO)
    return [HELLO]


def wsgi_ten_kib(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", WSGI_TEN_KIB)
    return [TEN_KIB]


def wsgi_post(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK" if len(body) == POST_SIZE else "400 Bad Request", WSGI_HELLO)
    return [HELLO]


def wsgi_stream(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", WSGI_STREAM)
    return wsgi_pieces(PIECE, PIECES)


def wsgi_pieces(piece: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield piece


def wsgi_sleep(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(SLEEP)
    start_response("200 OK", WSGI_HELLO)
    return [HELLO]


def wsgi_upload(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    read = environ["wsgi.input"].read
    total = 0
    while piece := read(65536):
        total += len(piece)
    answer = str(total).encode()
    start_response("200 OK", wsgi_headers(len(answer)))
    return [answer]


def wsgi_download(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", WSGI_DOWNLOAD)
    return wsgi_pieces(DOWNLOAD_PIECE, DOWNLOAD_PIECES)


WSGI_VIEWS = {
    "/": wsgi_hello,
    "/10k": wsgi_ten_kib,
    "/post": wsgi_post,
    "/stream": wsgi_stream,
    "/sleep": wsgi_sleep,
    "/upload": wsgi_upload,
    "/download": wsgi_download,
}


def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return WSGI_VIEWS[environ["PATH_INFO"]](environ, start_response)


def asgi_headers(length: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"text/plain"), (b"content-length", str(length).encode())]


ASGI_HELLO = asgi_headers(len(HELLO))
ASGI_TEN_KIB = asgi_headers(len(TEN_KIB))
ASGI_DOWNLOAD = asgi_headers(len(DOWNLOAD_PIECE) * DOWNLOAD_PIECES)
ASGI_STREAM = [(b"content-type", b"text/plain")]


async def asgi_answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def asgi_hello(receive: Receive, send: Send) -> None:
    await asgi_answer(send, 200, ASGI_HELLO, HELLO)


async def asgi_ten_kib(receive: Receive, send: Send) -> None:
    await asgi_answer(send, 200, ASGI_TEN_KIB, TEN_KIB)


async def asgi_body_size(receive: Receive) -> int:
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return total
        total += len(message.get("body", b""))
        if not message.get("more_body", False):
            return total


async def asgi_post(receive: Receive, send: Send) -> None:
    status = 200 if await asgi_body_size(receive) == POST_SIZE else 400
    await asgi_answer(send, status, ASGI_HELLO, HELLO)


async def asgi_pieces(send: Send, headers: list[tuple[bytes, bytes]], piece: bytes, count: int) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    message = {"type": "http.response.body", "body": piece, "more_body": True}
    for _ in range(count):
        await send(message)
    await send({"type": "http.response.body", "body": b""})


async def asgi_stream(receive: Receive, send: Send) -> None:
    await asgi_pieces(send, ASGI_STREAM, PIECE, PIECES)


async def asgi_sleep(receive: Receive, send: Send) -> None:
    await asyncio.sleep(SLEEP)
    await asgi_answer(send, 200, ASGI_HELLO, HELLO)


async def asgi_upload(receive: Receive, send: Send) -> None:
    answer = str(await asgi_body_size(receive)).encode()
    await asgi_answer(send, 200, asgi_headers(len(answer)), answer)


async def asgi_download(receive: Receive, send: Send) -> None:
    await asgi_pieces(send, ASGI_DOWNLOAD, DOWNLOAD_PIECE, DOWNLOAD_PIECES)


async def asgi_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


ASGI_VIEWS = {
    "/": asgi_hello,
    "/10k": asgi_ten_kib,
    "/post": asgi_post,
    "/stream": asgi_stream,
    "/sleep": asgi_sleep,
    "/upload": asgi_upload,
    "/download": asgi_download,
}


async def asgi(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await asgi_lifespan(receive, send)
        return
    await ASGI_VIEWS[scope["path"]](receive, send)
