"""The workers for gunicorn: `gunicorn -k duckfast.gunicorn.WSGIWorker` and `... .ASGIWorker` (or egg:duckfast#wsgi, #asgi).

gunicorn binds, forks, loads the application and looks after its workers, each of which runs an engine. Here is what stands
between the two: signals, signs of life, exit codes. What a setting means stands in gunicorn_settings, what hooks and loggers are
told of a request in gunicorn_hooks.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import __version__, importer, loops, tls
from . import gunicorn_settings as settings
from . import log as logs
from . import server as servers
from .config import Config
from .exceptions import DuckfastError, ImportFailure
from .gunicorn_hooks import ForwardHandler, Hooks
from .signals import StopSignals

try:
    from gunicorn import sock as gunicorn_sock
    from gunicorn.arbiter import Arbiter
    from gunicorn.glogging import Logger
    from gunicorn.workers.base import Worker
except ImportError as error:
    raise ImportError("duckfast.gunicorn is for gunicorn, which is not installed: `pip install gunicorn`") from error

BEATS_PER_TIMEOUT = 4  # a beat that is a little late is no reason for alarm
MAX_BEAT_INTERVAL = 1.0  # seconds; gunicorn looks once a second
IDLE_GRACE = 2.0  # seconds that an idle connection may still bring a request when a worker goes; as gunicorn keeps one
CANCEL_GRACE = 5.0  # seconds for ASGI applications that are cancelled, and for clients to notice
LAST_GRACE = 2.5  # seconds beyond the graceful timeout that an engine gets to see its own threads end


class EngineWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """A worker of gunicorn's that serves with an engine of duckfast's."""

    kind = ""  # the interface of its applications
    wsgi: Any  # the application, whichever interface it has; load_wsgi() sets it

    def __init__(self, age: int, ppid: int, sockets: Any, app: Any, timeout: float, cfg: Any, log: Any) -> None:
        # In the master, before the fork.
        self._engine: servers.Engine | None = None
        self._alive = True
        # One item when the end is to begin. Signal handlers put it: the lock of an Event might be held by what they interrupt.
        self._endings: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._overdue = False
        super().__init__(age, ppid, sockets, app, timeout, cfg, log)
        if cfg.is_ssl:
            tls.share_ticket_keys()  # so that a worker resumes the sessions of its siblings

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        for line in settings.without_effect(cfg, cls.kind):
            log.warning(line)

    # ------------------------------------------------------------------ what gunicorn reads and sets

    @property
    def alive(self) -> bool:
        """False: it is to end. Hooks and gunicorn's reloader set this, from any thread."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = value
        if not value:
            self._end_gracefully()

    @property
    def nr(self) -> int:
        """How many requests have begun."""
        return 0 if self._engine is None else self._engine.requests

    @nr.setter
    def nr(self, value: int) -> None:
        """gunicorn sets it to 0 when a worker is made."""

    # ------------------------------------------------------------------ from the fork to the end

    def init_process(self) -> None:
        self.notify()  # else an import that hangs would never be noticed: the first time of the file is no monotonic one
        super().init_process()

    def init_signals(self) -> None:
        """In place of gunicorn's own: handlers that also act while the interpreter waits, and stacks even when it is stuck."""
        faulthandler.disable()
        for signum in self.SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGABRT, self.handle_abort)
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor behind it: then there are no stacks
                faulthandler.enable(file=sys.stderr, all_threads=True)  # at SIGABRT stacks first, then the handler
        for signum in (signal.SIGQUIT, signal.SIGINT):
            signal.signal(signum, self.handle_quit)
        self._stop_signals = StopSignals(self._on_signal, (signal.SIGTERM, signal.SIGUSR1))
        self._stop_signals.__enter__()
        for signum in (signal.SIGTERM, signal.SIGUSR1):
            signal.siginterrupt(signum, False)  # calls of C libraries are not cut off by them

    def run(self) -> None:
        self._forward_log()
        served = False

        def ready() -> None:
            nonlocal served
            served = True
            self.notify()

        try:
            engine = self._engine = self._make_engine(ready)
            if not self._alive:  # since the application was loaded
                return
            threading.Thread(target=self._watch_end, name="duckfast-end", daemon=True).start()
            with self._stop_signals.watched():
                engine.run()
        except Exception as error:
            self._tell(error)
            # One that could not serve would only be followed by others that cannot.
            raise SystemExit(1 if served else Arbiter.WORKER_BOOT_ERROR) from None
        except SystemExit as end:
            if end.code in (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR):
                raise SystemExit(1) from end  # the application's word, which must not end the whole server
            raise
        finally:
            self._ended.set()

    def _tell(self, error: Exception) -> None:
        if isinstance(error, DuckfastError):
            self.log.error("%s", error)
        else:
            self.log.exception("the worker failed")

    def _make_engine(self, ready: Callable[[], None]) -> servers.Engine:
        config = self._configure()
        self.log.info("duckfast %s serves (%s)", __version__, servers.describe_engine(config))
        interval = MAX_BEAT_INTERVAL
        if self.cfg.timeout:
            interval = min(interval, self.cfg.timeout / BEATS_PER_TIMEOUT)
        hooks = Hooks(self, Logger)
        return servers.make_engine(
            self._wrap(hooks, config),
            config,
            [getattr(wrapped, "sock", wrapped) for wrapped in self.sockets],
            ready,
            heartbeat=self._on_beat,
            heartbeat_interval=interval,
            max_requests=self.max_requests if self.cfg.max_requests > 0 else None,
            recycle=self._on_recycle,
            observe=hooks.observer,
            proxies=settings.proxies(self.cfg, config),
        )

    def _configure(self) -> Config:
        config = settings.translate(self.cfg, self._interface(), os.environ)
        if self.cfg.is_ssl:
            config.ssl_context = self._ssl_context()
        return config

    def _ssl_context(self) -> Any:
        if hasattr(gunicorn_sock, "ssl_context"):
            return settings.only_http1(gunicorn_sock.ssl_context(self.cfg))  # asks the user's hook
        return settings.only_http1(settings.from_ssl_options(self.cfg))

    def _interface(self) -> str:
        """How the application is called; a word of warning if that looks wrong."""
        try:
            found, reason = importer.detect_interface(self.wsgi)
        except ImportFailure:
            return self.kind
        if found.startswith(self.kind):
            return found
        other = "WSGIWorker" if found == "wsgi" else "ASGIWorker"
        self.log.warning("the application looks like %s, because %s: -k duckfast.gunicorn.%s serves those", found, reason, other)
        return self.kind

    def _wrap(self, hooks: Hooks, config: Config) -> Any:
        """The application as the engine calls it."""
        return hooks.wrap_wsgi(self.wsgi)

    def _forward_log(self) -> None:
        """What duckfast says goes where gunicorn's messages go, unless a logging configuration says otherwise."""
        logger = logging.getLogger("duckfast")
        logger.disabled = False  # a logging configuration disables every logger that it does not name
        if logger.handlers:
            return
        logger.addHandler(ForwardHandler(self.log))
        logger.propagate = False
        logger.setLevel(logs.LEVELS.get(self.cfg.loglevel, logging.INFO))

    # ------------------------------------------------------------------ signs of life

    def _on_beat(self) -> None:
        """From the engine's loop, or a thread of its that polls."""
        self.notify()
        if self._alive and os.getppid() != self.ppid:
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def _on_recycle(self, reason: str) -> None:
        if self._alive:
            self.log.info("Autorestarting worker: it has %s", reason)
            self.alive = False

    # ------------------------------------------------------------------ the end

    def _end_gracefully(self) -> None:
        """Nothing is accepted any more; a connection ends with its next response, or when it has been idle for a moment."""
        engine = self._engine
        if engine is None:
            return
        if self.cfg.reload:
            engine.stop()  # somebody waits for the new code
        else:
            engine.retire()
        self._endings.put(time.monotonic())

    def _watch_end(self) -> None:
        """On a thread of its own: sees to it that the end is not for ever, because nobody else does while gunicorn serves on."""
        assert self._engine is not None
        deadline = self._endings.get() + settings.graceful_seconds(self.cfg)
        if self._ended.wait(min(IDLE_GRACE, deadline - time.monotonic())):
            return
        self._engine.stop(max(0.0, deadline - time.monotonic()))
        if self._ended.wait(deadline - time.monotonic() + self._last_grace()):
            return
        self._overdue = True
        self.log.warning("requests did not end within %gs: the worker ends without them", self.cfg.graceful_timeout)
        # Into the main thread, which may be where one of them is stuck.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGQUIT)

    def _last_grace(self) -> float:
        return LAST_GRACE

    def _on_signal(self, signum: int) -> None:
        """SIGTERM, SIGUSR1: on the main thread, or while the engine runs on the one that watches."""
        if signum == signal.SIGUSR1:
            self.log.reopen_files()
        elif self._engine is None:  # the application is being loaded
            self._alive = False
            raise SystemExit(0)
        else:
            self.alive = False

    def handle_quit(self, signum: int, frame: Any) -> None:
        """A quick stop: whatever is in progress breaks off."""
        self._alive = False
        if not self._overdue:
            self.cfg.worker_int(self)
        if self._engine is not None:
            self._engine.stop(0.0)
        self._leave()

    def _leave(self) -> None:
        """Out of whatever the main thread is in."""
        raise SystemExit(0)

    def handle_abort(self, signum: int, frame: Any) -> None:
        """gunicorn has not heard of us for too long. The stacks of all threads are on stderr by now."""
        self._alive = False
        engine = self._engine
        if engine is not None:
            for method, path, age in engine.in_flight():
                self.log.error("in progress for %.1fs: %s %s", age, method, path)
            engine.stop(0.0)  # so that whoever is interrupted by the next line waits for nobody
        self.cfg.worker_abort(self)
        raise SystemExit(1)


class WSGIWorker(EngineWorker):
    """gunicorn -k duckfast.gunicorn.WSGIWorker"""

    kind = "wsgi"


class ASGIWorker(EngineWorker):
    """gunicorn -k duckfast.gunicorn.ASGIWorker"""

    kind = "asgi"
    _lifespan_time = 0.0

    def _leave(self) -> None:
        if self._engine is None or self._overdue:
            super()._leave()
        # Else the loop ends by itself: it has its tasks to cancel and the lifespan to shut down.

    def _last_grace(self) -> float:
        return LAST_GRACE + CANCEL_GRACE + self._lifespan_time

    def _configure(self) -> Config:
        config = super()._configure()
        config.loop = loops.choose_loop(config.loop)
        self._lifespan_time = config.timeout_lifespan
        return config

    def _wrap(self, hooks: Hooks, config: Config) -> Any:
        app = self.wsgi
        if config.interface == "asgi2":
            from .asgi import single_callable

            app, config.interface = single_callable(app), "asgi"
        return hooks.wrap_asgi(app)

    def load_wsgi(self) -> None:
        super().load_wsgi()
        if getattr(self.wsgi, "__module__", "") == "gunicorn.util":
            # With --reload, in place of an application that does not compile: a WSGI function that shows why.
            self.wsgi = failing(b"".join(self.wsgi({}, lambda status, headers: None)))


def failing(text: bytes) -> Callable[..., Any]:
    """An ASGI application that answers 500 with this text."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the application could not be loaded")
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
        await send({"type": "http.response.body", "body": text})

    return app
