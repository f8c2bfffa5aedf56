"""Real signals to real servers: graceful stop, impatient stop, exit codes."""

from __future__ import annotations

import signal
import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import connect, fetch, read_answer, send_request
from support.process import ServerProcess, run_duckfast

Serve = Callable[..., ServerProcess]

# /slow says on stdout that it has begun, and answers when the file `go` appears.
WEBSITE = """
    import asyncio, os, time

    def wait_turns():
        while not os.path.exists("go"):
            yield 0.01

    def wsgi(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            print("begun", flush=True)
            for pause in wait_turns():
                time.sleep(pause)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
        return [b"done"]

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                print(message["type"], flush=True)
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["path"] == "/slow":
            print("begun", flush=True)
            for pause in wait_turns():
                await asyncio.sleep(pause)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})
"""

INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])


@pytest.fixture
def website(tmp_path: Path) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    return tmp_path


@pytest.fixture
def start(serve: Serve, website: Path) -> Callable[..., ServerProcess]:
    def starting(interface: str, *options: str) -> ServerProcess:
        return serve(f"website:{interface}", *options, cwd=website)

    return starting


def begin_slow_request(server: ServerProcess) -> socket.socket:
    sock = connect(server.url)
    send_request(sock, path="/slow")
    server.wait_for_stdout("begun")
    return sock


@INTERFACES
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_with_exit_code_0(start: Serve, interface: str, signum: int) -> None:
    server = start(interface)
    assert fetch(server.url).text == "done"
    server.send_signal(signum)
    assert server.wait() == 0
    assert f"{signal.Signals(signum).name}: stopping" in server.stderr_text()
    assert server.stderr_text().rstrip().endswith("stopped")


@INTERFACES
def test_server_that_never_had_a_client_ends_too(start: Serve, interface: str) -> None:
    start(interface).stop()


@INTERFACES
def test_request_in_progress_is_finished(start: Serve, website: Path, interface: str) -> None:
    server = start(interface)
    with begin_slow_request(server) as sock:
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        (website / "go").touch()
        answer = read_answer(sock)
    assert (answer.status, answer.text) == (200, "done")
    assert server.wait() == 0


@INTERFACES
def test_nobody_new_is_let_in_while_stopping(start: Serve, website: Path, interface: str) -> None:
    server = start(interface)
    with begin_slow_request(server) as sock:
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        deadline_reached = False
        while not deadline_reached:  # until the listener is closed, the kernel itself lets clients in
            try:
                connect(server.url).close()
            except OSError:
                deadline_reached = True
        (website / "go").touch()
        assert read_answer(sock).status == 200
    assert server.wait() == 0


@INTERFACES
def test_idle_keep_alive_connection_does_not_hold_the_server(start: Serve, interface: str) -> None:
    server = start(interface, "--timeout-keep-alive", "1h")
    with connect(server.url) as sock:
        send_request(sock, headers={"Connection": "keep-alive"})
        assert read_answer(sock).text == "done"
        server.stop()


@INTERFACES
def test_second_signal_ends_at_once(start: Serve, interface: str) -> None:
    server = start(interface)
    with begin_slow_request(server):
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    assert "SIGTERM again: ending at once" in server.stderr_text()


@INTERFACES
def test_two_different_signals_count_as_two(start: Serve, interface: str) -> None:
    server = start(interface)
    with begin_slow_request(server):
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        server.send_signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT


@INTERFACES
def test_request_that_outlives_the_graceful_time_is_cut(start: Serve, interface: str) -> None:
    server = start(interface, "--timeout-graceful-shutdown", "300ms")
    with begin_slow_request(server):
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_lifespan_shutdown_follows_the_last_request(start: Serve, website: Path) -> None:
    server = start("asgi")
    with begin_slow_request(server) as sock:
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        assert "lifespan.shutdown" not in server.stdout_text()
        (website / "go").touch()
        assert read_answer(sock).status == 200
    assert server.wait() == 0
    assert "lifespan.shutdown" in server.stdout_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_the_import_stops_without_a_traceback(tmp_path: Path, signum: int) -> None:
    source = """
        import os, signal
        try:
            os.kill(os.getpid(), {signum})
            signal.pause()
        except Exception:
            print("swallowed")
        app = print
    """
    (tmp_path / "slow.py").write_text(textwrap.dedent(source).format(signum=int(signum)))
    ended = run_duckfast("slow:app", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 0
    assert ended.stdout == ""
    assert "before the application was ready: stopping" in ended.stderr
    assert "Traceback" not in ended.stderr


@INTERFACES
def test_handlers_of_the_program_are_back_after_run(website: Path, interface: str) -> None:
    script = f"""
        import signal
        import duckfast, website

        def own(signum, frame):
            print("own handler", flush=True)

        signal.signal(signal.SIGTERM, own)
        duckfast.run(website.{interface}, port=0)
        signal.raise_signal(signal.SIGTERM)
    """
    with ServerProcess(command=[sys.executable, "-c", textwrap.dedent(script)], cwd=website) as server:
        server.stop()
        assert "own handler" in server.stdout_text()


def test_signals_of_a_forked_child_are_its_own(website: Path) -> None:
    (website / "forking.py").write_text(
        textwrap.dedent("""
            import os, signal

            def app(environ, start_response):
                child = os.fork()
                if child == 0:
                    os.kill(os.getpid(), signal.SIGTERM)
                    os._exit(99)
                _, status = os.waitpid(child, 0)
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(os.waitstatus_to_exitcode(status)).encode()]
        """)
    )
    with ServerProcess(["forking:app"], cwd=website) as server:
        assert fetch(server.url).text == str(-signal.SIGTERM)
        assert fetch(server.url).text == str(-signal.SIGTERM)
        assert "stopping" not in server.stderr_text()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_signal_that_comes_while_all_threads_sleep_is_noticed(start: Serve, threads: str) -> None:
    for _ in range(5):
        server = start("wsgi", "--threads", threads)
        assert fetch(server.url).text == "done"
        server.stop()


@INTERFACES
def test_address_is_free_for_the_next_server_while_the_last_one_drains(start: Serve, website: Path, interface: str) -> None:
    first = start(interface)
    with begin_slow_request(first) as sock:
        first.send_signal(signal.SIGTERM)
        first.wait_for_stderr("SIGTERM: stopping")
        # Listening ends a moment after the line; a port that is still taken is told with exit code 2.
        second = start_until_bound(first.port, interface, website)
        assert fetch(second.url).text == "done"
        (website / "go").touch()
        assert read_answer(sock).text == "done"
        second.stop()
    assert first.wait() == 0


def start_until_bound(port: int, interface: str, website: Path) -> ServerProcess:
    while True:
        try:
            return ServerProcess([f"website:{interface}", "--port", str(port)], cwd=website).start()
        except AssertionError as error:
            assert "in use" in str(error)
