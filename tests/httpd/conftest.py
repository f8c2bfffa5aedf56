"""What the tests of the class API share: servers that are started and stopped, and clients for them."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.wire import Response, Wire, request

sys.path.insert(0, str(Path(__file__).parent))  # for `import apps`

HAS_IPV6 = True
try:
    socket.create_server(("::1", 0), family=socket.AF_INET6).close()
except OSError:
    HAS_IPV6 = False

Ask = Callable[..., Response]


def ask(
    address: tuple[str, int],
    path: str = "/",
    body: bytes | None = None,
    *,
    method: str = "",
    headers: list[tuple[str, str]] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """One request on a connection of its own."""
    method = method or ("GET" if body is None else "POST")
    with Wire(address, tls=tls) as wire:
        wire.send(request(method, path, headers or [], body))
        return wire.read_response(method)


@pytest.fixture(name="ask")
def ask_fixture() -> Ask:
    return ask
