# epoll and kqueue behind the same verbs; deadline lists. Knows descriptors and times, nothing of HTTP.
from libc.stdint cimport int64_t, uint8_t, uint32_t


cdef enum Ready:
    READABLE = 1
    WRITABLE = 2
    PEER_CLOSED = 4   # the peer has sent its last byte (FIN); what it sent before may still be unread
    BROKEN = 8        # reset, or an error on the socket


cdef struct Readiness:
    void* owner       # what watch() was given; NULL after forget()
    uint32_t ready    # Ready bits


cdef class Poller:
    cdef readonly int fd
    cdef int _wake_read
    cdef int _wake_write
    cdef bint _woken
    cdef void* _events        # the kernel's own event array
    cdef Readiness* batch     # what the last wait() found; [taken, count) is still to be handled
    cdef int count
    cdef int taken
    cdef bint _waiting        # a thread is in wait() without the GIL: the kernel may just have written owners nobody has seen
    cdef list _forgotten      # owners forgotten meanwhile, kept alive until those events have been looked through

    cdef int watch(self, int fd, void* owner) except -1            # a connection: edge-triggered, both directions
    cdef int watch_listener(self, int fd, void* owner) except -1   # level-triggered, reads only
    cdef int unwatch(self, int fd) except -1                       # listeners, and connections that go on elsewhere; a closed one leaves by itself
    # Before the descriptor of a connection is closed: the close alone ends the watching only if nobody else holds the connection open,
    # as a forked child or a system call of another thread does, and the owner would be told of events after its end.
    cdef void drop(self, int fd) noexcept nogil
    cdef int forget(self, void* owner) except -1                   # drop its events, taken or about to be; the owner may die after
    cdef int wait(self, int64_t nanoseconds) except -1             # fills the batch; -1: for ever, 0: look only. Without the GIL.
    cdef int look(self) noexcept nogil                             # wait(0) with the GIL kept; <0: -errno
    cdef int _collect(self, int found) noexcept nogil
    cdef void _strike(self, void* owner) noexcept nogil
    cdef int _strike_forgotten(self) except -1
    cdef void wake(self) noexcept nogil                            # ends a wait() from any thread or signal handler


cdef int64_t now() noexcept nogil        # nanoseconds, monotonic; of a clock that some milliseconds move
cdef int64_t fine_now() noexcept nogil   # the same, exact


cdef struct Timer:
    Timer* previous   # NULL: not armed
    Timer* next
    int64_t at
    void* owner       # the Channel that embeds this timer


cdef struct TimerList:
    # Deadlines of one kind: all of the same length, so the list is in order of expiry by itself.
    Timer ends
    int64_t length    # nanoseconds; 0: this deadline is off


cdef void init_timers(TimerList* timers, int64_t length) noexcept nogil
cdef int64_t arm(TimerList* timers, Timer* timer) noexcept nogil   # (re)arms at now + length; the time, or 0 when off
cdef void disarm(Timer* timer) noexcept nogil
cdef Timer* first_due(TimerList* timers, int64_t time) noexcept nogil   # NULL: none has passed
