"""permessage-deflate (RFC 7692) of one websocket: what was agreed, and its streams while they are needed. Knows bytes; no frames.

An idle websocket has no streams. Ours can be dropped at any time: a fresh one refers to nothing that the peer does not know. The
peer may go on referring to what it has sent, so of the decompressor its window stays, as far as it was filled.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from duckfast._writer cimport Buffer, append, reserve
from duckfast._zlib cimport (
    NOBODY,
    Z_BUF_ERROR,
    Z_MEM_ERROR,
    Z_NO_FLUSH,
    Z_STREAM_END,
    Z_SYNC_FLUSH,
    Deflater,
    df_zstream,
    forget_deflater,
    give_inflater,
    new_owner,
    owns_deflater,
    release_deflater,
    take_deflater,
    take_inflater,
    z_deflate,
    z_get_dictionary,
    z_inflate,
    z_inflate_reset,
    z_set_dictionary,
)

from duckfast import _zlib

cdef extern from "<limits.h>" nogil:
    unsigned int UINT_MAX

cdef enum:
    WORTHWHILE = 1024     # bytes from which a message is compressed: ws (Node.js) has 1024; less is one packet either way
    ALONE = 8             # windows that a message is long from which on it is compressed without what was before, which cannot help it much
    LONGEST_REST = 64     # messages that are not tried after others did not become smaller
    LARGEST_WINDOW = 32768


cdef int _deflate(Buffer* out, df_zstream* stream, const char* data, size_t size) noexcept:
    """Appends all of it, flushed. -1: no memory."""
    cdef size_t left = size
    cdef unsigned int piece, room
    while True:
        piece = <unsigned int>min(left, <size_t>UINT_MAX // 2)
        stream.next_in = <const unsigned char*>data
        stream.avail_in = piece
        data += piece
        left -= piece
        while True:
            if reserve(out, max(<size_t>256, <size_t>stream.avail_in // 4)) < 0:
                return -1
            room = <unsigned int>min(out.capacity - out.size, <size_t>UINT_MAX)
            stream.next_out = <unsigned char*>out.data + out.size
            stream.avail_out = room
            z_deflate(stream, Z_NO_FLUSH if left else Z_SYNC_FLUSH)
            out.size += room - stream.avail_out
            if stream.avail_out != 0:
                break
        if left == 0:
            return 0


cdef class Compression:
    """What was agreed in a handshake, and the streams while they are needed."""

    def __init__(self, int out_bits=15, int in_bits=15, bint out_takeover=True, bint in_takeover=True):
        if _zlib.missing:
            raise RuntimeError(_zlib.missing)
        if not 8 <= out_bits <= 15 or not 8 <= in_bits <= 15:
            raise ValueError("a window has 8 to 15 bits")   # RFC 7692 7.1.2
        self.out_bits = out_bits
        self.in_bits = in_bits
        self.out_takeover = out_takeover
        self.in_takeover = in_takeover
        self._owner = new_owner()

    def __dealloc__(self):
        self._forget_deflater()
        if self._inflater != NULL:
            give_inflater(self._inflater, self.in_bits)
        free(self._history)

    cdef bint is_worthwhile(self, size_t size) noexcept:
        if size < WORTHWHILE:
            return False
        if self._resting:
            self._resting -= 1
            return False
        return True

    cdef int compress(self, Buffer* out, const char* data, size_t size) except -1:
        cdef size_t first = out.size
        cdef bint alone = not self.out_takeover or size >= <size_t>ALONE << self.out_bits
        cdef Deflater* deflater
        cdef int failed
        if size == 0:
            if append(out, b"\x00", 1) < 0:   # RFC 7692 7.2.3.6: zlib flushes nothing twice
                raise MemoryError
            return 0
        if alone:
            self._forget_deflater()   # what it has seen is no longer what the peer saw last
        deflater = take_deflater(NOBODY if alone else self._owner, self.out_bits, self._deflater)
        if deflater == NULL:
            raise MemoryError
        failed = _deflate(out, deflater.stream, data, size)
        release_deflater(deflater)
        if not alone:
            self._deflater = deflater
        if failed:
            self._forget_deflater()
            raise MemoryError
        out.size -= 4   # RFC 7692 7.2.1: the empty block's 00 00 ff ff stays here
        if out.size - first > size - size // 8:
            # Pictures, archives, ciphertext: what follows is probably more of it.
            self._futile = min(self._futile + 1, 6)
            self._resting = min(1 << self._futile, <int>LONGEST_REST)
        else:
            self._futile = 0
        return 0

    cdef void _forget_deflater(self) noexcept:
        forget_deflater(self._owner, self._deflater)
        self._deflater = NULL

    cdef Inflated _open_inflater(self) noexcept:
        cdef int result
        self._inflater = take_inflater(self.in_bits)
        if self._inflater == NULL:
            return INFLATE_NO_MEMORY
        if self._history != NULL:
            result = z_set_dictionary(self._inflater, <const unsigned char*>self._history, self._history_size)
            free(self._history)
            self._history = NULL
            if result != 0:
                return INFLATE_NO_MEMORY
        return INFLATE_OK

    cdef Inflated _reopen_inflater(self) noexcept:
        """Behind a last block of a stream: the next one may still refer to what was before (RFC 7692 7.2.3.4)."""
        cdef unsigned char window[LARGEST_WINDOW]
        cdef unsigned int size = 0
        z_get_dictionary(self._inflater, window, &size)
        z_inflate_reset(self._inflater)
        if size and z_set_dictionary(self._inflater, window, size) != 0:
            return INFLATE_NO_MEMORY
        return INFLATE_OK

    cdef Inflated inflate(self, const char** data, size_t* size, char* into, size_t room, size_t* made) noexcept:
        cdef df_zstream* stream
        cdef Inflated opened
        cdef int result
        cdef unsigned int piece
        cdef unsigned int space = <unsigned int>min(room, <size_t>UINT_MAX)
        made[0] = 0
        if self._inflater == NULL:
            opened = self._open_inflater()
            if opened != INFLATE_OK:
                return opened
        stream = self._inflater
        stream.next_out = <unsigned char*>into
        stream.avail_out = space
        while stream.avail_out != 0:
            piece = <unsigned int>min(size[0], <size_t>UINT_MAX)
            stream.next_in = <const unsigned char*>data[0]
            stream.avail_in = piece
            result = z_inflate(stream, Z_SYNC_FLUSH)
            piece -= stream.avail_in
            data[0] += piece
            size[0] -= piece
            made[0] = space - stream.avail_out
            if result == Z_STREAM_END:
                opened = self._reopen_inflater()
                if opened != INFLATE_OK:
                    return opened
            elif result == Z_MEM_ERROR:
                return INFLATE_NO_MEMORY
            elif result != 0 and result != Z_BUF_ERROR:
                return INFLATE_BROKEN
            elif result == Z_BUF_ERROR and piece == 0:
                break
            if size[0] == 0:
                break
        return INFLATE_OK

    cdef Inflated end_inflating(self) noexcept:
        # zlib.h on inflate(): 128 right behind a block, 64 for a last one, and the bits of a byte that are not used yet.
        if self._inflater == NULL or self._inflater.data_type & ~64 != 128:
            return INFLATE_BROKEN
        if not self.in_takeover and self._inflater != NULL:
            give_inflater(self._inflater, self.in_bits)
            self._inflater = NULL
        return INFLATE_OK

    cdef int relax(self) except -1:
        cdef unsigned char window[LARGEST_WINDOW]
        cdef unsigned int size = 0
        self._forget_deflater()
        if self._inflater != NULL:
            z_get_dictionary(self._inflater, window, &size)
            if size:
                self._history = <char*>malloc(size)
                if self._history == NULL:
                    raise MemoryError
                memcpy(self._history, window, size)
                self._history_size = size
            give_inflater(self._inflater, self.in_bits)
            self._inflater = NULL
        return 0

    # --- for tests

    def streams(self) -> tuple[bool, bool, int]:
        """Whether there is a compressor now, and a decompressor, and the bytes of history kept in place of the latter."""
        return owns_deflater(self._owner, self._deflater), self._inflater != NULL, self._history_size if self._history != NULL else 0

    def rest(self) -> None:
        """Gives up what is not needed while nothing is said."""
        self.relax()
