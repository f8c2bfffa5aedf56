# ASGI websockets: an exchange that begins as an HTTP one, and speaks frames once the application has accepted.
from libc.stdint cimport uint8_t

from duckfast._asgi cimport ASGIExchange
from duckfast._parser cimport Head
from duckfast._reactor cimport Channel, Exchange, Service
from duckfast._websocket cimport Opcode, WebSocketConnection
from duckfast._writer cimport Buffer


cdef enum Phase:
    HANDSHAKE    # the application has neither accepted nor denied
    DENYING      # it answers as over HTTP
    OPEN
    CLOSING      # our close frame is out, the peer's is due
    CLOSED       # nothing more is read or sent


cdef class WebSocketService(Service):
    # per process
    cdef readonly size_t max_size    # bytes of a message
    cdef readonly int max_queue      # messages that wait for receive() before reading stops
    cdef readonly bint pings
    cdef readonly object window_bits # of permessage-deflate; None: it is not agreed to


cdef class Held:
    # A message whose send() waits for the kernel to take earlier ones.
    cdef Opcode opcode
    cdef object message
    cdef bint sent


cdef class WebSocketExchange(ASGIExchange):
    cdef WebSocketService settings
    cdef WebSocketConnection codec   # None before the handshake and after the end
    cdef Phase phase
    cdef object handshake            # websocket.Handshake, until it is answered
    cdef bint connect_told
    cdef int code                    # of the disconnect that receive() tells; 0: there is none
    cdef object reason

    # from the client
    cdef object message              # the first that waits for receive(); None: none waits
    cdef list messages               # those behind it; None: there was none yet
    cdef int waiting                 # how many wait
    cdef size_t waiting_size         # characters and bytes of them
    cdef bint paused                 # reading has stopped until the application takes some
    cdef bint heard                  # something came since the peer was last asked
    cdef bint talked                 # a message went or came since the last look

    # to the client
    cdef list held                   # of Held; None: there was none yet
    cdef char* pong                  # owned: the payload of a ping that is to be answered; NULL: none is
    cdef uint8_t pong_size

    cdef int _refuse(self, object error) except -1
    cdef int _end_connection(self) except -1
    cdef int _answer(self, int status, bytes text) except -1
    cdef object _accept(self, dict message)
    cdef int _write_handshake(self, Channel channel, object subprotocol, object fields) except -1
    cdef object _deny(self, dict message)
    cdef object _send_message(self, dict message)
    cdef object _send_close(self, dict message)
    cdef int _queue_message(self, Opcode opcode, object message) except -1
    cdef object _push(self)
    cdef int _release_held(self, bint all_of_them) except -1
    cdef int _read(self) except -1
    cdef int _take_in(self, object message) except -1
    cdef int _drop_messages(self) except -1
    cdef int _answer_ping(self, const char* payload, size_t size) except -1
    cdef int _send_pong(self) except -1
    cdef int _end(self, int code, object reason) except -1
    cdef int _begin_close(self, int code, object reason) except -1
    cdef int _close_answered(self) except -1
    cdef int _fail(self, int code, object reason) except -1
    cdef int _finish(self) except -1
    cdef int _look(self) except -1
