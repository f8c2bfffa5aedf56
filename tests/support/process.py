"""Real duckfast processes for tests: start, wait for the start line, stop, look at what was said.

Knows the command line and the start line, nothing else of duckfast. Nothing here sleeps: waiting means waiting for a
line of output or for the end of the process, each with a deadline that only a broken server reaches.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

import duckfast

DEADLINE = 30.0  # seconds; generous because sanitizer builds on a busy machine are slow

START_LINE = re.compile(
    r"duckfast (?P<version>\S+) serving (?P<target>.+) \((?P<engine>[^()]*)\) on (?P<address>\S+) \(pid (?P<pid>\d+)\)"
)

# With one of these on the command line the test says itself where the server listens.
BIND_OPTIONS = ("--port", "-b", "--bind", "--uds", "--fd")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without duckfast settings, with the duckfast under test importable."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUCKFAST_")}
    package_root = str(Path(duckfast.__file__).parent.parent)
    paths = [package_root, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONFAULTHANDLER"] = "1"
    environment.update(extra or {})
    return environment


def run_duckfast(
    *args: str, env: Mapping[str, str] | None = None, cwd: str | os.PathLike[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a duckfast that ends by itself (--help, a usage error) and return its exit code and output."""
    return subprocess.run(
        [sys.executable, "-m", "duckfast", *args],
        env=clean_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


everywhere: list[str] = []  # set by `pytest --tls`: options of every server of every test


class OutputReader:
    """Reads one pipe of a child on a thread of its own, so that the child never blocks on a full pipe."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            for line in self._pipe:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def text(self) -> str:
        with self._changed:
            return "".join(self._lines)

    def wait_until(self, found: Callable[[str], bool], deadline: float = DEADLINE) -> bool:
        """True once `found(text so far)` is true; False when the pipe ended or the deadline passed without it."""
        with self._changed:
            self._changed.wait_for(lambda: found("".join(self._lines)) or self._ended, deadline)
            return found("".join(self._lines))

    def join(self) -> None:
        self._thread.join(DEADLINE)


class ServerProcess:
    """One `python -m duckfast ...` process; as a context manager it is started, then stopped with exit code 0.

        with ServerProcess(["app:app", "--interface", "wsgi"], cwd=folder) as server:
            httpx.get(server.url)

    Without a bind option among `args` the server listens on a free port of 127.0.0.1. `command` replaces
    `python -m duckfast`, for scripts that call duckfast.run() themselves. `listeners` is how many start lines to wait for.
    """

    def __init__(
        self,
        args: Iterable[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        command: Iterable[str] | None = None,
        listeners: int = 1,
        pass_fds: Iterable[int] = (),
    ) -> None:
        arguments = list(args)
        if command is None:
            command = [sys.executable, "-m", "duckfast", *everywhere]
            if not any(argument.split("=")[0] in BIND_OPTIONS for argument in arguments):
                arguments += ["--port", "0"]
        self._command = [*command, *arguments]
        self._env = clean_environment(env)
        self._cwd = cwd
        self._listeners = listeners
        self._pass_fds = tuple(pass_fds)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> ServerProcess:
        """Start the process and return once it has said on stderr where it listens."""
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            pass_fds=self._pass_fds,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._stdout = OutputReader(self._process.stdout)
        self._stderr = OutputReader(self._process.stderr)
        if self._stderr.wait_until(lambda text: len(START_LINE.findall(text)) >= self._listeners):
            return self
        self.kill()
        raise AssertionError(f"the server did not start, exit code {self.returncode}:\n{self.stderr_text()}")

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "start() the server first"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal's number when a signal ended it, None while it runs."""
        return self.process.poll()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, as its start lines say: `http://host:port` or `unix:path`, in that order."""
        return [match["address"] for match in START_LINE.finditer(self.stderr_text())]

    @property
    def url(self) -> str:
        """The first TCP address, `http://127.0.0.1:40123`, without a slash at the end."""
        return next(address for address in self.addresses if address.startswith("http"))

    @property
    def host(self) -> str:
        return self.url.split("://", 1)[1].rsplit(":", 1)[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def stderr_text(self) -> str:
        """Everything the process has written to stderr so far."""
        return self._stderr.text()

    def stdout_text(self) -> str:
        """Everything the process has written to stdout so far (the access log goes there)."""
        return self._stdout.text()

    def wait_for_stderr(self, text: str) -> None:
        """Return once stderr holds `text`; fails when the process ends without it."""
        assert self._stderr.wait_until(lambda seen: text in seen), f"no {text!r} in stderr:\n{self.stderr_text()}"

    def wait_for_matches(self, pattern: str, count: int = 1) -> list[str]:
        """What `pattern` finds in stderr (its group, if it has one), once that is `count` times or more."""
        assert self._stderr.wait_until(lambda seen: len(re.findall(pattern, seen)) >= count), (
            f"{pattern!r} is not {count} times in stderr:\n{self.stderr_text()}"
        )
        return re.findall(pattern, self.stderr_text())

    def wait_for_stdout(self, text: str) -> None:
        """Return once stdout holds `text`; fails when the process ends without it."""
        assert self._stdout.wait_until(lambda seen: text in seen), f"no {text!r} in stdout:\n{self.stdout_text()}"

    def send_signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for the end of the process; returns its exit code, with all output read."""
        code = self.process.wait(deadline)
        self._stdout.join()
        self._stderr.join()
        return code

    def stop(self) -> None:
        """Stop by SIGTERM and assert that it ended gracefully, with exit code 0."""
        self.send_signal(signal.SIGTERM)
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop after SIGTERM:\n{self.stderr_text()}") from None
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.stderr_text()}"

    def kill(self) -> None:
        """End it at once, whatever it does; no assertion. For tests that have already failed."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.returncode is not None:
            self.wait()  # the test ended it in its own way
        elif error is not None:
            self.kill()  # the test's own error is the one to show
        else:
            self.stop()
