"""permessage-deflate (RFC 7692) of one websocket: two zlib streams that exist while they are needed. Knows bytes; no frames.

zlib is the one that the interpreter's own module `zlib` works with, found in memory, or else the system's: building needs neither
headers nor a library to link, and wheels carry none. Streams made by one copy are only ever used with that copy, so unlike with
OpenSSL it does not matter which one it is. Where none can be found websockets work without compression (`missing` says why).

An idle websocket has no streams. Ours can be dropped at any time: a fresh one refers to nothing that the peer does not know. The
peer may go on referring to what it has sent, so of the decompressor its window stays, as far as it was filled.
"""

import zlib as _zlib_module

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from duckfast._debug cimport ALIVE_STREAM, DUCKFAST_DEBUG, count_alive
from duckfast._writer cimport Buffer, append, reserve

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <limits.h>
    #include <stdlib.h>
    #include <sys/mman.h>

    /* result, name, arguments: every function that must be there */
    #define DF_ZLIB_FUNCTIONS(F) \\
        F(int, deflateInit2_, (df_zstream *, int level, int method, int bits, int memory, int strategy, const char *version, int size)) \\
        F(int, deflate, (df_zstream *, int flush)) \\
        F(int, deflateReset, (df_zstream *)) \\
        F(int, deflateEnd, (df_zstream *)) \\
        F(int, inflateInit2_, (df_zstream *, int bits, const char *version, int size)) \\
        F(int, inflate, (df_zstream *, int flush)) \\
        F(int, inflateReset, (df_zstream *)) \\
        F(int, inflateEnd, (df_zstream *)) \\
        F(int, inflateSetDictionary, (df_zstream *, const unsigned char *, unsigned int)) \\
        F(int, inflateGetDictionary, (df_zstream *, unsigned char *, unsigned int *)) \\
        F(const char *, zlibVersion, (void))

    #define DF_ZLIB_DECLARE(result, name, arguments) result (*name) arguments;
    static struct { DF_ZLIB_FUNCTIONS(DF_ZLIB_DECLARE) } df_zlib;

    static int df_zlib_from(void *library) {
        if (!library) return 0;
    #define DF_ZLIB_FIND(result, name, arguments) \\
        if (!(df_zlib.name = (result (*) arguments)dlsym(library, #name))) return 0;
        DF_ZLIB_FUNCTIONS(DF_ZLIB_FIND)
        return df_zlib.zlibVersion()[0] == '1';
    }
    /* What the module zlib is linked with; what the interpreter itself holds; what the system has. */
    static const char *df_zlib_load(const char *module) {
        static const char *const names[] = {"libz.so.1", "libz.so", "libz.1.dylib", "/usr/lib/libz.1.dylib", NULL};
        int index;
        if (module && df_zlib_from(dlopen(module, RTLD_LAZY | RTLD_LOCAL))) return "";
        if (df_zlib_from(dlopen(NULL, RTLD_LAZY))) return "";
        for (index = 0; names[index]; index++)
            if (df_zlib_from(dlopen(names[index], RTLD_LAZY | RTLD_LOCAL))) return "";
        return "no zlib was found, neither behind Python's module nor as a library of the system";
    }

    enum { DF_SYNC_FLUSH = 2, DF_NO_FLUSH = 0, DF_STREAM_END = 1, DF_BUF_ERROR = -5, DF_MEM_ERROR = -4, DF_DEFLATED = 8, DF_HUFFMAN_ONLY = 2 };

    /* A stream and all that zlib wants for it, in a mapping of its own. Of a heap that thousands of streams have grown the
       system gets nothing back when they are freed, for something small stays between them; a mapping goes whole. */
    typedef struct {
        df_zstream stream;
        size_t used;
        size_t size;    /* of the mapping; 0: there is none, all comes from the heap */
    } df_room;

    #define DF_ALIGNED(size) (((size_t)(size) + 63) & ~(size_t)63)

    static void *df_allocate(void *opaque, unsigned int items, unsigned int size) {
        df_room *room = opaque;
        size_t needed = DF_ALIGNED((size_t)items * size);
        if (room->used + needed > room->size) return malloc(needed);   /* other makes of zlib want more */
        room->used += needed;
        return (char *)room + room->used - needed;
    }
    static void df_release(void *opaque, void *memory) {
        df_room *room = opaque;
        if ((char *)memory < (char *)room || (char *)memory >= (char *)room + room->size) free(memory);
    }
    static df_zstream *df_new_stream(size_t size) {
        df_room *room = MAP_FAILED;
    #ifndef __SANITIZE_ADDRESS__   /* which watches the heap's blocks one by one */
        room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    #endif
        if (room == MAP_FAILED) {   /* a process may have 65,530 of them on Linux */
            size = 0;
            room = calloc(1, sizeof *room);
            if (!room) return NULL;
        }
    #ifdef MADV_NOHUGEPAGE
        if (size) madvise(room, size, MADV_NOHUGEPAGE);   /* a part of a huge page does not go back */
    #endif
        room->size = size;
        room->used = DF_ALIGNED(sizeof *room);
        room->stream.opaque = room;
        room->stream.zalloc = df_allocate;
        room->stream.zfree = df_release;
        return &room->stream;
    }
    static void df_drop_stream(df_zstream *stream) {
        df_room *room = (df_room *)stream;
        if (room->size) munmap(room, room->size);
        else free(room);
    }

    enum { DF_STATE = 8192 };   /* bytes: what zlib keeps beside its tables, and df_room */

    static df_zstream *df_open_deflater(int level, int bits) {
        /* zlib makes no raw window of 8 bits. Without a search for repetitions there is nothing that could refer too far back. */
        int window = bits < 9 ? 9 : bits;
        /* Symbols of a block, and chains of its search: with fewer, making trees for the blocks costs more than all else. */
        int memory = bits < 11 ? 4 : bits > 13 ? 8 : bits - 6;
        df_zstream *stream = df_new_stream(((size_t)1 << (window + 2)) + ((size_t)1 << (memory + 9)) + DF_STATE);   /* zconf.h */
        if (stream && df_zlib.deflateInit2_(stream, level, DF_DEFLATED, -window, memory, bits < 9 ? DF_HUFFMAN_ONLY : 0,
                                            "1", (int)sizeof *stream)) {
            df_drop_stream(stream);
            stream = NULL;
        }
        return stream;
    }
    static df_zstream *df_open_inflater(int bits) {
        int window = bits < 9 ? 9 : bits;   /* a larger one does no harm */
        df_zstream *stream = df_new_stream(((size_t)1 << window) + DF_STATE);
        if (stream && df_zlib.inflateInit2_(stream, -window, "1", (int)sizeof *stream)) {
            df_drop_stream(stream);
            stream = NULL;
        }
        return stream;
    }

    /* One stream of each kind and size waits for the next connection that needs one: making one clears tens of kilobytes. */
    static df_zstream *df_spare_deflaters[16], *df_spare_inflaters[16];
    static df_zstream *df_swap(df_zstream **slot, df_zstream *stream) { return __atomic_exchange_n(slot, stream, __ATOMIC_ACQ_REL); }
    """
    struct _Zlib "df_zlib":
        pass
    const char* df_zlib_load(const char* module)
    int DF_SYNC_FLUSH, DF_NO_FLUSH, DF_STREAM_END, DF_BUF_ERROR, DF_MEM_ERROR
    df_zstream* df_open_deflater(int level, int bits) noexcept nogil
    df_zstream* df_open_inflater(int bits) noexcept nogil
    void df_drop_stream(df_zstream* stream) noexcept nogil
    int z_deflate "df_zlib.deflate"(df_zstream* stream, int flush) noexcept nogil
    int z_deflate_reset "df_zlib.deflateReset"(df_zstream* stream) noexcept nogil
    int z_deflate_end "df_zlib.deflateEnd"(df_zstream* stream) noexcept nogil
    int z_inflate "df_zlib.inflate"(df_zstream* stream, int flush) noexcept nogil
    int z_inflate_reset "df_zlib.inflateReset"(df_zstream* stream) noexcept nogil
    int z_inflate_end "df_zlib.inflateEnd"(df_zstream* stream) noexcept nogil
    int z_set_dictionary "df_zlib.inflateSetDictionary"(df_zstream* stream, const unsigned char* data, unsigned int size) noexcept nogil
    int z_get_dictionary "df_zlib.inflateGetDictionary"(df_zstream* stream, unsigned char* data, unsigned int* size) noexcept nogil
    df_zstream* df_swap(df_zstream** slot, df_zstream* stream) noexcept nogil
    df_zstream* df_spare_deflaters[16]
    df_zstream* df_spare_inflaters[16]
    unsigned int UINT_MAX

cdef enum:
    LEVEL = 1             # nginx's gzip_comp_level: three times as fast as zlib's own 6 for a tenth more bytes
    WORTHWHILE = 1024     # bytes from which a message is compressed: ws (Node.js) has 1024; less is one packet either way
    LONGEST_REST = 64     # messages that are not tried after others did not become smaller
    LARGEST_WINDOW = 32768


cdef str _load():
    module = getattr(_zlib_module, "__file__", None)
    cdef bytes name
    if module is None:
        return (<bytes>df_zlib_load(NULL)).decode("ascii")
    name = module.encode()
    return (<bytes>df_zlib_load(name)).decode("ascii")


missing = _load()


cdef df_zstream* _take_deflater(int bits) noexcept nogil:
    cdef df_zstream* stream = df_swap(&df_spare_deflaters[bits], NULL)
    if stream == NULL:
        stream = df_open_deflater(LEVEL, bits)
    if DUCKFAST_DEBUG and stream != NULL:
        count_alive(ALIVE_STREAM, 1)
    return stream


cdef void _give_deflater(df_zstream* stream, int bits) noexcept nogil:
    if DUCKFAST_DEBUG:
        count_alive(ALIVE_STREAM, -1)
    z_deflate_reset(stream)
    stream = df_swap(&df_spare_deflaters[bits], stream)
    if stream != NULL:
        z_deflate_end(stream)
        df_drop_stream(stream)


cdef df_zstream* _take_inflater(int bits) noexcept nogil:
    cdef df_zstream* stream = df_swap(&df_spare_inflaters[bits], NULL)
    if stream == NULL:
        stream = df_open_inflater(bits)
    if DUCKFAST_DEBUG and stream != NULL:
        count_alive(ALIVE_STREAM, 1)
    return stream


cdef void _give_inflater(df_zstream* stream, int bits) noexcept nogil:
    if DUCKFAST_DEBUG:
        count_alive(ALIVE_STREAM, -1)
    z_inflate_reset(stream)
    stream = df_swap(&df_spare_inflaters[bits], stream)
    if stream != NULL:
        z_inflate_end(stream)
        df_drop_stream(stream)


cdef class Compression:
    """What was agreed in a handshake, and the streams while they are needed."""

    def __init__(self, int out_bits=15, int in_bits=15, bint out_takeover=True, bint in_takeover=True):
        if missing:
            raise RuntimeError(missing)
        if not 8 <= out_bits <= 15 or not 8 <= in_bits <= 15:
            raise ValueError("a window has 8 to 15 bits")   # RFC 7692 7.1.2
        self.out_bits = out_bits
        self.in_bits = in_bits
        self.out_takeover = out_takeover
        self.in_takeover = in_takeover

    def __dealloc__(self):
        if self._deflater != NULL:
            _give_deflater(self._deflater, self.out_bits)
        if self._inflater != NULL:
            _give_inflater(self._inflater, self.in_bits)
        free(self._history)

    cdef bint is_worthwhile(self, size_t size) noexcept:
        if size < WORTHWHILE:
            return False
        if self._resting:
            self._resting -= 1
            return False
        return True

    cdef int compress(self, Buffer* out, const char* data, size_t size) except -1:
        cdef df_zstream* stream
        cdef size_t first = out.size
        cdef size_t left = size
        cdef unsigned int piece, room
        if size == 0:
            if append(out, b"\x00", 1) < 0:   # RFC 7692 7.2.3.6: zlib flushes nothing twice
                raise MemoryError
            return 0
        if self._deflater == NULL:
            self._deflater = _take_deflater(self.out_bits)
            if self._deflater == NULL:
                raise MemoryError
        stream = self._deflater
        while True:
            piece = <unsigned int>min(left, <size_t>UINT_MAX // 2)
            stream.next_in = <const unsigned char*>data
            stream.avail_in = piece
            data += piece
            left -= piece
            while True:
                if reserve(out, max(<size_t>256, <size_t>stream.avail_in // 4)) < 0:
                    raise MemoryError
                room = <unsigned int>min(out.capacity - out.size, <size_t>UINT_MAX)
                stream.next_out = <unsigned char*>out.data + out.size
                stream.avail_out = room
                z_deflate(stream, DF_NO_FLUSH if left else DF_SYNC_FLUSH)
                out.size += room - stream.avail_out
                if stream.avail_out != 0:
                    break
            if left == 0:
                break
        out.size -= 4   # RFC 7692 7.2.1: the empty block's 00 00 ff ff stays here
        if out.size - first > size - size // 8:
            # Pictures, archives, ciphertext: what follows is probably more of it.
            self._futile = min(self._futile + 1, 6)
            self._resting = min(1 << self._futile, <int>LONGEST_REST)
        else:
            self._futile = 0
        if not self.out_takeover:
            _give_deflater(self._deflater, self.out_bits)
            self._deflater = NULL
        return 0

    cdef Inflated _open_inflater(self) noexcept:
        cdef int result
        self._inflater = _take_inflater(self.in_bits)
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
            result = z_inflate(stream, DF_SYNC_FLUSH)
            piece -= stream.avail_in
            data[0] += piece
            size[0] -= piece
            made[0] = space - stream.avail_out
            if result == DF_STREAM_END:
                opened = self._reopen_inflater()
                if opened != INFLATE_OK:
                    return opened
            elif result == DF_MEM_ERROR:
                return INFLATE_NO_MEMORY
            elif result != 0 and result != DF_BUF_ERROR:
                return INFLATE_BROKEN
            elif result == DF_BUF_ERROR and piece == 0:
                break
            if size[0] == 0:
                break
        return INFLATE_OK

    cdef Inflated end_inflating(self) noexcept:
        # zlib.h on inflate(): 128 right behind a block, 64 for a last one, and the bits of a byte that are not used yet.
        if self._inflater == NULL or self._inflater.data_type & ~64 != 128:
            return INFLATE_BROKEN
        if not self.in_takeover and self._inflater != NULL:
            _give_inflater(self._inflater, self.in_bits)
            self._inflater = NULL
        return INFLATE_OK

    cdef int relax(self) except -1:
        cdef unsigned char window[LARGEST_WINDOW]
        cdef unsigned int size = 0
        if self._deflater != NULL:
            _give_deflater(self._deflater, self.out_bits)
            self._deflater = NULL
        if self._inflater != NULL:
            z_get_dictionary(self._inflater, window, &size)
            if size:
                self._history = <char*>malloc(size)
                if self._history == NULL:
                    raise MemoryError
                memcpy(self._history, window, size)
                self._history_size = size
            _give_inflater(self._inflater, self.in_bits)
            self._inflater = NULL
        return 0

    # --- for tests

    def streams(self) -> tuple[bool, bool, int]:
        """Whether there is a compressor now, and a decompressor, and the bytes of history kept in place of the latter."""
        return self._deflater != NULL, self._inflater != NULL, self._history_size if self._history != NULL else 0

    def rest(self) -> None:
        """Gives up what is not needed while nothing is said."""
        self.relax()
