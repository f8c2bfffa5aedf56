"""Who the process is to the system: user, groups, umask, its file with the process id, its title, a daemon or not.

Knows the calls for it, and refuses to know when they are made: a server binds and opens its logs first, then writes the
pid file and drops its rights, then imports the application.
"""

from __future__ import annotations

import contextlib
import difflib
import grp
import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from .config import Config
from .exceptions import ConfigError, DuckfastError
from .log import log

PID_FILE_MODE = 0o644
LOG_FILES = ("log_file", "access_log_file")  # settings that name one
MAX_COMM = 15  # bytes; what Linux keeps of a process's name
START_SLACK = 2.0  # seconds; the system's boot time is known to the second, file times to a tick
LOST = 1  # exit code when a daemon ended without a word


class PidFileError(DuckfastError):
    """The pid file cannot be written, or another server's stands in its place."""

    exit_code = 2


# User, groups -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """Whom to become, as numbers; None: stays as it is."""

    uid: int | None
    gid: int | None
    groups: tuple[int, ...]  # supplementary

    @property
    def owner(self) -> tuple[int, int]:
        """For os.chown() of what is made before the drop and needed after it: log files, socket files."""
        return (-1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid)


def resolve(config: Config) -> Identity | None:
    """Whom `user` and `group` name; None when there is nothing to change. Raises ConfigError for unknown ones, and
    when this process may not become another."""
    if config.user is None and config.group is None:
        return None
    uid, gid, name = None, None, None
    if config.user is not None:
        uid, gid, name = _find_user(config.user)
    if config.group is not None:
        gid = _find_group(config.group)
    if gid is None:
        raise ConfigError(f"the system has no user {config.user}, so its group is not known; give --group as well")
    option = "--user" if config.user is not None else "--group"
    if os.geteuid() != 0:
        if uid in (None, os.geteuid()) and gid == os.getegid():
            return None
        raise ConfigError(
            f"{option} {config.user or config.group} needs root: this process runs as user {os.geteuid()}; "
            f"start it as root or leave {option} out"
        )
    groups = os.getgrouplist(name, gid) if name is not None else [gid]
    return Identity(uid, gid, tuple(groups))


def _find_user(text: str) -> tuple[int, int | None, str | None]:
    """(user, its group, its name); without an entry only the number."""
    try:
        entry = pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        if text.isdigit():
            return int(text), None, None
        near = difflib.get_close_matches(text, [entry.pw_name for entry in pwd.getpwall()], n=1)
        advice = f", did you mean {near[0]!r}?" if near else "; give the name or number of one"
        raise ConfigError(f"--user: the system has no user {text!r}{advice}") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _find_group(text: str) -> int:
    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        near = difflib.get_close_matches(text, [entry.gr_name for entry in grp.getgrall()], n=1)
        advice = f", did you mean {near[0]!r}?" if near else "; give the name or number of one"
        raise ConfigError(f"--group: the system has no group {text!r}{advice}") from None


def drop(identity: Identity | None) -> None:
    """Become somebody else, for good. Raises ConfigError when the system refuses."""
    if identity is None:
        return
    try:
        # The groups first: without root they could not be changed any more.
        os.setgroups(identity.groups)
        if identity.gid is not None:
            os.setgid(identity.gid)
        if identity.uid is not None:
            os.setuid(identity.uid)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"cannot become user {identity.uid} and group {identity.gid}: {error}") from None


def prepare(config: Config) -> None:
    """Before logs are opened: the umask, and log files that do not exist, for the user that writes and reopens them later.

    Files that exist keep their owners: in a directory of that user the name might lead to somebody else's file. Raises
    ConfigError as resolve() does.
    """
    if config.umask is not None:
        os.umask(config.umask)
    whom = resolve(config)
    if whom is None:
        return
    for name in LOG_FILES:
        path = getattr(config, name, None)
        if not isinstance(path, str) or path in ("", "-"):
            continue
        with contextlib.suppress(OSError):  # it is there, or whoever opens it will say why it cannot be
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            os.fchown(number, *whom.owner)
            os.close(number)


# The pid file -----------------------------------------------------------------------------------------------------------


class PidFile:
    """`path` with this process's id while the server runs."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._pid: int | None = None  # the process that wrote it

    def write(self, successor_of: int | None = None) -> None:
        """Put this process's id there, all of it or nothing. Raises PidFileError when another server's is there.

        The file of a server that has died is replaced, and that of `successor_of`, whose place this process takes.
        """
        directory, name = os.path.split(self.path)
        try:
            number, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
        except OSError as error:
            raise PidFileError(f"cannot write the pid file {self.path}: {error.strerror}; choose another place") from None
        try:
            with open(number, "w") as file:
                file.write(f"{os.getpid()}\n")
                os.fchmod(number, PID_FILE_MODE)
            self._put(temporary, successor_of)
        except OSError as error:
            raise PidFileError(f"cannot write the pid file {self.path}: {error.strerror}; choose another place") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        self._pid = os.getpid()

    def remove(self) -> None:
        """Remove the file if this process wrote it and nobody has put theirs there since."""
        if self._pid != os.getpid() or _pid_in(self.path) != self._pid:
            return
        self._pid = None
        try:
            os.unlink(self.path)
        except OSError as error:  # after the drop the directory may be out of reach; the next start sees that it is stale
            log.debug("the pid file %s stays: %s", self.path, error.strerror)

    def _put(self, temporary: str, successor_of: int | None) -> None:
        try:
            os.link(temporary, self.path)  # fails when there is a file, so that of two that start at once one is refused
        except OSError:
            self._refuse_another(successor_of)
            os.rename(temporary, self.path)

    def _refuse_another(self, successor_of: int | None) -> None:
        pid = _pid_in(self.path)
        if pid is None or pid in (os.getpid(), successor_of) or not _is_running(pid):
            return
        if _started_after(pid, self.path):
            return  # the number is in use again, by something else
        raise PidFileError(f"another server is running: process {pid}, by {self.path}; stop it or choose another pid file")


def _pid_in(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            text = file.read(32).strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PidFileError(f"cannot read the pid file {path}: {error.strerror}; choose another") from None
    if not text:
        return None
    if not text.isdigit():
        raise PidFileError(f"{path} exists and holds no process id; remove it or choose another pid file")
    return int(text)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's, but there
    return pid > 0


def _started_after(pid: int, path: str) -> bool:
    """Whether the process began after the file was written, so that it cannot have written it. Only Linux tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets may hold anything; the start time is the 20th field behind it, in clock ticks.
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
        started = boot + ticks / os.sysconf("SC_CLK_TCK")
        return started > os.stat(path).st_mtime + START_SLACK
    except (OSError, ValueError, IndexError, StopIteration):
        return False


# The title --------------------------------------------------------------------------------------------------------------


def set_title(name: str, role: str = "") -> None:
    """Let ps and top show `name` (and `role`, where there is room for it); without a name nothing changes."""
    if not name:
        return
    try:
        import setproctitle
    except ImportError:
        pass
    else:
        setproctitle.setproctitle(f"{name}: {role}" if role else name)
        return
    try:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(os.fsencode(name)[:MAX_COMM])
    except OSError:
        log.debug("the process keeps its name: setproctitle is not installed, and this system has no other way")


# A daemon ---------------------------------------------------------------------------------------------------------------


class Daemon:
    """This process in the background, and the one that waits in the foreground for how it begins."""

    def __init__(self, writer: int) -> None:
        self._writer: int | None = writer
        os.register_at_fork(after_in_child=self._forget)  # only the server itself says how it begins

    def ready(self) -> None:
        """Let the command in the foreground end with 0, and give up the terminal."""
        if self._writer is None:
            return
        leave_terminal()
        self.ended(0)

    def ended(self, code: int) -> None:
        """Let the command in the foreground end with `code`; the reason has been written to stderr. Once, then nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(BrokenPipeError):  # whoever waited was killed
                os.write(writer, bytes([code]))
            os.close(writer)

    def _forget(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            os.close(writer)


def leave_terminal() -> None:
    """Let stdout and stderr end in /dev/null. Also for workers that were forked before their daemon was ready."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)


def daemonize() -> Daemon:
    """Go on in the background: returns only there. The process that called waits and ends with the daemon's exit code.

    Until ready() stdout and stderr stay, so that a start that fails can say why.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or both processes would write what is in their buffers
    reader, writer = os.pipe()
    between = os.fork()
    if between:
        os.close(writer)
        os.waitpid(between, 0)
        _wait_in_foreground(reader)
    os.close(reader)
    os.setsid()
    # Not the leader of its session any more: it can never get a terminal.
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return Daemon(writer)


def _wait_in_foreground(reader: int) -> NoReturn:
    code = os.read(reader, 1)
    if not code:
        sys.stderr.write("duckfast: the daemon ended before it was ready\n")
        sys.stderr.flush()
    os._exit(code[0] if code else LOST)


@contextlib.contextmanager
def pid_file(config: Config, successor_of: int | None = None) -> Iterator[PidFile | None]:
    """The pid file that a configuration asks for, there while this is entered."""
    if config.pid is None:
        yield None
        return
    file = PidFile(config.pid)
    file.write(successor_of)
    try:
        yield file
    finally:
        file.remove()
