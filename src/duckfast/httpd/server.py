"""BaseServer: a server as an object, whose methods are the stages of a request and may be overridden.

Owns the listening socket and the order of start and stop; the connections are an engine's. Without an overridden hook an engine
never calls into this file for a connection or a request. Installs no signal handlers. It is longer than most because the class
is one name with all its stages, each in two flavours.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from .. import __version__, sockets
from .. import log as logs
from .._client import ClientSocket
from ..asgi import AsyncEngine
from ..config import Config
from ..wsgi import ThreadEngine
from . import hooks
from .applications import Application, adapt
from .calls import RawResponse
from .hooks import Call, Hook, RequestSocket, SecureRequestSocket, base
from .requests import RequestData
from .settings import SETTINGS, Settings, make_config, tls_settings
from .workers import Acceptor, Processes
from .xsocket import ssl_xsocket, xsocket

log = logging.getLogger("duckfast")

Engine = ThreadEngine | AsyncEngine

STOP_LOOK = 0.005  # seconds between looks at whether all has ended
STOP_GRACE = 5.0  # seconds beyond the graceful timeout that a stop waits for threads
TIMEOUT_REASON = b"the request took too long"
A_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"  # what a 408 answers, as far as its form goes


class BaseServer:
    """Serves `application` on `addr`, a (host, port); port 0: any free one, then `addr` tells which.

    application: a WSGI or ASGI callable, an object with view(request, processor) or async_view, or what a contrib module adds.
    domain: the name in the address that is logged. ssl_params: certfile, keyfile, version, ca_certs, ciphers. no_logs: no access
    lines, and not a word about start and stop. workers: None: the thread that calls start_server() serves; a number: so many
    threads, or processes with force_worker_processes.

    Raises TypeError and ValueError for arguments of the wrong kind, ConfigError for what cannot be served.
    """

    def __init__(
        self,
        addr: tuple[str, int],
        application: Any,
        domain: str | None = None,
        uses_ipv6: bool = False,
        enable_ssl: bool = False,
        ssl_params: dict[str, Any] | None = None,
        no_logs: bool = False,
        workers: int | None = None,
        force_worker_processes: bool = False,
    ) -> None:
        check_address(addr)
        if ssl_params is not None and not isinstance(ssl_params, dict):
            raise TypeError(f"ssl_params must be a dict, got {type(ssl_params).__name__}")
        if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool)):
            raise TypeError(f"workers must be a number or None, got {workers!r}")
        if workers is not None and workers < 0:
            raise ValueError(f"workers must be a number from 0 up, got {workers}")
        self.check_application(application)
        self.addr = addr
        self.application = application
        self.domain = domain
        self.uses_ipv6 = uses_ipv6
        self.enable_ssl = enable_ssl
        self.ssl_params = ssl_params
        self.no_logs = no_logs
        self.workers = workers
        self.force_worker_processes = force_worker_processes
        self.settings: Settings = SETTINGS
        self._running = False
        self._pid = 0  # of the process that has started it
        self._engines: list[Engine] = []
        self._threads: list[threading.Thread] = []
        self._processes: Processes | None = None
        self._acceptors: list[Acceptor] = []
        self._serving: set[int] = set()  # identities of threads that run an engine
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._ended.set()
        self._failure: BaseException | None = None
        self._adapted: Application | None = None
        self._hooks = hooks.NONE
        self._sock = self._new_socket()

    # ------------------------------------------------------------------ facts

    @property
    def running(self) -> bool:
        """Whether it listens. Set to False, it stops, as by stop_server(wait=False)."""
        return self._running

    @running.setter
    def running(self, state: bool) -> None:
        if self._running and not state:
            self.stop_server(wait=False)
        self._running = bool(state)

    @property
    def sock(self) -> xsocket:
        """The listening socket; it is bound by start_server()."""
        return self._sock

    @sock.setter
    def sock(self, sock: xsocket) -> None:
        if not isinstance(sock, xsocket):
            raise TypeError(f"sock must be an xsocket, got {type(sock).__name__}")
        self._sock = sock

    @property
    def worker_threads(self) -> list[threading.Thread]:
        """The threads that serve as workers."""
        crews = [thread for engine in self._engines if isinstance(engine, ThreadEngine) for thread in engine.worker_threads]
        own = [thread for thread in self._threads if thread.is_alive() and not getattr(thread, "oversees", False)]
        return own + crews if self.workers else []

    @property
    def worker_processes(self) -> list[BaseProcess]:
        """The processes that serve as workers."""
        return [] if self._processes is None else self._processes.alive

    @property
    def url(self) -> str:
        """Where it listens."""
        host = self.domain or (f"[{self.addr[0]}]" if ":" in self.addr[0] else self.addr[0])
        return f"{'https' if self.speaks_tls else 'http'}://{host}:{self.addr[1]}"

    @property
    def speaks_tls(self) -> bool:
        return self.enable_ssl or bool(self.settings.ENABLE_HTTPS)

    @property
    def adapted(self) -> Application:
        """The application as WSGI or ASGI."""
        if self._adapted is None:
            self._adapted = adapt(self.served_application(), bool(self.settings.ASYNC_HANDLING))
        return self._adapted

    def served_application(self) -> Any:
        return self.application

    def check_application(self, application: Any) -> None:
        """Raises TypeError for what cannot be served, now and not at the first request."""
        adapt(application, False)

    @property
    def loop(self) -> Any:
        """The event loop that serves, if one does."""
        for engine in list(self._engines):
            if isinstance(engine, AsyncEngine) and engine.loop is not None:
                return engine.loop
        return None

    def wrap_client(self, client: ClientSocket, *, encrypted: bool, during_request: bool) -> xsocket:
        """The xsocket that hooks see of a connection; for subclasses whose programs want their own kind."""
        if during_request:
            return SecureRequestSocket(client) if encrypted else RequestSocket(client)
        return ssl_xsocket(client) if encrypted else xsocket(client)

    # ------------------------------------------------------------------ start and stop

    def start_server(self, on_server_start_fn: Callable[[], Any] | None = None) -> None:
        """Binds, listens, calls on_server_start_fn() and serves: until it is stopped, or with workers in the background.

        Raises BindError, ConfigError, and RuntimeError when it is running already.
        """
        if self._running:
            raise RuntimeError("the server is running already")
        self._hooks = hooks.overridden(self)
        self._adapted = None
        asynchronous = self._is_asynchronous()
        self._make_config()  # what is wrong in it is told before anybody can connect
        self._failure = None
        self._ready.clear()
        self._configure_logging()
        self._listen()
        self._pid = os.getpid()
        self._running = True
        self._ended.clear()
        try:
            what = f"{self._name()} ({self._describe(asynchronous)})"
            self._say(f"duckfast {__version__} serving {what} on {self.url} (pid {self._pid})")
            if on_server_start_fn is not None:
                on_server_start_fn()
            if not self.workers:
                self.start_server_loop()
            elif self.force_worker_processes:
                self._processes = Processes(self.workers, self._work_in_process, self._on_processes_gone)
                self._processes.start()
                self._ready.set()
            else:
                self._start_threads(self.workers, asynchronous)
        except BaseException:
            self._end()
            raise
        if not self.workers:
            self._end()

    def start_server_loop(self, interval_fn: Callable[[], Any] | None = None) -> None:
        """Accepts and serves in this thread while `running`; interval_fn() is called before each cycle of SERVER_POLL seconds."""
        if not self._running:
            return
        in_process = self._pid != os.getpid()
        self._run_engine(self._new_engine(interval_fn, threads=None if in_process else self._threads_alone()))

    start_server_loop.__duckfast_base__ = True  # type: ignore[attr-defined]

    def stop_server(self, log_to_console: bool = True, wait: bool = True) -> None:
        """Ends accepting, lets requests in progress finish, and ends the workers; from any thread or signal handler.

        wait: until all of that is done, but for a call from a thread that serves. Does nothing in a worker process, and when the
        server is not running.
        """
        if not self._running or self._pid != os.getpid():
            return
        self._running = False
        for acceptor in list(self._acceptors):
            acceptor.stop()
        for engine in list(self._engines):
            engine.stop()
        if self._processes is not None:
            self._processes.stop()
        if wait and threading.get_ident() not in self._serving and threading.current_thread() not in self.worker_threads:
            self._wait(self._patience())
        if log_to_console:
            self._say("stopped")

    def join(self, timeout: float | None = None) -> None:
        """Waits until the server has ended, and with it its workers."""
        self._ended.wait(timeout)

    def _wait(self, seconds: float) -> None:
        """As join(), from a signal handler too: it may have interrupted who holds the event's lock."""
        deadline = time.monotonic() + seconds
        while not self._ended.is_set() and time.monotonic() < deadline:
            time.sleep(STOP_LOOK)

    def reload_ssl_context(self) -> bool:
        """Loads the certificate anew for connections from now on, in this process. Whether anything was loaded."""
        loaded = [engine.reload_tls() for engine in list(self._engines)]
        return any(loaded)

    def __enter__(self) -> BaseServer:
        """Serves in the background; returns once requests are answered."""
        if self.workers:
            self.start_server()
        else:
            threading.Thread(target=self._start_in_background, name="duckfast-server", daemon=True).start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *details: object) -> None:
        self.stop_server(log_to_console=False)
        self.join(self._patience())

    def _start_in_background(self) -> None:
        try:
            self.start_server()
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    def _patience(self) -> float:
        return float(self._make_config().timeout_graceful_shutdown) + STOP_GRACE

    # ------------------------------------------------------------------ stages of a connection and a request

    @base
    def accept_and_handle(self) -> xsocket:
        """Accepts one connection and hands it to the engine; BlockingIOError when none waits.

        Returns the client's socket with its addr, flowinfo and scopeid; its bytes are the engine's.
        """
        sock, address = self._sock.raw_socket.accept()
        client = xsocket(sock)
        client.addr = address[:2]
        if len(address) == 4:
            client.flowinfo, client.scopeid = address[2:]
        self._give(sock, idle=False)
        return client

    @base
    def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
        """A new connection: the engine has it from here on. In an override super() gives it back, and `sock` is empty then."""
        sock.addr, sock.flowinfo, sock.scopeid = addr, flowinfo, scopeid
        self._give_back(sock, idle=False)

    @base
    def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """One request: handle_request_data(), then the connection waits for the next one or ends."""
        call = Call.of(self, sock, addr)
        check_data(request_data)
        handle: Callable[..., Any] = self.handle_request_data
        call.write_returned(handle(sock, addr, request_data), request_data)
        if call.through_engine:
            call.check_answered()
        elif call.keeps_alive:
            self.handle_keep_alive_conn(sock, addr)
        else:
            sock.close()

    @base
    def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """Runs the application for one request and writes its response; never closes.

        In an override: call super(), or write a response with sock.send(), or return one (str, bytes, a dict, a Response ...).
        """
        check_data(request_data)
        Call.of(self, sock, addr).respond(request_data)

    @base
    def handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
        """A connection begins to wait for its next request: the engine waits, and serves what comes."""
        self._give_back(sock, idle=True)

    @base
    def do_request_timeout(self, sock: xsocket, addr: Any) -> None:
        """No request in time: 408 with Connection: close, and the end."""
        with contextlib.suppress(OSError):
            sock.send(request_timeout(), float(self.settings.SEND_TIMEOUT))
        sock.close()

    @base
    async def async_handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
        """As handle_conn(), on the loop."""
        sock.addr, sock.flowinfo, sock.scopeid = addr, flowinfo, scopeid
        self._give_back(sock, idle=False)

    @base
    async def async_process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """As process_data(), on the loop."""
        call = Call.of(self, sock, addr)
        check_data(request_data)
        handle: Callable[..., Any] = self.async_handle_request_data
        await call.send_returned(await handle(sock, addr, request_data), request_data)
        if call.through_engine:
            call.check_answered()
        elif call.keeps_alive:
            await self.async_handle_keep_alive_conn(sock, addr)
        else:
            sock.close()

    @base
    async def async_handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """As handle_request_data(), on the loop."""
        check_data(request_data)
        await Call.of(self, sock, addr).respond_on_loop(request_data)

    @base
    async def async_handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
        """As handle_keep_alive_conn(), on the loop."""
        self._give_back(sock, idle=True)

    @base
    async def async_do_request_timeout(self, sock: xsocket, addr: Any) -> None:
        """As do_request_timeout(), on the loop."""
        with contextlib.suppress(OSError):
            await sock.async_send(request_timeout(), float(self.settings.SEND_TIMEOUT))
        sock.close()

    # ------------------------------------------------------------------ its own: sockets

    def _new_socket(self) -> xsocket:
        sock = socket.socket(socket.AF_INET6 if self.uses_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        if self.uses_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        return xsocket(sock)

    def _listen(self) -> None:
        if self._sock.closed:
            self._sock = self._new_socket()
        raw = self._sock.raw_socket
        try:
            if raw.getsockname()[1] == 0:  # else the program has bound it
                raw.bind(self.addr)
            raw.listen(int(self.settings.REQUESTS_BACKLOG))
        except OSError as error:
            place = sockets.Address(host=self.addr[0], port=self.addr[1])
            self._sock.close(shutdown=False)
            raise sockets.refused(str(place), error) from None
        raw.setblocking(False)
        host, port = raw.getsockname()[:2]
        self.addr = host, port

    def _give(self, connection: ClientSocket | socket.socket, *, idle: bool) -> None:
        """To an engine that serves; there is one while the server runs."""
        engines = list(self._engines)
        if not engines:
            connection.close()
            raise RuntimeError("the server is not running: there is nobody to serve this connection")
        engines[hash(connection) % len(engines)].give(connection, idle)

    def _give_back(self, sock: xsocket, *, idle: bool) -> None:
        raw = sock.raw_socket
        if isinstance(raw, ClientSocket):
            if not raw.taken:
                return  # it never left
            if raw.fileno() < 0:
                raise OSError("the connection is closed, or has been given back")
            self._give(raw, idle=idle)
        else:
            self._give(ClientSocket(raw), idle=idle)

    # ------------------------------------------------------------------ its own: engines and workers

    def _is_asynchronous(self) -> bool:
        return self.adapted.interface == "asgi" or bool(self._hooks & hooks.ASYNC)

    def _threads_alone(self) -> int | None:
        """Most threads of an engine that runs in one of ours: this one."""
        return 1

    def _make_config(self, threads: int | None = None) -> Config:
        logs = not (self.no_logs or self.settings.SILENT)
        tls = tls_settings(self.ssl_params, self.settings) if self.speaks_tls else {}
        return make_config(self.settings, logs=logs, threads=threads, tls=tls)

    def _new_engine(self, interval_fn: Callable[[], Any] | None, *, threads: int | None, staying: int = 0) -> Engine:
        asynchronous = self._is_asynchronous()
        config = self._make_config(threads)
        config.interface = "asgi" if asynchronous else "wsgi"
        app = hooks.application_of(self, self._hooks, asynchronous)
        keywords: dict[str, Any] = {
            "ready": self._ready.set,
            "diversions": hooks.diversions_of(self, self._hooks, asynchronous),
        }
        if interval_fn is not None:
            keywords.update(heartbeat=interval_fn, heartbeat_interval=float(self.settings.SERVER_POLL))
        listener = self._sock.raw_socket.dup()  # each engine closes its own
        listener.setblocking(False)
        if asynchronous:
            return AsyncEngine(app, config, [listener], **keywords)
        return ThreadEngine(app, config, [listener], **keywords, staying_threads=staying)

    def _run_engine(self, engine: Engine) -> None:
        acceptor = Acceptor(self.accept_and_handle, self._sock.raw_socket) if self._hooks & Hook.ACCEPT_AND_HANDLE else None
        identity = threading.get_ident()
        self._engines.append(engine)
        self._serving.add(identity)
        try:
            if not self._running:  # stopped before it was in the list
                engine.stop()
            if acceptor is not None:
                self._acceptors.append(acceptor)
                acceptor.start()
            engine.run()
        finally:
            self._serving.discard(identity)
            self._engines.remove(engine)
            if acceptor is not None:
                acceptor.stop()
                self._acceptors.remove(acceptor)

    def _start_threads(self, number: int, asynchronous: bool) -> None:
        if asynchronous or self._hooks & (Hook.START_SERVER_LOOP | Hook.ACCEPT_AND_HANDLE):
            run: Callable[[], Any] = self.start_server_loop
            count, oversees = number, False
        else:  # one engine has all of them, and shares the connections out
            run = functools.partial(self._run_engine, self._new_engine(None, threads=number, staying=number))
            count, oversees = 1, True
        left = [count]
        lock = threading.Lock()

        def work() -> None:
            try:
                run()
            except BaseException as error:
                self._failure = error
                log.error("a worker thread has ended", exc_info=error)
            finally:
                with lock:
                    left[0] -= 1
                    last = left[0] == 0
                if last:
                    self._end()

        self._threads = []
        for index in range(count):
            thread = threading.Thread(target=work, name=f"duckfast-worker-{index + 1}", daemon=True)
            thread.oversees = oversees  # type: ignore[attr-defined]
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()
        self._ready.wait()

    def _work_in_process(self, stop: Callable[[Callable[[], None]], None]) -> None:
        """The life of a worker process; `stop` is told what ends it."""
        self._engines, self._threads, self._acceptors = [], [], []
        self._processes = None

        def end() -> None:
            self._running = False
            for acceptor in list(self._acceptors):
                acceptor.stop()
            for engine in list(self._engines):
                engine.stop()

        stop(end)
        self.start_server_loop()

    def _on_processes_gone(self) -> None:
        self._end()

    def _end(self) -> None:
        """Everything has ended."""
        self._running = False
        for acceptor in list(self._acceptors):
            acceptor.stop()
        self._sock.close(shutdown=False)
        self._ready.set()
        self._ended.set()

    def _name(self) -> str:
        app = self.served_application()
        return str(getattr(app, "__qualname__", type(app).__qualname__))

    def _describe(self, asynchronous: bool) -> str:
        kind = "asgi" if asynchronous else "wsgi"
        if not self.workers:
            return kind
        noun = "processes" if self.force_worker_processes else "threads"
        return f"{kind}, {self.workers} {noun}"

    def _configure_logging(self) -> None:
        """Where the program has set up nothing, the server's lines go to stderr, as those of the command line do."""
        if not (self.no_logs or self.settings.SILENT) and not log.hasHandlers():
            logs.configure(self._make_config())

    def _say(self, text: str) -> None:
        if not (self.no_logs or self.settings.SILENT):
            log.info("%s", text)


class BaseMicroServer(BaseServer):
    """A server of a micro app: every request goes to its view(request, processor) or async_view, with no routes in between."""

    microapp: Any = None

    def set_microapp(self, microapp: Any) -> None:
        """Sets the micro application of this server. Raises ValueError for an object without a view."""
        if not any(callable(getattr(microapp, name, None)) for name in ("view", "async_view")):
            raise ValueError(f"a micro app has a view(request, processor) or async_view; got {type(microapp).__name__}")
        self.microapp = microapp
        self._adapted = None

    def served_application(self) -> Any:
        return self.application if self.microapp is None else self.microapp

    @base
    def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """Lets the micro app's view answer one request; never closes."""
        super().handle_request_data(sock, addr, request_data)

    @base
    async def async_handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        """Lets the micro app's async_view answer one request, on the loop; never closes."""
        await super().async_handle_request_data(sock, addr, request_data)


def check_address(addr: Any) -> None:
    if not isinstance(addr, tuple) or len(addr) != 2:
        raise TypeError(f"addr must be a tuple of host and port, got {addr!r}")
    host, port = addr
    if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"addr must be a str and an int, got {addr!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"addr: {port} is not a port; give a number from 0 to 65535")


def check_data(request_data: Any) -> None:
    if not isinstance(request_data, RequestData):
        raise TypeError(f"request_data must be a RequestData, got {type(request_data).__name__}")


def request_timeout() -> bytes:
    """The bytes of a 408."""
    raw = RawResponse(A_REQUEST, keep_alive=False)
    head = raw.begin("408 Request Timeout", [("Content-Type", "text/plain; charset=utf-8")], len(TIMEOUT_REASON))
    return head + raw.piece(TIMEOUT_REASON) + raw.end()


