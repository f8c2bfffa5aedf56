"""Which methods of a server are overridden, and how those are called: once per connection, or once per request.

A server without overridden hooks gets its plain application and no diversions from here, so that nothing of this file runs for
its requests. Knows the methods' names and meanings; refuses to know sockets' bytes and how a server is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from .._client import ClientSocket
from ..engine import NO_DIVERSIONS, Diversions
from ..exceptions import ApplicationError
from .applications import Application
from .calls import (
    EngineWriter,
    RawResponse,
    Receive,
    Scope,
    Send,
    SocketSend,
    SocketWriter,
    base_environ,
    base_scope,
    environ_of_scope,
    one_body,
    parsed,
    read_body,
    run_wsgi,
    scope_of,
    send_response,
    write_response,
)
from .executor import call_request_handling_executor
from .requests import RawRequestData, RequestData, Response, data_of, environ_of, to_response
from .sent import SentResponse
from .settings import KEEP_ALIVE, Settings
from .xsocket import ssl_xsocket, xsocket

log = logging.getLogger("duckfast")

Method = TypeVar("Method", bound=Callable[..., Any])


class Stages(Protocol):
    """What a server shows of itself here."""

    settings: Settings
    addr: tuple[str, int]

    @property
    def adapted(self) -> Application: ...
    @property
    def running(self) -> bool: ...
    @property
    def loop(self) -> Any: ...
    def wrap_client(self, client: ClientSocket, *, encrypted: bool, during_request: bool) -> xsocket: ...
    def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None: ...
    def async_process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> Coroutine[Any, Any, None]: ...


class Hook(enum.IntFlag):
    """The methods that may be overridden, a bit each."""

    START_SERVER_LOOP = enum.auto()
    ACCEPT_AND_HANDLE = enum.auto()
    HANDLE_CONN = enum.auto()
    PROCESS_DATA = enum.auto()
    HANDLE_REQUEST_DATA = enum.auto()
    HANDLE_KEEP_ALIVE_CONN = enum.auto()
    DO_REQUEST_TIMEOUT = enum.auto()
    ASYNC_HANDLE_CONN = enum.auto()
    ASYNC_PROCESS_DATA = enum.auto()
    ASYNC_HANDLE_REQUEST_DATA = enum.auto()
    ASYNC_HANDLE_KEEP_ALIVE_CONN = enum.auto()
    ASYNC_DO_REQUEST_TIMEOUT = enum.auto()


NONE = Hook(0)
REQUEST = Hook.PROCESS_DATA | Hook.HANDLE_REQUEST_DATA
ASYNC_REQUEST = Hook.ASYNC_PROCESS_DATA | Hook.ASYNC_HANDLE_REQUEST_DATA
ASYNC = (
    ASYNC_REQUEST | Hook.ASYNC_HANDLE_CONN | Hook.ASYNC_HANDLE_KEEP_ALIVE_CONN | Hook.ASYNC_DO_REQUEST_TIMEOUT
)


def base(method: Method) -> Method:
    """Marks a method of a base class: where a server has this one, the hook is not overridden."""
    method.__duckfast_base__ = True  # type: ignore[attr-defined]
    return method


def overridden(server: object) -> Hook:
    """Which hooks the class or the instance overrides."""
    found = NONE
    for hook in Hook:
        method = getattr(server, str(hook.name).lower())
        if not getattr(method, "__duckfast_base__", False):
            found |= hook
    return found


# Per request --------------------------------------------------------------------------------------------------------------


class Call:
    """One request between an engine, if it came through one, and the hooks. Reachable from its socket."""

    def __init__(self, server: Stages, sock: xsocket, addr: Any) -> None:
        self.server = server
        self.socket = sock
        self.addr = addr
        self.environ: dict[str, Any] | None = None  # of the engine, WSGI
        self.start_response: Callable[..., Any] | None = None
        self.scope: Scope | None = None  # of the engine, ASGI
        self.receive: Receive | None = None
        self.send: Send | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.client: ClientSocket | None = None  # None: the socket never was an engine's
        self.sent: SentResponse | None = None  # what went out behind the engine's back
        self.answered = False
        self._keeps_alive = False  # a response that was framed here says so

    @classmethod
    def of(cls, server: Stages, sock: xsocket, addr: Any) -> Call:
        """The call that a socket stands for; a new one for a socket that came from elsewhere. Raises TypeError."""
        if not isinstance(sock, xsocket):
            raise TypeError(f"sock must be an xsocket, got {type(sock).__name__}")
        call = sock.__dict__.get("duckfast_call")
        if not isinstance(call, Call):
            call = cls(server, sock, addr)
            sock.__dict__["duckfast_call"] = call
        return call

    @property
    def through_engine(self) -> bool:
        """Whether the engine still has the connection, and writes the response."""
        return self.client is not None and not self.client.taken

    # --- running the application

    def respond(self, data: RequestData) -> None:
        """Runs the application for this request, and writes its response. Not on a loop."""
        application = self.server.adapted
        self.answered = True
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(self.respond_on_loop(data), self.loop).result()
        elif self.through_engine:
            assert self.environ is not None and self.start_response is not None
            environ = environ_of(self._parsed(data), self.environ)
            run_wsgi(application.call, environ, EngineWriter(self.start_response))
        elif application.interface == "wsgi":
            raw = self._raw(data)
            if raw.refusal is not None:
                self.socket.send(raw.refusal, self._send_timeout)
                return
            run_wsgi(application.call, self._environ(data, raw), SocketWriter(self.socket, raw, self._send_timeout))
            self._keeps_alive = raw.keeps_alive
        else:
            loop = self.server.loop
            if loop is None:
                asyncio.run(self.respond_on_loop(data))
            else:
                asyncio.run_coroutine_threadsafe(self.respond_on_loop(data), loop).result()

    async def respond_on_loop(self, data: RequestData) -> None:
        """The same on the running loop."""
        app = self.server.adapted.on_loop
        self.answered = True
        if self.through_engine:
            assert self.scope is not None and self.send is not None
            made = self._parsed(data)
            await app(scope_of(made, self.scope), one_body(made.content, self.receive), self.send)
            return
        raw = self._raw(data)
        if raw.refusal is not None:
            await self.socket.async_send(raw.refusal, self._send_timeout)
            return
        made = parsed(data, raw)
        scope = scope_of(made, base_scope(self._base_environ()))
        await app(scope, one_body(made.content, None), SocketSend(self.socket, raw, self._send_timeout))
        self._keeps_alive = raw.keeps_alive

    @property
    def _send_timeout(self) -> float:
        return float(self.server.settings.SEND_TIMEOUT)

    def _raw(self, data: RequestData) -> RawResponse:
        return RawResponse(data.to_bytes(), self.server.settings.CONNECTION_MODE == KEEP_ALIVE)

    def _parsed(self, data: RequestData) -> RequestData:
        if not isinstance(data, RawRequestData):
            return data
        raw = self._raw(data)
        if raw.refusal is not None:
            raise ValueError("the bytes of this RawRequestData are not one whole request")
        return parsed(data, raw)

    def _environ(self, data: RequestData, raw: RawResponse) -> dict[str, Any]:
        return environ_of(parsed(data, raw), self.environ or self._base_environ())

    def _base_environ(self) -> dict[str, Any]:
        server = self.server.addr
        with contextlib.suppress(OSError):
            name = self.socket.getsockname()
            server = name[:2] if isinstance(name, tuple) else server
        encrypted = isinstance(self.socket, ssl_xsocket)
        return base_environ("https" if encrypted else "http", server, self.addr or ("", 0))

    # --- what a hook has returned

    def write_returned(self, returned: Any, data: RequestData) -> None:
        """Writes a response that the hook did not write itself but returned."""
        if returned is None:
            return
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(self.send_returned(returned, data), self.loop).result()
            return
        response = self._only_response(returned)
        if self.through_engine:
            assert self.start_response is not None
            write_response(response, EngineWriter(self.start_response))
            return
        raw = self._raw(data)
        if raw.refusal is None:
            write_response(response, SocketWriter(self.socket, raw, self._send_timeout))
            self._keeps_alive = raw.keeps_alive

    async def send_returned(self, returned: Any, data: RequestData) -> None:
        """The same on the running loop."""
        if returned is None:
            return
        response = self._only_response(returned)
        if self.through_engine:
            assert self.send is not None
            await send_response(response, self.send)
            return
        raw = self._raw(data)
        if raw.refusal is None:
            await send_response(response, SocketSend(self.socket, raw, self._send_timeout))
            self._keeps_alive = raw.keeps_alive

    def _only_response(self, returned: Any) -> Response:
        response = to_response(returned)
        if self.answered:
            raise ApplicationError("the hook has returned a response, and another one has been written before")
        self.answered = True
        return response

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection, which is not the engine's any more, can bring another request."""
        if self.socket.closed or self.server.settings.CONNECTION_MODE != KEEP_ALIVE or not self.server.running:
            return False
        return self._keeps_alive or (self.sent is not None and self.sent.whole)

    def check_answered(self) -> None:
        """Raises ApplicationError when the engine waits for a response and no hook has written one."""
        if self.through_engine and not self.answered:
            raise ApplicationError("the overridden hook has neither written nor returned a response, nor called super()")


class RequestSocket(xsocket):
    """The client's socket during one request: it leaves the engine when it is first used."""

    duckfast_call: Call

    def send(self, data: bytes, timeout: float | None = None) -> int:
        self._note(data)
        return super().send(data, timeout)

    async def async_send(self, data: bytes, timeout: float | None = None) -> int:
        self._note(data)
        return await super().async_send(data, timeout)

    def _note(self, data: bytes) -> None:
        if self.duckfast_call.sent is not None:
            self.duckfast_call.sent.add(bytes(data))


class SecureRequestSocket(RequestSocket, ssl_xsocket):
    """The same over TLS."""


def new_call(server: Stages, take: Callable[[ClientSocket], Any], environ: dict[str, Any], data: RequestData) -> Call:
    """The call of a request that has come through an engine, and its socket."""
    client = ClientSocket.later(take)
    sock = server.wrap_client(client, encrypted=environ["wsgi.url_scheme"] == "https", during_request=True)
    sock.addr = environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)
    call = Call(server, sock, sock.addr)
    call.client = client
    call.environ = environ
    call.sent = SentResponse(environ["REQUEST_METHOD"], data)
    sock.__dict__["duckfast_call"] = call
    return call


class HookedWSGI:
    """The WSGI app of a server that overrides process_data or handle_request_data."""

    def __init__(self, server: Stages) -> None:
        self._server = server

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        content = environ["wsgi.input"].read()
        exchange = start_response.__self__
        data = data_of(environ, content)
        call = new_call(self._server, lambda client: exchange.take(into=client), environ, data)
        call.start_response = start_response
        try:
            process: Callable[..., Any] = self._server.process_data
            returned = process(call.socket, call.addr, data)
            call.write_returned(returned, data)
            call.check_answered()
        finally:
            if not call.through_engine:
                call.socket.close()  # nothing, if it has been given back
        return []


class HookedASGI:
    """The ASGI app of a server that overrides one of the request hooks and serves on a loop."""

    def __init__(self, server: Stages, hooks: Hook) -> None:
        self._server = server
        self._asynchronous = bool(hooks & ASYNC_REQUEST)

    async def __call__(self, scope: Scope, receive: Receive, send: Any) -> None:
        if scope["type"] != "http":
            await self._server.adapted.on_loop(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        exchange = send.__self__
        thread = threading.get_ident()

        def take(client: ClientSocket) -> None:
            if threading.get_ident() == thread:
                exchange.take(into=client)
                return

            async def on_loop() -> None:
                exchange.take(into=client)

            asyncio.run_coroutine_threadsafe(on_loop(), loop).result()

        content = await read_body(receive)
        environ = environ_of_scope(scope, content)
        data = data_of(environ, content)
        call = new_call(self._server, take, environ, data)
        call.scope, call.receive, call.send = scope, receive, send
        try:
            if self._asynchronous:
                process: Callable[..., Any] = self._server.async_process_data
                returned = await process(call.socket, call.addr, data)
            else:
                call.loop = loop
                returned = await loop.run_in_executor(None, self._server.process_data, call.socket, call.addr, data)
            await call.send_returned(returned, data)
            call.check_answered()
        finally:
            if not call.through_engine:
                call.socket.close()


# Per connection -----------------------------------------------------------------------------------------------------------


def diversions_of(server: Stages, hooks: Hook, asynchronous: bool) -> Diversions:
    """Where an engine lets connections go to hooks."""

    def to(name: str, sync: Hook, twin: Hook) -> Callable[[ClientSocket], None] | None:
        if asynchronous and hooks & twin:
            return functools.partial(call_on_loop, server, f"async_{name}", name == "handle_conn")
        if hooks & sync:
            return functools.partial(call_on_thread, server, name, name == "handle_conn")
        return None

    found = Diversions(
        to("handle_conn", Hook.HANDLE_CONN, Hook.ASYNC_HANDLE_CONN),
        to("handle_keep_alive_conn", Hook.HANDLE_KEEP_ALIVE_CONN, Hook.ASYNC_HANDLE_KEEP_ALIVE_CONN),
        to("do_request_timeout", Hook.DO_REQUEST_TIMEOUT, Hook.ASYNC_DO_REQUEST_TIMEOUT),
        accepted=bool(hooks & Hook.ACCEPT_AND_HANDLE),
    )
    return NO_DIVERSIONS if found == NO_DIVERSIONS else found


def arguments_of(server: Stages, client: ClientSocket, with_scope: bool) -> tuple[xsocket, tuple[Any, ...]]:
    """The socket for a hook, and what it is called with."""
    sock = server.wrap_client(client, encrypted=client.encrypted, during_request=False)
    name = client.getpeername()
    address = name if isinstance(name, tuple) else ("", 0)
    sock.addr = address[:2]
    if len(address) == 4:
        sock.flowinfo, sock.scopeid = address[2:]
    return sock, (sock, sock.addr, sock.flowinfo, sock.scopeid) if with_scope else (sock, sock.addr)


def call_on_thread(server: Stages, name: str, with_scope: bool, client: ClientSocket) -> None:
    sock, arguments = arguments_of(server, client, with_scope)

    def run() -> None:
        try:
            getattr(server, name)(*arguments)
        finally:
            sock.close()  # nothing, if it has been given back

    call_request_handling_executor(run)


_tasks: set[asyncio.Task[Any]] = set()  # the loop itself holds them only weakly


def call_on_loop(server: Stages, name: str, with_scope: bool, client: ClientSocket) -> None:
    sock, arguments = arguments_of(server, client, with_scope)

    async def run() -> None:
        try:
            method: Callable[..., Coroutine[Any, Any, Any]] = getattr(server, name)
            await method(*arguments)
        except Exception:
            log.exception("the hook %s failed", name)
        finally:
            sock.close()

    task = asyncio.get_running_loop().create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def application_of(server: Stages, hooks: Hook, asynchronous: bool) -> Callable[..., Any]:
    """What the engine is to call: the application itself, unless a request hook is overridden."""
    adapted: Application = server.adapted
    if asynchronous:
        return HookedASGI(server, hooks) if hooks & (REQUEST | ASYNC_REQUEST) else adapted.on_loop
    return HookedWSGI(server) if hooks & REQUEST else adapted.call
