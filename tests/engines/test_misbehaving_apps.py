"""Applications that break their contract: the client gets a clean error or a visible break, the log one entry, others are served.

Every way of failing at every point of a response, on both engines, within this process: the debug build counts what is left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.engine import ASGI_KINDS, WSGI_KINDS, RunningEngine
from support.wire import DEADLINE, Cut, Wire, eventually, request

from duckfast import _debug

POINTS = ["before the start", "after the start", "in the body", "after the end"]


class Unusual(BaseException):
    """What gevent's timeouts and the like are: no Exception."""


class Exit(SystemExit):
    pass


class Log(logging.Handler):
    """The errors that were logged, by any library."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        # Others keep the record, and with its traceback the request.
        record.msg, record.args, record.exc_info = self.texts[-1], None, None


@pytest.fixture
def log() -> Iterator[Log]:
    handler = Log()
    loggers = [logging.getLogger("asyncio"), logging.getLogger("duckfast")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()  # a task that never ends is told of by asyncio here, and not in the next test's log
    if _debug.enabled:
        assert not any(_debug.alive().values()), _debug.alive()


def outcome(wire: Wire) -> str:
    """What the client sees of a response that should have been `whole` in chunks."""
    try:
        response = wire.read_response()
    except Cut:
        return "broken"
    return "whole" if (response.status, response.body) == (200, b"onetwo") else str(response.status)


def check(running: RunningEngine, log: Log, expected: dict[str, str] | str, entries: int = 1) -> None:
    """At each point in turn, the target of a request: what its client sees, what is logged, and whether others are served."""
    points = {"/": expected} if isinstance(expected, str) else expected
    for number, (point, seen) in enumerate(points.items(), 1):
        with running.connect() as wire:
            wire.send(request(target="/" + point.strip("/").replace(" ", "-")))
            assert outcome(wire) == seen, point
        with running.connect() as wire:
            wire.send(request(target="/well"))
            assert outcome(wire) == "whole"
        eventually(lambda: len(log.texts) >= number * entries, "the log entry")  # noqa: B023
        gc.collect()  # asyncio complains of exceptions that nobody has looked at when their task goes
        assert len(log.texts) == number * entries, log.texts


# --- ASGI ---------------------------------------------------------------------------------------------------------------

START = {"type": "http.response.start", "status": 200, "headers": []}
ONE = {"type": "http.response.body", "body": b"one", "more_body": True}
TWO = {"type": "http.response.body", "body": b"two"}

Trouble = Callable[[Any], Any]


class AsgiApp:
    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        parts = dict(zip(POINTS, [[], [START], [ONE], [TWO]], strict=True))
        for point, messages in parts.items():
            for message in messages:
                await send(message)
            if scope["path"] == "/" + point.replace(" ", "-"):
                await self.trouble(send)


def raising(kind: type[BaseException]) -> Trouble:
    async def trouble(send: Any) -> None:
        raise kind

    return trouble


def raising_later(kind: type[BaseException]) -> Trouble:
    async def trouble(send: Any) -> None:
        await asyncio.sleep(0)
        raise kind

    return trouble


async def cancel_oneself(send: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def swallow_a_cancellation(send: Any) -> None:
    with suppress(asyncio.CancelledError):
        await cancel_oneself(send)
    await asyncio.sleep(0)


async def await_a_number(send: Any) -> None:
    class Strange:
        def __await__(self) -> Iterator[int]:
            yield 1

    await Strange()


def sending(message: Any) -> Trouble:
    async def trouble(send: Any) -> None:
        await send(message)

    return trouble


FAILED = {"before the start": "500", "after the start": "500", "in the body": "broken", "after the end": "whole"}
CANCELLED = {**FAILED, "before the start": "503", "after the start": "503"}


@pytest.mark.parametrize(
    "trouble",
    [
        raising(ValueError),
        raising_later(ValueError),
        raising(Unusual),
        raising_later(Unusual),
        raising(GeneratorExit),
        raising(StopIteration),
        raising(StopAsyncIteration),
        await_a_number,
        sending(None),
        sending({}),
        sending({"type": 1}),
        sending({"type": "http.request"}),
        sending({"type": "websocket.accept"}),
    ],
    ids=[
        "exception", "later exception", "base exception", "later base exception", "generator exit", "stop iteration",
        "stop async iteration", "bad await", "no message", "no type", "odd type", "request", "websocket",
    ],
)
@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_a_failing_application_is_answered_for_and_logged_once(kind: str, trouble: Trouble, log: Log) -> None:
    with RunningEngine(kind, AsgiApp(trouble)) as running:
        check(running, log, FAILED)


@pytest.mark.parametrize("trouble", [cancel_oneself, raising(asyncio.CancelledError)], ids=["cancel", "raise"])
@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_an_application_that_cancels_itself_is_answered_for(kind: str, trouble: Trouble, log: Log) -> None:
    with RunningEngine(kind, AsgiApp(trouble)) as running:
        check(running, log, CANCELLED, entries=0)


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_an_application_that_swallows_its_cancellation_goes_on(kind: str, log: Log) -> None:
    with RunningEngine(kind, AsgiApp(swallow_a_cancellation)) as running:
        check(running, log, dict.fromkeys(POINTS, "whole"), entries=0)


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_headers_whose_code_starts_another_response_do_not_garble_the_first(kind: str, log: Log) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        def headers() -> Iterator[tuple[bytes, bytes]]:
            if scope["path"] == "/":
                for message in (START, ONE):
                    with pytest.raises(Exception, match="twice|before"):
                        send(message)
            yield b"x-a", b"1"

        await send({**START, "headers": headers()})
        await send(ONE)
        await send(TWO)

    with RunningEngine(kind, app) as running:
        check(running, log, "whole", entries=0)


@pytest.mark.parametrize("kind", ASGI_KINDS[:1])
def test_an_application_that_never_ends_does_not_keep_the_engine(kind: str, log: Log) -> None:
    started = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    with RunningEngine(kind, app, timeout_graceful_shutdown=0) as running, running.connect() as wire:
        wire.send(request())
        assert started.wait(DEADLINE)
        running.engine.stop()
        wire.expect_end()


# --- WSGI ---------------------------------------------------------------------------------------------------------------


class Body:
    """An iterable that fails at its own points."""

    def __init__(self, parts: list[Any], close: Callable[[], None] | None = None) -> None:
        self.parts = iter(parts)
        if close is not None:
            self.close = close

    def __iter__(self) -> Body:
        return self

    def __next__(self) -> Any:
        part = next(self.parts)
        if isinstance(part, type):
            raise part
        return part


def raise_(kind: type[BaseException]) -> None:
    raise kind


WSGI_POINTS = ["in the call", "after start_response", "in the first step", "in the body", "after write()", "in close()"]
WSGI_FAILED = {**dict.fromkeys(WSGI_POINTS[:3], "500"), "in the body": "broken", "after write()": "broken", "in close()": "whole"}


def wsgi_app(error: type[BaseException]) -> Callable[..., Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        point = environ["PATH_INFO"][1:].replace("-", " ")
        if point == "in the call":
            raise error
        write = start_response("200 OK", [])
        if point == "after start_response":
            raise error
        if point == "after write()":
            write(b"one")
            raise error
        if point == "in the first step":
            return Body([error])
        if point == "in the body":
            return Body([b"one", error])
        return Body([b"one", b"two"], (lambda: raise_(error)) if point == "in close()" else None)

    return app


@pytest.mark.parametrize("error", [ValueError, Unusual, GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_failing_wsgi_app_is_answered_for_and_logged_once(kind: str, error: type[BaseException], log: Log) -> None:
    with RunningEngine(kind, wsgi_app(error)) as running:
        check(running, log, WSGI_FAILED)
        assert running.failure is None


@pytest.mark.parametrize("point", ["in the call", "in the body", "in close()"])
@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_wsgi_application_that_ends_the_process_ends_the_engine(kind: str, point: str, log: Log) -> None:
    with RunningEngine(kind, wsgi_app(Exit)) as running:
        with running.connect() as wire:
            wire.send(request(target="/" + point.replace(" ", "-")))
            assert outcome(wire) == WSGI_FAILED[point]
        running.wait()
        assert isinstance(running.failure, Exit)


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_block_of_another_type_breaks_the_body(kind: str, log: Log) -> None:
    blocks = {"str": "two", "int": 2, "None": None, "bytearray": bytearray(b"two"), "list": [b"two"]}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body([b"one", blocks.get(environ["PATH_INFO"][1:], b"two")])

    with RunningEngine(kind, app) as running:
        check(running, log, dict.fromkeys(blocks, "broken"))


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_thread_that_outlives_its_request_reaches_nobody(kind: str, log: Log) -> None:
    """write(), start_response() and the body's input raise in it, also while the connection serves the next request."""
    raised: list[BaseException] = []
    over = threading.Event()
    ended = threading.Event()

    def outlive(environ: dict[str, Any], start_response: Any, write: Any) -> None:
        over.wait(DEADLINE)
        for call in (
            lambda: write(b"late"),
            lambda: start_response("200 OK", []),
            lambda: environ["wsgi.input"].read(),
            lambda: environ["wsgi.early_hints"]([("Link", "late")]) or raise_(OSError),
        ):
            try:
                call()
            except (OSError, AssertionError) as error:
                raised.append(error)
        ended.set()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [])
        if environ["PATH_INFO"] == "/":
            threading.Thread(target=outlive, args=(environ, start_response, write), daemon=True).start()
            return Body([b"one", b"two"])

        def parts() -> Iterator[bytes]:
            yield b"one"
            over.set()
            ended.wait(DEADLINE)
            yield b"two"

        return parts()

    with RunningEngine(kind, app) as running, running.connect() as wire:
        wire.send(request("POST", headers=[("Expect", "100-continue")], body=b"body"))
        assert outcome(wire) == "whole"
        with running.connect() as wire:
            wire.send(request(target="/well"))
            assert outcome(wire) == "whole"
        assert ended.is_set() and len(raised) == 4, raised
        assert log.texts == []


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_headers_whose_code_starts_another_response_are_refused(kind: str, log: Log) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        class Headers(list[Any]):
            def __iter__(self) -> Iterator[Any]:
                if environ["PATH_INFO"] == "/":
                    with pytest.raises(AssertionError):
                        start_response("200 OK", [])
                return super().__iter__()

        start_response("200 OK", Headers([("X-A", "1")]))
        return Body([b"one", b"two"])

    with RunningEngine(kind, app) as running:
        check(running, log, "whole", entries=0)


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_headers_changed_after_start_response_are_not_sent(kind: str, log: Log) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        headers = [("X-A", "1")]
        start_response("200 OK", headers)
        headers[:] = [("Content-Length", "1"), ("X-\r\n", 2)]  # type: ignore[list-item]
        return Body([b"one", b"two"])

    with RunningEngine(kind, app) as running:
        check(running, log, "whole", entries=0)
