"""A Starlette application: streams, files, BaseHTTPMiddleware, disconnects, lifespan state."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

events: list[str] = []


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"visits": []}
    print("shutdown of starlette_site", flush=True)


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Stamp"] = "stamped"
        return response


async def index(request: Request) -> Response:
    request.state.visits.append(request.url.path)
    return JSONResponse({"path": request.url.path, "query": dict(request.query_params), "visits": len(request.state.visits)})


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/octet-stream")


async def echo_stream(request: Request) -> Response:
    """The request's body goes back while it is still coming in."""

    async def blocks() -> AsyncIterator[bytes]:
        async for block in request.stream():
            yield block

    return StreamingResponse(blocks())


async def stream(request: Request) -> Response:
    async def lines() -> AsyncIterator[str]:
        for number in range(100):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain", background=BackgroundTask(events.append, "after stream"))


async def endless(request: Request) -> Response:
    async def blocks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            events.append("endless ended")

    return StreamingResponse(blocks())


async def upload_to_nowhere(request: Request) -> Response:
    events.append("uploading")
    try:
        async for _ in request.stream():
            pass
    except ClientDisconnect:
        events.append("upload broken off")
        raise
    return PlainTextResponse("complete")


async def file(request: Request) -> Response:
    return FileResponse(os.environ["STARLETTE_FILE"], media_type="application/octet-stream")


async def wait_for_disconnect(request: Request) -> Response:
    events.append("waiting for the disconnect")
    while not await request.is_disconnected():
        await asyncio.sleep(0.005)
    events.append("saw the disconnect")
    return PlainTextResponse("nobody reads this")


async def error(request: Request) -> Response:
    raise RuntimeError("secret of the view")


async def show_events(request: Request) -> Response:
    gc.collect()  # an abandoned async generator ends when it is collected, and not before
    return JSONResponse(events)


routes = [
    Route("/", index, methods=["GET", "HEAD"]),
    Route("/echo", echo, methods=["POST"]),
    Route("/echo-stream", echo_stream, methods=["POST"]),
    Route("/stream", stream),
    Route("/endless", endless),
    Route("/upload-to-nowhere", upload_to_nowhere, methods=["POST"]),
    Route("/file", file),
    Route("/wait-for-disconnect", wait_for_disconnect),
    Route("/error", error),
    Route("/events", show_events),
]
stamped = Starlette(routes=routes, middleware=[Middleware(Stamp)])
zipped = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware)])
app = Starlette(routes=[*routes, Mount("/stamped", stamped), Mount("/zipped", zipped)], lifespan=lifespan)
