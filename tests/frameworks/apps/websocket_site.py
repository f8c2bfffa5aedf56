"""Websocket endpoints of Starlette, FastAPI, Litestar, Django Channels and python-socketio behind one ASGI callable.

Each framework's endpoint is /<name>/echo: it takes the subprotocol `duck.v1` where it is offered, sends everything back, and
closes with 4002 when it is told "close me". What became of its clients is listed at /events, and /page is for a browser.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import fastapi
import litestar
import socketio
import starlette.applications
import starlette.routing
import starlette.websockets
from django.conf import settings
from litestar.exceptions import WebSocketDisconnect as LitestarDisconnect

settings.configure(SECRET_KEY="only for tests", INSTALLED_APPS=[])

import django  # noqa: E402  needs its settings

django.setup()

import channels.generic.websocket  # noqa: E402
import channels.routing  # noqa: E402
import django.urls  # noqa: E402

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PROTOCOL = "duck.v1"
CLOSE_ME = "close me"

events: list[str] = []
results: list[Any] = []


# Starlette and FastAPI, whose WebSocket is Starlette's ---------------------------------------------------------------


async def echo(websocket: starlette.websockets.WebSocket) -> None:
    name = websocket.url.path.split("/")[1]
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in websocket.scope["subprotocols"] else None)
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise starlette.websockets.WebSocketDisconnect(message["code"], message.get("reason"))
            if message.get("text") == CLOSE_ME:
                await websocket.close(4002, "as you wish")
                return
            if message.get("text") is not None:
                await websocket.send_text(message["text"])
            else:
                await websocket.send_bytes(message["bytes"])
    except starlette.websockets.WebSocketDisconnect as disconnect:
        events.append(f"{name} {int(disconnect.code)}")


starlette_app = starlette.applications.Starlette(routes=[starlette.routing.WebSocketRoute("/starlette/echo", echo)])

fastapi_app = fastapi.FastAPI()


@fastapi_app.websocket("/fastapi/echo")
async def fastapi_echo(websocket: fastapi.WebSocket) -> None:
    await echo(websocket)


@fastapi_app.websocket("/fastapi/ponds/{pond}")
async def fastapi_json(websocket: fastapi.WebSocket, pond: int, ducks: int = 1) -> None:
    """A path and a query parameter, and JSON both ways."""
    await websocket.accept()
    async for said in websocket.iter_json():
        await websocket.send_json({"pond": pond, "ducks": ducks, "said": said})


# Litestar -----------------------------------------------------------------------------------------------------------


@litestar.websocket("/litestar/echo")
async def litestar_echo(socket: litestar.WebSocket[Any, Any, Any]) -> None:
    await socket.accept(subprotocols=PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
    try:
        while True:
            message: Message = dict(await socket.receive())
            if message["type"] == "websocket.disconnect":
                raise LitestarDisconnect(code=message["code"], detail="gone")
            if message.get("text") == CLOSE_ME:
                await socket.close(4002, "as you wish")
                return
            data = message.get("text") if message.get("text") is not None else message["bytes"]
            await socket.send_data(data, mode="text" if isinstance(data, str) else "binary")
    except LitestarDisconnect as disconnect:
        events.append(f"litestar {int(disconnect.code)}")


litestar_app = litestar.Litestar([litestar_echo])


# Django Channels ----------------------------------------------------------------------------------------------------


class Echo(channels.generic.websocket.AsyncWebsocketConsumer):  # type: ignore[misc]
    async def connect(self) -> None:
        await self.accept(PROTOCOL if PROTOCOL in self.scope["subprotocols"] else None)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == CLOSE_ME:
            await self.close(4002, "as you wish")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        events.append(f"channels {int(code)}")


class SyncEcho(channels.generic.websocket.WebsocketConsumer):  # type: ignore[misc]
    """Its code runs on threads."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data, bytes_data=bytes_data)


channels_app = channels.routing.URLRouter(
    [django.urls.path("channels/echo", Echo.as_asgi()), django.urls.path("channels/sync", SyncEcho.as_asgi())]
)


# python-socketio ----------------------------------------------------------------------------------------------------

# A client that polls and leaves waits for the next ping.
socket_io = socketio.AsyncServer(async_mode="asgi", cors_allowed_origins="*", ping_interval=1)


@socket_io.event
async def quack(sid: str, data: Any) -> Any:
    """Answers by the acknowledgement and by an event to everybody."""
    await socket_io.emit("quacked", data)
    return data


@socket_io.event
async def disconnect(sid: str, reason: str) -> None:
    events.append("socketio left")


socketio_app = socketio.ASGIApp(socket_io)


# A page for a browser -----------------------------------------------------------------------------------------------

PAGE = """<!doctype html><title>ducks</title><script>
const base = location.origin.replace(/^http/, 'ws'), found = {};
const open = (path, protocols) => new Promise((resolve, reject) => {
  const ws = new WebSocket(base + path, protocols);
  ws.binaryType = 'arraybuffer';
  ws.onopen = () => resolve(ws);
  ws.onerror = () => reject(new Error('cannot open ' + path));
});
const next = ws => new Promise((resolve, reject) => {
  ws.onmessage = event => resolve(event.data);
  ws.onclose = event => reject(new Error('closed ' + event.code));
});
const closed = ws => new Promise(resolve => { ws.onclose = e => resolve([e.code, e.reason, e.wasClean]); });
const echo = async (ws, data) => { const answer = next(ws); ws.send(data); return answer; };
const report = async () => fetch('/results', {method: 'POST', body: JSON.stringify(found)});
(async () => {
  let ws = await open('/starlette/echo', ['other', 'duck.v1']);
  found.protocol = ws.protocol;
  found.extensions = ws.extensions;
  found.text = await echo(ws, 'Gänse \\u6c34\\u9ce5');
  const bytes = new Uint8Array(70000).map((_, i) => i * 7 % 251);
  const answer = new Uint8Array(await echo(ws, bytes));
  found.binary = answer.length === bytes.length && answer.every((byte, i) => byte === bytes[i]);
  const long = 'ducks '.repeat(200000);
  found.long = (await echo(ws, long)) === long;
  found.blob = (await echo(ws, new Blob(['a', 'blob']))).byteLength;
  let end = closed(ws);
  ws.send('close me');
  found.closed_by_server = await end;
  ws = await open('/channels/echo');
  end = closed(ws);
  ws.close(3001, 'done');
  found.closed_by_page = await end;
  found.refused = await open('/starlette/nowhere').then(() => 'opened', error => error.message);
})().catch(error => { found.error = String(error); }).finally(report);
</script>"""


async def respond(send: Send, body: str, kind: bytes = b"application/json") -> None:
    headers = [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", b"%d" % len(body.encode()))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


async def read_json(receive: Receive) -> Any:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return json.loads(body)


APPS = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
    "channels": channels_app,
    "socket.io": socketio_app,
}


async def application(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    first = scope["path"].split("/")[1]
    if first in APPS:
        await APPS[first](scope, receive, send)
    elif scope["path"] == "/page":
        await respond(send, PAGE, b"text/html")
    elif scope["path"] == "/results" and scope["method"] == "POST":
        results.append(await read_json(receive))
        await respond(send, "true")
    else:
        await respond(send, json.dumps(results if scope["path"] == "/results" else events))
