"""Talking to the probe applications of tests/conformance: scenarios go out as headers, notes come back as literals."""

from __future__ import annotations

import ast
import itertools
import os
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from support.process import ServerProcess
from support.wire import Address, Response, Wire, eventually, request

_numbers = itertools.count(1)

Headers = Iterable[tuple[str, str | bytes]]


def new_key() -> str:
    """A name for one test's notes and gates; unique also across test processes that share a server log."""
    return f"key-{os.getpid()}-{next(_numbers)}"


class Probe:
    """A started server with one of the probe applications behind it."""

    def __init__(
        self,
        server: ServerProcess,
        address: Address | None = None,
        interface: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.server = server
        self.interface = interface  # "asgi" or "wsgi", for tests that run on both and must know
        self.tls = tls
        self.address: Address = (server.host, server.port) if address is None else address

    def connect(self, *, receive_buffer: int | None = None) -> Wire:
        return Wire(self.address, receive_buffer=receive_buffer, tls=self.tls)

    def request(
        self,
        scenario: str,
        key: str = "",
        *,
        method: str = "GET",
        target: bytes | str = "/",
        headers: Headers = (),
        body: bytes | None = None,
        version: str = "1.1",
        **arguments: str,
    ) -> bytes:
        """The bytes of a request for a scenario; `arguments` become its X-Name headers."""
        fields: list[tuple[str, str | bytes]] = [("X-Scenario", scenario)]
        if key:
            fields.append(("X-Key", key))
        fields += [(f"X-{name}", value) for name, value in arguments.items()]
        return request(method, target, [*fields, *headers], body, version=version)

    def ask(self, scenario: str, key: str = "", *, method: str = "GET", **options: Any) -> Response:
        """One scenario on a connection of its own; its complete response."""
        with self.connect() as wire:
            wire.send(self.request(scenario, key, method=method, **options))
            return wire.read_response(method)

    def value(self, scenario: str, key: str = "", **options: Any) -> Any:
        """The Python value that a scenario answered with."""
        response = self.ask(scenario, key, **options)
        assert response.status == 200, response
        return literal(response)

    def notes(self, key: str) -> list[Any]:
        notes: list[Any] = self.value("show_notes", key)
        return notes

    def wait_for_notes(self, key: str, enough: int | Callable[[list[Any]], bool] = 1) -> list[Any]:
        """The notes under `key` once there are so many, or once they satisfy `enough`."""
        satisfied = (lambda notes: len(notes) >= enough) if isinstance(enough, int) else enough
        latest: list[Any] = []

        def look() -> bool:
            latest[:] = self.notes(key)
            return satisfied(latest)

        eventually(look, f"notes of {key}")
        return latest

    def open_gate(self, key: str) -> None:
        assert self.ask("open_gate", key).status == 200

    def wait_until_stalled(self, key: str) -> int:
        """The first note of `key`, a number, once it no longer grows although the application gets its turns.

        Each look is a whole request through the same server, so a number that stands still over many looks belongs to
        an application that is being held back.
        """
        looks = 0
        latest = -1
        while looks < 50:
            number = int(self.notes(key)[0])
            looks = looks + 1 if number == latest else 0
            latest = number
        return latest


StartProbe = Callable[..., Probe]


def literal(response: Response) -> Any:
    return ast.literal_eval(response.text)
