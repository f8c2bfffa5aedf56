# HttptoolsConnection: an HTTP1Connection whose heads and bodies are also read by llhttp. No sockets, no clock, no app.
cimport cython

from duckfast._http1 cimport HTTP1Connection
from duckfast._parser cimport Chunk, Head, Parsed


cdef class Message:
    # What llhttp's callbacks said of the message being read.
    cdef bytes target
    cdef list fields              # of (name, value); trailers are not added
    cdef list content             # pieces since the last look
    cdef bint head_complete
    cdef bint complete


cdef class HttptoolsConnection(HTTP1Connection):
    # private, per request
    cdef object _parser           # httptools.HttpRequestParser; one per request
    cdef Message _message
    cdef bytes _text              # what the head's spans point into; replaced by the next head
    cdef bytes _content           # what body_data points into; replaced by the next piece
    cdef bint _passed_on          # llhttp reads no further: it takes the request for an upgrade

    @cython.final
    cdef Parsed _read_by_llhttp(self, Head* head, bytes raw) except *
    @cython.final
    cdef Parsed _fill(self, Head* head, bytes raw) except *
    @cython.final
    cdef int _compare(self, const char* data, size_t size, bint expect_complete) except -1
    @cython.final
    cdef Parsed _refuse(self, int status, const char* reason) noexcept
