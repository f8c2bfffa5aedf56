# Accept, ready events and deadlines -> channels -> exchanges. Knows bytes, sockets and time; nothing of WSGI, ASGI or loops.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from duckfast._accesslog cimport AccessLog
from duckfast._http1 cimport HTTP1Connection
from duckfast._limits cimport Counters, Limits
from duckfast._parser cimport Head
from duckfast._poller cimport Poller, Timer, TimerList
from duckfast._transport cimport Transport
from duckfast._writer cimport Buffer, DefaultFields, ResponseHead, WriteError


cdef class Reactor
cdef class Channel
cdef class Exchange
cdef class Listener


cdef class Desk:
    # What one thread works with: read buffer and parsed head. Nothing on it survives the handling of one channel.
    cdef char* scratch
    cdef size_t scratch_size
    cdef Head* head


cdef class Service:
    # Makes exchanges: what an interface hands to the reactor. Subclassed by _wsgi and _asgi.
    cdef Exchange new_exchange(self, Channel channel)


cdef class Exchange:
    # The application's side of one request. The channel calls these, on the thread that handles the channel, with the GIL;
    # an exception out of them is a bug of ours and closes the connection. The base class does nothing.
    cdef Channel channel       # None once the response has been finished, or the connection is gone: nothing can be sent any more

    cdef int begin(self, Desk desk) except -1                            # desk.head: make the app's dict; its spans die on return
    cdef int body_data(self, const char* data, size_t size) except -1    # copy what is kept
    cdef int body_end(self) except -1                                    # the request body is complete (also called when there is none)
    cdef bint wants_body(self) noexcept                                  # False: hold reading back until channel.resume_body()
    cdef int disconnected(self) except -1                                # the peer left, or its body broke or timed out
    cdef int drained(self) except -1                                     # everything queued has left for the kernel
    cdef int draining(self) except -1                                    # the server has begun to stop


cdef enum Sent:
    SENT_OK
    SENT_TOO_LONG      # over the app's Content-Length: only what it allows was queued
    SENT_NO_MEMORY


cdef enum Finished:
    RESPONSE_WHOLE
    RESPONSE_SHORT     # fewer bytes than the app's Content-Length: the connection breaks


cdef class Channel:
    # per process
    cdef Reactor reactor

    # per connection
    cdef Transport transport
    cdef HTTP1Connection connection
    cdef Listener listener
    cdef Channel previous, next       # the reactor's list of open channels
    cdef Channel next_ready           # the reactor's queue of channels to handle without an event
    cdef bint queued
    cdef bint busy                    # a thread is handling it: others only add to pending
    cdef uint32_t pending             # Ready bits that came while busy
    cdef bint readable                # the socket may hold unread bytes
    cdef bint closed
    cdef bint lingering               # the last response is out: what still comes is thrown away
    cdef uint8_t family               # AF_INET, AF_INET6, AF_UNIX
    cdef uint8_t address[16]
    cdef uint16_t port
    cdef object _client_host          # made when first asked for
    cdef object _server
    cdef Timer read_timer             # head, body, keep-alive or linger
    cdef Timer write_timer

    # per request
    cdef Exchange exchange            # None between requests
    cdef bint continue_due            # 100 Continue is still owed
    cdef bint response_done
    cdef ResponseHead response
    cdef char* log_request            # owned; only with an access log
    cdef uint64_t log_request_size
    cdef int64_t began
    cdef uint64_t body_sent
    cdef int64_t drained_size         # unread body thrown away so far
    cdef uint64_t deadline_mark       # body bytes received when the body deadline was last set

    # waiting to be written: out, then tail, then after; or out, then a stretch of a file
    cdef Buffer out
    cdef object tail                  # keeps tail_data alive
    cdef const char* tail_data
    cdef size_t tail_size
    cdef char after[16]
    cdef size_t after_size
    cdef object file                  # keeps file_fd open
    cdef int file_fd
    cdef int64_t file_offset
    cdef int64_t file_left

    # --- facts for the app's dict
    cdef object client_host(self)            # str; "" on a unix socket (client_port is 0 then)
    cdef object server_host(self)            # str, or the path of a unix socket
    cdef object server_port(self)            # int, or None on a unix socket
    cdef bint is_unix(self) noexcept
    cdef str scheme(self)

    # --- for the exchange: the request
    cdef int ask_body(self) except -1        # the app asks for its body: 100 Continue if it is due (never after a final head)
    cdef int resume_body(self, Desk desk) except -1   # wants_body() is true again: read on (may call body_data at once)

    # --- for the exchange: the response. Nothing is sent before flush().
    cdef WriteError start_head(self, int status, const char* reason, size_t reason_size) noexcept
    cdef WriteError add_field(self, const char* name, size_t name_size, const char* value, size_t value_size) noexcept
    cdef void drop_head(self) noexcept                                   # takes start_head and add_field back
    cdef WriteError end_head(self, int64_t body_size, bint trailers) noexcept     # as HTTP1Connection.finish_head
    cdef int send_interim(self, const char* data, size_t size) except -1          # a whole 1xx head, before any other byte of the response
    cdef Sent send_body(self, object owner, const char* data, size_t size) except? SENT_NO_MEMORY   # owner: keeps a large body alive; None: copy
    cdef Sent send_file(self, object owner, int fd, int64_t offset, int64_t size) except? SENT_NO_MEMORY
    cdef Finished end_body(self, const char* trailers, size_t size) except? RESPONSE_SHORT   # detaches the exchange (exchange.channel = None)
    cdef int flush(self) except -1           # to the kernel, as far as it goes
    cdef bint unsent(self) noexcept          # something still waits: drained() will be called
    cdef int answer_error(self, int status, const char* reason) except -1    # nothing was sent yet: a whole response of the server's own, then close
    cdef int break_off(self) except -1       # in the middle of a response: end the connection visibly

    # --- for the reactor
    cdef int handle(self, Desk desk, uint32_t ready) except -1


cdef class Listener:
    cdef readonly object socket
    cdef readonly int fd
    cdef readonly str scheme
    cdef readonly object host         # str, or the path of a unix socket
    cdef readonly object port         # int, or None
    cdef readonly bint wildcard       # bound to every address: each connection asks for its own
    cdef readonly bint is_unix


cdef class Reactor:
    cdef readonly Limits limits
    cdef readonly Counters counters
    cdef DefaultFields defaults
    cdef Service service
    cdef AccessLog log                # None: no access log
    cdef object connection_class      # HTTP1Connection, or the class of another reader behind the same seam
    cdef Poller poller
    cdef list listeners
    cdef bint accepting
    cdef bint stopping                # draining has begun: idle connections close, every response is a last one
    cdef Channel first                # open channels, newest first
    cdef Channel ready_head, ready_tail
    cdef int64_t promised             # the engine comes back by then by itself
    cdef TimerList head_timers, body_timers, keep_alive_timers, linger_timers, write_timers

    # --- for the engines
    cdef Channel take_ready(self, uint32_t* ready)       # the next channel of the batch or the ready queue; None: all handled. Accepts on the way.
    cdef void queue(self, Channel channel)               # handle it again soon, without an event; wakes a sleeping engine
    cdef int64_t next_deadline(self) noexcept            # INT64_MAX: none
    cdef int expire(self, Desk desk) except -1           # ends what is past its deadline
    # Python-visible:
    #   Reactor(service, limits, counters, defaults, log=None, http="duckfast")
    #   add_listener(socket, scheme="http") / start() / fileno()
    #   tick(desk) -> handles everything that is ready now without waiting, and what is past its deadline
    #   seconds_to_deadline() -> float | None, and from then on the reactor counts on a tick() by that time
    #   drain() -> stop accepting, close idle connections, tell every exchange; open_connections -> int; abort() -> reset what is left
    #   wake() -> makes fileno() readable, from any thread or signal handler
