"""One ASGI call: scope, receive, send and the task that runs it, over a reactor inside the running loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from duckfast._client import ClientSocket
from duckfast._reactor import Desk, Reactor, Service

class ASGIExchange:
    def take(self, status: int = 0, into: ClientSocket | None = None) -> ClientSocket:
        """Take the connection, open, out of the server, for an app that answers on it by itself; on the loop.

        What is sent after it is ignored. status: what the access log is told; 0: there is no line. Raises OSError when the
        response has begun, or the client has left.
        """

class ASGIService(Service):
    reactor: Reactor
    @property
    def running(self) -> list[asyncio.Task[Any]]: ...

    def __init__(
        self,
        app: Callable[..., Any],
        loop: asyncio.AbstractEventLoop,
        *,
        state: dict[str, Any] | None = None,
        root_path: str = "",
        root_path_mode: str = "prefix",
        raise_on_disconnect: bool = True,
        websockets: Service | None = None,
    ) -> None: ...
    def attach(self, reactor: Reactor, desk: Desk) -> None:
        """Serve this reactor from the loop."""

    def in_flight(self) -> list[tuple[object, object, float]]:
        """(method, path, seconds since it began) of each application that has not ended. From any thread that holds the GIL."""

    def detach(self) -> None:
        """Take the reactor out of the loop."""
