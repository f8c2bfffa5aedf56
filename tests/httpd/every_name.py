"""Imports every documented name of the class API and uses it for real; the last line tells how many checks were made.

A script of its own, so that worker processes are forked from a process with nothing else in it. test_every_name.py runs it:
    python every_name.py CERTIFICATE KEY
"""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
import ssl
import sys
import threading
from typing import Any

from apps import Micro, asgi, wsgi

from duckfast.httpd import (
    CONNECTION_MODE,
    KEEP_ALIVE_PATTERN,
    KEEP_ALIVE_TIMEOUT,
    SETTINGS,
    SSL_HANDSHAKE_TIMEOUT,
    BaseMicroServer,
    BaseServer,
    RawRequestData,
    RequestData,
    Settings,
    call_request_handling_executor,
    xsocket,
)

TIMEOUT = 30.0
checks = 0


def check(condition: object, what: str) -> None:
    global checks
    assert condition, what
    checks += 1


def ask(server: BaseServer, path: str, body: bytes | None = None, tls: bool = False) -> tuple[int, bytes, dict[str, str]]:
    host, port = server.addr
    context = ssl._create_unverified_context() if tls else None
    kind: Any = http.client.HTTPSConnection if tls else http.client.HTTPConnection
    options: dict[str, Any] = {"context": context} if tls else {}
    connection = kind(host, port, timeout=TIMEOUT, **options)
    connection.request("GET" if body is None else "POST", path, body)
    response = connection.getresponse()
    answer = response.status, response.read(), dict(response.getheaders())
    connection.close()
    return answer


def use_constants() -> None:
    check(isinstance(KEEP_ALIVE_PATTERN, re.Pattern) and KEEP_ALIVE_PATTERN.search(b"Connection: Keep-Alive"), "pattern")
    check((CONNECTION_MODE, KEEP_ALIVE_TIMEOUT, SSL_HANDSHAKE_TIMEOUT) == ("keep-alive", 1, 0.3), "constants")
    check(SETTINGS.KEEP_ALIVE_TIMEOUT == 1 and Settings.from_duck({"DEBUG": True}).DEBUG is True, "settings")
    check(call_request_handling_executor(lambda: 42).result(TIMEOUT) == 42, "a callable on a thread")

    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    check(call_request_handling_executor(double(21)).result(TIMEOUT) == 42, "a coroutine on a loop")
    check(RequestData({"topheader": "GET / HTTP/1.1"}, b"x").content == b"x", "request data")
    check(RawRequestData(b"GET / HTTP/1.1\r\n\r\n").data.startswith(b"GET"), "raw request data")


def use_plain_servers(certificate: str, key: str) -> None:
    for app in (wsgi, asgi):
        for options in ({}, {"workers": 3}, {"workers": 2, "force_worker_processes": True}):
            with BaseServer(("127.0.0.1", 0), app, no_logs=True, **options) as server:
                check(server.running and server.sock.fileno() > 0, "running, sock")
                check(ask(server, "/path", b"body")[:2] == (200, b"POST /path body"), f"{app} {options}")
                threads, processes = len(server.worker_threads), len(server.worker_processes)
                expected = (0, 0) if not options else (3, 0) if len(options) == 1 else (0, 2)
                check((threads, processes) == expected, f"{app} {options}: {threads} threads, {processes} processes")
            check(not server.running and not server.worker_threads and not server.worker_processes, "stopped")
        params = {"certfile": certificate, "keyfile": key}
        with BaseServer(("127.0.0.1", 0), app, enable_ssl=True, ssl_params=params, no_logs=True) as server:
            check(ask(server, "/tls", tls=True)[1] == b"GET /tls ", "TLS")
        if socket.has_ipv6:
            try:
                with BaseServer(("::1", 0), app, uses_ipv6=True, no_logs=True) as server:
                    check(ask(server, "/six")[1] == b"GET /six ", "IPv6")
            except Exception as error:
                check("no such address" in str(error) or "not speak" in str(error), f"IPv6: {error}")


def stop_from_another_thread() -> None:
    server = BaseServer(("127.0.0.1", 0), wsgi, no_logs=True, domain="duck.test")
    order: list[str] = []

    def started() -> None:
        order.append("started")
        threading.Thread(target=stop).start()

    def stop() -> None:
        order.append(ask(server, "/last")[1].decode())
        server.stop_server(log_to_console=False, wait=True)

    server.start_server(started)  # blocks until that thread stops it
    check(order == ["started", "GET /last "] and "duck.test" in server.url, f"order {order}")


class Hooked(BaseServer):
    """Every stage overridden once."""

    def __init__(self, app: Any) -> None:
        super().__init__(("127.0.0.1", 0), app, no_logs=True)
        self.settings = Settings(REQUEST_TIMEOUT=0.2)
        self.seen: set[str] = set()
        self.changed = threading.Condition()

    def note(self, name: str) -> None:
        with self.changed:
            self.seen.add(name)
            self.changed.notify_all()

    def wait_for(self, suffix: str) -> None:
        with self.changed:
            found = self.changed.wait_for(lambda: any(name.endswith(suffix) for name in self.seen), TIMEOUT)
        check(found, f"{suffix} was not called")

    def start_server(self, on_server_start_fn: Any = None) -> None:
        self.note("start_server")
        super().start_server(on_server_start_fn)

    def start_server_loop(self, interval_fn: Any = None) -> None:
        super().start_server_loop(lambda: self.note("start_server_loop"))

    def stop_server(self, log_to_console: bool = True, wait: bool = True) -> None:
        self.note("stop_server")
        super().stop_server(log_to_console, wait)

    def accept_and_handle(self) -> Any:
        self.note("accept_and_handle")
        return super().accept_and_handle()

    def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
        self.note("handle_conn")
        super().handle_conn(sock, addr, flowinfo, scopeid)

    def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        self.note("process_data")
        super().process_data(sock, addr, request_data)

    def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        self.note("handle_request_data")
        super().handle_request_data(sock, addr, request_data)

    def handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
        self.note("handle_keep_alive_conn")
        super().handle_keep_alive_conn(sock, addr)

    def do_request_timeout(self, sock: xsocket, addr: Any) -> None:
        self.note("do_request_timeout")
        super().do_request_timeout(sock, addr)


class HookedOnLoop(Hooked):
    """The twins as well."""

    async def async_handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
        self.note("async_handle_conn")
        await super().async_handle_conn(sock, addr, flowinfo, scopeid)

    async def async_process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        self.note("async_process_data")
        await super().async_process_data(sock, addr, request_data)

    async def async_handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        self.note("async_handle_request_data")
        await super().async_handle_request_data(sock, addr, request_data)

    async def async_handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
        self.note("async_handle_keep_alive_conn")
        await super().async_handle_keep_alive_conn(sock, addr)

    async def async_do_request_timeout(self, sock: xsocket, addr: Any) -> None:
        self.note("async_do_request_timeout")
        await super().async_do_request_timeout(sock, addr)


ALWAYS = {"start_server", "start_server_loop", "stop_server", "accept_and_handle"}
STAGES = {"handle_conn", "process_data", "handle_request_data", "handle_keep_alive_conn", "do_request_timeout"}


def use_hooks() -> None:
    for app in (wsgi, asgi):
        for kind, expected in ((Hooked, ALWAYS | STAGES), (HookedOnLoop, ALWAYS | {f"async_{name}" for name in STAGES})):
            server = kind(app)
            with server:
                connection = http.client.HTTPConnection(*server.addr, timeout=TIMEOUT)
                for number in range(2):  # on one connection
                    connection.request("POST", f"/{number}", b"hooked")
                    check(connection.getresponse().read() == f"POST /{number} hooked".encode(), f"{kind} {app}")
                server.wait_for("handle_keep_alive_conn")  # while it is idle
                connection.close()
                with socket.create_connection(server.addr, TIMEOUT) as silent:
                    check(b" 408 " in silent.recv(1000).partition(b"\r\n")[0], "request timeout")
            check(server.seen == expected, f"{kind.__name__}: {sorted(server.seen ^ expected)}")


def use_micro_servers() -> None:
    for asynchronous in (False, True):
        server = BaseMicroServer(("127.0.0.1", 0), Micro(), no_logs=True)
        server.set_microapp(Micro())
        server.settings = Settings(ASYNC_HANDLING=asynchronous)
        with server:
            check(b"/view" in ask(server, "/view", b"text")[1], "micro app")


def call_bodies_by_hand() -> None:
    data = RequestData({"topheader": "GET /hand HTTP/1.1", "host": "a", "connection": "close"})
    for app in (wsgi, asgi):
        server = BaseServer(("127.0.0.1", 0), app, no_logs=True)
        for call in (server.handle_request_data, server.process_data):
            ours, theirs = socket.socketpair()
            with ours:
                call(xsocket(theirs), ("", 0), data)
                check(b"GET /hand" in ours.recv(10_000), "by hand")
                theirs.close()
        ours, theirs = socket.socketpair()
        with ours:
            sock = xsocket(theirs)
            asyncio.run(server.async_process_data(sock, ("", 0), data))
            check(b"GET /hand" in ours.recv(10_000) and sock.closed, "by hand, on a loop")


if __name__ == "__main__":
    use_constants()
    use_plain_servers(*sys.argv[1:3])
    stop_from_another_thread()
    use_hooks()
    use_micro_servers()
    call_bodies_by_hand()
    print(f"{checks} checks")
