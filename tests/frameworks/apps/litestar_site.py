"""A Litestar application: bodies, validation, streams, uploads, lifespan."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, Request, get, post
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body
from litestar.response import Stream


@dataclass
class Duck:
    name: str
    age: int


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    app.state.greeting = "made in lifespan"
    yield
    print("shutdown of litestar_site", flush=True)


@get("/")
async def index(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return {"path": request.url.path, "query": dict(request.query_params)}


@post("/ducks")
async def add_duck(data: Duck) -> Duck:
    return data


@post("/body")
async def body(request: Request[Any, Any, Any]) -> bytes:
    return await request.body()


@get("/stream")
async def stream() -> Stream:
    async def lines() -> AsyncIterator[str]:
        for number in range(100):
            yield f"line {number}\n"

    return Stream(lines, media_type="text/plain")


@post("/upload")
async def upload(data: Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)]) -> dict[str, Any]:
    content = await data.read()
    return {"name": data.filename, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@get("/state")
async def state(state: State) -> dict[str, str]:
    return {"greeting": state.greeting}


@get("/sync", sync_to_thread=True)
def sync_view() -> dict[str, bool]:
    return {"sync": True}


@get("/error")
async def error() -> None:
    raise RuntimeError("secret of the view")


app = Litestar([index, add_duck, body, stream, upload, state, sync_view, error], lifespan=[lifespan])
