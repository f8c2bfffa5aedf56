"""Overridden methods of a server: called with real objects, super() works, and the wire shows what a client must see."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import apps
import pytest
from support.authority import Authority
from support.wire import DEADLINE, Wire, request

from duckfast import httpd
from duckfast.httpd import BaseMicroServer, BaseServer, RawRequestData, RequestData, Response, Settings, ssl_xsocket, xsocket
from duckfast.httpd.hooks import NONE, Hook, overridden

LOCAL = ("127.0.0.1", 0)
Ask = Any
KINDS = ["wsgi", "asgi"]
APPS: dict[str, Any] = {"wsgi": apps.wsgi, "asgi": apps.asgi}


class Recorder(BaseServer):
    """Notes what its hooks are called with."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(LOCAL, app, no_logs=True, **options)
        self.notes: queue.Queue[Any] = queue.Queue()

    def note(self, *what: Any) -> None:
        self.notes.put(what)

    def next_note(self) -> Any:
        return self.notes.get(timeout=DEADLINE)


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest) -> Any:
    return APPS[request.param]


# Which are overridden -----------------------------------------------------------------------------------------------------


def test_a_server_as_it_is_overrides_nothing_and_serves_the_application_itself() -> None:
    for server in (BaseServer(LOCAL, apps.wsgi), BaseMicroServer(LOCAL, apps.Micro())):
        assert overridden(server) is NONE
    server = BaseServer(LOCAL, apps.wsgi, no_logs=True)
    with server:
        engine: Any = server._engines[0]
        assert httpd.server.hooks.application_of(server, NONE, False) is apps.wsgi
        assert engine._diversions is httpd.server.hooks.NO_DIVERSIONS


def test_a_method_of_the_class_or_of_the_instance_is_overridden() -> None:
    class Own(BaseServer):
        def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None: ...

    server = Own(LOCAL, apps.wsgi)
    assert overridden(server) == Hook.PROCESS_DATA
    server.do_request_timeout = lambda sock, addr: None  # type: ignore[method-assign]
    assert overridden(server) == Hook.PROCESS_DATA | Hook.DO_REQUEST_TIMEOUT


# Per request --------------------------------------------------------------------------------------------------------------


def test_handle_request_data_is_called_with_the_request_and_super_answers(app: Any, ask: Ask) -> None:
    class Server(Recorder):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            self.note(type(sock).__mro__[1], addr, request_data.headers, request_data.content)
            super().handle_request_data(sock, addr, request_data)
            self.note("answered")

    with Server(app) as server:
        answer = ask(server.addr, "/a?b=c", b"body", headers=[("X-Two", "1"), ("X-Two", "2")])
        assert answer.text == "POST /a body"
        kind, addr, headers, content = server.next_note()
        assert kind is xsocket
        assert addr[0] == "127.0.0.1"
        assert isinstance(addr[1], int)
        assert headers["topheader"] == "POST /a?b=c HTTP/1.1"
        assert headers["x-two"] == "1,2"
        assert headers["content-length"] == "4"
        assert content == b"body"
        assert server.next_note() == ("answered",)


def test_a_chunked_body_reaches_the_hook_without_its_chunks(app: Any) -> None:
    class Server(Recorder):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            self.note(request_data.content)
            super().handle_request_data(sock, addr, request_data)

    with Server(app) as server, Wire(server.addr) as wire:
        head = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire.send(head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        assert wire.read_response("POST").text == "POST /c abcdefg"
        assert server.next_note() == (b"abcdefg",)


def test_what_a_hook_changes_in_the_request_is_what_the_application_sees(app: Any, ask: Ask) -> None:
    class Server(BaseServer):
        def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            request_data.headers["x-added"] = "by the hook"
            request_data.headers["topheader"] = "PUT /other HTTP/1.1"
            request_data.content = b"another body"
            super().process_data(sock, addr, request_data)

    with Server(LOCAL, app, no_logs=True) as server:
        answer = ask(server.addr, "/a", b"body")
        assert (answer.text, answer.get("x-seen")) == ("PUT /other another body", b"by the hook")


def test_connection_stays_open_after_a_hook_and_its_super(app: Any) -> None:
    class Server(BaseServer):
        def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            super().process_data(sock, addr, request_data)

    with Server(LOCAL, app, no_logs=True) as server, Wire(server.addr) as wire:
        for path in ("/1", "/stream", "/3"):
            wire.send(request("GET", path))
            assert wire.read_response().text == f"GET {path} "


@pytest.mark.parametrize(
    ("returned", "status", "text", "content_type"),
    [
        ("<b>hello</b>", 200, "<b>hello</b>", b"text/html; charset=utf-8"),
        (b"bytes", 200, "bytes", b"application/octet-stream"),
        ({"a": 1}, 200, '{"a": 1}', b"application/json"),
        (("gone", 410), 410, "gone", b"text/html; charset=utf-8"),
        (("text", 200, {"Content-Type": "text/plain"}), 200, "text", b"text/plain"),
        (Response("made", 201), 201, "made", b"text/html; charset=utf-8"),
    ],
)
def test_a_hook_may_return_a_response(returned: Any, status: int, text: str, content_type: bytes, ask: Ask) -> None:
    class Server(BaseServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> Any:
            return returned

    for app in APPS.values():
        with Server(LOCAL, app, no_logs=True) as server:
            answer = ask(server.addr)
            assert (answer.status, answer.text, answer.get("content-type")) == (status, text, content_type)


def test_a_hook_may_write_with_the_socket_and_the_connection_goes_on(app: Any) -> None:
    class Server(BaseServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            if "/raw" in request_data.headers["topheader"]:
                assert sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw", 5) == 41
            else:
                super().handle_request_data(sock, addr, request_data)

    with Server(LOCAL, app, no_logs=True) as server, Wire(server.addr) as wire:
        for path, text in [("/raw", "raw"), ("/app", "GET /app "), ("/raw", "raw")]:
            wire.send(request("GET", path))
            assert wire.read_response().text == text


def test_pipelined_requests_behind_a_response_that_a_hook_wrote_are_answered() -> None:
    class Server(BaseServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            if "/raw" in request_data.headers["topheader"]:
                sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw")
            else:
                super().handle_request_data(sock, addr, request_data)

    with Server(LOCAL, apps.wsgi, no_logs=True) as server, Wire(server.addr) as wire:
        wire.send(request("GET", "/raw") + request("GET", "/raw") + request("GET", "/app"))
        assert [wire.read_response().text for _ in range(3)] == ["raw", "raw", "GET /app "]


@pytest.mark.parametrize(
    "written",
    [
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"not HTTP at all",
    ],
)
def test_connection_ends_after_what_is_not_one_framed_response(written: bytes, app: Any) -> None:
    class Server(BaseServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            sock.send(written)

    with Server(LOCAL, app, no_logs=True) as server, Wire(server.addr) as wire:
        wire.send(request("GET", "/"))
        assert wire.read_rest() == written
        wire.expect_end()


def test_a_hook_that_neither_answers_nor_returns_is_an_error_of_the_application(app: Any, ask: Ask) -> None:
    class Server(BaseServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            pass

    with Server(LOCAL, app, no_logs=True) as server:
        assert ask(server.addr).status == 500


def test_what_the_application_raises_comes_out_of_super_and_may_be_answered(app: Any, ask: Ask) -> None:
    class Server(BaseServer):
        def process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> Any:
            super().process_data(sock, addr, request_data)

    with Server(LOCAL, app, no_logs=True) as server:
        assert ask(server.addr, "/fail").status == 500
        assert ask(server.addr, "/fine").status == 200


def test_hooks_of_a_tls_server_have_a_socket_that_speaks_tls(app: Any, authority: Authority) -> None:
    class Server(Recorder):
        def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
            self.note(isinstance(sock, ssl_xsocket), sock.version())
            super().handle_conn(sock, addr, flowinfo, scopeid)

        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            self.note(isinstance(sock, ssl_xsocket))
            if "/raw" in request_data.headers["topheader"]:
                sock.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
            else:
                super().handle_request_data(sock, addr, request_data)

    certificate, key = authority.server("localhost")
    with Server(app, enable_ssl=True, ssl_params={"certfile": certificate, "keyfile": key}) as server:
        with Wire(server.addr, tls=authority.client()) as wire:
            for path, text in [("/raw", "x" * 100_000), ("/app", "GET /app "), ("/raw", "x" * 100_000)]:
                wire.send(request("GET", path))
                assert wire.read_response().text == text
        assert server.next_note() == (True, "TLSv1.3")
        assert [server.next_note() for _ in range(3)] == [(True,)] * 3


def test_micro_servers_request_hook_reaches_the_view_by_super(ask: Ask) -> None:
    class Server(BaseMicroServer):
        def handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
            request_data.content = b"changed"
            super().handle_request_data(sock, addr, request_data)

    with Server(LOCAL, apps.Micro(), no_logs=True) as server:
        assert ask(server.addr, "/m", b"text").text == "POST /m changed"


# Per connection -----------------------------------------------------------------------------------------------------------


def test_accept_and_handle_conn_and_keep_alive_are_called_with_real_sockets(app: Any) -> None:
    class Server(Recorder):
        def accept_and_handle(self) -> Any:
            client = super().accept_and_handle()
            self.note("accept", client.addr)
            return client

        def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
            self.note("conn", addr, sock.getpeername(), sock.fileno() > 0)
            super().handle_conn(sock, addr, flowinfo, scopeid)
            self.note("given back", sock.closed)

        def handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
            self.note("idle", addr)
            super().handle_keep_alive_conn(sock, addr)

    with Server(app) as server, Wire(server.addr) as wire:
        peer = wire.socket.getsockname()
        seen = [server.next_note() for _ in range(3)]
        assert sorted(seen) == [("accept", peer), ("conn", peer, peer, True), ("given back", True)]
        for _ in range(2):
            wire.send(request("GET", "/k"))
            assert wire.read_response().text == "GET /k "
            assert server.next_note() == ("idle", peer)


def test_a_connection_that_handle_conn_keeps_is_its_own() -> None:
    class Server(BaseServer):
        def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
            sock.send(b"you said " + sock.recv(100, 5))

    with Server(LOCAL, apps.wsgi, no_logs=True) as server, Wire(server.addr) as wire:
        wire.send(b"hello")
        assert wire.read_rest() == b"you said hello"


def test_bytes_that_came_before_a_connection_is_given_back_are_not_lost(app: Any) -> None:
    go = threading.Event()

    class Server(BaseServer):
        def handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
            assert go.wait(DEADLINE)
            super().handle_conn(sock, addr, flowinfo, scopeid)

    with Server(LOCAL, app, no_logs=True) as server, Wire(server.addr) as wire:
        wire.send(request("POST", "/early", [], b"body"))
        go.set()
        assert wire.read_response("POST").text == "POST /early body"


def test_do_request_timeout_is_called_and_super_answers_408(app: Any) -> None:
    class Server(Recorder):
        def do_request_timeout(self, sock: xsocket, addr: Any) -> None:
            self.note(addr, sock.addr)
            super().do_request_timeout(sock, addr)

    server = Server(app)
    server.settings = Settings(REQUEST_TIMEOUT=0.05)
    with server:
        for sent in (b"", b"GET / HT"):
            with Wire(server.addr) as wire:
                wire.send(sent)
                answer = wire.read_response()
                assert answer.status == 408
                assert answer.closes
                wire.expect_end()
                peer = wire.socket.getsockname()
            assert server.next_note() == (peer, peer)


def test_do_request_timeout_may_answer_in_its_own_way() -> None:
    class Server(BaseServer):
        def do_request_timeout(self, sock: xsocket, addr: Any) -> None:
            sock.send(b"too slow")

    server = Server(LOCAL, apps.wsgi, no_logs=True)
    server.settings = Settings(REQUEST_TIMEOUT=0.05)
    with server, Wire(server.addr) as wire:
        assert wire.read_rest() == b"too slow"


def test_start_server_loop_is_a_hook_of_every_worker(ask: Ask) -> None:
    class Server(Recorder):
        def start_server_loop(self, interval_fn: Callable[[], Any] | None = None) -> None:
            self.note(threading.current_thread().name)
            super().start_server_loop(interval_fn)

    with Server(apps.wsgi, workers=2) as server:
        assert ask(server.addr).status == 200
        assert {server.next_note(), server.next_note()} == {(thread.name,) for thread in server.worker_threads}


# Twins on the loop --------------------------------------------------------------------------------------------------------


class OnLoop(Recorder):
    """Every hook of the loop overridden, each notes itself and calls super()."""

    async def async_handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
        self.note("conn", addr == sock.getpeername())
        await super().async_handle_conn(sock, addr, flowinfo, scopeid)

    async def async_process_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        self.note("process", request_data.content)
        await super().async_process_data(sock, addr, request_data)

    async def async_handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> None:
        assert asyncio.get_running_loop() is self.loop
        if "/raw" in request_data.headers["topheader"]:
            await sock.async_send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nraw", 5)
            return
        await super().async_handle_request_data(sock, addr, request_data)
        self.note("handled")

    async def async_handle_keep_alive_conn(self, sock: xsocket, addr: Any) -> None:
        self.note("idle")
        await super().async_handle_keep_alive_conn(sock, addr)

    async def async_do_request_timeout(self, sock: xsocket, addr: Any) -> None:
        self.note("timeout")
        await super().async_do_request_timeout(sock, addr)


def test_async_twins_are_called_on_the_loop(app: Any) -> None:
    with OnLoop(app) as server, Wire(server.addr) as wire:
        assert server.next_note() == ("conn", True)
        for path, text in [("/a", "POST /a body"), ("/raw", "raw"), ("/stream", "POST /stream body")]:
            wire.send(request("POST", path, [], b"body"))
            assert wire.read_response("POST").text == text
            assert server.next_note() == ("process", b"body")
            after = [server.next_note() for _ in range(1 if path == "/raw" else 2)]
            assert sorted(after) == ([("idle",)] if path == "/raw" else [("handled",), ("idle",)])


def test_async_timeout_hook_answers_408(app: Any) -> None:
    server = OnLoop(app)
    server.settings = Settings(REQUEST_TIMEOUT=0.05)
    with server, Wire(server.addr) as wire:
        assert server.next_note() == ("conn", True)
        assert wire.read_response().status == 408
        assert server.next_note() == ("timeout",)


def test_an_async_hook_may_return_a_response(app: Any, ask: Ask) -> None:
    class Server(BaseServer):
        async def async_handle_request_data(self, sock: xsocket, addr: Any, request_data: RequestData) -> Any:
            return "from the loop", 202

    with Server(LOCAL, app, no_logs=True) as server:
        answer = ask(server.addr)
        assert (answer.status, answer.text) == (202, "from the loop")


def test_async_sockets_read_and_write_over_tls(authority: Authority) -> None:
    class Server(BaseServer):
        async def async_handle_conn(self, sock: xsocket, addr: Any, flowinfo: Any = None, scopeid: Any = None) -> None:
            size = int(await sock.async_recv(10, 5))
            got = b""
            while len(got) < size:
                got += await sock.async_recv(65536, 5)
            await sock.async_send(got[::-1], 5)

    certificate, key = authority.server("localhost")
    body = bytes(range(256)) * 4000
    with Server(LOCAL, apps.asgi, no_logs=True, enable_ssl=True, ssl_params={"certfile": certificate, "keyfile": key}) as server:
        with Wire(server.addr, tls=authority.client()) as wire:
            wire.send(b"%-10d" % len(body))
            wire.send(body)
            assert wire.read_exactly(len(body)) == body[::-1]
            wire.expect_end()


# Bodies of the base class, called by hand ---------------------------------------------------------------------------------


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, xsocket]]:
    """A client's end and a server's end."""
    with socket.create_server(LOCAL) as listener, socket.create_connection(listener.getsockname(), DEADLINE) as client:
        accepted, _ = listener.accept()
        accepted.settimeout(DEADLINE)
        with accepted:
            yield client, xsocket(accepted)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("raw", [False, True])
def test_handle_request_data_by_hand_writes_a_response_and_does_not_close(app: Any, raw: bool) -> None:
    server = BaseServer(LOCAL, app, no_logs=True)
    data: RequestData = RequestData({"topheader": "POST /hand HTTP/1.1", "host": "a", "connection": "close"}, b"body")
    if raw:
        data = RawRequestData(data.to_bytes())
    with connected() as (client, sock):
        server.handle_request_data(sock, ("127.0.0.1", 1), data)
        assert not sock.closed
        sock.close()
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 15" in head.lower()
    assert body == b"POST /hand body"


def test_async_handle_request_data_by_hand_does_the_same(app: Any) -> None:
    server = BaseServer(LOCAL, app, no_logs=True)
    data = RequestData({"topheader": "GET /stream HTTP/1.1", "host": "a"})
    with connected() as (client, sock):
        asyncio.run(server.async_handle_request_data(sock, ("127.0.0.1", 1), data))
        sock.close()
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert body.endswith(b"0\r\n\r\n")


def test_process_data_by_hand_closes_a_connection_that_is_not_to_be_kept(app: Any) -> None:
    server = BaseServer(LOCAL, app, no_logs=True)
    data = RequestData({"topheader": "GET /hand HTTP/1.1", "host": "a", "connection": "close"})
    with connected() as (client, sock):
        server.process_data(sock, ("127.0.0.1", 1), data)
        assert sock.closed
        assert read_all(client).endswith(b"GET /hand ")


def test_process_data_by_hand_keeps_the_connection_with_a_server_that_runs(app: Any) -> None:
    data = RequestData({"topheader": "GET /hand HTTP/1.1", "host": "a"})
    with BaseServer(LOCAL, app, no_logs=True) as server, connected() as (client, sock):
        server.process_data(sock, client.getsockname(), data)
        client.sendall(request("GET", "/next", [("Connection", "close")]))
        answers = read_all(client)
    assert b"GET /hand " in answers
    assert answers.endswith(b"GET /next ")


def test_handle_conn_by_hand_lets_a_running_server_serve_the_connection(app: Any) -> None:
    with BaseServer(LOCAL, app, no_logs=True) as server, connected() as (client, sock):
        server.handle_conn(sock, client.getsockname())
        client.sendall(request("GET", "/given", [("Connection", "close")]))
        assert read_all(client).endswith(b"GET /given ")


def test_handle_conn_by_hand_without_a_server_that_runs_says_so() -> None:
    with connected() as (_client, sock), pytest.raises(RuntimeError, match="not running"):
        BaseServer(LOCAL, apps.wsgi, no_logs=True).handle_conn(sock, ("127.0.0.1", 1))


def test_do_request_timeout_by_hand_answers_408_and_closes() -> None:
    server = BaseServer(LOCAL, apps.wsgi, no_logs=True)
    with connected() as (client, sock):
        server.do_request_timeout(sock, ("127.0.0.1", 1))
        assert sock.closed
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in answer.lower()


def test_accept_and_handle_by_hand_accepts_one_connection_for_the_engine() -> None:
    class Server(BaseServer):
        def accept_and_handle(self) -> Any:
            raise BlockingIOError  # the thread that would accept does not

    with Server(LOCAL, apps.wsgi, no_logs=True) as server:
        with pytest.raises(BlockingIOError):
            BaseServer.accept_and_handle(server)
        with Wire(server.addr) as wire:
            client = BaseServer.accept_and_handle(server)
            assert client.addr == wire.socket.getsockname()
            wire.send(request("GET", "/by/hand"))
            assert wire.read_response().text == "GET /by/hand "


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("handle_request_data", (5, None, RequestData({}))),
        ("process_data", (None, None, b"")),
        ("handle_request_data", (None, None, 5)),
    ],
)
def test_a_base_body_refuses_what_is_no_socket_or_no_request(name: str, arguments: tuple[Any, ...]) -> None:
    with connected() as (_client, sock), pytest.raises(TypeError):
        getattr(BaseServer(LOCAL, apps.wsgi), name)(*(sock if argument is None else argument for argument in arguments))


# The executor -------------------------------------------------------------------------------------------------------------


def test_callables_run_on_a_thread_and_coroutines_on_a_loop() -> None:
    thread = httpd.call_request_handling_executor(threading.current_thread).result(DEADLINE)
    assert thread is not threading.current_thread()

    async def where() -> Any:
        return asyncio.get_running_loop()

    assert httpd.call_request_handling_executor(where()).result(DEADLINE) is not None
    with pytest.raises(TypeError, match="callable or a coroutine"):
        httpd.call_request_handling_executor(5)  # type: ignore[arg-type]


def test_the_settings_may_name_another_executor(app: Any) -> None:
    class Own:
        def __init__(self) -> None:
            self.tasks: list[Any] = []

        def execute(self, task: Any) -> str:
            self.tasks.append(task)
            return "mine"

    httpd.SETTINGS.REQUEST_HANDLING_TASK_EXECUTOR = own = Own()
    try:
        assert httpd.call_request_handling_executor(print) == "mine"
        assert own.tasks == [print]
    finally:
        del httpd.SETTINGS["REQUEST_HANDLING_TASK_EXECUTOR"]
