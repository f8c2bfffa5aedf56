"""One worker process, from the fork to its end. Knows an engine and the line to its supervisor; refuses to know its siblings.

It is told by messages (retire, hurry, reopen, report) and by signals: SIGTERM stops it gracefully, SIGUSR2 writes every
thread's stack to stderr even while the interpreter is stuck. When the line ends the supervisor is gone, and the worker
stops too: it could never be replaced or stopped by anyone.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from . import _debug, environment, identity, importer, sockets
from . import log as logs
from . import server as servers
from .exceptions import DuckfastError, ImportFailure
from .log import log
from .signals import REOPEN_SIGNAL, StopSignals

if TYPE_CHECKING:
    from .config import Config
    from .control import Line

STACKS_SIGNAL = signal.SIGUSR2
# Meant for the supervisor, though a terminal or an init system sends them to the whole group.
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, REOPEN_SIGNAL, signal.SIGTTIN, signal.SIGTTOU)
RESIDENT_EVERY = 5.0  # seconds between looks at the resident memory
BEATS_PER_TIMEOUT = 4  # a beat that is a little late is no reason for alarm
MAX_BEAT_INTERVAL = 1.0  # seconds


class Worker:
    """Serves `config` on listening sockets that others share.

    `app` is the application when the supervisor has loaded it, else None; `beat` is called while the engine is alive.
    """

    def __init__(
        self,
        config: Config,
        app: Callable[..., Any] | None,
        listeners: list[sockets.Listener],
        line: Line,
        beat: Callable[[], None],
    ) -> None:
        self._config = config
        self._app = app
        self._listeners = listeners
        self._line = line
        self._beat = beat
        self._engine: servers.Engine | None = None
        self._stopping = False
        self._seconds: float | None = None  # that requests in progress have at a stop; None: as the settings say
        self._beats_to_look = 0
        self._beats_per_look = 1

    def run(self) -> int:
        """The exit code of the process: 0 after a graceful end. A failure to start is told to the supervisor in words."""
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor behind it: then there are no stacks
                faulthandler.register(STACKS_SIGNAL, file=sys.stderr, all_threads=True)
        threading.Thread(target=self._obey, name="duckfast-control", daemon=True).start()
        try:
            # The signal may also come while the handlers are taken away: whatever it interrupts, it is caught out here.
            with contextlib.suppress(servers.StoppedBeforeServing), StopSignals(self._on_signal, (signal.SIGTERM,)) as signals:
                self._serve(signals)
        except DuckfastError as error:
            trace = error.app_traceback if isinstance(error, ImportFailure) else ""
            self._line.say("failed", message=str(error), traceback=trace, exit_code=error.exit_code)
            return error.exit_code
        return 0

    def _serve(self, signals: StopSignals) -> None:
        identity.set_title(self._config.name, "worker")
        environment.apply(self._config)
        identity.drop(identity.resolve(self._config))
        app, config = servers.load(self._config, self._app)
        log.disabled = False
        servers.raise_descriptor_limit()
        sockets.listen_all(self._listeners, config.backlog)

        def ready() -> None:
            self._beat()
            self._line.say("ready", app=importer.name_application(config.app), engine=servers.describe_engine(config))
            if config.daemon:
                identity.leave_terminal()

        interval = MAX_BEAT_INTERVAL
        if config.timeout_worker_healthcheck is not None:
            interval = min(interval, config.timeout_worker_healthcheck / BEATS_PER_TIMEOUT)
        self._beats_per_look = max(1, round(RESIDENT_EVERY / interval))
        self._engine = servers.make_engine(
            app,
            config,
            [listener.socket for listener in self._listeners],
            ready,
            heartbeat=self._on_beat,
            heartbeat_interval=interval,
            max_requests=most_requests(config),
            recycle=self._recycle,
        )
        if self._stopping:
            return
        with signals.watched():
            self._engine.run()
        if _debug.enabled:
            servers.count_leftovers()

    def _on_signal(self, signum: int) -> None:
        self._stopping = True
        if self._engine is None:
            raise servers.StoppedBeforeServing
        self._engine.stop(self._seconds)

    def _on_beat(self) -> None:
        self._beat()
        if self._config.workers_max_rss is None:
            return
        self._beats_to_look -= 1
        if self._beats_to_look > 0:
            return
        self._beats_to_look = self._beats_per_look
        size = resident_memory()
        if size > self._config.workers_max_rss:
            self._recycle(f"it uses {size >> 20} MiB of memory")

    def _recycle(self, reason: str) -> None:
        self._line.say("recycle", reason=reason)

    # ------------------------------------------------------------------ on the thread that listens to the supervisor

    def _obey(self) -> None:
        for message in self._line.listen():
            order = message["say"]
            if order == "retire" and self._engine is not None:
                self._engine.retire()
            elif order == "hurry":
                self._seconds = 0.0
                os.kill(os.getpid(), signal.SIGTERM)  # so that an import ends as well
            elif order == "reopen":
                self._reopen_logs()
            elif order == "report":
                self._report()
        os.kill(os.getpid(), signal.SIGTERM)

    def _reopen_logs(self) -> None:
        if self._engine is None:
            logs.reopen()
        else:
            self._engine.reopen_logs()

    def _report(self) -> None:
        """What a worker that hangs is doing. This needs the interpreter; the supervisor has a signal for when that is stuck."""
        requests = [] if self._engine is None else self._engine.in_flight()
        for method, path, age in requests:
            log.error("in progress for %.1fs: %s %s", age, method, path)
        log.error("%d requests in progress; the stacks of all threads follow", len(requests))
        logs.flush()
        self._line.say("reported")


def most_requests(config: Config) -> int | None:
    """How many requests one worker serves; another number in each, so that they do not all go at the same time."""
    if config.limit_max_requests is None:
        return None
    return config.limit_max_requests + random.randint(0, config.limit_max_requests_jitter)


def resident_memory() -> int:
    """Bytes of this process in memory."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the highest it ever was: the nearest there is here
        return most if sys.platform == "darwin" else most * 1024


def end(code: int) -> NoReturn:
    """End a forked process: its exit handlers and its output, but nothing of what the supervisor's stack would still do."""
    with contextlib.suppress(Exception):  # an application's handler failed, and has said so
        atexit._run_exitfuncs()
    servers.flush_output()
    os._exit(code)
