"""gunicorn with duckfast's workers: their life from the fork to the end. Real processes, real signals."""

from __future__ import annotations

import ast
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.client import Answer, connect, fetch, read_answer, send_request
from support.gunicorn import VERSION, Gunicorn, write_site
from support.process import clean_environment
from support.wire import eventually

KINDS = pytest.mark.parametrize("kind", ["wsgi", "asgi"])
OTHERS = {"wsgi": "asgi", "asgi": "wsgi"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path)


def facts(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return ast.literal_eval(answer.text)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Being found, being started ------------------------------------------------------------------------------------------


@KINDS
def test_gunicorn_finds_the_worker_by_its_entry_point_and_serves_with_it(site: Path, kind: str) -> None:
    with Gunicorn(site, kind, worker_class=f"egg:duckfast#{kind}") as server:
        seen = facts(server.get("/a%20b?c=d"))
        if kind == "wsgi":
            assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["REMOTE_ADDR"]) == ("/a b", "c=d", "127.0.0.1")
            assert (seen["wsgi.url_scheme"], seen["wsgi.multithread"], seen["wsgi.multiprocess"]) == ("http", False, False)
        else:
            assert (seen["path"], seen["query_string"], seen["client"][0]) == ("/a b", b"c=d", "127.0.0.1")
            assert (seen["scheme"], seen["root_path"]) == ("http", "")
        assert server.get("/", method="POST", body=b"x" * 100_000).body == b"x" * 100_000
        assert server.get("/fail").status == 500
        server.wait_for_stderr("ValueError: on purpose")  # in gunicorn's error log
        server.stop()
        assert ("lifespan.shutdown" in server.stdout_text()) == (kind == "asgi")


def test_without_gunicorn_the_module_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.py").write_text("raise ImportError('not here')")
    ended = subprocess.run(
        [sys.executable, "-c", "import duckfast.gunicorn"],
        env=clean_environment({"PYTHONPATH": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "duckfast.gunicorn is for gunicorn, which is not installed: `pip install gunicorn`" in ended.stderr


@KINDS
def test_an_application_that_cannot_be_imported_ends_gunicorn(site: Path, kind: str) -> None:
    server = Gunicorn(site, kind, target="nowhere:app")
    assert server.run() in (3, 4)  # by gunicorn's version, as with workers of its own
    assert "nowhere" in server.stderr_text()


def test_a_failed_startup_ends_gunicorn_with_the_reason(tmp_path: Path) -> None:
    write_site(
        tmp_path,
        """
        async def failing(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        """,
    )
    server = Gunicorn(tmp_path, "asgi", target="website:failing")
    assert server.run() == 3
    assert "the application's startup failed: no database" in server.stderr_text()
    assert "Worker failed to boot" in server.stderr_text()


@KINDS
def test_a_setting_that_cannot_be_used_ends_gunicorn_with_the_reason(site: Path, kind: str) -> None:
    server = Gunicorn(site, kind, "--certfile", __file__, "--keyfile", __file__)
    assert server.run() == 3
    assert "[SSL]" in server.stderr_text()


@KINDS
def test_the_wrong_worker_for_an_application_is_told(site: Path, kind: str) -> None:
    with Gunicorn(site, kind, target=f"website:{OTHERS[kind]}") as server:
        server.wait_for_stderr(f"-k duckfast.gunicorn.{OTHERS[kind].upper()}Worker serves those")


@KINDS
def test_preloaded_application_is_imported_once(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path, "import os\nprint('imported by', os.getpid(), flush=True)")
    with Gunicorn(tmp_path, kind, "--preload", workers=2) as server:
        assert server.get("/pid").status == 200
        server.stop()
        assert server.stdout_text().count("imported by") == 1


# Signs of life -------------------------------------------------------------------------------------------------------


@KINDS
def test_a_blocked_worker_is_replaced_after_telling_where_it_was(tmp_path: Path, kind: str) -> None:
    write_site(
        tmp_path,
        configuration="""
        def worker_abort(worker):
            print("worker_abort of", worker.pid, flush=True)

        def worker_exit(server, worker):
            print("worker_exit of", worker.pid, flush=True)
        """,
    )
    with Gunicorn(tmp_path, kind, "--timeout", "1") as server:
        first = server.worker_pids[0]
        with connect(server.addresses[0]) as blocked:
            send_request(blocked, path="/block")
            server.wait_for_workers(2)
            assert server.get("/pid").status == 200
        said = server.stderr_text()
        assert f"WORKER TIMEOUT (pid:{first})" in said
        assert re.search(r"in progress for \d\.\ds: GET /block", said)
        assert re.search(r'File ".*website\.py", line \d+ in ' + kind, said), "no stacks"
        server.stop()
        assert f"worker_abort of {first}" in server.stdout_text()
        assert f"worker_exit of {first}" in server.stdout_text()


def test_a_worker_that_hangs_while_importing_is_replaced(tmp_path: Path) -> None:
    write_site(
        tmp_path,
        """
        import pathlib

        if not pathlib.Path("tried").exists():
            pathlib.Path("tried").touch()
            time.sleep(600)
        """,
    )
    server = Gunicorn(tmp_path, "wsgi", "--timeout", "1")
    with server:  # waits for a worker that serves
        assert "WORKER TIMEOUT" in server.stderr_text()
        assert server.get("/pid").status == 200


def test_a_long_startup_that_waits_is_no_hang(tmp_path: Path) -> None:
    write_site(
        tmp_path,
        """
        import asyncio

        async def slow(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await asyncio.sleep(3)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
            else:
                await asgi(scope, receive, send)
        """,
    )
    with Gunicorn(tmp_path, "asgi", "--timeout", "1", target="website:slow") as server:
        assert server.get("/pid").status == 200
        assert "WORKER TIMEOUT" not in server.stderr_text()


@KINDS
def test_a_worker_ends_when_gunicorn_is_gone(site: Path, kind: str) -> None:
    with Gunicorn(site, kind) as server:
        worker = int(server.get("/pid").text)
        server.kill()
        eventually(lambda: not is_alive(worker), "the end of the worker")


# Ending --------------------------------------------------------------------------------------------------------------


@KINDS
def test_termination_lets_a_request_in_progress_finish(site: Path, kind: str) -> None:
    with Gunicorn(site, kind) as server, connect(server.addresses[0]) as wire:
        send_request(wire, path="/slow")
        server.wait_for_stdout("begun")
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("Handling signal: term")
        server.release_slow()
        assert read_answer(wire).status == 200
        assert server.wait() == 0


@KINDS
def test_termination_waits_no_longer_than_the_graceful_timeout(site: Path, kind: str) -> None:
    with Gunicorn(site, kind, "--graceful-timeout", "1") as server, connect(server.addresses[0]) as wire:
        worker = server.worker_pids[0]
        send_request(wire, path="/slow")
        server.wait_for_stdout("begun")
        os.kill(worker, signal.SIGTERM)  # nobody kills it then
        assert server.wait_for_workers(2)[0] == worker
        assert not wire.recv(100).startswith(b"HTTP/1.1 200")


@KINDS
def test_quit_does_not_wait(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path, configuration="def worker_int(worker):\n    print('worker_int of', worker.pid, flush=True)")
    with Gunicorn(tmp_path, kind) as server, connect(server.addresses[0]) as wire:
        worker = server.worker_pids[0]
        send_request(wire, path="/slow")
        server.wait_for_stdout("begun")
        server.send_signal(signal.SIGQUIT)
        assert server.wait() == 0
        assert f"worker_int of {worker}" in server.stdout_text()


class Client:
    """Asks for /pid again and again, on one connection as long as it lasts; whatever is no whole answer is a loss."""

    def __init__(self, address: str, keep: bool) -> None:
        self.pids: set[int] = set()
        self.answers = 0
        self.losses: list[str] = []
        self._address = address
        self._keep = keep
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def _live(self) -> None:
        while not self._ending.is_set():
            try:
                with connect(self._address) as wire:
                    closes = False
                    while not closes and not self._ending.is_set():
                        send_request(wire, path="/pid", headers={"Connection": "keep-alive"} if self._keep else {})
                        answer = read_answer(wire)
                        assert answer.status == 200, answer
                        self.pids.add(int(answer.text))
                        self.answers += 1
                        closes = answer.headers.get("connection") == "close" or not self._keep
            except (OSError, AssertionError) as error:
                self.losses.append(repr(error))
            except Exception as error:  # http.client's
                self.losses.append(repr(error))

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()


@KINDS
def test_hangup_under_load_loses_nothing(site: Path, kind: str) -> None:
    with Gunicorn(site, kind, workers=2) as server:
        clients = [Client(server.addresses[0], keep=number % 2 == 0) for number in range(8)]
        for reloads in range(1, 4):
            server.send_signal(signal.SIGHUP)
            fresh = set(server.wait_for_workers(2 + 2 * reloads)[-2:])
            eventually(lambda: any(client.pids & fresh for client in clients), "an answer of a new worker")  # noqa: B023
        for client in clients:
            client.stop()
        assert [client.losses for client in clients if client.losses] == []
        old = server.worker_pids[:-2]
        eventually(lambda: not any(map(is_alive, old)), "the end of the old workers")


@KINDS
def test_recycling_loses_nothing(site: Path, kind: str) -> None:
    with Gunicorn(site, kind, "--max-requests", "30", "--max-requests-jitter", "10", workers=2) as server:
        clients = [Client(server.addresses[0], keep=number % 2 == 0) for number in range(4)]
        server.wait_for_workers(6)
        for client in clients:
            client.stop()
        assert [client.losses for client in clients if client.losses] == []
        assert "Autorestarting worker: it has served 3" in server.stderr_text()


@KINDS
def test_workers_come_and_go_by_signals(site: Path, kind: str) -> None:
    with Gunicorn(site, kind) as server:
        server.send_signal(signal.SIGTTIN)
        first, second = server.wait_for_workers(2)
        server.send_signal(signal.SIGTTOU)
        eventually(lambda: not is_alive(first), "the end of the older worker")
        assert int(server.get("/pid").text) == second


# Where it listens ----------------------------------------------------------------------------------------------------


@KINDS
def test_unix_socket_is_left_to_gunicorn(site: Path, kind: str) -> None:
    path = site / "socket"
    with Gunicorn(site, kind, "-b", f"unix:{path}", "--max-requests", "1") as server:
        first = server.get("/pid").text
        server.wait_for_workers(2)
        assert path.exists()
        assert server.get("/pid").text != first
        seen = facts(server.get("/"))
        assert seen["REMOTE_ADDR"] == "" if kind == "wsgi" else seen["client"] is None


@KINDS
def test_workers_have_sockets_of_their_own_with_reuse_port(site: Path, kind: str) -> None:
    with socket.socket() as held:  # a port that is ours; nobody listens there yet
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with Gunicorn(site, kind, "--reuse-port", "-b", address, workers=2):
            answered = {fetch(f"http://{address}", "/pid").text for _ in range(40)}
            assert len(answered) == 2 or VERSION < (25, 0)  # before, gunicorn binds once and the workers share that


@KINDS
def test_code_that_does_not_compile_is_shown_until_it_does(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path, "def broken(:\n")
    with Gunicorn(tmp_path, kind, "--reload", "--reload-engine", "poll") as server:
        answer = server.get("/")
        assert answer.status == 500
        assert "website.py" in answer.text or VERSION < (25, 0)  # before, gunicorn shows the way there and not the place
        write_site(tmp_path)
        times = itertools.count(2_000_000_000)

        def is_noticed() -> bool:
            # Again and again: gunicorn takes no notice of a change before its reloader's first look.
            now = next(times)
            os.utime(tmp_path / "website.py", (now, now))
            return len(server.worker_pids) > 1

        eventually(is_noticed, "a new worker")
        eventually(lambda: server.get("/pid").status == 200, "the code that compiles")
