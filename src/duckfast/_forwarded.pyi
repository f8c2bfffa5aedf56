"""What trusted proxies say of a request."""

from collections.abc import Sequence

from duckfast._trust import Proxies

class Forwarded:
    client: int
    client_host: str
    client_port: int
    scheme: str | None
    host: bytes | None
    server_host: str | None
    server_port: int | None
    prefix: str | None
    contradictory: bool

def read(fields: Sequence[tuple[bytes, bytes]], proxies: Proxies) -> Forwarded | None:
    """What these (name, value) pairs say, sent by a trusted peer. For tests."""
