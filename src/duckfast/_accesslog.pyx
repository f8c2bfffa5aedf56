"""Access lines: formatted without a Python object, written in batches by a thread of their own.

One line is `client - - [time] "request" status bytes seconds`: the Common Log Format with the duration behind it. A request
never waits for the log: a destination that does not take its bytes costs lines (counted, and told in the log), not requests.
"""

import threading

cdef extern from *:
    """
    #include <errno.h>
    #include <poll.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>

    #define DF_LOG_BUFFER (1 << 20)   /* bytes: about ten thousand lines wait at most */
    #define DF_LOG_BATCH (64 << 10)   /* bytes: wakes the writer early */
    #define DF_LOG_PAUSE 200000000    /* ns: the oldest line waits this long at most */

    typedef struct {
        pthread_mutex_t lock;
        pthread_cond_t more;
        char *filling, *writing;
        size_t size;
        uint64_t lost;
        int stop, asleep;
        time_t second;
        char stamp[64];
        size_t stamp_size;
    } df_log;

    static df_log *df_log_new(void) {
        df_log *log = calloc(1, sizeof *log);
        if (!log) return NULL;
        log->filling = malloc(DF_LOG_BUFFER);
        log->writing = malloc(DF_LOG_BUFFER);
        if (!log->filling || !log->writing) { free(log->filling); free(log->writing); free(log); return NULL; }
        pthread_mutex_init(&log->lock, NULL);
        pthread_cond_init(&log->more, NULL);
        return log;
    }
    static void df_log_free(df_log *log) {
        if (!log) return;
        pthread_mutex_destroy(&log->lock);
        pthread_cond_destroy(&log->more);
        free(log->filling);
        free(log->writing);
        free(log);
    }
    static char *df_digits(char *out, uint64_t number, int least) {
        char digits[20];
        int count = 0;
        do { digits[count++] = (char)('0' + number % 10); number /= 10; } while (number || count < least);
        while (count) *out++ = digits[--count];
        return out;
    }
    static void df_log_stamp(df_log *log) {
        struct timespec time;
    #ifdef CLOCK_REALTIME_COARSE
        clock_gettime(CLOCK_REALTIME_COARSE, &time);
    #else
        clock_gettime(CLOCK_REALTIME, &time);
    #endif
        if (time.tv_sec != log->second) {
            struct tm parts;
            static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
            long offset;
            log->second = time.tv_sec;
            localtime_r(&log->second, &parts);
            offset = parts.tm_gmtoff / 60;
            log->stamp_size = (size_t)snprintf(
                log->stamp, sizeof log->stamp, " - - [%02d/%.3s/%d:%02d:%02d:%02d %c%02ld%02ld] \\"",
                parts.tm_mday, months + 3 * parts.tm_mon, parts.tm_year + 1900, parts.tm_hour, parts.tm_min,
                parts.tm_sec, offset < 0 ? '-' : '+', labs(offset) / 60, labs(offset) % 60);
        }
    }
    static void df_log_line(df_log *log, const char *client, size_t client_size, const char *request,
                            size_t request_size, int status, uint64_t body, int64_t duration) {
        static const char hex[] = "0123456789abcdef";
        size_t most = client_size + 4 * request_size + 160;
        char *out;
        pthread_mutex_lock(&log->lock);
        if (log->size + most > DF_LOG_BUFFER) {
            log->lost++;
            pthread_mutex_unlock(&log->lock);
            return;
        }
        out = log->filling + log->size;
        memcpy(out, client, client_size);
        out += client_size;
        df_log_stamp(log);
        memcpy(out, log->stamp, log->stamp_size);
        out += log->stamp_size;
        for (size_t i = 0; i < request_size; i++) {
            unsigned char byte = (unsigned char)request[i];
            if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\\\') { *out++ = (char)byte; continue; }
            *out++ = '\\\\'; *out++ = 'x'; *out++ = hex[byte >> 4]; *out++ = hex[byte & 15];
        }
        *out++ = '"'; *out++ = ' ';
        out = df_digits(out, (uint64_t)status, 3);
        *out++ = ' ';
        out = df_digits(out, body, 1);
        *out++ = ' ';
        if (duration < 0) duration = 0;
        out = df_digits(out, (uint64_t)duration / 1000000000, 1);
        *out++ = '.';
        out = df_digits(out, (uint64_t)duration % 1000000000 / 1000, 6);
        *out++ = '\\n';
        log->size = (size_t)(out - log->filling);
        if (log->asleep && (log->asleep == 2 || log->size > DF_LOG_BATCH)) {
            log->asleep = 0;
            pthread_cond_signal(&log->more);
        }
        pthread_mutex_unlock(&log->lock);
    }
    /* All of it, or until the destination fails; a full pipe is waited for here, on the writer's own thread. */
    static int df_log_put(int fd, const char *data, size_t size) {
        while (size) {
            ssize_t count = write(fd, data, size);
            if (count >= 0) { data += count; size -= (size_t)count; continue; }
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                struct pollfd entry = {fd, POLLOUT, 0};
                poll(&entry, 1, 1000);
                continue;
            }
            return -1;
        }
        return 0;
    }
    static void df_log_write(df_log *log, int fd) {
        pthread_mutex_lock(&log->lock);
        for (;;) {
            size_t size;
            uint64_t lost;
            char *full;
            if (log->size == 0 && !log->stop) {
                log->asleep = 2;   /* nothing at all: the first line wakes us */
                while (log->asleep && !log->stop) pthread_cond_wait(&log->more, &log->lock);
            }
            if (!log->stop && log->size < DF_LOG_BATCH) {
                struct timespec until;
                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_nsec += DF_LOG_PAUSE;
                if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
                log->asleep = 1;   /* gathering: only a full batch wakes us early */
                while (log->asleep && !log->stop)
                    if (pthread_cond_timedwait(&log->more, &log->lock, &until)) break;
                log->asleep = 0;
            }
            size = log->size;
            lost = log->lost;
            if (size == 0 && log->stop) break;
            full = log->filling;
            log->filling = log->writing;
            log->writing = full;
            log->size = 0;
            log->lost = 0;
            pthread_mutex_unlock(&log->lock);
            df_log_put(fd, full, size);
            if (lost) {
                char note[96];
                int length = snprintf(note, sizeof note, "duckfast: %llu access lines lost, the log was too slow\\n",
                                      (unsigned long long)lost);
                df_log_put(fd, note, (size_t)length);
            }
            pthread_mutex_lock(&log->lock);
        }
        pthread_mutex_unlock(&log->lock);
    }
    static void df_log_stop(df_log *log) {
        pthread_mutex_lock(&log->lock);
        log->stop = 1;
        pthread_cond_signal(&log->more);
        pthread_mutex_unlock(&log->lock);
    }
    """
    ctypedef struct df_log:
        pass
    df_log* df_log_new() nogil
    void df_log_free(df_log* log) nogil
    void df_log_line(
        df_log* log, const char* client, size_t client_size, const char* request, size_t request_size,
        int status, uint64_t body, int64_t duration) nogil
    void df_log_write(df_log* log, int fd) nogil
    void df_log_stop(df_log* log) nogil


cdef class AccessLog:
    """Access lines to a file descriptor (which stays the caller's). start() and close() bracket its use."""

    def __cinit__(self, int fd):
        self.fd = fd
        self._state = df_log_new()
        if self._state == NULL:
            raise MemoryError

    def __dealloc__(self):
        df_log_free(<df_log*>self._state)

    def start(self) -> None:
        """Starts the writing thread."""
        self._thread = threading.Thread(target=self._write, name="duckfast-access-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        df_log_stop(<df_log*>self._state)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self):
        with nogil:
            df_log_write(<df_log*>self._state, self.fd)

    cdef void write_line(
        self, const char* client, size_t client_size, const char* request, size_t request_size,
        int status, uint64_t body_size, int64_t duration,
    ) noexcept nogil:
        df_log_line(<df_log*>self._state, client, client_size, request, request_size, status, body_size, duration)
