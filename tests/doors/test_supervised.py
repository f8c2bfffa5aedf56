"""A supervisor with what surrounds it: files read anew, systemd's sockets and words, pid file, user, daemon."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.manager import Manager
from support.process import ServerProcess, run_duckfast

Serve = Callable[..., ServerProcess]

WEBSITE = """
    import os

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        names = [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
        return [repr((os.getppid(), os.getuid(), os.environ.get("WORD"), names)).encode()]
"""


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer_of(address: str) -> tuple[int, int, str | None, list[str]]:
    answer = eval(fetch(address).text)
    assert isinstance(answer, tuple)
    return answer


def test_reload_reads_files_and_env_files_anew(serve: Serve, website: Path) -> None:
    (website / "duckfast.toml").write_text('workers = 1\nheaders = ["X-A: old"]\nenv-file = ".env"\n')
    (website / ".env").write_text("WORD=old\n")
    server = serve("website:app", cwd=website)
    answer = fetch(server.url)
    assert (answer.headers["x-a"], eval(answer.text)[2]) == ("old", "old")
    (website / "duckfast.toml").write_text("prot = 1\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("duckfast.toml: there is no setting 'prot'; did you mean port?")
    assert fetch(server.url).headers["x-a"] == "old"
    (website / "duckfast.toml").write_text('workers = 1\nheaders = ["X-A: new"]\nenv-file = ".env"\n')
    (website / ".env").write_text("WORD=new\n")
    server.send_signal(signal.SIGHUP)
    server.wait_for_stderr("reloaded")
    answer = fetch(server.url)
    while answer.headers["x-a"] != "new":
        answer = fetch(server.url)  # the old worker answers until it has retired
    assert eval(answer.text)[2] == "new"


def test_reload_is_told_to_systemd(serve: Serve, website: Path, manager: Manager) -> None:
    server = serve("website:app", "-w", "1", cwd=website, env={"NOTIFY_SOCKET": manager.address})
    told = manager.next()
    assert (told["READY"], told["MAINPID"]) == ("1", str(server.pid))
    assert answer_of(server.url)[3] == []
    server.send_signal(signal.SIGHUP)
    told = manager.next()
    assert told["RELOADING"] == "1"
    assert int(told["MONOTONIC_USEC"]) > 0
    assert manager.next()["READY"] == "1"
    server.stop()
    assert manager.next() == {"STOPPING": "1"}


def test_new_image_finds_systemds_sockets_and_reads_env_files_anew(website: Path, manager: Manager) -> None:
    (website / "duckfast.toml").write_text('workers = 1\nport = 1\nenv-file = ".env"\n')
    (website / ".env").write_text("WORD=old\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        assert number > 3
        script = f'exec 3<&{number} {number}<&-; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
        process = ServerProcess(
            ["website:app"],
            command=["bash", "-c", script, "bash", sys.executable, "-m", "duckfast"],
            cwd=website,
            env={"NOTIFY_SOCKET": manager.address},
            pass_fds=[number],
        )
        with process as server:
            assert server.url == f"http://127.0.0.1:{listener.getsockname()[1]}"
            listener.close()
            assert manager.next()["READY"] == "1"
            assert answer_of(server.url) == (server.pid, os.getuid(), "old", [])
            (website / ".env").write_text("WORD=new\n")
            server.send_signal(signal.SIGUSR2)
            while manager.next().get("READY") != "1":
                pass
            answer = answer_of(server.url)
            while answer[2] != "new":
                answer = answer_of(server.url)  # the last worker of the old image answers until it has retired
            assert answer == (server.pid, os.getuid(), "new", [])
            server.wait_for_stderr("retires")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root may become another user")
def test_workers_are_another_user_and_the_pid_file_is_removed(website: Path) -> None:
    # The interpreter and the test's folder may be closed to other users: keep the right to read files across the change.
    keeping_rights = ["setpriv", "--securebits", "+no_setuid_fixup", sys.executable, "-m", "duckfast", "--port", "0"]
    args = ["website:app", "-w", "2", "-u", "nobody", "-p", "server.pid"]
    with ServerProcess(args, command=keeping_rights, cwd=website) as server:
        assert Path("server.pid").read_text() == f"{server.pid}\n"
        assert answer_of(server.url)[:2] == (server.pid, pwd.getpwnam("nobody").pw_uid)
    assert not os.path.exists("server.pid")


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of a daemon is seen by a pidfd")
def test_daemon_has_workers_and_leaves_nothing_behind(website: Path) -> None:
    ended = run_duckfast("website:app", "-D", "-w", "1", "--uds", "a.sock", "-p", "server.pid", cwd=website)
    pid = int(Path("server.pid").read_text())
    descriptor = os.pidfd_open(pid)
    try:
        assert ended.returncode == 0
        assert answer_of("unix:a.sock")[0] == pid
    finally:
        os.kill(pid, signal.SIGTERM)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(30_000), "the daemon did not end"
        os.close(descriptor)
    assert not os.path.exists("server.pid")
    assert not os.path.exists("a.sock")


def test_daemon_whose_workers_cannot_start_says_why(website: Path) -> None:
    ended = run_duckfast("website:nothing", "-D", "-w", "1", "--port", "0", cwd=website)
    assert ended.returncode == 3
    assert "'website' has no attribute 'nothing'" in ended.stderr


def test_platforms_word_for_the_number_of_workers_is_honoured(serve: Serve, website: Path) -> None:
    server = serve("website:app", cwd=website, env={"WEB_CONCURRENCY": "2"})
    assert answer_of(server.url)[0] == server.pid  # there is a parent
