"""Counts of living objects for the debug build. Knows kinds only by name, keeps no reference to anything."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <stdint.h>
    static int64_t duckfast_alive[16];
    /* Atomic, because a free-threaded interpreter counts from several threads at once. */
    static void duckfast_count(int kind, int64_t delta) {
        __atomic_fetch_add(&duckfast_alive[kind], delta, __ATOMIC_RELAXED);
    }
    """
    int64_t duckfast_alive[16]
    void duckfast_count(int kind, int64_t delta) noexcept nogil

_NAMES = ("channel", "connection", "transport", "exchange", "buffer", "websocket", "stream")

enabled = bool(DUCKFAST_DEBUG)


cdef void count_alive(Kind kind, long delta) noexcept nogil:
    duckfast_count(kind, delta)


def alive() -> dict[str, int]:
    """The number of living objects by kind; all zero in a release build, which does not count."""
    cdef int kind
    return {_NAMES[kind]: duckfast_alive[kind] for kind in range(ALIVE_KINDS)}
