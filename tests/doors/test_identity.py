"""Real servers: pid file, user and group, umask, name, daemon."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.machine import free_port
from support.process import ServerProcess, run_duckfast

Serve = Callable[..., ServerProcess]

WEBSITE = """
    import os
    at_import = (os.getuid(), os.getgid(), os.getgroups(), oct(os.umask(0)))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr((os.getpid(), *at_import)).encode()]
"""

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root may become another user; and setpriv is needed"
)

# The interpreter and the test's folder may be closed to other users: keep the right to read files across the change.
KEEPING_RIGHTS = ["setpriv", "--securebits", "+no_setuid_fixup", sys.executable, "-m", "duckfast", "--port", "0"]


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pid_file_is_there_while_the_server_runs(serve: Serve, website: Path) -> None:
    server = serve("website:app", "--pid", "server.pid", cwd=website)
    assert Path("server.pid").read_text() == f"{server.pid}\n"
    server.stop()
    assert not os.path.exists("server.pid")


def test_second_server_is_refused_by_the_pid_file_of_the_first(serve: Serve, website: Path) -> None:
    server = serve("website:app", "-p", "server.pid", cwd=website)
    ended = run_duckfast("website:app", "-p", "server.pid", "--port", "0", cwd=website)
    assert ended.returncode == 2
    path = website / "server.pid"
    assert ended.stderr == (
        f"duckfast: another server is running: process {server.pid}, by {path}; stop it or choose another pid file\n"
    )
    assert path.read_text() == f"{server.pid}\n"
    assert fetch(server.url).status == 200


def test_pid_file_of_a_killed_server_is_replaced(serve: Serve, website: Path) -> None:
    first = serve("website:app", "-p", "server.pid", cwd=website)
    first.kill()
    second = serve("website:app", "-p", "server.pid", cwd=website)
    assert Path("server.pid").read_text() == f"{second.pid}\n"


def test_pid_file_goes_when_the_application_fails(website: Path) -> None:
    assert run_duckfast("website:ap", "-p", "server.pid", "--port", "0", cwd=website).returncode == 3
    assert not os.path.exists("server.pid")


@needs_root
def test_user_is_another_before_the_application_is_imported(website: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    args = ["website:app", "-u", "nobody", "-m", "027"]
    with ServerProcess(args, command=KEEPING_RIGHTS, cwd=website) as server:
        _, uid, gid, groups, umask = eval(fetch(server.url).text)
    assert (uid, gid) == (nobody.pw_uid, nobody.pw_gid)
    assert set(groups) == set(os.getgrouplist("nobody", nobody.pw_gid))
    assert umask == "0o27"


@needs_root
def test_socket_file_belongs_to_user_and_group(website: Path) -> None:
    nobody, daemon = pwd.getpwnam("nobody"), grp.getgrnam("daemon")
    args = ["website:app", "-u", "nobody", "-g", "daemon", "--uds", "a.sock", "--uds-permissions", "660"]
    with ServerProcess(args, command=KEEPING_RIGHTS[:-2], cwd=website):
        found = os.stat("a.sock")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (nobody.pw_uid, daemon.gr_gid, 0o660)
        assert eval(fetch("unix:a.sock").text)[1:3] == (nobody.pw_uid, daemon.gr_gid)


@pytest.mark.skipif(sys.platform != "linux", reason="the title is read from /proc")
def test_name_is_what_ps_shows(serve: Serve, website: Path) -> None:
    pytest.importorskip("setproctitle")
    server = serve("website:app", "--name", "mysite", cwd=website)
    assert Path(f"/proc/{server.pid}/cmdline").read_bytes().startswith(b"mysite")


# A daemon -----------------------------------------------------------------------------------------------------------


def wait_for_end(pid: int) -> None:
    """Until a process that is not our child has ended."""
    with contextlib.suppress(ProcessLookupError), contextlib.closing(PidDescriptor(pid)) as descriptor:
        descriptor.wait()


class PidDescriptor:
    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def wait(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        assert poll.poll(30_000), "the daemon did not end"

    def close(self) -> None:
        os.close(self._fd)


needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of a daemon is seen by a pidfd")


@needs_pidfd
def test_daemon_serves_when_the_command_has_returned(website: Path) -> None:
    port = free_port()
    ended = run_duckfast("website:app", "--daemon", "--port", str(port), "-p", "server.pid", cwd=website)
    pid = int(Path("server.pid").read_text())
    try:
        assert ended.returncode == 0
        assert f"(pid {pid})" in ended.stderr
        assert eval(fetch(f"http://127.0.0.1:{port}").text)[0] == pid
        assert os.getsid(pid) not in (os.getsid(0), pid)  # in a session of its own, and not its leader
        assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)
    assert not os.path.exists("server.pid")


def test_daemon_that_fails_gives_its_message_and_exit_code(website: Path) -> None:
    ended = run_duckfast("website:ap", "-D", "--port", "0", cwd=website)
    assert ended.returncode == 3
    assert ended.stderr == "duckfast: 'website' has no attribute 'ap'; did you mean 'website:app'?\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = run_duckfast("website:app", "-D", "--port", str(other.getsockname()[1]), cwd=website)
    assert ended.returncode == 2
    assert "the address is in use" in ended.stderr


def test_daemon_that_dies_at_its_start_is_not_waited_for(website: Path) -> None:
    (website / "dies.py").write_text("import os\nos._exit(0)\n")
    ended = run_duckfast("dies:app", "-D", "--port", "0", cwd=website)
    assert ended.returncode == 1
    assert "the daemon ended before it was ready" in ended.stderr
