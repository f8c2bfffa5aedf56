"""ASGI WebSocket: one exchange per websocket, an ASGIExchange that goes on after its request.

Owns the order of messages (ASGI WebSocket 2.5), the closing handshake, pings, and what happens when either side is slow. Refuses to
know frames (_websocket), the fields of a handshake (websocket.py), tasks and awaitables (_asgi).

While nothing is said a websocket owns no buffer, no zlib stream and no timer of the loop: its deadline is in the reactor's lists.
The file is longer than most because the handshake, both directions and every end change the same few fields.
"""

import asyncio
import logging

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from duckfast._asgi cimport READY, ASGIExchange, Waiting, bind_method, is_of_disconnect, read_bytes, read_field, wake
from duckfast._deflate cimport Compression
from duckfast._reactor cimport (
    FAREWELL_DEADLINE, INSIDE, LOOK_DEADLINE, REPLY_DEADLINE, Channel, Deadline, Desk, Exchange, Service,
)
from duckfast._asgi cimport AWAIT_START, BODY_DELIVERED, RESPONDED
from duckfast._parser cimport Head
from duckfast._utf8 cimport encode_text
from duckfast._websocket cimport (
    OPCODE_BINARY, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, RECEIVED_CLOSE, RECEIVED_FAILURE, RECEIVED_MESSAGE,
    RECEIVED_NOTHING, RECEIVED_PING, Opcode, Received, WebSocketConnection, is_close_code,
)
from duckfast._writer cimport NO_MEMORY, WRITE_OK, Buffer, WriteError, append, describe

from duckfast import _zlib
from duckfast.exceptions import ApplicationError, ClientDisconnected, RemoteProtocolError
from duckfast.websocket import read_handshake

cdef size_t COPY = 12 * 1024          # bytes: as in _reactor, up to this a message is copied behind its head
cdef size_t GATHER = 12 * 1024        # bytes of small frames that leave together; more is sent at once
cdef size_t HIGH_WATER = 64 * 1024    # characters and bytes that wait for receive() before reading stops, as of HTTP bodies

cdef object _logger = logging.getLogger("duckfast")

# What the server itself says in a 101, or what frames it.
_RESERVED = frozenset((b"sec-websocket-protocol", b"sec-websocket-accept", b"sec-websocket-extensions"))


cdef class WebSocketService(Service):
    """Makes the exchanges of websockets for an ASGIService. window_bits: of permessage-deflate; None: without it."""

    def __init__(self, size_t max_size, int max_queue, bint pings, window_bits):
        self.max_size = max_size
        self.max_queue = max_queue
        self.pings = pings
        self.window_bits = None if _zlib.missing else window_bits

    cdef Exchange new_exchange(self, Channel channel, Head* head):
        cdef WebSocketExchange exchange = WebSocketExchange.__new__(WebSocketExchange)
        exchange.settings = self
        return exchange


cdef class Held:
    """A message whose send() waits."""


cdef class WebSocketExchange(ASGIExchange):
    """One websocket, from the request for it to its end. Python sees receive() and send()."""

    def __dealloc__(self):
        free(self.pong)

    # --- what the channel tells: the request

    cdef int begin(self, Desk desk) except -1:
        self.body = BODY_DELIVERED
        self.started = True
        self.scope = self.service._scopes.build_websocket(self.channel, desk.head)
        try:
            self.handshake = read_handshake(self.scope["headers"], self.settings.window_bits)
        except RemoteProtocolError as error:
            self.scope = None
            return self._refuse(error)
        self.scope["subprotocols"] = list(self.handshake.subprotocols)
        return self.service.start(self)

    cdef int body_data(self, const char* data, size_t size) except -1:
        return 0

    cdef int body_end(self) except -1:
        return 0

    cdef int _refuse(self, object error) except -1:
        cdef bytes text = str(error).encode("ascii")
        if error.status == 426:
            self.channel._tell("%s: refused with %d: %s", (426, str(error)))
            return self._answer(426, text + b"\n")
        return self.channel.answer_error(error.status, PyBytes_AS_STRING(text))

    cdef int _end_connection(self) except -1:
        """A proxy that has seen the handshake may pass on whatever follows, unread, without waiting for a 101: nothing may."""
        self.channel.connection.close_after_response()
        return 0

    cdef int _answer(self, int status, bytes text) except -1:
        """A whole response of the server's own, the connection's last."""
        cdef Channel channel = self.channel
        cdef WriteError error
        self._end_connection()
        error = channel.start_head(status, NULL, 0)
        if error == WRITE_OK:
            error = channel.add_field(b"Content-Type", 12, b"text/plain; charset=utf-8", 25)
        if error == WRITE_OK and status == 426:
            # RFC 9110 15.5.22 and RFC 6455 4.4; add_field() leaves the hop-by-hop ones out.
            if append(&channel.out, b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 68) < 0:
                error = NO_MEMORY
        if error == WRITE_OK:
            error = channel.end_head(PyBytes_GET_SIZE(text), False)
        if error != WRITE_OK:
            raise MemoryError
        channel.send_body(None, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        self.response = RESPONDED
        self.served_by = channel
        channel.end_body(NULL, 0)
        return channel.flush()

    cdef int half_closed(self) except -1:
        return self.channel.close()   # in the handshake: nobody would read frames who sends none

    cdef int disconnected(self) except -1:
        self.channel = None
        if self.phase <= DENYING:
            if self.response != RESPONDED:
                self.gone = True
        self._end(1006, "")
        return self._finish()

    cdef int draining(self) except -1:
        if self.phase == OPEN:
            return self._begin_close(1012, "")   # IANA: service restart
        if self.phase == DENYING:
            return ASGIExchange.draining(self)
        return 0

    cdef int drained(self) except -1:
        if self.phase == OPEN or self.phase == CLOSING:
            if self.pong != NULL:
                self._send_pong()
            if self.held is not None and len(self.held) != 0 and self.channel is not None and not self.channel.unsent():
                self._release_held(False)
        if self.channel is not None and self.channel.unsent():
            return 0
        return wake(self.senders)

    cdef tuple describe(self):
        cdef dict scope = self.scope
        if scope is None or self.phase >= OPEN and self.message is None and self.receivers is not None and len(self.receivers) != 0:
            return None   # over, or only waiting for its client
        if self.phase < OPEN and ASGIExchange.describe(self) is None:
            return None
        return "WEBSOCKET", scope.get("path")

    # --- what the channel tells: bytes

    cdef int bytes_came(self, char* data, size_t size) except -1:
        cdef WebSocketConnection codec = self.codec
        if codec is None:
            return 0
        self.heard = True
        codec.feed(data, size)
        self._read()
        if codec.unread():
            codec.settle()
        return 0

    cdef int bytes_ended(self) except -1:
        self._end(1006, "")
        return self._finish()

    cdef bint wants_bytes(self) noexcept:
        return not self.paused

    cdef int _read(self) except -1:
        """Takes frames until there are no more, or the application has enough to do."""
        cdef WebSocketConnection codec = self.codec
        cdef Received event
        while codec is not None:
            if self.waiting >= self.settings.max_queue or self.waiting_size >= HIGH_WATER:
                self.paused = True
                return 0
            event = codec.poll()
            if event == RECEIVED_MESSAGE:
                message = codec.message
                codec.message = None
                if self.phase == OPEN:
                    self._take_in(message)
            elif event == RECEIVED_NOTHING:
                return 0
            elif event == RECEIVED_PING:
                if self.phase == OPEN:
                    self._answer_ping(codec.control, codec.control_size)
            elif event == RECEIVED_CLOSE:
                return self._close_answered()
            elif event == RECEIVED_FAILURE:
                return self._fail(codec.close_code, (<bytes>codec.fail_reason).decode("ascii"))
            elif self.channel.deadline == REPLY_DEADLINE:
                self.channel.reactor.set_deadline(self.channel, LOOK_DEADLINE)
            codec = self.codec
        return 0

    cdef int _take_in(self, object message) except -1:
        self.talked = True
        self.waiting += 1
        self.waiting_size += <size_t>len(message)
        if self.message is None:
            self.message = message
        elif self.messages is None:
            self.messages = [message]
        else:
            self.messages.append(message)
        return wake(self.receivers)

    cdef int _drop_messages(self) except -1:
        self.message = self.messages = None
        self.waiting = 0
        self.waiting_size = 0
        return 0

    cdef int _answer_ping(self, const char* payload, size_t size) except -1:
        # RFC 6455 5.5.3: while earlier ones could not leave yet, the last ping alone needs an answer.
        if not self.channel.unsent():
            self.codec.write_frame(self.channel.output(), OPCODE_PONG, payload, size)
            return self.service.flush_later(self.channel)
        free(self.pong)
        self.pong = <char*>malloc(size + 1)
        if self.pong == NULL:
            raise MemoryError
        memcpy(self.pong, payload, size)
        self.pong_size = <uint8_t>size
        return 0

    cdef int _send_pong(self) except -1:
        if self.phase == OPEN:
            self.codec.write_frame(self.channel.output(), OPCODE_PONG, self.pong, self.pong_size)
        free(self.pong)
        self.pong = NULL
        return self.channel.flush()

    # --- the end

    cdef int _end(self, int code, object reason) except -1:
        """What receive() will tell, once the messages before it are taken. The first end counts."""
        if self.code == 0:
            self.code = code
            self.reason = reason
        wake(self.receivers)
        return 0

    cdef int _begin_close(self, int code, object reason) except -1:
        """Our close frame; then the peer has a moment for its own."""
        cdef Channel channel = self.channel
        self.phase = CLOSING
        self._end(code, reason)
        self._release_held(True)
        self.codec.write_close(channel.output(), code, reason)
        channel.reactor.set_deadline(channel, FAREWELL_DEADLINE)
        if self.paused and self.waiting == 0:
            self.paused = False
            channel.reactor.queue(channel)
        channel.flush()
        wake(self.senders)
        return 0

    cdef int _close_answered(self) except -1:
        """The peer's close frame: the answer to ours, or it gets one."""
        cdef WebSocketConnection codec = self.codec
        if self.phase == OPEN:
            self._end(codec.close_code, codec.close_reason)
            codec.write_close(self.channel.output(), codec.close_code, "")
        return self._finish()

    cdef int _fail(self, int code, object reason) except -1:
        """RFC 6455 7.1.7: the peer hears why, and nothing of it is read any more."""
        if self.phase == OPEN:
            self.channel._tell("%s: websocket ended with %d: %s", (code, reason))
            self._end(code, reason)
            self.codec.write_close(self.channel.output(), code, reason)
        return self._finish()

    cdef int _finish(self) except -1:
        """Nothing more is read or sent: the connection ends once all has left."""
        cdef Channel channel = self.channel
        if self.phase > DENYING or self.gone:
            self.phase = CLOSED
        self.codec = None
        self.paused = False
        if self.phase == CLOSED and channel is not None:
            channel.end_upgraded()
            self.channel = None
        if self.held is not None:
            self.held.clear()
        return wake(self.senders)

    # --- deadlines

    cdef int deadline_passed(self, Deadline deadline) except -1:
        cdef Channel channel = self.channel
        if deadline == LOOK_DEADLINE:
            return self._look()
        if deadline == REPLY_DEADLINE and (self.heard or self.paused):   # paused: its pong waits behind what we do not read
            channel.reactor.set_deadline(channel, LOOK_DEADLINE)
            return 0
        channel.reactor.counters.timeouts += 1
        if deadline == REPLY_DEADLINE:
            self._end(1006, "no answer to a ping")
            self.codec.write_close(channel.output(), 1011, "no answer to a ping")
        return self._finish()

    cdef int _look(self) except -1:
        cdef Channel channel = self.channel
        if self.phase != OPEN:
            return 0
        if not self.talked:
            self.codec.relax()
        self.talked = False
        if not self.settings.pings or channel.unsent():   # who does not read is seen by another deadline
            return channel.reactor.set_deadline(channel, LOOK_DEADLINE)
        self.heard = False
        self.codec.write_frame(channel.output(), OPCODE_PING, NULL, 0)
        channel.reactor.set_deadline(channel, REPLY_DEADLINE if channel.reactor.reply_timers.length else LOOK_DEADLINE)
        return channel.flush()

    # --- receive

    cdef dict take_message(self):
        if not self.connect_told:
            self.connect_told = True
            return {"type": "websocket.connect"}
        message = self.message
        if message is not None:
            self.waiting -= 1
            self.waiting_size -= <size_t>len(message)
            self.message = self.messages.pop(0) if self.messages is not None and len(self.messages) != 0 else None
            if self.paused and self.waiting <= self.settings.max_queue // 2:
                self.paused = False
                self._read()   # what came with the last bytes
                if self.channel is not None and not self.paused:
                    self.channel.reactor.queue(self.channel)
            if type(message) is str:
                return {"type": "websocket.receive", "text": message, "bytes": None}
            return {"type": "websocket.receive", "bytes": message, "text": None}
        if self.code != 0:
            return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}
        if self.response == RESPONDED:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        return None

    # --- send

    cdef object bind_send(self):
        return bind_method(_send, self)

    @cython.binding(False)
    def send(self, message):
        """Takes a message. Raises ApplicationError when it breaks the contract, ClientDisconnected when the websocket has ended;
        returns an awaitable."""
        if type(message) is not dict:
            try:
                message = dict(message)
            except (TypeError, ValueError):
                raise ApplicationError(f"send() takes a dict, got {type(message).__name__}") from None
        kind = message.get("type")
        if kind == "websocket.send":
            return self._send_message(message)
        if kind == "websocket.accept":
            return self._accept(message)
        if kind == "websocket.close":
            return self._send_close(message)
        if kind == "websocket.http.response.start" or kind == "websocket.http.response.body":
            return self._deny(message)
        raise ApplicationError(f"send() of an unknown message type {kind!r} on a websocket")

    cdef object _accept(self, dict message):
        cdef Channel channel = self.channel
        if self.phase != HANDSHAKE or self.response != AWAIT_START:
            if self.code != 0:
                raise ClientDisconnected("the websocket has ended")
            raise ApplicationError("websocket.accept came twice, or after the websocket was denied")
        if channel is None:
            raise ClientDisconnected("the client has left")
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self.handshake.subprotocols:
            raise ApplicationError(
                f"websocket.accept: the subprotocol {subprotocol!r} is none that the client offered: {self.handshake.subprotocols}")
        # Made first: the connection must not be a websocket before it can read and write frames.
        deflate = self.handshake.deflate
        self.codec = WebSocketConnection(
            self.settings.max_size,
            None if deflate is None else Compression(
                deflate.server_bits, deflate.client_bits, deflate.server_takeover, deflate.client_takeover),
        )
        if channel.start_upgrade() != WRITE_OK:
            raise MemoryError
        try:
            self._write_handshake(channel, subprotocol, message.get("headers") or ())
        except BaseException:
            channel.drop_head()
            raise
        channel.upgrade()
        self.phase = OPEN
        self.handshake = None
        channel.reactor.set_deadline(channel, LOOK_DEADLINE)
        if self.place == INSIDE:
            channel.reactor.leave(self)   # the limit is for requests: an open websocket mostly waits
        self.service.flush_later(channel)
        if channel.reactor.retiring:
            self._begin_close(1012, "")
        return READY

    cdef int _write_handshake(self, Channel channel, object subprotocol, object fields) except -1:
        cdef bytes lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + self.handshake.accept + b"\r\n"
        cdef WriteError error
        if subprotocol is not None:
            lines += b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii") + b"\r\n"
        if self.handshake.extensions:
            lines += b"Sec-WebSocket-Extensions: " + self.handshake.extensions + b"\r\n"
        if append(&channel.out, PyBytes_AS_STRING(lines), PyBytes_GET_SIZE(lines)) < 0:
            raise MemoryError
        for item in fields:
            name, value = read_field(item)
            if name.lower() in _RESERVED:
                raise ApplicationError(f"websocket.accept: the header {name!r} is the server's own; there is `subprotocol`")
            error = channel.add_field(
                PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            if error != WRITE_OK:
                raise ApplicationError(f"websocket.accept: {describe(error)}: {name!r}: {value!r}")
        return 0

    cdef object _deny(self, dict message):
        """The extension websocket.http.response: what follows is an HTTP response."""
        cdef bint start = message["type"] == "websocket.http.response.start"
        if self.phase > DENYING:
            raise ApplicationError(f"{message['type']} came after websocket.accept")
        if start:
            if self.channel is not None:
                self._end_connection()
            outcome = self._send_start(message)
            self.phase = DENYING
            return outcome
        return self._send_body(message)

    cdef object _send_message(self, dict message):
        cdef Held held
        cdef Waiting waiting
        cdef Opcode opcode = OPCODE_TEXT
        payload = message.get("text")
        data = message.get("bytes")
        if payload is None:
            opcode = OPCODE_BINARY
            payload = data
            if data is None:
                raise ApplicationError("websocket.send needs text or bytes")
            if not PyBytes_CheckExact(data):
                payload = read_bytes(data)
        elif data is not None:
            raise ApplicationError("websocket.send takes text or bytes, not both")
        elif not isinstance(payload, str):
            raise ApplicationError(f"websocket.send needs a str as text, got {type(payload).__name__}")
        if self.phase != OPEN:
            if self.phase == HANDSHAKE and not self.gone and self.response == AWAIT_START:
                raise ApplicationError("websocket.send came before websocket.accept")
            if self.phase == DENYING:
                raise ApplicationError("websocket.send came while the websocket was being denied")
            raise ClientDisconnected("the websocket has ended")
        if not self.channel.unsent():
            self._queue_message(opcode, payload)
            return self._push()
        # The client is slow: what is not in the output yet stays with its sender.
        held = Held.__new__(Held)
        held.opcode = opcode
        held.message = payload
        if self.held is None:
            self.held = []
        self.held.append(held)
        waiting = Waiting.__new__(Waiting)
        waiting.exchange = self
        waiting.ticket = held
        return waiting

    cdef int _queue_message(self, Opcode opcode, object message) except -1:
        cdef Channel channel = self.channel
        cdef WebSocketConnection codec = self.codec
        cdef Py_ssize_t size = 0
        cdef const char* data
        cdef Buffer* out
        cdef size_t before
        if opcode == OPCODE_TEXT:
            message = encode_text(message, &data, &size)
        else:
            data = PyBytes_AS_STRING(message)
            size = PyBytes_GET_SIZE(message)
        self.talked = True
        out = channel.output()
        before = out.size
        if codec.compresses(size):
            codec.write_compressed(out, opcode, data, size)
        elif <size_t>size <= COPY:
            codec.write_frame(out, opcode, data, size)
        else:
            codec.write_head(out, opcode, size)
            channel.send_tail(message, data, size)
            channel.body_sent += size
        channel.body_sent += out.size - before
        return 0

    cdef object _push(self):
        cdef Channel channel = self.channel
        cdef Waiting waiting
        if channel.tail is None and channel.out.size - channel.out.start < GATHER:
            self.service.flush_later(channel)
            return READY
        channel.flush()
        if self.channel is None or not channel.unsent():
            return READY
        waiting = Waiting.__new__(Waiting)
        waiting.exchange = self
        return waiting

    cdef int _release_held(self, bint all_of_them) except -1:
        """What was held back goes out in its order: until the kernel has enough again, or whatever it has."""
        cdef Held held
        while self.held is not None and len(self.held) != 0 and self.channel is not None:
            held = self.held.pop(0)
            held.sent = True
            self._queue_message(held.opcode, held.message)
            held.message = None
            if all_of_them or len(self.held) != 0 and self.channel.tail is None and self.channel.out.size < GATHER:
                continue
            self.channel.flush()
            if self.channel is None or self.channel.unsent():
                break
        return wake(self.senders)

    cdef bint must_wait(self, object ticket) except -1:
        if self.phase <= DENYING:
            return ASGIExchange.must_wait(self, ticket)
        if ticket is not None and (<Held>ticket).sent:
            return False
        if self.phase != OPEN:
            raise ClientDisconnected("the websocket has ended")
        return ticket is not None or self.channel.unsent()

    cdef int withdraw(self, object ticket) except -1:
        if self.held is not None and ticket in self.held:
            self.held.remove(ticket)
        return 0

    cdef object _send_close(self, dict message):
        code = message.get("code")
        reason = message.get("reason")
        if code is None:
            code = 1000
        if reason is None:
            reason = ""
        if not isinstance(code, int) or not -1 < code < 65536 or not is_close_code(code):
            raise ApplicationError(f"websocket.close: {code!r} is no code that may be sent: 1000-1003, 1007-1014, 3000-4999")
        if not isinstance(reason, str):
            raise ApplicationError(f"websocket.close needs a str as reason, got {type(reason).__name__}")
        if self.phase == HANDSHAKE and self.response == AWAIT_START and self.channel is not None:
            self._end(1006, "")
            self._answer(403, b"Forbidden\n")
            return READY
        if self.phase == DENYING and not self.gone and self.response != RESPONDED:
            raise ApplicationError("websocket.close came while the websocket was being denied")
        if self.phase != OPEN:
            raise ClientDisconnected("the websocket has ended")
        self._drop_messages()
        self._begin_close(code, reason)
        return READY

    # --- the end of the application

    cdef int application_ended(self, object error) except -1:
        cdef bint cancelled = isinstance(error, asyncio.CancelledError)
        cdef Channel channel = self.channel
        try:
            if self.phase <= DENYING and not self.gone:
                return ASGIExchange.application_ended(self, error)
            if error is not None and not cancelled and not (self.phase != OPEN and is_of_disconnect(error)):
                self._complain("the application failed on %s %r", error)
            if self.phase == OPEN:
                self._drop_messages()
                self._begin_close(1012 if cancelled else 1000 if error is None else 1011, "")
            elif self.phase == CLOSING and self.paused:
                self.paused = False   # nobody takes what waits; the close frame is behind it
                self.channel.reactor.queue(self.channel)
        except Exception:
            if channel is None:
                raise
            channel.give_up()   # nobody else would end it
        finally:
            self.scope = None
            self.handshake = None
            self.receivers = self.senders = None
            self._drop_messages()
        return 0

    def _complain(self, text, error):
        self.service.reactor.counters.app_errors += 1
        _logger.error(text, "websocket", self.scope.get("path"), exc_info=error)


cdef object _send = WebSocketExchange.__dict__["send"]
