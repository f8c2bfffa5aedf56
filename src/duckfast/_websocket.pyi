"""Frames and messages of one websocket (RFC 6455), and a door to them for tests, fuzzers and tools."""

from typing import Any, Self

from duckfast._deflate import Compression

class WebSocketConnection:
    """One end of a websocket from bytes alone."""

    client: bool
    close_code: int
    close_reason: str | None
    close_sent: bool

    def __new__(cls, max_size: int, compression: Compression | None = None, client: bool = False) -> Self: ...

class Probe:
    """One end of a websocket as Python sees it: bytes in, events as tuples out."""

    connection: WebSocketConnection
    unread: int
    kept: int
    stored: int

    def __new__(cls, connection: WebSocketConnection) -> Self: ...
    def feed(self, data: bytes) -> None: ...
    def settle(self) -> None: ...
    def rest(self) -> None: ...
    def stop_reading(self) -> None: ...
    def poll(self) -> tuple[Any, ...]:
        """("nothing",), ("text", str), ("binary", bytes), ("ping", bytes), ("pong", bytes), ("close", code, reason) or
        ("failure", code, what was wrong)."""

    def send(self, message: str | bytes) -> bytes:
        """The bytes of a whole message, compressed if that was agreed and is worth it."""

    def frame(self, opcode: int, payload: bytes = b"") -> bytes:
        """The bytes of one frame, whatever it is."""

    def head(self, opcode: int, size: int) -> bytes:
        """The head of a server's frame whose payload goes another way."""

    def compressed(self, message: str | bytes) -> bytes:
        """The bytes of a whole message, compressed whether it is worth it or not."""

    def close(self, code: int = 1005, reason: str = "") -> bytes: ...

def is_valid_close_code(code: int) -> bool:
    """Whether a close frame may hold it."""
