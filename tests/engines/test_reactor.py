"""Accepting, threads and idle connections of a real server: what the reactor does apart from HTTP."""

from __future__ import annotations

import platform
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from engines.gates import Gates
from support.client import fetch, read_answer, send_request
from support.engine import ASGI_KINDS, KINDS, RunningEngine
from support.machine import counts_memory
from support.process import ServerProcess
from support.wire import request

HERE = Path(__file__).parent
TIMEOUT = 20.0  # seconds; only a broken server reaches it
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), TIMEOUT)


def views(*options: str, command: list[str] | None = None) -> ServerProcess:
    arguments = ["views:app", "--interface", "wsgi", "--no-access-log", "--timeout-keep-alive", "60", *options]
    return ServerProcess(arguments, cwd=HERE, command=command)


def test_a_burst_of_connections_is_accepted_and_served() -> None:
    with views() as server:
        clients = [connect(server) for _ in range(300)]
        for client in clients:
            client.sendall(REQUEST)
        assert [read_answer(client).status for client in clients] == [200] * 300
        for client in clients:
            client.close()


def test_no_descriptors_left_is_told_once_and_survived() -> None:
    soft = 48
    code = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {soft})); " \
        "runpy.run_module('duckfast', run_name='__main__')"
    with views("--port", "0", "--threads", "1", command=[sys.executable, "-c", code]) as server:
        clients = [connect(server) for _ in range(2 * soft)]  # the kernel completes them all; the server cannot accept them all
        for client in clients:
            client.sendall(REQUEST)
        served = 0
        for client in clients:  # each that leaves makes room for one that waits
            assert read_answer(client).status == 200
            client.close()
            served += 1
        assert served == 2 * soft
        assert server.stderr_text().count("cannot accept connections for now: Too many open files") == 1


def test_threads_grow_while_all_are_stuck() -> None:
    with views("--threads", "8") as server:
        clients = [connect(server) for _ in range(5)]
        for client in clients:
            send_request(client, path="/meet")  # five views that wait for each other
        assert [read_answer(client).status for client in clients] == [200] * 5
        for client in clients:
            client.close()


def test_a_quick_view_is_served_while_another_blocks() -> None:
    with views("--threads", "2") as server:
        with connect(server) as blocked, connect(server) as quick:
            send_request(blocked, path="/wait")
            for _ in range(100):
                quick.sendall(REQUEST)
                assert read_answer(quick).status == 200
            send_request(quick, path="/open")
            assert read_answer(quick).status == 200
            assert read_answer(blocked).status == 200


def test_a_stop_waits_for_a_view_that_blocks() -> None:
    with views("--threads", "4") as server:
        with connect(server) as blocked, connect(server) as quick:
            send_request(blocked, path="/wait")
            send_request(quick, path="/open")
            assert read_answer(quick).status == 200
            server.send_signal(signal.SIGTERM)
            assert read_answer(blocked).status == 200
            assert server.wait() == 0


def test_a_response_larger_than_any_buffer_does_not_hold_a_thread() -> None:
    with views("--threads", "1") as server:
        with connect(server) as slow, connect(server) as quick:
            send_request(slow, path="/?30000000")
            for _ in range(20):  # the only thread is free again although the long answer has not left
                quick.sendall(REQUEST)
                assert read_answer(quick).status == 200
            assert len(read_answer(slow).body) == 30_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_client_that_always_has_more_to_ask_does_not_keep_others_waiting(kind: str) -> None:
    gates = Gates(kind)
    order: list[str] = []

    def note(path: str) -> None:
        order.append(path)
        if len(order) == 100:
            modest.send(request(target="/modest"))

    gates.on_request = note
    settings = {} if kind in ASGI_KINDS else {"threads": 1}
    with RunningEngine(kind, gates.app, **settings) as running:
        with running.connect() as modest, running.connect(receive_buffer=1 << 20) as greedy:
            greedy.send(request() * 3000)
            assert modest.read_response().body == b"ok"
            for _ in range(3000):
                assert greedy.read_response().body == b"ok"
    assert order.index("/modest") < 1500


@counts_memory
def test_idle_connections_cost_little_memory() -> None:
    number = min(4000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 50)

    def resident(server: ServerProcess) -> int:
        status = Path(f"/proc/{server.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    if not Path("/proc/self/status").exists():
        return  # only Linux tells a process's memory as a file
    with views("--threads", "1") as server:
        with connect(server) as first:
            first.sendall(REQUEST)
            read_answer(first)
            before = resident(server)
        clients = []
        for _ in range(number):
            client = connect(server)
            client.sendall(REQUEST)
            assert read_answer(client).status == 200
            clients.append(client)
        grown = resident(server) - before
        for client in clients:
            client.close()
        assert grown / number <= 1536 + 256  # bytes; the promise is 1.5 KiB at ten thousand, here the heap's own steps weigh more


@counts_memory
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap of glibc")
def test_memory_of_large_messages_is_not_given_back_and_asked_for_again_with_each() -> None:
    # In a process of its own: what others have allocated decides as well.
    script = """if True:
        import resource
        from duckfast import engine
        from duckfast.config import Config
        reactor = engine.make_reactor(None, Config("app:app"), None, None)
        def faults(rounds):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(rounds):
                messages = [b"x" * (65_000 + number) for number in range(32)]
                del messages
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        faults(5)
        print(faults(50))
    """
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(ended.stdout) < 50  # of some 25,000 pages


def test_keep_alive_of_zero_closes_after_every_response() -> None:
    with views("--threads", "1", "--timeout-keep-alive", "0") as server, connect(server) as client:
        client.sendall(REQUEST)
        assert read_answer(client).headers["connection"] == "close"
        assert client.recv(1) == b""


def test_a_stop_does_not_wait_for_idle_clients_that_keep_their_side_open() -> None:
    with views("--timeout-drain", "1h") as server, connect(server) as client:
        client.sendall(REQUEST)
        assert read_answer(client).status == 200
        server.send_signal(signal.SIGTERM)
        assert client.recv(1) == b""
        assert server.wait() == 0  # although nobody has closed this socket


@pytest.mark.parametrize("threads", ["1", "8"])
def test_an_app_that_raises_system_exit_ends_the_server_with_its_code(threads: str) -> None:
    arguments = ["corpus_app:leaves", "--interface", "wsgi", "--threads", threads]
    with ServerProcess(arguments, cwd=HERE) as server:
        assert fetch(server.url).status == 500
        assert server.wait() == 7
        server.kill()


def test_logging_that_the_app_configures_does_not_silence_the_server() -> None:
    with views() as server:
        assert "serving views:app" in server.stderr_text()
