"""HttptoolsConnection: the same connection, read by llhttp. The only file that knows httptools. No sockets, no clock, no app.

Method, target, fields and content are those llhttp reports. It is never the more lenient way in: lines are measured by our
limits and line endings first, the rules on targets, Host and framing are applied to what llhttp reports, and content must be
what our own decoder makes of the same bytes; where the two differ the request is refused. What llhttp does not know is
refused here too: methods outside its table, and minor versions above 1.1. A request that llhttp takes for an upgrade has its
body read by our decoder alone, because llhttp stops reading there.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t
from libc.string cimport memcmp

import httptools

from duckfast._http1 cimport HTTP1Connection
from duckfast._parser cimport (
    CHUNK_DATA, CHUNK_END, PARSED, REFUSED, Chunk, Head, Parsed, add_field, is_token, is_value, measure_head,
    parse_framing, parse_target)


cdef class Message:
    """Takes llhttp's callbacks."""

    def __cinit__(self):
        self.target = b""
        self.fields = []
        self.content = []

    def on_url(self, bytes url) -> None:
        self.target += url

    def on_header(self, bytes name, bytes value) -> None:
        if not self.head_complete:
            self.fields.append((name, b"" if value is None else value))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, bytes content) -> None:
        self.content.append(content)

    def on_message_complete(self) -> None:
        self.complete = True


cdef class HttptoolsConnection(HTTP1Connection):
    """One HTTP/1.x connection whose requests are read by llhttp. Arguments and meanings are those of HTTP1Connection."""

    cdef Parsed _refuse(self, int status, const char* reason) noexcept:
        self._progress.status = status
        self._progress.reason = reason
        return REFUSED

    cdef Parsed _read_head(self, Head* head, const char* data, size_t size) noexcept:
        cdef Parsed parsed = measure_head(self._limits, data, size, &self._progress)
        # Of a head that is refused too: an answer to HEAD has no body.
        self.head_request = size >= 5 and memcmp(data, b"HEAD ", 5) == 0
        if parsed != PARSED:
            return parsed
        try:
            return self._read_by_llhttp(
                head, PyBytes_FromStringAndSize(data, <Py_ssize_t>self._progress.consumed))
        except BaseException:
            # No exception can leave poll(), so whatever it was, it is the peer's bytes that led here: the peer is told.
            return self._refuse(400, b"the request could not be read")

    cdef Parsed _read_by_llhttp(self, Head* head, bytes raw) except *:
        self._message = Message()
        self._parser = httptools.HttpRequestParser(self._message)
        self._passed_on = False
        try:
            self._parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            self._passed_on = True
        except httptools.HttpParserInvalidMethodError:
            return self._refuse(400, b"the method is not known to llhttp")
        except httptools.HttpParserError:
            return self._refuse(400, b"llhttp refuses the request head")
        if not self._message.head_complete:
            return self._refuse(400, b"llhttp does not see the end of the head")
        return self._fill(head, raw)

    cdef Parsed _fill(self, Head* head, bytes raw) except *:
        """The head from what llhttp reported, held to our own rules."""
        cdef bytes method = self._parser.get_method()
        cdef bytes version = self._parser.get_http_version().encode("ascii")
        cdef bytes name, value
        cdef list fields = []
        cdef list parts = []
        cdef const char* cursor
        # llhttp skips spaces that RFC 9112 3 does not allow, so the line must be what its parts make.
        if not raw.startswith(b"%s %s HTTP/%s\r\n" % (method, self._message.target, version)):
            return self._refuse(400, b"the request line is not: method, one space, target, one space, HTTP version")
        if not version.startswith(b"1."):
            return self._refuse(505, b"only HTTP/1.0 and HTTP/1.1 are served here")
        # No comprehensions: Cython 3.3's let go of an item twice when their list cannot grow.
        parts.append(method)
        parts.append(self._message.target)
        for name, value in self._message.fields:
            value = value.strip(b" \t")
            fields.append((name, value))
            parts.append(name)
            parts.append(value)
        self._text = b"".join(parts)
        cursor = PyBytes_AS_STRING(self._text)
        head.minor = 0 if version == b"1.0" else 1
        head.method.data, head.method.size = cursor, <unsigned int>len(method)
        cursor += len(method)
        head.target.data, head.target.size = cursor, <unsigned int>len(self._message.target)
        cursor += len(self._message.target)
        head.field_count = 0
        head.dropped = 0
        for name, value in fields:
            if head.field_count == head.field_capacity:
                return self._refuse(431, b"too many fields")
            if not is_token(cursor, <size_t>len(name)):
                return self._refuse(400, b"a field name is not a token")
            if not is_value(cursor + len(name), <size_t>len(value)):
                return self._refuse(400, b"a control character in a field value")
            add_field(head, cursor, <size_t>len(name), cursor + len(name), <size_t>len(value))
            cursor += len(name) + len(value)
        if parse_target(head, &self._progress) != PARSED:
            return REFUSED
        return parse_framing(head, &self._progress)

    cdef int _check_content(self) noexcept:
        cdef bint last = self._body_missing == <uint64_t>self.body_size
        try:
            return self._compare(self.body_data, self.body_size, last)
        except BaseException:
            self._refuse(400, b"llhttp refuses the body")
            return -1

    cdef int _check_chunk(self, Chunk chunk, const char* data, size_t size) noexcept:
        try:
            return self._compare(data, size, chunk == CHUNK_END)
        except BaseException:
            self._refuse(400, b"llhttp refuses the body")
            return -1

    cdef int _compare(self, const char* data, size_t size, bint expect_complete) except -1:
        """Feeds llhttp what our decoder has used; body_data becomes its content, which must be the same and end alike."""
        if self._passed_on or size == 0:
            return 0
        self._parser.feed_data(PyBytes_FromStringAndSize(data, <Py_ssize_t>size))
        self._content = b"".join(self._message.content)
        self._message.content.clear()
        if (<size_t>len(self._content) != self.body_size or self._message.complete != expect_complete
                # Without content body_data may be NULL, which C forbids memcmp even for no bytes.
                or (self.body_size and memcmp(PyBytes_AS_STRING(self._content), self.body_data, self.body_size) != 0)):
            raise ValueError("the two decoders differ")
        self.body_data = PyBytes_AS_STRING(self._content)
        return 0
