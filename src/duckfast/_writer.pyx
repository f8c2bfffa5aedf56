"""Bytes of a response: status line, fields, framing fields, chunk sizes, the Date line. Decides nothing about connections.

What an application gives is checked before a byte of it is written: no line of a head can be made of a value.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from duckfast._headers cimport (
    NAME_CONNECTION, NAME_CONTENT_LENGTH, NAME_DATE, NAME_KEEP_ALIVE, NAME_PROXY_CONNECTION, NAME_SERVER, NAME_TE,
    NAME_TRAILER, NAME_TRANSFER_ENCODING, NAME_UPGRADE, find_name)
from duckfast._parser cimport has_token, is_token, is_value, parse_length
from duckfast._scan cimport BYTE_CLASS, BYTE_TOKEN, scan_name, scan_value

cdef extern from *:
    """
    #include <time.h>
    #include <stdio.h>

    /* IMF-fixdate as a whole field line, made anew when the second changes. One per thread: no lock, no torn reads. */
    static __thread time_t duckfast_date_second = (time_t)-1;
    static __thread char duckfast_date[40];

    static time_t duckfast_now(void) {
    #ifdef CLOCK_REALTIME_COARSE
        struct timespec now;  /* a few milliseconds late at most, and an order of magnitude cheaper */
        if (clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0) return now.tv_sec;
    #endif
        return time(NULL);
    }

    static void duckfast_format_date(time_t second, char *into) {
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm at;
        char text[64];
        gmtime_r(&second, &at);
        snprintf(text, sizeof text, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\\r\\n", days + 3 * at.tm_wday,
                 at.tm_mday, months + 3 * at.tm_mon, at.tm_year + 1900, at.tm_hour, at.tm_min, at.tm_sec);
        memcpy(into, text, 37);
    }

    static const char *duckfast_date_line(void) {
        time_t now = duckfast_now();
        if (now != duckfast_date_second) {
            duckfast_format_date(now, duckfast_date);
            duckfast_date_second = now;
        }
        return duckfast_date;
    }
    """
    const char* duckfast_date_line() noexcept nogil
    void duckfast_format_date(long second, char* into) noexcept nogil

cdef enum:
    DATE_LINE = 37     # "Date: " 29 bytes CRLF
    SMALLEST = 512     # bytes of a buffer's first allocation: most heads fit
    STATUSES = 600
    NUMBER_ROOM = 20   # digits of 2**64

# RFC 9110 15 and the IANA registry.
_REASONS = {
    100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
    205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
    409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
    418: "I'm a teapot", 421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked",
    424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
    507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}

_ERRORS = {
    BAD_STATUS: "the status must be a number from 200 to 599",
    BAD_REASON: "the reason phrase holds a control character",
    BAD_NAME: "a field name is not a token (letters, digits and a few signs, no space, no colon)",
    BAD_VALUE: "a field value holds CR, LF, NUL or another control character",
    BAD_CONTENT_LENGTH: "Content-Length is not a decimal number that fits into 63 bits",
    TWO_CONTENT_LENGTHS: "Content-Length is given more than once",
    NO_MEMORY: "out of memory",
}

# Fields that the server itself writes or that frame a message: --header cannot add them.
_RESERVED = frozenset((
    "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"))

# The status lines with their standard reasons; NULL where there is none. Alive as long as the process: _lines keeps them.
cdef const char* _line_data[STATUSES]
cdef size_t _line_size[STATUSES]
cdef const char* _reasons[STATUSES]
_lines = {status: b"HTTP/1.1 %d %s\r\n" % (status, reason.encode()) for status, reason in _REASONS.items()}
_phrases = {status: reason.encode() for status, reason in _REASONS.items()}


def _fill() -> None:
    cdef int status
    for status in _REASONS:
        _line_data[status] = PyBytes_AS_STRING(_lines[status])
        _line_size[status] = <size_t>len(_lines[status])
        _reasons[status] = PyBytes_AS_STRING(_phrases[status])


_fill()


# Buffers -------------------------------------------------------------------------------------------------------------

cdef int reserve(Buffer* buffer, size_t size) noexcept nogil:
    cdef size_t capacity
    cdef char* data
    if buffer.capacity - buffer.size >= size:
        return 0
    # Offsets stay as they are, so that ResponseHead.mark does.
    capacity = max(buffer.size + size, buffer.capacity * 2, <size_t>SMALLEST)
    data = <char*>realloc(buffer.data, capacity)
    if data is NULL:
        return -1
    buffer.data = data
    buffer.capacity = capacity
    return 0


cdef inline void _put(Buffer* buffer, const char* data, size_t size) noexcept nogil:
    # Room was reserved.
    memcpy(buffer.data + buffer.size, data, size)
    buffer.size += size


cdef int append(Buffer* buffer, const char* data, size_t size) noexcept nogil:
    if size == 0:
        return 0
    if reserve(buffer, size) < 0:
        return -1
    _put(buffer, data, size)
    return 0


cdef void free_buffer(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.start = 0
    buffer.size = 0
    buffer.capacity = 0


cdef inline void _put_decimal(Buffer* buffer, uint64_t number) noexcept nogil:
    cdef char digits[NUMBER_ROOM]
    cdef int position = NUMBER_ROOM
    while True:
        position -= 1
        digits[position] = <char>(c"0" + number % 10)
        number //= 10
        if number == 0:
            break
    _put(buffer, digits + position, <size_t>(NUMBER_ROOM - position))


cdef int append_decimal(Buffer* buffer, uint64_t number) noexcept nogil:
    if reserve(buffer, NUMBER_ROOM) < 0:
        return -1
    _put_decimal(buffer, number)
    return 0


cdef int append_chunk_size(Buffer* buffer, uint64_t size) noexcept nogil:
    cdef char digits[NUMBER_ROOM]
    cdef int position = NUMBER_ROOM
    if reserve(buffer, NUMBER_ROOM) < 0:
        return -1
    position -= 2
    digits[position] = c"\r"
    digits[position + 1] = c"\n"
    while True:
        position -= 1
        digits[position] = (<const char*>b"0123456789abcdef")[size & 15]
        size >>= 4
        if size == 0:
            break
    _put(buffer, digits + position, <size_t>(NUMBER_ROOM - position))
    return 0


# Heads ---------------------------------------------------------------------------------------------------------------

cdef const char* http_date() noexcept nogil:
    return duckfast_date_line() + 6  # behind "Date: "


cdef const char* standard_reason(int status) noexcept nogil:
    if status < 100 or status >= STATUSES or _reasons[status] is NULL:
        return b""
    return _reasons[status]


cdef WriteError write_status(
    Buffer* out, ResponseHead* head, int status, const char* reason, size_t reason_size) noexcept nogil:
    if status < 200 or status >= STATUSES:
        return BAD_STATUS
    if reason is not NULL and not is_value(reason, reason_size):
        return BAD_REASON
    return _begin(out, head, status, reason, reason_size)


cdef WriteError write_interim(Buffer* out, ResponseHead* head, int status) noexcept nogil:
    if status < 100 or status >= 200:
        return BAD_STATUS
    return _begin(out, head, status, NULL, 0)


cdef WriteError _begin(
    Buffer* out, ResponseHead* head, int status, const char* reason, size_t reason_size) noexcept nogil:
    head.status = status
    head.content_length = -1
    head.has_date = False
    head.has_server = False
    head.close = False
    head.trailers = False
    head.mark = out.size
    if reason is NULL and _line_data[status] is not NULL:
        return WRITE_OK if append(out, _line_data[status], _line_size[status]) == 0 else NO_MEMORY
    if reserve(out, reason_size + 16) < 0:
        return NO_MEMORY
    _put(out, b"HTTP/1.1 ", 9)
    _put_decimal(out, <uint64_t>status)
    _put(out, b" ", 1)  # RFC 9112 4: the space stays when the reason is empty
    if reason is not NULL:
        _put(out, reason, reason_size)
    _put(out, b"\r\n", 2)
    return WRITE_OK


cdef inline bint _is_name(const char* name, size_t size) noexcept nogil:
    cdef const char* end = name + size
    cdef const char* cursor = scan_name(name, end)
    while cursor < end and BYTE_CLASS[<unsigned char>cursor[0]] & BYTE_TOKEN:
        cursor += 1
    return cursor == end and size > 0


cdef WriteError write_field(
    Buffer* out, ResponseHead* head, const char* name, size_t name_size, const char* value, size_t value_size,
) noexcept nogil:
    cdef uint16_t name_id
    if not _is_name(name, name_size):
        return BAD_NAME
    if scan_value(value, value + value_size) != value + value_size:
        return BAD_VALUE
    name_id = find_name(name, name_size)
    if 0 < name_id <= NAME_PROXY_CONNECTION and _note(head, name_id, value, value_size):
        if name_id == NAME_CONTENT_LENGTH:
            return _note_length(head, value, value_size)
        return WRITE_OK
    if reserve(out, name_size + value_size + 4) < 0:
        return NO_MEMORY
    _put(out, name, name_size)
    _put(out, b": ", 2)
    _put(out, value, value_size)
    _put(out, b"\r\n", 2)
    return WRITE_OK


cdef bint _note(ResponseHead* head, uint16_t name_id, const char* value, size_t size) noexcept nogil:
    """Remembers what the server must know of a field; true: it does not go out as the app wrote it."""
    if name_id == NAME_DATE:
        head.has_date = True
        return False
    if name_id == NAME_SERVER:
        head.has_server = True
        return False
    if name_id == NAME_CONNECTION:
        # RFC 9110 7.6.1: hop by hop, so it is this server's to say; the app's wish to close is kept.
        head.close = head.close or has_token(value, size, b"close", 5)
        return True
    if name_id == NAME_TRAILER:
        return not head.trailers
    return (name_id == NAME_CONTENT_LENGTH or name_id == NAME_TRANSFER_ENCODING or name_id == NAME_KEEP_ALIVE
            or name_id == NAME_UPGRADE or name_id == NAME_TE or name_id == NAME_PROXY_CONNECTION)


cdef WriteError _note_length(ResponseHead* head, const char* value, size_t size) noexcept nogil:
    if head.content_length >= 0:
        return TWO_CONTENT_LENGTHS
    while size > 0 and (value[0] == c" " or value[0] == c"\t"):
        value += 1
        size -= 1
    while size > 0 and (value[size - 1] == c" " or value[size - 1] == c"\t"):
        size -= 1
    head.content_length = parse_length(value, size)
    return WRITE_OK if head.content_length >= 0 else BAD_CONTENT_LENGTH


cdef WriteError end_head(
    Buffer* out, const ResponseHead* head, DefaultFields defaults, int64_t content_length, bint chunked,
    Persistence persistence) noexcept nogil:
    # The longest: Content-Length 38, Date 37, Connection 24, blank line 2; and what the defaults have.
    if reserve(out, 128 + defaults.server_size + defaults.extra_size + defaults.extra_date_size) < 0:
        return NO_MEMORY
    if chunked:
        _put(out, b"Transfer-Encoding: chunked\r\n", 28)
    elif content_length >= 0:
        _put(out, b"Content-Length: ", 16)
        _put_decimal(out, <uint64_t>content_length)
        _put(out, b"\r\n", 2)
    if not head.has_date:
        if defaults.extra_date_size:
            _put(out, defaults.extra_date_data, defaults.extra_date_size)
        elif defaults.date:
            _put(out, duckfast_date_line(), DATE_LINE)
    if not head.has_server and defaults.server_size:
        _put(out, defaults.server_data, defaults.server_size)
    if defaults.extra_size:
        _put(out, defaults.extra_data, defaults.extra_size)
    if persistence == SAY_CLOSE:
        _put(out, b"Connection: close\r\n\r\n", 21)
    elif persistence == SAY_KEEP_ALIVE:
        _put(out, b"Connection: keep-alive\r\n\r\n", 26)
    else:
        _put(out, b"\r\n", 2)
    return WRITE_OK


cdef str describe(WriteError error):
    return _ERRORS.get(<int>error, "the response head is fine")


cdef class DefaultFields:
    """Fields every response carries: Server, Date, and those of --header. One per process.

    server: the value of Server, None or empty for none. date: whether to send Date. extra: (name, value) pairs of str; a
    Date or Server among them stands in for ours. An application's own Date and Server come before either. ValueError
    says which name or value cannot be sent.
    """

    def __init__(self, server: bytes | str | None = b"duckfast", date: bool = True, extra=()) -> None:
        lines = []
        date_line = b""
        server_line = _field_line("Server", server.decode("latin-1") if isinstance(server, bytes) else server) if server else b""
        for name, value in extra:
            line = _field_line(name, value)
            if name.lower() == "date":
                date_line = line
            elif name.lower() == "server":
                server_line = line
            else:
                lines.append(line)
        self.date = bool(date)
        self.server = server_line
        self.extra = b"".join(lines)
        self.extra_date_line = date_line
        self.server_data, self.server_size = PyBytes_AS_STRING(self.server), <size_t>len(self.server)
        self.extra_data, self.extra_size = PyBytes_AS_STRING(self.extra), <size_t>len(self.extra)
        self.extra_date_data = PyBytes_AS_STRING(self.extra_date_line)
        self.extra_date_size = <size_t>len(self.extra_date_line)


def _field_line(name: str, value: str) -> bytes:
    """One field line with its CRLF; ValueError when it must not or cannot be sent."""
    cdef bytes raw_name
    cdef bytes raw_value
    try:
        raw_name, raw_value = name.encode("ascii"), value.strip(" \t").encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the header {name!r} holds characters that HTTP cannot carry (latin-1 at most)") from None
    if not is_token(raw_name, <size_t>len(raw_name)):
        raise ValueError(f"{name!r} is not a header name: letters, digits and dashes, no space, no colon")
    if name.lower() in _RESERVED:
        raise ValueError(f"the header {name!r} frames messages, so the server alone writes it")
    if not is_value(raw_value, <size_t>len(raw_value)):
        raise ValueError(f"the value of the header {name!r} holds a control character")
    return raw_name + b": " + raw_value + b"\r\n"


def format_date(long second) -> bytes:
    """The IMF-fixdate (RFC 9110 5.6.7) of a number of seconds since 1970: what http_date() writes for that second."""
    cdef char line[64]
    duckfast_format_date(second, line)
    return line[6:DATE_LINE - 2]
