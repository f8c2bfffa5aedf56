"""The zlib that was found, and its streams. Knows bytes; neither websockets nor frames.

zlib-ng takes two thirds of the time, so a dependency brings it: the package `zlib-ng`, whose compiled module exports what it is made
of. Without it, it is the zlib that the interpreter's own module `zlib` works with, found in memory, or else the system's: building needs
neither headers nor a library to link, and wheels carry none. Streams made by one copy are only ever used with that copy, so unlike
with OpenSSL it does not matter which one it is. Where none can be found nothing is compressed (`missing` says why).

A compressor is the larger part of what a websocket would hold, and the one that it can be without: a fresh one refers to nothing that
the peer does not know. So there are no more than DEFLATERS of them, whatever the number of websockets. Those that send in turn keep
theirs with its history; when there are more of them, they begin anew.
"""

import zlib as _zlib_module
from importlib.util import find_spec

from libc.stdint cimport uint64_t

from duckfast._debug cimport ALIVE_STREAM, DUCKFAST_DEBUG, count_alive

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <stddef.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
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
        F(int, inflateGetDictionary, (df_zstream *, unsigned char *, unsigned int *))

    #define DF_ZLIB_DECLARE(result, name, arguments) result (*name) arguments;
    static struct {
        DF_ZLIB_FUNCTIONS(DF_ZLIB_DECLARE)
        const char *version;
        int size;     /* bytes that it takes a stream to have: it refuses to work if they are others */
        int is_ng;
    } df_zlib;

    static int df_zlib_from(void *library, const char *prefix, const char *version_name) {
        const char *(*version)(void);
        char symbol[64];
        if (!library) return 0;
    #define DF_ZLIB_FIND(result, name, arguments) \\
        snprintf(symbol, sizeof symbol, "%s%s", prefix, #name); \\
        if (!(df_zlib.name = (result (*) arguments)dlsym(library, symbol))) return 0;
        DF_ZLIB_FUNCTIONS(DF_ZLIB_FIND)
        if (!(version = (const char *(*)(void))dlsym(library, version_name))) return 0;
        df_zlib.version = version();
        df_zlib.size = *prefix ? (int)(offsetof(df_zstream, data_type) + 8 + sizeof(unsigned long)) : (int)sizeof(df_zstream);
        df_zlib.is_ng = *prefix || strstr(df_zlib.version, "zlib-ng");   /* which can be built under the names of zlib */
        return df_zlib.version[0] == (*prefix ? '2' : '1');
    }
    /* What the package zlib-ng is made of; what the module zlib is linked with; what the interpreter holds; what the system has. */
    static const char *df_zlib_load(const char *ng_module, const char *module) {
        static const char *const names[] = {"libz.so.1", "libz.so", "libz.1.dylib", "/usr/lib/libz.1.dylib", NULL};
        int index;
        if (ng_module && df_zlib_from(dlopen(ng_module, RTLD_LAZY | RTLD_LOCAL), "zng_", "zlibng_version")) return "";
        if (module && df_zlib_from(dlopen(module, RTLD_LAZY | RTLD_LOCAL), "", "zlibVersion")) return "";
        if (df_zlib_from(dlopen(NULL, RTLD_LAZY), "", "zlibVersion")) return "";
        for (index = 0; names[index]; index++)
            if (df_zlib_from(dlopen(names[index], RTLD_LAZY | RTLD_LOCAL), "", "zlibVersion")) return "";
        return "no zlib was found, neither behind Python's module nor as a library of the system";
    }

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

    enum {
        DF_DEFLATED = 8, DF_HUFFMAN_ONLY = 2,   /* zlib.h */
        DF_STATE = 8192,        /* bytes: what zlib keeps beside its tables, and df_room */
        DF_NG_STATE = 24576     /* likewise, with what zlib-ng leaves unused to align its tables */
    };

    static df_zstream *df_open_deflater(int bits) {
        /* zlib makes no raw window of 8 bits. Without a search for repetitions there is nothing that could refer too far back. */
        int window = bits < 9 ? 9 : bits;
        /* Symbols of a block: with fewer, making trees for the blocks costs more than all else. Chains of the search, too, in zlib;
           zlib-ng always has 65,536 of these, and what is not used of its symbols never becomes a page. */
        int memory = df_zlib.is_ng ? 9 : bits < 11 ? 4 : bits > 13 ? 8 : bits - 6;
        /* nginx's gzip_comp_level is 1: three times as fast as zlib's own 6 for a tenth more bytes. zlib-ng's 2 takes less time than
           that for fewer bytes; its 1 does without trees of its own. */
        int level = df_zlib.is_ng ? 2 : 1;
        size_t chains = df_zlib.is_ng ? ((size_t)5 << (memory + 6)) + 131072 + DF_NG_STATE : ((size_t)1 << (memory + 9)) + DF_STATE;
        df_zstream *stream = df_new_stream(((size_t)1 << (window + 2)) + chains);   /* zconf.h */
        if (stream && df_zlib.deflateInit2_(stream, level, DF_DEFLATED, -window, memory, bits < 9 ? DF_HUFFMAN_ONLY : 0,
                                            df_zlib.version, df_zlib.size)) {
            df_drop_stream(stream);
            stream = NULL;
        }
        return stream;
    }
    static df_zstream *df_open_inflater(int bits) {
        int window = bits < 9 ? 9 : bits;   /* a larger one does no harm */
        df_zstream *stream = df_new_stream(df_zlib.is_ng ? 32768 + DF_NG_STATE : ((size_t)1 << window) + DF_STATE);
        if (stream && df_zlib.inflateInit2_(stream, -window, df_zlib.version, df_zlib.size)) {
            df_drop_stream(stream);
            stream = NULL;
        }
        return stream;
    }

    static df_zstream *df_swap(df_zstream **slot, df_zstream *stream) { return __atomic_exchange_n(slot, stream, __ATOMIC_ACQ_REL); }
    static char df_lock(char *busy) { return !__atomic_test_and_set(busy, __ATOMIC_ACQUIRE); }   /* 1: it is ours now */
    static void df_unlock(char *busy) { __atomic_clear(busy, __ATOMIC_RELEASE); }
    static uint64_t df_read(uint64_t *number) { return __atomic_load_n(number, __ATOMIC_RELAXED); }
    static void df_write(uint64_t *number, uint64_t value) { __atomic_store_n(number, value, __ATOMIC_RELAXED); }
    static uint64_t df_next(uint64_t *number) { return __atomic_add_fetch(number, 1, __ATOMIC_RELAXED); }
    """
    const char* df_version "df_zlib.version"
    bint df_is_ng "df_zlib.is_ng"
    const char* df_zlib_load(const char* ng_module, const char* module)
    df_zstream* df_open_deflater(int bits) noexcept nogil
    df_zstream* df_open_inflater(int bits) noexcept nogil
    void df_drop_stream(df_zstream* stream) noexcept nogil
    int df_deflate "df_zlib.deflate"(df_zstream* stream, int flush) noexcept nogil
    int df_deflate_reset "df_zlib.deflateReset"(df_zstream* stream) noexcept nogil
    int df_deflate_end "df_zlib.deflateEnd"(df_zstream* stream) noexcept nogil
    int df_inflate "df_zlib.inflate"(df_zstream* stream, int flush) noexcept nogil
    int df_inflate_reset "df_zlib.inflateReset"(df_zstream* stream) noexcept nogil
    int df_inflate_end "df_zlib.inflateEnd"(df_zstream* stream) noexcept nogil
    int df_set_dictionary "df_zlib.inflateSetDictionary"(df_zstream* stream, const unsigned char* data, unsigned int size) noexcept nogil
    int df_get_dictionary "df_zlib.inflateGetDictionary"(df_zstream* stream, unsigned char* data, unsigned int* size) noexcept nogil
    df_zstream* df_swap(df_zstream** slot, df_zstream* stream) noexcept nogil
    bint df_lock(char* busy) noexcept nogil
    void df_unlock(char* busy) noexcept nogil
    uint64_t df_read(uint64_t* number) noexcept nogil
    void df_write(uint64_t* number, uint64_t value) noexcept nogil
    uint64_t df_next(uint64_t* number) noexcept nogil

cdef enum:
    DEFLATERS = 128
    KEPT = 2              # of them keep their memory when nobody needs them: making one clears more than a hundred kilobytes
    LARGEST_BITS = 15

cdef Deflater deflaters[DEFLATERS]   # the first is for those who want no history
cdef uint64_t owners                 # how many there have been
cdef uint64_t turn                   # moves on with every deflater that is taken from another owner
cdef df_zstream* spare_inflaters[LARGEST_BITS + 1]   # one of each size waits for the next who needs one


cdef str _load():
    cdef bytes ng_module = b"", module = b""
    try:
        found = find_spec("zlib_ng.zlib_ng")
    except ImportError:   # its package is not there
        found = None
    if found is not None and found.origin is not None:
        ng_module = found.origin.encode()
    if getattr(_zlib_module, "__file__", None) is not None:
        module = _zlib_module.__file__.encode()
    return (<bytes>df_zlib_load(<const char*>ng_module if ng_module else NULL, <const char*>module if module else NULL)).decode("ascii")


missing = _load()
library = "" if missing else f"{'zlib-ng' if df_is_ng else 'zlib'} {(<bytes>df_version).decode('ascii')}"


cdef int z_deflate(df_zstream* stream, int flush) noexcept nogil:
    return df_deflate(stream, flush)


cdef int z_inflate(df_zstream* stream, int flush) noexcept nogil:
    return df_inflate(stream, flush)


cdef int z_inflate_reset(df_zstream* stream) noexcept nogil:
    return df_inflate_reset(stream)


cdef int z_set_dictionary(df_zstream* stream, const unsigned char* data, unsigned int size) noexcept nogil:
    return df_set_dictionary(stream, data, size)


cdef int z_get_dictionary(df_zstream* stream, unsigned char* data, unsigned int* size) noexcept nogil:
    return df_get_dictionary(stream, data, size)


# Compressors --------------------------------------------------------------------------------------------------------


cdef uint64_t new_owner() noexcept nogil:
    return df_next(&owners)


cdef bint owns_deflater(uint64_t owner, Deflater* deflater) noexcept nogil:
    return deflater != NULL and df_read(&deflater.owner) == owner


cdef void _set_owner(Deflater* deflater, uint64_t owner) noexcept nogil:
    if DUCKFAST_DEBUG:
        count_alive(ALIVE_STREAM, (owner != NOBODY) - (deflater.owner != NOBODY))
    df_write(&deflater.owner, owner)


cdef void _drop_stream(Deflater* deflater) noexcept nogil:
    if deflater.stream != NULL:
        df_deflate_end(deflater.stream)
        df_drop_stream(deflater.stream)
        deflater.stream = NULL


cdef Deflater* _lock_any(unsigned int first) noexcept nogil:
    """From the `first` on: one that nobody owns, or else the one whose turn it is to begin anew. It is the caller's then."""
    cdef unsigned int step
    cdef unsigned int count = DEFLATERS - first
    cdef unsigned int start
    cdef Deflater* deflater
    for step in range(count):
        deflater = &deflaters[first + step]
        if df_read(&deflater.owner) == NOBODY and df_lock(&deflater.busy):
            return deflater
    while True:   # until one is free: each is held for one message
        start = <unsigned int>(df_next(&turn) % count)
        for step in range(count):
            deflater = &deflaters[first + (start + step) % count]
            if df_lock(&deflater.busy):
                return deflater


cdef Deflater* take_deflater(uint64_t owner, int bits, Deflater* last) noexcept nogil:
    cdef Deflater* deflater
    if owner != NOBODY and owns_deflater(owner, last) and df_lock(&last.busy):
        if owns_deflater(owner, last):   # not taken by another thread just now
            return last
        df_unlock(&last.busy)
    deflater = _lock_any(0 if owner == NOBODY else 1)
    if deflater.stream != NULL and deflater.bits != bits:
        _drop_stream(deflater)
    if deflater.stream != NULL:
        df_deflate_reset(deflater.stream)
    else:
        deflater.stream = df_open_deflater(bits)
        deflater.bits = bits
        if deflater.stream == NULL:
            _set_owner(deflater, NOBODY)
            df_unlock(&deflater.busy)
            return NULL
    _set_owner(deflater, owner)
    return deflater


cdef void release_deflater(Deflater* deflater) noexcept nogil:
    df_unlock(&deflater.busy)


cdef void forget_deflater(uint64_t owner, Deflater* deflater) noexcept nogil:
    if not owns_deflater(owner, deflater) or not df_lock(&deflater.busy):
        return   # another has it, or is about to
    if owns_deflater(owner, deflater):
        _set_owner(deflater, NOBODY)
        if deflater >= &deflaters[KEPT]:
            _drop_stream(deflater)
    df_unlock(&deflater.busy)


# Decompressors ------------------------------------------------------------------------------------------------------


cdef df_zstream* take_inflater(int bits) noexcept nogil:
    cdef df_zstream* stream = df_swap(&spare_inflaters[bits], NULL)
    if stream == NULL:
        stream = df_open_inflater(bits)
    if DUCKFAST_DEBUG and stream != NULL:
        count_alive(ALIVE_STREAM, 1)
    return stream


cdef void give_inflater(df_zstream* stream, int bits) noexcept nogil:
    if DUCKFAST_DEBUG:
        count_alive(ALIVE_STREAM, -1)
    df_inflate_reset(stream)
    stream = df_swap(&spare_inflaters[bits], stream)
    if stream != NULL:
        df_inflate_end(stream)
        df_drop_stream(stream)
