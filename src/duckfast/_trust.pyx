"""Which peers are believed when they speak for others: trusted addresses and networks, compared as bytes.

Decided once per connection. Knows addresses, refuses to know sockets, header fields and settings.
"""

import ipaddress

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

cdef extern from "<sys/socket.h>":
    enum: AF_INET, AF_INET6, AF_UNIX

cdef extern from "<arpa/inet.h>":
    int inet_pton(int family, const char* text, void* address) nogil
    const char* inet_ntop(int family, const void* address, char* text, unsigned int size) nogil

cdef enum:
    ADDRESS_ROOM = 46    # INET6_ADDRSTRLEN: the longest text of an address, and its NUL
    PORT_DIGITS = 5

cdef uint8_t[12] MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]   # ::ffff:0:0/96, RFC 4291 2.5.5.2

FORWARDED_BITS = {b"forwarded": 1, b"x-forwarded-for": 2, b"x-forwarded-proto": 4, b"x-forwarded-host": 8,
                  b"x-forwarded-port": 16, b"x-forwarded-prefix": 32}


cdef class TrustedPeers:
    """Peers by address or network (`10.0.0.0/8`, `::1`), `unix` for those on unix sockets, `*` for all.

    Raises ValueError for anything else.
    """

    def __init__(self, peers):
        cdef Network* network
        peers = list(peers)
        free(self._networks)
        self._count = 0
        self._networks = <Network*>calloc(max(len(peers), 1), sizeof(Network))
        if self._networks == NULL:
            raise MemoryError
        for peer in peers:
            if peer == "*":
                self.everyone = True
                continue
            if peer == "unix":
                self.unix_sockets = True
                continue
            if "%" in peer:
                raise ValueError(f"{peer!r}: an interface cannot be trusted, only an address")
            found = ipaddress.ip_network(peer, strict=False)
            octets, bits = found.network_address.packed, found.prefixlen
            if found.version == 6 and bits >= 96 and octets[:12] == bytes(MAPPED[:12]):
                octets, bits = octets[12:], bits - 96
            network = &self._networks[self._count]
            network.family = AF_INET if len(octets) == 4 else AF_INET6
            network.bits = bits
            memcpy(network.octets, <const char*>octets, <size_t>len(octets))
            self._count += 1

    def __dealloc__(self):
        free(self._networks)

    cdef bint trusts(self, int family, const uint8_t* octets) noexcept nogil:
        cdef Network* network = self._networks
        cdef Network* end = network + self._count
        cdef int whole, rest
        if self.everyone:
            return True
        if family == AF_UNIX:
            return self.unix_sockets
        while network < end:
            whole = network.bits >> 3
            rest = 8 - (network.bits & 7)
            if network.family == family and memcmp(network.octets, octets, whole) == 0 and (
                rest == 8 or network.octets[whole] >> rest == octets[whole] >> rest
            ):
                return True
            network += 1
        return False

    def __contains__(self, str peer) -> bool:
        """Whether an address is trusted; `unix` stands for a peer on a unix socket."""
        cdef Address address
        memset(&address, 0, sizeof(address))
        if peer == "unix":
            return self.trusts(AF_UNIX, address.octets)
        text = peer.encode()
        return parse_address(&address, text, <size_t>len(text)) and self.trusts(address.family, address.octets)


cdef class Proxies:
    """What is believed of proxies, and of which.

    fields: names in lower case, as bytes, of the fields that say something when one of `senders` sends them; versions: of
    the PROXY protocol that every connection must begin with (1, 2 or both; none: no connection does), and then only from
    one of `relays`. schemes: pairs of a name and the value by which a sender says that the client has spoken TLS; any other
    value says that it has not. admitted: names with underscores that are let in from senders, b"*" for all; others are dropped,
    or with refuse_underscores the request is refused. Names are in lower case.
    """

    def __init__(self, fields=(), senders=(), versions=(), relays=(), schemes=(), admitted=(), bint refuse_underscores=False):
        for name in fields:
            self.fields |= FORWARDED_BITS[name]
        self.senders = TrustedPeers(senders)
        for version in versions:
            self.versions |= {1: 1, 2: 2}[version]
        self.relays = TrustedPeers(relays)
        self.schemes = [(bytes(name), bytes(value)) for name, value in schemes]
        self.tells_schemes = bool(self.schemes)
        self.admitted = [bytes(name) for name in admitted]
        self.admits_all = b"*" in self.admitted
        self.refuses_underscores = refuse_underscores
        self.listens = self.fields != 0 or bool(self.schemes) or bool(self.admitted)


cdef bint parse_octets(Address* address, int family, const char* text, size_t size) noexcept nogil:
    cdef char copy[ADDRESS_ROOM]
    if size == 0 or size >= ADDRESS_ROOM or memchr(text, 0, size) != NULL:
        return False
    memcpy(copy, text, size)
    copy[size] = 0
    memset(address.octets, 0, 16)
    if inet_pton(family, copy, address.octets) != 1:
        return False
    address.family = family
    return True


cdef void unmap(Address* address) noexcept nogil:
    if address.family == AF_INET6 and memcmp(address.octets, MAPPED, 12) == 0:
        address.family = AF_INET
        memcpy(address.octets, address.octets + 12, 4)
        memset(address.octets + 4, 0, 12)


cdef int parse_port(const char* text, size_t size) noexcept nogil:
    cdef int port = 0
    cdef size_t index
    if size == 0 or size > PORT_DIGITS:
        return -1
    for index in range(size):
        if not c"0" <= text[index] <= c"9":
            return -1
        port = port * 10 + text[index] - c"0"
    return port if port <= 65535 else -1


cdef bint parse_address(Address* address, const char* text, size_t size) noexcept nogil:
    cdef const char* colon
    cdef const char* end = text + size
    cdef int port
    address.port = 0
    if size == 0:
        return False
    if text[0] == c"[":
        colon = <const char*>memchr(text, c"]", size)
        if colon == NULL or not parse_octets(address, AF_INET6, text + 1, colon - text - 1):
            return False
        unmap(address)
        colon += 1
        if colon == end:
            return True
        if colon[0] != c":":
            return False
    else:
        colon = <const char*>memchr(text, c":", size)
        if colon == NULL:
            return parse_octets(address, AF_INET, text, size)
        if memchr(colon + 1, c":", end - colon - 1) != NULL:   # two colons: IPv6 without its brackets, so there is no port
            if not parse_octets(address, AF_INET6, text, size):
                return False
            unmap(address)
            return True
        if not parse_octets(address, AF_INET, text, colon - text):
            return False
    port = parse_port(colon + 1, end - colon - 1)
    address.port = <uint16_t>max(port, 0)
    return port >= 0


cdef str describe_address(int family, const uint8_t* octets):
    cdef char text[ADDRESS_ROOM]
    cdef size_t size = 0
    cdef int index
    if family == AF_INET:   # by hand: a tenth of what inet_ntop takes for it, and every request behind a proxy needs it
        for index in range(4):
            size += _write_octet(text + size, octets[index])
            text[size] = c"."
            size += 1
        return PyUnicode_DecodeASCII(text, size - 1, NULL)
    if family != AF_INET6 or inet_ntop(family, octets, text, sizeof(text)) == NULL:
        return ""
    return PyUnicode_DecodeASCII(text, strlen(text), NULL)


cdef size_t _write_octet(char* text, uint8_t number) noexcept nogil:
    cdef size_t size = 0
    if number >= 100:
        text[size] = c"0" + number // 100
        size += 1
    if number >= 10:
        text[size] = c"0" + number // 10 % 10
        size += 1
    text[size] = c"0" + number % 10
    return size + 1


def read_address(bytes text) -> tuple[str, int] | None:
    """An address and its port (0: none is given) out of "192.0.2.1:80" or "[2001:db8::1]"; None when it is no address."""
    cdef Address address
    if not parse_address(&address, text, <size_t>len(text)):
        return None
    return describe_address(address.family, address.octets), address.port
