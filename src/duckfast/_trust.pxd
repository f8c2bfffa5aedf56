# Which peers are believed when they speak for others, and addresses as text and as bytes. No sockets, no fields.
from libc.stdint cimport uint8_t, uint16_t


cdef struct Address:
    int family            # AF_INET, AF_INET6 or AF_UNIX; 0: not known
    uint8_t octets[16]    # the first 4 for AF_INET; an IPv4-mapped IPv6 address is kept as IPv4
    uint16_t port         # 0: not known


cdef struct Network:
    int family
    uint8_t octets[16]
    int bits


cdef class TrustedPeers:
    cdef readonly bint everyone
    cdef readonly bint unix_sockets # peers on unix sockets
    cdef Network* _networks         # owned
    cdef int _count

    cdef bint trusts(self, int family, const uint8_t* octets) noexcept nogil


# What is believed, and of whom: handed down when a reactor is made.
cdef class Proxies:
    cdef readonly int fields               # which names say something: bits as of Head.forwarded; 0: none does
    cdef readonly TrustedPeers senders     # of those fields
    cdef readonly bint listens             # to anything that a sender may say: fields, or the rules below
    cdef readonly bint tells_schemes       # there are:
    cdef readonly list schemes             # (name in lower case, what its value is when the client has spoken TLS)
    cdef readonly list admitted            # names with underscores, in lower case, that are let in from senders ...
    cdef readonly bint admits_all          # ... or all of them
    cdef readonly bint refuses_underscores # a request with another such name is refused, in place of dropping the field
    cdef readonly int versions             # of the PROXY protocol that are accepted, as bits: 1 for v1, 2 for v2; 0: it is off
    cdef readonly TrustedPeers relays      # who speaks it


# "192.0.2.1", "2001:db8::1", "[2001:db8::1]" and with a port behind; False when it is none of these.
cdef bint parse_address(Address* address, const char* text, size_t size) noexcept nogil
# The bare address, of one family.
cdef bint parse_octets(Address* address, int family, const char* text, size_t size) noexcept nogil
# 1*5DIGIT, no more than 65535; -1 when it is none.
cdef int parse_port(const char* text, size_t size) noexcept nogil
# An IPv4 address in the clothes of IPv6 becomes one.
cdef void unmap(Address* address) noexcept nogil
# The usual text of an address; "" of a unix socket's and of an unknown one's.
cdef str describe_address(int family, const uint8_t* octets)
