"""Access lines, collected off the request's path and written in batches."""

from collections.abc import Callable
from typing import Any, Self

from duckfast._logformat import LogFormat

class Observation:
    request: dict[str, Any] | None  # the app's own: environ or scope; None: the app was never to be called
    response_head: bytes  # status line and fields; b"": none was written
    line: bytes  # the request line; of a refused request, as far as it came
    client: str
    status: int
    sent: int
    received: int
    seconds: float

class AccessLog:
    format: LogFormat
    path: str | None

    def __new__(
        cls,
        format: LogFormat,
        destination: int | str | None,
        tell: Callable[[str, dict[str, Any]], None] | None = None,
        observe: Callable[[Observation], object] | None = None,
    ) -> Self:
        """destination: a descriptor that stays the caller's, a path, or None for nowhere but tell(). Raises OSError."""

    def start(self) -> None:
        """Begin to write; without this, lines are collected until close()."""

    def reopen(self) -> None:
        """Lines from now on go to a newly opened file of the same path. Raises OSError; then the old file stays in use."""

    def close(self) -> None:
        """Write what is left and end the writer."""
