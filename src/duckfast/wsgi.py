"""ThreadEngine: serves a WSGI app on threads that share one reactor. Binds nothing, installs no handlers, exits nothing.

With the interpreter's lock, one crew of adaptive threads works on one reactor. Without it (a free-threaded CPython) there is
nothing to share: every thread runs a reactor of its own on the same listeners.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from duckfast import __version__, engine, tls
from duckfast._leader import Crew
from duckfast._wsgi import WSGIService
from duckfast.engine import has_lock

if TYPE_CHECKING:
    from duckfast._accesslog import Observation
    from duckfast._client import ClientSocket
    from duckfast._tls import TLSEndpoint
    from duckfast._trust import Proxies
    from duckfast.config import Config

AUTO_THREADS = 64  # at most; they are started one by one, only while all others are stuck in the app. waitress 4, granian 512
FREE_THREADS_PER_CPU = 4  # without the lock a blocked thread holds up its own connections: some more than there are CPUs
LAST_GRACE = 2.0  # seconds beyond the graceful timeout: the crew itself takes one more, the rest is for threads stuck in the app
SIGNAL_LOOK = 1.0  # seconds until the thread of run() sees a signal that it has missed

LOOKS = 16  # at what is overdue, within --timeout-request
SHORTEST_LOOK, LONGEST_LOOK = 0.01, 1.0  # seconds between them

log = logging.getLogger("duckfast")

ALL_DONE, ENDING = "the last thread has ended", "stop() or retire() was called"


class ThreadEngine:
    """Serves `app` on `sockets`, which are bound, listening and non-blocking; they are closed when the drain begins.

    `heartbeat` is called about every `heartbeat_interval` seconds, by a thread that polls, begins a request or moves a body: not
    while every thread is stuck in the app. `ready` is called once, on the thread of run(), when requests are accepted.
    `recycle` is called at most once, with the reason, when the engine should be replaced: it has begun `max_requests` requests,
    or a thread stays behind in a request longer than `timeout_request`. The engine serves on; a retire() is up to the caller.
    `observe` is called with each request that is over. Callbacks come on the engine's threads. `proxies` are believed in place of
    those of the settings.
    `diversions` are where connections leave; with `staying_threads` so many threads are there from the start until the end.
    """

    def __init__(
        self,
        app: Any,
        config: Config,
        sockets: Sequence[socket.socket],
        heartbeat: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        *,
        heartbeat_interval: float = 1.0,
        max_requests: int | None = None,
        recycle: Callable[[str], None] | None = None,
        diversions: engine.Diversions = engine.NO_DIVERSIONS,
        staying_threads: int = 0,
        observe: Callable[[Observation], object] | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._config = config
        self._diversions = diversions
        self._staying = staying_threads
        self._sockets = sockets
        self._accepting = 0  # crews
        self._heartbeat = heartbeat
        self._heartbeat_interval = heartbeat_interval
        self._patience = config.timeout_graceful_shutdown
        self._ready = ready
        self._proxies = proxies
        self._log = engine.make_access_log(config, observe)
        self._tls = tls.make_keeper(config)
        engine.tell_root_path(config)
        # What stop(), retire() and the last thread have to say to the thread in run(). The first two may be signal handlers on
        # this very thread: the lock of an Event might be held by then.
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._given = 0  # connections by give()
        self._threads: list[threading.Thread] = []
        shared = has_lock()
        self.threads = config.threads or (AUTO_THREADS if shared else FREE_THREADS_PER_CPU * (os.cpu_count() or 1))
        in_app = min(self.threads, config.limit_concurrency or self.threads)
        if config.limit_concurrency is not None and self.threads > 1:
            # One thread more than may be in the app: somebody is left to let others wait in line, or to refuse them.
            self.threads = in_app + 1 if shared else in_app
        limits = [self.threads] if shared else [1] * self.threads
        self._in_app = in_app
        self._crews = [self._make_crew(app, sockets, limit) for limit in limits]
        self._recycling = engine.Recycling(recycle, max_requests)
        self._recycling.count([crew.reactor for crew in self._crews])
        self._ended = threading.Event()
        self._timeouts: threading.Thread | None = None
        if config.timeout_request is not None:
            if shared:
                self._timeouts = threading.Thread(target=self._end_overdue, name="duckfast-timeouts", daemon=True)
            else:
                log.warning("--timeout-request does nothing for WSGI on an interpreter without its lock")

    def _make_crew(self, app: Any, sockets: Sequence[socket.socket], limit: int) -> Crew:
        config = self._config

        def spawn() -> None:
            self._start_thread(crew)

        reactor = engine.make_reactor(None, config, self._log, self._proxies)
        reactor.tell_stuck(self._tell_stuck)
        if self._heartbeat is not None:
            reactor.set_heartbeat(self._heartbeat, self._heartbeat_interval)
        # A crew of one thread, with or without the interpreter's lock, has one request in the app at a time.
        alone = limit == 1
        engine.limit_concurrency(reactor, config, 1 if alone else self._in_app, self._in_app if alone else 1, one_by_one=alone)
        crew = Crew(reactor, limit, spawn, self._end_accepting)
        software = f"duckfast/{__version__}"
        service = WSGIService(
            app, crew, config.root_path, config.root_path_mode, self.threads > 1, software, config.is_supervised
        )
        reactor.serve(service)
        engine.add_listeners(reactor, sockets, self._tls, self._diversions)
        return crew

    def _end_accepting(self) -> None:
        """Of one crew. After the last of them clients are refused at once, and another server can have the address."""
        with self._lock:
            self._accepting -= 1
            if self._accepting == 0:
                for listener in self._sockets:
                    listener.close()

    def _start_thread(self, crew: Crew) -> None:
        with self._lock:
            number = len(self._threads) + 1
            # A thread that is stuck in the app for good must not keep the process from ending.
            thread = threading.Thread(target=self._work, args=(crew,), name=f"duckfast-{number}", daemon=True)
            self._threads.append(thread)
        try:
            thread.start()
        except BaseException:
            self._forget(thread)
            raise

    def _forget(self, thread: threading.Thread) -> None:
        """By whoever comes first: without memory start() may fail once the thread is running."""
        with self._lock:
            if thread in self._threads:
                self._threads.remove(thread)

    def _work(self, crew: Crew) -> None:
        try:
            crew.work()
        finally:
            if crew.failure is not None and len(self._crews) > 1:
                self.stop(0)  # the app means the process, not the threads of one reactor
            self._forget(threading.current_thread())
            if not self._threads:
                self._news.put(ALL_DONE)

    def run(self) -> None:
        """Serves until stop() or retire() have done their work. Raises SystemExit or KeyboardInterrupt that the app raised."""
        if self._log is not None:
            self._log.start()
        if self._timeouts is not None:
            self._timeouts.start()
        try:
            self._accepting = len(self._crews)
            if self._tls is not None:
                self._tls.watch(self._use_tls)
            for crew in self._crews:
                crew.reactor.start()
                crew.keep(self._staying)
            while not all(thread.is_alive() for thread in self.worker_threads):  # the first of them may be starting others
                time.sleep(0.001)
            if self._ready is not None:
                self._ready()
            if self.threads == 1:
                # One thread is this one: an app that is not thread-safe may go on using what it made at import.
                self._work_alone(self._crews[0])
            else:
                self._oversee()
        finally:
            self._ended.set()
            if self._timeouts is not None:
                self._timeouts.join()
            if self._tls is not None:
                self._tls.stop()
            if self._log is not None:
                self._log.close()
        for crew in self._crews:
            if crew.failure is not None:
                raise crew.failure

    def _end_overdue(self) -> None:
        """A thread that is never in the app, because all the others may be."""
        limit = self._config.timeout_request
        assert limit is not None
        while not self._ended.wait(min(max(limit / LOOKS, SHORTEST_LOOK), LONGEST_LOOK)):
            for crew in self._crews:
                crew.reactor.end_overdue()

    def _tell_stuck(self) -> None:
        self._recycling.tell(f"a request ran longer than {self._config.timeout_request:g}s")

    def _work_alone(self, crew: Crew) -> None:
        watch = threading.Thread(target=crew.watch, name="duckfast-watch", daemon=True)
        watch.start()
        crew.enlist()
        try:
            crew.work()
        finally:
            crew.finish()
            watch.join()

    def _oversee(self) -> None:
        """Lets the threads work. This one only waits, so that signals are handled whatever the app does."""
        for crew in self._crews:
            if not crew.threads:
                crew.hire()
        until = math.inf
        while (left := until - time.monotonic()) > 0:  # then nobody polls any more, or a thread is stuck in the app for good
            try:
                # Python notices a signal that comes just before a wait only when that wait ends.
                if self._news.get(timeout=min(left, SIGNAL_LOOK)) is ALL_DONE:  # the app can raise SystemExit
                    return
            except queue.Empty:
                continue
            until = time.monotonic() + self._patience + LAST_GRACE
        for crew in self._crews:
            crew.finish()

    def give(self, connection: ClientSocket | socket.socket, idle: bool = False) -> bool:
        """Serves a connection that comes from elsewhere, from any thread: a ClientSocket as it is, or a socket.socket that has
        just been accepted, with its TLS handshake still to be done. It is empty afterwards.

        idle: the client may keep it waiting as between two requests. False, and the connection is closed: the engine is over.
        """
        self._given += 1
        return self._crews[self._given % len(self._crews)].reactor.give(connection, idle)

    @property
    def worker_threads(self) -> list[threading.Thread]:
        """The threads that serve; empty when that is the thread of run() itself."""
        with self._lock:
            return list(self._threads)

    @property
    def requests(self) -> int:
        """How many have begun."""
        return sum(engine.counted(crew.reactor) for crew in self._crews)

    def in_flight(self) -> list[tuple[str, str, float]]:
        """Method, path and age in seconds of the requests that threads are in the app for, the oldest first.

        From any thread, also while all others are stuck. Empty without the interpreter's lock, which would make it safe.
        """
        if not has_lock():
            return []
        return engine.show_requests(request for crew in self._crews for request in crew.in_flight())

    def reload_tls(self) -> bool:
        """Load certificates anew for connections from now on, from any thread or signal handler. False: nothing changed; the log
        says why."""
        return self._tls is not None and self._tls.reload(self._use_tls)

    def _use_tls(self, endpoint: TLSEndpoint) -> None:
        for crew in self._crews:
            crew.reactor.use_tls(endpoint)

    def stop(self, seconds: float | None = None) -> None:
        """Begins the graceful drain, from any thread or signal handler; again it can only shorten it.

        Requests in progress have `seconds`; None: the graceful timeout of the settings.
        """
        if seconds is not None:
            self._patience = min(self._patience, seconds)
        for crew in self._crews:
            crew.stop(self._patience)
        self._news.put(ENDING)

    def retire(self) -> None:
        """Ends this engine without a loss, while others serve on; from any thread or signal handler, and again changes nothing.

        Nothing is accepted any more. Requests in progress are finished, each connection that is open gets its next request
        answered with Connection: close, and one that asks for nothing ends at its ordinary deadline. What is left after the
        graceful timeout breaks off. A stop() makes it a drain.
        """
        for crew in self._crews:
            crew.retire(self._config.timeout_graceful_shutdown)
        self._news.put(ENDING)

    def reopen_logs(self) -> None:
        """Opens the log files of this process anew, as after a rotation; from any thread or signal handler."""
        engine.reopen_logs(self._log)
