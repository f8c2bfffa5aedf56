"""One server in this process: sockets, application, engine; as the whole process, or inside somebody else's program.

Everything an engine must not do is done here, in the order that tells a mistake as early as possible: bind (a port in
use), import (a wrong target), listen, run. What belongs to the process (signals, logs, its user) is touched by run() alone.
Knows no HTTP.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from . import __version__, _debug, demo, environment, identity, importer, sockets, tls
from . import log as logs
from .config import SETTINGS, SUPERVISED, Config
from .exceptions import ConfigError, DuckfastError, ImportFailure
from .log import log
from .loops import attend, choose_loop, on_loop, refuse_running_loop, run_on_thread, settle
from .signals import REOPEN_SIGNAL, STOP_SIGNALS, StopSignals, loop_signals
from .systemd import Notifier

if TYPE_CHECKING:
    import asyncio

MOST_DESCRIPTORS = 1 << 16  # where the system sets no bound; nginx and Go raise theirs as well
HEARTBEAT = 1.0  # seconds between an engine's calls of its heartbeat
SIGNAL_EXIT_BASE = 128  # a shell's code for "ended by signal N" is 128 + N
OF_THE_PROCESS = ("env", "env_file", "pid", "user", "group", "umask", "name", "daemon")  # settings that a guest must not act on
OF_LOGGING = ("log_level", "log_file", "log_config", "use_colors")  # settings that ask for logging to be configured


class Engine(Protocol):
    def run(self) -> None:
        """Serve until stopped and drained."""

    def stop(self, seconds: float | None = None) -> None:
        """Begin the graceful drain; safe from any thread and from a signal handler, and more than once."""

    def retire(self) -> None:
        """Accept no more and end every connection with its next response; as safe."""

    @property
    def requests(self) -> int: ...  # how many have begun

    def in_flight(self) -> list[tuple[str, str, float]]:
        """Method, path and age in seconds of the requests in progress."""

    def reopen_logs(self) -> None:
        """Open the log files of this process anew; safe from any thread and from a signal handler."""

    def reload_tls(self) -> bool:
        """Load the certificates anew for connections from now on; as safe. False: nothing changed."""


class LeftoversFound(DuckfastError):
    """A debug build counted objects that nobody released."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h


class StoppedBeforeServing(BaseException):
    """A stop signal came while the application was being imported. A BaseException, so that no import swallows it."""


class Server:
    """Serves one application in this process, once; for the next start make another.

        Server(app, port=8000).run()                  # as the whole process: until SIGINT, SIGTERM or stop()
        await Server(app, port=8000).serve()          # in the running event loop
        with Server(app, port=0) as server:           # on a thread in the background
            urllib.request.urlopen(server.url)
        async with Server(app, port=0) as server:     # in the running event loop, beside the caller
            ...

    `app` is an application object, a target such as "module:app", None for the demo page, or a whole Config. `settings` are
    those of Config and win over it. `ready` is called without arguments when requests are accepted: in serve() on the loop,
    else on the thread that serves. An exception from it ends the server and is raised where it was started.

    But for run(), nothing of the process is touched: no signal handlers (unless serve() is asked for them), no logging
    configuration (unless one of its settings is given), no environment. Access lines go to stdout only for access_log=True or a
    Config; access_log_file and handlers of the logger duckfast.access get them in any case.

    Raises ConfigError for what is wrong in the settings.
    """

    def __init__(
        self,
        app: str | Callable[..., Any] | Config | None = None,
        config: Config | None = None,
        *,
        ready: Callable[[], object] | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(app, Config):
            if config is not None:
                raise TypeError("the configuration is given twice: as the first argument and as `config`")
            app, config = None, app
        self._quiet = config is None and "access_log" not in settings
        self._logs_asked_for = any(name in settings for name in OF_LOGGING)
        if config is None:
            config = Config(app, **settings)
        else:
            config = dataclasses.replace(config, **{**({} if app is None else {"app": app}), **settings})
        if config.is_supervised:
            names = ", ".join(name for name in SUPERVISED if getattr(config, name))
            raise ConfigError(f"{names}: a Server is one process; worker processes and reloads are for duckfast.run()")
        self.config = config
        self.addresses: list[str] = []  # where it listens, as the start lines show it
        self._callbacks: list[Callable[[], object]] = [] if ready is None else [ready]
        self._notifier = Notifier()
        self._engine: Engine | None = None
        self._stopping = False
        self._signalled = False
        self._begun = False
        self._failure: BaseException | None = None
        self._is_ready = False
        self._settled = threading.Event()  # it is ready, or has ended
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None  # of start()
        self._task: asyncio.Task[None] | None = None  # of `async with`

    @property
    def url(self) -> str:
        """The first address for a client on this machine, `http://127.0.0.1:8000`, without a slash at the end.

        `unix:/path` when it listens on nothing else.
        """
        if not self.addresses:
            raise RuntimeError("the server has no address before it has been started")
        first = next((address for address in self.addresses if address.startswith("http")), self.addresses[0])
        return first.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")

    @property
    def running(self) -> bool:
        """Whether requests are accepted, or still finished."""
        return self._is_ready and not self._ended.is_set()

    def stop(self, seconds: float | None = None) -> None:
        """Begin the graceful stop: from any thread, the application's included, or a signal handler; does not wait.

        Requests in progress have `seconds`, else timeout_graceful_shutdown. Called again it can only shorten that.
        """
        self._stopping = True
        engine = self._engine
        if engine is not None:
            self._notifier.stopping()
            engine.stop(seconds)

    def reload_tls(self) -> bool:
        """Use the certificate files as they are now for new connections; from any thread. False: nothing changed; see the log."""
        return self._engine is not None and self._engine.reload_tls()

    def reopen_logs(self) -> None:
        """Open the log files anew, as after a rotation; from any thread."""
        if self._engine is None:
            logs.reopen()
        else:
            self._engine.reopen_logs()

    # ------------------------------------------------------------------ as the whole process

    def run(self) -> None:
        """Serve until a stop signal or stop(), then drain and return. Configures logging, and the process as the settings say.

        Signals are handled only in the main thread. Raises a DuckfastError when the server cannot start; whatever
        happens, sockets are closed and the previous signal handlers are back afterwards.
        """
        refuse_running_loop("Server.run()")
        self._begin()
        config = self.config
        identity.prepare(config)
        logs.configure(config)
        environment.apply(config)
        self._notifier = Notifier.take(os.environ)
        identity.set_title(config.name)
        with contextlib.suppress(StoppedBeforeServing), StopSignals(self._on_signal, (*STOP_SIGNALS, REOPEN_SIGNAL)) as signals:
            whom = identity.resolve(config)
            options = sockets.options(config, None if whom is None else whom.owner)
            listeners = sockets.bind_all(sockets.addresses(config), options)
            try:
                with identity.pid_file(config):
                    identity.drop(whom)
                    self._run(listeners, signals)
            finally:
                sockets.close_all(listeners)
        log.info("stopped")

    def _run(self, listeners: list[sockets.Listener], signals: StopSignals) -> None:
        tls.scheme(self.config)
        app, config = load(self.config)
        log.disabled = False  # logging.config disables every logger it is not told of, and few tell it of their server's
        raise_descriptor_limit()
        beat = None if self._notifier.interval is None else functools.partial(self._notifier.maybe_beat, HEARTBEAT)

        def ready() -> None:
            self._notifier.ready(f"serving {importer.name_application(config.app)}")
            self._tell_ready()

        engine = self._open(app, config, listeners, ready, heartbeat=beat)
        if self._stopping:
            return
        try:
            with signals.watched():
                engine.run()
        finally:
            self._ended.set()
        if _debug.enabled:
            count_leftovers()

    def _on_signal(self, signum: int) -> None:
        name = signal.Signals(signum).name
        if signum == REOPEN_SIGNAL:
            self.reopen_logs()
            log.info("%s: the log files were opened anew", name)
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

    # ------------------------------------------------------------------ in a running event loop

    async def serve(self, *, signals: bool = False) -> None:
        """Serve an ASGI application on the running loop, a WSGI application on threads beside it, until stop().

        Cancelled, it ends at once but in good order: requests in progress are cancelled, the lifespan shutdown runs, then
        CancelledError is raised. With `signals` SIGINT and SIGTERM stop it gracefully, and a second one at once; that
        needs the main thread. Raises a DuckfastError when the server cannot start.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        listeners: list[sockets.Listener] = []
        self._begin()
        try:
            config = on_loop(self._as_guest(), loop)
            listeners = self._bind(config)
            app, config = load(config)
            with loop_signals(loop, self._on_loop_signal) if signals else contextlib.nullcontext():
                if config.interface == "wsgi":
                    await self._serve_beside(loop, app, config, listeners)
                else:
                    engine: Any = self._open(app, config, listeners, self._tell_ready)
                    if not self._stopping:
                        # A task of its own, because its cleanup waits for things too: attend() cancels it once, not again.
                        await attend(loop.create_task(engine.serve(), name="duckfast"))
        finally:
            sockets.close_all(listeners)
            self._end()

    async def _serve_beside(
        self, loop: asyncio.AbstractEventLoop, app: Any, config: Config, listeners: list[sockets.Listener]
    ) -> None:
        refused: list[BaseException] = []

        def tell() -> None:
            try:
                self._tell_ready()
            except BaseException as error:
                refused.append(error)
                engine.stop(0.0)

        engine = self._open(app, config, listeners, lambda: loop.call_soon_threadsafe(tell))
        if self._stopping:
            return
        await run_on_thread(engine.run, functools.partial(engine.stop, 0.0))
        if refused:
            raise refused[0]

    def _on_loop_signal(self, signum: int) -> None:
        name = signal.Signals(signum).name
        log.info("%s: stopping%s", name, " at once" if self._signalled else ", once more ends what is in progress")
        self.stop(0.0 if self._signalled else None)
        self._signalled = True

    async def __aenter__(self) -> Self:
        """serve() as a task; entered once requests are accepted. What prevents the start is raised here."""
        import asyncio

        loop = asyncio.get_running_loop()
        started = loop.create_future()  # or never will be
        self._callbacks.append(lambda: settle(started))
        task = self._task = loop.create_task(self.serve(), name="duckfast-server")
        task.add_done_callback(lambda _: settle(started))
        try:
            await attend(started, task.cancel)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await attend(task)
            raise
        if task.done():
            task.result()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Stops gracefully and waits. Raises what the server ended with, unless the block has raised already."""
        assert self._task is not None
        self.stop()
        try:
            await attend(self._task)
        except Exception as failure:
            if error is None:
                raise
            log.error("the server failed: %s", failure)

    # ------------------------------------------------------------------ on a thread in the background

    def start(self) -> Self:
        """Serve on a thread in the background; returns once requests are accepted. What prevents the start is raised here.

        The thread does not keep the program alive: at the interpreter's exit the server is stopped, without patience.
        """
        self._begin()
        config = self._as_guest()
        listeners = self._bind(config)
        try:
            app, config = load(config)
            engine = self._open(app, config, listeners, self._tell_ready)
        except BaseException:
            sockets.close_all(listeners)
            self._end()
            raise
        self._thread = threading.Thread(target=self._work, args=(engine, listeners), name="duckfast-server", daemon=True)
        atexit.register(self._end_at_exit, os.getpid())
        self._thread.start()
        del engine
        try:
            self._settled.wait()
        except BaseException:  # KeyboardInterrupt
            self.stop(0.0)
            raise
        if self._failure is not None:
            self.join()
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait, for so many seconds at most, until a server that start() has started has ended; whether it has.

        Raises what it ended with: LifespanFailure, or SystemExit that the application raised.
        """
        if self._thread is None:
            raise RuntimeError("the server was not started by start()")
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def _work(self, engine: Engine, listeners: list[sockets.Listener]) -> None:
        try:
            if not self._stopping:
                engine.run()
        except BaseException as error:
            self._failure = error
        finally:
            sockets.close_all(listeners)
            atexit.unregister(self._end_at_exit)
            self._end()

    def _end_at_exit(self, pid: int) -> None:
        if os.getpid() == pid and self._thread is not None:  # a forked child has no such thread
            self.stop(0.0)
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Stops gracefully and waits. Raises what the server ended with, unless the block has raised already."""
        self.stop()
        try:
            self.join()
        except BaseException as failure:
            if error is None or isinstance(failure, KeyboardInterrupt):
                raise
            log.error("the server failed: %s", failure)

    # ------------------------------------------------------------------ what they share

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError("this server has been started before; make another one")
        self._begun = True

    def _end(self) -> None:
        self._engine = None
        self._ended.set()
        self._settled.set()

    def _as_guest(self) -> Config:
        """The configuration inside of somebody else's program. Raises ConfigError for what belongs to that."""
        config = self.config
        for name in OF_THE_PROCESS:
            if getattr(config, name) != SETTINGS[name].default:
                raise ConfigError(f"{name} concerns the whole process, and the server is a part of one; see duckfast.run()")
        if self._logs_asked_for or any(getattr(config, name) != SETTINGS[name].default for name in OF_LOGGING):
            logs.configure(config)
        if self._quiet and config.access_log_file is None and not logs.access.handlers:
            return dataclasses.replace(config, access_log=False)
        return config

    def _bind(self, config: Config) -> list[sockets.Listener]:
        tls.scheme(config)
        return sockets.bind_all(sockets.addresses(config), sockets.options(config))

    def _open(
        self,
        app: Callable[..., Any],
        config: Config,
        listeners: list[sockets.Listener],
        ready: Callable[[], object],
        **supervision: Any,
    ) -> Engine:
        """The engine, and its doors open: from here on clients wait in the kernel for it to run."""
        sockets.listen_all(listeners, config.backlog)
        listening = [listener.socket for listener in listeners]
        scheme = tls.scheme(config)
        self.addresses = [sockets.describe(sock, scheme) for sock in listening]

        def announce() -> None:
            name = importer.name_application(config.app)
            for address in self.addresses:
                log.info("duckfast %s serving %s (%s) on %s (pid %d)",
                         __version__, name, describe_engine(config), address, os.getpid())
            ready()

        engine = self._engine = make_engine(app, config, listening, announce, **supervision)
        return engine

    def _tell_ready(self) -> None:
        for callback in self._callbacks:
            callback()
        self._is_ready = True
        self._settled.set()


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
