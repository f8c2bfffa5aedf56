"""permessage-deflate (RFC 7692) of one websocket."""

class Compression:
    """What was agreed in a handshake. Bits: windows of what is sent and what is received; takeover: contexts outlive messages."""

    out_bits: int
    in_bits: int
    out_takeover: bool
    in_takeover: bool

    def __init__(
        self, out_bits: int = 15, in_bits: int = 15, out_takeover: bool = True, in_takeover: bool = True
    ) -> None: ...
    def streams(self) -> tuple[bool, bool, int]:
        """Whether there is a compressor now, and a decompressor, and the bytes of history kept in place of the latter."""

    def rest(self) -> None:
        """Gives up what is not needed while nothing is said."""
