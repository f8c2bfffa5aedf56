# Access lines, formatted without Python objects into one buffer that a thread of its own writes in batches.
from libc.stdint cimport uint64_t

from duckfast._logformat cimport Facts, LogFormat, Note


cdef class AccessLog:
    cdef readonly LogFormat format
    cdef readonly str path     # None: a descriptor that is the caller's
    cdef void* _state          # the C side: two buffers, a mutex, a condition, the descriptor
    cdef object _tell          # called with the line and its facts, for a Python handler; None: nobody asks
    cdef bint _native          # there is something to write to
    cdef object _thread
    cdef uint64_t _told        # lost lines that were complained of
    cdef double _complained

    # Writes the line of a request; what could not be told a Python handler is logged, never raised.
    cdef int write(self, const Note* note, const Facts* facts) except -1

    cdef int _complain(self, uint64_t lost, double pause) except -1
