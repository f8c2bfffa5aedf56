"""HTTP1Connection: the state of one HTTP/1.x byte stream, both directions. No sockets, no clock, no app.

Bytes go in by feed(), events come out of poll(), response bytes go to a buffer the caller owns. Either half is a small state
machine; a state changes in one function per half, along the moves listed here and nowhere else. The file is long because the
halves share one fate (HEAD, the version and keep-alive decide both), and because Probe, their door for Python, needs both.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, strlen

from duckfast._debug cimport ALIVE_BUFFER, ALIVE_CONNECTION, DUCKFAST_DEBUG, count_alive
from duckfast._limits cimport Limits
from duckfast._parser cimport (
    CHUNK_DATA, CHUNK_END, CHUNK_MORE, CHUNK_REFUSED, INCOMPLETE, PARSED, REFUSED, Chunk, Field, Head, Parsed, Progress,
    check_unfinished, decode_chunk, free_head, new_head, parse_head, start_chunks)
from duckfast._writer cimport (
    NO_MEMORY, PERSISTENCE_UNSAID, SAY_CLOSE, SAY_KEEP_ALIVE, WRITE_OK, Buffer, DefaultFields, Persistence, ResponseHead,
    WriteError, append, append_chunk_size, append_decimal, describe, end_head, free_buffer, reserve, standard_reason,
    write_field, write_status)

cdef extern from "<assert.h>":
    void assert_ "assert"(bint condition) noexcept nogil

cdef enum:
    # Empty lines tolerated before a request line. RFC 9112 2.2 asks for at least one; more than a few is no client.
    MAX_EMPTY_LINES = 4

# From -> to. A test walks through both; a debug build asserts every move.
READING_MOVES = {
    READ_HEAD: {READ_LENGTH, READ_CHUNKED, READ_END, READ_FAILED, READ_CLOSED},
    READ_LENGTH: {READ_END, READ_FAILED},
    READ_CHUNKED: {READ_END, READ_FAILED},
    READ_END: {READ_PAUSED},
    READ_PAUSED: {READ_HEAD, READ_FAILED},
    READ_FAILED: set(),
    READ_CLOSED: set(),
}
WRITING_MOVES = {
    WRITE_HEAD: {WRITE_BODY, WRITE_DONE},
    WRITE_BODY: {WRITE_DONE},
    WRITE_DONE: {WRITE_HEAD},
}
READING_NAMES = ("head", "length", "chunked", "end", "paused", "failed", "closed")
WRITING_NAMES = ("head", "body", "done")

# The tables above as bits, for code that holds no objects: bit `to` of number `from`.
cdef unsigned int _reading_moves[8]
cdef unsigned int _writing_moves[4]


def _fill() -> None:
    cdef int start
    for start, ends in READING_MOVES.items():
        _reading_moves[start] = sum(1 << end for end in ends)
    for start, ends in WRITING_MOVES.items():
        _writing_moves[start] = sum(1 << end for end in ends)


_fill()


cdef class HTTP1Connection:
    """One HTTP/1.x connection from bytes alone. limits: what a request may do; defaults: what every response carries."""

    def __cinit__(self, Limits limits not None, DefaultFields defaults not None, *args):
        self._limits = limits
        self._defaults = defaults
        self.minor = 1
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_CONNECTION, 1)

    def __dealloc__(self):
        self._free_kept()
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_CONNECTION, -1)

    cdef void _enter_reading(self, Reading state) noexcept nogil:
        if DUCKFAST_DEBUG:
            assert_(_reading_moves[<int>self._reading] >> <int>state & 1)
        self._reading = state

    cdef void _enter_writing(self, Writing state) noexcept nogil:
        if DUCKFAST_DEBUG:
            assert_(_writing_moves[<int>self._writing] >> <int>state & 1)
        self._writing = state

    # The window ------------------------------------------------------------------------------------------------------

    cdef void _free_kept(self) noexcept nogil:
        if self._kept.data is NULL:
            return
        free_buffer(&self._kept)
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_BUFFER, -1)

    cdef int _keep(self, const char* data, size_t size) noexcept nogil:
        """Adds bytes to the end of _kept."""
        cdef bint fresh = self._kept.data is NULL
        if append(&self._kept, data, size) < 0:
            return -1
        if DUCKFAST_DEBUG and fresh:
            count_alive(ALIVE_BUFFER, 1)
        return 0

    cdef void feed(self, const char* data, size_t size) noexcept nogil:
        if self._lent and self._position < self._window_size and self.settle() < 0:
            return
        if self._reading >= READ_FAILED:
            size = 0  # nothing is read any more, so nothing may pile up
        if self._position >= self._window_size:
            self._free_kept()
            self._window = data
            self._position = 0
            self._window_size = size
            self._lent = True
            return
        # What is unread must be in one piece with what comes.
        if self._position > 0:
            memmove(self._kept.data, self._kept.data + self._position, self._window_size - self._position)
            self._kept.size = self._window_size - self._position
            self._position = 0
        if self._keep(data, size) < 0:
            self._out_of_memory()
            return
        self._window = self._kept.data
        self._window_size = self._kept.size

    cdef int settle(self) noexcept nogil:
        cdef size_t left = self._window_size - self._position
        if left == 0:
            self._free_kept()
            self._window = NULL
            self._position = 0
            self._window_size = 0
            self._lent = False
            return 0
        if not self._lent:
            return 0
        # A lent window is only taken when nothing is kept, so _kept is empty here.
        if self._keep(self._window + self._position, left) < 0:
            self._out_of_memory()
            return -1
        self._window = self._kept.data
        self._position = 0
        self._window_size = left
        self._lent = False
        return 0

    cdef void _out_of_memory(self) noexcept nogil:
        self._position = self._head_at = self._window_size
        if self._reading != READ_FAILED and self._reading != READ_CLOSED:
            self._reading = READ_FAILED  # from any state: there is no way on
            self.error_status = 503
            self.error_reason = b"out of memory"

    cdef void feed_eof(self) noexcept nogil:
        self.eof = True

    cdef size_t unread(self) noexcept nogil:
        return self._window_size - self._position

    cdef bytes take_unread(self):
        cdef bytes unread = PyBytes_FromStringAndSize(self._window + self._position, self.unread()) if self.unread() else b""
        self._position = self._window_size
        self.settle()
        return unread

    cdef size_t unfinished_head(self, const char** data) noexcept nogil:
        cdef size_t at
        if self._reading == READ_HEAD:
            at = self._position
        elif self._reading == READ_FAILED:
            at = self._head_at
        else:
            return 0
        if at >= self._window_size:
            return 0
        data[0] = self._window + at
        return self._window_size - at

    cdef bint between_requests(self) noexcept nogil:
        cdef size_t position = self._position
        if self._reading != READ_HEAD and self._reading != READ_PAUSED:
            return False
        while position < self._window_size:
            if self._window[position] != c"\r" and self._window[position] != c"\n":
                return False
            position += 1
        return True

    # Reading ---------------------------------------------------------------------------------------------------------

    cdef Event poll(self, Head* head) noexcept:
        if self._reading == READ_HEAD:
            return self._poll_head(head)
        if self._reading == READ_LENGTH:
            return self._poll_length()
        if self._reading == READ_CHUNKED:
            return self._poll_chunked()
        if self._reading == READ_END:
            return self._report_end()
        if self._reading == READ_PAUSED:
            return PAUSED
        return FAILED if self._reading == READ_FAILED else CLOSED

    cdef Event _report_end(self) noexcept nogil:
        self._enter_reading(READ_PAUSED)
        self.request_complete = True
        return END

    cdef Event _fail(self, int status, const char* reason) noexcept nogil:
        if self._reading != READ_HEAD:
            self._head_at = self._window_size
        self._enter_reading(READ_FAILED)
        self.error_status = status
        self.error_reason = reason
        self._position = self._window_size  # nothing more is read, ever
        return FAILED

    cdef Event _need_data(self) noexcept nogil:
        if not self.eof:
            return NEED_DATA
        if self._reading == READ_HEAD:
            if self.between_requests():
                self._enter_reading(READ_CLOSED)
                return CLOSED
            return self._fail(400, b"the connection ended inside a request head")
        # RFC 9112 8: a body that was cut is never passed on as a whole one.
        return self._fail(400, b"the connection ended inside a request body")

    cdef int _skip_empty_lines(self) noexcept nogil:
        """1: a request line begins at _position; 0: more bytes are needed; -1: too many empty lines, or no CRLF."""
        cdef const char* data
        while self._position < self._window_size:
            data = self._window + self._position
            if data[0] != c"\r" and data[0] != c"\n":
                return 1
            if data[0] == c"\n":
                return -1
            if self._window_size - self._position < 2:
                return 0
            if data[1] != c"\n" or self._empty_lines == MAX_EMPTY_LINES:
                return -1
            self._empty_lines += 1
            self._position += 2
        return 0

    cdef Event _poll_head(self, Head* head) noexcept:
        cdef const char* data
        cdef size_t size
        cdef Parsed parsed
        cdef int found = 1
        # A byte below a letter is nothing a method begins with: only then is there a line to skip, or no byte at all.
        if self._position >= self._window_size or self._window[self._position] < c" ":
            found = self._skip_empty_lines()
        if found == 0:
            return self._need_data()
        if found < 0:
            self.head_request = False
            self._head_at = self._window_size
            return self._fail(400, b"empty lines or control characters before the request line")
        data = self._window + self._position
        size = self._window_size - self._position
        self._head_at = self._position
        if self._seen > 0 and memchr(data + self._seen, c"\n", size - self._seen) is NULL:
            # No line was ended by the new bytes: there is nothing to judge but their number. The method may be whole only now.
            self.head_request = size >= 5 and memcmp(data, b"HEAD ", 5) == 0
            parsed = check_unfinished(self._limits, size, &self._progress)
        else:
            self.head_request = False
            parsed = self._read_head(head, data, size)
        if parsed == INCOMPLETE:
            self._seen = size
            return self._need_data()
        self._seen = 0
        self._empty_lines = 0
        if parsed == PARSED:
            return self._begin_request(head)
        return self._fail(self._progress.status, self._progress.reason)

    cdef Parsed _read_head(self, Head* head, const char* data, size_t size) noexcept:
        cdef Parsed parsed = parse_head(head, self._limits, data, size, &self._progress)
        # Also of a head that is refused, as far as it could be read: an answer to HEAD has no body.
        self.head_request = head.method.size == 4 and memcmp(head.method.data, b"HEAD", 4) == 0
        return parsed

    cdef Event _begin_request(self, Head* head) noexcept nogil:
        self._position += self._progress.consumed
        self.minor = head.minor
        self.request_keep_alive = head.keep_alive
        if head.chunked:
            start_chunks(&self._chunks)
            self._enter_reading(READ_CHUNKED)
        elif head.content_length > 0:
            if self._limits.body >= 0 and head.content_length > self._limits.body:
                return self._fail(413, b"the body is too large")
            self._body_missing = <uint64_t>head.content_length
            self._enter_reading(READ_LENGTH)
        else:
            self._enter_reading(READ_END)
        return REQUEST

    cdef Event _poll_length(self) noexcept:
        if self._position == self._window_size:
            return self._need_data()
        self.body_data = self._window + self._position
        self.body_size = <size_t>min(self._body_missing, <uint64_t>(self._window_size - self._position))
        if self._check_content() < 0:
            return self._fail(self._progress.status, self._progress.reason)
        self._position += self.body_size
        self.body_received += self.body_size
        self._body_missing -= self.body_size
        if self._body_missing == 0:
            self._enter_reading(READ_END)
        return DATA

    cdef Event _poll_chunked(self) noexcept:
        cdef const char* start = self._window + self._position
        cdef const char* cursor = start
        cdef Chunk chunk
        self.body_size = 0
        chunk = decode_chunk(
            &self._chunks, self._limits, &cursor, self._window + self._window_size, &self.body_data, &self.body_size,
            &self._progress)
        if chunk == CHUNK_REFUSED or self._check_chunk(chunk, start, <size_t>(cursor - start)) < 0:
            return self._fail(self._progress.status, self._progress.reason)
        self._position += <size_t>(cursor - start)
        if chunk == CHUNK_DATA:
            self.body_received += self.body_size
            return DATA
        if chunk == CHUNK_MORE:
            return self._need_data()
        self._enter_reading(READ_END)
        return self._report_end()

    cdef int _check_content(self) noexcept:
        return 0

    cdef int _check_chunk(self, Chunk chunk, const char* data, size_t size) noexcept:
        return 0

    cdef void next_request(self) noexcept nogil:
        self._enter_reading(READ_HEAD)
        if self._writing != WRITE_HEAD:
            self._enter_writing(WRITE_HEAD)
        self.head_request = False
        self.request_keep_alive = False
        self.request_complete = False
        self.body_received = 0
        self.framing = SEND_NOTHING
        self.head_sent = False
        self.body_left = 0

    # Writing ---------------------------------------------------------------------------------------------------------

    cdef void close_after_response(self) noexcept nogil:
        self.closing = True

    cdef WriteError finish_head(self, Buffer* out, ResponseHead* head, int64_t body_size, bint trailers) noexcept nogil:
        cdef int64_t length = body_size if head.content_length < 0 else head.content_length
        cdef bint chunked = False
        cdef WriteError error
        if trailers and self.minor == 1 and head.content_length < 0:
            length = -1  # trailers travel behind chunks only
        self.body_left = 0
        self.framing = SEND_NOTHING
        if head.status == 204:
            length = -1  # RFC 9110 8.6: no Content-Length either
        elif head.status == 205:
            length = 0  # RFC 9110 15.3.6: no content, and said so
            self.framing = SEND_LENGTH
        elif head.status == 304:
            length = head.content_length  # RFC 9110 8.6: that of the 200 it stands for, which only the app knows
        elif self.head_request:
            # RFC 9110 9.3.2: the fields GET would have. An empty body may be an app that knows HEAD, so it says nothing.
            if body_size == 0 and head.content_length < 0:
                length = -1
            elif length < 0:
                chunked = self.minor == 1
        elif length >= 0:
            self.framing = SEND_LENGTH
            self.body_left = length
        elif self.minor == 1:
            self.framing = SEND_CHUNKED
            chunked = True
        else:
            self.framing = SEND_UNTIL_CLOSE
        if head.close or not self.request_keep_alive or self.framing == SEND_UNTIL_CLOSE:
            self.closing = True
        error = end_head(out, head, self._defaults, length, chunked, self._persistence())
        if error != WRITE_OK:
            return error
        self.head_sent = True
        self._enter_writing(WRITE_BODY)
        return WRITE_OK

    cdef Persistence _persistence(self) noexcept nogil:
        # RFC 9112 9.6: the close is always said, to an HTTP/1.0 client too: our status line reads HTTP/1.1.
        if self.closing:
            return SAY_CLOSE
        return PERSISTENCE_UNSAID if self.minor == 1 else SAY_KEEP_ALIVE

    cdef size_t start_chunk(self, Buffer* out, size_t size) noexcept nogil:
        if size == 0 or self.framing == SEND_NOTHING:
            return 0  # an empty chunk would end the body
        if self.framing == SEND_LENGTH:
            size = <size_t>min(<uint64_t>size, <uint64_t>self.body_left)
            self.body_left -= <int64_t>size
            return size
        if self.framing == SEND_CHUNKED:
            if append_chunk_size(out, size) < 0:
                self.closing = True
                self.framing = SEND_NOTHING  # the body breaks here, visibly: no last chunk follows
                return 0
            self._chunk_open = True
        return size

    cdef void end_chunk(self, Buffer* out) noexcept nogil:
        if not self._chunk_open:
            return
        self._chunk_open = False
        if append(out, b"\r\n", 2) < 0:
            self.closing = True
            self.framing = SEND_NOTHING

    cdef Finish finish_body(self, Buffer* out, const char* trailers, size_t trailers_size) noexcept nogil:
        if self._writing != WRITE_DONE:
            self._enter_writing(WRITE_DONE)
        if self.framing == SEND_LENGTH and self.body_left > 0:
            self.closing = True
            return FINISHED_SHORT
        if self.framing == SEND_CHUNKED:
            if (append(out, b"0\r\n", 3) < 0 or (trailers is not NULL and append(out, trailers, trailers_size) < 0)
                    or append(out, b"\r\n", 2) < 0):
                self.closing = True
        return FINISHED_CLOSE if self.closing else FINISHED_KEEP_ALIVE

    cdef WriteError write_error(self, Buffer* out, int status, const char* reason, int retry_after) noexcept nogil:
        cdef ResponseHead head
        cdef char seconds[16]
        cdef WriteError error
        cdef size_t size
        if reason is NULL:
            reason = standard_reason(status)
        size = strlen(reason)
        error = write_status(out, &head, status, NULL, 0)
        if error == WRITE_OK:
            error = write_field(out, &head, b"Content-Type", 12, b"text/plain; charset=utf-8", 25)
        if error == WRITE_OK and retry_after > 0:
            error = write_field(out, &head, b"Retry-After", 11, seconds, snprintf(seconds, sizeof(seconds), "%d", retry_after))
        if error == WRITE_OK:
            # Connection: close is said to a 1.0 client too, and to one whose version could not be read.
            error = end_head(out, &head, self._defaults, <int64_t>size + 1, False, SAY_CLOSE)
        if error == WRITE_OK and not self.head_request:
            if append(out, reason, size) < 0 or append(out, b"\n", 1) < 0:
                error = NO_MEMORY
        self.closing = True
        self.head_sent = True
        self.framing = SEND_NOTHING
        self.body_left = 0
        if self._writing != WRITE_DONE:
            self._enter_writing(WRITE_DONE)
        return error


# The connection as Python sees it --------------------------------------------------------------------------------------

cdef class Probe:
    """A connection as Python sees it: for tests, fuzzers and tools. Works on bytes alone.

    feed() lends the connection a copy of exactly the bytes given, freed by the next settle(), so that a sanitizer sees every
    read beside them. poll() returns the event as a tuple: ("need_data",), ("request", {...}), ("data", b"..."), ("end",),
    ("paused",), ("failed", status, reason), ("closed",).
    """

    cdef readonly HTTP1Connection connection
    cdef Head* _head
    cdef char* _loan
    cdef Buffer _out
    cdef ResponseHead _response

    def __cinit__(self, HTTP1Connection connection not None):
        self.connection = connection
        self._head = new_head(connection._limits)

    def __dealloc__(self):
        free_head(self._head)
        free(self._loan)
        free_buffer(&self._out)

    def feed(self, bytes data not None) -> None:
        """Give the connection more bytes; what it has not read of earlier ones is settled first."""
        self.settle()
        self._loan = <char*>malloc(<size_t>max(len(data), 1))
        if self._loan is NULL:
            raise MemoryError
        memcpy(self._loan, PyBytes_AS_STRING(data), <size_t>len(data))
        self.connection.feed(self._loan, <size_t>len(data))

    def feed_eof(self) -> None:
        self.connection.feed_eof()

    def settle(self) -> None:
        if self.connection.settle() < 0:
            raise MemoryError
        free(self._loan)
        self._loan = NULL

    def poll(self) -> tuple:
        cdef Event event = self.connection.poll(self._head)
        if event == NEED_DATA:
            return ("need_data",)
        if event == REQUEST:
            return ("request", _describe_head(self._head))
        if event == DATA:
            return ("data", PyBytes_FromStringAndSize(
                self.connection.body_data, <Py_ssize_t>self.connection.body_size))
        if event == END:
            return ("end",)
        if event == PAUSED:
            return ("paused",)
        if event == FAILED:
            return ("failed", self.connection.error_status, self.connection.error_reason.decode("ascii"))
        return ("closed",)

    def next_request(self) -> None:
        self.connection.next_request()

    @property
    def unread(self) -> int:
        return self.connection.unread()

    @property
    def kept(self) -> int:
        """Bytes of memory the connection holds for unread input."""
        return self.connection._kept.capacity

    @property
    def between_requests(self) -> bool:
        return self.connection.between_requests()

    @property
    def reading(self) -> str:
        return READING_NAMES[self.connection._reading]

    @property
    def writing(self) -> str:
        return WRITING_NAMES[self.connection._writing]

    @property
    def framing(self) -> str:
        return ("nothing", "length", "chunked", "until_close")[self.connection.framing]

    cdef bytes _take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(self._out.data, <Py_ssize_t>self._out.size) if self._out.size else b""
        self._out.size = 0
        return taken

    def start_response(
        self, int status, fields=(), *, bytes reason=None, int64_t body_size=-1, bint trailers=False) -> bytes:
        """The bytes of a response head; ValueError with the sentence for what is wrong in it, and no byte written."""
        cdef WriteError error
        cdef bytes name, value
        if reason is None:
            error = write_status(&self._out, &self._response, status, NULL, 0)
        else:
            error = write_status(
                &self._out, &self._response, status, PyBytes_AS_STRING(reason), <size_t>len(reason))
        self._raise(error)
        self._response.trailers = trailers
        for name, value in fields:
            self._raise(write_field(
                &self._out, &self._response, PyBytes_AS_STRING(name), <size_t>len(name),
                PyBytes_AS_STRING(value), <size_t>len(value)))
        self._raise(self.connection.finish_head(&self._out, &self._response, body_size, trailers))
        return self._take()

    cdef int _raise(self, WriteError error) except -1:
        if error == WRITE_OK:
            return 0
        self._out.size = 0
        raise ValueError(describe(error))

    def send(self, bytes data not None) -> bytes:
        """The framed bytes of one piece of body."""
        cdef size_t allowed = self.connection.start_chunk(&self._out, <size_t>len(data))
        if append(&self._out, PyBytes_AS_STRING(data), allowed) < 0:
            raise MemoryError
        self.connection.end_chunk(&self._out)
        return self._take()

    def finish(self, bytes trailers=b"") -> tuple[bytes, str]:
        """The bytes that end the body, and "keep_alive", "close" or "short"."""
        cdef Finish finish = self.connection.finish_body(
            &self._out, PyBytes_AS_STRING(trailers) if trailers else NULL, <size_t>len(trailers))
        return self._take(), ("keep_alive", "close", "short")[finish]

    def refuse(self, int status, bytes reason=None) -> bytes:
        """The bytes of an answer made by the server itself."""
        self._raise(self.connection.write_error(
            &self._out, status, NULL if reason is None else PyBytes_AS_STRING(reason), 0))
        return self._take()

    def close_after_response(self) -> None:
        self.connection.close_after_response()


cdef bytes _bytes(const char* data, size_t size):
    return PyBytes_FromStringAndSize(data, <Py_ssize_t>size) if size else b""


cdef dict _describe_head(const Head* head):
    cdef uint32_t index
    cdef const Field* field
    fields = []
    for index in range(head.field_count):
        field = &head.fields[index]
        fields.append((
            _bytes(field.name.data, field.name.size), _bytes(field.value.data, field.value.size), bool(field.underscore)))
    return {
        "method": _bytes(head.method.data, head.method.size),
        "target": _bytes(head.target.data, head.target.size),
        "path": _bytes(head.path.data, head.path.size),
        "query": _bytes(head.query.data, head.query.size),
        "authority": None if head.authority.data is NULL else _bytes(head.authority.data, head.authority.size),
        "path_escaped": bool(head.path_escaped),
        "https": bool(head.https),
        "minor": head.minor,
        "content_length": head.content_length,
        "chunked": bool(head.chunked),
        "keep_alive": bool(head.keep_alive),
        "expect_continue": bool(head.expect_continue),
        "upgrade_websocket": bool(head.upgrade_websocket),
        "te_trailers": bool(head.te_trailers),
        "dropped": head.dropped,
        "host": head.host,
        "fields": [(name, value) for name, value, underscore in fields],
        "underscored": [name for name, value, underscore in fields if underscore],
    }
