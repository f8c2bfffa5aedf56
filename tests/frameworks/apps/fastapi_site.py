"""A FastAPI application: validation, thread pool, streams, background tasks, uploads, lifespan, dependencies, disconnects."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Form, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

events: list[str] = []
background_may_end = asyncio.Event()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    events.append("startup")
    yield {"greeting": "made in lifespan"}
    print("shutdown of fastapi_site", flush=True)


app = FastAPI(lifespan=lifespan)


class Duck(BaseModel):
    name: str = Field(min_length=1)
    age: int = Field(ge=0)


async def connection() -> AsyncIterator[str]:
    events.append("dependency opened")
    try:
        yield "a connection"
    finally:
        events.append("dependency closed")


@app.post("/ducks")
async def add_duck(duck: Duck) -> Duck:
    return duck


@app.get("/thread")
def in_thread(request: Request) -> dict[str, Any]:
    return {"main": threading.current_thread() is threading.main_thread(), "path": request.url.path}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(100):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/endless")
async def endless() -> StreamingResponse:
    async def blocks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)
        finally:
            events.append("endless ended")

    return StreamingResponse(blocks())


async def work(name: str) -> None:
    events.append(f"background {name} began")
    await background_may_end.wait()
    events.append(f"background {name} ended")


@app.post("/background/{name}")
async def background(name: str, tasks: BackgroundTasks) -> str:
    tasks.add_task(work, name)
    return "accepted"


@app.post("/background-may-end")
async def let_background_end() -> str:
    background_may_end.set()
    return "ok"


@app.post("/upload")
async def upload(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while chunk := await file.read(1024 * 1024):
        digest.update(chunk)
        size += len(chunk)
    return {"name": file.filename, "size": size, "sha256": digest.hexdigest(), "note": note}


@app.get("/state")
async def state(request: Request) -> dict[str, str]:
    return {"greeting": request.state.greeting}


@app.get("/dependency")
async def dependency(value: Annotated[str, Depends(connection)]) -> str:
    return value


@app.get("/dependency-error")
async def dependency_error(value: Annotated[str, Depends(connection)]) -> str:
    raise RuntimeError("secret of the view")


@app.get("/wait-for-disconnect")
async def wait_for_disconnect(request: Request) -> str:
    events.append("waiting for the disconnect")
    while not await request.is_disconnected():
        await asyncio.sleep(0.005)
    events.append("saw the disconnect")
    return "nobody reads this"


@app.get("/events")
async def show_events() -> list[str]:
    gc.collect()  # an abandoned async generator ends when it is collected, and not before
    return events
