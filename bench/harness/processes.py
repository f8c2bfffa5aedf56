"""A server's process tree: start it, ask what it has used, stop it. Linux only; knows no HTTP and no scenario.

A tree, not a process: some of the servers compared run a master beside a worker, and threads that come and go.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

TICKS = os.sysconf("SC_CLK_TCK")  # per second; the unit of /proc/<pid>/stat
STOP_TIMEOUT = 10.0  # seconds between SIGTERM and SIGKILL; an idle server needs far less


@dataclass(frozen=True)
class Usage:
    """CPU a process tree has used since it started, in microseconds."""

    total: float
    user: float

    def since(self, earlier: "Usage") -> "Usage":
        return Usage(self.total - earlier.total, self.user - earlier.user)


@dataclass(frozen=True)
class Memory:
    """Of a whole tree, in bytes. `rss` counts shared pages in every process, `pss` once; `peak` sums the highest RSS."""

    rss: int
    pss: int
    peak: int


def tree(root: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for process in found:
        found.extend(children.get(process, ()))
    return found


def usage(root: int) -> Usage:
    """Threads that have ended are in a process's figures; so are children it has already waited for."""
    total = user = 0.0
    for process in tree(root):
        fields = _stat(process)
        if fields is None:
            continue
        user_ticks, system_ticks, reaped_user, reaped_system = (int(field) for field in fields[11:15])
        ticks = user_ticks + system_ticks
        own = _cpu_clock(process)
        if own is None:
            own = ticks * 1e6 / TICKS
        total += own + (reaped_user + reaped_system) * 1e6 / TICKS
        user += (user_ticks + reaped_user) * 1e6 / TICKS
    return Usage(total, user)


def memory(root: int) -> Memory:
    rss = pss = peak = 0
    for process in tree(root):
        status = _fields(f"/proc/{process}/status")
        rss += status.get("VmRSS", 0)
        peak += status.get("VmHWM", 0)
        pss += _fields(f"/proc/{process}/smaps_rollup").get("Pss", 0)
    return Memory(rss, pss, peak)


def threads(root: int) -> int:
    return sum(int(fields[17]) for process in tree(root) if (fields := _stat(process)) is not None)


def core_busy(core: int) -> float:
    """Seconds the core has been busy since boot, whoever kept it so."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise ValueError(f"there is no core {core} in /proc/stat")


def _stat(process: int) -> list[str] | None:
    """The fields after the command's name, which may hold spaces and brackets: [0] is the state, [1] the parent."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def _cpu_clock(process: int) -> float | None:
    """The kernel's own count for all threads of a process, microseconds: what /proc/<pid>/stat rounds to ticks of 10 ms."""
    try:
        # clock_getcpuclockid(3) of glibc: the complement of the process id, then the code of the scheduler's clock.
        return time.clock_gettime_ns((~process << 3) | 2) / 1000
    except OSError:
        return None


def _fields(path: str) -> dict[str, int]:
    """`Name:  123 kB` lines, in bytes."""
    try:
        lines = Path(path).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    found: dict[str, int] = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = int(words[0]) * 1024
    return found


class Process:
    """One started command and its descendants, stopped by their ids when the `with` block ends."""

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, output: Path, core: int | None = None
    ) -> None:
        self.command = [*(["taskset", "-c", str(core)] if core is not None else []), *command]
        self.output = output
        self._environ = dict(environ)
        self._cwd = cwd
        self._file: IO[bytes] | None = None
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._file = self.output.open("wb")
        # A session of its own: Ctrl-C in the terminal must reach us first, so that we stop the tree in order.
        self._popen = subprocess.Popen(
            self.command,
            env=self._environ,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def exited(self) -> int | None:
        assert self._popen is not None
        return self._popen.poll()

    def stop(self) -> int | None:
        """Ask the root, wait, then end by force whatever of the tree is left. Returns the root's exit code."""
        if self._popen is None:
            return None
        members = tree(self._popen.pid)
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for member in members[1:]:
            _end_orphan(member)
        if self._file is not None:
            self._file.close()
        return self._popen.returncode

    def tail(self, size: int = 2000) -> str:
        return self.output.read_bytes()[-size:].decode(errors="replace")


def _end_orphan(process: int) -> None:
    """A worker whose master is gone gets the time the master had, then SIGKILL: it holds the port."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while (fields := _stat(process)) is not None and fields[0] != "Z":
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            return
        time.sleep(0.02)
