# The header of the PROXY protocol, versions 1 and 2, out of the first bytes of a connection. No sockets, no objects.
from duckfast._trust cimport Address


cdef enum:
    # Of the address and the extensions together; what follows a longer header could not be looked at before it is taken.
    LONGEST_PROXY_HEADER = 16 * 1024   # bytes; HAProxy's own are up to a few hundred, a client certificate adds some thousand


cdef enum ProxyParsed:
    PROXY_INCOMPLETE   # no verdict before more bytes come
    PROXY_PARSED
    PROXY_REFUSED      # header.reason


cdef struct ProxyHeader:
    size_t size            # bytes of the whole header
    bint local             # the proxy speaks for itself: the connection's own addresses are the true ones
    bint https             # the client has spoken TLS to the proxy (v2 with the SSL extension)
    Address source         # family 0: the proxy does not say; AF_UNIX: a unix socket, octets and port are 0
    Address destination
    const char* reason     # a literal


# The header at the front of data[0:size]; versions: 1 for v1, 2 for v2, or both added. The verdict does not depend on what follows.
cdef ProxyParsed parse_proxy_header(ProxyHeader* header, int versions, const char* data, size_t size) noexcept nogil
