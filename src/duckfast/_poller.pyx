"""Readiness and deadlines: epoll on Linux, kqueue elsewhere, and lists of timers. Knows descriptors and times, nothing of HTTP."""

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.ref cimport Py_INCREF
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>

    #define DF_BATCH 256   /* events a wait takes at most; nginx 512, libuv 1024 */

    #ifdef __linux__
    #include <sys/epoll.h>

    typedef struct epoll_event df_event;

    static int df_create(void) { return epoll_create1(EPOLL_CLOEXEC); }

    static int df_control(int poller, int operation, int fd, uint32_t events, void *owner) {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = events;
        event.data.ptr = owner;
        return epoll_ctl(poller, operation, fd, &event);
    }
    static int df_watch(int poller, int fd, void *owner) {
        return df_control(poller, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, owner);
    }
    static int df_watch_level(int poller, int fd, void *owner) {
        return df_control(poller, EPOLL_CTL_ADD, fd, EPOLLIN, owner);
    }
    static int df_watch_shared(int poller, int fd, void *owner) {
        /* Several pollers may watch one listener: a new connection wakes one of them, not all. */
        return df_control(poller, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLEXCLUSIVE, owner);
    }
    static int df_unwatch(int poller, int fd) { return df_control(poller, EPOLL_CTL_DEL, fd, 0, NULL); }

    static int df_wait(int poller, df_event *events, int64_t nanoseconds) {
        int timeout = -1;
        if (nanoseconds == 0) timeout = 0;
        else if (nanoseconds > 0) {
            int64_t milliseconds = (nanoseconds + 999999) / 1000000;
            timeout = milliseconds > 3600000 ? 3600000 : (int)milliseconds;
        }
        int found = epoll_wait(poller, events, DF_BATCH, timeout);
        return found < 0 ? -errno : found;   /* read here: nothing may run in between */
    }
    static void *df_owner(const df_event *event) { return event->data.ptr; }
    static uint32_t df_ready(const df_event *event) {
        uint32_t ready = 0;
        if (event->events & EPOLLIN) ready |= 1;
        if (event->events & EPOLLOUT) ready |= 2;
        if (event->events & EPOLLRDHUP) ready |= 4 | 1;
        if (event->events & (EPOLLERR | EPOLLHUP)) ready |= 8;
        return ready;
    }
    #else
    #include <sys/types.h>
    #include <sys/event.h>

    typedef struct kevent df_event;

    static int df_create(void) {
        int fd = kqueue();
        if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
        return fd;
    }
    static int df_watch(int poller, int fd, void *owner) {
        struct kevent changes[2];
        EV_SET(&changes[0], fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, owner);
        EV_SET(&changes[1], fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, owner);
        return kevent(poller, changes, 2, NULL, 0, NULL);
    }
    static int df_watch_level(int poller, int fd, void *owner) {
        struct kevent change;
        EV_SET(&change, fd, EVFILT_READ, EV_ADD, 0, 0, owner);
        return kevent(poller, &change, 1, NULL, 0, NULL);
    }
    static int df_watch_shared(int poller, int fd, void *owner) { return df_watch_level(poller, fd, owner); }
    static int df_unwatch(int poller, int fd) {
        struct kevent change;
        EV_SET(&change, fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL);
        kevent(poller, &change, 1, NULL, 0, NULL);   /* a listener has none */
        EV_SET(&change, fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
        return kevent(poller, &change, 1, NULL, 0, NULL);
    }
    static int df_wait(int poller, df_event *events, int64_t nanoseconds) {
        struct timespec time, *timeout = NULL;
        if (nanoseconds >= 0) {
            time.tv_sec = nanoseconds / 1000000000;
            time.tv_nsec = nanoseconds % 1000000000;
            timeout = &time;
        }
        int found = kevent(poller, NULL, 0, events, DF_BATCH, timeout);
        return found < 0 ? -errno : found;   /* read here: nothing may run in between */
    }
    static void *df_owner(const df_event *event) { return event->udata; }
    static uint32_t df_ready(const df_event *event) {
        uint32_t ready = event->filter == EVFILT_READ ? 1 : 2;
        if (event->flags & EV_EOF) {
            if (event->fflags != 0 || event->filter == EVFILT_WRITE) ready |= 8;
            else ready |= 4;
        }
        return ready;
    }
    #define CLOCK_MONOTONIC_COARSE CLOCK_MONOTONIC
    #endif

    static int64_t df_read(clockid_t clock) {
        struct timespec time;
        clock_gettime(clock, &time);
        return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
    }
    static int64_t df_now(void) { return df_read(CLOCK_MONOTONIC_COARSE); }
    static int64_t df_fine_now(void) { return df_read(CLOCK_MONOTONIC); }

    static int df_wake_pair(int *read_end, int *write_end) {
        int ends[2];
        if (pipe(ends) < 0) return -1;
        for (int i = 0; i < 2; i++) {
            fcntl(ends[i], F_SETFD, FD_CLOEXEC);
            fcntl(ends[i], F_SETFL, O_NONBLOCK);
        }
        *read_end = ends[0];
        *write_end = ends[1];
        return 0;
    }
    """
    ctypedef struct df_event:
        pass
    enum:
        DF_BATCH
        EINTR
    int df_create() nogil
    int df_watch(int poller, int fd, void* owner) nogil
    int df_watch_level(int poller, int fd, void* owner) nogil
    int df_watch_shared(int poller, int fd, void* owner) nogil
    int df_unwatch(int poller, int fd) nogil
    int df_wait(int poller, df_event* events, int64_t nanoseconds) nogil
    void* df_owner(const df_event* event) nogil
    uint32_t df_ready(const df_event* event) nogil
    int df_wake_pair(int* read_end, int* write_end) nogil
    int64_t df_now() nogil
    int64_t df_fine_now() nogil

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t read(int fd, void* data, size_t size)
    Py_ssize_t write(int fd, const void* data, size_t size)
    int close(int fd)

# The coarse clock stands still for up to 4 ms (HZ=250): a wait this much longer never wakes too early to find its deadline due.
cdef int64_t CLOCK_GRAIN = 4_000_000


cdef class Poller:
    def __cinit__(self):
        self._wake_read = self._wake_write = -1
        self._forgotten = []
        self._events = calloc(DF_BATCH, sizeof(df_event))
        self.batch = <Readiness*>calloc(DF_BATCH, sizeof(Readiness))
        if self._events == NULL or self.batch == NULL:
            raise MemoryError
        self.fd = df_create()
        if self.fd < 0 or df_wake_pair(&self._wake_read, &self._wake_write) < 0:
            PyErr_SetFromErrno(OSError)   # raises
        if df_watch_level(self.fd, self._wake_read, <void*>self) < 0:
            PyErr_SetFromErrno(OSError)   # raises

    def __dealloc__(self):
        if self._wake_read >= 0:
            close(self._wake_read)
            close(self._wake_write)
        if self.fd >= 0:
            close(self.fd)
        free(self._events)
        free(self.batch)

    cdef int watch(self, int fd, void* owner) except -1:
        if df_watch(self.fd, fd, owner) < 0:
            PyErr_SetFromErrno(OSError)   # raises
        return 0

    cdef int watch_listener(self, int fd, void* owner) except -1:
        if df_watch_shared(self.fd, fd, owner) < 0:
            PyErr_SetFromErrno(OSError)   # raises
        return 0

    cdef int unwatch(self, int fd) except -1:
        if df_unwatch(self.fd, fd) < 0:
            PyErr_SetFromErrno(OSError)   # raises
        return 0

    cdef void drop(self, int fd) noexcept nogil:
        if fd >= 0:
            df_unwatch(self.fd, fd)

    cdef int forget(self, void* owner) except -1:
        self._strike(owner)
        if self._waiting:
            try:
                self._forgotten.append(<object>owner)
            except MemoryError:
                Py_INCREF(<object>owner)   # never let go of: better than an event whose owner is gone
        return 0

    cdef void _strike(self, void* owner) noexcept nogil:
        cdef int index
        for index in range(self.taken, self.count):
            if self.batch[index].owner == owner:
                self.batch[index].owner = NULL

    cdef int _strike_forgotten(self) except -1:
        """What other threads closed between the kernel's answer and our GIL is still among the events: not for long."""
        for owner in self._forgotten:
            self._strike(<void*>owner)
        self._forgotten.clear()
        return 0

    cdef int _collect(self, int found) noexcept nogil:
        """Turns the kernel's events into the batch, leaving out our own wake-up."""
        cdef df_event* events = <df_event*>self._events
        cdef char drained[64]
        cdef int index
        self.taken = self.count = 0
        for index in range(found):
            if df_owner(&events[index]) == <void*>self:
                self._woken = False
                while read(self._wake_read, drained, sizeof(drained)) == sizeof(drained):
                    pass
                continue
            self.batch[self.count].owner = df_owner(&events[index])
            self.batch[self.count].ready = df_ready(&events[index])
            self.count += 1
        return self.count

    cdef int wait(self, int64_t nanoseconds) except -1:
        cdef int found
        self._waiting = True
        with nogil:
            found = df_wait(self.fd, <df_event*>self._events, nanoseconds + CLOCK_GRAIN if nanoseconds > 0 else nanoseconds)
        self._waiting = False
        self._collect(max(found, 0))
        if self._forgotten:
            self._strike_forgotten()
        if found < 0 and found != -EINTR:
            raise OSError(-found, "waiting for events failed")
        PyErr_CheckSignals()   # nothing else runs Python's handlers while no app is called
        return self.count

    cdef int look(self) noexcept nogil:
        cdef int found = df_wait(self.fd, <df_event*>self._events, 0)
        if found < 0:
            self.taken = self.count = 0
            return 0 if found == -EINTR else found
        return self._collect(found)

    cdef void wake(self) noexcept nogil:
        if self._woken:
            return
        self._woken = True
        # A full pipe is a wake-up too: the result does not matter.
        if write(self._wake_write, b"w", 1) < 0:
            return


cdef int64_t now() noexcept nogil:
    return df_now()


cdef int64_t fine_now() noexcept nogil:
    return df_fine_now()


cdef void init_timers(TimerList* timers, int64_t length) noexcept nogil:
    timers.ends.previous = &timers.ends
    timers.ends.next = &timers.ends
    timers.length = length


cdef int64_t arm(TimerList* timers, Timer* timer) noexcept nogil:
    cdef Timer* last
    disarm(timer)
    if timers.length == 0:
        return 0
    timer.at = df_now() + timers.length
    last = timers.ends.previous
    timer.previous = last
    timer.next = &timers.ends
    last.next = timer
    timers.ends.previous = timer
    return timer.at


cdef void disarm(Timer* timer) noexcept nogil:
    if timer.previous == NULL:
        return
    timer.previous.next = timer.next
    timer.next.previous = timer.previous
    timer.previous = timer.next = NULL


cdef Timer* first_due(TimerList* timers, int64_t time) noexcept nogil:
    cdef Timer* first = timers.ends.next
    if first == &timers.ends or first.at > time:
        return NULL
    return first
