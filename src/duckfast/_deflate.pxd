# permessage-deflate (RFC 7692) of one websocket: its two zlib streams and what becomes of them while nothing is said.
from libc.stdint cimport uint8_t

from duckfast._writer cimport Buffer


cdef extern from *:
    """
    #ifndef DUCKFAST_DEFLATE
    #define DUCKFAST_DEFLATE
    /* zlib.h, z_stream: frozen by its ABI. Declared here because its headers need not be there. */
    typedef struct {
        const unsigned char *next_in;
        unsigned int avail_in;
        unsigned long total_in;
        unsigned char *next_out;
        unsigned int avail_out;
        unsigned long total_out;
        const char *msg;
        void *state;
        void *(*zalloc)(void *, unsigned int, unsigned int);
        void (*zfree)(void *, void *);
        void *opaque;
        int data_type;
        unsigned long adler;
        unsigned long reserved;
    } df_zstream;
    #endif
    """
    ctypedef struct df_zstream:
        const unsigned char* next_in
        unsigned int avail_in
        unsigned char* next_out
        unsigned int avail_out
        int data_type


cdef enum Inflated:
    INFLATE_OK
    INFLATE_BROKEN      # the peer's bytes are not a deflate stream
    INFLATE_NO_MEMORY


cdef class Compression:
    # agreed in the handshake
    cdef readonly int out_bits          # windows, 8 to 15: of what we send ...
    cdef readonly int in_bits           # ... and of what the peer sends
    cdef readonly bint out_takeover     # our next message may refer to earlier ones
    cdef readonly bint in_takeover      # the peer's may

    # changing
    cdef df_zstream* _deflater          # owned; NULL: none is needed now
    cdef df_zstream* _inflater          # likewise
    cdef char* _history                 # owned: what the peer may refer to, while there is no inflater; NULL: nothing
    cdef unsigned int _history_size
    cdef uint8_t _futile                # how often compressing was not worth it, one after the other
    cdef uint8_t _resting               # so many messages are not even tried

    cdef bint is_worthwhile(self, size_t size) noexcept       # whether a message of this size should be compressed
    # Appends the payload of a whole message.
    cdef int compress(self, Buffer* out, const char* data, size_t size) except -1
    # Moves *data, *size over what was used, and says in *made how much was written to the `room` bytes of `into`. All is used, and
    # there is nothing more to come, once *size is 0 and there is room left.
    cdef Inflated inflate(self, const char** data, size_t* size, char* into, size_t room, size_t* made) noexcept
    cdef Inflated end_inflating(self) noexcept  # a message is whole, its last four bytes included
    cdef int relax(self) except -1            # nothing is being said: gives up the streams, keeps what must be known

    cdef Inflated _open_inflater(self) noexcept
    cdef Inflated _reopen_inflater(self) noexcept
