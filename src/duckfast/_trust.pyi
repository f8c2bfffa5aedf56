"""Which peers are believed when they speak for others."""

from collections.abc import Iterable

class TrustedPeers:
    everyone: bool
    unix_sockets: bool

    def __init__(self, peers: Iterable[str]) -> None:
        """Addresses, networks, `unix` and `*`. Raises ValueError for anything else."""

    def __contains__(self, peer: str) -> bool:
        """Whether an address is trusted; `unix` stands for a peer on a unix socket."""

class Proxies:
    fields: int
    senders: TrustedPeers
    versions: int
    relays: TrustedPeers

    def __init__(
        self,
        fields: Iterable[bytes] = (),
        senders: Iterable[str] = (),
        versions: Iterable[int] = (),
        relays: Iterable[str] = (),
        schemes: Iterable[tuple[bytes, bytes]] = (),
        admitted: Iterable[bytes] = (),
        refuse_underscores: bool = False,
    ) -> None:
        """Fields (lower-case names) that are believed when one of `senders` sends them; PROXY protocol versions of `relays`.

        schemes: fields of senders that tell of TLS, with the value that does. admitted: names with underscores that senders may
        send; refuse_underscores: others are not dropped, the request is refused.
        """

def read_address(text: bytes) -> tuple[str, int] | None:
    """An address and its port (0: none is given) out of "192.0.2.1:80" or "[2001:db8::1]"; None when it is no address."""
