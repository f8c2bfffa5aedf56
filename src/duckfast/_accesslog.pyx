"""Access lines: written in batches by a thread of their own, to a descriptor or to a file that can be opened anew.

A request never waits for the log: a destination that does not take its bytes costs lines (counted, and told in the error log),
not requests. Several processes may append to one file or pipe: each write is one of whole lines, and to a pipe no longer than what
the system takes in one piece. How a line is made is the format's.
"""

import logging
import os
import threading
from time import monotonic

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <errno.h>
    #include <limits.h>
    #include <poll.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <time.h>
    #include <unistd.h>

    #define DF_LOG_BUFFER (1 << 20)   /* bytes: about ten thousand lines wait at most */
    #define DF_LOG_BATCH (64 << 10)   /* bytes: wakes the writer early */
    #define DF_LOG_PAUSE 200000000    /* ns: the oldest line waits this long at most */
    #ifdef PIPE_BUF
    #define DF_LOG_PIECE PIPE_BUF
    #else
    #define DF_LOG_PIECE 512          /* POSIX: what a pipe takes in one piece, at least */
    #endif

    typedef struct {
        pthread_mutex_t lock;
        pthread_cond_t more;
        char *filling, *writing;
        size_t size;
        uint64_t lost; /* lines since the start */
        int stop, asleep;
        int next;      /* the descriptor that the next batch goes to; -1: the same */
        /* the writer's own */
        int fd;        /* -1: nowhere */
        int owned;     /* ours to close */
        int pipe;
        int torn;      /* the last write ended inside a line */
    } df_log;

    static void df_log_use(df_log *log, int fd, int owned) {
        struct stat about;
        if (log->owned && log->fd >= 0) close(log->fd);
        log->fd = fd;
        log->owned = owned;
        log->pipe = fd >= 0 && fstat(fd, &about) == 0 && !S_ISREG(about.st_mode);
        log->torn = 0;
    }
    static df_log *df_log_new(int fd, int owned) {
        df_log *log = calloc(1, sizeof *log);
        if (!log) return NULL;
        log->filling = malloc(DF_LOG_BUFFER);
        log->writing = malloc(DF_LOG_BUFFER);
        if (!log->filling || !log->writing) { free(log->filling); free(log->writing); free(log); return NULL; }
        pthread_mutex_init(&log->lock, NULL);
        pthread_cond_init(&log->more, NULL);
        log->next = -1;
        df_log_use(log, fd, owned);
        return log;
    }
    static void df_log_free(df_log *log) {
        if (!log) return;
        pthread_mutex_destroy(&log->lock);
        pthread_cond_destroy(&log->more);
        if (log->next >= 0) close(log->next);
        df_log_use(log, -1, 0);
        free(log->filling);
        free(log->writing);
        free(log);
    }
    /* Locks, and gives the room there is for a line. df_log_commit() must follow, with its end or NULL. */
    static char *df_log_room(df_log *log, char **end) {
        pthread_mutex_lock(&log->lock);
        *end = log->filling + DF_LOG_BUFFER;
        return log->filling + log->size;
    }
    static uint64_t df_log_commit(df_log *log, char *end) {
        uint64_t lost;
        if (!end) log->lost++;
        else log->size = (size_t)(end - log->filling);
        if (log->asleep && (log->asleep == 2 || log->size > DF_LOG_BATCH)) {
            log->asleep = 0;
            pthread_cond_signal(&log->more);
        }
        lost = log->lost;
        pthread_mutex_unlock(&log->lock);
        return lost;
    }
    /* One write, or until the destination fails; a full pipe is waited for here, on the writer's own thread. */
    static int df_log_put(df_log *log, const char *data, size_t size) {
        while (size) {
            ssize_t count = write(log->fd, data, size);
            if (count > 0) {
                data += count;
                size -= (size_t)count;
                log->torn = data[-1] != '\\n';
                continue;
            }
            if (count == 0 || errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                struct pollfd entry = {log->fd, POLLOUT, 0};
                poll(&entry, 1, 1000);
                continue;
            }
            return -1;
        }
        return 0;
    }
    /* Whole lines, at most `most` bytes of them, but one at least. */
    static size_t df_log_lines(const char *data, size_t size, size_t most) {
        const char *end;
        if (size <= most) return size;
        for (end = data + most; end > data; end--) if (end[-1] == '\\n') return (size_t)(end - data);
        end = memchr(data, '\\n', size);
        return end ? (size_t)(end - data) + 1 : size;
    }
    static uint64_t df_log_count(const char *data, const char *end) {
        uint64_t count = 0;
        while ((data = memchr(data, '\\n', (size_t)(end - data)))) { count++; data++; }
        return count;
    }
    /* How many of the lines were lost because the destination failed: its disk is full, or nobody has it any more. */
    static uint64_t df_log_put_lines(df_log *log, const char *data, size_t size) {
        const char *end = data + size;
        if (log->fd < 0) return 0;
        if (log->torn && df_log_put(log, "\\n", 1)) return df_log_count(data, end);   /* what is torn stays alone */
        while (data < end) {
            size_t piece = df_log_lines(data, (size_t)(end - data), log->pipe ? DF_LOG_PIECE : DF_LOG_BUFFER);
            if (df_log_put(log, data, piece)) return df_log_count(data, end);
            data += piece;
        }
        return 0;
    }
    static void df_log_write(df_log *log) {
        pthread_mutex_lock(&log->lock);
        for (;;) {
            size_t size;
            uint64_t lost;
            char *full;
            int next;
            if (log->size == 0 && !log->stop && log->next < 0) {
                log->asleep = 2;   /* nothing at all: the first line wakes us */
                while (log->asleep && !log->stop) pthread_cond_wait(&log->more, &log->lock);
            }
            if (!log->stop && log->size < DF_LOG_BATCH && log->next < 0) {
                struct timespec until;
                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_nsec += DF_LOG_PAUSE;
                if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
                log->asleep = 1;   /* gathering: only a full batch wakes us early */
                while (log->asleep && !log->stop)
                    if (pthread_cond_timedwait(&log->more, &log->lock, &until)) break;
                log->asleep = 0;
            }
            next = log->next;
            log->next = -1;
            size = log->size;
            if (size == 0 && next < 0 && log->stop) break;
            full = log->filling;
            log->filling = log->writing;
            log->writing = full;
            log->size = 0;
            pthread_mutex_unlock(&log->lock);
            if (next >= 0) df_log_use(log, next, 1);   /* between two batches: no line is split */
            lost = df_log_put_lines(log, full, size);
            pthread_mutex_lock(&log->lock);
            log->lost += lost;
        }
        pthread_mutex_unlock(&log->lock);
    }
    static uint64_t df_log_lost(df_log *log) {
        uint64_t lost;
        pthread_mutex_lock(&log->lock);
        lost = log->lost;
        pthread_mutex_unlock(&log->lock);
        return lost;
    }
    static void df_log_wake(df_log *log) {
        log->asleep = 0;
        pthread_cond_signal(&log->more);
    }
    static void df_log_stop(df_log *log) {
        pthread_mutex_lock(&log->lock);
        log->stop = 1;
        df_log_wake(log);
        pthread_mutex_unlock(&log->lock);
    }
    static void df_log_reopen(df_log *log, int fd) {
        pthread_mutex_lock(&log->lock);
        if (log->next >= 0) close(log->next);
        log->next = fd;
        df_log_wake(log);
        pthread_mutex_unlock(&log->lock);
    }
    """
    ctypedef struct df_log:
        pass
    df_log* df_log_new(int fd, int owned) nogil
    void df_log_free(df_log* log) nogil
    char* df_log_room(df_log* log, char** end) nogil
    uint64_t df_log_commit(df_log* log, char* end) nogil
    void df_log_write(df_log* log) nogil
    uint64_t df_log_lost(df_log* log) nogil
    void df_log_stop(df_log* log) nogil
    void df_log_reopen(df_log* log, int fd) nogil

_logger = logging.getLogger("duckfast")

COMPLAIN_EVERY = 10.0   # seconds between two lines about lines that were lost


cdef int _open(str path) except -1:
    # Several processes append to it; 0666 less the umask, as other logs.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


cdef class Observation:
    """What an observer is told of one request when it is over: its response has left, or its connection has ended."""


cdef class AccessLog:
    """Access lines of a format. start() and close() bracket its use.

    destination: a descriptor, which stays the caller's, a path, or None: only tell() hears of them. tell is called with each
    line and what it says as a dict, observe with an Observation, both on the thread of the request. Raises OSError when the path
    cannot be opened.
    """

    def __cinit__(self, LogFormat format not None, destination, tell=None, observe=None):
        cdef int fd = -1
        cdef bint owned = isinstance(destination, str)
        self.format = format
        self._tell = tell
        self.observe = observe
        self.wants_response = format.wants_response or observe is not None
        self._native = destination is not None
        if owned:
            self.path = destination
            fd = _open(destination)
        elif destination is not None:
            fd = destination
        self._state = df_log_new(fd, owned)
        self._complained = -COMPLAIN_EVERY
        if self._state == NULL:
            if owned:
                os.close(fd)
            raise MemoryError

    def __dealloc__(self):
        df_log_free(<df_log*>self._state)

    def start(self) -> None:
        """Starts the writing thread."""
        if not self._native:
            return
        self._thread = threading.Thread(target=self._write, name="duckfast-access-log", daemon=True)
        self._thread.start()

    def reopen(self) -> None:
        """Lines from now on go to a newly opened file of the same path; from any thread. OSError: the old one stays in use."""
        if self.path is not None:
            df_log_reopen(<df_log*>self._state, _open(self.path))

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        df_log_stop(<df_log*>self._state)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._complain(df_log_lost(<df_log*>self._state), 0)

    def _write(self):
        with nogil:
            df_log_write(<df_log*>self._state)

    cdef int write(self, const Note* note, const Facts* facts, Observation observed) except -1:
        if self._native or self._tell is not None:
            self._write_line(note, facts)
        if observed is not None:
            self._tell_observer(note, facts, observed)
        return 0

    cdef int _tell_observer(self, const Note* note, const Facts* facts, Observation observed) except -1:
        observed.line = self.format.line_of(note)
        observed.client = facts.client[:facts.client_size].decode("utf-8")
        observed.status = facts.status
        observed.sent = facts.sent
        observed.received = facts.received
        observed.seconds = facts.duration / 1e9
        if observed.response_head is None:
            observed.response_head = b""
        try:
            self.observe(observed)
        except Exception:
            _logger.error("the observer of a request failed", exc_info=True)
        return 0

    cdef int _write_line(self, const Note* note, const Facts* facts) except -1:
        cdef char* limit = NULL
        cdef char* start = df_log_room(<df_log*>self._state, &limit)
        cdef char* end = self.format.write(start, limit, note, facts)
        cdef char* line = NULL
        cdef size_t size = 0
        cdef uint64_t lost
        if self._tell is not None and end != NULL:
            size = <size_t>(end - start)
            line = <char*>malloc(size)
            if line != NULL:
                memcpy(line, start, size)
        lost = df_log_commit(<df_log*>self._state, end if self._native else start)
        if line != NULL:
            try:
                self._tell(line[:size - 1].decode("utf-8"), self.format.describe(note, facts))
            except Exception:
                _logger.error("a handler of duckfast.access failed", exc_info=True)
            finally:
                free(line)
        if lost != self._told:
            self._complain(lost, COMPLAIN_EVERY)
        return 0

    cdef int _complain(self, uint64_t lost, double pause) except -1:
        cdef double time = monotonic()
        if lost == self._told or time - self._complained < pause:
            return 0
        self._complained = time
        _logger.warning("%d access lines lost: the access log took them too slowly, or not at all", lost - self._told)
        self._told = lost
        return 0
