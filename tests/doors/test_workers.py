"""Several worker processes behind one supervisor: real processes, real signals, and clients that notice if anything is lost."""

from __future__ import annotations

import os
import re
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

# Answers with what serves: the process and the version of the code. /slow waits for the file `go`; /block never comes back.
WEBSITE = """
    import asyncio, os, time

    VERSION = "one"
    print("imported by", os.getpid(), flush=True)

    def text():
        return f"{os.getpid()} {VERSION}".encode()

    def wait_turns():
        print("begun", flush=True)
        while not os.path.exists("go"):
            yield 0.01

    def wsgi(environ, start_response):
        body = text()
        if environ["PATH_INFO"] == "/slow":
            for pause in wait_turns():
                time.sleep(pause)
        if environ["PATH_INFO"] == "/block":
            block_for_ever()
        if environ["PATH_INFO"] == "/multiprocess":
            body = str(environ["wsgi.multiprocess"]).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    print("lifespan.shutdown", flush=True)
                    return
        body = text()
        if scope["path"] == "/slow":
            for pause in wait_turns():
                await asyncio.sleep(pause)
        if scope["path"] == "/block":
            block_for_ever()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    def block_for_ever():
        while True:
            time.sleep(1000)
"""

INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])
READY = r"worker (\d+) is ready"
ENDED = r"worker (\d+) has ended"


@pytest.fixture
def website(tmp_path: Path) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    return tmp_path


@pytest.fixture
def start(serve: Serve, website: Path) -> Serve:
    def starting(interface: str, *options: str) -> ServerProcess:
        # Two files of the same size and second must not be taken for the same: no bytecode is kept.
        arguments = ["--log-level", "debug", "--timeout-keep-alive", "60", *options]
        return serve(f"website:{interface}", *arguments, cwd=website, env={"PYTHONDONTWRITEBYTECODE": "1"})

    return starting


def change(website: Path, old: str, new: str) -> None:
    """Write another version of the code, as a whole and at once."""
    file = website / "website.py"
    text = file.read_text()
    assert old in text
    (website / "next").write_text(text.replace(old, new))
    (website / "next").replace(file)


def pid_and_version(server: ServerProcess) -> tuple[int, str]:
    pid, version = fetch(server.url).text.split()
    return int(pid), version


def wait_for_version(server: ServerProcess, version: str) -> int:
    """Ask until this version answers; an old worker may accept until it has heard that it retires."""
    while True:
        pid, seen = pid_and_version(server)
        if seen == version:
            return pid


def pids(server: ServerProcess, pattern: str, count: int) -> list[int]:
    return [int(pid) for pid in server.wait_for_matches(pattern, count)]


def ask(sock: socket.socket, path: str = "/") -> tuple[int, str, bool]:
    """One request on a kept connection: the worker, its version, and whether it says that it closes."""
    send_request(sock, path=path, headers={"Connection": "keep-alive"})
    answer = read_answer(sock)
    assert answer.status == 200
    pid, version = answer.text.split()
    return int(pid), version, answer.headers.get("connection", "") == "close"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@INTERFACES
def test_workers_serve_and_the_supervisor_imports_nothing(start: Serve, interface: str) -> None:
    server = start(interface, "--workers", "2")
    workers = pids(server, READY, 2)
    assert pid_and_version(server)[0] in workers
    assert server.pid not in workers
    assert f"imported by {server.pid}\n" not in server.stdout_text()
    assert "2 workers" in server.stderr_text()


def test_wsgi_apps_are_told_of_other_processes(start: Serve) -> None:
    assert fetch(start("wsgi", "--workers", "2").url, "/multiprocess").text == "True"
    assert fetch(start("wsgi").url, "/multiprocess").text == "False"


@INTERFACES
def test_killed_worker_is_replaced_and_its_sibling_serves_meanwhile(start: Serve, interface: str) -> None:
    server = start(interface, "-w", "2")
    victim, sibling = pids(server, READY, 2)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_stderr(f"worker {victim} has died: killed by SIGKILL; another takes its place")
    assert pid_and_version(server)[0] != victim
    assert pids(server, READY, 3)[2] not in (victim, sibling)


@INTERFACES
def test_hangup_serves_new_code_and_keeps_every_connection_until_its_next_answer(
    start: Serve, website: Path, interface: str
) -> None:
    server = start(interface, "-w", "2")
    with connect(server.url) as idle, connect(server.url) as fresh, connect(server.url) as half:
        old, version, closes = ask(idle)
        assert (version, closes) == ("one", False)
        half.sendall(b"GET / HTTP/1.1\r\nHo")
        change(website, '"one"', '"two"')
        server.send_signal(signal.SIGHUP)
        server.wait_for_stderr("reloaded")
        wait_for_version(server, "two")
        # What the old workers had accepted is answered by them, whole, until they say that they close.
        for wire, rest in ((idle, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (half, b"st: a\r\n\r\n")):
            wire.sendall(rest)
            answer = read_answer(wire)
            assert (answer.status, answer.text.split()[1]) == (200, "one")
            closes = "connection" in answer.headers
            while not closes:  # it had not heard of its retirement yet
                _, version, closes = ask(wire)
                assert version == "one"
            assert wire.recv(1) == b""
        assert ask(fresh)[1] in ("one", "two")
    pids(server, ENDED, 2)
    assert not is_alive(old)
    wait_for_version(server, "two")


@INTERFACES
def test_request_in_progress_outlives_a_reload(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "-w", "2")
    with connect(server.url) as busy:
        send_request(busy, path="/slow")
        server.wait_for_stdout("begun")
        change(website, '"one"', '"two"')
        server.send_signal(signal.SIGHUP)
        server.wait_for_stderr("reloaded")
        (website / "go").touch()
        assert read_answer(busy).text.endswith(" one")
    pids(server, ENDED, 2)


@INTERFACES
def test_code_that_does_not_start_leaves_the_old_workers(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "-w", "2")
    before = set(pids(server, READY, 2))
    change(website, "import asyncio", "1/0; import asyncio")
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("the reload has failed; the old workers stay")
    assert server.stderr_text().count("Traceback (most recent call last)") == 1
    assert pid_and_version(server)[0] in before
    change(website, "1/0; import asyncio", "import asyncio")
    change(website, '"one"', '"two"')
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("reloaded")
    wait_for_version(server, "two")


@INTERFACES
def test_upgrade_replaces_the_supervisor_in_its_place(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "-w", "2")
    before = pids(server, READY, 2)
    with connect(server.url) as idle:
        assert ask(idle)[1] == "one"
        change(website, '"one"', '"two"')
        server.send_signal(signal.SIGUSR2)
        server.wait_for_stderr("this is duckfast")
        server.wait_for_stderr("reloaded")
        closes = False
        while not closes:
            _, version, closes = ask(idle)
            assert version == "one"
    wait_for_version(server, "two")
    assert set(before) <= set(pids(server, ENDED, 2))
    assert server.returncode is None


def test_upgrade_that_would_not_start_is_refused(start: Serve, website: Path) -> None:
    server = start("wsgi", "-w", "1")
    change(website, "import asyncio", "import asyncio, not_there")
    server.send_signal(signal.SIGUSR2)
    server.wait_for_stderr("the upgrade has failed")
    assert "not_there" in server.stderr_text()
    assert pid_and_version(server)[1] == "one"


def test_preloaded_application_is_imported_once_and_still_reloaded(start: Serve, website: Path) -> None:
    server = start("wsgi", "-w", "2", "--preload")
    assert server.stdout_text().count("imported by") == 1
    assert f"imported by {server.pid}" in server.stdout_text()
    change(website, '"one"', '"two"')
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("reloaded")
    wait_for_version(server, "two")


def test_application_object_is_served_by_workers_and_upgraded(website: Path, serve: Serve) -> None:
    script = "import duckfast, website; duckfast.run(website.wsgi, port=0, workers=2, log_level='debug')"
    command = [sys.executable, "-B", "-c", script]
    with ServerProcess(command=command, cwd=website) as server:
        assert pid_and_version(server)[1] == "one"
        change(website, '"one"', '"two"')
        server.send_signal(signal.SIGHUP)
        server.wait_for_stderr("reloaded")
        wait_for_version(server, "two")


def test_more_and_fewer_workers_by_signal(start: Serve) -> None:
    server = start("wsgi", "-w", "1")
    server.send_signal(signal.SIGTTIN)
    assert len(set(pids(server, READY, 2))) == 2
    server.send_signal(signal.SIGTTOU)
    server.wait_for_stderr("retires: there is one too many")
    pids(server, ENDED, 1)
    server.send_signal(signal.SIGTTOU)
    server.wait_for_stderr("the number of workers stays 1")
    assert pid_and_version(server)[1] == "one"


@INTERFACES
def test_stop_finishes_what_is_in_progress(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "-w", "2")
    with connect(server.url) as busy:
        send_request(busy, path="/slow")
        server.wait_for_stdout("begun")
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        (website / "go").touch()
        assert read_answer(busy).status == 200
    assert server.wait() == 0
    assert server.stderr_text().rstrip().endswith("stopped")
    if interface == "asgi":
        assert server.stdout_text().count("lifespan.shutdown") == 2


@INTERFACES
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_quick_stop_does_not_wait_for_requests(start: Serve, interface: str, signum: signal.Signals) -> None:
    server = start(interface, "-w", "2", "--timeout-graceful-shutdown", "1h")
    with connect(server.url) as busy:
        send_request(busy, path="/slow")
        server.wait_for_stdout("begun")
        server.send_signal(signum)
        assert server.wait() == 0
    if interface == "asgi":
        assert server.stdout_text().count("lifespan.shutdown") == 2


def test_second_stop_ends_at_once(start: Serve) -> None:
    server = start("wsgi", "-w", "2")
    workers = pids(server, READY, 2)
    with connect(server.url) as busy:
        send_request(busy, path="/slow")
        server.wait_for_stdout("begun")
        server.send_signal(signal.SIGTERM)
        server.wait_for_stderr("SIGTERM: stopping")
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 128 + signal.SIGTERM
    assert not any(is_alive(pid) for pid in workers)


def test_workers_end_when_their_supervisor_is_killed(start: Serve) -> None:
    server = start("asgi", "-w", "2")
    pids(server, READY, 2)
    server.send_signal(signal.SIGKILL)
    server.wait()  # their standard error, which is read here, ends with the last of them
    assert server.stdout_text().count("lifespan.shutdown") == 2


@pytest.mark.parametrize(("application", "reason"), [
    ("broken:app", "importing 'broken' failed: ZeroDivisionError"),
    ("missing:app", "there is no module 'missing'"),
])  # fmt: skip
def test_application_that_cannot_be_imported_ends_the_start_with_one_reason(
    website: Path, application: str, reason: str
) -> None:
    (website / "broken.py").write_text("1/0\n")
    ended = run_duckfast(application, "-w", "3", "--port", "0", cwd=website)
    assert ended.returncode == 3
    assert ended.stderr.count(reason) == 1
    assert "Traceback" not in ended.stderr or ended.stderr.count("Traceback") == 1


def test_crash_loop_at_the_start_is_given_up(website: Path) -> None:
    (website / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    ended = run_duckfast("crash:app", "-w", "2", "--port", "0", cwd=website)
    assert ended.returncode == 3
    assert "ended before it was ready: killed by SIGKILL" in ended.stderr


def test_start_that_takes_too_long_is_given_up_with_its_stacks(website: Path) -> None:
    (website / "sleeper.py").write_text("import time\ntime.sleep(1000)\n")
    ended = run_duckfast("sleeper:app", "-w", "1", "--port", "0", "--timeout-worker-startup", "0.3", cwd=website)
    assert ended.returncode == 3
    assert "was not ready within 0.3s (--timeout-worker-startup)" in ended.stderr
    assert re.search(r'sleeper\.py", line 2 in ', ended.stderr)


@INTERFACES
def test_blocked_worker_is_named_with_its_line_and_replaced(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "-w", "2", "--threads", "1", "--timeout-worker-healthcheck", "0.5")
    with connect(server.url) as stuck:
        send_request(stuck, path="/block?secret=1")
        pid = int(server.wait_for_matches(r"worker (\d+) has not answered for 0.5s")[0])
        server.wait_for_matches(r"in progress for [\d.]+s: GET /block\n")
        line = 1 + textwrap.dedent(WEBSITE).splitlines().index("        time.sleep(1000)")
        server.wait_for_matches(rf'website\.py", line {line} in block_for_ever')
        assert len(pids(server, READY, 3)) == 3
        assert stuck.recv(1) == b""
    while is_alive(pid):  # its connections end a moment before it does
        pass
    assert pid_and_version(server)[0] != pid


@INTERFACES
def test_worker_that_has_served_enough_is_replaced_and_no_client_notices(start: Serve, interface: str) -> None:
    server = start(interface, "-w", "1", "--limit-max-requests", "20")
    served: dict[int, int] = {}
    while len(served) < 4:
        with connect(server.url) as wire:
            closes = False
            while not closes:
                pid, _, closes = ask(wire)
                served[pid] = served.get(pid, 0) + 1
    assert all(count >= 20 for count in list(served.values())[:-1])
    server.wait_for_stderr("is to be replaced: served 20 requests")


def test_worker_past_its_lifetime_is_replaced(start: Serve) -> None:
    server = start("wsgi", "-w", "1", "--workers-lifetime", "0.2")
    server.wait_for_stderr("is to be replaced: its lifetime is over")
    assert len(set(pids(server, READY, 3))) == 3


def test_worker_that_uses_too_much_memory_is_replaced(start: Serve) -> None:
    server = start("asgi", "-w", "1", "--workers-max-rss", "1")
    server.wait_for_matches(r"is to be replaced: it uses \d+ MiB of memory")
    pids(server, READY, 2)


def test_every_slot_has_its_own_queue_with_reuse_port(start: Serve, website: Path) -> None:
    server = start("wsgi", "-w", "2", "--reuse-port")
    seen = {pid_and_version(server)[0] for _ in range(200)}
    assert seen == set(pids(server, READY, 2))
    change(website, '"one"', '"two"')
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("reloaded")
    pids(server, ENDED, 2)
    assert {pid_and_version(server)[1] for _ in range(50)} == {"two"}


@INTERFACES
def test_nobody_waits_in_the_queue_of_a_slot_that_was_given_up(start: Serve, interface: str) -> None:
    server = start(interface, "-w", "4", "--reuse-port")
    for count in ("3 worker", "2 worker", "1 worker"):
        server.send_signal(signal.SIGTTOU)
        server.wait_for_matches(f"SIGTTOU: {count}")
    pids(server, ENDED, 3)
    assert len({pid_and_version(server)[0] for _ in range(100)}) == 1
    server.send_signal(signal.SIGTTIN)
    pids(server, READY, 5)
    assert len({pid_and_version(server)[0] for _ in range(200)}) == 2


@INTERFACES
def test_changed_file_is_served_and_a_broken_one_keeps_the_old(start: Serve, website: Path, interface: str) -> None:
    server = start(interface, "--reload", "--reload-delay", "0.05")
    with connect(server.url) as stream:
        send_request(stream, path="/slow")  # what is open cannot hold a reload up
        server.wait_for_stdout("begun")
        change(website, '"one"', '"two"')
        server.wait_for_matches("reloaded", 1)
        wait_for_version(server, "two")
        change(website, "import asyncio", "1/0; import asyncio")
        server.wait_for_stderr("the reload has failed")
        assert server.stderr_text().count("Traceback (most recent call last)") == 1
        wait_for_version(server, "two")
        change(website, "1/0; import asyncio", "import asyncio")
        change(website, '"two"', '"three"')
        server.wait_for_matches("reloaded", 2)
        wait_for_version(server, "three")
        (website / "go").touch()
        assert read_answer(stream).text.endswith("one")


def test_reloading_server_waits_for_code_that_can_be_imported(website: Path) -> None:
    change(website, "import asyncio", "1/0; import asyncio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["website:wsgi", "--reload", "--reload-delay", "0.05", "--port", str(port)]
    server = ServerProcess(arguments, cwd=website, env={"PYTHONDONTWRITEBYTECODE": "1"}, listeners=0)
    with server:
        server.wait_for_stderr("nothing is served until a file changes")
        change(website, "1/0; import asyncio", "import asyncio")
        server.wait_for_stderr(" serving ")
        assert pid_and_version(server)[1] == "one"


def test_state_of_the_service_is_told_through_a_reload(website: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(30)
        with ServerProcess(["website:wsgi", "-w", "1"], cwd=website, env={"NOTIFY_SOCKET": address}) as server:
            assert f"READY=1\nMAINPID={server.pid}" in manager.recv(1000).decode()
            server.send_signal(signal.SIGHUP)
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1000).startswith(b"READY=1")
            server.send_signal(signal.SIGUSR2)
            assert f"READY=1\nMAINPID={server.pid}" in manager.recv(1000).decode()
        assert manager.recv(1000).startswith(b"STOPPING=1")


def test_pid_file_names_the_supervisor_and_goes_with_it(start: Serve, website: Path) -> None:
    server = start("wsgi", "-w", "2", "--pid", "server.pid")
    assert (website / "server.pid").read_text() == f"{server.pid}\n"
    server.send_signal(signal.SIGUSR2)
    server.wait_for_stderr("reloaded")
    assert (website / "server.pid").read_text() == f"{server.pid}\n"
    server.stop()
    assert not (website / "server.pid").exists()


def test_unix_socket_outlives_reload_and_upgrade_and_goes_in_the_end(website: Path) -> None:
    arguments = ["website:wsgi", "-w", "2", "--uds", "http.sock", "--log-level", "debug"]
    with ServerProcess(arguments, cwd=website, env={"PYTHONDONTWRITEBYTECODE": "1"}) as server:
        path = f"unix:{website / 'http.sock'}"
        for signum, said in ((signal.SIGHUP, 1), (signal.SIGUSR2, 2)):
            server.send_signal(signum)
            server.wait_for_matches("reloaded", said)
            pids(server, ENDED, 2 * said)
            assert fetch(path).text.endswith("one")
        server.stop()
    assert not (website / "http.sock").exists()
