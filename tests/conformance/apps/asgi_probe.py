"""A raw ASGI application that does what a request's X-Scenario says and notes what it saw under the request's X-Key.

Notes are read back by `X-Scenario: notes`, as the repr of a list, so that bytes, str, int, list and tuple stay what they
were. Knows ASGI only: no framework stands between the server and what is noted.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import os
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scenario = Callable[["Exchange"], Awaitable[Any]]

notes: dict[str, list[Any]] = defaultdict(list)
gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
scenarios: dict[str, Scenario] = {}
lifespan_notes: list[Any] = []
current_user: contextvars.ContextVar[str] = contextvars.ContextVar("current_user", default="nobody")


class Exchange:
    """One request: the three ASGI arguments, its notes, and the two or three messages nearly every scenario sends."""

    def __init__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers = dict(scope["headers"])
        self.key = self.headers.get(b"x-key", b"").decode()

    def note(self, value: Any) -> None:
        notes[self.key].append(value)

    def argument(self, name: str, default: str = "") -> str:
        return self.headers.get(b"x-" + name.encode(), default.encode()).decode()

    async def start(self, status: int = 200, headers: Any = (), **more: Any) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers, **more})

    async def body(self, data: Any = b"", more_body: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more_body})

    async def answer(self, value: Any) -> None:
        """A complete 200 whose body is the repr of `value`."""
        text = repr(value).encode()
        await self.start(200, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))])
        await self.body(text)

    async def read_all(self) -> bytes:
        """The request's body, or b"<disconnect>" at the end of what arrived when the client left inside it."""
        pieces = []
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return b"".join(pieces) + b"<disconnect>"
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def note_failure_of(self, message: Any) -> bool:
        """Send a message that must be refused; note the exception and whether there was one."""
        try:
            await self.send(message)
        except Exception as error:
            self.note(("raised", type(error).__name__, [base.__name__ for base in type(error).__mro__]))
            return True
        self.note(("accepted",))
        return False


def scenario(function: Scenario) -> Scenario:
    scenarios[function.__name__] = function
    return function


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> Any:
    if scope["type"] == "lifespan":
        return await serve_lifespan(scope, receive, send)
    name = dict(scope["headers"]).get(b"x-scenario", b"show_scope").decode()
    return await scenarios[name](Exchange(scope, receive, send))


async def serve_lifespan(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    lifespan_notes.append({key: value for key, value in scope.items() if key != "state"})
    lifespan_notes.append((await receive())["type"])
    current_user.set("lifespan")
    if "state" in scope:
        scope["state"]["shared"] = []
        scope["state"]["number"] = 1
    await send({"type": "lifespan.startup.complete"})
    lifespan_notes.append((await receive())["type"])
    await send({"type": "lifespan.shutdown.complete"})


# What the tests use to look and to let go


@scenario
async def show_notes(exchange: Exchange) -> None:
    await exchange.answer(notes[exchange.key])


@scenario
async def show_lifespan(exchange: Exchange) -> None:
    await exchange.answer(lifespan_notes)


@scenario
async def open_gate(exchange: Exchange) -> None:
    gates[exchange.key].set()
    await exchange.answer("open")


@scenario
async def show_scope(exchange: Exchange) -> None:
    await exchange.answer(exchange.scope)


@scenario
async def echo(exchange: Exchange) -> None:
    body = await exchange.read_all()
    await exchange.start(200, [(b"content-length", b"%d" % len(body))])
    await exchange.body(body)


# Scope


@scenario
async def show_exact_types(exchange: Exchange) -> None:
    scope = exchange.scope
    await exchange.answer(
        {
            "scope": type(scope).__name__,
            "asgi": type(scope["asgi"]).__name__,
            "keys": sorted({type(key).__name__ for key in scope}),
            "fields": sorted({type(part).__name__ for pair in scope["headers"] for part in pair}),
        }
    )


@scenario
async def spoil_scope(exchange: Exchange) -> None:
    """Change everything that could be shared with the next request."""
    scope = exchange.scope
    seen = copy.deepcopy(scope)
    scope["asgi"]["spoiled"] = True
    scope.setdefault("extensions", {})["spoiled"] = {}
    for value in list(scope["extensions"].values()):
        value["spoiled"] = True
    if isinstance(scope["headers"], list):
        scope["headers"].append((b"spoiled", b"yes"))
    scope["path"] = "/spoiled"
    scope["spoiled"] = True
    if "state" in scope:
        scope["state"]["number"] = 99
        scope["state"]["spoiled"] = True
        scope["state"]["shared"].append("seen by all")
    await exchange.answer(seen)


# Receive


@scenario
async def receive_first(exchange: Exchange) -> None:
    await exchange.answer(await exchange.receive())


@scenario
async def receive_messages(exchange: Exchange) -> None:
    """Every message up to the end of the body."""
    messages = []
    while True:
        message = await exchange.receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    await exchange.answer(messages)


@scenario
async def receive_blocks_after_body(exchange: Exchange) -> None:
    """receive() after the body must wait; it is still waiting when the response is complete, and then it returns."""
    await exchange.read_all()
    listener = asyncio.ensure_future(exchange.receive())
    for _ in range(100):
        await asyncio.sleep(0)
    exchange.note(("early", listener.done()))
    await exchange.start(200, [(b"content-length", b"2")])
    await exchange.body(b"ok")
    exchange.note((await listener)["type"])
    exchange.note((await exchange.receive())["type"])
    exchange.note((await exchange.receive())["type"])


@scenario
async def receive_after_response_without_reading(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-length", b"2")])
    await exchange.body(b"ok")
    exchange.note((await exchange.receive())["type"])
    exchange.note((await exchange.receive())["type"])


@scenario
async def wait_for_disconnect(exchange: Exchange) -> None:
    exchange.note(await exchange.read_all())
    exchange.note((await exchange.receive())["type"])
    exchange.note((await exchange.receive())["type"])


@scenario
async def read_until_disconnect(exchange: Exchange) -> None:
    exchange.note("reading")
    exchange.note(await exchange.read_all())


@scenario
async def cancel_receive(exchange: Exchange) -> None:
    """Cancel waiting receives again and again; the body must arrive whole all the same."""
    cancelled = 0
    pieces: list[bytes] = []
    more = True
    while more:
        task = asyncio.ensure_future(exchange.receive())
        for _ in range(2):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        try:
            message = await task
        except asyncio.CancelledError:
            cancelled += 1
            if cancelled == 3:
                exchange.note("cancelled three times")
            continue
        pieces.append(message["body"])
        more = message["more_body"]
    await exchange.answer((b"".join(pieces), cancelled > 0))


@scenario
async def time_out_receive(exchange: Exchange) -> None:
    """asyncio.wait_for around a receive() that has nothing yet: the usual way of polling for a disconnect."""
    await exchange.read_all()
    try:
        await asyncio.wait_for(exchange.receive(), 0.01)
        exchange.note("received")
    except TimeoutError:
        exchange.note("timed out")
    await exchange.answer("ok")
    exchange.note((await exchange.receive())["type"])


@scenario
async def wait_then_read(exchange: Exchange) -> None:
    """Do not ask for the body before the gate opens."""
    exchange.note("waiting")
    await gates[exchange.key].wait()
    await exchange.answer(await exchange.read_all())


@scenario
async def ignore_body(exchange: Exchange) -> None:
    await exchange.answer("not read")


@scenario
async def receive_twice_at_once(exchange: Exchange) -> None:
    """Two listeners for the disconnect, as two libraries in one process have them."""
    await exchange.read_all()
    listeners = [asyncio.ensure_future(exchange.receive()) for _ in range(2)]
    await asyncio.sleep(0)
    exchange.note("listening")
    results = await asyncio.gather(*listeners, return_exceptions=True)
    exchange.note(["error" if isinstance(result, BaseException) else result["type"] for result in results])


@scenario
async def count_received(exchange: Exchange) -> None:
    """Read a large body only when told to; note how much arrived."""
    await gates[exchange.key].wait()
    size = 0
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            exchange.note("disconnect")
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    await exchange.answer(size)


# Send: what must be refused


BAD_MESSAGES: dict[str, Any] = {
    "unknown type": {"type": "http.response.nonsense"},
    "no type": {"status": 200},
    "type is not str": {"type": b"http.response.start", "status": 200},
    "not a dict": None,
    "websocket message": {"type": "websocket.accept"},
    "no status": {"type": "http.response.start", "headers": []},
    "status is str": {"type": "http.response.start", "status": "200", "headers": []},
    "status is None": {"type": "http.response.start", "status": None, "headers": []},
    "status too small": {"type": "http.response.start", "status": 99, "headers": []},
    "status too large": {"type": "http.response.start", "status": 1000, "headers": []},
    "interim status": {"type": "http.response.start", "status": 100, "headers": []},
    "header name is str": {"type": "http.response.start", "status": 200, "headers": [("x-a", b"b")]},
    "header value is str": {"type": "http.response.start", "status": 200, "headers": [(b"x-a", "b")]},
    "header is not a pair": {"type": "http.response.start", "status": 200, "headers": [(b"x-a",)]},
    "headers is a number": {"type": "http.response.start", "status": 200, "headers": 7},
    "CRLF in a value": {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\r\nx-evil: 1")]},
    "LF in a value": {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\nx-evil: 1")]},
    "CR in a value": {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\rx-evil: 1")]},
    "NUL in a value": {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\0x-evil")]},
    "CRLF in a name": {"type": "http.response.start", "status": 200, "headers": [(b"x-a\r\nx-evil", b"1")]},
    "space in a name": {"type": "http.response.start", "status": 200, "headers": [(b"x-evil x", b"1")]},
    "colon in a name": {"type": "http.response.start", "status": 200, "headers": [(b"x-evil:", b"1")]},
    "empty name": {"type": "http.response.start", "status": 200, "headers": [(b"", b"x-evil")]},
    "length is no number": {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"x")]},
    "length is negative": {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"-1")]},
    "length has a sign": {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"+2")]},
    "two lengths": {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"2"), (b"content-length", b"3")],
    },
    "body before start": {"type": "http.response.body", "body": b"early"},
    "pathsend before start": {"type": "http.response.pathsend", "path": "/etc/hostname"},
    "trailers before start": {"type": "http.response.trailers", "headers": []},
}

BAD_BODIES: dict[str, Any] = {
    "body is str": {"type": "http.response.body", "body": "text"},
    "body is a number": {"type": "http.response.body", "body": 5},
    "body is a list": {"type": "http.response.body", "body": [b"a"]},
    "second start": {"type": "http.response.start", "status": 201, "headers": []},
    "unknown type": {"type": "http.response.nonsense"},
    "trailers not announced": {"type": "http.response.trailers", "headers": []},
}


@scenario
async def send_bad_message(exchange: Exchange) -> None:
    """Send the refused message named by X-Case, then a proper response."""
    await exchange.note_failure_of(BAD_MESSAGES[exchange.argument("case")])
    await exchange.answer("recovered")


@scenario
async def leak_bad_message(exchange: Exchange) -> None:
    """The same without catching the error: the server has to answer."""
    await exchange.send(BAD_MESSAGES[exchange.argument("case")])
    await exchange.body(b"never")


@scenario
async def send_bad_body(exchange: Exchange) -> None:
    """The refused message named by X-Case inside a response, which then goes on."""
    await exchange.start()
    await exchange.body(b"one", more_body=True)
    await exchange.note_failure_of(BAD_BODIES[exchange.argument("case")])
    await exchange.body(b"two")


@scenario
async def send_unknown_keys(exchange: Exchange) -> None:
    await exchange.send({"type": "http.response.start", "status": 200, "headers": [], "x-unknown": object()})
    await exchange.send({"type": "http.response.body", "body": b"ok", "x-unknown": object()})


# Send: shapes of responses


@scenario
async def send_response(exchange: Exchange) -> None:
    """Status, header lines and body pieces as the request says: X-Status, X-Field (Name=value;...), X-Parts (a|b|c)."""
    fields = [pair.split("=", 1) for pair in exchange.argument("field").split(";") if pair]
    pieces = exchange.argument("parts").encode().split(b"|")
    await exchange.start(int(exchange.argument("status", "200")), [(name.encode(), value.encode()) for name, value in fields])
    try:
        for position, piece in enumerate(pieces):
            await exchange.body(piece, more_body=position < len(pieces) - 1)
    except Exception as error:
        exchange.note(("raised", type(error).__name__))
        raise
    exchange.note("sent")


@scenario
async def send_minimal(exchange: Exchange) -> None:
    """Every optional key left out."""
    await exchange.send({"type": "http.response.start", "status": 200})
    await exchange.send({"type": "http.response.body"})


@scenario
async def send_headers_from_generator(exchange: Exchange) -> None:
    def fields() -> Iterator[list[bytes]]:
        yield [b"x-first", b"1"]
        yield [b"x-second", b"2"]
        yield [b"x-first", b"3"]

    await exchange.start(200, fields())
    await exchange.body(b"ok")


@scenario
async def send_byte_types(exchange: Exchange) -> None:
    """bytes, bytearray and memoryview, each changed right after send() returned."""
    await exchange.start()
    await exchange.body(b"bytes ", more_body=True)
    array = bytearray(b"bytearray ")
    await exchange.body(array, more_body=True)
    array[:] = b"x" * len(array)
    backing = bytearray(b"memoryview ")
    await exchange.body(memoryview(backing), more_body=True)
    backing[:] = b"y" * len(backing)
    await exchange.body(memoryview(b"a-b-c-")[::2])


@scenario
async def send_mutated_large(exchange: Exchange) -> None:
    """A buffer too large for the socket, overwritten as soon as send() has returned."""
    array = bytearray(b"a" * 4_000_000)
    await exchange.start(200, [(b"content-length", b"8000000")])
    await exchange.body(array, more_body=True)
    array[:] = b"b" * len(array)
    await exchange.body(array)
    array[:] = b"c" * len(array)


@scenario
async def send_empty_pieces(exchange: Exchange) -> None:
    await exchange.start()
    for piece in (b"", b"one", b"", b"two", b""):
        await exchange.body(piece, more_body=True)
    await exchange.body(b"")


@scenario
async def start_only_then_gate(exchange: Exchange) -> None:
    """The head must not leave before the first body message."""
    await exchange.start(200, [(b"x-started", b"yes")])
    exchange.note("started")
    await gates[exchange.key].wait()
    raise RuntimeError("changed its mind after the start")


@scenario
async def flush_each_piece(exchange: Exchange) -> None:
    """The first piece must reach the client while the app waits, however small it is."""
    await exchange.start()
    await exchange.body(b"first", more_body=True)
    await gates[exchange.key].wait()
    await exchange.body(b"second")


@scenario
async def send_late_messages(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-length", b"4")])
    await exchange.body(b"done")
    try:
        await exchange.body(b"late", more_body=True)
        await exchange.body(b"later")
    except Exception as error:
        exchange.note(("raised", type(error).__name__))
        return
    exchange.note("ignored")


@scenario
async def raise_before_start(exchange: Exchange) -> None:
    raise RuntimeError("secret-before-start")


@scenario
async def raise_after_start(exchange: Exchange) -> None:
    await exchange.start(200, [(b"x-started", b"yes"), (b"content-length", b"5")])
    raise RuntimeError("secret-after-start")


@scenario
async def raise_in_body(exchange: Exchange) -> None:
    fields = [(b"content-length", b"1000")] if exchange.argument("length") else []
    await exchange.start(200, fields)
    await exchange.body(b"some of it", more_body=True)
    raise RuntimeError("secret-in-body")


@scenario
async def raise_after_response(exchange: Exchange) -> None:
    await exchange.answer("complete")
    raise RuntimeError("secret-after-response")


@scenario
async def return_without_start(exchange: Exchange) -> None:
    return


@scenario
async def return_in_body(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.body(b"some of it", more_body=True)


@scenario
async def return_after_start(exchange: Exchange) -> None:
    await exchange.start()


@scenario
async def send_until_blocked(exchange: Exchange) -> None:
    """64 KiB pieces without end in sight; the note grows with each that send() let pass."""
    piece = b"x" * 65536
    await exchange.start()
    notes[exchange.key] = [0]
    for _ in range(int(exchange.argument("pieces"))):
        await exchange.body(piece, more_body=True)
        notes[exchange.key][0] += 1
    await exchange.body(b"")
    exchange.note("finished")


@scenario
async def send_until_disconnected(exchange: Exchange) -> None:
    await exchange.start()
    sent = 0
    try:
        while sent < 10_000:
            await exchange.body(b"x" * 65536, more_body=True)
            sent += 1
            exchange.note("streaming")
            await asyncio.sleep(0)
    except OSError as error:
        exchange.note(("OSError", type(error) is not OSError, isinstance(error, asyncio.CancelledError)))
        if exchange.argument("leak"):
            raise
        return
    exchange.note("never told")


@scenario
async def send_quietly_after_disconnect(exchange: Exchange) -> None:
    """Wait until the client has left, then send: silent or an OSError, as the server was told to be."""
    await exchange.start()
    await exchange.body(b"hello", more_body=True)
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    try:
        await exchange.body(b"more", more_body=True)
        await exchange.body(b"end")
    except OSError as error:
        exchange.note(("OSError", type(error).__name__))
        if exchange.argument("leak"):
            raise
        return
    exchange.note("silent")


@scenario
async def start_after_disconnect(exchange: Exchange) -> None:
    """Nothing sent yet when the client leaves; starting then must be as refused, or as silent, as a body is."""
    exchange.note("waiting")
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    try:
        await exchange.start(200, [(b"content-length", b"2")])
        await exchange.body(b"ok")
    except OSError as error:
        exchange.note(("OSError", type(error).__name__))
        return
    exchange.note("silent")


@scenario
async def work_in_background(exchange: Exchange) -> None:
    """Complete the response, then stay busy until another request opens the gate."""
    await exchange.answer("answered")
    exchange.note("working")
    await gates[exchange.key].wait()
    exchange.note("finished")


@scenario
async def wait_at_gate(exchange: Exchange) -> None:
    exchange.note("waiting")
    await gates[exchange.key].wait()
    await exchange.answer("first")


@scenario
async def wait_for_file(exchange: Exchange) -> None:
    """A gate that opens without a request: the file appears."""
    exchange.note("waiting")
    while not os.path.exists(exchange.argument("file")):
        await asyncio.sleep(0.005)
    await exchange.answer("finished")


@scenario
async def never_end(exchange: Exchange) -> None:
    """A stream that does not listen to anybody."""
    await exchange.start()
    await exchange.body(b"begun", more_body=True)
    await asyncio.Event().wait()


@scenario
async def stream_until_disconnect(exchange: Exchange) -> None:
    """An event stream: one piece, then nothing but listening for the end."""
    await exchange.start(200, [(b"content-type", b"text/event-stream")])
    await exchange.body(b"data: hello\n\n", more_body=True)
    exchange.note((await exchange.receive())["type"])
    message = await exchange.receive()
    exchange.note(message["type"])
    if exchange.argument("goodbye"):
        await exchange.body(b"data: goodbye\n\n")
    exchange.note("left")


# Extensions


@scenario
async def pathsend(exchange: Exchange) -> None:
    size = exchange.argument("size")
    await exchange.start(200, [(b"content-length", size.encode())] if size else [])
    try:
        await exchange.send({"type": "http.response.pathsend", "path": exchange.argument("file")})
    except Exception as error:
        exchange.note(("raised", type(error).__name__))
        raise
    exchange.note("sent")


@scenario
async def zerocopysend(exchange: Exchange) -> None:
    """X-Plan lists the parts: `o3c4` is offset 3 count 4, `f` the rest of the file, a quoted word is a body message."""
    await exchange.start(200, [(b"content-length", exchange.argument("size").encode())] if exchange.argument("size") else [])
    parts = exchange.argument("plan").split()
    with open(exchange.argument("file"), "rb") as file:
        for position, part in enumerate(parts):
            more = position < len(parts) - 1
            if part.startswith("'"):
                await exchange.body(part.strip("'").encode(), more_body=more)
                continue
            message: Message = {"type": "http.response.zerocopysend", "file": file, "more_body": more}
            if part.startswith("o"):
                offset, count = part[1:].split("c")
                message["offset"] = int(offset)
                message["count"] = int(count)
            elif part.startswith("c"):
                message["count"] = int(part[1:])
            await exchange.send(message)
        exchange.note(("closed", file.closed))


@scenario
async def trailers(exchange: Exchange) -> None:
    await exchange.start(200, [(b"trailer", b"x-checksum")], trailers=True)
    await exchange.body(b"one", more_body=True)
    await exchange.body(b"two")
    exchange.note("body complete")
    if exchange.argument("gate"):
        await gates[exchange.key].wait()
    await exchange.send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"abc")], "more_trailers": True})
    await exchange.send({"type": "http.response.trailers", "headers": [(b"x-count", b"2")]})
    exchange.note("trailers sent")


@scenario
async def bad_trailers(exchange: Exchange) -> None:
    await exchange.start(200, [], trailers=True)
    await exchange.body(b"one")
    await exchange.note_failure_of({"type": "http.response.trailers", "headers": [(b"x-a", b"b\r\nx-evil: 1")]})
    await exchange.send({"type": "http.response.trailers", "headers": []})


@scenario
async def early_hint(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-length", b"2")])
    await exchange.send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    if exchange.argument("gate"):
        await gates[exchange.key].wait()
    await exchange.body(b"ok")


@scenario
async def late_early_hint(exchange: Exchange) -> None:
    await exchange.start()
    await exchange.body(b"one", more_body=True)
    try:
        await exchange.send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    except Exception as error:
        exchange.note(("raised", type(error).__name__))
    await exchange.body(b"two")


@scenario
async def evil_early_hint(exchange: Exchange) -> None:
    await exchange.start(200, [(b"content-length", b"2")])
    await exchange.note_failure_of({"type": "http.response.early_hint", "links": [b"</a>\r\nx-evil: 1"]})
    await exchange.body(b"ok")


# Tasks and context


@scenario
async def remember_user(exchange: Exchange) -> None:
    """Answer the context variable's value, then set it for whoever could inherit it."""
    seen = current_user.get()
    current_user.set(exchange.argument("user"))
    await asyncio.sleep(0)
    await exchange.answer((seen, current_user.get()))


@scenario
async def use_task_tools(exchange: Exchange) -> None:
    import anyio
    import sniffio

    task = asyncio.current_task()
    seen: dict[str, Any] = {
        "task": isinstance(task, asyncio.Task),
        "running in the loop": asyncio.get_running_loop() is task.get_loop() if task else None,
        "in all_tasks": task in asyncio.all_tasks(),
        "sniffio": sniffio.current_async_library(),
    }
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        seen["asyncio.timeout"] = True
    with anyio.move_on_after(0.01) as cancel_scope:
        await anyio.sleep_forever()
    seen["anyio.move_on_after"] = cancel_scope.cancelled_caught
    results: list[int] = []
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(_collect, results, number)
    seen["anyio task group"] = sorted(results)
    seen["anyio thread"] = await anyio.to_thread.run_sync(lambda: "from a thread")
    seen["executor"] = await asyncio.get_running_loop().run_in_executor(None, lambda: "from an executor")
    seen["other task"] = await asyncio.create_task(_double(21))
    await exchange.answer(seen)


async def _collect(results: list[int], number: int) -> None:
    await asyncio.sleep(0)
    results.append(number)


async def _double(number: int) -> int:
    await asyncio.sleep(0)
    return number * 2


@scenario
async def timeout_without_await(exchange: Exchange) -> None:
    """The first step runs before any suspension: current_task() must be right even there."""
    first = asyncio.current_task()
    await asyncio.sleep(0)
    second = asyncio.current_task()
    await exchange.answer((first is not None, first is second))


_turns: list[None] = []


@scenario
async def count_turns_of_the_loop(exchange: Exchange) -> None:
    """How many of the callbacks that these requests asked for have run: those of one tick see the same number."""
    seen = len(_turns)
    asyncio.get_running_loop().call_soon(_turns.append, None)
    await exchange.answer(seen)


@scenario
async def loop_name(exchange: Exchange) -> None:
    await exchange.answer(type(asyncio.get_running_loop()).__module__)


@scenario
async def process_id(exchange: Exchange) -> None:
    await exchange.answer((os.getpid(), tempfile.gettempdir()))


@scenario
async def non_none_return(exchange: Exchange) -> Any:
    await exchange.answer("ok")
    return "not None"


class Application2:
    """The same scenarios in the two calls of ASGI 2."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await application(self.scope, receive, send)
