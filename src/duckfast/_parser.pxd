# Request head, framing and chunked decoding over bytes that somebody else owns. nogil, no objects.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from duckfast._limits cimport Limits


cdef struct Span:
    const char* data  # into the window the head was parsed from; dead after the connection's next feed(), poll() or settle()
    uint32_t size


cdef struct Field:
    Span name           # as sent, case kept
    Span value          # trimmed of SP and HTAB at both ends
    uint16_t name_id    # _headers.Name
    uint8_t underscore  # 1: the name holds "_": dropped from what apps see, never a framing field


cdef struct Head:
    # Request line, RFC 9112 3
    Span method
    Span target             # as sent
    Span path               # raw bytes, no query; "/" for an absolute form without path; "*" for asterisk form
    Span query              # after the first "?"; size 0 when absent
    Span authority          # of an absolute-form target: replaces Host; data NULL otherwise
    bint path_escaped       # the path holds "%"
    bint https              # absolute form with https
    int minor               # HTTP/1.minor as served: 0 or 1 (1.2 to 1.9 are served as 1)

    # Framing, RFC 9112 6
    int64_t content_length  # -1: no Content-Length
    bint chunked
    bint keep_alive         # RFC 9112 9.3, as the request asks
    bint expect_continue    # RFC 9110 10.1.1, never set on HTTP/1.0
    bint upgrade_websocket  # GET, HTTP/1.1, Upgrade: websocket, Connection: upgrade
    bint te_trailers        # TE: trailers
    int dropped             # fields with an underscore

    # Fields in order of arrival
    int host                # index of the Host field, -1 when none (HTTP/1.0)
    uint32_t field_count
    uint32_t field_capacity
    Field* fields           # owned by the Head: new_head() to free_head()


cdef Head* new_head(Limits limits) except NULL
cdef void free_head(Head* head) noexcept nogil
