"""The header of the PROXY protocol, versions 1 and 2."""

from typing import Any

def parse(data: bytes, versions: int = 3) -> dict[str, Any] | str | None:
    """For tests. None: more bytes are needed; a str: why it is refused; a dict: what the header says, and its size."""
