# HTTP1Connection: the state of one HTTP/1.x byte stream, both directions. No sockets, no clock, no app.
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from duckfast._limits cimport Limits
from duckfast._parser cimport Chunk, ChunkDecoder, Head, Parsed, Progress
from duckfast._writer cimport Buffer, DefaultFields, Persistence, ResponseHead, WriteError


cdef enum Event:
    NEED_DATA   # the window is used up: feed() more (after settle())
    REQUEST     # *head is filled in; its spans live until the next feed(), poll() or settle()
    DATA        # body bytes: body_data, body_size; they live until the next feed(), poll() or settle()
    END         # the request message is complete
    PAUSED      # after END: the next head is not read before next_request()
    FAILED      # the peer broke a rule: error_status, error_reason; nothing more is read, ever
    CLOSED      # feed_eof() came between two requests: nothing to answer


cdef enum Framing:
    # How the body of the response in progress travels.
    SEND_NOTHING     # suppressed: HEAD, 1xx, 204, 304; or no response begun
    SEND_LENGTH      # Content-Length
    SEND_CHUNKED
    SEND_UNTIL_CLOSE


cdef enum Finish:
    FINISHED_KEEP_ALIVE   # reuse the connection: next_request()
    FINISHED_CLOSE        # complete, but the connection closes
    FINISHED_SHORT        # fewer bytes than Content-Length said: close visibly


cdef enum Reading:
    # The request half. The moves between them are in _http1.pyx, in one table.
    READ_HEAD
    READ_LENGTH     # body framed by Content-Length
    READ_CHUNKED
    READ_END        # all read, END not yet reported
    READ_PAUSED     # END reported
    READ_FAILED
    READ_CLOSED


cdef enum Writing:
    # The response half.
    WRITE_HEAD      # nothing written
    WRITE_BODY
    WRITE_DONE      # the whole response is in the buffer


cdef class HTTP1Connection:
    # per connection
    cdef Limits _limits
    cdef DefaultFields _defaults

    # reading: the window is either lent by feed() or the unread bytes kept by settle()
    cdef const char* _window      # lent, or _kept.data
    cdef size_t _position
    cdef size_t _window_size
    cdef Buffer _kept             # owned; data NULL on an idle connection
    cdef readonly int error_status
    cdef const char* error_reason     # a literal
    cdef const char* body_data
    cdef size_t body_size
    cdef bint eof
    # private
    cdef Reading _reading
    cdef Progress _progress       # of an unfinished head, or why one was refused
    cdef size_t _head_at          # where the head begins that was looked at last; only right after a failure
    cdef size_t _seen             # bytes of an unfinished head already judged; 0: none
    cdef int _empty_lines         # before the request line being waited for
    cdef bint _lent               # the window is not ours
    cdef uint64_t _body_missing   # READ_LENGTH: bytes to come
    cdef ChunkDecoder _chunks

    # per request
    cdef readonly bint head_request       # method is HEAD
    cdef readonly int minor
    cdef readonly bint request_keep_alive
    cdef readonly bint request_complete   # END was reported
    cdef readonly uint64_t body_received  # bytes of body so far

    # per response
    cdef Framing framing
    cdef readonly bint head_sent
    cdef int64_t body_left                # SEND_LENGTH: bytes still owed
    cdef readonly bint closing            # this response is the last one of the connection
    # private
    cdef Writing _writing
    cdef bint _chunk_open                 # a chunk-size line was written, its CRLF not

    # Reading. None of them raises. The lent bytes must stay valid until settle().
    cdef void feed(self, const char* data, size_t size) noexcept nogil
    cdef void feed_eof(self) noexcept nogil
    cdef Event poll(self, Head* head) noexcept
    # Copies what is unread into memory of its own, so that the lent window may be reused; frees it when all is read. -1: no memory.
    cdef int settle(self) noexcept nogil
    cdef size_t unread(self) noexcept nogil          # bytes in the window not consumed yet
    cdef bytes take_unread(self)                     # those bytes; nothing is read here any more
    # The bytes of a head that is incomplete, or that has just been refused; 0: none that could be shown. Dead as a head's spans.
    cdef size_t unfinished_head(self, const char** data) noexcept nogil
    cdef bint between_requests(self) noexcept nogil  # no byte of a head has arrived (empty lines do not count)
    cdef void next_request(self) noexcept nogil

    # Writing. Everything goes to the end of *out.
    # Ends the head that write_status/write_field began: framing fields, Date, Server, defaults, Connection, the blank line.
    # body_size: the whole body's length when known, else -1. Decides framing and closing. trailers: announced by the app.
    cdef WriteError finish_head(self, Buffer* out, ResponseHead* head, int64_t body_size, bint trailers) noexcept nogil
    # Allows `size` more body bytes: returns how many of them may leave (0 when suppressed, fewer when over Content-Length),
    # and when chunked has written the chunk-size line; the caller appends the bytes, then calls end_chunk().
    cdef size_t start_chunk(self, Buffer* out, size_t size) noexcept nogil
    cdef void end_chunk(self, Buffer* out) noexcept nogil    # CRLF when chunked, else nothing
    # Ends the body. trailers: serialized trailer field lines (each with CRLF) or NULL.
    cdef Finish finish_body(self, Buffer* out, const char* trailers, size_t trailers_size) noexcept nogil
    # A whole response made by the server itself: text body with the reason, Date, Connection: close. HEAD: no body.
    # retry_after: seconds for that field; 0: without it.
    cdef WriteError write_error(self, Buffer* out, int status, const char* reason, int retry_after) noexcept nogil
    cdef void close_after_response(self) noexcept nogil   # this response says Connection: close (draining, unread body)

    # private; final, so that C may call them directly
    @cython.final
    cdef void _free_kept(self) noexcept nogil
    @cython.final
    cdef int _keep(self, const char* data, size_t size) noexcept nogil
    @cython.final
    cdef void _out_of_memory(self) noexcept nogil
    @cython.final
    cdef int _skip_empty_lines(self) noexcept nogil
    @cython.final
    cdef Event _poll_head(self, Head* head) noexcept
    @cython.final
    cdef Event _begin_request(self, Head* head) noexcept nogil
    @cython.final
    cdef Event _poll_length(self) noexcept
    @cython.final
    cdef Event _poll_chunked(self) noexcept
    @cython.final
    cdef Event _report_end(self) noexcept nogil
    @cython.final
    cdef Event _need_data(self) noexcept nogil
    @cython.final
    cdef Event _fail(self, int status, const char* reason) noexcept nogil
    @cython.final
    cdef void _enter_reading(self, Reading state) noexcept nogil
    @cython.final
    cdef void _enter_writing(self, Writing state) noexcept nogil
    @cython.final
    cdef Persistence _persistence(self) noexcept nogil

    # What another parser overrides. They may need the GIL; none of them raises.
    # The head at data[0:size]: as _parser.parse_head.
    cdef Parsed _read_head(self, Head* head, const char* data, size_t size) noexcept
    # body_data[0:body_size] has just been found in the window, framed by Content-Length: -1 refuses it (_progress says why).
    cdef int _check_content(self) noexcept
    # The raw bytes `data` were chunk framing and the content body_data[0:body_size]; `chunk` is what our decoder made of them.
    cdef int _check_chunk(self, Chunk chunk, const char* data, size_t size) noexcept
