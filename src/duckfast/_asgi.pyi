"""One ASGI call: scope, receive, send and the task that runs it, over a reactor inside the running loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from duckfast._reactor import Desk, Reactor, Service

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
    ) -> None: ...
    def attach(self, reactor: Reactor, desk: Desk) -> None:
        """Serve this reactor from the loop."""

    def in_flight(self) -> list[tuple[object, object, float]]:
        """(method, path, seconds since it began) of each application that has not ended. From any thread that holds the GIL."""

    def detach(self) -> None:
        """Take the reactor out of the loop."""
