# The verbs of a Transport over TLS: on the descriptor where OpenSSL can be driven directly, else through memory BIOs.
from libc.stdint cimport uint8_t

from duckfast._openssl cimport NameTable, TLSStream
from duckfast._transport cimport Transport


cdef enum Handshake:
    HANDSHAKE_GOES_ON     # when the socket is readable, or writable if read_wants_write
    HANDSHAKE_DONE
    HANDSHAKE_FAILED      # failure() says why; the client has been told, if it can be
    HANDSHAKE_PLAIN       # the client speaks plain HTTP; its bytes are still unread
    HANDSHAKE_GONE        # the client left without a word


cdef class TLSFacts:
    # What a connection agreed on, as applications are told. Shared by connections, never changed.
    cdef readonly dict extension     # ASGI: scope["extensions"]["tls"]
    cdef readonly dict environ       # WSGI: HTTPS, SSL_*


cdef class TLSEndpoint:
    # What the connections of a listener are made with. Replaced as a whole when certificates are loaded anew.
    cdef readonly list contexts      # ssl.SSLContext; the first is for who asks for no name, or an unknown one
    cdef readonly str io             # "descriptor" or "memory"
    cdef void* native                # the SSL_CTX* of the first context; NULL: memory BIOs
    cdef NameTable names
    cdef list _kept                  # owns the texts that `names` points to
    cdef dict _facts                 # of connections without a client certificate
    cdef dict _suites                # cipher suite numbers by name, for memory BIOs

    cdef TLSTransport new_transport(self, int fd)
    cdef int _index_names(self, list entries) except -1


cdef class TLSTransport(Transport):
    cdef TLSEndpoint endpoint
    cdef TLSFacts _facts             # None: not asked for yet, or shared
    cdef uint8_t begun               # the first byte was seen, and was not plain HTTP
    cdef uint8_t ended               # close_notify has been sent: what comes is only thrown away

    cdef Handshake handshake(self) noexcept nogil
    cdef object failure(self)        # str
    cdef TLSFacts facts(self)        # once the handshake is done
    cdef int _begin(self) noexcept nogil
    cdef Handshake _go_on(self) noexcept nogil


cdef class DescriptorTransport(TLSTransport):
    cdef TLSStream stream


cdef class MemoryTransport(TLSTransport):
    cdef object incoming, outgoing   # ssl.MemoryBIO: what came from the socket, what has to go there
    cdef object tls                  # ssl.SSLObject between them
    cdef bytes unsent                # taken out of `outgoing`, but not by the kernel yet
    cdef Py_ssize_t accepted         # bytes whose record is on its way; reported when it has left
    cdef str reason                  # of a failed handshake
    cdef uint8_t drained, broken, established

    cdef Py_ssize_t _receive(self) noexcept
    cdef bint _flush(self, bint more) noexcept
    cdef Py_ssize_t _read(self, char* data, size_t size) noexcept
    cdef Py_ssize_t _write(self, const char* data, size_t size, bint more) noexcept
    cdef Handshake _step(self) noexcept
    cdef bint _say_goodbye(self) noexcept
