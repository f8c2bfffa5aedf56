"""Bytes of a response: what Python code may hand down and ask."""

from collections.abc import Iterable

class DefaultFields:
    """Fields every response carries: Server, Date, and those of --header. ValueError says what cannot be sent."""

    def __init__(
        self, server: bytes | str | None = b"duckfast", date: bool = True, extra: Iterable[tuple[str, str]] = ()
    ) -> None: ...

def format_date(second: int) -> bytes:
    """The IMF-fixdate (RFC 9110 5.6.7) of a number of seconds since 1970."""
