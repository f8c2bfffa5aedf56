"""Limits (what a connection may do) and Counters (where it counts). Sizes are bytes, times seconds, None: no limit."""

class Limits:
    def __init__(
        self,
        request_line: int = 8190,
        *,
        field_line: int = 8190,
        fields: int = 100,
        head: int = 65536,
        body: int | None = None,
        chunk_extensions: int = 16384,
        trailers: int = 8192,
        drain: int = 65536,
        body_buffer: int = 65536,
        connections: int | None = None,
        head_time: float | None = 10.0,
        body_time: float | None = 30.0,
        keep_alive_time: float | None = 5.0,
        write_time: float | None = 60.0,
        drain_time: float | None = 5.0,
        request_time: float | None = None,
        handshakes: int = 1024,
        handshake_time: float | None = 10.0,
    ) -> None: ...

class Counters:
    def snapshot(self) -> dict[str, int]:
        """The counters by name, as `totals()` sums them."""

def totals() -> dict[str, int]:
    """The live counters of this process, summed over its reactors."""
