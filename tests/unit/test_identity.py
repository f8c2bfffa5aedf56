"""identity.py: pid files, users and groups, the title. What only a process of its own can show is under tests/doors."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from duckfast import identity
from duckfast.config import Config
from duckfast.exceptions import ConfigError
from duckfast.identity import PidFile, PidFileError

NOBODY = pwd.getpwnam("nobody")

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root may become another user")


# Pid files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_pid_file_holds_the_number_and_goes_away(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["server.pid"]
    file.remove()
    assert not path.exists()


def test_pid_file_of_a_dead_server_is_replaced(path: Path) -> None:
    for text in (f"{ended_process()}\n", "", "0\n"):
        path.write_text(text)
        PidFile(str(path)).write()
        assert path.read_text() == f"{os.getpid()}\n"


def test_pid_file_of_a_living_server_is_refused_and_stays(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        path.write_text(f"{other.pid}\n")
        with pytest.raises(PidFileError, match=f"another server is running: process {other.pid}, by {path}; stop it"):
            PidFile(str(path)).write()
        assert path.read_text() == f"{other.pid}\n"
        assert os.listdir(path.parent) == ["server.pid"]
        PidFile(str(path)).write(successor_of=other.pid)
        assert path.read_text() == f"{os.getpid()}\n"
        assert other.stdin is not None
        other.stdin.write(b"\n")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells when a process began")
def test_number_that_is_in_use_again_is_not_taken_for_the_server(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        path.write_text(f"{other.pid}\n")
        os.utime(path, (1, 1))  # written long before that process began
        PidFile(str(path)).write()
        assert other.stdin is not None
        other.stdin.write(b"\n")
    assert path.read_text() == f"{os.getpid()}\n"


def test_file_that_another_server_has_written_since_is_not_removed(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    path.write_text("1\n")
    file.remove()
    assert path.read_text() == "1\n"


def test_pid_file_is_not_removed_by_a_forked_child(path: Path) -> None:
    file = PidFile(str(path))
    file.write()
    child = os.fork()
    if not child:
        try:
            file.remove()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()


def test_file_that_is_no_pid_file_is_refused(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(PidFileError, match="holds no process id"):
        PidFile(str(path)).write()
    assert path.read_text() == "precious"


def test_directory_that_does_not_exist_is_told(path: Path) -> None:
    with pytest.raises(PidFileError, match="cannot write the pid file .*No such file or directory"):
        PidFile(str(path / "deeper")).write()


# Users and groups ---------------------------------------------------------------------------------------------------


def test_nothing_asked_is_nothing_to_change() -> None:
    assert identity.resolve(Config()) is None
    identity.drop(None)


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="--user: the system has no user 'nobodi', did you mean 'nobody'"):
        identity.resolve(Config(user="nobodi"))
    with pytest.raises(ConfigError, match="--group: the system has no group 'no such'; give"):
        identity.resolve(Config(group="no such"))


def test_number_without_an_entry_needs_a_group() -> None:
    with pytest.raises(ConfigError, match="has no user 987654.*give --group as well"):
        identity.resolve(Config(user="987654"))


@needs_root
def test_user_brings_its_groups() -> None:
    whom = identity.resolve(Config(user="nobody"))
    assert whom is not None
    assert (whom.uid, whom.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(whom.groups) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert whom.owner == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert identity.resolve(Config(user=str(NOBODY.pw_uid))) == whom


@needs_root
def test_group_alone_and_in_place_of_the_users_own() -> None:
    group = grp.getgrnam("daemon").gr_gid
    alone = identity.resolve(Config(group="daemon"))
    assert alone == identity.Identity(None, group, (group,))
    assert alone is not None and alone.owner == (-1, group)
    both = identity.resolve(Config(user="nobody", group=str(group)))
    assert both is not None and (both.uid, both.gid) == (NOBODY.pw_uid, group)


@needs_root
def test_drop_is_complete_and_for_good() -> None:
    script = (
        "import os\n"
        "from duckfast import identity\n"
        "from duckfast.config import Config\n"
        "identity.drop(identity.resolve(Config(user='nobody')))\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups())\n"
        "try:\n    os.setuid(0)\nexcept PermissionError:\n    print('for good')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    groups = os.getgrouplist("nobody", NOBODY.pw_gid)
    assert ended.stdout == f"{(NOBODY.pw_uid,) * 3} {(NOBODY.pw_gid,) * 3} {groups}\nfor good\n"


def test_another_user_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    with pytest.raises(ConfigError, match=f"--user root needs root: this process runs as user {NOBODY.pw_uid}"):
        identity.resolve(Config(user="root"))
    with pytest.raises(ConfigError, match="--group daemon needs root"):
        identity.resolve(Config(group="daemon"))
    assert identity.resolve(Config(user="nobody")) is None  # as it is


@needs_root
def test_log_files_are_made_for_the_user_and_those_that_exist_stay_as_they_are(tmp_path: Path) -> None:
    made, there, link = (str(tmp_path / name) for name in ("made.log", "there.log", "link.log"))
    Path(there).touch()
    os.symlink(tmp_path / "nowhere", link)
    config = Config(user="nobody")
    for config.log_file, config.access_log_file in ((made, there), (link, "-"), (str(tmp_path / "no" / "folder"), made)):
        identity.prepare(config)
    assert (os.stat(made).st_uid, os.stat(made).st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert os.stat(there).st_uid == 0
    assert sorted(os.listdir(tmp_path)) == ["link.log", "made.log", "there.log"]


# The title ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the file")
def test_name_of_the_process_is_set_without_an_extra() -> None:
    script = (
        "import sys\n"
        "sys.modules['setproctitle'] = None\n"  # as if it were not installed
        "from duckfast import identity\n"
        "identity.set_title('a-name-that-is-long', 'worker 1')\n"
        "print(open('/proc/self/comm').read(), end='')\n"
        "identity.set_title('')\n"
        "print(open('/proc/self/comm').read(), end='')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "a-name-that-is-\n" * 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the file")
def test_title_tells_the_role_with_the_extra() -> None:
    pytest.importorskip("setproctitle")
    script = (
        "from duckfast import identity\n"
        "identity.set_title('mysite', 'worker 1')\n"
        "print(open('/proc/self/cmdline').read().rstrip(chr(0)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == "mysite: worker 1\n"
