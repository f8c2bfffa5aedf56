"""ClientSocket: a client connection that has left its engine, or has not come to one yet, as a socket that blocks.

Plain and TLS alike: it reads and writes through the engine's own transport, after the bytes that were read ahead. One thread may
read while another writes. Offers what programs use of socket.socket; refuses to know HTTP, reactors and event loops.
"""

import errno
import os
import socket as _socket
import threading
import weakref

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport INT64_MAX
from libc.string cimport memcpy

from duckfast._poller cimport now
from duckfast._tls cimport TLSTransport
from duckfast._transport cimport end_both_ways, wait_ready

cdef extern from "<errno.h>":
    enum: EAGAIN, EWOULDBLOCK, EINTR

cdef Py_ssize_t MOST_AT_ONCE = 1 << 20   # bytes of one recv(): a buffer of what the caller names would be made before it is known what comes


cdef class Outside:
    def __cinit__(self, wake):
        self.clients = weakref.WeakSet()
        self.upgraded = weakref.WeakSet()
        self._wake = wake
        self._lock = threading.RLock()   # a signal handler may interrupt who has it

    def __len__(self) -> int:
        return len(self.clients)

    cdef int enter(self, ClientSocket client, bint upgraded) except -1:
        with self._lock:
            self.clients.add(client)
            if upgraded:
                self.upgraded.add(client)
        client.outside = self
        return 0

    cdef int leave(self, ClientSocket client) except -1:
        with self._lock:
            self.clients.discard(client)
            self.upgraded.discard(client)
        client.outside = None
        if len(self.clients) == 0:
            self._wake()
        return 0

    cdef int interrupt(self, bint all) except -1:
        cdef ClientSocket client
        with self._lock:
            clients = list(self.clients if all else self.upgraded)
        for client in clients:
            client.interrupt()
        return 0


cdef class ClientSocket:
    """A connection of its own: `ClientSocket(sock)` takes over a connected socket.socket, which is empty afterwards.

    Errors and timeouts are those of socket.socket: OSError, TimeoutError, BlockingIOError with a timeout of 0.
    """

    def __cinit__(self, sock=None):
        self.first = b""
        self.timeout = -1
        self._turn = threading.Lock()
        self._sending = threading.Lock()
        if sock is not None:
            sock.setblocking(False)
            self.family = sock.family
            self.transport = Transport.__new__(Transport, <int>sock.detach())

    @staticmethod
    def later(taker) -> ClientSocket:
        """One that asks for its connection when it is first used: `taker(it)` has to fill it, or to raise OSError."""
        cdef ClientSocket client = ClientSocket.__new__(ClientSocket)
        client.taker = taker
        client._taking = threading.RLock()
        return client

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.close()

    def __repr__(self):
        if self.taker is not None:
            return "<ClientSocket, its connection is still the server's>"
        state = "closed" if self.closed or self.transport is None else f"fd={self.transport.fd}"
        return f"<ClientSocket {'TLS, ' if self.secure else ''}{state}>"

    cdef int fill(self, Transport transport, bytes first, object origin, bint secure) except -1:
        self.transport = transport
        self.secure = secure
        self.first = first
        self.origin = origin
        self.taker = None
        return 0

    cdef Transport hand_over(self):
        cdef Transport transport
        self._have()
        transport = self.transport
        self.transport = None
        if self.outside is not None:
            self.outside.leave(self)
        return transport

    cdef ClientSocket move(self):
        cdef ClientSocket other = ClientSocket.__new__(ClientSocket)
        cdef Outside outside
        self._have()
        outside = self.outside
        with self._turn:
            other.fill(self.transport, self.first, self.origin, self.secure)
            self.transport = None
            self.first = b""
        other.family = self.family
        memcpy(other.address, self.address, 16)
        other.port = self.port
        if outside is not None:
            outside.enter(other, False)   # first: for a moment there would be none
            outside.leave(self)
        return other

    cdef int _have(self) except -1:
        """Raises unless there is a connection."""
        if self.taker is not None:
            with self._taking:   # two threads may be the first to use it
                taker = self.taker
                if taker is not None:
                    taker(self)
        if self.transport is None or self.closed or self.transport.fd < 0:
            raise OSError(errno.EBADF, "the connection is closed, or has been given back")
        return 0

    # ------------------------------------------------------------------ reading and writing

    cdef int64_t _until(self) noexcept:
        return INT64_MAX if self.timeout < 0 else now() + <int64_t>(self.timeout * 1e9)

    cdef int _wait(self, bint to_write, int64_t until) except -1:
        """Until the socket is ready, without the GIL. Raises at the timeout."""
        cdef int64_t left = until - now() if until != INT64_MAX else INT64_MAX
        cdef int fd = -1 if self.transport is None else self.transport.fd
        cdef int result
        if fd < 0:
            return 0   # another thread has just closed it: our caller will see
        if self.timeout == 0:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if left <= 0:
            raise TimeoutError("timed out")
        with nogil:
            result = wait_ready(fd, to_write, left)
        if result == -EINTR:
            PyErr_CheckSignals()
        return 0

    cdef Py_ssize_t _receive(self, char* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t count
        cdef bint wants_write
        cdef int64_t until = self._until()
        self._have()
        if size == 0:
            return 0
        with self._turn:
            count = min(size, PyBytes_GET_SIZE(self.first))
            if count:
                memcpy(data, PyBytes_AS_STRING(self.first), count)
                self.first = self.first[count:]
                return count
        while True:
            with self._turn:
                self._have()
                count = self.transport.recv(data, size)
                wants_write = self.transport.read_wants_write
            if count >= 0:
                return count
            if count != -EAGAIN and count != -EWOULDBLOCK:
                raise OSError(-count, os.strerror(-count))
            self._wait(wants_write, until)

    cdef Py_ssize_t _send_some(self, const char* data, Py_ssize_t size, int64_t until) except -1:
        cdef Py_ssize_t count
        cdef bint wants_read
        while True:
            with self._turn:
                self._have()
                count = self.transport.send(data, size, False)
                wants_read = self.transport.write_wants_read
            if count >= 0:
                return count
            if count != -EAGAIN and count != -EWOULDBLOCK:
                raise OSError(-count, os.strerror(-count))
            self._wait(not wants_read, until)

    def recv(self, Py_ssize_t size, int flags=0) -> bytes:
        """Up to so many bytes; b"" at the end."""
        cdef bytes data
        cdef Py_ssize_t count
        if flags:
            raise ValueError("a ClientSocket knows no flags of recv()")
        if size < 0:
            raise ValueError("negative buffersize in recv")
        data = PyBytes_FromStringAndSize(NULL, min(size, MOST_AT_ONCE))
        count = self._receive(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return data if count == PyBytes_GET_SIZE(data) else data[:count]

    def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0) -> int:
        """As recv(), into a writable buffer: the number of bytes."""
        cdef Py_buffer view
        if flags:
            raise ValueError("a ClientSocket knows no flags of recv_into()")
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if nbytes < 0 or nbytes > view.len:
                raise ValueError("buffer too small for requested bytes")
            return self._receive(<char*>view.buf, nbytes or view.len)
        finally:
            PyBuffer_Release(&view)

    def send(self, data, int flags=0) -> int:
        """Sends some of it, the number of bytes; without a timeout all of it, as the kernel does for a socket that blocks."""
        cdef Py_buffer view
        cdef Py_ssize_t sent = 0
        if flags:
            raise ValueError("a ClientSocket knows no flags of send()")
        self._have()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len == 0:
                return 0
            with self._sending:
                sent = self._send_some(<const char*>view.buf, view.len, self._until())
                while self.timeout < 0 and sent < view.len:
                    sent += self._send_some(<const char*>view.buf + sent, view.len - sent, INT64_MAX)
                return sent
        finally:
            PyBuffer_Release(&view)

    def sendall(self, data, int flags=0) -> None:
        """Sends all of it."""
        cdef Py_buffer view
        cdef Py_ssize_t sent = 0
        cdef int64_t until = self._until()
        if flags:
            raise ValueError("a ClientSocket knows no flags of sendall()")
        self._have()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with self._sending:
                while sent < view.len:
                    sent += self._send_some(<const char*>view.buf + sent, view.len - sent, until)
        finally:
            PyBuffer_Release(&view)

    @property
    def read_wants_write(self) -> bool:
        """Whether a recv() that would block goes on when the socket is writable (TLS)."""
        self._have()
        return self.transport.read_wants_write

    @property
    def write_wants_read(self) -> bool:
        """Whether a send() that would block goes on when the socket is readable (TLS)."""
        self._have()
        return self.transport.write_wants_read

    # ------------------------------------------------------------------ the end

    def shutdown(self, int how) -> None:
        """Ends one or both directions; TLS says so with close_notify when writing ends."""
        with self._turn:
            self._have()
            if how != _socket.SHUT_RD:
                self.transport.shutdown()
            if how != _socket.SHUT_WR:
                end_both_ways(self.transport.fd)   # wakes a thread that waits in recv() as well

    def close(self) -> None:
        """Ends the connection. One that is still the server's is left to it."""
        with self._turn:
            if self.closed or self.transport is None:
                return
            self.closed = True
            # A thread may wait for this socket: it must notice before the number is somebody else's.
            self.transport.shutdown()
            end_both_ways(self.transport.fd)
            self.transport.close()
        if self.outside is not None:
            self.outside.leave(self)

    def interrupt(self) -> None:
        """Ends both directions of the socket at once, from any thread: whoever waits for it sees the end."""
        cdef bint mine = self._turn.acquire(False)   # a signal handler may have interrupted who has it
        try:
            if self.transport is not None and not self.closed and self.transport.fd >= 0:
                end_both_ways(self.transport.fd)
        finally:
            if mine:
                self._turn.release()

    def dup(self) -> ClientSocket:
        """Itself: the server lets go of a connection when it is used, so there is nothing to be kept open beside it."""
        self._have()
        return self

    # ------------------------------------------------------------------ facts and options

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        if self.taker is not None:
            self._have()
        return -1 if self.transport is None else self.transport.fd

    def settimeout(self, value) -> None:
        """Seconds that recv() and send() may wait; None: for ever; 0: they do not."""
        if value is not None and value < 0:
            raise ValueError("Timeout value out of range")
        self.timeout = -1 if value is None else value

    def gettimeout(self) -> float | None:
        return None if self.timeout < 0 else self.timeout

    def setblocking(self, flag) -> None:
        self.timeout = -1 if flag else 0

    def getblocking(self) -> bool:
        return self.timeout != 0

    def getpeername(self):
        return self._ask("getpeername")

    def getsockname(self):
        return self._ask("getsockname")

    def getsockopt(self, *arguments):
        return self._ask("getsockopt", *arguments)

    def setsockopt(self, *arguments) -> None:
        self._ask("setsockopt", *arguments)

    @property
    def family(self):
        return self._ask("family")

    @property
    def type(self):
        return _socket.SOCK_STREAM

    @property
    def proto(self):
        return self._ask("proto")

    def _ask(self, name, *arguments):
        self._have()
        sock = _socket.socket(fileno=self.transport.fd)
        try:
            found = getattr(sock, name)
            return found(*arguments) if callable(found) else found
        finally:
            sock.detach()

    @property
    def taken(self) -> bool:
        """Whether the connection has left the server: False for one that asks for it later, as long as it has not."""
        return self.taker is None

    @property
    def read_ahead(self) -> bytes:
        """What recv() returns first."""
        self._have()
        return self.first

    @property
    def encrypted(self) -> bool:
        """Whether this is a TLS connection."""
        self._have()
        return self.secure

    def version(self) -> str | None:
        """The TLS version as ssl.SSLSocket.version() names it; None without TLS."""
        self._have()
        return (<TLSTransport>self.transport).facts().environ["SSL_PROTOCOL"] if self.secure else None

    def do_handshake(self) -> None:
        """Done already; here for code that asks for it."""
        self._have()

    def selected_alpn_protocol(self) -> str | None:
        """What the handshake agreed on: "http/1.1" is the only protocol that is offered; None without TLS."""
        self._have()
        return "http/1.1" if self.secure else None
