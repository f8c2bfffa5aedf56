# permessage-deflate (RFC 7692) of one websocket: its streams and what becomes of them while nothing is said.
from libc.stdint cimport uint8_t, uint64_t

from duckfast._writer cimport Buffer
from duckfast._zlib cimport Deflater, df_zstream


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
    cdef uint64_t _owner
    cdef Deflater* _deflater            # what compressed the last message; another may have taken it since. NULL: none did
    cdef df_zstream* _inflater          # owned; NULL: none is needed now
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

    cdef void _forget_deflater(self) noexcept
    cdef Inflated _open_inflater(self) noexcept
    cdef Inflated _reopen_inflater(self) noexcept
