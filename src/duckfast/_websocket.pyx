"""WebSocketConnection: frames and messages of one websocket (RFC 6455, RFC 7692). No sockets, no clock, no app.

Bytes go in by feed(), events come out of poll(), frames go to a buffer the caller owns. A message that is one frame and whole in
the window is made into its str or bytes at once, from where it was read; another grows in a bytes object that becomes the message.
Whatever the peer declares, memory grows only with what it has sent. The file is long because reading and its Probe stand together.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from duckfast._debug cimport ALIVE_BUFFER, ALIVE_WEBSOCKET, DUCKFAST_DEBUG, count_alive
from duckfast._deflate cimport INFLATE_BROKEN, INFLATE_NO_MEMORY, INFLATE_OK, Compression, Inflated
from duckfast._utf8 cimport Text, build_text, check_text, read_text
from duckfast._writer cimport Buffer, append, free_buffer, reserve

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void* PyUnicode_DATA(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    void _drop "Py_DECREF"(PyObject* thing) noexcept

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* The mask as a word, as it lies in memory: RFC 6455 5.3. */
    static inline uint64_t df_mask_word(const uint8_t *mask) {
        uint32_t half;
        memcpy(&half, mask, 4);
        return (uint64_t)half << 32 | half;
    }
    static inline void df_turn_mask(uint8_t *mask, size_t by) {
        uint8_t turned[4];
        int index;
        for (index = 0; index < 4; index++) turned[index] = mask[(by + index) & 3];
        memcpy(mask, turned, 4);
    }
    /* Plain loops over words, which compilers make wide; true: some byte of the result is not ASCII. */
    static int df_unmask(char *restrict out, const char *restrict in, size_t size, const uint8_t *mask) {
        const uint64_t word = df_mask_word(mask);
        uint64_t seen = 0;
        size_t index, words = size / 8;
        for (index = 0; index < words; index++) {
            uint64_t piece;
            memcpy(&piece, in + index * 8, 8);
            piece ^= word;
            seen |= piece;
            memcpy(out + index * 8, &piece, 8);
        }
        for (index = words * 8; index < size; index++) {
            out[index] = (char)((uint8_t)in[index] ^ mask[index & 3]);
            seen |= (uint8_t)out[index];
        }
        return (seen & 0x8080808080808080ULL) != 0;
    }
    static void df_unmask_here(char *data, size_t size, const uint8_t *mask) {
        const uint64_t word = df_mask_word(mask);
        size_t index, words = size / 8;
        for (index = 0; index < words; index++) {
            uint64_t piece;
            memcpy(&piece, data + index * 8, 8);
            piece ^= word;
            memcpy(data + index * 8, &piece, 8);
        }
        for (index = words * 8; index < size; index++) data[index] ^= (char)mask[index & 3];
    }

    /* Of a bytes object that nobody else knows: its size changes, and it may move. */
    static PyObject *df_resize_bytes(PyObject *bytes, Py_ssize_t size) {
        _PyBytes_Resize(&bytes, size);
        return bytes;
    }
    """
    void df_turn_mask(uint8_t* mask, size_t by) noexcept nogil
    bint df_unmask(char* out, const char* data, size_t size, const uint8_t* mask) noexcept nogil
    void df_unmask_here(char* data, size_t size, const uint8_t* mask) noexcept nogil
    PyObject* df_resize_bytes(PyObject* data, Py_ssize_t size) except NULL   # takes the reference, gives one

cdef enum:
    FIN = 0x80
    RSV1 = 0x40            # RFC 7692 6: the message is compressed
    RSV2_RSV3 = 0x30
    MASKED = 0x80
    SIZE_16 = 126
    SIZE_64 = 127
    LONGEST_CONTROL = 125  # RFC 6455 5.5
    SMALLEST_STORE = 512


cdef bint is_close_code(int code) noexcept nogil:
    # RFC 6455 7.4 and the IANA registry: 1004 means nothing, 1005, 1006 and 1015 are never sent.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


cdef class WebSocketConnection:
    """One end of a websocket. max_size: bytes of a message, decompressed; compression: what was agreed, None for nothing."""

    def __cinit__(self, size_t max_size, Compression compression=None, bint client=False):
        self._max_size = max_size
        self.compression = compression
        self.client = client
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_WEBSOCKET, 1)

    def __dealloc__(self):
        self._free_kept()
        free(self._control_room)
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_WEBSOCKET, -1)

    # The window ------------------------------------------------------------------------------------------------------

    cdef void _free_kept(self) noexcept:
        if self._kept.data is NULL:
            return
        free_buffer(&self._kept)
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_BUFFER, -1)

    cdef int _keep(self, const char* data, size_t size) except -1:
        cdef bint fresh = self._kept.data is NULL
        if append(&self._kept, data, size) < 0:
            raise MemoryError
        if DUCKFAST_DEBUG and fresh and self._kept.data is not NULL:
            count_alive(ALIVE_BUFFER, 1)
        return 0

    cdef int feed(self, char* data, size_t size) except -1:
        if self._position < self._window_size:
            self.settle()
            if self._position:
                memmove(self._kept.data, self._kept.data + self._position, self._window_size - self._position)
                self._kept.size = self._window_size - self._position
                self._position = 0
            self._keep(data, size)
            self._window = self._kept.data
            self._window_size = self._kept.size
            return 0
        self._free_kept()
        self._window = data
        self._position = 0
        self._window_size = size
        self._lent = True
        return 0

    cdef int settle(self) except -1:
        cdef size_t left = self._window_size - self._position
        if left and not self._lent:
            return 0
        if left:
            self._keep(self._window + self._position, left)   # nothing is kept while a window is lent
            self._window = self._kept.data
        else:
            self._free_kept()
            self._window = NULL
        self._position = 0
        self._window_size = left
        self._lent = False
        return 0

    cdef size_t unread(self) noexcept:
        return self._window_size - self._position

    # Reading ---------------------------------------------------------------------------------------------------------

    cdef Received poll(self) except? RECEIVED_FAILURE:
        cdef int found
        while True:
            if self._reading == READ_FRAME_HEAD:
                found = self._take_head()
                if found == 0:
                    return RECEIVED_NOTHING
            elif self._reading == READ_PAYLOAD:
                found = self._take_payload()
                if found == 0:
                    return RECEIVED_NOTHING
                if self.message is not None:
                    return RECEIVED_MESSAGE
            elif self._reading == READ_CONTROL:
                found = self._take_control()
                if found == 0:
                    return RECEIVED_NOTHING
                if self.fail_reason is NULL:
                    return <Received>found
            else:
                self._position = self._window_size
                return RECEIVED_NOTHING
            if self.fail_reason is not NULL:
                return RECEIVED_FAILURE

    cdef int _fail(self, int code, const char* reason) noexcept:
        self.close_code = code
        self.close_reason = ""
        self.fail_reason = reason
        self.stop_reading()
        return 1

    cdef int stop_reading(self) noexcept:
        self._reading = READ_NO_MORE
        self._position = self._window_size
        self._store = None
        self._stored = 0
        self.message = None
        return 0

    cdef int relax(self) except -1:
        if self.compression is not None and self._message_opcode == 0:
            self.compression.relax()
        return 0

    # A frame's head. 1: it is here, or has failed; 0: more bytes are needed.

    cdef int _take_head(self) noexcept:
        cdef size_t left = self._window_size - self._position
        cdef const uint8_t* head = <const uint8_t*>self._window + self._position
        cdef size_t size, piece
        if self._head_size == 0 and left >= 2:
            size = _head_size(head)
            if left >= size:
                self._position += size
                return self._parse_head(head)
        while left:
            size = 2 if self._head_size < 2 else _head_size(self._head)
            piece = min(size - self._head_size, left)
            memcpy(self._head + self._head_size, self._window + self._position, piece)
            self._head_size += <uint8_t>piece
            self._position += piece
            left -= piece
            if self._head_size >= 2 and self._head_size == _head_size(self._head):
                self._head_size = 0
                return self._parse_head(self._head)
        return 0

    cdef int _parse_head(self, const uint8_t* head) noexcept:
        cdef uint8_t opcode = head[0] & 0x0f
        cdef uint64_t size = head[1] & 0x7f
        cdef uint64_t shortest = SIZE_16
        cdef int index
        cdef bint compressed = head[0] & RSV1
        self._final = head[0] & FIN
        if head[0] & RSV2_RSV3:
            return self._fail(1002, b"a reserved bit is set")
        if compressed and (self.compression is None or opcode == OPCODE_CONTINUATION or opcode >= OPCODE_CLOSE):
            return self._fail(1002, b"a frame is marked as compressed that cannot be")
        if bool(head[1] & MASKED) == self.client:
            return self._fail(1002, b"a frame is masked by the server" if self.client else b"a frame is not masked")
        if OPCODE_BINARY < opcode < OPCODE_CLOSE or opcode > OPCODE_PONG:
            return self._fail(1002, b"an unknown opcode")
        if opcode >= OPCODE_CLOSE and (size > LONGEST_CONTROL or not self._final):
            return self._fail(1002, b"a control frame is too long or fragmented")
        if opcode == OPCODE_CONTINUATION:
            if self._message_opcode == 0:
                return self._fail(1002, b"a continuation frame continues nothing")
        elif opcode < OPCODE_CLOSE and self._message_opcode != 0:
            return self._fail(1002, b"a message begins within another")
        head += 2
        if size >= SIZE_16:
            index = 2
            if size == SIZE_64:
                index = 8
                shortest = 65536
            size = 0
            while index:
                size = size << 8 | head[0]
                head += 1
                index -= 1
            # RFC 6455 5.2: the shortest form, and the highest bit is 0
            if size < shortest or size >> 63:
                return self._fail(1002, b"a frame's length is not in its shortest form, or out of range")
        if not self.client:
            memcpy(self._mask, head, 4)
        self._opcode = opcode
        self._left = size
        return self._begin_payload(compressed)

    cdef int _begin_payload(self, bint compressed) noexcept:
        if self._opcode >= OPCODE_CLOSE:
            self._reading = READ_CONTROL
            self.control_size = 0
            return 1
        self._reading = READ_PAYLOAD
        if self._opcode != OPCODE_CONTINUATION:
            self._message_opcode = self._opcode
            self._compressed = compressed
            self._text = Text(0, 0, 0)
        if not self._compressed and self._left > self._max_size - self._stored:
            return self._fail(1009, b"the message is too large")
        return 1

    # Payload. 1: the frame is read, or has failed; 0: more bytes are needed.

    cdef int _take_payload(self) except -1:
        cdef size_t piece = <size_t>min(self._left, <uint64_t>(self._window_size - self._position))
        cdef char* data = self._window + self._position
        if piece == self._left and self._final and self._stored == 0 and not self._compressed and self._text.state == 0 \
                and self._store is None and self._take_whole():
            return 1
        if piece:
            self._position += piece
            self._left -= piece
            if self._compressed:
                if not self.client:
                    df_unmask_here(data, piece, self._mask)
                self._store_inflated(data, piece)
            else:
                self._store_plain(data, piece)
            if self._reading == READ_NO_MORE:
                return 1
            if not self.client:
                df_turn_mask(self._mask, piece)
        if self._left:
            return 0
        self._reading = READ_FRAME_HEAD
        if self._final:
            self._end_message()
        return 1

    cdef bint _take_whole(self) except -1:
        """A message that is one frame and is all here: from the window into the object that the app will get."""
        cdef size_t size = <size_t>self._left
        cdef const char* data = self._window + self._position
        cdef char* into
        self._position += size
        self._left = 0
        self._reading = READ_FRAME_HEAD
        if self._message_opcode == OPCODE_BINARY:
            self._message_opcode = 0
            if size == 0:
                self.message = b""
                return True
            self.message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            into = PyBytes_AS_STRING(self.message)
            if self.client:
                memcpy(into, data, size)
            else:
                df_unmask(into, data, size, self._mask)
            return True
        self._message_opcode = 0
        if size == 0:
            self.message = ""
            return True
        if not self.client:
            # Most text is ASCII: its str is made as if it were, and is one if that has turned out true.
            text = PyUnicode_New(<Py_ssize_t>size, 127)
            into = <char*>PyUnicode_DATA(text)
            if not df_unmask(into, data, size, self._mask):
                self.message = text
                return True
            data = into
        self.message = read_text(data, size)
        if self.message is None:
            self._fail(1007, b"text is not UTF-8")
        return True

    cdef int _grow(self, size_t size) except -1:
        """Makes the store at least so large."""
        cdef PyObject* store
        if self._store is None:
            self._store = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
            return 0
        if <size_t>PyBytes_GET_SIZE(self._store) >= size:
            return 0
        store = <PyObject*>self._store
        Py_INCREF(<object>store)
        self._store = None
        store = df_resize_bytes(store, <Py_ssize_t>size)
        self._store = <object>store
        _drop(store)
        return 0

    cdef int _store_plain(self, const char* data, size_t size) except -1:
        cdef size_t needed = self._stored + size
        cdef char* into
        if self._store is None or needed > <size_t>PyBytes_GET_SIZE(self._store):
            # As large as the frame says, but not without having seen the half of it.
            self._grow(<size_t>max(<uint64_t>needed, min(<uint64_t>needed + self._left, <uint64_t>needed * 2)))
        into = PyBytes_AS_STRING(self._store) + self._stored
        if self.client:
            memcpy(into, data, size)
        else:
            df_unmask(into, data, size, self._mask)
        self._stored = needed
        if self._message_opcode == OPCODE_TEXT and not check_text(&self._text, into, size):
            self._fail(1007, b"text is not UTF-8")
        return 0

    cdef int _store_inflated(self, const char* data, size_t size) except -1:
        cdef size_t room, made
        cdef bint over
        cdef Inflated outcome
        cdef char* into
        while True:
            # One byte more than allowed is room enough to see that it is too much.
            room = 0 if self._store is None else <size_t>PyBytes_GET_SIZE(self._store) - self._stored
            if room == 0:
                room = max(self._stored, <size_t>SMALLEST_STORE, min(size, self._max_size) * 2)
                room = min(room, self._max_size + 1 - self._stored)
                self._grow(self._stored + room)
            into = PyBytes_AS_STRING(self._store) + self._stored
            outcome = self.compression.inflate(&data, &size, into, room, &made)
            if outcome == INFLATE_NO_MEMORY:
                raise MemoryError
            over = self._stored + made > self._max_size
            # What was read first is judged first, or the outcome would depend on how the network cut the bytes.
            if self._message_opcode == OPCODE_TEXT and not check_text(&self._text, into, made - over):
                return self._fail(1007, b"text is not UTF-8")
            if over:
                return self._fail(1009, b"the message is too large")
            if outcome == INFLATE_BROKEN:
                return self._fail(1007, b"a compressed message cannot be decompressed")
            self._stored += made
            if size == 0 and made < room:
                return 0

    cdef int _end_message(self) except -1:
        cdef PyObject* store
        cdef uint8_t opcode = self._message_opcode
        cdef size_t size
        if self._compressed:
            self._store_inflated(b"\x00\x00\xff\xff", 4)   # RFC 7692 7.2.2
            if self._reading == READ_NO_MORE:
                return 0
            if self.compression.end_inflating() != INFLATE_OK:
                return self._fail(1007, b"a compressed message ends within a block")
        size = self._stored
        self._message_opcode = 0
        if opcode == OPCODE_TEXT and self._text.state:
            return self._fail(1007, b"text is not UTF-8")
        self._stored = 0
        if size == 0:
            self.message = "" if opcode == OPCODE_TEXT else b""
        elif opcode == OPCODE_TEXT:
            self.message = build_text(&self._text, PyBytes_AS_STRING(self._store), size)
        else:
            if <size_t>PyBytes_GET_SIZE(self._store) != size:
                store = <PyObject*>self._store
                Py_INCREF(<object>store)
                self._store = None
                store = df_resize_bytes(store, <Py_ssize_t>size)
                self._store = <object>store
                _drop(store)
            self.message = self._store
        self._store = None
        return 0

    # Control frames. 0: more bytes are needed; else the event, or a failure.

    cdef int _take_control(self) except -1:
        cdef size_t piece = <size_t>min(self._left, <uint64_t>(self._window_size - self._position))
        cdef char* data = self._window + self._position
        if piece < self._left or self.control_size:
            if self._control_room is NULL:
                self._control_room = <char*>malloc(LONGEST_CONTROL)
                if self._control_room is NULL:
                    raise MemoryError
            if piece:
                memcpy(self._control_room + self.control_size, data, piece)
            self.control_size += piece
            data = self._control_room
        else:
            if self._control_room is not NULL:   # of an earlier one
                free(self._control_room)
                self._control_room = NULL
            self.control_size = piece
        self._position += piece
        self._left -= piece
        if self._left:
            return 0
        if not self.client:
            df_unmask_here(data, self.control_size, self._mask)
        return <int>self._end_control(data, self.control_size)

    cdef Received _end_control(self, char* payload, size_t size) except? RECEIVED_FAILURE:
        self.control = payload
        self._reading = READ_FRAME_HEAD
        if self._opcode == OPCODE_PING:
            return RECEIVED_PING
        if self._opcode == OPCODE_PONG:
            return RECEIVED_PONG
        self._read_close(payload, size)
        return RECEIVED_CLOSE

    cdef int _read_close(self, const char* payload, size_t size) except -1:
        cdef int code = 1005
        reason = ""
        if size == 1:
            return self._fail(1002, b"a close frame of one byte")
        if size >= 2:
            code = <uint8_t>payload[0] << 8 | <uint8_t>payload[1]
            if not is_close_code(code):
                return self._fail(1002, b"a close code that must not be sent")
            try:
                reason = PyUnicode_DecodeUTF8(payload + 2, <Py_ssize_t>size - 2, NULL)
            except UnicodeDecodeError:
                return self._fail(1007, b"the reason of a close frame is not UTF-8")
        self.close_code = code
        self.close_reason = reason
        return self.stop_reading()

    # Writing ---------------------------------------------------------------------------------------------------------

    cdef bint compresses(self, size_t size) noexcept:
        return self.compression is not None and self.compression.is_worthwhile(size)

    cdef int write_head(self, Buffer* out, Opcode opcode, size_t size) except -1:
        if reserve(out, 10) < 0:
            raise MemoryError
        out.size += _put_head(<uint8_t*>out.data + out.size, <uint8_t>(FIN | opcode), size)
        return 0

    cdef int write_frame(self, Buffer* out, Opcode opcode, const char* data, size_t size) except -1:
        cdef uint8_t* head
        cdef size_t place
        if reserve(out, size + 14) < 0:
            raise MemoryError
        head = <uint8_t*>out.data + out.size
        place = _put_head(head, <uint8_t>(FIN | opcode), size)
        if not self.client:
            if size:
                memcpy(head + place, data, size)
            out.size += place + size
            return 0
        head[1] |= MASKED
        self._put_mask(head + place)
        df_unmask(<char*>head + place + 4, data, size, head + place)
        out.size += place + 4 + size
        return 0

    cdef int write_compressed(self, Buffer* out, Opcode opcode, const char* data, size_t size) except -1:
        cdef size_t start = out.size
        cdef size_t room = 14 if self.client else 10   # for the longest head; the payload moves down if it is a shorter one
        cdef size_t place
        cdef uint8_t head[14]
        cdef size_t made
        if reserve(out, room) < 0:
            raise MemoryError
        out.size += room
        self.compression.compress(out, data, size)
        made = out.size - start - room
        place = _put_head(head, <uint8_t>(FIN | RSV1 | opcode), made)
        if self.client:
            head[1] |= MASKED
            self._put_mask(head + place)
            df_unmask_here(out.data + start + room, made, head + place)
            place += 4
        if place < room:
            memmove(out.data + start + place, out.data + start + room, made)
        memcpy(out.data + start, head, place)
        out.size = start + place + made
        return 0

    cdef int write_close(self, Buffer* out, int code, object reason) except -1:
        cdef char payload[LONGEST_CONTROL]
        cdef const char* text
        cdef Py_ssize_t size = 0
        self.close_sent = True
        if code == 1005:
            return self.write_frame(out, OPCODE_CLOSE, NULL, 0)
        payload[0] = <char>(code >> 8)
        payload[1] = <char>code
        text = PyUnicode_AsUTF8AndSize(reason, &size)
        if size > LONGEST_CONTROL - 2:
            size = LONGEST_CONTROL - 2
            while text[size] & 0xc0 == 0x80:   # not within a character
                size -= 1
        memcpy(payload + 2, text, size)
        return self.write_frame(out, OPCODE_CLOSE, payload, 2 + size)

    cdef int _put_mask(self, uint8_t* into) noexcept:
        # RFC 6455 10.3 wants it unpredictable, against intermediaries that a page may try to poison. Only our tests are a client.
        self._mask_seed = self._mask_seed * 1664525 + 1013904223
        memcpy(into, &self._mask_seed, 4)
        return 0


cdef inline size_t _head_size(const uint8_t* head) noexcept nogil:
    cdef uint8_t size = head[1] & 0x7f
    return 2 + (0 if size < SIZE_16 else 2 if size == SIZE_16 else 8) + (4 if head[1] & MASKED else 0)


cdef inline size_t _put_head(uint8_t* head, uint8_t first, uint64_t size) noexcept nogil:
    cdef int index
    head[0] = first
    if size < SIZE_16:
        head[1] = <uint8_t>size
        return 2
    if size < 65536:
        head[1] = SIZE_16
        head[2] = <uint8_t>(size >> 8)
        head[3] = <uint8_t>size
        return 4
    head[1] = SIZE_64
    for index in range(8):
        head[9 - index] = <uint8_t>size
        size >>= 8
    return 10


def is_valid_close_code(int code) -> bool:
    """Whether a close frame may hold it."""
    return is_close_code(code)


# The connection as Python sees it --------------------------------------------------------------------------------------

_EVENTS = ("nothing", "message", "ping", "pong", "close", "failure")


cdef class Probe:
    """One end of a websocket as Python sees it: for tests, fuzzers and tools. Works on bytes alone.

    feed() lends the connection a copy of exactly the bytes given, freed by the next settle(), so that a sanitizer sees every
    read beside them.
    """

    cdef readonly WebSocketConnection connection
    cdef char* _loan
    cdef Buffer _out

    def __cinit__(self, WebSocketConnection connection not None):
        self.connection = connection

    def __dealloc__(self):
        free(self._loan)
        free_buffer(&self._out)

    def feed(self, bytes data not None) -> None:
        self.settle()
        self._loan = <char*>malloc(<size_t>max(len(data), 1))
        if self._loan is NULL:
            raise MemoryError
        memcpy(self._loan, PyBytes_AS_STRING(data), <size_t>len(data))
        self.connection.feed(self._loan, <size_t>len(data))

    def settle(self) -> None:
        self.connection.settle()
        free(self._loan)
        self._loan = NULL

    def rest(self) -> None:
        self.connection.relax()

    def stop_reading(self) -> None:
        self.connection.stop_reading()

    def poll(self) -> tuple:
        cdef WebSocketConnection connection = self.connection
        cdef Received event = connection.poll()
        name = _EVENTS[event]
        if event == RECEIVED_MESSAGE:
            message = connection.message
            connection.message = None
            return "text" if type(message) is str else "binary", message
        if event == RECEIVED_PING or event == RECEIVED_PONG:
            return name, PyBytes_FromStringAndSize(connection.control, <Py_ssize_t>connection.control_size)
        if event == RECEIVED_CLOSE:
            return name, connection.close_code, connection.close_reason
        if event == RECEIVED_FAILURE:
            return name, connection.close_code, connection.fail_reason.decode("ascii")
        return name,

    @property
    def unread(self) -> int:
        return self.connection.unread()

    @property
    def kept(self) -> int:
        """Bytes of memory held for unread input."""
        return self.connection._kept.capacity

    @property
    def stored(self) -> int:
        """Bytes of memory held for the message in progress."""
        return 0 if self.connection._store is None else PyBytes_GET_SIZE(self.connection._store)

    cdef bytes _take(self):
        cdef bytes taken = PyBytes_FromStringAndSize(self._out.data, <Py_ssize_t>self._out.size) if self._out.size else b""
        self._out.size = 0
        return taken

    def send(self, message) -> bytes:
        cdef bytes data = message.encode() if isinstance(message, str) else message
        if self.connection.compresses(<size_t>len(data)):
            return self.compressed(message)
        return self.frame(OPCODE_TEXT if isinstance(message, str) else OPCODE_BINARY, data)

    def compressed(self, message) -> bytes:
        cdef bytes data = message.encode() if isinstance(message, str) else message
        self.connection.write_compressed(
            &self._out, OPCODE_TEXT if isinstance(message, str) else OPCODE_BINARY, PyBytes_AS_STRING(data), <size_t>len(data))
        return self._take()

    def frame(self, int opcode, bytes payload not None=b"") -> bytes:
        self.connection.write_frame(&self._out, <Opcode>opcode, PyBytes_AS_STRING(payload), <size_t>len(payload))
        return self._take()

    def head(self, int opcode, size_t size) -> bytes:
        self.connection.write_head(&self._out, <Opcode>opcode, size)
        return self._take()

    def close(self, int code=1005, str reason="") -> bytes:
        self.connection.write_close(&self._out, code, reason)
        return self._take()
