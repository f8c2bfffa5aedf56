"""Real servers under systemd's protocols: sockets that are passed at the start, and what is told at NOTIFY_SOCKET."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.manager import Manager
from support.process import ServerProcess, clean_environment

Serve = Callable[..., ServerProcess]

WEBSITE = """
    import os

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        names = [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
        return [repr((os.getpid(), names)).encode()]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asgi"})
"""

# What systemd does between fork and exec: descriptors from 3 up, and the process id, which is known only then.
PASS = 'exec 3<&{0} 4<&{1} {0}<&- {1}<&-; export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b; exec "$@"'


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def passed(first: socket.socket, second: socket.socket) -> list[str]:
    assert min(first.fileno(), second.fileno()) > 4
    script = PASS.format(first.fileno(), second.fileno())
    return ["bash", "-c", script, "bash", sys.executable, "-m", "duckfast"]


@pytest.mark.parametrize("target", ["website:app", "website:asgi"])
def test_passed_sockets_are_served_without_an_address(website: Path, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.socket(socket.AF_UNIX) as second:
        second.bind("passed.sock")
        second.listen()
        numbers = [first.fileno(), second.fileno()]
        (website / "duckfast.toml").write_text("port = 1\n")  # an address in a file gives way
        process = ServerProcess([target], command=passed(first, second), cwd=website, listeners=2, pass_fds=numbers)
        with process as server:
            assert server.addresses == [f"http://127.0.0.1:{first.getsockname()[1]}", "unix:passed.sock"]
            for address in server.addresses:
                assert fetch(address).status == 200
            if target == "website:app":
                assert eval(fetch(server.url).text) == (server.pid, [])
        assert os.path.exists("passed.sock")  # it is systemd's


def test_address_on_the_command_line_wins_over_passed_sockets(website: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        numbers = [first.fileno(), second.fileno()]
        args = ["website:app", "--port", "0"]
        with ServerProcess(args, command=passed(first, second), cwd=website, pass_fds=numbers) as server:
            assert server.port != first.getsockname()[1]
            assert "the sockets of LISTEN_FDS are not used" in server.stderr_text()


def test_passed_socket_refuses_clients_once_the_server_drains(website: Path) -> None:
    """Nobody else has it, so a client that comes during the drain must not wait for nothing."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        address = first.getsockname()
        numbers = [first.fileno(), second.fileno()]
        server = ServerProcess(["website:app"], command=passed(first, second), cwd=website, listeners=2, pass_fds=numbers)
        server.start()
    try:
        with socket.create_connection(address, 10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12")  # keeps the drain waiting
            server.send_signal(signal.SIGTERM)
            server.wait_for_stderr("SIGTERM: stopping")
            while True:
                try:
                    socket.create_connection(address, 10).close()
                except ConnectionResetError:
                    continue  # it was in the queue when that was closed
                except ConnectionRefusedError:
                    break
            client.sendall(b"345")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert server.wait() == 0
    finally:
        server.kill()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not installed")
def test_systemd_socket_activate_starts_the_server(website: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = clean_environment()
    names = [f"--setenv={name}" for name in ("PYTHONPATH", "PYTHONUNBUFFERED", "PATH") if name in environment]
    activator = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", "--listen=" + str(website / "b.sock"), *names]
    process = subprocess.Popen(
        [*activator, sys.executable, "-m", "duckfast", "website:app"],
        cwd=website,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        listening = 0
        for line in process.stderr:
            listening += line.startswith("Listening on")
            if listening == 2:
                break
        answer = fetch(f"http://127.0.0.1:{port}")  # the first client starts it
        assert eval(answer.text) == (process.pid, [])
        assert fetch("unix:b.sock").status == 200
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


# sd_notify ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["website:app", "website:asgi"])
def test_ready_and_stopping_are_told(serve: Serve, website: Path, manager: Manager, target: str) -> None:
    env = {"NOTIFY_SOCKET": manager.address}
    server = serve(target, cwd=website, env=env)
    told = manager.next()
    assert (told["READY"], told["MAINPID"]) == ("1", str(server.pid))
    assert told["STATUS"].startswith("serving website:")
    if target == "website:app":
        assert eval(fetch(server.url).text) == (server.pid, [])
    server.stop()
    assert manager.next() == {"STOPPING": "1"}


def test_start_that_fails_is_never_ready(website: Path, manager: Manager) -> None:
    env = {"NOTIFY_SOCKET": manager.address}
    with pytest.raises(AssertionError, match="exit code 3"):
        ServerProcess(["website:nothing"], cwd=website, env=env).start()
    assert manager.hears_nothing()


@pytest.mark.parametrize("args", [["website:app"], ["website:app", "--threads", "1"], ["website:asgi"]], ids=" ".join)
def test_watchdog_is_told_that_the_engine_lives(serve: Serve, website: Path, manager: Manager, args: list[str]) -> None:
    env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    server = serve(*args, cwd=website, env=env)
    told = [manager.next() for _ in range(3)]
    assert {"WATCHDOG": "1"} in told
    server.stop()
