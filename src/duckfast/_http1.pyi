"""The state of one HTTP/1.x byte stream, and a door to it for tests, fuzzers and tools."""

from collections.abc import Iterable
from typing import Any, Self

from duckfast._limits import Limits
from duckfast._writer import DefaultFields

READING_MOVES: dict[int, set[int]]
WRITING_MOVES: dict[int, set[int]]
READING_NAMES: tuple[str, ...]
WRITING_NAMES: tuple[str, ...]

class HTTP1Connection:
    """One HTTP/1.x connection from bytes alone."""

    error_status: int
    head_request: bool
    minor: int
    request_keep_alive: bool
    request_complete: bool
    body_received: int
    head_sent: bool
    closing: bool

    def __new__(cls, limits: Limits, defaults: DefaultFields) -> Self: ...

class Probe:
    """A connection as Python sees it: bytes in, events as tuples out."""

    connection: HTTP1Connection
    unread: int
    kept: int
    between_requests: bool
    reading: str
    writing: str
    framing: str

    def __new__(cls, connection: HTTP1Connection) -> Self: ...
    def feed(self, data: bytes) -> None: ...
    def feed_eof(self) -> None: ...
    def settle(self) -> None: ...
    def poll(self) -> tuple[Any, ...]: ...
    def next_request(self) -> None: ...
    def start_response(
        self,
        status: int,
        fields: Iterable[tuple[bytes, bytes]] = (),
        *,
        reason: bytes | None = None,
        body_size: int = -1,
        trailers: bool = False,
    ) -> bytes:
        """The bytes of a response head; ValueError with the sentence for what is wrong in it."""

    def send(self, data: bytes) -> bytes: ...
    def finish(self, trailers: bytes = b"") -> tuple[bytes, str]: ...
    def refuse(self, status: int, reason: bytes | None = None) -> bytes: ...
    def close_after_response(self) -> None: ...
