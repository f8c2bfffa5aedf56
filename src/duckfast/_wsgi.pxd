# WSGIExchange: environ, wsgi.input, start_response and the response of one WSGI call (PEP 3333).
from libc.stdint cimport int64_t

from duckfast._client cimport ClientSocket
from duckfast._leader cimport Crew
from duckfast._parser cimport Field, Head
from duckfast._reactor cimport Channel, Desk, Exchange, Service


cdef class WSGIService(Service):
    cdef readonly object app
    cdef dict template            # environ entries that are the same for every request
    cdef Crew crew
    cdef object script_name       # of every request, unless a proxy names another; str
    cdef bint splits              # requests come with the whole path: SCRIPT_NAME is taken off
    cdef int64_t body_buffer      # bytes: a body up to this is read before the app is called


cdef class Input:
    """wsgi.input: the body's bytes already here, and the exchange to ask for more."""
    cdef WSGIExchange exchange    # None: what is here is all there is
    cdef bytes chunk
    cdef Py_ssize_t position

    cdef bint _more(self) except -1
    cdef bytes _take(self, Py_ssize_t size)
    cdef bytes _read(self, Py_ssize_t size)
    cdef bytes _read_line(self, Py_ssize_t limit)


cdef class WSGIExchange(Exchange):
    cdef WSGIService service
    cdef Desk desk
    cdef dict environ             # from begin() to the end of the call
    cdef Input input              # None: there is no body
    cdef list pieces              # of a body that is gathered before the call
    cdef int64_t gathered
    cdef bint called              # the app has been called
    cdef bint head_started        # start_response was called
    cdef bint starting            # ... and is reading the headers
    cdef bint head_ended          # its head can no longer be taken back
    cdef bint taken               # the app has taken the connection: it answers by itself, and what it returns is nobody's
    cdef bint overlong            # the app gave more than its Content-Length
    cdef int error_status         # of a broken body
    cdef bytes error_reason

    cdef dict _template(self)
    cdef dict _environ(self, Desk desk)
    cdef int _add_forwarded(self, dict environ) except -1
    cdef int _split_path(self, dict environ) except -1
    cdef int _set_path(self, dict environ, Head* head, object target) except -1
    cdef int _fields(self, dict environ, Head* head) except -1
    cdef int _join_pieces(self) except -1
    cdef int _call(self) except -1
    cdef int _run(self) except -1
    cdef int _close_result(self, object result) except -1
    cdef int _end_process_with(self, object error) except -1
    cdef int _complain_overlong(self) except -1
    cdef int _respond(self, object result) except -1
    cdef int _respond_whole(self, object body, Py_ssize_t size) except -1
    cdef int _respond_parts(self, object parts) except -1
    cdef int _respond_stream(self, object result) except -1
    cdef bint _respond_file(self, FileWrapper wrapper) except -1
    cdef int _end_head(self, int64_t body_size) except -1
    cdef bint _send(self, object data, bint more) except -1
    cdef int _end(self) except -1
    cdef int _fail(self, object error) except -1
    cdef int _take(self, ClientSocket client, int status) except -1


cdef class FileWrapper:
    """wsgi.file_wrapper (PEP 3333): iterates over blocks; returned to the server as it is, it leaves by sendfile."""
    cdef readonly object filelike
    cdef readonly Py_ssize_t block_size
    cdef readonly object close
