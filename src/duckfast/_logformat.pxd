# An access log format as a program: what is noted of a request, and how it becomes a line. Bytes only; no file, no thread.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from duckfast._parser cimport Head


cdef struct Piece:
    uint32_t at      # from the first byte of the note
    int32_t size     # -1: the request has none


cdef struct Note:
    # What is kept of one request until its line is written: one block, malloc to free(). The pieces of header fields stand
    # behind it, then the bytes; both are found by the format that made it.
    int64_t began         # ns, monotonic
    int status            # of the response, once it is whole; 0 until then
    uint32_t size         # of the bytes
    uint32_t capacity     # of the bytes and the pieces
    uint32_t line_size    # the request line is first
    Piece method, path, query, protocol


cdef struct Facts:
    # What is known when the line is written.
    const char* client
    size_t client_size    # 0: a unix socket
    int status
    uint64_t sent         # bytes of the response's body
    uint64_t received     # bytes of the request's body
    int64_t duration      # ns
    bint https


cdef struct Step:
    # One fact, and the literal behind it.
    int fact              # Fact of _logformat.pyx
    bint json
    uint32_t slot         # which of the note's pieces
    uint64_t unit         # ns in the last digit of a duration ...
    uint64_t scale        # ... and how many of those make a whole one
    int digits
    size_t rest           # room for all that has no length of its own, from behind the fact to the line's end
    const char* tail      # in LogFormat._text
    uint32_t tail_size


cdef enum:
    NOTE_CAPACITY = 448   # bytes of a usual note: with what stands before them half a KiB
    MOST_TIMES = 8        # in one format
    MOST_SLOTS = 48       # header fields of one format: 32 of the template, and what a Python handler is told
    NAME_IDS = 256


cdef class LogFormat:
    # per process
    cdef Step* _steps
    cdef int _count
    cdef char* _text                    # the literals, one behind the other; owned
    cdef size_t _room                   # bytes of a line without what differs in length
    cdef char* _clf_spots[MOST_TIMES]   # where in the literals a time stands: it is written there when it changes
    cdef char* _iso_spots[MOST_TIMES]
    cdef int _clf_count, _iso_count
    cdef list _names                    # of header fields in lower case: requests' first, by slot; and as C sees them
    cdef const char* _name_data[MOST_SLOTS]
    cdef uint32_t _name_size[MOST_SLOTS]
    cdef bytes _id_field                # the field that brings a request's id; empty: none
    cdef int _request_slots, _slots
    cdef int _host_slot                 # -1: not asked for
    cdef readonly bint wants_response   # note_response() is to be called
    cdef readonly bint wants_scheme
    cdef uint8_t _slot_of_id[NAME_IDS]  # slot + 1 by _headers.Name; 0: nobody asks
    cdef int _unknown_slots             # slots whose names have no id

    # changing, under the lock of whoever writes
    cdef int64_t _second

    # A note of a request, NULL: no memory. The head's spans are copied. spare: a note that is not needed any more, or NULL.
    cdef Note* note(self, const Head* head, Note* spare) noexcept nogil
    # The same for a request that was refused before its head was read: the bytes of its first line, as far as they came.
    cdef Note* note_line(self, const char* line, size_t size) noexcept nogil
    # Adds what is asked of a response head to a note, which may move; NULL: no memory, and the old note is as it was.
    cdef Note* note_response(self, Note* note, const char* head, size_t size) noexcept nogil
    # Writes a line with its end; where it ends, or NULL when it might not fit.
    cdef char* write(self, char* out, const char* end, const Note* note, const Facts* facts) noexcept nogil
    cdef bytes line_of(self, const Note* note)   # the request line
    cdef dict describe(self, const Note* note, const Facts* facts)

    cdef int _name_fields(self) except -1
    cdef int _compile(self, list steps) except -1
    cdef bytes _literal_of(self, found)
    cdef int _fill_step(self, Step* step, found) except -1
    cdef const char* _bytes(self, const Note* note) noexcept nogil
    cdef Piece* _pieces(self, Note* note) noexcept nogil
    cdef Note* _new(self, size_t size, Note* spare) noexcept nogil
    cdef int _find(self, const Head* head, const char** data, uint32_t* sizes) noexcept nogil
    cdef int _slot_of(self, const char* name, size_t size, int first, int end) noexcept nogil
    cdef char* _write_other(
        self, char* out, const char* end, const Step* step, const Note* note, const Facts* facts) noexcept nogil
    cdef char* _write_span(self, char* out, const char* end, const char* data, size_t size, bint json) noexcept nogil
    cdef char* _write_without_query(self, char* out, const char* end, const Note* note, bint json) noexcept nogil
    cdef char* _write_user(self, char* out, const char* end, const char* data, int32_t size, bint json) noexcept nogil
    cdef void _set_time(self) noexcept nogil
    cdef object _shown(self, const Note* note, const Piece* piece)
    cdef Note* _note_of(self, bytes request, bint refused) except NULL
