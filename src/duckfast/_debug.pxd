# How many objects of each kind are alive: counted only in a debug build, expected back at zero by the tests.

cdef extern from *:
    """
    #ifndef DUCKFAST_DEBUG
    #define DUCKFAST_DEBUG 0
    #endif
    """
    const bint DUCKFAST_DEBUG  # a compile-time constant: `if DUCKFAST_DEBUG:` costs nothing in a release build


cdef enum Kind:
    ALIVE_CHANNEL
    ALIVE_CONNECTION
    ALIVE_TRANSPORT
    ALIVE_EXCHANGE
    ALIVE_BUFFER
    ALIVE_WEBSOCKET
    ALIVE_STREAM
    ALIVE_KINDS


cdef void count_alive(Kind kind, long delta) noexcept nogil
