"""Framework applications on real servers, with a client for each: what tests/frameworks is built on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from support.process import ServerProcess
from support.wire import Wire

APPS = Path(__file__).parents[1] / "frameworks" / "apps"

ASGI_WAYS = {
    "uvloop": ("--interface", "asgi", "--loop", "uvloop"),
    "asyncio": ("--interface", "asgi", "--loop", "asyncio"),
}
WSGI_WAYS = {
    "wsgi": ("--interface", "wsgi"),
    "wsgi, one thread": ("--interface", "wsgi", "--threads", "1"),
}


class Site:
    """A started application and an HTTP client for it."""

    def __init__(self, server: ServerProcess, client: httpx.Client) -> None:
        self.server = server
        self.client = client

    def connect(self) -> Wire:
        """A connection on which bytes are written and read by hand."""
        return Wire((self.server.host, self.server.port))


@contextmanager
def serving(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Serve an application of tests/frameworks/apps until the end of the block."""
    with (
        ServerProcess(options, cwd=APPS, env=env) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield Site(server, client)
