"""A FastAPI app (ASGI). Run it:  pip install fastapi && duckfast fastapi_app:app"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"greeting": "Hello from FastAPI"}  # every request finds this in request.state


app = FastAPI(lifespan=lifespan)


class Numbers(BaseModel):
    numbers: list[float]


@app.get("/")
async def hello() -> dict[str, str]:
    return {"message": "Hello from FastAPI"}


@app.post("/sum")
def add(body: Numbers) -> dict[str, float]:
    """A plain function: FastAPI runs it on its thread pool. Documented by itself at /docs."""
    return {"sum": sum(body.numbers)}
