# One socket's read, write and close. Every verb is non-blocking and returns a count, or minus errno.
from libc.stdint cimport int64_t, uint8_t, uint16_t


cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len


cdef class Transport:
    cdef readonly int fd      # -1 once closed
    # Only TLS ever sets these: there a read may have to write first, and the other way round.
    cdef uint8_t read_wants_write     # the last recv() goes on when the socket is writable
    cdef uint8_t write_wants_read     # the last send goes on when the socket is readable
    cdef uint8_t unread               # recv() has something left although the socket is empty
    cdef uint8_t shutdown_due         # shutdown() goes on when the socket is writable
    cdef uint8_t working              # a verb is under way that lets other threads run: nobody else may touch this connection

    cdef Py_ssize_t recv(self, char* data, size_t size) noexcept nogil          # 0: the peer has sent its last byte
    cdef Py_ssize_t peek(self, char* data, size_t size) noexcept nogil          # the raw bytes that wait, which stay where they are
    cdef Py_ssize_t skip(self, size_t size) noexcept nogil                      # takes so many of those away
    cdef Py_ssize_t send(self, const char* data, size_t size, bint more) noexcept nogil   # more: hold back a partial segment
    cdef void push(self) noexcept nogil         # sends what was held back
    cdef Py_ssize_t send_vector(self, iovec* pieces, int count) noexcept nogil
    cdef Py_ssize_t send_file(self, int source, int64_t offset, size_t size) noexcept nogil   # 0: the file is shorter
    cdef int unacknowledged(self) noexcept nogil   # bytes sent that the peer has not taken yet; -1: the system does not tell
    cdef void shutdown(self) noexcept nogil     # no more writes
    cdef void close(self) noexcept nogil
    cdef void abort(self) noexcept nogil        # close with a reset: nothing queued is delivered


cdef class OpenFile:
    # A file on its way to a peer.
    cdef int fd     # ours: closed with the object, so that the app may close its own at any time; -1: none


# On a bare descriptor, for the transports of other modules; as the verbs above.
cdef Py_ssize_t receive(int fd, char* data, size_t size) noexcept nogil
cdef Py_ssize_t transmit(int fd, const char* data, size_t size, bint more) noexcept nogil
cdef Py_ssize_t read_at(int source, char* data, size_t size, int64_t offset) noexcept nogil
cdef void end_writing(int fd) noexcept nogil
cdef void end_both_ways(int fd) noexcept nogil

cdef void push(int fd) noexcept nogil     # the same, for who only has the descriptor
cdef int wait_ready(int fd, bint to_write, int64_t nanoseconds) noexcept nogil   # 1 ready, 0 time is up, <0 -errno; -1 ns: for ever

# A new connection of a listener, non-blocking: its descriptor or -errno; the peer's address as raw bytes (IPv4-mapped IPv6 as IPv4).
cdef int accept_connection(int listener, int* family, uint8_t* address, uint16_t* port) noexcept nogil
# The address the connection came in on, and the one it comes from; 0 or -errno.
cdef int local_address(int fd, int* family, uint8_t* address, uint16_t* port) noexcept nogil
cdef int peer_address(int fd, int* family, uint8_t* address, uint16_t* port) noexcept nogil
