# ClientSocket: a connection outside an engine, as a socket that blocks. Knows transports, nothing of HTTP or of who serves.
from libc.stdint cimport int64_t, uint8_t, uint16_t

from duckfast._transport cimport Transport


cdef class Outside:
    # The connections of one reactor that are outside of it, and of those the ones that speak another protocol now.
    cdef object clients, upgraded   # WeakSet
    cdef object _wake               # called when the last one has gone
    cdef object _lock

    cdef int enter(self, ClientSocket client, bint upgraded) except -1
    cdef int leave(self, ClientSocket client) except -1
    cdef int interrupt(self, bint all) except -1     # ends them, or the upgraded ones


cdef class ClientSocket:
    # The connection; what a thread does with it, it does under a lock: a read and a write may come from two of them.
    cdef Transport transport        # None: not ours yet, or given away
    cdef bytes first                # read ahead, comes before anything else
    cdef object origin              # of the reactor that it came from; None: it never was in one
    cdef Outside outside            # counts us; None: nobody does
    cdef object taker               # called with us when we are first used, to get the connection; None: we have it
    cdef bint closed
    cdef bint secure                # the transport speaks TLS, and its handshake is done
    cdef uint8_t family
    cdef uint8_t address[16]        # the peer's
    cdef uint16_t port
    cdef double timeout             # seconds; below 0: none
    cdef object _turn               # held for each call of a verb: they do not block
    cdef object _sending            # held for a whole sendall(): a record in progress belongs to one of them
    cdef object _taking             # held while the taker is asked
    cdef object __weakref__

    cdef int fill(self, Transport transport, bytes first, object origin, bint secure) except -1   # makes it ours
    cdef Transport hand_over(self)                              # takes the connection out of it again
    cdef ClientSocket move(self)                                # the same into another one, so that this one is empty
    cdef int _have(self) except -1
    cdef Py_ssize_t _receive(self, char* data, Py_ssize_t size) except -1
    cdef Py_ssize_t _send_some(self, const char* data, Py_ssize_t size, int64_t until) except -1
    cdef int _wait(self, bint to_write, int64_t until) except -1
    cdef int64_t _until(self) noexcept
