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
    uint32_t forwarded      # which of the fields a proxy adds are there: 1 << (name_id - NAME_FORWARDED)

    # Fields in order of arrival
    int host                # index of the Host field, -1 when none (HTTP/1.0)
    uint32_t field_count
    uint32_t field_capacity
    Field* fields           # owned by the Head: new_head() to free_head()


cdef Head* new_head(Limits limits) except NULL
cdef void free_head(Head* head) noexcept nogil


# What the connection uses, besides the spans.

cdef enum Parsed:
    PARSED
    INCOMPLETE   # no verdict before more bytes come
    REFUSED      # progress.status, progress.reason


cdef struct Progress:
    size_t consumed     # PARSED: size of the head, with its last line
    size_t line_start   # INCOMPLETE: where the unfinished line begins ...
    bint request_line   # ... and whether it is the request line
    int status          # REFUSED
    const char* reason  # REFUSED: a literal


# The head at data[0:size], which begins with the request line (no empty lines before it). The outcome does not depend on how
# many bytes beyond the decisive one are there: a line is judged when its LF has come, or when it cannot fit any more.
cdef Parsed parse_head(Head* head, Limits limits, const char* data, size_t size, Progress* progress) noexcept nogil

# For an unfinished head of which `size` bytes are there, when none of the new ones was LF: INCOMPLETE, or REFUSED by a limit.
cdef Parsed check_unfinished(Limits limits, size_t size, Progress* progress) noexcept nogil

# The steps of parse_head, for another reader of heads: path, query, authority and the flags beside them from method and target ...
cdef Parsed parse_target(Head* head, Progress* progress) noexcept nogil
# ... one more field from its name and its trimmed value, both already known to hold only bytes they may hold ...
cdef void add_field(Head* head, const char* name, size_t name_size, const char* value, size_t value_size) noexcept nogil
# ... and everything that follows from the fields: framing, Host, persistence, Expect, Upgrade.
cdef Parsed parse_framing(Head* head, Progress* progress) noexcept nogil

# Lines as such: CRLF at the end of each, no other control but HTAB, none that starts with white space, within the limits. The
# head's extent for a reader that leaves the inside of the lines to another parser. Outcomes as of parse_head.
cdef Parsed measure_head(Limits limits, const char* data, size_t size, Progress* progress) noexcept nogil

cdef bint is_token(const char* data, size_t size) noexcept nogil
cdef bint is_value(const char* data, size_t size) noexcept nogil
# uri-host [":" port], RFC 3986 3.2.2
cdef bint is_authority(const char* data, size_t size) noexcept nogil
# 1*DIGIT that fits into 63 bits; -1 when it is none.
cdef int64_t parse_length(const char* data, size_t size) noexcept nogil
# Is `token` (lower case) among the comma-separated tokens of the value, in any case?
cdef bint has_token(const char* value, size_t size, const char* token, size_t token_size) noexcept nogil

# Percent-decodes into out, which has room for size bytes; a "%" without two hex digits behind it stays as it is. Returns the size.
cdef size_t unquote(const char* data, size_t size, char* out) noexcept nogil


cdef enum Chunk:
    CHUNK_DATA     # data, data_size
    CHUNK_MORE     # all bytes used but those of an unfinished trailer line
    CHUNK_END      # the trailer section has ended
    CHUNK_REFUSED  # progress.status, progress.reason


cdef struct ChunkDecoder:
    int state
    uint64_t left           # the size being read, then what is missing of the chunk's data
    uint64_t declared       # sum of the sizes so far
    int64_t extension       # bytes of extensions of this chunk
    int64_t extensions      # of this body
    int64_t trailers        # bytes of complete trailer lines
    size_t seen             # bytes of an unfinished trailer line that hold no LF


cdef void start_chunks(ChunkDecoder* decoder) noexcept nogil
# Decodes from *cursor up to `end`, moving *cursor over what was used, until there is something to say.
cdef Chunk decode_chunk(
    ChunkDecoder* decoder, Limits limits, const char** cursor, const char* end, const char** data, size_t* data_size,
    Progress* progress) noexcept nogil
