# Bytes of a response: status line, fields, framing fields, chunk framing, the Date line.
from libc.stdint cimport int64_t, uint64_t


cdef struct Buffer:
    char* data        # owned: malloc to free_buffer()
    size_t start      # first byte that has not left
    size_t size       # end of what was written
    size_t capacity


cdef int reserve(Buffer* buffer, size_t size) noexcept nogil     # room for size more bytes; -1: no memory
cdef int append(Buffer* buffer, const char* data, size_t size) noexcept nogil   # 0, or -1: no memory
cdef void free_buffer(Buffer* buffer) noexcept nogil


cdef enum WriteError:
    WRITE_OK = 0
    BAD_STATUS            # not 200-599
    BAD_REASON            # a control character
    BAD_NAME              # not a token
    BAD_VALUE             # CR, LF, NUL or another control but HTAB
    BAD_CONTENT_LENGTH    # not 1*DIGIT, overflow
    TWO_CONTENT_LENGTHS
    NO_MEMORY


cdef struct ResponseHead:
    # What the server must know of the fields an app gave, gathered while they are written.
    int status
    int64_t content_length  # the app's own; -1: none given
    bint has_date
    bint has_server
    bint close              # the app said Connection: close
    bint trailers           # set after write_status when trailers will be sent: a Trailer field of the app passes
    size_t mark             # buffer.size before the status line: rewinding to it takes the head back


cdef class DefaultFields:
    """Fields every response carries: Server, Date, and those of --header. One per process."""
    cdef bint date
    cdef bytes server         # b"Server: duckfast\r\n" or b""
    cdef bytes extra          # --header lines, each with CRLF

    # private: a Date of --header stands in for ours, and the bytes above as C sees them, alive as long as self
    cdef bytes extra_date_line
    cdef const char* server_data
    cdef size_t server_size
    cdef const char* extra_data
    cdef size_t extra_size
    cdef const char* extra_date_data
    cdef size_t extra_date_size


# Begins a response head: the status line. reason NULL: the standard phrase.
cdef WriteError write_status(
    Buffer* out, ResponseHead* head, int status, const char* reason, size_t reason_size) noexcept nogil

# One field of the app. Validates; swallows hop-by-hop fields (Connection, Keep-Alive, Transfer-Encoding, Upgrade, TE, Trailer
# unless trailers are announced by the server itself, Proxy-Connection), noting Connection: close; suppresses Content-Length
# from the output (noted in head.content_length: finish_head writes it).
cdef WriteError write_field(
    Buffer* out, ResponseHead* head, const char* name, size_t name_size, const char* value, size_t value_size,
) noexcept nogil

# The sentence for a WriteError, for the app's exception.
cdef str describe(WriteError error)

# "Mon, 23 Nov 2026 12:00:00 GMT" (29 bytes, RFC 9110 5.6.7), cached per second and per thread; also ends in no NUL.
cdef const char* http_date() noexcept nogil


# Begins an interim head (RFC 9110 15.2): the status line of 100-199. write_field follows, then append(out, "\r\n", 2).
cdef WriteError write_interim(Buffer* out, ResponseHead* head, int status) noexcept nogil


cdef enum Persistence:
    PERSISTENCE_UNSAID
    SAY_CLOSE
    SAY_KEEP_ALIVE


# Ends a head: Content-Length (when >= 0) or Transfer-Encoding: chunked, Date, Server, the extra fields, Connection, the blank line.
cdef WriteError end_head(
    Buffer* out, const ResponseHead* head, DefaultFields defaults, int64_t content_length, bint chunked,
    Persistence persistence) noexcept nogil

cdef const char* standard_reason(int status) noexcept nogil          # "Not Found"; "" when there is none
cdef int append_decimal(Buffer* buffer, uint64_t number) noexcept nogil
cdef int append_chunk_size(Buffer* buffer, uint64_t size) noexcept nogil  # lower-case hexadecimal and CRLF
