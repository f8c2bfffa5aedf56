# The zlib that was found, and its streams. Compressors are a few for all websockets: who comes back finds its history or a fresh one.
from libc.stdint cimport uint64_t


cdef extern from *:
    """
    #ifndef DUCKFAST_ZLIB
    #define DUCKFAST_ZLIB
    /* zlib.h, z_stream: frozen by its ABI. zng_stream of zlib-ng.h is the same up to data_type, and shorter behind it.
       Declared here because headers need not be there. */
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


cdef enum:  # zlib.h
    Z_NO_FLUSH = 0
    Z_SYNC_FLUSH = 2
    Z_STREAM_END = 1
    Z_MEM_ERROR = -4
    Z_BUF_ERROR = -5
    NOBODY = 0          # an owner


cdef struct Deflater:
    df_zstream* stream  # NULL: not made yet, or given up
    uint64_t owner      # whose messages it has seen; NOBODY: they are of no use
    int bits            # its window
    char busy           # a thread works with it


cdef int z_deflate(df_zstream* stream, int flush) noexcept nogil
cdef int z_inflate(df_zstream* stream, int flush) noexcept nogil
cdef int z_inflate_reset(df_zstream* stream) noexcept nogil
cdef int z_set_dictionary(df_zstream* stream, const unsigned char* data, unsigned int size) noexcept nogil
cdef int z_get_dictionary(df_zstream* stream, unsigned char* data, unsigned int* size) noexcept nogil

cdef uint64_t new_owner() noexcept nogil
# One that is the caller's until release_deflater(). last: what `owner` had before, or NULL; if it has seen nobody else's messages since,
# it is that one with its history, else one without. For NOBODY always without. NULL: no memory.
cdef Deflater* take_deflater(uint64_t owner, int bits, Deflater* last) noexcept nogil
cdef void release_deflater(Deflater* deflater) noexcept nogil
cdef bint owns_deflater(uint64_t owner, Deflater* deflater) noexcept nogil
cdef void forget_deflater(uint64_t owner, Deflater* deflater) noexcept nogil    # its history is not wanted any more

cdef df_zstream* take_inflater(int bits) noexcept nogil     # NULL: no memory
cdef void give_inflater(df_zstream* stream, int bits) noexcept nogil
