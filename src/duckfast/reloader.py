"""Watches source files for --reload, in a child process of its own, and says which have changed. Knows files; restarts nothing.

In a child because watching takes threads, and the supervisor forks: a process that forks should have one thread.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .config import Config
from .control import Line, Message, pair
from .exceptions import ConfigError

DEFAULT_INCLUDES = ("*.py",)
# Always left out: editors' own files, caches, version control, environments.
DEFAULT_EXCLUDES = (
    ".*", "*.py[cod]", "*.sw?", "*~", "__pycache__", "node_modules", "site-packages"
)  # fmt: skip
MOST_DESCRIPTORS = 1 << 20
MOST_SHOWN = 3  # file names in one line of the log
STALL_LOOK = 1000  # milliseconds between looks whether the supervisor still lives
POLL_PAUSE = 300  # milliseconds between looks at all files where the system tells of no changes
# File systems whose changes, made on the other side, the kernel here does not tell: containers' mounts, shares, virtual machines.
TOLD_NOTHING = {"9p", "cifs", "fakeowner", "nfs", "nfs4", "prl_fs", "smb3", "vboxsf", "virtiofs", "vmhgfs"}


class Reloader:
    """The watching process. `line` is readable when files have changed."""

    def __init__(self, config: Config) -> None:
        if importlib.util.find_spec("watchfiles") is None:
            raise ConfigError("--reload needs watchfiles; `pip install duckfast[reload]`")
        self._roots = watched_folders(config)
        self._chooser = Chooser(config.reload_includes, config.reload_excludes, self._roots)
        self._polls = config.reload_poll or any(needs_polling(root) for root in self._roots)
        self._delay = config.reload_delay
        self.running = False

    def start(self) -> None:
        """Fork it."""
        self._started = time.time()
        self.line, theirs = pair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                    signal.signal(signum, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                # Nothing else of the supervisor's may live on here: not its listening sockets, nor the lines to workers.
                os.closerange(3, theirs.fileno())
                os.closerange(theirs.fileno() + 1, MOST_DESCRIPTORS)
                self._watch(theirs)
            except BaseException as error:  # nothing above may run in this process
                print(f"duckfast: watching files has failed: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(0)
        theirs.close()
        self.running = True

    def changes(self) -> list[str]:
        """Files that have changed, as a person would name them; may be empty."""
        messages: list[Message] = self.line.hear() or []
        return [path for message in messages for path in message["paths"]]

    def stop(self) -> None:
        self.running = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.line.close()

    def _watch(self, line: Line) -> None:
        import watchfiles

        parent = os.getppid()
        changes: Any = watchfiles.watch(
            *self._roots,
            watch_filter=self._chooser,
            step=max(1, round(self._delay * 1000)),  # quiet for this long ends a group of changes
            yield_on_timeout=True,
            rust_timeout=STALL_LOOK,
            force_polling=self._polls,
            poll_delay_ms=POLL_PAUSE,
            ignore_permission_denied=True,
        )
        missed = True
        for group in changes:
            if os.getppid() != parent:
                return
            found = {path for _, path in group}
            if missed:  # what changed while the watch was being set up, and the application perhaps read before
                missed = False
                found |= set(self._changed_since(self._started))
            paths = sorted(map(shown, found))
            if paths and not line.say("changed", paths=paths):
                return

    def _changed_since(self, moment: float) -> Iterator[str]:
        for root in self._roots:
            for folder, _, names in os.walk(root):
                for path in (os.path.join(folder, name) for name in names):
                    with contextlib.suppress(OSError):  # gone meanwhile
                        if self._chooser(None, path) and os.stat(path).st_mtime > moment:
                            yield path


class Chooser:
    """Which files count: `chooser(change, path)`. A pattern matches a name, or the path below the watched folder."""

    def __init__(self, includes: Iterable[str], excludes: Iterable[str], roots: Iterable[Path]) -> None:
        self._includes = [*DEFAULT_INCLUDES, *includes]
        self._excludes = [*DEFAULT_EXCLUDES, *excludes]
        self._told = set(includes)  # what a person asks for wins over what is left out by default
        self._roots = list(roots)

    def __call__(self, change: object, path: str) -> bool:
        below = self._below(Path(path))
        parts = [*below.parts, str(below)]
        if not any(fnmatch.fnmatch(part, pattern) for part in (below.name, str(below)) for pattern in self._includes):
            return False
        if any(fnmatch.fnmatch(part, pattern) for part in (below.name, str(below)) for pattern in self._told):
            return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in self._excludes[len(DEFAULT_EXCLUDES):])
        return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in self._excludes)

    def _below(self, path: Path) -> Path:
        for root in self._roots:
            with contextlib.suppress(ValueError):
                return path.relative_to(root)
        return path


def watched_folders(config: Config) -> list[Path]:
    """Absolute folders; without --reload-dir the current one. Raises ConfigError."""
    folders = [Path(folder).resolve() for folder in config.reload_dirs] or [Path(config.app_dir or os.curdir).resolve()]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--reload-dir {folder} is not a directory")
    # One inside of another is watched already.
    return [folder for folder in folders if not any(other in folder.parents for other in folders)]


def needs_polling(folder: Path) -> bool:
    """Whether the folder lies on a file system that does not tell of changes made elsewhere."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split(" ")[1:3] for line in file]
    except OSError:
        return False
    around = [(Path(where.replace("\\040", " ")), kind) for where, kind in mounts]
    inside = [(len(where.parts), kind) for where, kind in around if where == folder or where in folder.parents]
    return bool(inside) and max(inside)[1] in TOLD_NOTHING


def shown(path: str) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:
        return path


def summary(paths: list[str]) -> str:
    """`a.py, b.py and 3 more`"""
    more = len(paths) - MOST_SHOWN
    return ", ".join(paths[:MOST_SHOWN]) + (f" and {more} more" if more > 0 else "")
