"""The ASGI engine on a running loop: tasks, contexts, awaitables, lifespan, stop. What goes over the wire is in conformance."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from duckfast.asgi import AsyncEngine, Lifespan, new_event_loop
from duckfast.config import Config
from duckfast.exceptions import ApplicationError, ClientDisconnected, LifespanFailure

Application = Callable[..., Any]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

PATIENCE = 20.0  # seconds before a wait counts as hanging; no test is meant to take them
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
START = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body"}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of loop."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(request.param)) as runner:
            return runner.run(asyncio.wait_for(main, PATIENCE))

    return run


@asynccontextmanager
async def serving(app: Application, **settings: Any) -> AsyncIterator[Client]:
    """An engine inside the running loop, stopped gracefully at the end."""
    options = {"lifespan": "off", "access_log": False, **settings}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        engine = AsyncEngine(app, Config(app, **options), [listener])
        address = listener.getsockname()
        task = asyncio.create_task(engine.serve())
        client = Client(address, engine, task)
        try:
            yield client
        finally:
            client.close()
            engine.stop()
            await task


class Client:
    """Sends requests, one connection for all of them unless told otherwise."""

    def __init__(self, address: Any, engine: AsyncEngine, task: asyncio.Task[None]) -> None:
        self.engine = engine
        self.task = task
        self._address = address
        self._writers: list[asyncio.StreamWriter] = []
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self._address)
        self._writers.append(writer)
        return reader, writer

    async def get(self, request: bytes = GET) -> tuple[int, bytes]:
        """Status and body of the next response on the common connection."""
        if self._streams is None:
            self._streams = await self.connect()
        reader, writer = self._streams
        writer.write(request)
        return await read_response(reader)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


async def read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split()[1])
    if b"\r\ncontent-length: " in head:
        return status, await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, body


async def answer(send: Callable[[dict[str, Any]], Awaitable[None]], value: object) -> None:
    await send(START)
    await send({**END, "body": repr(value).encode()})


# Tasks and contexts


def test_application_runs_in_a_task_of_its_own(run: Run) -> None:
    tasks = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task in asyncio.all_tasks()
        tasks.append(task)
        async with asyncio.timeout(PATIENCE):
            await asyncio.sleep(0)
        await answer(send, "fine")

    async def main() -> None:
        async with serving(app) as client:
            assert await client.get() == (200, b"'fine'")
            assert await client.get() == (200, b"'fine'")

    run(main())
    assert all(isinstance(task, asyncio.Task) for task in tasks)
    assert tasks[0] is not tasks[1]


def test_finished_task_that_the_application_can_still_see_is_never_used_again(run: Run) -> None:
    kept: list[asyncio.Task[Any] | None] = []
    watched = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None and task not in kept and not hasattr(task, "mark")
        match scope["path"]:
            case "/keep":
                kept.append(task)
            case "/watch":
                watched.append(weakref.ref(task))
            case "/mark":
                task.mark = True  # type: ignore[attr-defined]
        await answer(send, scope["path"])

    async def main() -> None:
        async with serving(app) as client:
            for path in (b"/keep", b"/watch", b"/mark", b"/plain") * 3:
                assert (await client.get(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path))[0] == 200
            assert [reference() for reference in watched] == [None] * 3

    run(main())


def test_plain_function_that_returns_an_awaitable_runs_in_the_task_too(run: Run) -> None:
    async def inner(send: Any) -> None:
        await answer(send, "fine")

    def app(scope: Any, receive: Any, send: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None and task.get_name() == "duckfast-request"
        return asyncio.ensure_future(inner(send))

    async def main() -> None:
        async with serving(app) as client:
            assert await client.get() == (200, b"'fine'")

    run(main())


def test_what_asks_a_task_for_its_coroutine_sees_the_applications(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        coroutine: Any = task.get_coro()
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_RUNNING
        assert "app" in repr(task)
        await answer(send, coroutine.__qualname__)

    async def main() -> None:
        async with serving(app) as client:
            assert b"app" in (await client.get())[1]

    run(main())


def test_context_variables_do_not_leak_between_requests(run: Run) -> None:
    user = contextvars.ContextVar("user", default="nobody")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen = user.get()
        user.set("somebody")
        await asyncio.sleep(0)
        await receive()
        await answer(send, seen)
        user.set("after the response")

    async def main() -> None:
        user.set("the server")
        async with serving(app) as client:
            for _ in range(3):
                assert await client.get() == (200, b"'the server'")
            reader, writer = await client.connect()
            writer.write(GET * 3)
            for _ in range(3):
                assert await read_response(reader) == (200, b"'the server'")

    run(main())


@pytest.mark.parametrize("ends", ["the client leaves", "a deadline passes"])
def test_what_a_context_held_is_released_soon_after_its_request(run: Run, ends: str) -> None:
    class Held:
        pass

    variable: contextvars.ContextVar[Held] = contextvars.ContextVar("held")
    released = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        held = Held()
        weakref.finalize(held, released.set)
        variable.set(held)
        await answer(send, "held")

    async def main() -> None:
        async with serving(app, timeout_keep_alive=0.2 if ends == "a deadline passes" else 60) as client:
            assert await client.get() == (200, b"'held'")
            if ends == "the client leaves":
                client.close()
            await released.wait()

    run(main())


def test_background_work_is_bounded_per_connection(run: Run) -> None:
    """After 16 applications that go on, the next request of the connection waits until one of them ends."""
    may_end = asyncio.Semaphore(0)
    started = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal started
        started += 1
        await answer(send, started)
        await may_end.acquire()

    async def main() -> None:
        async with serving(app) as client:
            reader, writer = await client.connect()
            writer.write(GET * 20)
            for number in range(1, 17):
                assert await read_response(reader) == (200, b"%d" % number)
            assert await client.get() == (200, b"17")  # another connection is not held up
            assert started == 17
            may_end.release()
            may_end.release()
            assert await read_response(reader) == (200, b"18")
            for _ in range(30):
                may_end.release()
            for number in (19, 20):
                assert (await read_response(reader))[1] == b"%d" % number

    run(main())


# Awaitables


def test_receive_can_become_a_task_and_be_cancelled_without_loss(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pieces = []
        task = asyncio.create_task(receive())
        pieces.append(await task)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.001)
        await send(START)
        await send({**END, "body": b"go on", "more_body": True})
        while pieces[-1]["more_body"]:
            waiting = asyncio.create_task(receive())
            await asyncio.sleep(0)
            waiting.cancel()
            pieces.append(await receive())
        await send({**END, "body": b"".join(piece["body"] for piece in pieces)})

    async def main() -> None:
        async with serving(app) as client:
            reader, writer = await client.connect()
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello ")
            await reader.readuntil(b"go on\r\n")
            writer.write(b"world")
            assert b"hello world" in await reader.readuntil(b"0\r\n\r\n")

    run(main())


def test_several_receives_are_served_in_the_order_of_their_asking(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        first, second = asyncio.create_task(receive()), asyncio.create_task(receive())
        await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert first.done() and not second.done()
        await answer(send, first.result())
        assert await second == await receive() == {"type": "http.disconnect"}

    async def main() -> None:
        async with serving(app) as client:
            assert b"'more_body': False" in (await client.get())[1]

    run(main())


def test_send_can_become_a_task(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(send(START))
        await asyncio.gather(send({**END, "body": b"a", "more_body": True}), send({**END, "body": b"b"}))

    async def main() -> None:
        async with serving(app) as client:
            assert await client.get() == (200, b"ab")

    run(main())


def test_send_waits_for_a_client_that_does_not_read_and_raises_when_it_leaves(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    outcome: list[object] = []
    held_back, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ready = send(START)
        await ready
        try:
            for _ in range(1024):  # 1 GiB: more than any kernel takes for a client that does not read
                sending = send({**END, "body": bytes(1 << 20), "more_body": True})
                if sending is not ready:
                    held_back.set()
                await sending
        except OSError as error:
            outcome.append(error)
            raise RuntimeError("a framework's own exception") from error
        finally:
            ended.set()

    async def main() -> None:
        async with serving(app) as client:
            _, writer = await client.connect()
            writer.write(GET)
            await held_back.wait()
            writer.transport.abort()
            await ended.wait()

    run(main())
    assert isinstance(outcome[0], ClientDisconnected)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_send_after_the_client_left_does_nothing_when_told_so(run: Run) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["asgi"]["spec_version"] == "2.3"  # 2.4 would promise the exception
        await receive()
        started.set()
        assert (await receive())["type"] == "http.disconnect"
        await answer(send, "nobody reads this")
        ended.set()

    async def main() -> None:
        async with serving(app, raise_on_disconnect=False) as client:
            _, writer = await client.connect()
            writer.write(GET)
            await started.wait()
            writer.transport.abort()
            await ended.wait()

    run(main())


@pytest.mark.parametrize(
    "message",
    [
        "text",
        {"type": "http.response.unknown"},
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200"},
        {"type": "http.response.start", "status": 99},
        {"type": "http.response.start", "status": 10**30},
        {"type": "http.response.start", "status": 200, "headers": [(b"a",)]},
        {"type": "http.response.start", "status": 200, "headers": [("a", "b")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"a b", b"c")]},
        {"type": "http.response.start", "status": 200, "headers": [(b"ok", b"ok"), (b"a", b"b\r\nc: d")]},
        {"type": "http.response.body", "body": b"too early"},
        {"type": "http.response.trailers"},
        {"type": "http.response.pathsend", "path": "/too/early"},
    ],
    ids=repr,
)
def test_wrong_message_raises_out_of_send_and_the_application_can_still_answer(run: Run, message: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ApplicationError):
            await send(message)
        await answer(send, "recovered")

    async def main() -> None:
        async with serving(app) as client:
            assert await client.get() == (200, b"'recovered'")

    run(main())


# Lifespan


def test_lifespan_state_is_shared_and_shutdown_comes_last(run: Run) -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["number"] = 7
            events.append((await receive())["type"])
            await send({"type": "lifespan.startup.complete"})
            events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        events.append("request")
        await answer(send, scope["state"]["number"])

    async def main() -> None:
        async with serving(app, lifespan="on") as client:
            assert await client.get() == (200, b"7")

    run(main())
    assert events == ["lifespan.startup", "request", "lifespan.shutdown"]


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("what lifespan?")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    pass


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def says_failed(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise RuntimeError("as Starlette does")


@pytest.mark.parametrize("app", [raises, returns])
def test_application_without_lifespan_is_served_in_auto_and_refused_when_on(run: Run, app: Application) -> None:
    assert run(Lifespan(app, "auto", PATIENCE).startup()) is None
    with pytest.raises(LifespanFailure, match="does not support lifespan"):
        run(Lifespan(app, "on", PATIENCE).startup())


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_that_fails_or_hangs_stops_the_server(run: Run, mode: str) -> None:
    with pytest.raises(LifespanFailure, match="no database"):
        run(Lifespan(says_failed, mode, PATIENCE).startup())
    with pytest.raises(LifespanFailure, match="did not end within"):
        run(Lifespan(hangs, mode, 0.01).startup())


def test_nothing_is_called_when_lifespan_is_off(run: Run) -> None:
    lifespan = Lifespan(hangs, "off", PATIENCE)

    async def main() -> None:
        assert await lifespan.startup() is None
        await lifespan.shutdown()

    run(main())


@pytest.mark.parametrize("ending", ["failed", "raise", "hang", "complete", "return"])
def test_shutdown_tells_how_it_went(run: Run, ending: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if ending == "raise":
            raise RuntimeError("in the way")
        if ending == "hang":
            await asyncio.Event().wait()
        if ending != "return":
            await send({"type": f"lifespan.shutdown.{ending}", "message": "in the way"})

    async def main() -> None:
        lifespan = Lifespan(app, "auto", 0.05 if ending == "hang" else PATIENCE)
        await lifespan.startup()
        await lifespan.shutdown()

    if ending in ("complete", "return"):
        run(main())
    else:
        with pytest.raises(LifespanFailure, match="in the way|did not end within"):
            run(main())


def test_application_may_return_before_the_shutdown(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        await answer(send, "served")

    async def main() -> None:
        async with serving(app, lifespan="on") as client:
            assert await client.get() == (200, b"'served'")

    run(main())


def test_lifespan_messages_out_of_order_raise(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ApplicationError):
            await send({"type": "http.response.start"})
        with pytest.raises(ApplicationError):
            await send({"type": "lifespan.shutdown.complete"})
        await send({"type": "lifespan.startup.complete"})
        with pytest.raises(ApplicationError):
            await send({"type": "lifespan.startup.complete"})
        await receive()
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def main() -> None:
        lifespan = Lifespan(app, "on", PATIENCE)
        assert await lifespan.startup() == {}
        await lifespan.shutdown()

    run(main())


# Stop


def test_stop_before_the_start_still_runs_the_whole_lifespan(run: Run) -> None:
    events = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            events.append((await receive())["type"])
            await send({"type": events[-1] + ".complete"})

    async def main() -> None:
        engine = AsyncEngine(app, Config(app, access_log=False), [])
        engine.stop()
        engine.stop()
        await engine.serve()
        engine.stop()

    run(main())
    assert events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_run_makes_its_own_loop_and_takes_everything_down_again(loop: str) -> None:
    cancelled = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("leftover")
            raise

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        scope["state"]["task"] = asyncio.create_task(forever())
        await asyncio.to_thread(engine.stop)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    engine = AsyncEngine(app, Config(app, loop=loop, access_log=False), [])
    engine.run()
    engine.stop()
    assert cancelled == ["leftover"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_system_exit_in_an_application_ends_the_server_after_the_other_requests(loop: str) -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            client.start()
            await send({"type": "lifespan.startup.complete"})
            events.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/exit":
            raise SystemExit(7)
        else:
            await asyncio.to_thread(ask, "/exit")
            await answer(send, "still served")

    def ask(path: str) -> None:
        with socket.create_connection(address, PATIENCE) as wire:
            wire.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
            events.append(wire.makefile("rb").read().split()[1].decode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = listener.getsockname()
        client = threading.Thread(target=ask, args=("/other",))
        with pytest.raises(SystemExit) as raised:
            AsyncEngine(app, Config(app, loop=loop, access_log=False), [listener]).run()
        client.join()
    assert raised.value.code == 7
    assert sorted(events) == ["200", "500", "lifespan.shutdown"]


def test_open_stream_hears_of_the_stop_and_may_say_goodbye(run: Run) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send({**END, "body": b"event", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({**END, "body": b"goodbye"})

    async def main() -> None:
        async with serving(app) as client:
            reader, writer = await client.connect()
            writer.write(GET)
            await reader.readuntil(b"event\r\n")
            client.engine.stop()
            assert b"goodbye" in await reader.readuntil(b"0\r\n\r\n")
            assert await reader.read() == b""
            writer.close()
            await client.task

    run(main())


def test_request_that_outlives_the_graceful_timeout_is_cancelled(run: Run) -> None:
    endings = []
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            endings.append("cancelled")
            raise

    async def main() -> None:
        async with serving(app, timeout_graceful_shutdown=0.05) as client:
            reader, writer = await client.connect()
            writer.write(GET)
            await started.wait()
            client.engine.stop()
            head = await reader.read()
            assert head.startswith(b"HTTP/1.1 503 ")
            writer.close()
            await client.task

    run(main())
    assert endings == ["cancelled"]


def test_heartbeat_is_called_from_before_the_startup(run: Run) -> None:
    beats = []

    async def main() -> None:
        engine = AsyncEngine(hangs, Config(hangs, access_log=False, timeout_lifespan=0.05), [], lambda: beats.append(1))
        with pytest.raises(LifespanFailure):
            await engine.serve()

    run(main())
    assert beats


def test_asgi2_application_is_called_in_two_steps(run: Run) -> None:
    class Instance:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await answer(send, self.scope["path"])

    async def main() -> None:
        async with serving(Instance, interface="asgi2") as client:
            assert await client.get() == (200, b"'/'")

    run(main())
