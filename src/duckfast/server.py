"""One server process: sockets, application, engine, signals, exit codes.

Everything an engine must not do is done here, in the order that tells a mistake as early as possible: bind (a port in
use), import (a wrong target), listen, run. Knows no HTTP.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import importlib.util
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from . import __version__, _debug, demo, environment, identity, importer, sockets, tls
from . import log as logs
from .config import Config
from .exceptions import ConfigError, DuckfastError, ImportFailure
from .log import log
from .signals import REOPEN_SIGNAL, STOP_SIGNALS, StopSignals
from .systemd import Notifier

MOST_DESCRIPTORS = 1 << 16  # where the system sets no bound; nginx and Go raise theirs as well
HEARTBEAT = 1.0  # seconds between an engine's calls of its heartbeat
SIGNAL_EXIT_BASE = 128  # a shell's code for "ended by signal N" is 128 + N


class Engine(Protocol):
    def run(self) -> None:
        """Serve until stopped and drained."""

    def stop(self, seconds: float | None = None) -> None:
        """Begin the graceful drain; safe from any thread and from a signal handler, and more than once."""

    def retire(self) -> None:
        """Accept no more and end every connection with its next response; as safe."""

    def in_flight(self) -> list[tuple[str, str, float]]:
        """Method, path and age in seconds of the requests in progress."""

    def reopen_logs(self) -> None:
        """Open the log files of this process anew; safe from any thread and from a signal handler."""


class LeftoversFound(DuckfastError):
    """A debug build counted objects that nobody released."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


class StoppedBeforeServing(BaseException):
    """A stop signal came while the application was being imported. A BaseException, so that no import swallows it."""


class Server:
    """Serves one Config in this process: `Server(Config("module:app")).run()`."""

    def __init__(self, config: Config, daemon: identity.Daemon | None = None) -> None:
        self.config = config
        self._daemon = daemon
        self._notifier = Notifier()
        self.addresses: list[str] = []  # where it listens, as the start lines show it; filled by run()
        self._engine: Engine | None = None
        self._stopping = False
        self._signalled = False

    def run(self) -> None:
        """Serve until a stop signal or stop(), then drain and return.

        Signals are handled only in the main thread. Raises a DuckfastError when the server cannot start; whatever
        happens, sockets are closed and the previous signal handlers are back afterwards.
        """
        config = self.config
        identity.prepare(config)
        logs.configure(config)
        environment.apply(config)
        self._notifier = Notifier.take(os.environ)
        identity.set_title(config.name)
        with StopSignals(self._on_signal, (*STOP_SIGNALS, REOPEN_SIGNAL)) as signals, contextlib.suppress(StoppedBeforeServing):
            whom = identity.resolve(config)
            options = sockets.options(config, None if whom is None else whom.owner)
            listeners = sockets.bind_all(sockets.addresses(config), options)
            try:
                with identity.pid_file(config):
                    identity.drop(whom)
                    self._serve(listeners, signals)
            finally:
                sockets.close_all(listeners)
        log.info("stopped")

    def stop(self) -> None:
        """Begin the graceful stop, from any thread; run() returns when it is done."""
        self._stopping = True
        if self._engine is not None:
            self._notifier.stopping()
            self._engine.stop()

    def _serve(self, listeners: list[sockets.Listener], signals: StopSignals) -> None:
        scheme = tls.scheme(self.config)
        app, config = load(self.config)
        log.disabled = False  # logging.config disables every logger it is not told of, and few tell it of their server's
        raise_descriptor_limit()
        sockets.listen_all(listeners, config.backlog)
        listening = [listener.socket for listener in listeners]

        def ready() -> None:
            self.addresses = [sockets.describe(sock, scheme) for sock in listening]
            name = importer.name_application(config.app)
            for address in self.addresses:
                log.info("duckfast %s serving %s (%s) on %s (pid %d)",
                         __version__, name, describe_engine(config), address, os.getpid())
            self._notifier.ready(f"serving {name}")
            if self._daemon is not None:
                self._daemon.ready()

        beat = None if self._notifier.interval is None else functools.partial(self._notifier.maybe_beat, HEARTBEAT)
        engine = make_engine(app, config, listening, ready, heartbeat=beat)
        self._engine = engine
        if self._stopping:
            return
        with signals.watched():
            engine.run()
        if _debug.enabled:
            count_leftovers()

    def _on_signal(self, signum: int) -> None:
        name = signal.Signals(signum).name
        if signum == REOPEN_SIGNAL:
            self._reopen_logs()
            return
        if self._signalled:
            log.warning("%s again: ending at once", name)
            flush_output()
            os._exit(SIGNAL_EXIT_BASE + signum)
        self._signalled = self._stopping = True
        if self._engine is None:
            log.info("%s before the application was ready: stopping", name)
            raise StoppedBeforeServing
        log.info("%s: stopping, requests in progress have %gs; once more ends at once",
                 name, self.config.timeout_graceful_shutdown)
        self._notifier.stopping()
        self._engine.stop()

    def _reopen_logs(self) -> None:
        if self._engine is None:
            logs.reopen()
        else:
            self._engine.reopen_logs()
        log.info("%s: the log files were opened anew", REOPEN_SIGNAL.name)


def load(config: Config, app: Callable[..., Any] | None = None) -> tuple[Callable[..., Any], Config]:
    """The application of a configuration, and the configuration with every `auto` that concerns it decided.

    `app` is given when it has been loaded before.
    """
    if config.app is None:
        interface = "asgi" if config.interface == "auto" else config.interface
        app = app or demo.APPLICATIONS[interface]
    else:
        if app is None:
            app = importer.load_application(config.app, factory=config.factory, app_dir=config.app_dir)
        interface = config.interface
        if interface == "auto":
            interface, reason = importer.detect_interface(app)
            log.debug("interface %s, because of what %s is: %s", interface, importer.name_application(config.app), reason)
        elif not callable(app):
            raise ImportFailure(f"{config.app!r} is a {type(app).__name__}, not an application")
    loop = choose_loop(config.loop) if interface != "wsgi" else config.loop
    return app, dataclasses.replace(config, interface=interface, loop=loop)


def choose_loop(loop: str) -> str:
    installed = importlib.util.find_spec("uvloop") is not None
    if loop == "auto":
        return "uvloop" if installed else "asyncio"
    if loop == "uvloop" and not installed:
        raise ConfigError("uvloop is not installed; `pip install uvloop`, or --loop asyncio")
    return loop


def raise_descriptor_limit() -> None:
    """Take as many file descriptors as this process may have: each connection needs one, and many systems start with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # refused by the system: then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def count_leftovers() -> None:
    """Debug builds only: raise when something the engine made has outlived it."""
    if any(thread.name.startswith("duckfast-") for thread in threading.enumerate()):
        return  # the application still holds one of the engine's threads, and with it a connection
    gc.collect()  # an application may have left cycles that hold a receive() or a wsgi.input
    leftovers = {kind: count for kind, count in _debug.alive().items() if count}
    if leftovers:
        raise LeftoversFound(f"objects are alive after the engine's end: {leftovers}; this is a bug in duckfast")


def make_engine(
    app: Callable[..., Any],
    config: Config,
    listening: list[socket.socket],
    ready: Callable[[], None],
    **supervision: Any,
) -> Engine:
    """`supervision`: what an engine tells a supervisor, as its class says."""
    # Imported here, so that a WSGI server never loads asyncio and an ASGI server no thread engine.
    if config.interface == "wsgi":
        from .wsgi import ThreadEngine

        return ThreadEngine(app, config, listening, ready=ready, **supervision)
    from .asgi import AsyncEngine

    return AsyncEngine(app, config, listening, ready=ready, **supervision)


def describe_engine(config: Config) -> str:
    """`asgi, uvloop` or `wsgi, 4 threads`: what was chosen, for the start line."""
    if config.interface != "wsgi":
        return f"{config.interface}, {config.loop}"
    if config.threads is None:
        return "wsgi, threads auto"
    return "wsgi, 1 thread" if config.threads == 1 else f"wsgi, up to {config.threads} threads"


def check(config: Config) -> str:
    """Load everything that a server would, without listening: a line that says what was found. Raises a DuckfastError."""
    environment.apply(config)
    places = sockets.addresses(config)
    identity.resolve(config)
    tls.check(config)
    _, decided = load(config)
    listening = ", ".join(map(str, places))
    return f"all is well: {importer.name_application(config.app)} ({describe_engine(decided)}) on {listening}"


def tell(error: DuckfastError) -> None:
    """Say on stderr why the server cannot run: the application's own traceback if it has one, then one line."""
    if sys.stderr is None:  # the process was started with stderr closed; the exit code still tells
        return
    if isinstance(error, ImportFailure) and error.app_traceback:
        sys.stderr.write(error.app_traceback)
    sys.stderr.write(f"duckfast: {error}\n")
    sys.stderr.flush()


def flush_output() -> None:
    logs.flush()
    for stream in (sys.stdout, sys.stderr):
        # Closed from the start, closed since, or being written to right now.
        with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
            stream.flush()
