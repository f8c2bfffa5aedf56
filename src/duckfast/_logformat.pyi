"""Access log formats, compiled: what is noted of a request and how it becomes a line."""

from collections.abc import Iterable

from duckfast.logformat import Step

class LogFormat:
    wants_response: bool
    wants_scheme: bool

    def __init__(self, steps: Iterable[Step], request_id_field: str = "", for_records: bool = False) -> None: ...
    def line(
        self,
        request: bytes,
        *,
        refused: bool = False,
        response: bytes = b"",
        client: bytes = b"127.0.0.1",
        status: int = 200,
        sent: int = 0,
        received: int = 0,
        duration: int = 0,
        https: bool = False,
        room: int | None = None,
    ) -> bytes | None:
        """The line of one request from its head's bytes; None when it does not fit into `room` bytes."""
