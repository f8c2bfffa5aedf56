"""Applications of the Duck framework, unchanged, on duckfast: by an adapter, or in place of the servers that it would use.

    from duckfast.contrib.duck import DuckWSGI, DuckASGI
    application = DuckWSGI(app)                    # duckfast web.serve:application

    python -m duckfast.contrib.duck web/main.py    # an unmodified project

The only module that imports `duck`, and only once it is used: install duckframework for it. Tested with 2.3.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import logging
import os
import runpy
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from .._client import ClientSocket
from ..config import Config
from ..httpd import BaseMicroServer, BaseServer, Settings, ssl_xsocket, xsocket
from ..httpd.applications import Application, adapters
from ..httpd.calls import Receive, Scope, Send, environ_of_scope, read_body
from ..httpd.requests import TOP, data_of

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}  # the engine's to say (RFC 9110 7.6.1)
WITHOUT_BODY = {204, 304}

log = logging.getLogger("duckfast")


def _duck(module: str) -> ModuleType:
    return importlib.import_module(f"duck.{module}" if module else "duck")


def is_duck(application: object) -> bool:
    """Whether it is an App or a MicroApp, without importing the framework for the question."""
    base = sys.modules.get("duck.app.base")
    return base is not None and isinstance(application, base.BaseApp)


def _is_micro(app: Any) -> bool:
    return isinstance(app, _duck("app.microapp").MicroApp)


# Sockets ------------------------------------------------------------------------------------------------------------------


@functools.cache
def _socket_class() -> type[Any]:
    base: type[Any] = _duck("utils.xsocket").xsocket

    class EngineSocket(base):  # type: ignore[misc]
        """The framework's kind of socket over a connection of an engine, plain or TLS; it leaves the engine when it is used."""

        # The framework's own looks every attribute up on a raw socket that it keeps; here the connection may still be elsewhere.
        __getattribute__ = object.__getattribute__
        __setattr__ = object.__setattr__

        def __init__(self, client: ClientSocket, encrypted: bool, server: tuple[str, int], peer: tuple[str, int]) -> None:
            self.raw_socket = client
            self.own = ssl_xsocket(client) if encrypted else xsocket(client)
            self.addr, self.flowinfo, self.scopeid = peer, None, None
            self._names = server, peer

        def __getattr__(self, name: str) -> Any:
            if name in ("raw_socket", "own"):  # not yet set: there is nothing to ask
                raise AttributeError(name)
            return getattr(self.raw_socket, name)

        def __repr__(self) -> str:
            return f"<EngineSocket {self.raw_socket!r}>"

        def getsockname(self) -> Any:
            return self.raw_socket.getsockname() if self.raw_socket.taken else self._names[0]

        def getpeername(self) -> Any:
            return self.raw_socket.getpeername() if self.raw_socket.taken else self._names[1]

        def setblocking(self, flag: bool) -> None:
            """The connection is never set to either: each call waits as it is asked to."""

        def send(self, data: bytes, timeout: float | None = None) -> int:
            return int(self.own.send(data, timeout))

        def recv(self, n: int | None = None, timeout: float | None = None) -> bytes:
            return bytes(self.own.recv(n, timeout))

        async def async_send(self, data: bytes, timeout: float | None = None) -> int:
            return int(await self.own.async_send(data, timeout))

        async def async_recv(self, n: int | None = None, timeout: float | None = None) -> bytes:
            return bytes(await self.own.async_recv(n, timeout))

        def close(self, shutdown: bool = True, *_: Any) -> None:
            self.own.close(shutdown)

        def do_handshake(self, timeout: float | None = None) -> None:
            """The engine has done it."""

    return EngineSocket


# Starting what an application needs ---------------------------------------------------------------------------------------

_prepared: weakref.WeakSet[Any] = weakref.WeakSet()
_lock = threading.Lock()


def prepare(app: Any) -> None:
    """Does for this process what the application's run() does before its server starts: once, and again after a fork."""
    with _lock:
        if app in _prepared:
            return
        _prepared.add(app)
        main_app = _duck("app.app").App
        if not _is_micro(app):
            if not app.skip_setup:
                _duck("setup").setup()
            app.record_metadata()
        else:
            _duck("setup").setup()
        _start_workers(main_app, app, recreate=False)
        os.register_at_fork(after_in_child=functools.partial(_after_fork, weakref.ref(app)))


def _after_fork(reference: Callable[[], Any]) -> None:
    app = reference()
    if app is not None:  # the threads and loops of the parent are not here
        _start_workers(_duck("app.app").App, app, recreate=True)


def _start_workers(main_app: Any, app: Any, *, recreate: bool) -> None:
    asynchronous = bool(_duck("settings").SETTINGS["ASYNC_HANDLING"])
    main_app.start_background_workers(
        app,
        start_request_handling_threadpool_manager=not asynchronous,
        start_request_handling_eventloop_manager=asynchronous or getattr(app, "start_bg_eventloop_if_wsgi", True),
        start_component_threadpool_manager=True,
        start_automations_eventloop_manager=False,
        recreate_managers=recreate,
    )


# Requests and responses ---------------------------------------------------------------------------------------------------


def _request_of(environ: dict[str, Any], content: bytes, take: Callable[[ClientSocket], Any]) -> Any:
    """The framework's request, not yet parsed, and what it is to be parsed from."""
    data = data_of(environ, content)
    headers = dict(data.headers)
    if "content-length" not in headers and content:  # it came in chunks, which are gone
        headers["content-length"] = str(len(content))
    headers.pop("transfer-encoding", None)
    loaded = _duck("settings.loaded").SettingsLoaded
    peer = environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)
    server = environ["SERVER_NAME"], int(environ.get("SERVER_PORT") or 0)
    sock = _socket_class()(ClientSocket.later(take), environ["wsgi.url_scheme"] == "https", server, peer)
    request = loaded.REQUEST_CLASS(client_socket=sock, client_address=peer)
    return request, _duck("http.request_data").RequestData({TOP: headers.pop(TOP), **headers}, content)


def _head_of(response: Any, streams: bool) -> tuple[str, list[tuple[str, str]]]:
    """Status and fields, cookies among them, without what frames a message: that is the engine's."""
    line, *fields = response.payload_obj.raw.decode("utf-8").split("\r\n")
    status = line.partition(" ")[2]
    dropped = HOP_BY_HOP if streams else HOP_BY_HOP | {"content-length"}
    found = [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields) if _]
    return status, [(name, _latin1(value)) for name, value in found if name.lower() not in dropped]


def _latin1(value: str) -> str:
    """PEP 3333: the UTF-8 bytes, each a character."""
    return value.encode("utf-8").decode("latin-1")


def _piece(chunk: Any) -> bytes:
    return chunk.encode() if isinstance(chunk, str) else bytes(chunk)


def _kinds() -> Any:
    return _duck("http.response")


class DuckWSGI:
    """An App or a MicroApp as a WSGI callable. The framework's own middlewares, error pages and logs stay as they are."""

    def __init__(self, app: Any, *, running: bool = False) -> None:
        """`running`: its own run() has begun, and has prepared what it needs. Raises TypeError for what is not Duck's."""
        if not is_duck(app):
            raise TypeError(f"{type(self).__name__} takes an App or a MicroApp of Duck, got {type(app).__name__}")
        self.app = app
        if not running:
            prepare(app)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        exchange = start_response.__self__
        content = environ["wsgi.input"].read()
        request, data = _request_of(environ, content, lambda client: exchange.take(101, client))
        try:
            response = self._respond(request, data)
        except _duck("exceptions.all").ExpectingNoResponse:
            # The view speaks over the socket from now on, or did: it must leave the engine before we return.
            request.client_socket.raw_socket.dup()
            return []
        streams = isinstance(response, _kinds().StreamingHttpResponse)
        if not streams and isinstance(response, _kinds().LazyHttpResponse):
            response._load()
        status, headers = _head_of(response, streams)
        start_response(status, headers)
        if streams:
            return self._stream(request, response)
        self._tell(request, response)
        return [response.content or b""]

    def _respond(self, request: Any, data: Any) -> Any:
        gateway = _duck("settings.loaded").SettingsLoaded.WSGI
        try:
            request.parse(data)
            request.application = self.app
            request.wsgi = gateway
            if not _is_micro(self.app):
                return gateway.get_response(request)
            returned = self.app._view(request, _duck("http.core.processor").RequestProcessor(request))
            return _duck("shortcuts").to_response(returned)
        except _duck("exceptions.all").ExpectingNoResponse:
            raise
        except Exception as error:
            response = _duck("contrib.responses.errors").server_error(error, request)
            gateway.finalize_response(response, request)
            log.exception("the Duck application failed on %s", request.topheader or data)
            return response

    def _stream(self, request: Any, response: Any) -> Iterator[bytes]:
        size = 0
        try:
            for chunk in response.iter_content():
                piece = _piece(chunk)
                size += len(piece)
                yield piece
        finally:
            _close(response)
        response.content_obj.set_fake_size(size)  # what its log shows
        self._tell(request, response)

    def _tell(self, request: Any, response: Any) -> None:
        """The framework's own line about the request."""
        if not getattr(self.app, "no_logs", False) and not _duck("settings").SETTINGS["SILENT"]:
            _duck("http.core.handler").response_handler.auto_log_response(response, request)


class DuckASGI(DuckWSGI):
    """The same as an ASGI callable, for projects with ASYNC_HANDLING. The framework takes WebSockets over by itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        if scope["type"] != "http":
            return  # it has no lifespan
        exchange: Any = send.__self__  # type: ignore[attr-defined]
        content = await read_body(receive)
        request, data = _request_of(environ_of_scope(scope, content), content, _on_loop(exchange))
        try:
            response = await self._respond_on_loop(request, data)
        except _duck("exceptions.all").ExpectingNoResponse:
            request.client_socket.raw_socket.dup()
            return
        streams = isinstance(response, _kinds().StreamingHttpResponse)
        if not streams and isinstance(response, _kinds().LazyHttpResponse):
            await response._async_load()
        status, headers = _head_of(response, streams)
        fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": fields})
        if streams:
            await self._stream_on_loop(response, send)
        else:
            await send({"type": "http.response.body", "body": response.content or b""})
        self._tell(request, response)

    async def _respond_on_loop(self, request: Any, data: Any) -> Any:
        gateway = _duck("settings.loaded").SettingsLoaded.ASGI
        try:
            parsed = request.parse(data)
            if inspect.isawaitable(parsed):
                await parsed
            request.application = self.app
            request.asgi = gateway
            if not _is_micro(self.app):
                return await gateway.get_response(request)
            returned = await self.app._async_view(request, _duck("http.core.processor").AsyncRequestProcessor(request))
            return _duck("shortcuts").to_response(returned)
        except _duck("exceptions.all").ExpectingNoResponse:
            raise
        except Exception as error:
            response = await _duck("contrib.responses.errors").async_server_error(error, request)
            await gateway.finalize_response(response, request)
            log.exception("the Duck application failed on %s", request.topheader or data)
            return response

    async def _stream_on_loop(self, response: Any, send: Send) -> None:
        size = 0
        try:
            content = response.async_iter_content()
            if not inspect.isasyncgen(content):
                content = await content
            async for chunk in _each(content):
                piece = _piece(chunk)
                size += len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            closing = _close(response)
            if inspect.isawaitable(closing):
                await closing
        response.content_obj.set_fake_size(size)
        await send({"type": "http.response.body", "body": b""})


def _close(response: Any) -> Any:
    """Lets go of what a stream reads from: a file, or a generator."""
    close = getattr(getattr(response, "stream", None), "close", None)
    return close() if callable(close) else None


async def _each(content: Any) -> AsyncIterator[Any]:
    if hasattr(content, "__aiter__"):
        async for chunk in content:
            yield chunk
        return
    for chunk in content:
        yield chunk


def _on_loop(exchange: Any) -> Callable[[ClientSocket], None]:
    """Takes a connection from the loop that serves it, from whichever thread asks."""
    loop = asyncio.get_running_loop()
    thread = threading.get_ident()

    def take(client: ClientSocket) -> None:
        if threading.get_ident() == thread:
            exchange.take(101, client)
            return

        async def there() -> None:
            exchange.take(101, client)

        asyncio.run_coroutine_threadsafe(there(), loop).result()

    return take


# In place of the framework's servers --------------------------------------------------------------------------------------


def _adapt(app: Any, asynchronous: bool) -> Application:
    return Application("asgi", DuckASGI(app)) if asynchronous else Application("wsgi", DuckWSGI(app))


adapters.append((is_duck, _adapt))


class HTTPServer(BaseServer):
    """What an App of Duck starts, on duckfast's engines: the settings are those of its settings module."""

    def __init__(self, addr: tuple[str, int], application: Any, *arguments: Any, **options: Any) -> None:
        settings = _duck("settings").SETTINGS
        super().__init__(addr, application, *arguments, **options)
        self.settings = Settings.from_duck(settings)
        self.settings.ENABLE_HTTPS = False  # the application says which of its servers speak it
        # The framework writes a line about each request itself.
        self.no_logs = True
        if not self.ssl_params and self.enable_ssl:
            self.ssl_params = dict(_duck("etc.ssl_defaults").SSL_DEFAULTS)

    @property
    def adapted(self) -> Application:
        if self._adapted is None:
            app = self.served_application()
            if self.settings.ASYNC_HANDLING:
                self._adapted = Application("asgi", DuckASGI(app, running=True))
            else:
                self._adapted = Application("wsgi", DuckWSGI(app, running=True))
        return self._adapted

    def _make_config(self, threads: int | None = None) -> Config:
        config = super()._make_config(threads)
        if hasattr(config, "ws"):
            config.ws = "none"  # the framework speaks WebSocket itself, over the connection that it takes
        return config

    def _threads_alone(self) -> int | None:
        return None  # views block here: as many threads as they need

    def _run_engine(self, engine: Any) -> None:
        if self.workers:  # an application with workers leaves it to each of them to start what it needs
            _start_workers(_duck("app.app").App, self.application, recreate=True)
        super()._run_engine(engine)

    def check_application(self, application: Any) -> None:
        if not is_duck(application):
            raise TypeError(f"application must be an App or a MicroApp of Duck, got {type(application).__name__}")


class MicroHTTPServer(BaseMicroServer, HTTPServer):
    """The same for a MicroApp."""

    def __init__(self, addr: tuple[str, int], microapp: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(addr, microapp, *arguments, **options)
        self.set_microapp(microapp)


def install() -> None:
    """Has applications of Duck that are made from now on served by duckfast. Before `duck.app` is imported."""
    if "duck.app" in sys.modules:
        raise RuntimeError("duck.app has been imported already: call duckfast.contrib.duck.install() before")
    servers: Any = _duck("http.core.httpd.servers")
    servers.HTTPServer, servers.MicroHTTPServer = HTTPServer, MicroHTTPServer


def main(arguments: list[str]) -> None:
    """Runs a project's main file with duckfast in place of the framework's servers."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit("usage: python -m duckfast.contrib.duck web/main.py [arguments of the project]")
    path = Path(arguments[0])
    if not path.is_file():
        sys.exit(f"duckfast: there is no file {arguments[0]!r}; give the main file of a Duck project, such as web/main.py")
    sys.argv = arguments
    sys.path[0] = str(path.resolve().parent)  # as if Python had been started with the file
    install()
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    # Not as __main__: what the project imports from here must be the same objects.
    importlib.import_module("duckfast.contrib.duck").main(sys.argv[1:])
