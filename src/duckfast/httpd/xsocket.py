"""xsocket: a client's or a server's socket as hooks see it, with timeouts per call and the same verbs for an event loop.

Knows sockets and loops; refuses to know HTTP. Around a real socket.socket, or around a ClientSocket for a connection of an
engine, which may be plain or TLS and may still be the engine's: it leaves it when it is first used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Any

from .._client import ClientSocket
from .settings import SETTINGS

RawSocket = socket.socket | ClientSocket


class xsocket:  # noqa: N801 (the name it has in the API that this is)
    """`xsocket(sock)`; whatever it does not have itself is the raw socket's. Attributes can be set freely.

    A `timeout` is in seconds for the whole call; None: as long as it takes. TimeoutError when it is over.
    """

    raw_socket: Any
    addr: Any
    flowinfo: int | None
    scopeid: int | None

    def __init__(self, raw_socket: RawSocket | xsocket) -> None:
        if isinstance(raw_socket, xsocket):
            raw_socket = raw_socket.raw_socket
        if isinstance(raw_socket, ssl.SSLSocket):
            raise TypeError("xsocket takes a plain socket.socket, not an ssl.SSLSocket")
        if not isinstance(raw_socket, (socket.socket, ClientSocket)):
            raise TypeError(f"xsocket takes a socket.socket, got {type(raw_socket).__name__}")
        self.raw_socket = raw_socket
        self.addr = self.flowinfo = self.scopeid = None

    def __getattr__(self, name: str) -> Any:
        if name == "raw_socket":  # not yet set: there is nothing to ask
            raise AttributeError(name)
        return getattr(self.raw_socket, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.raw_socket!r}>"

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return int(self.raw_socket.fileno())

    @property
    def closed(self) -> bool:
        return self.fileno() < 0

    def send(self, data: bytes, timeout: float | None = None) -> int:
        """Sends all of it, and returns its length."""
        with Timeout(self.raw_socket, timeout):
            self.raw_socket.sendall(data)
        return len(data)

    def recv(self, n: int | None = None, timeout: float | None = None) -> bytes:
        """Up to n bytes (SERVER_BUFFER of the settings); b"" at the end."""
        with Timeout(self.raw_socket, timeout):
            return bytes(self.raw_socket.recv(n or int(SETTINGS.SERVER_BUFFER)))

    def close(self, shutdown: bool = True) -> None:
        """Ends the connection; again does nothing. `shutdown`: also where a copy of the socket is open elsewhere."""
        raw = self.raw_socket
        if shutdown and isinstance(raw, socket.socket):
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        raw.close()

    async def async_send(self, data: bytes, timeout: float | None = None) -> int:
        """As send(), on the running loop."""
        async with asyncio.timeout(timeout):
            rest = memoryview(data)
            while rest:
                try:
                    rest = rest[self._at_once("send", rest) :]
                except BlockingIOError:
                    await self._ready(not self._crossed("write_wants_read"))
        return len(data)

    async def async_recv(self, n: int | None = None, timeout: float | None = None) -> bytes:
        """As recv(), on the running loop."""
        size = n or int(SETTINGS.SERVER_BUFFER)
        async with asyncio.timeout(timeout):
            while True:
                try:
                    return bytes(self._at_once("recv", size))
                except BlockingIOError:
                    await self._ready(self._crossed("read_wants_write"))

    def _at_once(self, verb: str, argument: Any) -> Any:
        """One send() or recv() that does not wait."""
        with Timeout(self.raw_socket, 0):
            return getattr(self.raw_socket, verb)(argument)

    def _crossed(self, name: str) -> bool:
        return isinstance(self.raw_socket, ClientSocket) and bool(getattr(self.raw_socket, name))

    async def _ready(self, to_write: bool) -> None:
        loop = asyncio.get_running_loop()
        fd = self.fileno()
        ready = loop.create_future()

        def tell() -> None:
            if not ready.done():
                ready.set_result(None)

        watch, unwatch = (loop.add_writer, loop.remove_writer) if to_write else (loop.add_reader, loop.remove_reader)
        watch(fd, tell)
        try:
            await ready
        finally:
            unwatch(fd)


class ssl_xsocket(xsocket):  # noqa: N801
    """The same for a TLS connection; its handshake is done."""

    def do_handshake(self, timeout: float | None = None) -> None:
        """Does nothing: the engine has done it, on its poller and under its own deadline."""

    async def async_do_handshake(self, timeout: float | None = None) -> None:
        """Does nothing, as do_handshake()."""

    def is_handshake_done(self) -> bool:
        return True

    def selected_alpn_protocol(self) -> str | None:
        return str(self.raw_socket.selected_alpn_protocol())


class Timeout:
    """`with Timeout(sock, 2):` the socket has this timeout meanwhile, and its own again afterwards."""

    def __init__(self, sock: RawSocket, timeout: float | None) -> None:
        self._socket = sock
        self._timeout = timeout

    def __enter__(self) -> None:
        self._before = self._socket.gettimeout()
        self._socket.settimeout(self._timeout)

    def __exit__(self, *details: object) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            self._socket.settimeout(self._before)


def create_xsocket(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> xsocket:
    """One around a new socket."""
    return xsocket(socket.socket(family, kind))


def wrap_client(client: ClientSocket, encrypted: bool | None = None) -> xsocket:
    """The xsocket of an engine's connection. `encrypted` spares asking it, which would take it from the engine."""
    if client.encrypted if encrypted is None else encrypted:
        return ssl_xsocket(client)
    return xsocket(client)
