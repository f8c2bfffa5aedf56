"""Accept, ready events and deadlines, for every connection of a process (or of a thread on a free-threaded interpreter).

A Channel is one client connection: it moves bytes between a Transport and an HTTP1Connection, tells its Exchange what arrives,
and carries away what the exchange sends. Knows bytes, sockets and time; nothing of WSGI, ASGI or event loops. The file is long
because a channel and its reactor are one state machine: splitting it would put a seam through every transition.

Threads: everything here runs with the GIL (or on the one thread that owns the reactor); only Poller.wait() gives it up. A busy
channel belongs to the thread that handles it: others add to its pending bits and go on.
"""

import collections
import errno
import logging
import os
import socket as _socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset, strlen
from posix.unistd cimport close

from duckfast._debug cimport ALIVE_CHANNEL, DUCKFAST_DEBUG, count_alive
from duckfast._forwarded cimport CLIENT_NOT_TOLD, admit_underscores, read_forwarded
from duckfast._http1 cimport (
    CLOSED, DATA, END, FAILED, FINISHED_KEEP_ALIVE, FINISHED_SHORT, NEED_DATA, PAUSED, REQUEST, SEND_CHUNKED,
    SEND_NOTHING, SEND_UNTIL_CLOSE, Event, Finish,
)
from duckfast._logformat cimport NOTE_CAPACITY, Facts, Note
from duckfast._parser cimport free_head, new_head
from duckfast._proxy_protocol cimport (
    LONGEST_PROXY_HEADER, PROXY_INCOMPLETE, PROXY_REFUSED, ProxyHeader, ProxyParsed, parse_proxy_header,
)
from duckfast._poller cimport (
    BROKEN, PEER_CLOSED, READABLE, WRITABLE, arm, disarm, fine_now, first_due, init_timers, now,
)
from duckfast._tls cimport (
    HANDSHAKE_DONE, HANDSHAKE_FAILED, HANDSHAKE_GOES_ON, HANDSHAKE_PLAIN, Handshake, TLSTransport,
)
from duckfast._transport cimport accept_connection, iovec, local_address, peer_address, wait_ready
from duckfast._trust cimport Proxies, describe_address
from duckfast._writer cimport (
    NO_MEMORY, PERSISTENCE_UNSAID, WRITE_OK, append, end_head, free_buffer, reserve, write_field, write_interim, write_status,
)

from duckfast._http1 import HTTP1Connection as _OwnConnection

cdef extern from "<errno.h>":
    enum: EAGAIN, EWOULDBLOCK, EINTR, ECONNABORTED, EPERM, EPROTO

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/socket.h>

    /* glibc gives the end of its heap back whenever 128 KiB of it are free, and the next messages of 64 KiB have it cleared and
       mapped again page by page: 7 % of what an echo costs. Once a block of this size has come and gone it keeps twice as much. */
    static void df_steady_heap(void) {
        char *volatile block = malloc(1 << 21);
        free(block);
    }
    """
    enum: AF_INET, AF_INET6, AF_UNIX
    void df_steady_heap()

_logger = logging.getLogger("duckfast")

cdef size_t SCRATCH = 65 * 1024         # bytes per read: 64 K and their head at once; nginx 8-16 K, uvicorn 64 K, more costs cache
cdef size_t BLOCK = 16 * 1024           # bytes of an output block: a head and a usual body leave in one system call
cdef size_t COPY = 12 * 1024            # bytes: a body up to this is copied behind its head, a larger one is sent from where it is
cdef int SPARE_BLOCKS = 32
cdef int READS_PER_TURN = 16            # one fast sender must not starve the rest: 1 MiB, then the others
cdef int REQUESTS_PER_TURN = 64         # the same for pipelined requests
cdef int ACCEPTS_PER_TURN = 64
cdef int RESUMES = 8                    # turns of channels that go on by themselves until others are looked for
cdef int LAST_ACCEPTS = 64              # bursts of accepting when a reactor retires: 4096 connections, more than a usual backlog
cdef int OVERTAKES = 64                 # quick requests that may go before one that waits because its connection's last one blocked
cdef uint64_t BODY_PROGRESS = 4096      # bytes that must have come before the body deadline is set anew (else 1 byte would do)
cdef int WRITE_PROGRESS = 4096          # bytes that the peer must have taken before the write deadline is set anew, when none could be sent
cdef int64_t LATE = 20_000_000          # nanoseconds after a deadline; later it is we who have kept the peer waiting
cdef int64_t SECOND = 1_000_000_000
cdef int64_t HALF_CLOSE_GRACE = 3 * SECOND    # after a FIN; gunicorn's disconnect grace period is 3 s too
cdef int64_t PARTING_TIME = SECOND            # a stop waits so long for clients to notice that their connection has ended
cdef int64_t ACCEPT_PAUSE = SECOND // 2       # without descriptors; nginx accept_mutex_delay 500 ms
cdef int64_t OVERTIME_SHARE = 16              # how finely a request's time is kept that had to wait for its client: 1/16 of the limit
cdef int64_t COMPLAIN_EVERY = 10 * SECOND
cdef int64_t HANDSHAKE_GRACE = SECOND         # when too many are in progress, the oldest goes once it has had this long
cdef int TOLD_AT_ONCE = 20                    # lines about what clients did wrong that may go to the error log in a burst ...
cdef int64_t TELL_EVERY = SECOND              # ... and then one so often: under 10 MB a day, whatever clients do
cdef int CLIENT_GONE = 499                    # in the access log: the client left before there was a status; nginx's number

cdef uint32_t RESUME = 16   # beside the poller's Ready bits: nothing happened, go on where you stopped

cdef enum Security:
    PLAIN
    SHAKING_HANDS   # TLS, not established yet
    SECURE


cdef enum Reprieve:
    NOT_NEEDED
    GRANTED         # bytes came in time, but nobody had time to read them: the deadline has been set anew
    USED            # they have been read


cdef class Desk:
    """One thread's read buffer and parsed head."""

    def __cinit__(self, Limits limits):
        self.scratch_size = SCRATCH
        self.scratch = <char*>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError
        self.head = new_head(limits)

    def __dealloc__(self):
        free(self.scratch)
        if self.head != NULL:
            free_head(self.head)


cdef class Service:
    cdef Exchange new_exchange(self, Channel channel, Head* head):
        raise RuntimeError("a Service makes exchanges of its own kind")


cdef class Exchange:
    cdef int begin(self, Desk desk) except -1:
        return 0

    cdef int body_data(self, const char* data, size_t size) except -1:
        return 0

    cdef int body_end(self) except -1:
        return 0

    cdef bint wants_body(self) noexcept:
        return True

    cdef int disconnected(self) except -1:
        return 0

    cdef int half_closed(self) except -1:
        return 0

    cdef int drained(self) except -1:
        return 0

    cdef int proceed(self, Desk desk) except -1:
        return 0

    cdef Desk desk_in_app(self):
        return None

    cdef int overdue(self) except -1:
        return 0

    cdef tuple describe(self):
        return None

    cdef dict facts(self):
        return None

    cdef int draining(self) except -1:
        return 0

    cdef int bytes_came(self, char* data, size_t size) except -1:
        return 0

    cdef int bytes_ended(self) except -1:
        return 0

    cdef bint wants_bytes(self) noexcept:
        return True

    cdef int deadline_passed(self, Deadline deadline) except -1:
        return 0


cdef class Channel:
    """One client connection. Made by the reactor, ended by close() or take().

    These two drop the reactor's and the exchange's reference. An exchange that calls a method through its own reference has no other,
    so each method that it may call and that may end the connection keeps one of its own until it returns.
    """

    def __cinit__(self):
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_CHANNEL, 1)

    def __dealloc__(self):
        free(self.log_note)
        free_buffer(&self.out)
        free_buffer(&self.after)
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_CHANNEL, -1)

    # ------------------------------------------------------------------ facts for the app's dict

    cdef object client_host(self):
        if self.forwarded is not None and self.forwarded.client != CLIENT_NOT_TOLD:
            return self.forwarded.client_host
        if self._client_host is None:
            self._client_host = describe_address(self.family, self.address)
        return self._client_host

    cdef object client_port(self):
        if self.forwarded is not None and self.forwarded.client != CLIENT_NOT_TOLD:
            return self.forwarded.client_port
        return self.port

    cdef object client_port_text(self):
        if self.forwarded is not None and self.forwarded.client != CLIENT_NOT_TOLD:
            return str(self.forwarded.client_port)
        if self._client_port is None:
            self._client_port = str(self.port)
        return self._client_port

    cdef int _find_server(self) except -1:
        cdef int family
        cdef uint8_t address[16]
        cdef uint16_t port
        if not self.listener.wildcard or local_address(self.transport.fd, &family, address, &port) < 0:
            self._server = (self.listener.host, self.listener.port, str(self.listener.port))
        else:
            self._server = (describe_address(family, address), port, str(port))
        return 0

    cdef object server_host(self):
        if self._server is None:
            self._find_server()
        return (<tuple>self._server)[0]

    cdef object server_port(self):
        if self._server is None:
            self._find_server()
        return (<tuple>self._server)[1]

    cdef object server_port_text(self):
        if self._server is None:
            self._find_server()
        return (<tuple>self._server)[2]

    cdef str scheme(self):
        return "https" if self.proxied_https else self.listener.scheme

    cdef TLSFacts tls(self):
        return (<TLSTransport>self.transport).facts() if self.security == SECURE else None

    # ------------------------------------------------------------------ events

    cdef int handle(self, Desk desk, uint32_t ready) except -1:
        """Handles what became ready, and whatever becomes ready meanwhile, unless another thread already does."""
        self.pending |= ready
        if self.busy or self.closed:
            return 0
        self.busy = True
        try:
            while True:
                ready = self.pending
                self.pending = 0
                if self.security != PLAIN:
                    ready = self._uncross(ready)
                if ready & (READABLE | PEER_CLOSED | BROKEN):
                    self.readable = True
                if self.reprieve == GRANTED:
                    self.reprieve = USED
                if ready & BROKEN and not self.lingering:
                    # Bytes read before a reset are lost with it: nobody could get their answer.
                    self.lost()
                    break
                if ready & PEER_CLOSED:
                    self.peer_finished = True
                if ready & WRITABLE and self.blocked:
                    self._write_out()
                if self.closed:
                    break
                if self.security != SHAKING_HANDS or self._shake_hands(desk):
                    self._pump(desk)
                if self.pending == 0 or self.closed or desk.bereft:
                    break
        except Exception:
            self.give_up()
        finally:
            if desk.bereft:
                desk.bereft = False
            else:
                self.busy = False
        return 0

    # ------------------------------------------------------------------ TLS

    cdef uint32_t _uncross(self, uint32_t ready) noexcept:
        """In TLS a read may have to write first, and a write to read: what became ready is what goes on."""
        cdef Transport transport = self.transport
        cdef uint32_t goes_on = ready
        if ready & WRITABLE and transport.read_wants_write:
            goes_on |= READABLE
        if ready & READABLE and transport.write_wants_read:
            goes_on |= WRITABLE
        if ready & WRITABLE and transport.shutdown_due:
            transport.shutdown()
        return goes_on

    cdef bint _shake_hands(self, Desk desk) except -1:
        """Whether bytes may follow: the handshake is complete, or this is the end."""
        cdef TLSTransport transport = <TLSTransport>self.transport
        cdef Handshake outcome
        if not self.readable:
            return False   # a new connection is writable at once
        if self.proxy_due and not self._take_proxy_header(desk):
            return False
        with nogil:        # signing takes as long as many requests
            outcome = transport.handshake()
        if outcome == HANDSHAKE_GOES_ON:
            self.readable = False
            return False
        if outcome == HANDSHAKE_DONE:
            self._end_handshake()
            self.reactor.counters.handshakes += 1
            self.reactor.set_deadline(self, HEAD_DEADLINE)
            if self.reactor.stopping:
                self.connection.close_after_response()
            if self.reactor.on_connected is not None:
                return self._divert(self.reactor.on_connected)
            return True
        if outcome == HANDSHAKE_FAILED:
            self._fail_handshake()
        elif outcome == HANDSHAKE_PLAIN:
            self._end_handshake()
            self.reactor.counters.handshakes_failed += 1
            self.security = PLAIN
            self.transport = Transport.__new__(Transport, self.transport.fd)
            transport.fd = -1   # the new one has it
            self.answer_error(400, b"plain HTTP was sent to an HTTPS port; use https:// in the address")
        else:
            self.close()   # without a word: a port scan, a balancer's check
        return not self.closed

    cdef int _end_handshake(self) except -1:
        self.security = SECURE
        self.reprieve = NOT_NEEDED
        self.reactor.handshakes -= 1
        if not self.reactor.accepting:
            self.reactor.resume_accepting()
        return 0

    cdef int _fail_handshake(self) except -1:
        self.reactor.counters.handshakes_failed += 1
        self._tell("%s: TLS handshake failed: %s", ((<TLSTransport>self.transport).failure(),))
        self._end_handshake()
        return self._linger()   # a reset could overtake the alert that tells the client why

    cdef int _pump(self, Desk desk) except -1:
        """Reads and handles until there is nothing more to read, or nobody wants more."""
        cdef int budget = READS_PER_TURN
        cdef Py_ssize_t count
        cdef Exchange exchange
        if self.lingering:
            return self._throw_away(desk)
        if self.upgraded:
            return self._pump_upgraded(desk)
        if self.turn_came:
            self.turn_came = False
            exchange = self.exchange
            if exchange is not None and exchange.place == ITS_TURN:
                exchange.place = INSIDE
                self._start_clock()
                exchange.proceed(desk)
        if self.proxy_due and not self._take_proxy_header(desk):
            return 0
        while self._advance(desk):
            if not self.readable:
                break
            if budget == 0:
                self.reactor.queue(self)
                break
            budget -= 1
            # What is kept of an incomplete message has been settled: the scratch is free.
            if self.connection.settle() < 0:
                raise MemoryError
            count = self.transport.recv(desk.scratch, desk.scratch_size)
            if count > 0:
                self.reactor.counters.bytes_in += count
                self.connection.feed(desk.scratch, count)
                # A short read has emptied the socket: the next bytes bring an event of their own. A FIN is still to be read.
                if <size_t>count < desk.scratch_size and not self.peer_finished and not self.transport.unread:
                    self.readable = False
            elif count == -EAGAIN or count == -EWOULDBLOCK:
                self.readable = False
            elif count == 0:
                self.readable = False
                self.peer_finished = True
                self.connection.feed_eof()
            else:
                self.lost()
        if desk.bereft:
            return 0
        if self.lingering and not self.closed:
            return self._throw_away(desk)
        if not self.closed:
            if self.connection.settle() < 0:
                raise MemoryError
            if self.peer_finished and self.exchange is not None and self.deadline == NO_DEADLINE:
                self.reactor.set_deadline(self, HALF_CLOSE_DEADLINE)
        return 0

    cdef int _pump_upgraded(self, Desk desk) except -1:
        """Reads for the exchange, first what came behind the request that asked for the other protocol."""
        cdef int budget = READS_PER_TURN
        cdef Py_ssize_t count
        cdef size_t done = 0
        cdef size_t size
        cdef bytes early
        cdef Exchange exchange = self.exchange
        if self.connection.unread() and exchange is not None:
            early = self.connection.take_unread()
            while done < <size_t>len(early) and not self.closed:
                size = min(<size_t>len(early) - done, desk.scratch_size)
                memcpy(desk.scratch, PyBytes_AS_STRING(early) + done, size)
                done += size
                exchange.bytes_came(desk.scratch, size)
        while not self.closed and not self.lingering:
            exchange = self.exchange
            if exchange is None or not self.readable or not exchange.wants_bytes():
                return 0
            if budget == 0:
                return self.reactor.queue(self)
            budget -= 1
            count = self.transport.recv(desk.scratch, desk.scratch_size)
            if count > 0:
                self.reactor.counters.bytes_in += count
                self.connection.body_received += <uint64_t>count
                if <size_t>count < desk.scratch_size and not self.peer_finished and not self.transport.unread:
                    self.readable = False   # as in _pump()
                exchange.bytes_came(desk.scratch, count)
            elif count == -EAGAIN or count == -EWOULDBLOCK:
                self.readable = False
            elif count == 0:
                self.readable = False
                self.peer_finished = True
                exchange.bytes_ended()
            else:
                self.lost()
        if self.lingering and not self.closed:
            return self._throw_away(desk)
        return 0

    cdef bint _take_proxy_header(self, Desk desk) except -1:
        """Takes the PROXY header off the front of the connection, before TLS or anything else is read. False: not yet, or never."""
        cdef ProxyHeader header
        cdef ProxyParsed parsed = PROXY_INCOMPLETE
        cdef Py_ssize_t count
        if not self.readable:
            return False
        # Only looked at: what stands behind it belongs to somebody else. An incomplete one is looked at again when more has come.
        count = self.transport.peek(desk.scratch, LONGEST_PROXY_HEADER)
        if count > 0:
            parsed = parse_proxy_header(&header, self.reactor.proxies.versions, desk.scratch, count)
        elif count == -EAGAIN or count == -EWOULDBLOCK:
            self.readable = False
            return False
        elif count < 0:
            self.lost()
            return False
        if parsed == PROXY_INCOMPLETE and (count == 0 or self.peer_finished):
            # Without a byte it is somebody who asks whether the port is open: no reason for a line in the log.
            if count > 0:
                self._refuse_proxy(b"the PROXY header breaks off")
            self.close()
            return False
        if parsed == PROXY_INCOMPLETE:
            self.readable = False
            return False
        if parsed == PROXY_REFUSED:
            self._refuse_proxy(header.reason)
            self.close()
            return False
        if self.transport.skip(header.size) < 0:
            self.lost()
            return False
        self.reactor.counters.bytes_in += header.size
        self.proxy_due = False
        self._believe_proxy(&header)
        return True

    cdef int _refuse_proxy(self, const char* reason) except -1:
        self._tell("%s: connection refused: %s", ((<bytes>reason).decode("ascii"),))
        return 0

    cdef int _believe_proxy(self, ProxyHeader* header) except -1:
        cdef Proxies proxies = self.reactor.proxies
        if header.local:
            return 0   # the proxy looks after us on its own behalf: it is the client
        self.proxied_https = header.https
        if header.source.family != 0:
            self.proxied = True
            self.family = header.source.family
            memcpy(self.address, header.source.octets, 16)
            self.port = header.source.port
            self._client_host = self._client_port = None
            if header.destination.family != AF_UNIX:
                host = describe_address(header.destination.family, header.destination.octets)
                self._server = (host, header.destination.port, str(header.destination.port))
        # The requests are written by whom the header names, and only carried by the peer: whether their forwarded fields are
        # true is a question of the former.
        self.trusted = header.source.family != 0 and proxies.listens and (
            proxies.senders.trusts(self.family, self.address))
        return 0

    cdef bint _advance(self, Desk desk) except -1:
        """Takes events out of the bytes at hand. True: more bytes are needed; False: not now, or never again."""
        cdef Event event
        cdef Exchange exchange   # ours while it runs: its response may end, and with it the channel's reference
        cdef int budget = REQUESTS_PER_TURN
        while not self.closed and not self.lingering and not desk.bereft:
            if self.exchange is not None and not self.connection.request_complete and not self.exchange.wants_body():
                self.reactor.set_deadline(self, NO_DEADLINE)   # the app is slow, not the peer
                if self.client_since:
                    self._count_client()
                return False
            event = self.connection.poll(desk.head)
            if event == REQUEST:
                self._begin_request(desk)
                if self.upgraded:
                    return False
            elif event == END:
                self.reactor.set_deadline(self, NO_DEADLINE)
                if self.client_since:
                    self._count_client()
                exchange = self.exchange
                if exchange is not None:
                    exchange.body_end()
            elif event == PAUSED:
                if not self._turn():
                    return False
                budget -= 1
                if budget == 0 and self.connection.unread():
                    self.reactor.queue(self)
                    return False
            elif event == NEED_DATA:
                self._await_bytes()
                return not self.closed and not self.lingering
            elif event == DATA:
                exchange = self.exchange
                if exchange is not None:
                    exchange.body_data(self.connection.body_data, self.connection.body_size)
                else:
                    self._discard(self.connection.body_size)
            elif event == FAILED:
                self._refuse()
            else:   # CLOSED
                self.close()
        return False

    cdef int _await_bytes(self) except -1:
        """Sets the deadline of whatever the connection is waiting for now."""
        cdef uint64_t received
        if self.connection.between_requests():
            if self.reactor.stopping and not self.readable and self.deadline != PARTING_DEADLINE:
                return self.drain(None)   # which came when there was perhaps more to read
            # A fresh connection keeps the head deadline it was accepted with, or the one that drain() has given it.
            if self.deadline != HEAD_DEADLINE and self.deadline != KEEP_ALIVE_DEADLINE and self.deadline != PARTING_DEADLINE:
                if self.reactor.on_idle is not None and not self.reactor.retiring:
                    return 0 if self.readable else self._divert(self.reactor.on_idle)
                self.reactor.set_deadline(self, KEEP_ALIVE_DEADLINE)
        elif self.exchange is None and not self.response_done:
            if self.deadline != HEAD_DEADLINE:
                self.reactor.set_deadline(self, HEAD_DEADLINE)
        elif self.exchange is None:
            if self.deadline != LINGER_DEADLINE:   # the rest of a body nobody reads
                self.reactor.set_deadline(self, LINGER_DEADLINE)
        else:
            received = self.connection.body_received
            if self.deadline != BODY_DEADLINE or received - self.deadline_mark >= BODY_PROGRESS:
                self.deadline_mark = received
                self.reprieve = NOT_NEEDED
                self.reactor.set_deadline(self, BODY_DEADLINE)
            if self.reactor.request_timers.length:
                self._count_client()
        return 0

    cdef int _begin_request(self, Desk desk) except -1:
        cdef Reactor reactor = self.reactor
        cdef Exchange exchange   # ours while it runs: its response may end, and with it the channel's reference
        if self.deadline != NO_DEADLINE:
            reactor.set_deadline(self, NO_DEADLINE)
        reactor.clock = now()
        reactor.counters.requests += 1
        if reactor.counters.requests == reactor.request_mark:
            reactor.pass_mark()
        self.continue_due = desk.head.expect_continue
        self.reprieve = NOT_NEEDED
        self.response_done = False
        self.response.status = 0
        self.body_sent = 0
        self.drained_size = 0
        self.deadline_mark = 0
        self.body_progress = 0
        self.request_length = desk.head.content_length
        if reactor.stopping or not reactor.limits.keep_alive:
            self.connection.close_after_response()
        if desk.head.dropped:
            self._count_dropped(desk.head)
        if self.trusted and (desk.head.forwarded & <uint32_t>reactor.proxies.fields or reactor.proxies.tells_schemes):
            self._read_forwarded(desk.head)
        if reactor.log is not None:
            self._note_request(desk.head)
        if self.refusal_due:
            return self._refuse_fields()
        if reactor.gated and reactor._is_full():
            return self.answer_busy()
        exchange = reactor.service.new_exchange(self, desk.head)
        exchange.channel = self
        exchange.since = reactor.clock
        self.exchange = exchange
        if reactor.request_timers.length:
            self.client_since = self.client_time = 0
            self._start_clock()
        exchange.begin(desk)
        return 0

    cdef int _count_dropped(self, Head* head) except -1:
        """Names with underscores: in CGI names they are the same as those with dashes, so they could replace what a proxy says."""
        cdef Proxies proxies = self.reactor.proxies
        if self.trusted and proxies.admitted:
            admit_underscores(head, proxies)
            self._read_forwarded(head)
        self.reactor.counters.dropped_fields += head.dropped
        self.refusal_due = head.dropped > 0 and proxies.refuses_underscores
        return 0

    cdef int _refuse_fields(self) except -1:
        self.refusal_due = False
        self.forwarded = None
        return self.answer_error(400, b"fields whose names hold underscores, or that tell different schemes, are not accepted")

    cdef int _read_forwarded(self, Head* head) except -1:
        self.forwarded = read_forwarded(head, self.reactor.proxies)
        if self.forwarded is not None and self.forwarded.contradictory:
            self.refusal_due = True
        if self.forwarded is not None and self.forwarded.host is not None:
            # Where an absolute-form target's authority stands for Host, the host that the client has named does as well.
            head.authority.data = self.forwarded.host
            head.authority.size = <uint32_t>len(self.forwarded.host)
        return 0

    cdef int _note_request(self, Head* head) except -1:
        """Copies what the access log wants of the request: the head's bytes will be gone when the response is."""
        if self.log_note != NULL:
            self._log_response()
        self.log_note = self.reactor.log.format.note(head, self.reactor.take_note())
        if self.log_note == NULL:
            raise MemoryError
        self.log_note.began = fine_now()
        if self.reactor.log.observe is not None:
            self.observed = Observation.__new__(Observation)
        return 0

    cdef int _note_refused(self) except -1:
        """The same of a request whose head was not read, or not to its end: its first line, as far as it came."""
        cdef const char* data = NULL
        cdef size_t size = self.connection.unfinished_head(&data)
        self.log_note = self.reactor.log.format.note_line(data, size)
        if self.log_note == NULL:
            raise MemoryError
        self.log_note.began = fine_now()
        if self.reactor.log.observe is not None:
            self.observed = Observation.__new__(Observation)
        return 0

    cdef int _note_response(self, size_t at) except -1:
        """The fields of a response head that the access log wants; it stands in the output from `at` on."""
        cdef Note* note
        if self.observed is not None:
            self.observed.response_head = self.out.data[at:self.out.size]
            if not self.reactor.log.format.wants_response:
                return 0
        note = self.reactor.log.format.note_response(self.log_note, self.out.data + at, self.out.size - at)
        if note == NULL:
            raise MemoryError
        self.log_note = note
        return 0

    cdef int _discard(self, size_t size) except -1:
        """Body bytes that the app did not read: a bounded amount, then the connection ends."""
        self.drained_size += size
        if self.drained_size > self.reactor.limits.drain:
            if self.response_done and not self.blocked:
                self._linger()
            else:
                self.connection.close_after_response()
        return 0

    cdef bint _turn(self) except -1:
        """From one request to the next, once the response has left. False: it has not yet."""
        if not self.response_done or self.blocked:
            return False
        self.response_done = False
        self.connection.next_request()
        if self.reactor.stopping and self.connection.unread() == 0:
            self._linger()
            return False
        return True

    cdef int _refuse(self) except -1:
        """The peer broke a rule. Its answer says which, if an answer can still be read as one."""
        cdef HTTP1Connection connection = self.connection
        self.reactor.set_deadline(self, NO_DEADLINE)
        if self.response_done:
            # An unread body turned out broken after its answer: nothing behind it can be trusted.
            if self.blocked:
                connection.close_after_response()
            else:
                self._linger()
            return 0
        if connection.head_sent:
            return self.break_off()
        return self.answer_error(connection.error_status, connection.error_reason)

    # ------------------------------------------------------------------ deadlines

    cdef bint is_unheard(self, int64_t time) except -1:
        """Whether a deadline has passed only because nobody had time to read: every thread, or the loop, was in the app.

        The next read decides. It is granted once, or somebody who sends a byte now and then could stay for ever.
        """
        cdef char first
        if self.deadline > KEEP_ALIVE_DEADLINE and self.deadline != HANDSHAKE_DEADLINE:
            return False
        if self.reprieve != NOT_NEEDED:
            return self.reprieve == GRANTED
        if time - self.read_timer.at < LATE and (self.proxy_due or not self.connection.between_requests()):
            return False   # we were there all the time
        if self.transport.peek(&first, 1) <= 0:
            return False
        self.reprieve = GRANTED
        self.readable = True
        self.reactor.queue(self)
        return True

    cdef int read_timed_out(self, Desk desk) except -1:
        cdef uint8_t deadline = self.deadline
        cdef Exchange exchange
        self.reactor.set_deadline(self, NO_DEADLINE)
        if deadline >= LOOK_DEADLINE:
            exchange = self.exchange
            if exchange is not None:
                exchange.deadline_passed(<Deadline>deadline)
            return 0
        if deadline == HALF_CLOSE_DEADLINE:
            exchange = self.exchange
            if exchange is not None:
                exchange.half_closed()
            return 0
        self.reactor.counters.timeouts += 1
        if self.proxy_due:
            self._refuse_proxy(b"the PROXY header took too long")
            self.close()
        elif deadline == HANDSHAKE_DEADLINE:
            self.reactor.counters.handshakes_failed += 1
            self._tell("%s: TLS handshake failed: it took too long", ())
            self.close()
        elif deadline == HEAD_DEADLINE and self.reactor.on_timed_out is not None:
            self._divert(self.reactor.on_timed_out)
        elif deadline == HEAD_DEADLINE and not self.connection.between_requests():
            self.answer_error(408, b"the request head took too long")
        elif deadline == BODY_DEADLINE and not self.connection.head_sent:
            self.answer_error(408, b"the request body took too long")
        elif deadline == BODY_DEADLINE:
            self.break_off()
        elif self.reactor.retiring and not self.lingering:
            self._linger()   # a request that crosses our FIN on its way must not cause a reset
        else:
            self.close()
        return 0

    cdef int leave_body(self) except -1:
        """Reading the rest is the app's from now on: until it asks, in wait_body(), nobody waits for the client."""
        if self.deadline == BODY_DEADLINE:
            self.reactor.set_deadline(self, NO_DEADLINE)
            if self.reactor.request_timers.length:
                self._count_client()
        return 0

    cdef int _start_clock(self) except -1:
        """The app's time begins, if it has a limit: with the request, and anew with the end of its time in line."""
        if self.reactor.request_timers.length:
            self._count_client()
            return self.reactor.move_deadline(arm(&self.reactor.request_timers, &self.request_timer))
        return 0

    cdef int _count_client(self) noexcept:
        """Keeps what the app waits for the client, or in line, apart from its own time."""
        cdef bint waiting = self.blocked or self.asking or self.deadline == BODY_DEADLINE \
            or self.exchange is not None and self.exchange.place == IN_LINE
        if waiting and self.client_since == 0:
            self.client_since = now()
        elif not waiting and self.client_since:
            self.client_time += now() - self.client_since
            self.client_since = 0
        return 0

    cdef int request_due(self, int64_t time) except -1:
        cdef Channel kept = self
        cdef Exchange exchange = self.exchange
        cdef Desk desk = None
        cdef bint in_time
        disarm(&self.request_timer)
        if exchange is None or self.closed:
            return 0
        in_time = time - exchange.since - self.client_time < self.reactor.limits.request_time
        if self.busy:
            desk = exchange.desk_in_app()
            in_time = in_time or desk is None or self.transport.working   # its thread works for us right now
        if in_time or self.client_since:
            return self.reactor.move_deadline(arm(&self.reactor.overtime_timers, &self.request_timer))
        return self._end_overdue(exchange, desk)

    cdef int _end_overdue(self, Exchange exchange, Desk desk) except -1:
        """Answers for an app that takes too long, and takes the connection from the thread that is stuck in it."""
        cdef Reactor reactor = self.reactor
        cdef bint answered = not self.connection.head_sent
        cdef tuple facts = exchange.describe() or ("a request", "")
        reactor.counters.timeouts += 1
        if answered:
            self.answer_error(504, b"the application took too long")
        else:
            self.break_off()
        if desk is not None and not desk.bereft:
            desk.bereft = True
            self.busy = False
            reactor.queue(self)
        _logger.warning("%s %.200r took longer than %g s (--timeout-request): %s", facts[0], facts[1],
                        reactor.limits.request_time / 1e9, "answered with 504" if answered else "its response was broken off")
        exchange.overdue()
        if desk is not None and reactor.on_stuck is not None:
            reactor.on_stuck()
        return 0

    cdef int write_due(self) except -1:
        """What the kernel takes now, or the peer took of what the kernel has, sets the deadline anew."""
        cdef Channel kept = self
        cdef int64_t at = self.write_timer.at
        self._write_out()
        if self.closed or not self.blocked or self.write_timer.at != at:
            return 0
        if self._took_enough():
            return self.reactor.move_deadline(arm(&self.reactor.write_timers, &self.write_timer))
        return self.write_timed_out()

    cdef bint _took_enough(self) noexcept:
        """Whether a slow peer has gone on reading. The kernel's buffer is megabytes, and it takes more only when a good part is free."""
        cdef int left = self.transport.unacknowledged()
        cdef int mark = self.write_mark
        self.write_mark = left
        return left >= 0 and mark - left >= WRITE_PROGRESS

    cdef int write_timed_out(self) except -1:
        self.reactor.counters.timeouts += 1
        self._tell("%s took next to nothing of its response for %g s: connection ended", (self.reactor.limits.write_time / 1e9,))
        self.reactor.poller.drop(self.transport.fd)
        self.transport.abort()   # what is queued in the kernel would wait for the same reader
        return self.lost()

    cdef int drain(self, Desk desk) except -1:
        """The server stops: an idle connection ends, a busy one is told that this response is its last."""
        cdef Exchange exchange = self.exchange
        if self.closed or self.lingering:
            return 0
        if self.security == SHAKING_HANDS:
            if not (<TLSTransport>self.transport).begun:
                self.close()
            return 0   # one that has begun is about to bring a request: it still has its answer
        if self._is_idle() and not self.readable:
            if self.deadline != HEAD_DEADLINE:
                return self._linger()
            # A new connection has a reason, and its request is probably on the way: for a moment it may still come.
            self.reactor.set_deadline(self, PARTING_DEADLINE)
            return 0
        self.connection.close_after_response()
        if exchange is not None:
            exchange.draining()
        return 0

    cdef int part(self) except -1:
        """The time is up: what is in progress breaks off, an idle connection ends as idle ones do."""
        if self.closed or self.lingering:
            return 0
        if self.security == SHAKING_HANDS:
            return self.close()
        if self._is_idle():
            return self._linger()
        if self.transport.working:
            return 0   # its thread will soon be done with it; what it does not finish is reset a moment later
        return self.abort()

    cdef bint _is_idle(self) noexcept:
        return self.exchange is None and not self.response_done and self.connection.between_requests()

    cdef bint _is_last_response(self) noexcept:
        """Whether nothing more is asked for on a connection that is to end soon: what was pipelined gets its answers first."""
        return not self.connection.request_complete or (
            self.connection.unread() == 0 and not self.pending & READABLE and not (self.readable and not self.peer_finished))

    # ------------------------------------------------------------------ the end of a connection

    cdef int _linger(self) except -1:
        """Ends our half and throws away what still comes, so that the peer can read the last answer before a reset (RFC 9112 9.6)."""
        self.lingering = True
        self.readable = True
        self.transport.shutdown()
        self.reactor.set_deadline(self, PARTING_DEADLINE if self.reactor.stopping else LINGER_DEADLINE)
        if not self.busy:
            self.reactor.queue(self)
        return 0

    cdef int _throw_away(self, Desk desk) except -1:
        cdef Py_ssize_t count
        cdef int budget = READS_PER_TURN
        while self.readable:
            if budget == 0:
                self.reactor.queue(self)
                return 0
            budget -= 1
            count = self.transport.recv(desk.scratch, desk.scratch_size)
            if count > 0:
                continue
            self.readable = False
            if count != -EAGAIN and count != -EWOULDBLOCK:
                return self.close()
        return 0

    cdef int take(self, ClientSocket taken, int status) except -1:
        """Lets go of the connection without ending it: `taken` has it now, with the bytes that were read and not used.

        status: the response's for the access log, 101 for another protocol; 0: there is no line. Raises OSError when it is too late.
        """
        cdef Channel kept = self
        cdef Exchange exchange = self.exchange
        cdef Transport transport = self.transport
        if self.closed or self.lingering or self.blocked or self.upgraded or self.connection.head_sent:
            raise OSError(errno.ENOTCONN, "the client has left, or its response has begun")
        self.reactor.poller.unwatch(transport.fd)
        if self.log_note != NULL:
            if status:
                self.log_note.status = status
                self._log_response()
            else:
                self.reactor.give_note(self.log_note)
                self.log_note = NULL
                self.observed = None
        taken.fill(transport, self.connection.take_unread(), self.listener, self.security == SECURE)
        taken.family = self.family
        memcpy(taken.address, self.address, 16)
        taken.port = self.port
        self.reactor.outside.enter(taken, status == 101)
        self.transport = Transport.__new__(Transport, -1)
        self._leave(exchange)
        self._release()
        if exchange is not None:
            exchange.channel = None
        return 0

    cdef int _divert(self, object to) except -1:
        """Takes the connection to somebody who asked for it."""
        cdef ClientSocket taken = ClientSocket.__new__(ClientSocket)
        self.take(taken, 0)
        try:
            to(taken)
        except Exception:
            _logger.exception("a connection was ended: its hook could not be called")
            taken.close()
        return 0

    cdef int close(self) except -1:
        cdef Channel kept = self
        cdef Exchange exchange = self.exchange
        if self.closed:
            return 0
        try:
            if self.log_note != NULL:   # before what was not sent is forgotten
                self._log_response()
        finally:   # without memory the line may be lost, but not the end
            self._leave(exchange)
            self.reactor.poller.drop(self.transport.fd)
            self.transport.close()
            self._release()
            if exchange is not None:
                exchange.channel = None
                exchange.disconnected()
        return 0

    cdef int _leave(self, Exchange exchange) except -1:
        """Nothing happens to this connection any more."""
        self.closed = True
        self.exchange = None
        if self.upgraded:
            self.reactor.upgraded -= 1
        if self.security == SHAKING_HANDS:
            self.security = SECURE
            self.reactor.handshakes -= 1
        disarm(&self.read_timer)
        disarm(&self.write_timer)
        disarm(&self.request_timer)
        if exchange is not None and exchange.place != OUTSIDE and exchange.place != INSIDE:
            self.reactor.leave(exchange)
        self.deadline = NO_DEADLINE
        return self.reactor.poller.forget(<void*>self)

    cdef int _release(self) except -1:
        self.reactor.give_buffer(&self.out)
        free_buffer(&self.after)
        self.tail = None
        self.file = None
        self.blocked = False
        return self.reactor.forget_channel(self)

    cdef int abort(self) except -1:
        """Ends the connection with a reset: whatever the peer has of this response, it cannot take it for whole."""
        if not self.closed:
            if self.log_note != NULL and self.log_note.status == 0:
                # It is not the client that left.
                self.log_note.status = self.response.status if self.connection.head_sent else 500
            self.reactor.poller.drop(self.transport.fd)
            self.transport.abort()
            self.close()
        return 0

    cdef int give_up(self) except -1:
        """Ends a connection whose handling raised, while that exception is handled."""
        try:
            try:
                _logger.critical("internal error: a connection was given up", exc_info=True)
            finally:
                self.abort()
        except MemoryError:
            return 0   # there was none for the line, or for telling the app, either; but the connection has ended
        return 0

    cdef int lost(self) except -1:
        """The peer is gone."""
        return self.close()

    # ------------------------------------------------------------------ the request, for the exchange

    cdef int ask_body(self) except -1:
        cdef Channel kept = self
        # RFC 9110 10.1.1: not once a final status is out, not when the body is here already
        if self.continue_due:
            self.continue_due = False
            if not self.connection.head_sent and not self.connection.request_complete and self.connection.body_received == 0:
                self.send_interim(b"HTTP/1.1 100 Continue\r\n\r\n", 25)
        return 0

    cdef int resume_body(self, Desk desk) except -1:
        cdef Channel kept = self
        if self.closed or self.lingering:
            return 0
        return self.handle(desk, 0)

    cdef Event wait_body(self, Desk desk) except? FAILED:
        cdef HTTP1Connection connection = self.connection
        cdef int64_t limit = self.reactor.limits.body_time
        cdef int64_t left
        cdef int64_t time
        cdef Py_ssize_t count
        cdef Event event
        cdef bint inverted
        cdef int fd
        while not self.closed:
            event = connection.poll(desk.head)
            if event == PAUSED:
                return END
            if event != NEED_DATA:
                return event
            if connection.settle() < 0:
                raise MemoryError
            count = self.transport.recv(desk.scratch, desk.scratch_size)
            if count > 0:
                self.reactor.counters.bytes_in += count
                connection.feed(desk.scratch, count)
                continue
            if count == 0:
                self.peer_finished = True
                connection.feed_eof()
                continue
            if count != -EAGAIN and count != -EWOULDBLOCK:
                self.lost()
                break
            time = now()
            self.reactor.beat(time)
            if self.body_progress == 0 or connection.body_received - self.deadline_mark >= BODY_PROGRESS:
                self.deadline_mark = connection.body_received
                self.body_progress = time
            left = self.body_progress + limit - time if limit else INT64_MAX
            if left <= 0:
                self.reactor.counters.timeouts += 1
                connection.error_status = 408
                connection.error_reason = b"the request body took too long"
                return FAILED
            left = min(left, self.reactor.beat_interval)
            fd = self.transport.fd
            inverted = self.transport.read_wants_write
            self.asking = True
            if self.reactor.request_timers.length:
                self._count_client()
            with nogil:
                wait_ready(fd, inverted, left)
            self.asking = False
            if self.client_since:
                self._count_client()
        return CLOSED

    cdef bint wait_sent(self) except -1:
        cdef int64_t limit = self.reactor.limits.write_time
        cdef int64_t time = now()
        cdef int64_t until = time + limit if limit else INT64_MAX
        cdef int64_t left
        cdef bint inverted
        cdef int fd
        cdef int result
        while self.blocked and not self.closed:
            left = min(until - time, self.reactor.beat_interval)
            fd = self.transport.fd
            inverted = self.transport.write_wants_read
            with nogil:
                result = wait_ready(fd, not inverted, left)
            if self.closed:
                break
            time = now()
            self.reactor.beat(time)
            if result != 0:
                self._write_out()
                until = time + limit if limit else INT64_MAX
            elif time >= until and self._took_enough():
                until = time + limit
            elif time >= until:
                self.write_timed_out()
        return not self.closed

    # ------------------------------------------------------------------ the response, for the exchange

    cdef WriteError start_head(self, int status, const char* reason, size_t reason_size) noexcept:
        if self.out.data == NULL and self.reactor.take_buffer(&self.out) < 0:
            return NO_MEMORY
        return write_status(&self.out, &self.response, status, reason, reason_size)

    cdef WriteError add_field(self, const char* name, size_t name_size, const char* value, size_t value_size) noexcept:
        return write_field(&self.out, &self.response, name, name_size, value, value_size)

    cdef void drop_head(self) noexcept:
        self.out.size = self.response.mark
        self.response.status = 0

    cdef WriteError end_head(self, int64_t body_size, bint trailers) noexcept:
        cdef HTTP1Connection connection = self.connection
        cdef WriteError error
        if not connection.request_complete and not self._drainable():
            connection.close_after_response()
        if self.reactor.ending and self._is_last_response():
            connection.close_after_response()
        error = connection.finish_head(&self.out, &self.response, body_size, trailers)
        if error == WRITE_OK and self.log_note != NULL and self.reactor.log.wants_response:
            try:
                self._note_response(self.response.mark)
            except MemoryError:
                return NO_MEMORY
        return error

    cdef bint _drainable(self) noexcept:
        """Whether an unread request body is worth reading to keep the connection: it is on its way, and known to be short."""
        if self.continue_due:
            return False   # the peer may or may not send it: RFC 9110 10.1.1 lets us only close
        return self.request_length - <int64_t>self.connection.body_received <= self.reactor.limits.drain

    cdef int send_interim(self, const char* data, size_t size) except -1:
        """Sends a 1xx head at once, ahead of a final head that may already be waiting in the buffer."""
        cdef Channel kept = self
        cdef Buffer* out = &self.out
        cdef size_t place
        cdef Py_ssize_t count
        if self.closed:
            return 0
        if out.data == NULL and self.reactor.take_buffer(out) < 0:
            raise MemoryError
        if reserve(out, size) < 0:
            raise MemoryError
        place = self.response.mark if self.response.status != 0 else out.size
        memmove(out.data + place + size, out.data + place, out.size - place)
        memcpy(out.data + place, data, size)
        out.size += size
        if self.response.status != 0:
            self.response.mark += size
        if self.blocked:
            return 0
        count = self.transport.send(out.data + out.start, place + size - out.start, False)
        if count > 0:
            self.reactor.counters.bytes_out += count
            out.start += count
            if out.start == out.size:
                self.reactor.give_buffer(out)
        return 0

    cdef Sent send_body(self, object owner, const char* data, size_t size) except? SENT_NO_MEMORY:
        cdef HTTP1Connection connection = self.connection
        cdef size_t allowed
        if self.closed:
            return SENT_OK
        if self.tail is not None or self.file is not None:
            self._merge_tail()
        if self.out.data == NULL and self.reactor.take_buffer(&self.out) < 0:
            raise MemoryError
        allowed = connection.start_chunk(&self.out, size)
        if allowed != 0:
            self.body_sent += allowed
            if owner is None or allowed <= COPY:
                if append(&self.out, data, allowed) < 0:
                    raise MemoryError
                connection.end_chunk(&self.out)
            else:
                self._queue_tail(owner, data, allowed)
                connection.end_chunk(&self.after)
        if allowed < size and connection.framing != SEND_NOTHING:
            return SENT_TOO_LONG
        return SENT_OK

    cdef Sent send_file(self, object owner, int fd, int64_t offset, int64_t size) except? SENT_NO_MEMORY:
        """A stretch of a file. Only one can wait: flush() and wait for drained() before the next piece of body."""
        cdef HTTP1Connection connection = self.connection
        cdef size_t allowed
        if self.closed or size == 0:
            return SENT_OK
        if self.out.data == NULL and self.reactor.take_buffer(&self.out) < 0:
            raise MemoryError
        if self.tail is not None or self.file is not None:
            raise RuntimeError("a file cannot be queued behind an unsent body")
        allowed = connection.start_chunk(&self.out, size)
        if allowed != 0:
            self.body_sent += allowed
            self.file = owner
            self.file_fd = fd
            self.file_offset = offset
            self.file_left = allowed
            connection.end_chunk(&self.after)
        if <int64_t>allowed < size and connection.framing != SEND_NOTHING:
            return SENT_TOO_LONG
        return SENT_OK

    cdef int _queue_tail(self, object owner, const char* data, size_t size) except -1:
        self.tail = owner
        self.tail_data = data
        self.tail_size = size
        return 0

    cdef int _merge_tail(self) except -1:
        """Copies a waiting tail behind the head, so that more can follow it. Only an app that does not wait for its sends gets here."""
        if self.file is not None:
            raise RuntimeError("a body cannot be queued behind an unsent file")
        if append(&self.out, self.tail_data, self.tail_size) < 0:
            raise MemoryError
        if append(&self.out, self.after.data + self.after.start, self.after.size - self.after.start) < 0:
            raise MemoryError
        self.tail = None
        free_buffer(&self.after)
        return 0

    cdef Finished end_body(self, const char* trailers, size_t size) except? RESPONSE_SHORT:
        cdef Finish finish
        cdef Buffer* out
        if self.closed:
            return RESPONSE_WHOLE
        if self.tail is not None or self.file is not None:
            out = &self.after
        else:
            out = &self.out
            if out.data == NULL and self.reactor.take_buffer(out) < 0:
                raise MemoryError
        finish = self.connection.finish_body(out, trailers, size)
        self._finish_response()
        return RESPONSE_SHORT if finish == FINISHED_SHORT else RESPONSE_WHOLE

    cdef int _finish_response(self) except -1:
        """The exchange has said its last word."""
        cdef int status = self.response.status
        self.response_done = True
        if self.request_timer.previous != NULL:
            disarm(&self.request_timer)
        if 200 <= status < 600:
            self.reactor.counters.responses[status // 100] += 1
        if self.log_note != NULL:
            self.log_note.status = status   # the line is due once all has left
            self._keep_facts()
        self.response.status = 0
        if self.forwarded is not None and self.log_note == NULL:   # else the access line needs it
            self.forwarded = None
        return self._detach()

    # ------------------------------------------------------------------ another protocol

    cdef WriteError start_upgrade(self) noexcept:
        if self.out.data == NULL and self.reactor.take_buffer(&self.out) < 0:
            return NO_MEMORY
        return write_interim(&self.out, &self.response, 101)

    cdef int upgrade(self) except -1:
        if end_head(&self.out, &self.response, self.reactor.defaults, -1, False, PERSISTENCE_UNSAID) != WRITE_OK:
            raise MemoryError
        if self.log_note != NULL:
            self.log_note.status = 101   # the line is due with the end of the connection
            if self.reactor.log.format.wants_response:
                self._note_response(self.response.mark)
        self.response.status = 0
        self.upgraded = True
        self.reactor.upgraded += 1
        if self.request_timer.previous != NULL:
            disarm(&self.request_timer)
        self.reactor.set_deadline(self, NO_DEADLINE)
        if self.busy:
            self.pending |= RESUME
            return 0
        return self.reactor.queue(self)

    cdef Buffer* output(self) except NULL:
        if self.tail is not None:
            self._merge_tail()
        if self.out.data == NULL and self.reactor.take_buffer(&self.out) < 0:
            raise MemoryError
        return &self.out

    cdef int send_tail(self, object owner, const char* data, size_t size) except -1:
        return self._queue_tail(owner, data, size)

    cdef int end_upgraded(self) except -1:
        if self.closed or self.response_done:
            return 0
        self.response_done = True
        self.connection.close_after_response()
        self.reactor.set_deadline(self, NO_DEADLINE)
        self._detach()
        return self.flush()

    cdef int _detach(self) except -1:
        if self.exchange is not None:
            if self.exchange.place != OUTSIDE and self.exchange.place != INSIDE:
                self.reactor.leave(self.exchange)
            self.exchange.channel = None
            self.exchange = None
        return 0

    cdef int _keep_facts(self) except -1:
        """The observer hears of the app's dict, which the exchange lets go of before the response has left."""
        if self.observed is not None and self.observed.request is None and self.exchange is not None:
            self.observed.request = self.exchange.facts()
        return 0

    cdef int _log_response(self) except -1:
        """The access line: of a whole response that has left, or of what the client got until it ended."""
        cdef Note* note = self.log_note
        cdef Py_ssize_t size = 0
        cdef Facts facts
        cdef Observation observed
        cdef uint64_t left = self._body_left()
        client = self.client_host() or ""
        facts.client = PyUnicode_AsUTF8AndSize(client, &size)
        facts.client_size = size
        facts.status = note.status or (self.response.status if self.connection.head_sent else CLIENT_GONE)
        facts.sent = self.body_sent - min(left, self.body_sent)
        facts.received = self.connection.body_received
        facts.duration = fine_now() - note.began
        facts.https = self.reactor.log.format.wants_scheme and self.scheme() == "https"
        self.log_note = NULL
        self.forwarded = None
        self._keep_facts()
        observed, self.observed = self.observed, None
        try:
            self.reactor.log.write(note, &facts, observed)
        finally:
            self.reactor.give_note(note)
        return 0

    cdef uint64_t _body_left(self) noexcept:
        """How much of the body, with what frames it, still waits here."""
        cdef uint64_t left = self.out.size - self.out.start
        if left == 0 and self.tail is None and self.file is None:
            return 0
        if self.tail is not None:
            left += self.tail_size
        if self.file is not None:
            left += <uint64_t>self.file_left
        return left + (self.after.size - self.after.start)

    cdef int _tell(self, str text, tuple details) except -1:
        """A line in the error log about what this client did: a bounded number of them, so that clients cannot fill a disk."""
        if self.reactor.may_tell():
            _logger.info(text, self.client_host() or "a client", *details)
        return 0

    cdef bint unsent(self) noexcept:
        return self.blocked

    cdef int flush(self) except -1:
        cdef Channel kept = self
        self.flush_due = False
        if self.closed or self.blocked:
            return 0   # blocked: WRITABLE will go on
        return self._write_out()

    cdef int _write_out(self) except -1:
        """Gives the kernel all that waits, in order. What it does not take waits for WRITABLE, under the write deadline."""
        cdef iovec pieces[3]
        cdef Py_ssize_t count
        cdef Py_ssize_t left
        cdef int number
        cdef bint progress = False
        cdef Exchange exchange
        while True:
            if self.file is not None and self.out.start == self.out.size:
                count = self.transport.send_file(self.file_fd, self.file_offset, self.file_left)
                if count > 0:
                    self.file_offset += count
                    self.file_left -= count
                    if self.file_left == 0:
                        self.file = None
                elif count == 0:
                    # The file became shorter than it said: the promised length can no longer be kept.
                    _logger.error("a file sent as response ended %d bytes early", self.file_left)
                    return self.abort()
            elif self.tail is None and (self.file is not None or self.after.size == self.after.start):
                left = self.out.size - self.out.start
                if left == 0:
                    break
                count = self.transport.send(self.out.data + self.out.start, left, self.more)
                if count > 0:
                    self.out.start += count
                    self.corked = self.more
            else:
                number = 0
                if self.out.start < self.out.size:
                    pieces[number].iov_base = self.out.data + self.out.start
                    pieces[number].iov_len = self.out.size - self.out.start
                    number += 1
                if self.tail is not None:
                    pieces[number].iov_base = <void*>self.tail_data
                    pieces[number].iov_len = self.tail_size
                    number += 1
                if self.file is None and self.after.start < self.after.size:
                    pieces[number].iov_base = self.after.data + self.after.start
                    pieces[number].iov_len = self.after.size - self.after.start
                    number += 1
                count = self.transport.send_vector(pieces, number)
                if count > 0:
                    self.corked = False
                    left = count - <Py_ssize_t>(self.out.size - self.out.start)
                    if left < 0:
                        self.out.start += count
                    else:
                        self.out.start = self.out.size
                        if self.tail is not None and left < <Py_ssize_t>self.tail_size:
                            self.tail_data += left
                            self.tail_size -= left
                        else:
                            if self.tail is not None:
                                left -= self.tail_size
                                self.tail = None
                            self.after.start += left
            if count > 0:
                self.reactor.counters.bytes_out += count
                progress = True
                continue
            if count == -EAGAIN or count == -EWOULDBLOCK:
                if not self.blocked or progress:
                    self.blocked = True
                    self.write_mark = self.transport.unacknowledged()
                    self.reactor.move_deadline(arm(&self.reactor.write_timers, &self.write_timer))
                    if self.reactor.request_timers.length:
                        self._count_client()
                return 0
            return self.lost()
        if self.corked and not self.more:
            self.corked = False
            self.transport.push()   # the last bytes were sent as if more would follow, and nothing did
        self.reactor.give_buffer(&self.out)
        if self.after.data != NULL:
            free_buffer(&self.after)
        if self.blocked:
            self.blocked = False
            disarm(&self.write_timer)
            if self.client_since:
                self._count_client()
            exchange = self.exchange
            if exchange is not None:
                exchange.drained()
        if self.response_done and not self.closed:
            if self.log_note != NULL:
                self._log_response()
            return self._response_left()
        return 0

    cdef int _response_left(self) except -1:
        """A whole response is with the kernel: close, or on to the next request."""
        if self.lingering:
            return 0
        if self.connection.closing:
            return self._linger()
        if self.busy:
            return 0   # handle() is on the way and goes on by itself
        if self.connection.request_complete and not self.readable and not self.peer_finished and self.connection.unread() == 0:
            if self._turn():
                if self.reactor.on_idle is not None and not self.reactor.retiring:
                    return self._divert(self.reactor.on_idle)
                self.reactor.set_deadline(self, KEEP_ALIVE_DEADLINE)
            return 0
        return self.reactor.queue(self)

    cdef int answer_busy(self) except -1:
        cdef Reactor reactor = self.reactor
        reactor.counters.refused += 1
        reactor.complain_of_load()
        return self._answer(503, b"the server is busy, try again in a moment", reactor.retry_after)

    cdef int answer_error(self, int status, const char* reason) except -1:
        if status != 500 and status != 504 and not self.closed and not self.response_done:   # which are the app's, and logged as such
            self.reactor.counters.refused += 1
            self._tell("%s: refused with %d: %s", (status, (<bytes>reason).decode("ascii")))
        return self._answer(status, reason, 0)

    cdef int _answer(self, int status, const char* reason, int retry_after) except -1:
        cdef Channel kept = self
        cdef Exchange exchange = self.exchange
        cdef size_t at
        if self.closed or self.response_done:
            return 0
        if self.out.data == NULL:
            if self.reactor.take_buffer(&self.out) < 0:
                raise MemoryError
        elif self.response.status != 0:
            self.drop_head()
        if self.reactor.log is not None and self.log_note == NULL:
            self._note_refused()
        self._keep_facts()
        self._detach()
        at = self.out.size
        if self.connection.write_error(&self.out, status, reason, retry_after) != WRITE_OK:
            return self.abort()
        if self.log_note != NULL and self.reactor.log.wants_response:
            self._note_response(at)
        self.body_sent = 0 if self.connection.head_request else strlen(reason) + 1
        self.response.status = status
        self._finish_response()
        if exchange is not None:
            exchange.disconnected()
        if self.closed:
            return 0
        return self.flush()

    cdef int break_off(self) except -1:
        cdef Channel kept = self
        cdef Exchange exchange = self.exchange
        if self.closed or self.response_done:
            return 0
        # A FIN would look like the regular end of a body that runs until the close, and nothing may follow unsent bytes.
        if self.blocked or self.connection.framing == SEND_UNTIL_CLOSE:
            return self.abort()
        self._write_out()
        if self.closed:
            return 0
        if self.blocked:
            return self.abort()
        if self.log_note != NULL:
            self._log_response()
        self.response_done = True
        disarm(&self.request_timer)
        self._linger()
        self._detach()
        if exchange is not None:
            exchange.disconnected()
        return 0


cdef class Listener:
    def __cinit__(self, socket, str scheme, TLSEndpoint tls=None, bint accepts=True):
        self.tls = tls
        self.accepts = accepts
        name = socket.getsockname()
        self.socket = socket
        self.fd = socket.fileno()
        self.scheme = scheme
        self.is_unix = socket.family == _socket.AF_UNIX
        if self.is_unix:
            self.host = os.fsdecode(name)
            if self.host.startswith("\0"):
                self.host = "@" + self.host[1:]  # as people write a name of Linux's abstract namespace
            self.port = None
        else:
            self.host = name[0].partition("%")[0]
            self.port = name[1]
            self.wildcard = self.host in ("0.0.0.0", "::")


cdef list describe_all(list exchanges):
    cdef list requests = []
    cdef Exchange exchange
    cdef int64_t time = now()
    for exchange in exchanges:
        facts = exchange.describe()
        if facts is not None:
            requests.append((facts[0], facts[1], (time - exchange.since) / 1e9))
    return requests


cdef class Reactor:
    """The connections of one process, or of one thread.

    service makes the exchanges; limits and counters are handed on; defaults are the fields of every response; log takes the
    access lines (None: none are written); connection_class reads requests: HTTP1Connection, or another behind its seam;
    proxies says which peers are believed when they speak for others (None: nobody is).
    """

    def __init__(self, Service service, Limits limits not None, Counters counters not None,
                 DefaultFields defaults not None, AccessLog log=None, connection_class=None, Proxies proxies=None):
        df_steady_heap()
        self.service = service
        self.limits = limits
        self.counters = counters
        self.defaults = defaults
        self.log = log
        self.connection_class = connection_class or _OwnConnection
        self.proxies = proxies or Proxies()
        self.poller = Poller()
        self.listeners = []
        self.arrivals = collections.deque()
        self.outside = Outside(self.wake)
        self.promised = INT64_MAX
        self.beat_at = self.beat_interval = INT64_MAX
        self.sleeping = True
        init_timers(&self.head_timers, limits.head_time)
        init_timers(&self.body_timers, limits.body_time)
        init_timers(&self.keep_alive_timers, limits.keep_alive_time)
        init_timers(&self.linger_timers, limits.drain_time)
        init_timers(&self.parting_timers, PARTING_TIME)
        init_timers(&self.half_close_timers, HALF_CLOSE_GRACE)
        init_timers(&self.write_timers, limits.write_time)
        init_timers(&self.line_timers, 0)
        init_timers(&self.request_timers, limits.request_time)
        init_timers(&self.overtime_timers, limits.request_time // OVERTIME_SHARE)
        init_timers(&self.handshake_timers, limits.handshake_time)
        self.time_upgraded(0, 0, 0)

    def __dealloc__(self):
        cdef int index
        for index in range(self.spare_count):
            free(self.spare[index])
        for index in range(self.spare_note_count):
            free(self.spare_notes[index])

    # ------------------------------------------------------------------ for the engines, from Python

    def add_listener(self, socket, str scheme="http", TLSEndpoint tls=None, bint accepts=True) -> None:
        """Accepts from this listening, non-blocking socket once start() is called. The socket stays the caller's.

        accepts: False for a socket whose connections somebody else accepts, and gives to us.
        """
        self.listeners.append(Listener(socket, scheme, tls, accepts))

    def divert(self, connected=None, idle=None, timed_out=None) -> None:
        """Has connections leave, open, as a ClientSocket that is the argument of a call on the thread that handles events.

        connected: those that are new (in TLS: once the handshake is done); idle: those that wait for their next request;
        timed_out: those whose request head did not come in time. None of the calls may block; give() brings a connection back.
        """
        self.on_connected = connected
        self.on_idle = idle
        self.on_timed_out = timed_out

    def give(self, connection, bint idle=False) -> bool:
        """Serves a connection that comes from elsewhere, from any thread: a ClientSocket as it is, or a socket.socket that has just
        been accepted, with the handshake of the first listener still to be done. It is empty afterwards.

        idle: the client may keep it waiting as it may between two requests. False, and the connection is closed: the reactor is over.
        Raises OSError for one that is closed.
        """
        if not self.listeners:
            raise RuntimeError("a reactor serves connections as those of a listener; it has none")
        if isinstance(connection, ClientSocket):
            connection = (<ClientSocket>connection).move()
        else:
            connection = _socket.socket(fileno=connection.detach())
        self.arrivals.append((connection, idle))
        self.arrived = True
        self.wake()
        if self.over:
            self._turn_away()
            return False
        return True

    def _turn_away(self) -> None:
        while self.arrivals:
            self.arrivals.popleft()[0].close()

    @property
    def connections_outside(self) -> int:
        """How many connections have left and are open."""
        return len(self.outside)

    def use_tls(self, TLSEndpoint tls not None) -> None:
        """Makes connections from now on with this; those that there are go on with what they have. From any thread.

        The caller keeps the previous one until nobody can be about to use it.
        """
        cdef Listener listener
        for listener in self.listeners:
            if listener.tls is not None:
                listener.tls = tls

    def serve(self, Service service not None) -> None:
        """Sets the service, for one that needs the reactor to be made."""
        self.service = service

    def start(self) -> None:
        """Begins to accept."""
        self.watch_listeners()

    def fileno(self) -> int:
        """A descriptor that is readable while tick() has something to do."""
        return self.poller.fd

    def tick(self, Desk desk not None) -> None:
        """Handles what is ready now and what is past its deadline, without waiting."""
        self.sleeping = False
        try:
            self.poller.look()
            if self.arrived:
                self.take_in()
            self.handle_all(desk)
            self.expire(desk, now())
        finally:
            self.sleep()

    cdef int handle_all(self, Desk desk) except -1:
        cdef Channel channel
        cdef uint32_t ready = 0
        while True:
            channel = self.take_ready(&ready)
            if channel is None:
                return 0
            channel.handle(desk, ready)

    cdef void sleep(self) noexcept:
        self.sleeping = True
        if self.ready_head is not None:
            self.poller.wake()

    def seconds_to_deadline(self) -> float | None:
        """Time to the next deadline, which the caller promises to tick() at; deadline_moved tells that it must ask again."""
        cdef int64_t at = self.next_deadline()
        self.deadline_moved = False
        self.promised = at
        return None if at == INT64_MAX else max(0, at - now()) / 1e9 + 0.004

    def drain(self, Desk desk not None) -> None:
        """Stops accepting, ends idle connections, and tells the others that their present response is the last."""
        cdef Channel channel, following
        if self.stopping:
            return
        if not self.retiring:
            self.unwatch_listeners()
            self.retiring = True
            self.accept_the_rest()
        self.stopping = self.ending = True
        self.outside.interrupt(False)   # who speaks another protocol would never end by himself
        channel = self.first
        while channel is not None:
            following = channel.next
            channel.drain(desk)
            channel = following

    def retire(self) -> None:
        """Stops accepting for good. Each connection that is open gets the answers it asks for, the last with Connection: close."""
        cdef Channel channel, following
        cdef Exchange exchange
        if self.retiring:
            return
        self.retiring = self.ending = True
        self.unwatch_listeners()
        self.accept_the_rest()
        channel = self.first
        while channel is not None:
            following = channel.next
            exchange = channel.exchange
            if exchange is not None and not channel.closed:
                exchange.draining()
            channel = following

    def announce_end(self) -> None:
        """Responses say Connection: close from now on, ahead of retire(). From any thread or signal handler."""
        self.ending = True

    def empty_line(self) -> None:
        """Answers 503 to all that wait for a place in the app."""
        cdef Channel channel
        while self.in_line:
            channel = <Channel>self.line_timers.ends.next.owner
            channel.answer_busy()

    def part(self, Desk desk not None) -> float:
        """Resets what is still in progress and ends idle connections; the seconds that those may take to be gone."""
        cdef Channel channel, following
        self.drain(desk)
        self.empty_line()
        channel = self.first
        while channel is not None:
            following = channel.next
            channel.part()
            channel = following
        return 1.1 * PARTING_TIME / SECOND

    def time_upgraded(self, double look, double reply, double farewell) -> None:
        """How many seconds the deadlines of connections that speak another protocol are; 0: there is none. Before start()."""
        init_timers(&self.look_timers, <int64_t>(look * SECOND))
        init_timers(&self.reply_timers, <int64_t>(reply * SECOND))
        init_timers(&self.farewell_timers, <int64_t>(farewell * SECOND))

    def set_heartbeat(self, heartbeat, double seconds) -> None:
        """Has it called about every so many seconds, from a thread that makes progress."""
        self.heartbeat = heartbeat
        self.beat_interval = <int64_t>(seconds * SECOND)
        self.beat_at = 0

    def limit_concurrency(self, int64_t number, int64_t queue, double seconds, bint one_by_one) -> None:
        """Calls the app for so many requests at once, and lets so many more wait in line, for so long.

        one_by_one: a single thread does everything, so it looks who has come before each call.
        """
        self.gated = True
        self.one_by_one = one_by_one
        self.most_inside = number
        self.most_in_line = queue
        self.retry_after = max(1, <int>(seconds + 0.999))   # by then everybody who is in line now has been served or refused
        init_timers(&self.line_timers, <int64_t>(seconds * SECOND))

    def complain_of_load(self) -> None:
        cdef int64_t time = now()
        if self.busy_complained == 0 or time - self.busy_complained > COMPLAIN_EVERY:
            self.busy_complained = time
            _logger.warning("requests are refused with 503: %d are in the application, %d in line (--limit-concurrency, --limit-queue)",
                            self.inside, self.in_line)

    def end_overdue(self) -> None:
        """Answers for apps that take too long, as expire() does: for when every thread that could is stuck in one of them."""
        self.expire_requests(now())

    def tell_stuck(self, on_stuck) -> None:
        """Has on_stuck called when a thread stays behind in an app that took too long."""
        self.on_stuck = on_stuck

    def mark_requests(self, uint64_t number, on_mark) -> None:
        """Has on_mark called when so many requests have begun since the start."""
        self.request_mark = number
        self.on_mark = on_mark

    def abort(self) -> None:
        """Resets every connection that is left, and ends those that are elsewhere."""
        cdef Channel channel
        self.over = True
        self._turn_away()
        self.outside.interrupt(True)
        while self.first is not None:
            channel = self.first   # ours while it goes: the list holds the only other reference
            channel.abort()
        # One by one: letting go of a whole chain would recurse through it.
        while self.ready_head is not None:
            channel = self.ready_head
            self.ready_head = channel.next_ready
            channel.next_ready = None
        while self.slow_head is not None:
            channel = self.slow_head
            self.slow_head = channel.next_ready
            channel.next_ready = None
        self.ready_tail = self.slow_tail = None

    def wake(self) -> None:
        """Makes fileno() readable, from any thread or signal handler."""
        self.poller.wake()

    # ------------------------------------------------------------------ for the engines, compiled

    cdef Channel take_ready(self, uint32_t* ready):
        """The next channel to handle. None once all that the kernel has told of is handled, and nobody slow is left; or when
        those who go on by themselves have had so many turns that it is time to look for others."""
        cdef Poller poller = self.poller
        cdef Channel channel
        cdef object owner
        cdef void* pointer
        cdef bint looked = False
        while self.slow_head is None or self.overtakes < OVERTAKES:
            if poller.taken < poller.count:
                pointer = poller.batch[poller.taken].owner
                ready[0] = poller.batch[poller.taken].ready
                poller.taken += 1
                if pointer == NULL:
                    continue
                owner = <object>pointer
                if type(owner) is not Channel:
                    self.accept_from(<Listener>owner)
                    continue
                channel = <Channel>owner
                if channel.slow and not channel.busy:
                    channel.pending |= ready[0]
                    self.put_off(channel)
                    continue
                if self.slow_head is not None:
                    self.overtakes += 1
                return channel
            channel = self.ready_head
            if channel is not None:
                # A client that always has more to handle must not keep the others, or a deadline, waiting.
                self.resumes -= 1
                if self.resumes < 0:
                    self.resumes = RESUMES
                    return None
                if self.slow_head is not None:
                    self.overtakes += 1
                self.ready_head = channel.next_ready
                if self.ready_head is None:
                    self.ready_tail = None
                return self._resumed(channel, ready)
            if self.slow_head is None:
                return None
            if looked:
                break
            looked = True   # somebody quick may have come meanwhile
            poller.look()
        self.overtakes = 0
        channel = self.slow_head
        self.slow_head = channel.next_ready
        if self.slow_head is None:
            self.slow_tail = None
        return self._resumed(channel, ready)

    cdef Channel _resumed(self, Channel channel, uint32_t* ready):
        ready[0] = RESUME
        channel.next_ready = None
        channel.queued = False
        return channel

    cdef bint _is_full(self) noexcept:
        return self.inside + self.in_line >= self.most_inside + self.most_in_line

    cdef bint admit(self, Exchange exchange) except -1:
        cdef Channel channel = exchange.channel
        if self.inside < self.most_inside and self.in_line == 0 and not self.one_by_one:
            self.inside += 1
            exchange.place = INSIDE
            return True
        if self._is_full():
            channel.answer_busy()
            return False
        self.in_line += 1
        exchange.place = IN_LINE
        if self.request_timers.length:
            channel._count_client()
        self.move_deadline(arm(&self.line_timers, &channel.request_timer))
        return False

    cdef int leave(self, Exchange exchange) except -1:
        cdef Place place = exchange.place
        exchange.place = OUTSIDE
        if place == IN_LINE:
            self.in_line -= 1
            disarm(&exchange.channel.request_timer)
        elif place != OUTSIDE:
            self.inside -= 1
            if not self.one_by_one:
                self.call_next()
        return 0

    cdef int call_next(self) except -1:
        cdef Channel channel
        while self.in_line and self.inside < self.most_inside:
            channel = <Channel>self.line_timers.ends.next.owner
            disarm(&channel.request_timer)
            self.in_line -= 1
            self.inside += 1
            channel.exchange.place = ITS_TURN
            channel.turn_came = True
            self.queue(channel)
        return 0

    cdef int put_off(self, Channel channel) except -1:
        if channel.queued:
            return 0
        channel.queued = True
        if self.slow_tail is None:
            self.slow_head = channel
        else:
            self.slow_tail.next_ready = channel
        self.slow_tail = channel
        return 0

    cdef int queue(self, Channel channel) except -1:
        if channel.queued or channel.closed:
            return 0
        channel.queued = True
        if self.ready_tail is None:
            self.ready_head = channel
        else:
            self.ready_tail.next_ready = channel
        self.ready_tail = channel
        if self.sleeping:
            self.poller.wake()
        return 0

    cdef TimerList* timers_of(self, uint8_t deadline) noexcept:
        if deadline == KEEP_ALIVE_DEADLINE:
            return &self.keep_alive_timers
        if deadline == HEAD_DEADLINE:
            return &self.head_timers
        if deadline == BODY_DEADLINE:
            return &self.body_timers
        if deadline == PARTING_DEADLINE:
            return &self.parting_timers
        if deadline == HALF_CLOSE_DEADLINE:
            return &self.half_close_timers
        if deadline == HANDSHAKE_DEADLINE:
            return &self.handshake_timers
        if deadline == LOOK_DEADLINE:
            return &self.look_timers
        if deadline == REPLY_DEADLINE:
            return &self.reply_timers
        if deadline == FAREWELL_DEADLINE:
            return &self.farewell_timers
        return &self.linger_timers

    cdef int set_deadline(self, Channel channel, uint8_t deadline) except -1:
        channel.deadline = deadline
        if deadline == NO_DEADLINE:
            disarm(&channel.read_timer)
            return 0
        return self.move_deadline(arm(self.timers_of(deadline), &channel.read_timer))

    cdef int move_deadline(self, int64_t at) except -1:
        if at != 0 and at < self.promised:
            self.promised = at
            self.deadline_moved = True
            if self.sleeping:
                self.poller.wake()
        return 0

    cdef int64_t next_deadline(self) noexcept:
        cdef int64_t at = self.accept_again if self.accept_again else INT64_MAX
        cdef TimerList* timers
        cdef int index
        cdef TimerList* lists[11]
        lists[0] = &self.head_timers
        lists[1] = &self.body_timers
        lists[2] = &self.keep_alive_timers
        lists[3] = &self.linger_timers
        lists[4] = &self.half_close_timers
        lists[5] = &self.write_timers
        lists[6] = &self.parting_timers
        lists[7] = &self.handshake_timers
        lists[8] = &self.look_timers
        lists[9] = &self.reply_timers
        lists[10] = &self.farewell_timers
        if self.request_timers.length:
            at = min(at, self._next_request_due())
        if self.in_line:
            at = min(at, self.line_timers.ends.next.at)
        for index in range(11):
            timers = lists[index]
            if timers.ends.next != &timers.ends and timers.ends.next.at < at:
                at = timers.ends.next.at
        return at

    cdef int pass_mark(self) except -1:
        try:
            self.on_mark()
        except Exception:
            _logger.exception("telling of %d requests failed", self.counters.requests)
        return 0

    cdef list exchanges(self):
        # Nothing here lets another thread go on: the list of channels stays as it is.
        cdef list found = []
        cdef Channel channel = self.first
        while channel is not None:
            if channel.exchange is not None:
                found.append(channel.exchange)
            channel = channel.next
        return found

    cdef int beat(self, int64_t time) except -1:
        if time < self.beat_at:
            return 0
        self.beat_at = time + self.beat_interval
        try:
            self.heartbeat()
        except Exception:
            _logger.exception("the heartbeat failed")
        if self.accepting:
            # A sibling that the kernel woke for a new connection may have died, or hung, before it could take it.
            self.accept_the_rest()
        return 0

    cdef int64_t _next_request_due(self) noexcept:
        cdef int64_t at = INT64_MAX
        if self.request_timers.ends.next != &self.request_timers.ends:
            at = self.request_timers.ends.next.at
        if self.overtime_timers.ends.next != &self.overtime_timers.ends:
            at = min(at, self.overtime_timers.ends.next.at)
        return at

    cdef int expire_requests(self, int64_t time) except -1:
        cdef Timer* timer
        cdef Channel channel
        while True:
            timer = first_due(&self.request_timers, time)
            if timer == NULL:
                timer = first_due(&self.overtime_timers, time)
            if timer == NULL:
                return 0
            channel = <Channel>timer.owner
            try:
                channel.request_due(time)
            except Exception:
                channel.give_up()

    cdef int expire(self, Desk desk, int64_t time) except -1:
        cdef Timer* timer
        cdef Channel channel
        cdef uint8_t deadline
        if self.accept_again and time >= self.accept_again:
            self.accept_again = 0
            self.watch_again()
        for deadline in range(HEAD_DEADLINE, (FAREWELL_DEADLINE if self.upgraded else HANDSHAKE_DEADLINE) + 1):
            while True:
                timer = first_due(self.timers_of(deadline), time)
                if timer == NULL:
                    break
                channel = <Channel>timer.owner
                if channel.busy:   # its thread watches the time by itself
                    arm(self.timers_of(deadline), timer)
                    continue
                try:
                    if channel.is_unheard(time):
                        arm(self.timers_of(deadline), timer)
                        continue
                    channel.read_timed_out(desk)
                except Exception:   # it has no deadline any more
                    channel.give_up()
        while True:
            timer = first_due(&self.write_timers, time)
            if timer == NULL:
                break
            channel = <Channel>timer.owner
            if channel.busy:
                arm(&self.write_timers, timer)
                continue
            try:
                channel.write_due()
            except Exception:
                channel.give_up()
        if self.request_timers.length:
            self.expire_requests(time)
        while self.in_line:
            timer = first_due(&self.line_timers, time)
            if timer == NULL:
                break
            channel = <Channel>timer.owner
            try:
                channel.answer_busy()
            except Exception:
                channel.give_up()
        return 0

    # ------------------------------------------------------------------ output blocks

    cdef int take_buffer(self, Buffer* buffer) noexcept:
        if self.spare_count:
            self.spare_count -= 1
            buffer.data = self.spare[self.spare_count]
        else:
            buffer.data = <char*>malloc(BLOCK)
            if buffer.data == NULL:
                return -1
        buffer.capacity = BLOCK
        buffer.start = buffer.size = 0
        return 0

    cdef void give_buffer(self, Buffer* buffer) noexcept:
        if buffer.data == NULL:
            return
        if buffer.capacity == BLOCK and self.spare_count < SPARE_BLOCKS:
            self.spare[self.spare_count] = buffer.data
            self.spare_count += 1
            buffer.data = NULL
            buffer.start = buffer.size = buffer.capacity = 0
        else:
            free_buffer(buffer)

    cdef Note* take_note(self) noexcept:
        if self.spare_note_count == 0:
            return NULL
        self.spare_note_count -= 1
        return self.spare_notes[self.spare_note_count]

    cdef void give_note(self, Note* note) noexcept:
        if note.capacity == NOTE_CAPACITY and self.spare_note_count < SPARE_BLOCKS:
            self.spare_notes[self.spare_note_count] = note
            self.spare_note_count += 1
        else:
            free(note)

    # ------------------------------------------------------------------ connections come and go

    cdef int watch_listeners(self) except -1:
        cdef Listener listener
        if self.retiring:
            return 0
        for listener in self.listeners:
            if not listener.watched and listener.accepts:
                self.poller.watch_listener(listener.fd, <void*>listener)
                listener.watched = True
        self.accepting = True
        return 0

    cdef int unwatch_listeners(self) except -1:
        cdef Listener listener
        for listener in self.listeners:
            if listener.watched:
                self.poller.unwatch(listener.fd)
                self.poller.forget(<void*>listener)
                listener.watched = False
        self.accepting = False
        return 0

    cdef int accept_the_rest(self) except -1:
        """Takes what waits to be accepted. The kernel may have told us alone of these: a process that shares the socket would
        sleep on, and one that does not could never have them."""
        cdef Listener listener
        cdef int turn
        for listener in self.listeners:
            for turn in range(LAST_ACCEPTS if listener.accepts else 0):
                if self.accept_from(listener) == 0:
                    break
        return 0

    cdef int pause_accepting(self, object reason) except -1:
        cdef int64_t time = now()
        self.unwatch_listeners()
        self.accept_again = time + ACCEPT_PAUSE
        self.move_deadline(self.accept_again)
        if self.complained == 0 or time - self.complained > COMPLAIN_EVERY:
            self.complained = time
            _logger.warning("cannot accept connections for now: %s (%d are open)", reason, self.open_connections)
        return 0

    cdef bint may_tell(self) except -1:
        cdef int64_t time
        cdef int64_t earned
        if not _logger.isEnabledFor(logging.INFO):
            return False
        time = now()
        earned = (time - self.told_at) // TELL_EVERY
        if earned > 0:
            self.told_left = <int>min(self.told_left + earned, <int64_t>TOLD_AT_ONCE)
            self.told_at = time
        if self.told_left == 0:
            self.untold += 1
            return False
        self.told_left -= 1
        if self.untold:
            _logger.info("%d lines about clients were left out: there were too many", self.untold)
            self.untold = 0
        return True

    cdef int accept_from(self, Listener listener) except -1:
        """A burst of new connections. 1: there may be more."""
        cdef int fd
        cdef int family = 0
        cdef uint8_t address[16]
        cdef uint16_t port = 0
        cdef int turn
        memset(address, 0, 16)
        for turn in range(ACCEPTS_PER_TURN):
            if not listener.watched and not self.retiring:
                return 0
            fd = accept_connection(listener.fd, &family, address, &port)
            if fd >= 0:
                try:
                    self.accept_one(listener, fd, family, address, port)
                except (OSError, MemoryError) as error:   # no memory, or the kernel watches no more: that peer sees an end
                    self.pause_accepting(str(error) or "out of memory")
                    return 0
            elif fd == -EAGAIN or fd == -EWOULDBLOCK:
                return 0
            elif fd == -EINTR or fd == -ECONNABORTED or fd == -EPERM or fd == -EPROTO:
                continue   # that one peer is gone or filtered; the next may be fine
            else:
                self.pause_accepting(os.strerror(-fd))
                return 0
        return 1

    cdef int accept_one(self, Listener listener, int fd, int family, uint8_t* address, uint16_t port) except -1:
        cdef Transport transport
        cdef Channel channel
        try:
            # First of all something that closes the descriptor when there is no memory for the rest.
            transport = Transport.__new__(Transport, fd) if listener.tls is None else listener.tls.new_transport(fd)
        except MemoryError:
            close(fd)
            raise
        channel = self._new_channel(listener, transport, family, address, port)
        if listener.tls is not None:
            channel.security = SHAKING_HANDS
        channel.proxy_due = self.proxies.versions != 0
        if channel.proxy_due and not self.proxies.relays.trusts(channel.family, channel.address):
            channel._refuse_proxy(b"this peer is not one that may speak the PROXY protocol (--proxy-allow-from)")
            return 0   # with the channel goes its descriptor
        self._enter(channel)
        if listener.tls is None:
            self.set_deadline(channel, HEAD_DEADLINE)
            if self.on_connected is not None and not channel.proxy_due:
                channel._divert(self.on_connected)
        else:
            self.set_deadline(channel, HANDSHAKE_DEADLINE)
            self.handshakes += 1
            if self.handshakes >= self.limits.handshakes:
                self.make_room()
        return 0

    cdef Channel _new_channel(self, Listener listener, Transport transport, int family, uint8_t* address, uint16_t port):
        cdef Channel channel = Channel.__new__(Channel)
        channel.reactor = self
        channel.listener = listener
        channel.transport = transport
        channel.connection = self.connection_class(self.limits, self.defaults)
        channel.family = AF_UNIX if listener.is_unix else family
        memcpy(channel.address, address, 16)
        channel.port = port
        channel.trusted = self.proxies.listens and self.proxies.senders.trusts(channel.family, channel.address)
        channel.read_timer.owner = channel.write_timer.owner = channel.request_timer.owner = <void*>channel
        return channel

    cdef int _enter(self, Channel channel) except -1:
        self.poller.watch(channel.transport.fd, <void*>channel)
        # The list owns the channel: the kernel only holds its address.
        channel.next = self.first
        if self.first is not None:
            self.first.previous = channel
        self.first = channel
        self.counters.accepted += 1
        self.open_connections += 1
        if self.limits.connections >= 0 and self.open_connections >= self.limits.connections:
            self.unwatch_listeners()
        return 0

    cdef int take_in(self) except -1:
        self.arrived = False
        while self.arrivals:
            connection, idle = self.arrivals.popleft()
            try:
                if isinstance(connection, ClientSocket):
                    self._take_in_client(connection, idle)
                else:
                    self._take_in_socket(connection)
            except (OSError, MemoryError) as error:   # it is broken already, or another thread has closed it
                _logger.debug("a connection could not be taken in: %s", error)
                connection.close()
        return 0

    cdef int _take_in_socket(self, object sock) except -1:
        cdef int family = 0
        cdef uint8_t address[16]
        cdef uint16_t port = 0
        cdef int fd
        sock.setblocking(False)
        memset(address, 0, 16)
        if peer_address(sock.fileno(), &family, address, &port) < 0:
            sock.close()
            return 0
        fd = sock.detach()
        return self.accept_one(self.listeners[0], fd, family, address, port)

    cdef int _take_in_client(self, ClientSocket client, bint idle) except -1:
        cdef Channel channel
        cdef bytes first
        cdef Listener listener = client.origin or self.listeners[0]
        cdef Transport transport = client.hand_over()
        cdef int family = client.family
        if client.origin is None:
            peer_address(transport.fd, &family, client.address, &client.port)
        if not client.secure and listener.tls is not None:
            listener = Listener(listener.socket, "http", None, False)   # its facts, without TLS
        channel = self._new_channel(listener, transport, family, client.address, client.port)
        channel.security = SECURE if client.secure else PLAIN
        self._enter(channel)
        self.set_deadline(channel, KEEP_ALIVE_DEADLINE if idle else HEAD_DEADLINE)
        first, client.first = client.first, b""
        if first:
            channel.connection.feed(PyBytes_AS_STRING(first), PyBytes_GET_SIZE(first))
            if channel.connection.settle() < 0:
                raise MemoryError
        channel.readable = True
        self.queue(channel)
        if self.stopping and not first:
            channel.readable = False
            channel.drain(None)
        elif self.stopping:
            channel.connection.close_after_response()
        return 0

    cdef int forget_channel(self, Channel channel) except -1:
        if channel.previous is not None:
            channel.previous.next = channel.next
        else:
            self.first = channel.next
        if channel.next is not None:
            channel.next.previous = channel.previous
        channel.previous = channel.next = None
        self.counters.closed += 1
        self.open_connections -= 1
        if self.open_connections == 0 and self.ending and self.sleeping:
            self.poller.wake()   # another thread's call has ended the last one: who waits for that may go now
        if not self.accepting:
            self.resume_accepting()
        return 0

    cdef int resume_accepting(self) except -1:
        """A place has become free."""
        if (
            not self.retiring
            and (self.limits.connections < 0 or self.open_connections < self.limits.connections)
            and self.handshakes < self.limits.handshakes
        ):
            self.accept_again = 0
            self.watch_again()
        return 0

    cdef int watch_again(self) except -1:
        try:
            self.watch_listeners()
        except OSError as error:
            self.pause_accepting(error)
        return 0

    cdef int make_room(self) except -1:
        """As many TLS handshakes are in progress as may be: the oldest ends if it has had its time, else accepting waits for that."""
        cdef Timer* oldest = self.handshake_timers.ends.next
        cdef Channel channel
        cdef int64_t grace
        if oldest == &self.handshake_timers.ends:
            return 0
        grace = oldest.at - self.handshake_timers.length + HANDSHAKE_GRACE
        if grace <= now():
            channel = <Channel>oldest.owner
            if not channel.busy:
                self.counters.handshakes_failed += 1
                channel._tell("%s: TLS handshake failed: it took too long while many others waited", ())
                return channel.close()
        self.unwatch_listeners()
        self.accept_again = max(grace, now() + ACCEPT_PAUSE // 10)
        return self.move_deadline(self.accept_again)
