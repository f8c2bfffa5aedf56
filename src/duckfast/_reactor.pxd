# Accept, ready events and deadlines -> channels -> exchanges. Knows bytes, sockets and time; nothing of WSGI, ASGI or loops.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from duckfast._accesslog cimport AccessLog, Observation
from duckfast._client cimport ClientSocket, Outside
from duckfast._forwarded cimport Forwarded
from duckfast._http1 cimport FAILED, Event, HTTP1Connection
from duckfast._limits cimport Counters, Limits
from duckfast._logformat cimport Note
from duckfast._parser cimport Head
from duckfast._poller cimport Poller, Timer, TimerList
from duckfast._proxy_protocol cimport ProxyHeader
from duckfast._tls cimport TLSEndpoint, TLSFacts
from duckfast._transport cimport Transport
from duckfast._trust cimport Proxies
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
    cdef int64_t entered      # when this thread gave the leadership up for an app call; 0: it did not
    cdef Exchange exchange    # whose app code this thread is in
    cdef bint released        # this thread does not count in its crew, until it comes back out of the app
    cdef bint bereft          # the channel that this thread was handling has been taken from it meanwhile


cdef class Service:
    # Makes exchanges: what an interface hands to the reactor. Subclassed by _wsgi and _asgi.
    cdef Exchange new_exchange(self, Channel channel, Head* head)


cdef class Exchange:
    # The application's side of one request. The channel calls these, on the thread that handles the channel, with the GIL;
    # an exception out of them is a bug of ours and closes the connection. The base class does nothing.
    cdef Channel channel       # None once the response has been finished, or the connection is gone: nothing can be sent any more
    cdef int64_t since         # when the request began, by the coarse clock
    cdef Place place

    cdef int begin(self, Desk desk) except -1                            # desk.head: make the app's dict; its spans die on return
    cdef int body_data(self, const char* data, size_t size) except -1    # copy what is kept
    cdef int body_end(self) except -1                                    # the request body is complete (also called when there is none)
    cdef bint wants_body(self) noexcept                                  # False: hold reading back until channel.resume_body()
    cdef int disconnected(self) except -1                                # the peer left, or its body broke or timed out
    cdef int half_closed(self) except -1                                 # the peer sent FIN some seconds ago and may be gone: sends still go
    cdef int drained(self) except -1                                     # everything queued has left for the kernel
    cdef int proceed(self, Desk desk) except -1                          # its turn has come: Reactor.admit() had put it in line
    cdef Desk desk_in_app(self)                                          # of the thread that is in the app for it now; None: none is
    cdef int overdue(self) except -1                                     # the app took too long; the client has been answered
    cdef tuple describe(self)                                            # method and path, while the app works on it; else None
    cdef dict facts(self)                                                # the app's dict; None: it has been let go of
    cdef int draining(self) except -1                                    # the engine has begun to retire or to stop

    # after channel.upgrade(): the connection speaks another protocol, which is the exchange's
    cdef int bytes_came(self, char* data, size_t size) except -1         # on the desk: they may be changed, and die on return
    cdef int bytes_ended(self) except -1                                 # the peer has sent its last byte
    cdef bint wants_bytes(self) noexcept                                 # False: none are read until reactor.queue(channel)
    cdef int deadline_passed(self, Deadline deadline) except -1          # of those from UPGRADED_DEADLINE on


cdef enum Deadline:
    NO_DEADLINE
    HEAD_DEADLINE
    BODY_DEADLINE
    KEEP_ALIVE_DEADLINE
    LINGER_DEADLINE
    PARTING_DEADLINE
    HALF_CLOSE_DEADLINE
    HANDSHAKE_DEADLINE
    # of connections that speak another protocol, set by their exchange; how long they are: Reactor.time_upgraded()
    LOOK_DEADLINE             # time to see whether the peer is still there
    REPLY_DEADLINE            # it was asked
    FAREWELL_DEADLINE         # its last word is due


cdef enum Place:
    # Of a request, where there is a limit for those in the app at once.
    OUTSIDE
    IN_LINE
    ITS_TURN      # counts as inside, but the app has not been called yet
    INSIDE


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
    cdef bint turn_came               # exchange.proceed() is due
    cdef bint slow                    # the app blocked in this connection's last request: others go first
    cdef bint busy                    # a thread is handling it: others only add to pending
    cdef uint32_t pending             # Ready bits that came while busy
    cdef bint readable                # the socket may hold unread bytes
    cdef uint8_t security             # a Security of _reactor.pyx
    cdef bint closed
    cdef bint peer_finished           # the peer has sent its last byte
    cdef uint8_t deadline             # which list read_timer is in: a Deadline
    cdef uint8_t reprieve             # a Reprieve of _reactor.pyx, of this deadline
    cdef bint upgraded                # another protocol: the exchange reads and writes bytes
    cdef bint blocked                 # the kernel did not take all: write_timer runs, drained() is owed
    cdef bint more                    # the next flush() may be held back by the kernel: more follows soon, or somebody pushes
    cdef bint corked                  # it was
    cdef bint flush_due               # for the service: a flush() has been promised
    cdef bint lingering               # the last response is out: what still comes is thrown away
    cdef uint8_t family               # AF_INET, AF_INET6, AF_UNIX
    cdef uint8_t address[16]
    cdef uint16_t port
    cdef object _client_host          # made when first asked for
    cdef object _client_port
    cdef object _server
    cdef bint proxy_due               # a PROXY header has to come before anything else
    cdef bint proxied                 # it has come: the addresses are those that it told
    cdef bint proxied_https           # the client has spoken TLS to the proxy
    cdef bint trusted                 # the forwarded fields of who sends the requests are believed
    cdef bint refusal_due             # because of its fields, the request is not for the app
    cdef Timer read_timer             # head, body, keep-alive or linger
    cdef Timer write_timer
    cdef int write_mark               # bytes the peer had still to take when that was last set; -1: nobody knows
    cdef Timer request_timer          # while an exchange is here: its time in line, then the app's

    # per request
    cdef Exchange exchange            # None between requests
    cdef Forwarded forwarded          # what proxies say of it; None: nothing that is believed
    cdef bint continue_due            # 100 Continue is still owed
    cdef bint response_done
    cdef ResponseHead response
    cdef Note* log_note               # owned; NULL: no access line is due
    cdef Observation observed         # goes with it; None: nobody observes
    cdef uint64_t body_sent
    cdef int64_t drained_size         # unread body thrown away so far
    cdef int64_t request_length       # Content-Length of the request, -1 when chunked
    cdef int64_t body_progress        # when a thread that waits for the body last saw enough of it; 0: it has not waited yet
    cdef uint64_t deadline_mark       # body bytes received when the body deadline was last set
    cdef bint asking                  # a thread waits for the body
    cdef int64_t client_since         # when the app began to wait for the client; 0: it does not
    cdef int64_t client_time          # how long it did before

    # waiting to be written: out, then tail, then after; or out, then a stretch of a file
    cdef Buffer out
    cdef object tail                  # keeps tail_data alive
    cdef const char* tail_data
    cdef size_t tail_size
    cdef Buffer after                 # framing behind the tail
    cdef object file                  # keeps file_fd open
    cdef int file_fd
    cdef int64_t file_offset
    cdef int64_t file_left

    # --- facts for the app's dict: the client of the present request, as far as trusted proxies tell ...
    cdef object client_host(self)            # str; "" when it is not known: on a unix socket, or hidden by a proxy
    cdef object client_port(self)            # int; 0: not known
    cdef object client_port_text(self)       # str
    # ... and the server as this connection has reached it; what channel.forwarded says of it comes first
    cdef object server_host(self)            # str, or the path of a unix socket
    cdef object server_port_text(self)       # str
    cdef object server_port(self)            # int, or None on a unix socket
    cdef str scheme(self)
    cdef TLSFacts tls(self)                  # None on a plain connection

    # --- for the exchange: the request
    cdef int ask_body(self) except -1        # the app asks for its body: 100 Continue if it is due (never after a final head)
    cdef int resume_body(self, Desk desk) except -1   # wants_body() is true again: read on (may call body_data at once)

    # --- for the exchange: the response. Nothing is sent before flush(). While unsent(): no further send_body or send_file.
    cdef WriteError start_head(self, int status, const char* reason, size_t reason_size) noexcept
    cdef WriteError add_field(self, const char* name, size_t name_size, const char* value, size_t value_size) noexcept
    cdef void drop_head(self) noexcept                                   # takes start_head and add_field back
    cdef WriteError end_head(self, int64_t body_size, bint trailers) noexcept     # as HTTP1Connection.finish_head
    cdef int send_interim(self, const char* data, size_t size) except -1          # a whole 1xx head, before any other byte of the response
    cdef Sent send_body(self, object owner, const char* data, size_t size) except? SENT_NO_MEMORY   # owner: keeps a large body alive; None: copy
    cdef Sent send_file(self, object owner, int fd, int64_t offset, int64_t size) except? SENT_NO_MEMORY
    cdef Finished end_body(self, const char* trailers, size_t size) except? RESPONSE_SHORT   # detaches the exchange (exchange.channel = None)
    cdef int flush(self) except -1           # may finish the response, close, or queue the channel; to the kernel, as far as it goes
    cdef bint unsent(self) noexcept          # something still waits: drained() will be called
    cdef int answer_busy(self) except -1     # 503
    cdef int answer_error(self, int status, const char* reason) except -1    # nothing was sent yet: a whole response of the server's own, then close
    cdef int break_off(self) except -1       # in the middle of a response: end the connection visibly

    # --- for the exchange: another protocol on this connection, from a 101 on. Bytes go into output(), a large piece behind them
    # --- by send_tail(), and leave with flush(); unsent() and drained() tell of them as of a response.
    cdef WriteError start_upgrade(self) noexcept                         # a head of 101; add_field() follows
    cdef int upgrade(self) except -1                                     # ends it: from now on the bytes are the exchange's
    cdef Buffer* output(self) except NULL
    cdef int send_tail(self, object owner, const char* data, size_t size) except -1
    cdef int end_upgraded(self) except -1                                # all is said: ends once it has left, and detaches the exchange

    # --- for an exchange that may block its thread
    cdef int leave_body(self) except -1                       # the app reads the rest of the body: nobody waits for the client before it asks
    # and these give up the GIL while they wait:
    cdef Event wait_body(self, Desk desk) except? FAILED      # DATA, END, FAILED (the connection knows why), or CLOSED: the peer is gone
    cdef bint wait_sent(self) except -1                       # until nothing is unsent; False: the connection is gone

    # --- for the reactor
    cdef int handle(self, Desk desk, uint32_t ready) except -1
    cdef int read_timed_out(self, Desk desk) except -1
    cdef bint is_unheard(self, int64_t time) except -1
    cdef int write_due(self) except -1
    cdef int write_timed_out(self) except -1
    cdef int drain(self, Desk desk) except -1
    cdef int request_due(self, int64_t time) except -1
    cdef int part(self) except -1
    cdef int take(self, ClientSocket taken, int status) except -1   # the connection leaves, open; status: for the access log
    cdef int close(self) except -1
    cdef int abort(self) except -1
    cdef int give_up(self) except -1                     # abort(), with the exception that is being handled in the log
    cdef int lost(self) except -1

    # --- its own
    cdef int _divert(self, object to) except -1
    cdef int _find_server(self) except -1
    cdef bint _drainable(self) noexcept
    cdef int _answer(self, int status, const char* reason, int retry_after) except -1
    cdef int _start_clock(self) except -1
    cdef int _count_client(self) noexcept
    cdef int _end_overdue(self, Exchange exchange, Desk desk) except -1
    cdef bint _is_idle(self) noexcept
    cdef bint _is_last_response(self) noexcept
    cdef int _leave(self, Exchange exchange) except -1
    cdef int _release(self) except -1
    cdef uint32_t _uncross(self, uint32_t ready) noexcept
    cdef bint _shake_hands(self, Desk desk) except -1
    cdef int _end_handshake(self) except -1
    cdef int _fail_handshake(self) except -1
    cdef int _pump(self, Desk desk) except -1
    cdef int _pump_upgraded(self, Desk desk) except -1
    cdef bint _take_proxy_header(self, Desk desk) except -1
    cdef int _refuse_proxy(self, const char* reason) except -1
    cdef int _believe_proxy(self, ProxyHeader* header) except -1
    cdef bint _advance(self, Desk desk) except -1
    cdef int _await_bytes(self) except -1
    cdef int _begin_request(self, Desk desk) except -1
    cdef int _discard(self, size_t size) except -1
    cdef bint _turn(self) except -1
    cdef int _refuse(self) except -1
    cdef int _linger(self) except -1
    cdef int _throw_away(self, Desk desk) except -1
    cdef int _write_out(self) except -1
    cdef bint _took_enough(self) noexcept
    cdef int _queue_tail(self, object owner, const char* data, size_t size) except -1
    cdef int _merge_tail(self) except -1
    cdef int _response_left(self) except -1
    cdef int _finish_response(self) except -1
    cdef int _detach(self) except -1
    cdef int _count_dropped(self, Head* head) except -1
    cdef int _refuse_fields(self) except -1
    cdef int _read_forwarded(self, Head* head) except -1
    cdef int _note_request(self, Head* head) except -1
    cdef int _note_refused(self) except -1
    cdef int _note_response(self, size_t at) except -1
    cdef int _keep_facts(self) except -1
    cdef int _log_response(self) except -1
    cdef uint64_t _body_left(self) noexcept
    cdef int _tell(self, str text, tuple details) except -1


cdef class Listener:
    cdef readonly object socket       # keeps the descriptor open
    cdef readonly int fd
    cdef readonly str scheme
    cdef readonly object host         # str, or the path of a unix socket
    cdef readonly object port         # int, or None
    cdef readonly bint wildcard       # bound to every address: each connection asks for its own
    cdef readonly bint is_unix
    cdef readonly bint accepts        # False: its connections are given to the reactor
    cdef bint watched
    cdef TLSEndpoint tls              # None: plain
    cdef object template              # the service's own: what every request of this listener begins with


cdef list describe_all(list exchanges)    # (method, path, seconds since they began) of those in the app


cdef class Reactor:
    # per process
    cdef readonly Limits limits
    cdef readonly Counters counters
    cdef DefaultFields defaults
    cdef Service service
    cdef AccessLog log                # None: no access log
    cdef Proxies proxies
    cdef object connection_class      # HTTP1Connection, or the class of another reader behind the same seam
    cdef Poller poller
    cdef list listeners

    # changing
    cdef bint accepting
    cdef bint ending                  # asked to retire: every response from now on is a last one
    cdef readonly bint retiring       # nothing is accepted any more, and every response is a last one
    cdef readonly bint stopping       # draining has begun: retiring, and idle connections are closed as well
    cdef uint64_t request_mark        # at so many requests on_mark is called; 0: never
    cdef object on_mark
    cdef int64_t clock                # when the last request began
    cdef int64_t beat_at              # when the next heartbeat is due; INT64_MAX: there is none
    cdef int64_t beat_interval
    cdef object heartbeat
    cdef int resumes                  # queued channels that may still be handled before the next look at the kernel's events
    cdef readonly int64_t open_connections
    cdef readonly int64_t handshakes  # TLS connections that are not established yet
    cdef Channel first                # open channels, newest first
    cdef Channel ready_head, ready_tail
    cdef Channel slow_head, slow_tail # ready, but put off because of Channel.slow
    cdef int overtakes                # channels handled while one of those waited, since one was handled
    cdef bint sleeping                # nobody handles events right now: queue() and earlier deadlines must wake
    cdef int64_t promised             # the engine comes back by then by itself
    cdef readonly bint deadline_moved # an earlier deadline than promised was set
    cdef int64_t accept_again         # accepting pauses until then (no descriptors left); 0: it does not
    cdef int64_t complained           # when the pause was last logged
    cdef int64_t told_at              # what clients did wrong is told in the error log: when that was last done ...
    cdef int told_left                # ... how many more lines may follow at once ...
    cdef int64_t untold               # ... and how many were left out since
    cdef TimerList head_timers, body_timers, keep_alive_timers, linger_timers, parting_timers, half_close_timers, write_timers
    cdef TimerList request_timers     # of length 0 without a limit for the app's time
    cdef TimerList overtime_timers    # the time was up, but some of it was the client's: looks again
    cdef readonly bint gated          # there is a limit for requests in the app at once
    cdef bint one_by_one              # the thread that runs the app takes in what has come before it calls the next
    cdef int64_t most_inside, most_in_line
    cdef int64_t inside, in_line      # numbers of requests; ITS_TURN counts as inside
    cdef TimerList line_timers        # the line itself, first come first served
    cdef int retry_after
    cdef int64_t busy_complained      # when refusing was last logged
    cdef object on_stuck              # called when a thread stays behind in an app that took too long
    cdef TimerList handshake_timers
    cdef TimerList look_timers, reply_timers, farewell_timers
    cdef readonly int64_t upgraded    # number of open connections that speak another protocol
    cdef object on_connected          # each is called with a ClientSocket that leaves here; None: it stays ...
    cdef object on_idle               # ... when it waits for its next request
    cdef object on_timed_out          # ... when its request head has not come in time
    cdef object arrivals              # deque of what give() was called with and take_in() has not seen yet
    cdef bint arrived                 # there may be some
    cdef bint over                    # abort() was called: nobody takes in any more
    cdef Outside outside              # the connections that have left
    cdef char* spare[32]              # output blocks not in use, the warmest last
    cdef int spare_count
    cdef Note* spare_notes[32]        # likewise of requests whose access line is written
    cdef int spare_note_count

    # --- for the engines
    cdef Channel take_ready(self, uint32_t* ready)       # the next channel of the batch or the queue. Accepts on the way.
    cdef int handle_all(self, Desk desk) except -1       # the channels of the batch and the queue
    cdef void sleep(self) noexcept                       # from now on queue() and earlier deadlines wake the engine
    cdef bint admit(self, Exchange exchange) except -1   # whether the app may be called; else it is in line, or was refused
    cdef int leave(self, Exchange exchange) except -1    # the app is done with it, or it is gone from the line
    cdef int call_next(self) except -1                   # gives free places to the first in line
    cdef int put_off(self, Channel channel) except -1    # behind all that is not slow
    cdef int queue(self, Channel channel) except -1      # handle it again soon, without an event; wakes a sleeping engine
    cdef int64_t next_deadline(self) noexcept            # INT64_MAX: none
    cdef int64_t _next_request_due(self) noexcept
    cdef int expire(self, Desk desk, int64_t time) except -1   # ends what is past its deadline at this time
    cdef int beat(self, int64_t time) except -1          # the heartbeat, if it is due

    cdef bint may_tell(self) except -1                   # whether one more line about a client may go to the error log

    cdef int set_deadline(self, Channel channel, uint8_t deadline) except -1
    cdef int move_deadline(self, int64_t at) except -1
    cdef TimerList* timers_of(self, uint8_t deadline) noexcept
    cdef int take_buffer(self, Buffer* buffer) noexcept      # -1: no memory
    cdef void give_buffer(self, Buffer* buffer) noexcept
    cdef Note* take_note(self) noexcept                  # NULL: there is none
    cdef void give_note(self, Note* note) noexcept
    cdef int accept_from(self, Listener listener) except -1
    cdef int accept_one(self, Listener listener, int fd, int family, uint8_t* address, uint16_t port) except -1
    cdef int pause_accepting(self, object reason) except -1
    cdef int watch_listeners(self) except -1
    cdef int watch_again(self) except -1
    cdef int unwatch_listeners(self) except -1
    cdef int accept_the_rest(self) except -1
    cdef int pass_mark(self) except -1
    cdef int expire_requests(self, int64_t time) except -1
    cdef Channel _resumed(self, Channel channel, uint32_t* ready)
    cdef bint _is_full(self) noexcept
    cdef list exchanges(self)
    cdef int forget_channel(self, Channel channel) except -1
    cdef int resume_accepting(self) except -1
    cdef int take_in(self) except -1                     # what give() has brought
    cdef int _take_in_client(self, ClientSocket client, bint idle) except -1
    cdef int _take_in_socket(self, object sock) except -1
    cdef Channel _new_channel(self, Listener listener, Transport transport, int family, uint8_t* address, uint16_t port)
    cdef int _enter(self, Channel channel) except -1
    cdef int make_room(self) except -1
