"""What TLS connections are made with."""

import ssl
from collections.abc import Iterable, Sequence

class TLSEndpoint:
    contexts: list[ssl.SSLContext]
    io: str

    def __init__(
        self,
        entries: Iterable[tuple[ssl.SSLContext, Sequence[str]]],
        *,
        io: str = "auto",
        ticket_keys: bytes = b"",
    ) -> None: ...
