"""The application of the websocket tests: the path says what it does, the query string under which key its notes are kept."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

notes: dict[str, list[Any]] = defaultdict(list)
gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


def key_of(scope: Scope) -> str:
    return str(scope["query_string"].decode())


async def accept(receive: Receive, send: Send, **more: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Every message back; the disconnect is noted."""
    await accept(receive, send)
    while (message := await receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        assert (text is None) != (data is None), message
        await send({"type": "websocket.send", **({"bytes": data} if text is None else {"text": text})})
    note_disconnect(scope, message)


def note_disconnect(scope: Scope, message: Message) -> None:
    """With a plain number, whatever kind of integer the server makes of a code."""
    notes[key_of(scope)].append({**message, "code": int(message["code"])})


async def show_scope(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    shown = {name: scope[name] for name in scope if name not in ("app", "state", "extensions")}
    await send({"type": "websocket.send", "text": repr({**shown, "extensions": list(scope.get("extensions") or ())})})
    await receive()


async def choose_second(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send, subprotocol=scope["subprotocols"][1])
    await send({"type": "websocket.send", "text": repr(scope["subprotocols"])})
    await receive()


async def more_headers(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send, headers=[(b"x-first", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"), (b"x-last", b"2")])
    await receive()


async def close_with_reason(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes with 4001 when something has come; what receive() says then is noted, and what a late send() raises."""
    await accept(receive, send)
    await receive()
    await send({"type": "websocket.close", "code": 4001, "reason": "enough, Gänse"})
    note_disconnect(scope, await receive())
    try:
        await send({"type": "websocket.send", "text": "late"})
    except Exception as error:
        notes[key_of(scope)].append(isinstance(error, OSError))


async def close_plainly(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await send({"type": "websocket.close"})


async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await receive()


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    await accept(receive, send)
    await receive()
    raise RuntimeError("a failure that the test wants")


async def fail_first(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a failure before the answer that the test wants")


async def leave_first(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def deny(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4003})


async def deny_with_response(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"content-type", b"text/plain"), (b"x-why", b"closed on Sundays")]
    await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"ducks"})


async def wait_at_gate(scope: Scope, receive: Receive, send: Send) -> None:
    """Receives nothing before its gate is opened, then counts the messages up to the first that is empty."""
    key = key_of(scope)
    await accept(receive, send)
    notes[key].append("waiting")
    await gates[key].wait()
    count = size = 0
    while (message := await receive()).get("bytes"):
        count += 1
        size += len(message["bytes"])
    await send({"type": "websocket.send", "text": f"{count} {size}"})
    await receive()


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends 64 KiB again and again; how many have been taken is always the first note."""
    key = key_of(scope)
    await accept(receive, send)
    count = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": count.to_bytes(4, "big") * 16384})
            count += 1
            notes[key][:] = [count]
    except OSError:
        notes[key].append("the client has left")


WEBSOCKETS = {
    "/echo": echo,
    "/scope": show_scope,
    "/choose-second": choose_second,
    "/more-headers": more_headers,
    "/close-with-reason": close_with_reason,
    "/close": close_plainly,
    "/leave": leave,
    "/fail": fail,
    "/fail-first": fail_first,
    "/leave-first": leave_first,
    "/deny": deny,
    "/deny-with-response": deny_with_response,
    "/wait-at-gate": wait_at_gate,
    "/flood": flood,
}


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    key = key_of(scope)
    if scope["path"] == "/open-gate":
        gates[key].set()
    shown = repr(notes[key]) if scope["path"] == "/notes" else f"{scope['method']} {scope['path']}"
    body = shown.encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await http(scope, receive, send)
    elif scope["type"] == "websocket":
        await WEBSOCKETS[scope["path"]](scope, receive, send)
    else:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
