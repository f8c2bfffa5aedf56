# Access lines, formatted without Python objects into one buffer that a thread of its own writes in batches.
from libc.stdint cimport uint64_t

from duckfast._logformat cimport Facts, LogFormat, Note


cdef class Observation:
    # What an observer is told of one request. The channel makes it with the note, and fills it as the facts come.
    cdef readonly dict request          # the app's own: environ or scope; None: the app was never to be called
    cdef readonly bytes response_head   # status line and fields as they were written; b"": none was
    cdef readonly bytes line            # the request line as it came; of a refused request, as far as it came
    cdef readonly str client            # its address; "": not known
    cdef readonly int status            # 499: the client left before there was one
    cdef readonly uint64_t sent         # bytes of the response's body that have left
    cdef readonly uint64_t received     # bytes of the request's body
    cdef readonly double seconds        # from the request's head until its response has left


cdef class AccessLog:
    cdef readonly LogFormat format
    cdef readonly str path     # None: a descriptor that is the caller's
    cdef void* _state          # the C side: two buffers, a mutex, a condition, the descriptor
    cdef object _tell          # called with the line and its facts, for a Python handler; None: nobody asks
    cdef readonly object observe   # called with an Observation when a request is over; None: nobody asks
    cdef readonly bint wants_response   # response heads are to be noted
    cdef bint _native          # there is something to write to
    cdef object _thread
    cdef uint64_t _told        # lost lines that were complained of
    cdef double _complained

    # Writes the line of a request; what could not be told a Python handler is logged, never raised.
    cdef int write(self, const Note* note, const Facts* facts, Observation observed) except -1
    cdef int _write_line(self, const Note* note, const Facts* facts) except -1
    cdef int _tell_observer(self, const Note* note, const Facts* facts, Observation observed) except -1

    cdef int _complain(self, uint64_t lost, double pause) except -1
