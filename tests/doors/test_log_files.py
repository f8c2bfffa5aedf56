"""Log files of real servers: where lines go, and that a rotation loses and splits none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import connect, fetch, read_answer
from support.process import DEADLINE, ServerProcess, clean_environment, run_duckfast
from support.wire import eventually

Serve = Callable[..., ServerProcess]
APP = Path(__file__).parent.parent / "engines" / "log_app.py"
INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])
REOPENED = "SIGUSR1: the log files were opened anew"


def ask(server: ServerProcess, *paths: str) -> None:
    with connect(server.url) as client:
        for path in paths:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert read_answer(client).status == 200


def paths(log: Path) -> list[str]:
    """The targets of the lines in a log of the common format, each of which must be whole.

    What stands behind the last line's end is being written right now: a reader may see half of a write.
    """
    lines = log.read_text().split("\n")[:-1]
    assert all(line.startswith("127.0.0.1 - - [") and line.rsplit(" ", 1)[1][0].isdigit() for line in lines), lines
    return [line.split('"')[1].split()[1] for line in lines]


@INTERFACES
def test_lines_go_to_their_files(serve: Serve, tmp_path: Path, interface: str) -> None:
    access, error = tmp_path / "access.log", tmp_path / "error.log"
    before = '127.0.0.1 - - [before] "GET /0 HTTP/1.1" 200 5 0.1\n'
    access.write_text(before)
    sock = tmp_path / "sock"
    options = ["--uds", str(sock), "--access-log-file", str(access), "--log-file", str(error)]
    server = subprocess.Popen(
        [sys.executable, "-m", "duckfast", f"{APP}:{interface}", *options], env=clean_environment(), stderr=subprocess.PIPE
    )
    try:
        eventually(lambda: error.exists() and "serving" in error.read_text(), "the start line in the file")
        with connect(f"unix:{sock}") as client:
            client.sendall(b"GET /1 HTTP/1.0\r\n\r\n")
            read_answer(client)
    finally:
        server.terminate()
        _, told = server.communicate(timeout=DEADLINE)
    assert told == b"" and "stopped" in error.read_text()
    assert access.read_text().startswith(before + "- - - [")


@INTERFACES
def test_rotated_logs_lose_no_line(serve: Serve, tmp_path: Path, interface: str) -> None:
    access = tmp_path / "access.log"
    server = serve(f"{APP}:{interface}", "--access-logfile", str(access))
    for turn in range(3):
        ask(server, *(f"/{turn}/{number}" for number in range(50)))
        access.rename(tmp_path / f"access.log.{turn}")
        ask(server, *(f"/{turn}/{number}" for number in range(50, 60)))
        server.send_signal(signal.SIGUSR1)
        eventually(lambda seen=turn: server.stderr_text().count(REOPENED) > seen, "the reopening")
    ask(server, "/last")
    server.stop()
    parts = [paths(tmp_path / f"access.log.{turn}") for turn in range(3)]
    assert sum(parts, []) + paths(access) == [f"/{turn}/{number}" for turn in range(3) for number in range(60)] + ["/last"]
    assert paths(access)[-1] == "/last"


def test_lines_after_the_reopening_are_in_the_new_file(serve: Serve, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    server = serve(f"{APP}:wsgi", "--access-log-file", str(access))
    ask(server, "/before")
    access.rename(tmp_path / "old.log")
    server.send_signal(signal.SIGUSR1)
    server.wait_for_stderr(REOPENED)
    ask(server, "/after")
    server.stop()
    assert (paths(tmp_path / "old.log"), paths(access)) in [(["/before"], ["/after"]), ([], ["/before", "/after"])]


def test_file_that_cannot_be_reopened_stays_in_use(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    server = serve(f"{APP}:asgi", "--access-log-file", str(folder / "access.log"))
    folder.rename(tmp_path / "moved")
    server.send_signal(signal.SIGUSR1)
    server.wait_for_stderr(REOPENED)
    ask(server, "/after")
    server.stop()
    assert paths(tmp_path / "moved" / "access.log") == ["/after"]
    assert "cannot be opened again: No such file or directory" in server.stderr_text()


def test_two_servers_share_a_file_without_splitting_lines(serve: Serve, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    servers = [serve(f"{APP}:wsgi", "--access-log-file", str(access)) for _ in range(2)]
    names = [[f"/{number}/{turn}/{'long' * 50}" for turn in range(400)] for number in range(2)]
    threads = [threading.Thread(target=ask, args=(server, *own)) for server, own in zip(servers, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers:
        server.stop()
    found = paths(access)
    assert [[path for path in found if path.startswith(f"/{number}/")] for number in range(2)] == names
    assert len(found) == 800


def test_two_servers_share_a_pipe_without_splitting_lines(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    text: list[bytes] = []

    def read() -> None:
        with os.fdopen(read_end, "rb") as pipe:
            text.append(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    target = f"/dev/fd/{write_end}"
    try:
        servers = [ServerProcess([f"{APP}:asgi", "--access-log-file", target], pass_fds=[write_end]) for _ in range(2)]
        with servers[0], servers[1]:
            names = [[f"/{number}/{turn}/{'long' * 50}" for turn in range(400)] for number in range(2)]
            threads = [threading.Thread(target=ask, args=(server, *own)) for server, own in zip(servers, names, strict=True)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        os.close(write_end)
        reader.join()
    log = tmp_path / "access.log"
    log.write_bytes(text[0])
    found = paths(log)
    assert [[path for path in found if path.startswith(f"/{number}/")] for number in range(2)] == names


def test_access_log_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    done = run_duckfast(str(APP), "--access-log-file", str(tmp_path / "nowhere" / "access.log"), "--port", "0")
    assert done.returncode == 2
    assert "duckfast: the access log " in done.stderr and "cannot be opened: No such file or directory" in done.stderr


@INTERFACES
def test_python_handler_gets_access_lines_with_their_facts(serve: Serve, tmp_path: Path, interface: str) -> None:
    out = tmp_path / "access.txt"
    form = "%(client)s|%(method)s|%(path)s|%(query)s|%(status)d|%(bytes_sent)d|%(user_agent)s|%(request_id)s|%(message)s"
    settings = {
        "formatters": {"facts": {"format": form}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(out), "formatter": "facts"}},
        "loggers": {"duckfast.access": {"handlers": ["file"], "level": "INFO"}},
    }
    config = tmp_path / "logging.json"
    config.write_text(json.dumps(settings))
    server = serve(f"{APP}:{interface}", "--log-config", str(config), "--access-log-format", '%(m)s "%(a)s" 50%%')
    fetch(server.url, "/a?b=c", headers={"User-Agent": 'me "\x80', "X-Request-ID": "id-1"})
    server.stop()
    assert out.read_text() == '127.0.0.1|GET|/a|b=c|200|5|me \\x22\\x80|id-1|GET "me \\x22\\x80" 50%\n'
    assert server.stdout_text() == ""
    assert "serving" in server.stderr_text()


def test_python_handler_that_fails_costs_no_request(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import logging\nclass Handler(logging.Handler):\n    def emit(self, record):\n        raise RuntimeError('on purpose')\n"
    )
    config = tmp_path / "logging.json"
    loggers = {"duckfast.access": {"handlers": ["broken"], "level": "INFO"}}
    config.write_text(json.dumps({"handlers": {"broken": {"class": "broken.Handler"}}, "loggers": loggers}))
    access = tmp_path / "access.log"
    options = ("--log-config", str(config), "--access-log-file", str(access))
    server = serve(f"{APP}:wsgi", *options, "--app-dir", str(tmp_path))
    ask(server, "/1", "/2")
    server.stop()
    assert paths(access) == ["/1", "/2"]
    assert server.stderr_text().count("a handler of duckfast.access failed") == 2


def test_wrong_log_config_ends_the_start(tmp_path: Path) -> None:
    done = run_duckfast(str(APP), "--log-config", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert done.stderr.startswith("duckfast: --log-config: ") and done.stderr.count("\n") == 1


@INTERFACES
def test_workers_write_to_one_file_and_all_reopen_it(serve: Serve, tmp_path: Path, interface: str) -> None:
    access = tmp_path / "access.log"
    server = serve(f"{APP}:{interface}", "--workers", "2", "--access-log-file", str(access))
    for number in range(40):
        ask(server, f"/{number}")
    eventually(lambda: len(paths(access)) == 40, "the first lines")
    access.rename(tmp_path / "old.log")
    server.send_signal(signal.SIGUSR1)
    server.wait_for_stderr(REOPENED)
    asked = 40

    def one_more() -> bool:
        nonlocal asked
        ask(server, f"/{asked}")
        asked += 1
        return access.exists() and len(paths(access)) > 10

    eventually(one_more, "lines in the new file")
    server.stop()
    found = paths(tmp_path / "old.log") + paths(access)
    assert sorted(found, key=lambda path: int(path[1:])) == [f"/{number}" for number in range(asked)]
