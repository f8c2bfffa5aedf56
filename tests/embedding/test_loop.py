"""A server in an event loop that somebody else runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop
from support.client import connect, send_request
from support.guests import Guest, ask, soon, wsgi

import duckfast
from duckfast import BindError, ConfigError, LifespanFailure, Server

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine as a program would, on each kind of loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def start(program: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(program)

    return start


def test_serve_runs_on_the_callers_loop_until_stop(run: Run) -> None:
    seen: list[Any] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(asyncio.get_running_loop())
        await Guest()(scope, receive, send)

    async def program() -> None:
        ready = asyncio.Event()
        server = Server(app, port=0, ready=ready.set, lifespan="off")
        serving = asyncio.create_task(server.serve())
        await ready.wait()
        assert (await ask(server.url, "/a")).text == "asgi /a"
        assert seen == [asyncio.get_running_loop()]
        server.stop()
        await serving
        assert not server.running

    run(program())


def test_serve_runs_wsgi_on_threads_beside_the_loop(run: Run) -> None:
    threads: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        threads.append(threading.get_ident())
        return wsgi(environ, start_response)

    async def program() -> None:
        async with Server(app, port=0) as server:
            assert (await ask(server.url, "/a")).text == "wsgi /a"
        assert threads and threading.get_ident() not in threads

    run(program())


def test_ready_of_a_wsgi_server_is_called_on_the_loop(run: Run) -> None:
    async def program() -> None:
        ready = asyncio.Event()  # whose set() is not for other threads
        server = Server(wsgi, port=0, ready=ready.set)
        serving = asyncio.create_task(server.serve())
        await ready.wait()
        server.stop()
        await serving

    run(program())


@pytest.mark.parametrize("app", [wsgi, Guest()], ids=["wsgi", "asgi"])
def test_exception_of_ready_is_raised_by_serve(run: Run, app: Any) -> None:
    def ready() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Server(app, port=0, ready=ready).serve())


def test_block_stops_gracefully(run: Run) -> None:
    app = Guest()

    async def program() -> None:
        async with Server(app, port=0) as server:
            waiting = asyncio.create_task(ask(server.url, "/wait"))
            await soon(app.in_app)
            asyncio.get_running_loop().call_soon(app.gate.set)  # once the block has been left
        assert (await waiting).text == "asgi /wait"
        assert app.notes == ["startup", "shutdown"]

    run(program())


def test_block_and_serve_raise_what_prevents_the_start(run: Run) -> None:
    async def program() -> None:
        with pytest.raises(LifespanFailure, match="no luck"):
            async with Server(Guest(fail="startup"), port=0):
                pytest.fail("entered")
        async with Server(wsgi, port=0) as server:
            with pytest.raises(BindError, match="in use"):
                await Server(wsgi, bind=[server.url.removeprefix("http://")]).serve()

    run(program())


def test_error_of_the_block_is_raised_and_the_server_ends(run: Run) -> None:
    app = Guest(fail="shutdown")

    async def program() -> None:
        with pytest.raises(ZeroDivisionError):
            async with Server(app, port=0):
                raise ZeroDivisionError
        with pytest.raises(LifespanFailure):
            async with Server(Guest(fail="shutdown"), port=0):
                pass

    run(program())
    assert app.notes == ["startup", "shutdown"]


def test_cancelled_serve_cancels_requests_and_runs_the_shutdown(run: Run) -> None:
    app = Guest()

    async def program() -> None:
        ready = asyncio.Event()
        server = Server(app, port=0, ready=ready.set)
        serving = asyncio.create_task(server.serve())
        await ready.wait()
        with connect(server.url) as sock:
            send_request(sock, path="/wait")
            await soon(app.in_app)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        assert app.notes == ["startup", "cancelled", "shutdown"]
        with pytest.raises(ConnectionRefusedError):
            connect(server.url)

    run(program())


def test_cancelled_serve_of_a_wsgi_server_waits_for_its_threads(run: Run) -> None:
    async def program() -> None:
        ready = asyncio.Event()
        serving = asyncio.create_task(Server(wsgi, port=0, ready=ready.set).serve())
        await ready.wait()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("duckfast")]

    run(program())


def test_cancelling_while_it_starts(run: Run) -> None:
    notes: list[str] = []
    entered = asyncio.Event()

    async def slow_start(scope: dict[str, Any], receive: Any, send: Any) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            notes.append("cleaned up")

    async def program() -> None:
        async def block() -> None:
            async with Server(slow_start, port=0):
                pytest.fail("entered")

        task = asyncio.create_task(block())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(program())
    assert notes == ["cleaned up"]


def test_timeout_around_serve(run: Run) -> None:
    app = Guest()

    async def program() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await Server(app, port=0, ready=lambda: limit.reschedule(0)).serve()

    run(program())
    assert app.notes == ["startup", "shutdown"]


def test_end_of_the_program_with_a_server_still_in_the_loop(run: Run) -> None:
    app = Guest()
    addresses: list[str] = []

    async def program() -> None:
        ready = asyncio.Event()
        server = Server(app, port=0, ready=ready.set)
        addresses.append("")
        program.kept = asyncio.create_task(server.serve())  # type: ignore[attr-defined]
        await ready.wait()
        addresses[0] = server.url

    run(program())  # cancels every task, that of the lifespan included
    with pytest.raises(ConnectionRefusedError):
        connect(addresses[0])


@pytest.mark.parametrize("backend", ["asyncio", "uvloop"])
def test_cancel_scope_of_anyio_lets_the_shutdown_run(backend: str) -> None:
    class Slow(Guest):
        async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                return await super().__call__(scope, receive, send)
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            for _ in range(20):  # each of these is a chance for another cancellation
                await asyncio.sleep(0)
            self.notes.append("shutdown")
            await send({"type": "lifespan.shutdown.complete"})

    app = Slow()

    async def program() -> None:
        ready = anyio.Event()
        server = Server(app, port=0, ready=ready.set)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve)
            await ready.wait()
            assert (await ask(server.url)).text == "asgi /"
            tasks.cancel_scope.cancel()

    anyio.run(program, backend_options={"use_uvloop": backend == "uvloop"})
    assert app.notes == ["shutdown"]


def test_loop_run_until_complete() -> None:
    loop = asyncio.new_event_loop()
    try:
        server = Server(Guest(), port=0)
        server._callbacks.append(server.stop)
        loop.run_until_complete(server.serve())
        assert not server.running
    finally:
        loop.close()


def test_several_servers_in_one_loop(run: Run) -> None:
    async def program() -> None:
        async with (
            Server(Guest("first"), port=0) as first,
            Server(Guest("second"), port=0) as second,
            Server(wsgi, port=0) as third,
        ):
            answers = await asyncio.gather(*(ask(server.url) for server in (first, second, third)))
        assert [answer.text for answer in answers] == ["first /", "second /", "wsgi /"]

    run(program())


def test_stop_from_another_thread(run: Run) -> None:
    async def program() -> None:
        server = Server(Guest(), port=0, ready=lambda: threading.Thread(target=server.stop).start())
        await server.serve()

    run(program())


def test_another_loop_than_the_running_one_is_refused(run: Run) -> None:
    async def program() -> None:
        other = "asyncio" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "uvloop"
        with pytest.raises(ConfigError, match="running loop"):
            await Server(Guest(), port=0, loop=other).serve()

    run(program())


def test_blocking_calls_refuse_a_running_loop(run: Run) -> None:
    async def program() -> None:
        with pytest.raises(RuntimeError, match="running event loop"):
            duckfast.run(Guest(), port=0)
        with pytest.raises(RuntimeError, match="running event loop"):
            Server(Guest(), port=0).run()

    run(program())


def test_signals_outside_of_the_main_thread_are_refused() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(Server(Guest(), port=0).serve(signals=True))
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(failures[0])
