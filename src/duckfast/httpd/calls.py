"""One request in the hands of a hook: running the application for it, and writing the response to where it belongs.

A response goes through the engine as long as the connection is the engine's, and is written here once a hook has taken it, or
when it never was the engine's; the sans-IO core frames it then. Knows WSGI and ASGI callables; refuses to know servers and hooks.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from .. import __version__
from .._http1 import HTTP1Connection, Probe
from .._limits import Limits
from .._writer import DefaultFields
from ..exceptions import ApplicationError, ClientDisconnected
from .requests import TOP, Headers, RawRequestData, RequestData, Response
from .xsocket import xsocket

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WITHOUT_LENGTH = {100, 101, 102, 103, 204, 304}  # RFC 9110 8.6


class Writer:
    """One response on its way: begin() once, write(), end(). `size` is the whole body's, if it is known."""

    begun = False

    def begin(self, status: str, headers: Headers, size: int | None) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def end(self) -> None:
        pass


class EngineWriter(Writer):
    """Through the engine's start_response(). What is written is with the kernel on return; the engine ends the response."""

    def __init__(self, start_response: Callable[..., Any]) -> None:
        self._start_response = start_response

    def begin(self, status: str, headers: Headers, size: int | None) -> None:
        self.begun = True
        self._write = self._start_response(status, with_length(status, headers, size))

    def write(self, data: bytes) -> None:
        self._write(data)


class LoopWriter(Writer):
    """From a thread through an ASGI send() on a loop."""

    def __init__(self, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self._send = send
        self._loop = loop

    def _call(self, message: Message) -> None:
        async def send() -> None:
            await self._send(message)

        asyncio.run_coroutine_threadsafe(send(), self._loop).result()

    def begin(self, status: str, headers: Headers, size: int | None) -> None:
        self.begun = True
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in with_length(status, headers, size)]
        self._call({"type": "http.response.start", "status": int(status[:3]), "headers": fields})

    def write(self, data: bytes) -> None:
        self._call({"type": "http.response.body", "body": data, "more_body": True})

    def end(self) -> None:
        self._call({"type": "http.response.body", "body": b"", "more_body": False})


class RawResponse:
    """A response over a socket of its own, as bytes for whoever sends them. `refusal`: the request itself was wrong."""

    def __init__(self, request: bytes, keep_alive: bool) -> None:
        self._core = Probe(HTTP1Connection(Limits(), DefaultFields(f"duckfast/{__version__}")))
        self.head: dict[str, Any] = {}
        self.content = b""
        self.refusal: bytes | None = None
        self.keeps_alive = False
        self._core.feed(request)
        while True:
            event = self._core.poll()
            if event[0] == "request":
                self.head = event[1]
            elif event[0] == "data":
                self.content += event[1]
            elif event[0] == "end":
                break
            else:
                failed = event[0] == "failed"
                self.refusal = self._core.refuse(event[1] if failed else 400, None if failed else b"the request is not complete")
                return
        if not keep_alive:
            self._core.close_after_response()

    def begin(self, status: str, headers: Headers, size: int | None) -> bytes:
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        reason = status[4:].encode("latin-1") or None
        return self._core.start_response(int(status[:3]), fields, reason=reason, body_size=-1 if size is None else size)

    def piece(self, data: bytes) -> bytes:
        return self._core.send(data)

    def end(self) -> bytes:
        rest, outcome = self._core.finish()
        self.keeps_alive = outcome == "keep_alive"
        return rest


class SocketWriter(Writer):
    """Straight to a socket, within the time that a client has to take it."""

    def __init__(self, sock: xsocket, response: RawResponse, timeout: float) -> None:
        self._socket = sock
        self._response = response
        self._timeout = timeout

    def _send(self, data: bytes) -> None:
        if data:
            self._socket.send(data, self._timeout)

    def begin(self, status: str, headers: Headers, size: int | None) -> None:
        self.begun = True
        self._send(self._response.begin(status, headers, size))

    def write(self, data: bytes) -> None:
        self._send(self._response.piece(data))

    def end(self) -> None:
        self._send(self._response.end())


def with_length(status: str, headers: Headers, size: int | None) -> Headers:
    if size is None or int(status[:3]) in WITHOUT_LENGTH or any(name.lower() == "content-length" for name, _ in headers):
        return headers
    return [*headers, ("Content-Length", str(size))]


# Applications -------------------------------------------------------------------------------------------------------------


def run_wsgi(app: Callable[..., Any], environ: dict[str, Any], writer: Writer) -> None:
    """Calls the app and writes its whole response."""
    status = ""
    fields: Headers = []

    def start_response(line: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        nonlocal status, fields
        if exc_info is not None and writer.begun:
            raise exc_info[1].with_traceback(exc_info[2])
        if status and exc_info is None:
            raise AssertionError("start_response() was called a second time without exc_info")
        status, fields = line, list(headers)
        return write

    def begin(size: int | None) -> None:
        if not status:
            raise ApplicationError("the app sent a body without calling start_response()")
        if not writer.begun:
            writer.begin(status, fields, size)

    def write(data: bytes) -> None:
        begin(None)
        writer.write(data)

    result: Iterable[bytes] = app(environ, start_response)
    try:
        if isinstance(result, (list, tuple)):
            body = b"".join(result)
            begin(len(body))
            if body:
                writer.write(body)
        else:
            for piece in result:
                if piece:
                    write(piece)
            begin(0)
        writer.end()
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()


def write_response(response: Response, writer: Writer) -> None:
    """Writes one that a hook or a view has made."""
    writer.begin(response.status_line, response.headers, len(response.content))
    if response.content:
        writer.write(response.content)
    writer.end()


async def send_response(response: Response, send: Send) -> None:
    headers = with_length(response.status_line, response.headers, len(response.content))
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": fields})
    await send({"type": "http.response.body", "body": response.content})


class SocketSend:
    """An ASGI send() straight to a socket."""

    def __init__(self, sock: xsocket, response: RawResponse, timeout: float) -> None:
        self._socket = sock
        self._response = response
        self._timeout = timeout
        self._start: Message | None = None
        self._begun = False

    async def _write(self, data: bytes) -> None:
        if data:
            await self._socket.async_send(data, self._timeout)

    async def __call__(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "http.response.start":
            self._start = message
            return
        if kind != "http.response.body" or self._start is None:
            raise ApplicationError(f"{kind!r} cannot be sent now")
        body, more = bytes(message.get("body", b"")), message.get("more_body", False)
        if not self._begun:
            self._begun = True
            headers = [(bytes(n).decode("latin-1"), bytes(v).decode("latin-1")) for n, v in self._start.get("headers", ())]
            status = Response(status=self._start["status"]).status_line
            await self._write(self._response.begin(status, headers, None if more else len(body)))
        await self._write(self._response.piece(body) if body else b"")
        if not more:
            await self._write(self._response.end())


async def read_body(receive: Receive) -> bytes:
    """The whole body. Raises ClientDisconnected."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected("the client left in the middle of its request")
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def one_body(content: bytes, rest: Receive | None) -> Receive:
    """A receive() that gives this body, then whatever `rest` gives."""
    told = False

    async def receive() -> Message:
        nonlocal told
        if told:
            return {"type": "http.disconnect"} if rest is None else await rest()
        told = True
        return {"type": "http.request", "body": content, "more_body": False}

    return receive


def scope_of(data: RequestData, base: Scope) -> dict[str, Any]:
    """The scope for a RequestData, which may have been changed by a hook; what does not come from it is taken from `base`."""
    method, target, version = data.request_line
    scope = dict(base)
    if target.startswith("/"):
        raw_path, _, query = target.encode("latin-1").partition(b"?")
        scope.update(raw_path=raw_path, query_string=query, path=unquote_to_bytes(raw_path).decode("utf-8", "replace"))
    scope.update(method=method, http_version=version.removeprefix("HTTP/"))
    fields = [(name, value) for name, value in data.headers.items() if name not in (TOP, "transfer-encoding", "content-length")]
    if data.content or "content-length" in data.headers:
        fields.append(("content-length", str(len(data.content))))
    scope["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    return scope


def environ_of_scope(scope: Scope, content: bytes) -> dict[str, Any]:
    """A WSGI environ for an ASGI request."""
    server, client = scope.get("server") or ("localhost", 80), scope.get("client") or ("", 0)
    target = scope.get("raw_path", b"/").decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    environ = base_environ(scope.get("scheme", "http"), server, client)
    path = str(scope["path"]).encode().decode("latin-1")
    root = str(scope.get("root_path", "")).encode().decode("latin-1")
    environ.update(
        REQUEST_METHOD=scope["method"],
        SCRIPT_NAME=root,
        PATH_INFO=path[len(root) :] if root and path.startswith(root) else path,
        QUERY_STRING=query,
        RAW_URI=f"{target}?{query}" if query else target,
        SERVER_PROTOCOL=f"HTTP/{scope['http_version']}",
    )
    environ["REQUEST_URI"] = environ["RAW_URI"]
    environ["wsgi.input"] = io.BytesIO(content)
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "_" in name or name in ("proxy", "transfer-encoding"):
            continue
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = f"{environ[key]}{'; ' if name == 'cookie' else ','}{value}" if key in environ else value
    return environ


def base_environ(scheme: str, server: tuple[str, Any], client: tuple[str, Any]) -> dict[str, Any]:
    """What an environ holds beside the request."""
    environ: dict[str, Any] = {
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": str(server[0]),
        "SERVER_PORT": str(server[1] or ""),
        "SERVER_SOFTWARE": f"duckfast/{__version__}",
        "REMOTE_ADDR": str(client[0]),
        "REMOTE_PORT": str(client[1] or ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    if scheme == "https":
        environ["HTTPS"] = "on"
    return environ


def base_scope(environ: Mapping[str, Any]) -> dict[str, Any]:
    """What a scope holds beside the request, for one that did not come through an engine."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "scheme": environ["wsgi.url_scheme"],
        "root_path": "",
        "server": (environ["SERVER_NAME"], int(environ["SERVER_PORT"] or 0)),
        "client": (environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"] or 0)),
        "extensions": {},
    }


def parsed(data: RequestData, response: RawResponse) -> RequestData:
    """A RawRequestData as RequestData, read by the core; another as it is."""
    if not isinstance(data, RawRequestData):
        return data
    head = response.head
    method, target = head["method"].decode("latin-1"), head["target"].decode("latin-1")
    headers = {TOP: f"{method} {target} HTTP/1.{head['minor']}"}
    for raw_name, raw_value in head["fields"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}{'; ' if name == 'cookie' else ','}{value}" if name in headers else value
    made = RequestData(headers, response.content)
    made.request_store = data.request_store
    return made


class WSGIOnLoop:
    """A WSGI app as one of ASGI, called on the loop's threads."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.run(environ_of_scope(scope, await read_body(receive)), send)

    async def run(self, environ: dict[str, Any], send: Send) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, run_wsgi, self._app, environ, LoopWriter(send, loop))


