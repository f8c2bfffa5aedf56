# The OpenSSL that Python's own ssl module has loaded, called without Python in between. One TLSStream is one connection's.
from libc.stdint cimport uint8_t


cdef struct TLSStream:
    void* ssl             # SSL*, owned; NULL before open_stream() and after free_stream()
    int fd                # the socket, the transport's
    int error             # errno of the last socket call that failed
    uint8_t blocked       # Direction bits: which socket call would have blocked in the last operation
    uint8_t drained       # the last read took all the socket had
    uint8_t ended         # the socket has given its last byte
    uint8_t behind        # the end, or a failure, stands right behind the bytes that were just read
    uint8_t more          # what is written now may wait in the kernel for more
    uint8_t established   # the handshake is complete
    uint8_t broken        # after an error nothing can be read or written any more
    const char* reason    # of a failed handshake; static text


cdef enum Direction:
    READING = 1
    WRITING = 2


cdef struct ServerName:
    const char* name      # lower case; "*.example.com" stands for one label
    void* context         # SSL_CTX*


cdef struct NameTable:    # what a handshake looks at when the client names a host
    int count
    ServerName* entries


cdef void* context_of(object context) except? NULL      # the SSL_CTX* inside an ssl.SSLContext; NULL: it cannot be had
cdef void choose_by_name(void* context, NameTable* names) noexcept    # the table must outlive the handshakes
cdef bint install_ticket_keys(void* context, bytes keys) except -1

cdef int open_stream(TLSStream* stream, void* context, int fd) noexcept nogil            # 0, or -ENOMEM
cdef int shake_hands(TLSStream* stream) noexcept nogil                                   # 1 done, 0 blocked, -1 failed
cdef Py_ssize_t read_stream(TLSStream* stream, char* data, size_t size) noexcept nogil   # 0: the end; else -errno
cdef Py_ssize_t write_stream(TLSStream* stream, const char* data, size_t size, bint more) noexcept nogil   # -errno
cdef bint end_stream(TLSStream* stream) noexcept nogil      # sends close_notify; False: the socket is full
cdef void free_stream(TLSStream* stream) noexcept nogil

cdef tuple stream_facts(TLSStream* stream)            # (version number, version, suite number, suite, bits)
cdef bytes server_certificate(TLSStream* stream)      # DER, or None
cdef list client_certificates(TLSStream* stream)      # DER, the client's own first; empty: it sent none
cdef void* certificate_pointer(TLSStream* stream) noexcept   # tells our certificates apart, for a cache
