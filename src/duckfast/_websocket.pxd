# WebSocketConnection: frames and messages of one websocket (RFC 6455), from bytes alone. No sockets, no clock, no app.
cimport cython
from libc.stdint cimport uint8_t, uint64_t

from duckfast._deflate cimport Compression
from duckfast._utf8 cimport Text
from duckfast._writer cimport Buffer


cdef enum Opcode:
    OPCODE_CONTINUATION = 0
    OPCODE_TEXT = 1
    OPCODE_BINARY = 2
    OPCODE_CLOSE = 8
    OPCODE_PING = 9
    OPCODE_PONG = 10


cdef enum Received:
    RECEIVED_NOTHING    # the window is used up: feed() more
    RECEIVED_MESSAGE    # message: a str (text) or bytes (binary), whole
    RECEIVED_PING       # control, control_size: they live until the next feed(), poll() or settle()
    RECEIVED_PONG       # likewise
    RECEIVED_CLOSE      # close_code, close_reason; nothing more is read, ever
    RECEIVED_FAILURE    # the peer broke a rule: close_code and fail_reason say which; nothing more is read, ever


cdef enum FramePart:
    READ_FRAME_HEAD
    READ_PAYLOAD
    READ_CONTROL    # the payload of a control frame
    READ_NO_MORE


cdef class WebSocketConnection:
    # per connection
    cdef size_t _max_size             # of a message, decompressed
    cdef readonly bint client         # we are the client: what comes is not masked, what goes is
    cdef Compression compression      # None: not agreed

    # reading: the window is lent by feed(), and changed in place, or holds the unread bytes kept by settle()
    cdef char* _window
    cdef size_t _position
    cdef size_t _window_size
    cdef Buffer _kept                 # owned
    cdef bint _lent
    cdef object message               # of RECEIVED_MESSAGE: whoever takes it sets None
    cdef char* control
    cdef size_t control_size
    cdef readonly int close_code      # 1005: the frame had none
    cdef readonly object close_reason # str; None before
    cdef const char* fail_reason      # a literal; NULL: nothing has failed
    # private
    cdef FramePart _reading
    cdef uint8_t _head[14]            # of a frame head that has come in pieces
    cdef uint8_t _head_size
    cdef bint _final                  # the frame's FIN
    cdef uint8_t _opcode              # of the frame
    cdef uint8_t _mask[4]             # turned to where the next byte of payload stands
    cdef uint64_t _left               # payload to come
    cdef uint8_t _message_opcode      # of the message in progress; 0: there is none
    cdef bint _compressed             # it is
    cdef Text _text                   # how far its text is checked
    cdef object _store                # bytes that are being filled: the message in progress; None: nothing of it is here
    cdef size_t _stored
    cdef char* _control_room          # owned: a control frame's payload that has come in pieces

    # writing
    cdef readonly bint close_sent     # nothing but nothing follows
    cdef unsigned int _mask_seed      # of a client

    # Reading. The lent bytes are changed, and must stay valid until settle().
    cdef int feed(self, char* data, size_t size) except -1
    cdef Received poll(self) except? RECEIVED_FAILURE
    cdef int settle(self) except -1                    # keeps what is unread in memory of its own
    cdef size_t unread(self) noexcept
    cdef int stop_reading(self) noexcept               # throws away what is here and what comes
    cdef int relax(self) except -1                     # nothing is being said: gives up what is not needed now

    # Writing. Everything goes to the end of *out.
    cdef bint compresses(self, size_t size) noexcept   # whether a message of this size is to be written by write_compressed()
    cdef int write_compressed(self, Buffer* out, Opcode opcode, const char* data, size_t size) except -1
    cdef int write_frame(self, Buffer* out, Opcode opcode, const char* data, size_t size) except -1
    cdef int write_head(self, Buffer* out, Opcode opcode, size_t size) except -1   # a server's, whose payload goes another way
    cdef int write_close(self, Buffer* out, int code, object reason) except -1     # 1005: a frame without a code

    # private
    @cython.final
    cdef void _free_kept(self) noexcept
    @cython.final
    cdef int _keep(self, const char* data, size_t size) except -1
    @cython.final
    cdef int _put_mask(self, uint8_t* into) noexcept
    @cython.final
    cdef int _take_head(self) noexcept
    @cython.final
    cdef int _parse_head(self, const uint8_t* head) noexcept
    @cython.final
    cdef int _begin_payload(self, bint compressed) noexcept
    @cython.final
    cdef int _take_payload(self) except -1
    @cython.final
    cdef bint _take_whole(self) except -1
    @cython.final
    cdef int _take_control(self) except -1
    @cython.final
    cdef Received _end_control(self, char* payload, size_t size) except? RECEIVED_FAILURE
    @cython.final
    cdef int _read_close(self, const char* payload, size_t size) except -1
    @cython.final
    cdef int _store_plain(self, const char* data, size_t size) except -1
    @cython.final
    cdef int _store_inflated(self, const char* data, size_t size) except -1
    @cython.final
    cdef int _grow(self, size_t size) except -1
    @cython.final
    cdef int _end_message(self) except -1
    @cython.final
    cdef int _fail(self, int code, const char* reason) noexcept


cdef bint is_close_code(int code) noexcept nogil       # whether a close frame may hold it
