"""One socket's read, write and close, without a Python object. Knows neither HTTP nor who is waiting."""

from duckfast._debug cimport ALIVE_TRANSPORT, DUCKFAST_DEBUG, count_alive

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <string.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <sys/types.h>
    #include <sys/uio.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <linux/sockios.h>
    #include <sys/sendfile.h>
    #endif
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0   /* macOS: the interpreter ignores SIGPIPE */
    #endif

    #define DF_RETRY(result, call) do { result = (call); } while (result < 0 && errno == EINTR)

    static Py_ssize_t df_recv(int fd, char *data, size_t size) {
        Py_ssize_t count;
        DF_RETRY(count, recv(fd, data, size, 0));
        return count < 0 ? -(Py_ssize_t)errno : count;
    }
    static Py_ssize_t df_peek(int fd, char *data, size_t size) {
        Py_ssize_t count;
        DF_RETRY(count, recv(fd, data, size, MSG_PEEK));
        return count < 0 ? -(Py_ssize_t)errno : count;
    }
    static Py_ssize_t df_skip(int fd, size_t size) {
        char away[4096];
        size_t left = size;
        while (left) {
            Py_ssize_t count = df_recv(fd, away, left < sizeof away ? left : sizeof away);
            if (count <= 0) return count < 0 ? count : -ECONNRESET;
            left -= (size_t)count;
        }
        return (Py_ssize_t)size;
    }
    #ifndef MSG_MORE
    #define MSG_MORE 0       /* elsewhere every send leaves at once */
    #endif
    static Py_ssize_t df_send(int fd, const char *data, size_t size, int more) {
        Py_ssize_t count;
        DF_RETRY(count, send(fd, data, size, more ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL));
        return count < 0 ? -(Py_ssize_t)errno : count;
    }
    static Py_ssize_t df_send_vector(int fd, struct iovec *pieces, int number) {
        Py_ssize_t count;
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = pieces;
        message.msg_iovlen = number;
        DF_RETRY(count, sendmsg(fd, &message, MSG_NOSIGNAL));
        return count < 0 ? -(Py_ssize_t)errno : count;
    }
    static Py_ssize_t df_send_file(int fd, int source, int64_t offset, size_t size) {
    #ifdef __linux__
        Py_ssize_t count;
        off_t position = (off_t)offset;
        DF_RETRY(count, sendfile(fd, source, &position, size));
        return count < 0 ? -(Py_ssize_t)errno : count;
    #else
        off_t length = (off_t)size;
        int result = sendfile(source, fd, (off_t)offset, &length, NULL, 0);
        if (result < 0 && length == 0) return -(Py_ssize_t)errno;
        return (Py_ssize_t)length;
    #endif
    }
    static Py_ssize_t df_read_at(int source, char *data, size_t size, int64_t offset) {
        Py_ssize_t count;
        DF_RETRY(count, pread(source, data, size, (off_t)offset));
        return count < 0 ? -(Py_ssize_t)errno : count;
    }
    static void df_push(int fd) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);   /* tcp(7): setting it flushes pending output */
    }
    static int df_wait_ready(int fd, int to_write, int64_t nanoseconds) {
        struct pollfd entry;
        int result;
        int timeout = -1;
        if (nanoseconds >= 0) {
            int64_t milliseconds = nanoseconds / 1000000 + 1;
            timeout = milliseconds > 3600000 ? 3600000 : (int)milliseconds;
        }
        entry.fd = fd;
        entry.events = to_write ? POLLOUT : POLLIN;
        entry.revents = 0;
        result = poll(&entry, 1, timeout);
        return result < 0 ? -errno : result;
    }
    static int df_unacknowledged(int fd) {
        int size = -1;
    #if defined(SIOCOUTQ)
        return ioctl(fd, SIOCOUTQ, &size) < 0 ? -1 : size;
    #elif defined(SO_NWRITE)
        socklen_t length = sizeof size;
        return getsockopt(fd, SOL_SOCKET, SO_NWRITE, &size, &length) < 0 ? -1 : size;
    #else
        (void)fd;
        return size;
    #endif
    }
    static void df_abort(int fd) {
        struct linger reset = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    static int df_unpack(const struct sockaddr_storage *stored, unsigned char *address, uint16_t *port) {
        if (stored->ss_family == AF_INET) {
            const struct sockaddr_in *inet = (const struct sockaddr_in *)stored;
            memcpy(address, &inet->sin_addr, 4);
            *port = ntohs(inet->sin_port);
        } else if (stored->ss_family == AF_INET6) {
            const struct sockaddr_in6 *inet6 = (const struct sockaddr_in6 *)stored;
            if (IN6_IS_ADDR_V4MAPPED(&inet6->sin6_addr)) {
                /* A dual-stack listener reports an IPv4 peer this way: apps shall see the IPv4 address. */
                memcpy(address, ((const unsigned char *)&inet6->sin6_addr) + 12, 4);
                *port = ntohs(inet6->sin6_port);
                return AF_INET;
            }
            memcpy(address, &inet6->sin6_addr, 16);
            *port = ntohs(inet6->sin6_port);
        } else {
            *port = 0;
        }
        return stored->ss_family;
    }
    static int df_accept(int listener, int *family, unsigned char *address, uint16_t *port) {
        struct sockaddr_storage stored;
        socklen_t length = sizeof stored;
        int fd;
        stored.ss_family = AF_UNIX;
    #ifdef __linux__
        fd = accept4(listener, (struct sockaddr *)&stored, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    #else
        fd = accept(listener, (struct sockaddr *)&stored, &length);
        if (fd >= 0) {
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
    #endif
        if (fd < 0) return -errno;
        *family = df_unpack(&stored, address, port);
        return fd;
    }
    static int df_local(int fd, int *family, unsigned char *address, uint16_t *port) {
        struct sockaddr_storage stored;
        socklen_t length = sizeof stored;
        if (getsockname(fd, (struct sockaddr *)&stored, &length) < 0) return -errno;
        *family = df_unpack(&stored, address, port);
        return 0;
    }
    static int df_peer(int fd, int *family, unsigned char *address, uint16_t *port) {
        struct sockaddr_storage stored;
        socklen_t length = sizeof stored;
        stored.ss_family = AF_UNIX;
        if (getpeername(fd, (struct sockaddr *)&stored, &length) < 0) return -errno;
        *family = df_unpack(&stored, address, port);
        return 0;
    }
    """
    Py_ssize_t df_recv(int fd, char* data, size_t size) noexcept nogil
    Py_ssize_t df_peek(int fd, char* data, size_t size) noexcept nogil
    Py_ssize_t df_skip(int fd, size_t size) noexcept nogil
    Py_ssize_t df_read_at(int source, char* data, size_t size, int64_t offset) noexcept nogil
    Py_ssize_t df_send(int fd, const char* data, size_t size, bint more) noexcept nogil
    void df_push(int fd) noexcept nogil
    Py_ssize_t df_send_vector(int fd, iovec* pieces, int number) noexcept nogil
    Py_ssize_t df_send_file(int fd, int source, int64_t offset, size_t size) noexcept nogil
    int df_wait_ready(int fd, int to_write, int64_t nanoseconds) noexcept nogil
    int df_accept(int listener, int* family, unsigned char* address, uint16_t* port) noexcept nogil
    int df_local(int fd, int* family, unsigned char* address, uint16_t* port) noexcept nogil
    int df_peer(int fd, int* family, unsigned char* address, uint16_t* port) noexcept nogil
    int df_unacknowledged(int fd) noexcept nogil
    void df_abort(int fd) noexcept nogil
    int c_shutdown "shutdown"(int fd, int how) noexcept nogil
    int c_close "close"(int fd) noexcept nogil
    int SHUT_WR, SHUT_RDWR


cdef class Transport:
    def __cinit__(self, int fd):
        self.fd = fd
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_TRANSPORT, 1)

    def __dealloc__(self):
        self.close()
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_TRANSPORT, -1)

    cdef Py_ssize_t recv(self, char* data, size_t size) noexcept nogil:
        return df_recv(self.fd, data, size)

    cdef Py_ssize_t peek(self, char* data, size_t size) noexcept nogil:
        return df_peek(self.fd, data, size)

    cdef Py_ssize_t skip(self, size_t size) noexcept nogil:
        return df_skip(self.fd, size)

    cdef Py_ssize_t send(self, const char* data, size_t size, bint more) noexcept nogil:
        return df_send(self.fd, data, size, more)

    cdef void push(self) noexcept nogil:
        df_push(self.fd)

    cdef Py_ssize_t send_vector(self, iovec* pieces, int count) noexcept nogil:
        return df_send_vector(self.fd, pieces, count)

    cdef Py_ssize_t send_file(self, int source, int64_t offset, size_t size) noexcept nogil:
        return df_send_file(self.fd, source, offset, size)

    cdef int unacknowledged(self) noexcept nogil:
        return df_unacknowledged(self.fd)

    cdef void shutdown(self) noexcept nogil:
        c_shutdown(self.fd, SHUT_WR)

    cdef void close(self) noexcept nogil:
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1

    cdef void abort(self) noexcept nogil:
        if self.fd >= 0:
            df_abort(self.fd)
            self.fd = -1


cdef class OpenFile:
    """A descriptor of a file being sent."""

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)


cdef Py_ssize_t receive(int fd, char* data, size_t size) noexcept nogil:
    return df_recv(fd, data, size)


cdef Py_ssize_t transmit(int fd, const char* data, size_t size, bint more) noexcept nogil:
    return df_send(fd, data, size, more)


cdef Py_ssize_t read_at(int source, char* data, size_t size, int64_t offset) noexcept nogil:
    return df_read_at(source, data, size, offset)


cdef void end_writing(int fd) noexcept nogil:
    c_shutdown(fd, SHUT_WR)


cdef void end_both_ways(int fd) noexcept nogil:
    c_shutdown(fd, SHUT_RDWR)


cdef void push(int fd) noexcept nogil:
    df_push(fd)


cdef int wait_ready(int fd, bint to_write, int64_t nanoseconds) noexcept nogil:
    return df_wait_ready(fd, to_write, nanoseconds)


cdef int accept_connection(int listener, int* family, uint8_t* address, uint16_t* port) noexcept nogil:
    return df_accept(listener, family, address, port)


cdef int local_address(int fd, int* family, uint8_t* address, uint16_t* port) noexcept nogil:
    return df_local(fd, family, address, port)


cdef int peer_address(int fd, int* family, uint8_t* address, uint16_t* port) noexcept nogil:
    return df_peer(fd, family, address, port)
