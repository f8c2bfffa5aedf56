"""ASGI websockets."""

from duckfast._reactor import Service

class WebSocketService(Service):
    """Makes the exchanges of websockets for an ASGIService. window_bits: of permessage-deflate; None: without it."""

    max_size: int
    max_queue: int
    pings: bool
    window_bits: int | None

    def __init__(self, max_size: int, max_queue: int, pings: bool, window_bits: int | None) -> None: ...
