# Header names made once: the ASGI spelling (lower-case bytes) and the WSGI spelling (HTTP_ str) of the usual ones.
from libc.stdint cimport uint16_t, uint32_t


cdef enum Name:
    # 0 is "not a known name". The named ones are those some rule looks at; further ids only carry their interned spellings.
    NAME_UNKNOWN = 0
    NAME_HOST
    NAME_CONTENT_LENGTH
    NAME_CONTENT_TYPE
    NAME_TRANSFER_ENCODING
    NAME_CONNECTION
    NAME_KEEP_ALIVE
    NAME_UPGRADE
    NAME_EXPECT
    NAME_COOKIE
    NAME_TE
    NAME_FORWARDED          # RFC 7239, and its older relatives: what a proxy says of its client
    NAME_X_FORWARDED_FOR
    NAME_X_FORWARDED_PROTO
    NAME_X_FORWARDED_HOST
    NAME_X_FORWARDED_PORT
    NAME_X_FORWARDED_PREFIX # the last one that parse_framing looks at
    NAME_TRAILER
    NAME_DATE
    NAME_SERVER
    NAME_PROXY              # httpoxy: HTTP_PROXY is never made from it
    NAME_PROXY_CONNECTION
    NAME_SEC_WEBSOCKET_KEY
    NAME_SEC_WEBSOCKET_VERSION
    NAME_SEC_WEBSOCKET_PROTOCOL
    NAME_SEC_WEBSOCKET_EXTENSIONS
    NAME_FIRST_OTHER        # accept, user-agent, ... in the table of _headers.pyx


# The id of a field name in any case, or NAME_UNKNOWN.
cdef uint16_t find_name(const char* name, size_t size) noexcept nogil

# b"accept": new reference, interned when known; lower-cased copy otherwise.
cdef bytes asgi_name(uint16_t name_id, const char* name, size_t size)

# "HTTP_ACCEPT" (also "CONTENT_TYPE", "CONTENT_LENGTH"): new reference, interned when known.
cdef str wsgi_name(uint16_t name_id, const char* name, size_t size)
