"""Servers of the class API from start to stop: addresses, workers, TLS, logs. Every test talks to a really started one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import ssl
import threading
from typing import Any

import apps
import pytest
from support.authority import Authority
from support.wire import DEADLINE, Wire, eventually, request

from duckfast.exceptions import BindError, ConfigError
from duckfast.httpd import BaseMicroServer, BaseServer, Settings, xsocket

LOCAL = ("127.0.0.1", 0)
BOTH = pytest.mark.parametrize("app", [apps.wsgi, apps.asgi], ids=["wsgi", "asgi"])
Ask = Any


def new(app: Any = apps.wsgi, **options: Any) -> BaseServer:
    return BaseServer(LOCAL, app, no_logs=True, **options)


@BOTH
def test_server_answers_in_the_background_of_a_with_block(app: Any, ask: Ask) -> None:
    server = new(app)
    assert server.addr == LOCAL
    assert not server.running
    with server as entered:
        assert entered is server
        assert server.running
        assert server.addr[1] != 0
        assert server.url == f"http://127.0.0.1:{server.addr[1]}"
        assert ask(server.addr, "/a", b"body").text == "POST /a body"
        assert ask(server.addr, "/stream", b"body").text == "POST /stream body"
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        Wire(server.addr).close()


@BOTH
def test_start_server_blocks_the_thread_that_serves_until_another_stops_it(app: Any, ask: Ask) -> None:
    server = new(app)
    told: list[bool] = []
    started = threading.Event()

    def on_start() -> None:
        told.append(server.running)
        started.set()

    thread = threading.Thread(target=server.start_server, args=(on_start,), name="the caller")
    thread.start()
    assert started.wait(DEADLINE)
    answer = ask(server.addr)
    assert answer.get("x-thread") == b"the caller"
    assert server.worker_threads == []
    assert server.worker_processes == []
    server.stop_server()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert told == [True]


def test_a_request_may_stop_its_own_server() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        server.stop_server()
        start_response("200 OK", [])
        return [b"bye"]

    server = new(app)
    started = threading.Event()
    thread = threading.Thread(target=server.start_server, args=(started.set,))
    thread.start()
    assert started.wait(DEADLINE)
    with Wire(server.addr) as wire:
        wire.send(request("GET", "/"))
        answer = wire.read_response()
    assert answer.text == "bye"
    thread.join(DEADLINE)
    assert not thread.is_alive()


def test_running_set_to_false_stops_the_server() -> None:
    with new() as server:
        server.running = False
        server.join(DEADLINE)
        assert not server.running
    with pytest.raises(ConnectionRefusedError):
        Wire(server.addr).close()


def test_a_stopped_server_can_be_started_again(ask: Ask) -> None:
    server = new()
    with server:
        first = server.addr
    with server:
        assert server.addr == first
        assert ask(server.addr).status == 200


def test_stop_without_start_and_twice_does_nothing() -> None:
    server = new()
    server.stop_server()
    with server:
        pass
    server.stop_server()
    server.join(DEADLINE)


@BOTH
def test_worker_threads_are_real_threads_that_share_the_applications_state(app: Any, ask: Ask) -> None:
    server = new(app, workers=3)
    server.start_server()  # returns at once
    try:
        threads = server.worker_threads
        assert len(threads) == 3
        assert all(isinstance(thread, threading.Thread) and thread.is_alive() for thread in threads)
        assert server.worker_processes == []
        answers = [ask(server.addr) for _ in range(8)]
        assert {answer.get("x-pid") for answer in answers} == {str(os.getpid()).encode()}
        assert {answer.get("x-thread") for answer in answers} <= {thread.name.encode() for thread in threads}
    finally:
        server.stop_server()
    assert server.worker_threads == []
    assert not any(thread.is_alive() for thread in threads)


def test_one_worker_thread_blocked_in_a_view_does_not_hold_up_the_others(ask: Ask) -> None:
    inside, leave = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/blocks":
            inside.set()
            assert leave.wait(DEADLINE)
        start_response("200 OK", [])
        return [b"done"]

    with new(app, workers=2) as server, Wire(server.addr) as wire:
        wire.send(request("GET", "/blocks"))
        assert inside.wait(DEADLINE)
        assert ask(server.addr).text == "done"
        leave.set()
        assert wire.read_response().text == "done"


@BOTH
def test_worker_processes_that_are_stopped_before_they_serve_end_in_order(app: Any, ask: Ask) -> None:
    for _ in range(2):  # the signal may come before a worker has a handler
        server = new(app, workers=2, force_worker_processes=True)
        server.start_server()
        processes = server.worker_processes
        server.stop_server()
        assert [process.exitcode for process in processes] == [0, 0]


@BOTH
def test_worker_processes_are_real_processes(app: Any, ask: Ask) -> None:
    server = new(app, workers=2, force_worker_processes=True)
    server.start_server()
    try:
        processes = server.worker_processes
        assert len(processes) == 2
        assert all(isinstance(process, multiprocessing.process.BaseProcess) for process in processes)
        assert server.worker_threads == []
        pids = {str(process.pid).encode() for process in processes}
        assert {ask(server.addr).get("x-pid") for _ in range(8)} <= pids
    finally:
        server.stop_server()
    assert server.worker_processes == []
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_worker_process_that_dies_is_replaced(ask: Ask) -> None:
    with new(workers=1, force_worker_processes=True) as server:
        (process,) = server.worker_processes
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)

        def replaced() -> bool:
            return [other.pid for other in server.worker_processes] not in ([], [process.pid])

        eventually(replaced, "another process")
        assert ask(server.addr).status == 200


def test_worker_processes_whose_every_start_fails_end_the_server(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(BaseServer):
        def start_server_loop(self, interval_fn: Any = None) -> None:
            os._exit(3)

    server = Broken(LOCAL, apps.wsgi, no_logs=True, workers=2, force_worker_processes=True)
    server.start_server()
    server.join(DEADLINE)
    assert not server.running
    assert "die as soon as they are started" in caplog.text


def test_stop_lets_a_request_in_progress_finish() -> None:
    inside, leave = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        inside.set()
        assert leave.wait(DEADLINE)
        start_response("200 OK", [])
        return [b"whole"]

    with new(app, workers=2) as server, Wire(server.addr) as wire:
        wire.send(request("GET", "/"))
        assert inside.wait(DEADLINE)
        server.stop_server(wait=False)
        leave.set()
        assert wire.read_response().text == "whole"


@BOTH
def test_interval_fn_is_called_while_the_loop_runs(app: Any) -> None:
    cycles = threading.Semaphore(0)

    class Beating(BaseServer):
        def start_server_loop(self, interval_fn: Any = None) -> None:
            super().start_server_loop(cycles.release)

    with Beating(LOCAL, app, no_logs=True):
        for _ in range(3):
            assert cycles.acquire(timeout=DEADLINE)


def test_server_loop_of_a_server_that_does_not_run_returns_at_once() -> None:
    new().start_server_loop()


@pytest.mark.skipif("not __import__('conftest').HAS_IPV6")
@BOTH
def test_ipv6_is_served(app: Any, ask: Ask) -> None:
    with BaseServer(("::1", 0), app, uses_ipv6=True, no_logs=True) as server:
        assert server.url == f"http://[::1]:{server.addr[1]}"
        assert ask(server.addr).get("x-client") == b"::1"


@BOTH
def test_tls_is_served_with_ssl_params(app: Any, ask: Ask, authority: Authority) -> None:
    certificate, key = authority.server("localhost")
    params = {"certfile": certificate, "keyfile": key, "version": ssl.PROTOCOL_TLS_SERVER}
    with new(app, enable_ssl=True, ssl_params=params) as server:
        assert server.url.startswith("https://")
        answer = ask(server.addr, "/a", b"body", tls=authority.client())
        assert (answer.text, answer.get("x-scheme")) == ("POST /a body", b"https")
        assert server.reload_ssl_context() is True


def test_tls_without_a_certificate_is_refused_before_anything_listens() -> None:
    with pytest.raises(ConfigError, match="certificate"):
        new(enable_ssl=True).start_server()


def test_an_address_in_use_is_told() -> None:
    with new() as server, pytest.raises(BindError, match="in use"):
        BaseServer(server.addr, apps.wsgi, no_logs=True).start_server()


def test_a_failed_lifespan_startup_is_raised_where_the_server_is_entered() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(Exception, match="no database"), new(app):
        pass


def test_start_server_on_a_running_one_is_refused() -> None:
    with new() as server, pytest.raises(RuntimeError, match="running already"):
        server.start_server()


def test_what_on_server_start_fn_raises_ends_the_start() -> None:
    server = new()

    def fail() -> None:
        raise KeyError("so asked for")

    with pytest.raises(KeyError):
        server.start_server(fail)
    assert not server.running
    assert server.sock.closed


def test_a_listening_socket_of_ones_own_is_used(ask: Ask) -> None:
    own = socket.create_server(LOCAL)
    server = new()
    server.sock = xsocket(own)
    with server:
        assert server.addr == own.getsockname()
        assert ask(server.addr).status == 200
    with pytest.raises(TypeError, match="xsocket"):
        server.sock = own  # type: ignore[assignment]


def test_stop_in_a_worker_process_does_nothing(ask: Ask) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        server.stop_server()
        start_response("200 OK", [])
        return [b"still here"]

    server = new(app, workers=1, force_worker_processes=True)
    with server:
        assert ask(server.addr).text == "still here"
        assert ask(server.addr).text == "still here"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"addr": ["127.0.0.1", 0]}, TypeError, "tuple of host and port"),
        ({"addr": ("127.0.0.1", "80")}, TypeError, "a str and an int"),
        ({"addr": ("127.0.0.1", 70000)}, ValueError, "70000"),
        ({"application": 5}, TypeError, "WSGI or an ASGI callable"),
        ({"application": lambda: None}, TypeError, "ASGI or WSGI"),
        ({"ssl_params": []}, TypeError, "ssl_params"),
        ({"workers": "2"}, TypeError, "workers"),
        ({"workers": -1}, ValueError, "workers"),
    ],
)
def test_wrong_arguments_say_what_was_seen(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        BaseServer(**{"addr": LOCAL, "application": apps.wsgi, **arguments})


def test_start_and_stop_are_logged_with_the_domain(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "duckfast")
    with BaseServer(LOCAL, apps.wsgi, domain="duck.test") as server:
        server.stop_server()
    assert f"http://duck.test:{server.addr[1]}" in caplog.text
    assert "stopped" in caplog.text


def test_no_logs_says_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], ask: Ask) -> None:
    caplog.set_level(logging.DEBUG, "duckfast")
    with new() as server:
        ask(server.addr)
        server.stop_server()
    assert [record.message for record in caplog.records if record.levelno >= logging.INFO] == []
    assert capfd.readouterr() == ("", "")


def test_settings_of_one_server_hold_for_it_alone(ask: Ask) -> None:
    server = new()
    server.settings = Settings(CONNECTION_MODE="close", DATA_UPLOAD_MAX_SIZE=10, FILE_UPLOAD_MAX_SIZE=10)
    with server:
        assert ask(server.addr).closes
        assert ask(server.addr, "/", b"x" * 11).status == 413
    with new() as other:
        assert not ask(other.addr).closes


@pytest.mark.parametrize("asynchronous", [False, True])
def test_micro_server_gives_every_request_to_the_view(asynchronous: bool, ask: Ask) -> None:
    server = BaseMicroServer(LOCAL, apps.Micro(), no_logs=True)
    server.settings = Settings(ASYNC_HANDLING=asynchronous)
    with server:
        answer = ask(server.addr, "/any/path", b"text")
    if asynchronous:
        assert answer.text == '{"async": true, "path": "/any/path", "text": "text"}'
        assert answer.get("content-type") == b"application/json"
    else:
        assert answer.text == "POST /any/path text"
        assert answer.get("content-type") == b"text/html; charset=utf-8"


def test_micro_app_can_be_set_in_place_of_the_application(ask: Ask) -> None:
    class Other:
        def view(self, request: Any, processor: Any) -> Any:
            return "no", 404, {"X-Other": "yes"}

    server = BaseMicroServer(LOCAL, apps.Micro(), no_logs=True)
    server.set_microapp(Other())
    with server:
        answer = ask(server.addr)
    assert (answer.status, answer.text, answer.get("x-other")) == (404, "no", b"yes")
    with pytest.raises(ValueError, match="view"):
        server.set_microapp(object())


def test_several_servers_run_in_one_process(ask: Ask) -> None:
    with new() as first, new(apps.asgi) as second, new(workers=2) as third:
        assert [ask(server.addr, "/x").status for server in (first, second, third)] == [200, 200, 200]
