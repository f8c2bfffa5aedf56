"""Programs with a server inside: their signals, their logs, their end."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest
from support.client import connect, fetch, read_answer, send_request
from support.process import ServerProcess

TESTS = Path(__file__).parents[1]

PROGRAM = """
    import asyncio, logging, signal, sys, threading
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests in the background has it ignored
    import duckfast
    from support.guests import Guest, wsgi

    class Notes(list):
        def append(self, note):
            print(note, flush=True)

    app = Guest()
    app.notes = Notes()
    threading.Thread(target=lambda: (app.in_app.wait(), print("in app", flush=True)), daemon=True).start()
"""


def program(body: str) -> ServerProcess:
    """A script with an `app` that prints what happens to it. It asks for logs, so that its start line is seen."""
    script = textwrap.dedent(PROGRAM) + textwrap.dedent(body)
    return ServerProcess(command=[sys.executable, "-c", script], env={"PYTHONPATH": str(TESTS)})


SERVE_WITH_SIGNALS = """
    asyncio.run(duckfast.Server({app}, port=0, log_level="info").serve(signals=True))
    print("returned")
"""


@pytest.mark.parametrize(("app", "signum"), [("app", signal.SIGINT), ("app", signal.SIGTERM), ("wsgi", signal.SIGTERM)])
def test_signals_stop_serve_when_that_is_asked_for(app: str, signum: int) -> None:
    with program(SERVE_WITH_SIGNALS.format(app=app)) as server:
        assert fetch(server.url).status == 200
        server.send_signal(signum)
        assert server.wait() == 0
        assert server.stdout_text().endswith("returned\n")


def test_second_signal_ends_what_is_in_progress() -> None:
    with program(SERVE_WITH_SIGNALS.format(app="app")) as server, connect(server.url) as sock:
        send_request(sock, path="/wait")
        server.wait_for_stdout("in app")
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping, once more")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.stdout_text().split("\n")[-4:] == ["cancelled", "shutdown", "returned", ""]


def test_interrupt_of_asyncio_run_lets_the_shutdown_run() -> None:
    body = """
        asyncio.run(duckfast.Server(app, port=0, log_level="info").serve())
    """
    with program(body) as server:
        assert fetch(server.url).status == 200
        server.send_signal(signal.SIGINT)
        assert server.wait() == -signal.SIGINT
        assert "shutdown" in server.stdout_text()
        assert "KeyboardInterrupt" in server.stderr_text()


def test_server_in_the_background_ends_in_good_order_with_the_program(tmp_path: Path) -> None:
    body = f"""
        server = duckfast.Server(app, bind=["127.0.0.1:0", "unix:{tmp_path}/a.sock"], log_level="info").start()
        sys.stdin.read()
    """
    with program(body) as server:  # whose stdin is empty
        assert server.wait() == 0
        assert server.stdout_text().split() == ["startup", "shutdown"]
        assert not (tmp_path / "a.sock").exists()


def test_logs_go_where_the_program_says() -> None:
    body = """
        logging.basicConfig(level=logging.INFO, format="of the program: %(message)s", stream=sys.stderr)
        with duckfast.Server(wsgi, port=0) as server:
            with __import__("urllib.request").request.urlopen(server.url) as answer:
                print(answer.read().decode(), flush=True)
        assert not logging.getLogger("duckfast").handlers
    """
    with program(body) as server:
        assert server.wait() == 0
        assert "of the program: duckfast" in server.stderr_text()
        assert server.stdout_text() == "wsgi /\n"


def test_interrupt_while_the_application_starts_ends_the_start() -> None:
    body = """
        class Slow(Guest):
            async def __call__(self, scope, receive, send):
                print("starting", file=sys.stderr, flush=True)
                print("duckfast 0 serving slow (asgi) on http://127.0.0.1:1 (pid 1)", file=sys.stderr, flush=True)
                try:
                    await asyncio.Event().wait()
                finally:
                    print("cleaned up", flush=True)

        try:
            duckfast.Server(Slow(), port=0).start()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    with program(body) as server:
        server.send_signal(signal.SIGINT)
        server.wait_for_stdout("interrupted")
        server.kill()


def test_forked_child_does_not_wait_for_the_server_of_its_parent() -> None:
    body = """
        import os
        with duckfast.Server(wsgi, port=0, log_level="info") as server:
            child = os.fork()
            if child == 0:
                sys.exit(7)  # which runs the exit handlers
            print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            with __import__("urllib.request").request.urlopen(server.url) as answer:
                print(answer.read().decode(), flush=True)
    """
    with program(body) as server:
        assert server.wait() == 0
        assert server.stdout_text().split("\n")[-3:] == ["child 7", "wsgi /", ""]


def test_request_is_finished_when_the_program_leaves_its_block() -> None:
    body = """
        async def main():
            async with duckfast.Server(app, port=0, log_level="info"):
                await asyncio.to_thread(app.in_app.wait)
                asyncio.get_running_loop().call_soon(app.gate.set)

        asyncio.run(main())
    """
    with program(body) as server:
        with connect(server.url) as sock:
            send_request(sock, path="/wait")
            assert read_answer(sock).text == "asgi /wait"
        assert server.wait() == 0
