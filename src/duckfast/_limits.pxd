# What a connection may do, and where it counts. Both are handed down at construction.
from libc.stdint cimport int64_t, uint64_t


cdef class Limits:
    # Sizes in bytes.
    cdef readonly int64_t request_line
    cdef readonly int64_t field_line
    cdef readonly int64_t fields            # number of field lines
    cdef readonly int64_t head
    cdef readonly int64_t body              # -1: no limit
    cdef readonly int64_t chunk_extensions  # per body
    cdef readonly int64_t trailers
    cdef readonly int64_t drain             # of a body the app did not read
    cdef readonly int64_t body_buffer       # WSGI: bodies up to this size are read before a thread is taken
    cdef readonly int64_t connections       # open at once; -1: no limit
    cdef readonly int64_t handshakes        # TLS: in progress at once

    # Deadlines in nanoseconds; 0: none.
    cdef readonly int64_t head_time
    cdef readonly int64_t body_time
    cdef readonly int64_t keep_alive_time
    cdef readonly bint keep_alive      # False: every response is the last of its connection
    cdef readonly int64_t write_time
    cdef readonly int64_t drain_time
    cdef readonly int64_t request_time   # of the app for one request, without what it waits for the client
    cdef readonly int64_t handshake_time


cdef class Counters:
    cdef uint64_t accepted        # connections since the start
    cdef uint64_t closed
    cdef uint64_t requests        # whole heads handed to the app
    cdef uint64_t refused         # requests the server answered itself: 400, 408, 413, 414, 431, 501, 505
    cdef uint64_t timeouts        # connections a deadline ended
    cdef uint64_t dropped_fields  # names with an underscore
    cdef uint64_t bytes_in
    cdef uint64_t bytes_out
    cdef uint64_t responses[6]    # by class: [2] counts 2xx; [0] and [1] stay 0
    cdef uint64_t app_errors
    cdef uint64_t handshakes          # TLS connections established
    cdef uint64_t handshakes_failed
    cdef object __weakref__
