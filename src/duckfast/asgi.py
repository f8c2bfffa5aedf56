"""AsyncEngine: serves an ASGI app on one event loop, from lifespan startup to lifespan shutdown.

Owns the loop, the lifespan protocol (ASGI lifespan 2.0) and the order of a graceful stop. Binds nothing, installs no signal
handlers, configures no logging, reads no environment, exits nothing. What happens per request is in _asgi.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from duckfast import _zlib, engine, tls
from duckfast._asgi import ASGIService
from duckfast._asgi_websocket import WebSocketService
from duckfast._reactor import Desk
from duckfast.exceptions import ApplicationError, ConfigError, LifespanFailure

if TYPE_CHECKING:
    from duckfast._accesslog import Observation
    from duckfast._client import ClientSocket
    from duckfast._reactor import Reactor
    from duckfast._tls import TLSEndpoint
    from duckfast._trust import Proxies
    from duckfast.config import Config

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_LOOK = 0.01  # seconds between looks at what is still open while stopping
CANCEL_GRACE = 3.0  # seconds that cancelled applications get for their cleanup; hypercorn's graceful default is 3 s too
EXECUTOR_GRACE = 3.0  # seconds that threads of the loop's executor get to end

WEBSOCKET_LOOK = 20.0  # seconds between looks at a websocket that is not pinged; as the default of pings
WEBSOCKET_FAREWELL = 5.0  # seconds that a client gets to answer a close frame; websockets has 10 s for a whole close

log = logging.getLogger("duckfast")


class AsyncEngine:
    """Serves `app` on `sockets`, which are bound, listening and non-blocking; they are closed when the drain begins.

    `heartbeat` is called every `heartbeat_interval` seconds from the loop, from before the startup until after the shutdown.
    `ready` is called once, when the startup is complete and requests are accepted. `recycle` is called at most once, with the
    reason, when the engine should be replaced: it has begun `max_requests` requests. The engine serves on; a retire() is up to
    the caller. `observe` is called with each request that is over. `proxies` are believed in place of those of the settings.
    `diversions` are where connections leave.
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
        observe: Callable[[Observation], object] | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        self._diversions = diversions
        self._app: Application = single_callable(app) if config.interface == "asgi2" else app
        self._config = config
        self._sockets = sockets
        self._heartbeat = heartbeat
        self._heartbeat_interval = heartbeat_interval
        self._ready = ready
        self._proxies = proxies
        self._access_log = engine.make_access_log(config, observe)
        engine.tell_root_path(config)
        self._tls = tls.make_keeper(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reactor: Reactor | None = None
        self._service: ASGIService | None = None  # while connections are served
        self._recycling = engine.Recycling(recycle, max_requests)
        self._requests = 0
        self._stop_requested = False
        self._retire_requested = False
        self._ending = asyncio.Event()  # one of the two
        self._patience = config.timeout_graceful_shutdown

    def run(self) -> None:
        """Serves on a loop of its own until stop() or retire() have done their work.

        Raises LifespanFailure, and SystemExit from the app.
        """
        loop = new_event_loop(self._config.loop)
        # One that we can end in bounded time: shutdown_default_executor() waits for ever before Python 3.12.
        executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        loop.set_default_executor(executor)
        asyncio.set_event_loop(loop)
        try:
            serving = loop.create_task(self.serve(), name="duckfast")
            try:
                loop.run_until_complete(serving)
            except (SystemExit, KeyboardInterrupt):
                # The application wants the end; other requests still come to theirs.
                self.stop()
                loop.run_until_complete(serving)
                raise
        finally:
            try:
                end_tasks(loop)
                end_executor(executor)
            finally:
                asyncio.set_event_loop(None)
                loop.close()

    def stop(self, seconds: float | None = None) -> None:
        """Begins the graceful drain, from any thread or signal handler; again it can only shorten it.

        Requests in progress have `seconds`; None: the graceful timeout of the settings.
        """
        if seconds is not None:
            self._patience = min(self._patience, seconds)
        self._stop_requested = True
        self._tell_of_end()

    def retire(self) -> None:
        """Ends this engine without a loss, while others serve on; from any thread or signal handler, and again changes nothing.

        Nothing is accepted any more. Requests in progress are finished, each connection that is open gets its next request
        answered with Connection: close, and one that asks for nothing ends at its ordinary deadline. Responses that have begun
        are told http.disconnect. What is left after the graceful timeout is cancelled. A stop() makes it a drain.
        """
        self._retire_requested = True
        if self._reactor is not None:
            self._reactor.announce_end()
        self._tell_of_end()

    def give(self, connection: ClientSocket | socket.socket, idle: bool = False) -> bool:
        """Serves a connection that comes from elsewhere, from any thread: a ClientSocket as it is, or a socket.socket that has
        just been accepted, with its TLS handshake still to be done. It is empty afterwards.

        idle: the client may keep it waiting as between two requests. False, and the connection is closed: nobody serves.
        """
        reactor = self._reactor
        if reactor is None:
            connection.close()
            return False
        return reactor.give(connection, idle)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop it serves on; None while it does not."""
        return self._loop

    @property
    def requests(self) -> int:
        """How many have begun."""
        reactor = self._reactor
        if reactor is not None:
            self._requests = engine.counted(reactor)
        return self._requests

    def in_flight(self) -> list[tuple[str, str, float]]:
        """Method, path and age in seconds of the requests that the app works on, the oldest first.

        From any thread, also while the loop is blocked. Empty without the interpreter's lock, which would make it safe.
        """
        service = self._service
        if service is None or not engine.has_lock():
            return []
        return engine.show_requests(service.in_flight())

    def _tell_of_end(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: all is done
                self._loop.call_soon_threadsafe(self._ending.set)

    def reload_tls(self) -> bool:
        """Load certificates anew for connections from now on, from any thread or signal handler. False: nothing changed; the log
        says why."""
        return self._tls is not None and self._tls.reload(self._use_tls)

    def _use_tls(self, endpoint: TLSEndpoint) -> None:
        reactor = self._reactor
        if reactor is not None:  # before it serves, the keeper has the endpoint that it will serve with
            reactor.use_tls(endpoint)

    def reopen_logs(self) -> None:
        """Opens the log files of this process anew, as after a rotation; from any thread or signal handler."""
        engine.reopen_logs(self._access_log)

    async def serve(self) -> None:
        """Serves on the running loop, as a part of somebody else's program, until stop(), retire() or its cancellation."""
        self._loop = asyncio.get_running_loop()
        if self._stop_requested or self._retire_requested:
            self._ending.set()
        heart = None
        if self._heartbeat is not None:
            heart = asyncio.create_task(beat(self._heartbeat, self._heartbeat_interval))
        if self._access_log is not None:
            self._access_log.start()
        lifespan = Lifespan(self._app, self._config.lifespan, self._config.timeout_lifespan)
        try:
            state = await lifespan.startup()
            try:
                await self._serve_requests(state)
            finally:
                await lifespan.shutdown()
        finally:
            if self._access_log is not None:
                self._access_log.close()
            if heart is not None:
                heart.cancel()
            self._loop = None

    async def _serve_requests(self, state: dict[str, Any] | None) -> None:
        config = self._config
        service = ASGIService(
            self._app,
            asyncio.get_running_loop(),
            state=state,
            root_path=config.root_path,
            root_path_mode=config.root_path_mode,
            raise_on_disconnect=config.raise_on_disconnect,
            websockets=make_websockets(config),
        )
        reactor = self._reactor = engine.make_reactor(service, config, self._access_log, self._proxies)
        engine.limit_concurrency(reactor, config, config.limit_concurrency or 0, 1, one_by_one=False)
        reactor.time_upgraded(config.ws_ping_interval or WEBSOCKET_LOOK, config.ws_ping_timeout or 0, WEBSOCKET_FAREWELL)
        self._recycling.count([reactor])
        desk = Desk(reactor.limits)
        engine.add_listeners(reactor, self._sockets, self._tls, self._diversions)
        if self._tls is not None:
            self._tls.watch(self._use_tls)
        service.attach(reactor, desk)
        self._service = service
        try:
            if not self._ending.is_set():  # a stop during the startup: nothing is accepted any more
                reactor.start()
                if self._ready is not None:
                    self._ready()
                await self._ending.wait()
                self._begin_end(reactor, desk)
                for listener in self._sockets:
                    listener.close()  # clients are refused at once, and another server can have the address
                await self._finish_requests(service, reactor, desk)
        finally:
            await cancel_requests(service)
            reactor.abort()
            service.detach()
            self._reactor = self._service = None
            if self._tls is not None:
                self._tls.stop()

    def _begin_end(self, reactor: Reactor, desk: Desk) -> None:
        if self._stop_requested:
            reactor.drain(desk)
        else:
            reactor.retire()

    async def _finish_requests(self, service: ASGIService, reactor: Reactor, desk: Desk) -> None:
        """Waits for connections, and for applications that go on after their response, within the graceful timeout."""
        loop = asyncio.get_running_loop()
        limit = self._patience
        deadline = loop.time() + limit
        while (reactor.open_connections or service.running or reactor.connections_outside) and loop.time() < deadline:
            await asyncio.sleep(DRAIN_LOOK)
            if self._stop_requested and not reactor.stopping:  # while retiring
                reactor.drain(desk)
                limit = self._patience
                deadline = loop.time() + limit
            if self._patience < limit:  # another stop()
                limit = self._patience
                deadline = min(deadline, loop.time() + limit)
        reactor.empty_line()
        if service.running:
            log.warning("%d requests did not end within %gs and are cancelled", len(service.running), limit)
            await cancel_requests(service)
        deadline = loop.time() + reactor.part(desk)
        while reactor.open_connections and loop.time() < deadline:  # clients that have yet to notice the end of their connection
            await asyncio.sleep(DRAIN_LOOK)


class Lifespan:
    """The lifespan of one application on one loop. mode: "auto" does without when the application does not know it."""

    def __init__(self, app: Application, mode: str, timeout: float) -> None:
        self._app = app
        self._mode = mode
        self._timeout = timeout  # seconds, for the startup and for the shutdown each
        self._state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None  # None: there is no lifespan
        self._startup_told = False
        self._shutdown_told = False
        self._stopping = asyncio.Event()

    async def startup(self) -> dict[str, Any] | None:
        """The state that requests share, or None without a lifespan. Raises LifespanFailure."""
        if self._mode == "off":
            return None
        loop = asyncio.get_running_loop()
        # Each is done with the application's word: None for complete, else the message of its failure.
        self._started: asyncio.Future[str | None] = loop.create_future()
        self._ended: asyncio.Future[str | None] = loop.create_future()
        task = self._task = loop.create_task(self._run(), name="duckfast-lifespan")
        await self._wait_for(self._started)
        if not self._started.done():
            self._task = None
            if task.done():
                self._without(None if task.cancelled() else task.exception())
                return None
            await cancel(task)
            raise LifespanFailure(f"the application's startup did not end within {self._timeout:g}s (--timeout-lifespan)")
        message = self._started.result()
        if message is not None:
            self._task = None
            await cancel(task)
            raise LifespanFailure(f"the application's startup failed{': ' if message else ''}{message}")
        task.add_done_callback(self._on_end)
        return self._state

    async def shutdown(self) -> None:
        """Lets the application clean up. Raises LifespanFailure when it says that this failed, or takes too long."""
        task, self._task = self._task, None
        if task is None or task.done():
            return
        task.remove_done_callback(self._on_end)
        self._stopping.set()
        await self._wait_for(self._ended, task)
        if not self._ended.done():
            if not task.done():
                await cancel(task)
                raise LifespanFailure(f"the application's shutdown did not end within {self._timeout:g}s (--timeout-lifespan)")
            error = None if task.cancelled() else task.exception()
            if error is not None:
                log.error("the application's shutdown failed", exc_info=error)
                raise LifespanFailure(f"the application's shutdown failed: {type(error).__name__}: {error}")
            return
        message = self._ended.result()
        await asyncio.wait({task}, timeout=CANCEL_GRACE)  # it may have a last word of cleanup behind the message
        await cancel(task)
        if message is not None:
            raise LifespanFailure(f"the application's shutdown failed{': ' if message else ''}{message}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        await self._app(scope, self._receive, self._send)

    async def _wait_for(self, word: asyncio.Future[str | None], task: asyncio.Task[None] | None = None) -> None:
        """Until the application has said it, ended, or the time is up."""
        task = task or self._task
        assert task is not None
        either: set[asyncio.Future[Any]] = {task, word}
        await asyncio.wait(either, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)

    def _without(self, error: BaseException | None) -> None:
        """The application ended before it answered lifespan.startup: it has no lifespan (ASGI lifespan, "Scope")."""
        why = "it returned" if error is None else f"it raised {type(error).__name__}"
        if self._mode == "on":
            log.error("the application does not support lifespan", exc_info=error)
            raise LifespanFailure(f"the application does not support lifespan ({why}), and --lifespan is on")
        log.info("the application has no lifespan (%s; more at --log-level debug)", why)
        log.debug("what it did with the lifespan scope", exc_info=error)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """It ended while requests are served. Without waiting for the shutdown: its right. With an error: worth a line."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("the application's lifespan failed; requests are served on", exc_info=error)

    async def _receive(self) -> Message:
        if not self._startup_told:
            self._startup_told = True
            return {"type": "lifespan.startup"}
        await self._stopping.wait()
        if self._shutdown_told:
            await asyncio.Event().wait()  # there is no third message
        self._shutdown_told = True
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        phase, _, outcome = str(kind).removeprefix("lifespan.").partition(".")
        if phase not in ("startup", "shutdown") or outcome not in ("complete", "failed"):
            raise ApplicationError(f"send() of an unknown message type {kind!r} on a lifespan")
        word = self._started if phase == "startup" else self._ended
        if word.done():
            raise ApplicationError(f"{kind} came after the {phase} had ended")
        if phase == "shutdown" and not self._stopping.is_set():
            raise ApplicationError(f"{kind} came before lifespan.shutdown")
        word.set_result(str(message.get("message", "")) if outcome == "failed" else None)


def make_websockets(config: Config) -> WebSocketService | None:
    """What makes the exchanges of websockets; None: they are ordinary requests."""
    if config.ws == "none":
        return None
    if config.ws_per_message_deflate == "on" and _zlib.missing:
        log.warning("websockets are not compressed: %s", _zlib.missing)
    return WebSocketService(
        config.ws_max_size,
        config.ws_max_queue,
        config.ws_ping_interval is not None,
        config.ws_deflate_window_bits if config.ws_per_message_deflate == "on" else None,
    )


def single_callable(app: Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]) -> Application:
    """An ASGI 2 application as one of ASGI 3."""

    async def asgi3(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope)(receive, send)

    return asgi3


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """`uvloop`, `asyncio`, or for `auto` the first of them that is installed."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError("uvloop is not installed; `pip install uvloop`, or --loop asyncio") from None
        else:
            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()


async def beat(heartbeat: Callable[[], None], interval: float) -> None:
    while True:
        try:
            heartbeat()
        except Exception:
            log.exception("the heartbeat failed")
        await asyncio.sleep(interval)


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancels a task and gives it a moment; what it raises is told at debug level, for it comes after the fact."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE)
    if task.done() and not task.cancelled() and task.exception() is not None:
        log.debug("the lifespan ended with an exception", exc_info=task.exception())


async def cancel_requests(service: ASGIService) -> None:
    running = service.running
    if not running:
        return
    for task in running:
        task.cancel()
    _, stubborn = await asyncio.wait(running, timeout=CANCEL_GRACE)
    if stubborn:
        log.error("%d requests are still running %gs after they were cancelled", len(stubborn), CANCEL_GRACE)


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancels what the application left running, and closes its asynchronous generators."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_GRACE))
    for task in left:
        if task.done() and not task.cancelled() and task.exception() is not None:
            log.error("a task of the application failed while it was cancelled", exc_info=task.exception())
    loop.run_until_complete(loop.shutdown_asyncgens())


def end_executor(executor: ThreadPoolExecutor) -> None:
    ending = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    ending.start()
    ending.join(EXECUTOR_GRACE)
    if ending.is_alive():
        log.warning("threads of the application's executor are still running %gs after the end", EXECUTOR_GRACE)
