"""OpenSSL driven at C level: the very library that Python's ssl module has loaded, found in memory and checked before use.

Owns the table of functions, the reading and writing of one TLSStream, and what can be asked of it. Knows no HTTP, no reactor,
and no OpenSSL headers: the few functions are declared here, which their stable ABI since 1.1.1 allows. The file is long because
the declarations, the socket BIO and the checks are one matter: who calls a function must see what it was declared as.

Never a second OpenSSL: an SSL_CTX made by one copy and used by another is a crash. So the library is looked for only among what
the module `_ssl` itself is linked with, and what is found is compared with what Python says of the same context.
"""

import errno
import os
import ssl as _ssl_module
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memset

cdef extern from "<errno.h>":
    enum: EAGAIN, ENOMEM, EPIPE, EPROTO

cdef extern from *:
    """
    #include <dlfcn.h>
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <strings.h>
    #include <sys/socket.h>
    #include <unistd.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    #ifndef MSG_MORE
    #define MSG_MORE 0
    #endif

    #define DF_SESSION_ID "duckfast"   /* what a session is good for: this server */

    /* result, name, arguments: every function that must be there */
    #define DF_FUNCTIONS(F) \\
        F(void *, SSL_new, (void *context)) \\
        F(void, SSL_free, (void *ssl)) \\
        F(void, SSL_set_bio, (void *ssl, void *read, void *write)) \\
        F(void, SSL_set_accept_state, (void *ssl)) \\
        F(void, SSL_set_read_ahead, (void *ssl, int yes)) \\
        F(int, SSL_set_session_id_context, (void *ssl, const unsigned char *name, unsigned int size)) \\
        F(uint64_t, SSL_set_options, (void *ssl, uint64_t options)) \\
        F(long, SSL_ctrl, (void *ssl, int command, long number, void *pointer)) \\
        F(int, SSL_do_handshake, (void *ssl)) \\
        F(int, SSL_read, (void *ssl, void *data, int size)) \\
        F(int, SSL_write, (void *ssl, const void *data, int size)) \\
        F(int, SSL_has_pending, (const void *ssl)) \\
        F(int, SSL_shutdown, (void *ssl)) \\
        F(int, SSL_get_shutdown, (const void *ssl)) \\
        F(void, SSL_set_shutdown, (void *ssl, int mode)) \\
        F(int, SSL_version, (const void *ssl)) \\
        F(const char *, SSL_get_version, (const void *ssl)) \\
        F(const void *, SSL_get_current_cipher, (const void *ssl)) \\
        F(uint16_t, SSL_CIPHER_get_protocol_id, (const void *cipher)) \\
        F(const char *, SSL_CIPHER_get_name, (const void *cipher)) \\
        F(int, SSL_CIPHER_get_bits, (const void *cipher, int *algorithm)) \\
        F(void *, SSL_get_certificate, (const void *ssl)) \\
        F(void *, SSL_get_peer_cert_chain, (const void *ssl)) \\
        F(long, SSL_get_verify_result, (const void *ssl)) \\
        F(const char *, SSL_get_servername, (const void *ssl, int type)) \\
        F(void *, SSL_set_SSL_CTX, (void *ssl, void *context)) \\
        F(uint64_t, SSL_CTX_get_options, (const void *context)) \\
        F(int, SSL_CTX_get_verify_mode, (const void *context)) \\
        F(long, SSL_CTX_ctrl, (void *context, int command, long number, void *pointer)) \\
        F(long, SSL_CTX_callback_ctrl, (void *context, int command, void (*callback)(void))) \\
        F(int, OPENSSL_sk_num, (const void *stack)) \\
        F(void *, OPENSSL_sk_value, (const void *stack, int index)) \\
        F(int, i2d_X509, (const void *certificate, unsigned char **data)) \\
        F(void, X509_free, (void *certificate)) \\
        F(const char *, X509_verify_cert_error_string, (long result)) \\
        F(unsigned long, ERR_get_error, (void)) \\
        F(void, ERR_clear_error, (void)) \\
        F(const char *, ERR_reason_error_string, (unsigned long code)) \\
        F(unsigned long, OpenSSL_version_num, (void)) \\
        F(const char *, OpenSSL_version, (int part)) \\
        F(int, BIO_get_new_index, (void)) \\
        F(void *, BIO_meth_new, (int type, const char *name)) \\
        F(int, BIO_meth_set_read, (void *method, int (*read)(void *, char *, int))) \\
        F(int, BIO_meth_set_write, (void *method, int (*write)(void *, const char *, int))) \\
        F(int, BIO_meth_set_ctrl, (void *method, long (*control)(void *, int, long, void *))) \\
        F(void *, BIO_new, (const void *method)) \\
        F(void, BIO_set_data, (void *bio, void *data)) \\
        F(void *, BIO_get_data, (void *bio)) \\
        F(void, BIO_set_init, (void *bio, int init)) \\
        F(void, BIO_set_flags, (void *bio, int flags)) \\
        F(void, BIO_clear_flags, (void *bio, int flags))

    #define DF_DECLARE(result, name, arguments) result (*name) arguments;
    static struct {
        DF_FUNCTIONS(DF_DECLARE)
        void *(*peer_certificate)(const void *ssl);   /* by its name of 1.1.1 or of 3.0 */
    } df_api;

    /* openssl/ssl.h and bio.h; frozen by the ABI */
    enum {
        DF_BIO_READ = 1, DF_BIO_WRITE = 2, DF_BIO_RETRY = 8, DF_BIO_FLAGS = 15,
        DF_BIO_CTRL_FLUSH = 11,
        DF_CTRL_MODE = 33, DF_CTRL_SET_NAME_CALLBACK = 53, DF_CTRL_SET_NAME_ARGUMENT = 54, DF_CTRL_SET_TICKET_KEYS = 59,
        DF_CTRL_GET_MIN_VERSION = 130,
        DF_MODES = 0x1 | 0x2 | 0x4 | 0x10,   /* partial write, moving write buffer, auto retry, release buffers */
        DF_NO_RENEGOTIATION = 1 << 30,
        DF_SHUTDOWN_SENT = 1, DF_SHUTDOWN_RECEIVED = 2,
        DF_NAME_ACCEPTED = 0, DF_NAME_IGNORED = 3
    };

    static void *df_bio_method;

    /* Finds the functions in what `inside`, code of the module _ssl, belongs to or is linked with. NULL, or what is missing. */
    static const char *df_load(void *inside) {
        Dl_info host, found;
        void *library, *symbol = NULL;
        if (!dladdr(inside, &host) || !host.dli_fname) return "the module _ssl cannot be located";
        library = dlopen(host.dli_fname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
        if (library) symbol = dlsym(library, "SSL_new");
        if (!symbol) {
            /* _ssl is built into the interpreter: its OpenSSL counts only if it is built in there as well. */
            library = dlopen(NULL, RTLD_LAZY);
            symbol = library ? dlsym(library, "SSL_new") : NULL;
            if (!symbol || !dladdr(symbol, &found) || found.dli_fbase != host.dli_fbase)
                return "this interpreter hides its OpenSSL";
        }
    #define DF_FIND(result, name, arguments) \\
        if (!(df_api.name = (result (*) arguments)dlsym(library, #name))) return "its OpenSSL has no " #name;
        DF_FUNCTIONS(DF_FIND)
        df_api.peer_certificate = (void *(*)(const void *))dlsym(library, "SSL_get1_peer_certificate");
        if (!df_api.peer_certificate)
            df_api.peer_certificate = (void *(*)(const void *))dlsym(library, "SSL_get_peer_certificate");
        return df_api.peer_certificate ? NULL : "its OpenSSL has no SSL_get1_peer_certificate";
    }

    /* ---- the socket as OpenSSL sees it. Like its own socket BIO, but it tells what happened. ---- */
    typedef struct {
        void *ssl;
        int fd;
        int error;
        uint8_t blocked, drained, ended, behind, more, established, broken;
        const char *reason;
    } df_stream;

    static int df_bio_read(void *bio, char *data, int size) {
        df_stream *stream = df_api.BIO_get_data(bio);
        ssize_t count;
        df_api.BIO_clear_flags(bio, DF_BIO_FLAGS);
        do count = recv(stream->fd, data, size, 0); while (count < 0 && errno == EINTR);
        if (count > 0) {
            stream->drained = count < size;
            return (int)count;
        }
        stream->drained = 1;
        if (count == 0) stream->ended = 1;
        else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            stream->blocked |= DF_BIO_READ;
            df_api.BIO_set_flags(bio, DF_BIO_READ | DF_BIO_RETRY);
        } else stream->error = errno;
        return (int)count;
    }
    static int df_bio_write(void *bio, const char *data, int size) {
        df_stream *stream = df_api.BIO_get_data(bio);
        ssize_t count;
        df_api.BIO_clear_flags(bio, DF_BIO_FLAGS);
        do count = send(stream->fd, data, size, stream->more ? MSG_NOSIGNAL | MSG_MORE : MSG_NOSIGNAL);
        while (count < 0 && errno == EINTR);
        if (count >= 0) return (int)count;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            stream->blocked |= DF_BIO_WRITE;
            df_api.BIO_set_flags(bio, DF_BIO_WRITE | DF_BIO_RETRY);
        } else stream->error = errno;
        return -1;
    }
    static long df_bio_control(void *bio, int command, long number, void *pointer) {
        (void)bio; (void)number; (void)pointer;
        /* Never tells of the end: since 3.0 an end without close_notify would be fatal, and a half-closed client get no answer. */
        return command == DF_BIO_CTRL_FLUSH;
    }
    static int df_make_method(void) {
        df_bio_method = df_api.BIO_meth_new(df_api.BIO_get_new_index() | 0x0400 | 0x0100, "duckfast socket");   /* source, descriptor */
        return df_bio_method && df_api.BIO_meth_set_read(df_bio_method, df_bio_read)
            && df_api.BIO_meth_set_write(df_bio_method, df_bio_write)
            && df_api.BIO_meth_set_ctrl(df_bio_method, df_bio_control);
    }
    static int df_open(df_stream *stream, void *context, int fd) {
        void *bio, *ssl = df_api.SSL_new(context);
        memset(stream, 0, sizeof *stream);
        if (!ssl) return -ENOMEM;
        if (!(bio = df_api.BIO_new(df_bio_method))) {
            df_api.SSL_free(ssl);
            return -ENOMEM;
        }
        stream->ssl = ssl;
        stream->fd = fd;
        df_api.BIO_set_data(bio, stream);
        df_api.BIO_set_init(bio, 1);
        df_api.SSL_set_bio(ssl, bio, bio);
        df_api.SSL_set_accept_state(ssl);
        df_api.SSL_set_read_ahead(ssl, 1);
        /* Without one no session is resumed where client certificates are asked for. Pythons before 3.13 give it to the context,
           later ones to each connection. */
        df_api.SSL_set_session_id_context(ssl, (const unsigned char *)DF_SESSION_ID, sizeof DF_SESSION_ID);
        df_api.SSL_ctrl(ssl, DF_CTRL_MODE, DF_MODES, NULL);
        df_api.SSL_set_options(ssl, DF_NO_RENEGOTIATION);
        return 0;
    }

    /* ---- several certificates: the one whose name the client asks for ---- */
    typedef struct { const char *name; void *context; } df_name;
    typedef struct { int count; df_name *entries; } df_names;

    static void *df_find_name(const df_names *names, const char *wanted) {
        const char *parent = strchr(wanted, '.');
        for (int i = 0; i < names->count; i++)
            if (strcasecmp(names->entries[i].name, wanted) == 0) return names->entries[i].context;
        for (int i = 0; parent && i < names->count; i++)   /* RFC 6125 6.4.3: the asterisk is one whole label */
            if (names->entries[i].name[0] == '*' && strcasecmp(names->entries[i].name + 1, parent) == 0)
                return names->entries[i].context;
        return NULL;
    }
    static int df_choose(void *ssl, int *alert, void *argument) {
        const char *wanted = df_api.SSL_get_servername(ssl, 0);
        void *context = wanted ? df_find_name(argument, wanted) : NULL;
        (void)alert;
        if (!context) return wanted ? DF_NAME_ACCEPTED : DF_NAME_IGNORED;
        df_api.SSL_set_SSL_CTX(ssl, context);
        return DF_NAME_ACCEPTED;
    }
    static void df_choose_by_name(void *context, void *names) {
        df_api.SSL_CTX_callback_ctrl(context, DF_CTRL_SET_NAME_CALLBACK, (void (*)(void))df_choose);
        df_api.SSL_CTX_ctrl(context, DF_CTRL_SET_NAME_ARGUMENT, 0, names);
    }

    static int df_readable(const void *memory) {
        /* The kernel looks for us: it answers EFAULT where a read would crash. */
        int ends[2], result;
        if (pipe(ends) < 0) return 0;
        result = write(ends[1], memory, 64) == 64;
        close(ends[0]);
        close(ends[1]);
        return result;
    }
    """
    ctypedef struct df_functions:
        int SSL_do_handshake(void* ssl) noexcept nogil
        int SSL_read(void* ssl, void* data, int size) noexcept nogil
        int SSL_write(void* ssl, const void* data, int size) noexcept nogil
        int SSL_has_pending(const void* ssl) noexcept nogil
        int SSL_shutdown(void* ssl) noexcept nogil
        int SSL_get_shutdown(const void* ssl) noexcept nogil
        void SSL_set_shutdown(void* ssl, int mode) noexcept nogil
        void SSL_free(void* ssl) noexcept nogil
        int SSL_version(const void* ssl) noexcept nogil
        const char* SSL_get_version(const void* ssl) noexcept nogil
        const void* SSL_get_current_cipher(const void* ssl) noexcept nogil
        int SSL_CIPHER_get_protocol_id(const void* cipher) noexcept nogil
        const char* SSL_CIPHER_get_name(const void* cipher) noexcept nogil
        int SSL_CIPHER_get_bits(const void* cipher, int* algorithm) noexcept nogil
        void* SSL_get_certificate(const void* ssl) noexcept nogil
        void* SSL_get_peer_cert_chain(const void* ssl) noexcept nogil
        void* peer_certificate(const void* ssl) noexcept nogil
        long SSL_get_verify_result(const void* ssl) noexcept nogil
        uint64_t SSL_CTX_get_options(const void* context) noexcept nogil
        int SSL_CTX_get_verify_mode(const void* context) noexcept nogil
        long SSL_CTX_ctrl(void* context, int command, long number, void* pointer) noexcept nogil
        int OPENSSL_sk_num(const void* stack) noexcept nogil
        void* OPENSSL_sk_value(const void* stack, int index) noexcept nogil
        int i2d_X509(const void* certificate, unsigned char** data) noexcept nogil
        void X509_free(void* certificate) noexcept nogil
        const char* X509_verify_cert_error_string(long result) noexcept nogil
        unsigned long ERR_get_error() noexcept nogil
        void ERR_clear_error() noexcept nogil
        const char* ERR_reason_error_string(unsigned long code) noexcept nogil
        unsigned long OpenSSL_version_num() noexcept nogil
        const char* OpenSSL_version(int part) noexcept nogil
    df_functions df_api
    ctypedef struct df_stream:
        pass
    enum:
        DF_CTRL_GET_MIN_VERSION, DF_CTRL_SET_TICKET_KEYS, DF_SHUTDOWN_SENT, DF_SHUTDOWN_RECEIVED
    const char* df_load(void* inside) nogil
    bint df_make_method() nogil
    int df_open(df_stream* stream, void* context, int fd) noexcept nogil
    void df_choose_by_name(void* context, void* names) noexcept nogil
    bint df_readable(const void* memory) nogil

cdef extern from "Python.h":
    ctypedef void* PyCFunctionPointer "PyCFunction"
    PyCFunctionPointer PyCFunction_GetFunction(object function) except NULL

cdef long X509_OK = 0
cdef int MOST = 1 << 30                         # bytes that SSL_read and SSL_write, which take an int, are given at once
cdef size_t TICKET_KEYS = 80                    # bytes: a name, a key for the code, a key for the cipher (OpenSSL 1.1.1 and later)
LAYOUT_KNOWN = ((3, 11), (3, 14))               # Pythons whose context object begins with the SSL_CTX*

cdef bint usable = False
_unusable = None   # why not, once looked; None: not looked yet


def unusable_because() -> str:
    """Why OpenSSL cannot be driven directly here; "" when it can. Looked up and checked once."""
    global usable, _unusable
    if _unusable is None:
        _unusable = _find()
        usable = not _unusable
    return _unusable


def _find():
    cdef const char* missing
    if sys.implementation.name != "cpython" or not LAYOUT_KNOWN[0] <= sys.version_info[:2] <= LAYOUT_KNOWN[1]:
        return "this Python's context objects are not known"
    missing = df_load(<void*>PyCFunction_GetFunction(_ssl_module.RAND_status))
    if missing != NULL:
        return missing.decode()
    version = df_api.OpenSSL_version(0).decode()
    if version != _ssl_module.OPENSSL_VERSION or not version.startswith("OpenSSL "):
        return f"found {version} where Python says {_ssl_module.OPENSSL_VERSION}"
    if not _layout_holds():
        return "a context object is not laid out as expected"
    if not df_make_method():
        return "its OpenSSL makes no BIO methods"
    return ""


def _layout_holds() -> bool:
    """Whether what is read behind the object's head follows what Python sets on the object."""
    context = _ssl_module.SSLContext(_ssl_module.PROTOCOL_TLS_SERVER)
    if not _agrees(context):
        return False
    context.options ^= _ssl_module.OP_NO_TICKET
    context.minimum_version = _ssl_module.TLSVersion.TLSv1_3
    context.verify_mode = _ssl_module.CERT_REQUIRED
    return _agrees(context)


cdef void* _peek(object context) noexcept:
    return (<void**>(<char*><PyObject*>context + sizeof(PyObject)))[0]


cdef bint _agrees(object context) except -1:
    """Whether the SSL_CTX* that seems to be in a context says the same as the object."""
    cdef void* pointer = _peek(context)
    cdef int mode
    if pointer == NULL or <size_t>pointer % sizeof(void*) != 0 or not df_readable(pointer):
        return False
    if df_api.SSL_CTX_get_options(pointer) != <uint64_t>(int(context.options) & 0xFFFFFFFFFFFFFFFF):
        return False
    # VERIFY_PEER 1, FAIL_IF_NO_PEER_CERT 2: their sum is CERT_REQUIRED + 1
    mode = df_api.SSL_CTX_get_verify_mode(pointer)
    if mode != {0: 0, 1: 1, 2: 3}[int(context.verify_mode)]:
        return False
    least = int(context.minimum_version)
    return least < 0 or df_api.SSL_CTX_ctrl(pointer, DF_CTRL_GET_MIN_VERSION, 0, NULL) == least


cdef void* context_of(object context) except? NULL:
    if unusable_because() or not isinstance(context, _ssl_module.SSLContext) or not _agrees(context):
        return NULL
    return _peek(context)


cdef void choose_by_name(void* context, NameTable* names) noexcept:
    df_choose_by_name(context, names)


cdef bint install_ticket_keys(void* context, bytes keys) except -1:
    if <size_t>PyBytes_GET_SIZE(keys) != TICKET_KEYS:
        raise ValueError(f"ticket keys are {TICKET_KEYS} bytes")
    return df_api.SSL_CTX_ctrl(context, DF_CTRL_SET_TICKET_KEYS, <long>TICKET_KEYS, PyBytes_AS_STRING(keys)) == 1


# One connection -----------------------------------------------------------------------------------------------------------
#
# OpenSSL keeps its errors in a queue per thread, and whoever leaves one there confuses the next. The way an operation ended
# is told by our BIO (blocked, ended, error), so that the queue is only looked at, and emptied, after a failure.

cdef int open_stream(TLSStream* stream, void* context, int fd) noexcept nogil:
    return df_open(<df_stream*>stream, context, fd)


cdef int shake_hands(TLSStream* stream) noexcept nogil:
    cdef unsigned long code
    cdef long verified
    df_api.ERR_clear_error()
    stream.blocked = 0
    if df_api.SSL_do_handshake(stream.ssl) == 1:
        stream.established = True
        return 1
    if stream.blocked:
        return 0
    stream.broken = True
    code = df_api.ERR_get_error()
    verified = df_api.SSL_get_verify_result(stream.ssl)
    if code != 0:
        stream.reason = df_api.ERR_reason_error_string(code)
    if verified != X509_OK:
        stream.reason = df_api.X509_verify_cert_error_string(verified)
    df_api.ERR_clear_error()
    return -1


cdef Py_ssize_t read_stream(TLSStream* stream, char* data, size_t size) noexcept nogil:
    cdef size_t total = 0
    cdef int count
    stream.behind = False
    while total < size:
        stream.blocked = 0
        count = df_api.SSL_read(stream.ssl, data + total, <int>min(size - total, <size_t>MOST))
        if count > 0:
            total += count
            # The socket was emptied, and so is what had been read ahead of it.
            if stream.drained and not df_api.SSL_has_pending(stream.ssl):
                return total
            continue
        if stream.blocked:
            return total if total else -EAGAIN
        if total:
            stream.behind = True
            return total
        if stream.ended or df_api.SSL_get_shutdown(stream.ssl) & DF_SHUTDOWN_RECEIVED:
            df_api.ERR_clear_error()
            return 0
        return _break(stream, EPROTO)
    return total


cdef Py_ssize_t write_stream(TLSStream* stream, const char* data, size_t size, bint more) noexcept nogil:
    cdef int count
    stream.blocked = 0
    stream.more = more
    count = df_api.SSL_write(stream.ssl, data, <int>min(size, <size_t>MOST))
    if count > 0:
        return count
    if stream.blocked:
        return -EAGAIN
    return _break(stream, EPIPE)


cdef Py_ssize_t _break(TLSStream* stream, int otherwise) noexcept nogil:
    stream.broken = True
    df_api.ERR_clear_error()
    return -(stream.error or otherwise)


cdef bint end_stream(TLSStream* stream) noexcept nogil:
    stream.blocked = 0
    stream.more = False
    if df_api.SSL_shutdown(stream.ssl) < 0:
        if stream.blocked & WRITING:
            return False
        df_api.ERR_clear_error()
    return True


cdef void free_stream(TLSStream* stream) noexcept nogil:
    # A session whose connection did not end in order would be taken for a bad one, and not be resumed.
    if stream.established and not stream.broken:
        df_api.SSL_set_shutdown(stream.ssl, DF_SHUTDOWN_SENT | DF_SHUTDOWN_RECEIVED)
    df_api.SSL_free(stream.ssl)
    stream.ssl = NULL


# What a connection agreed on ------------------------------------------------------------------------------------------------

cdef tuple stream_facts(TLSStream* stream):
    cdef const void* cipher = df_api.SSL_get_current_cipher(stream.ssl)
    return (
        df_api.SSL_version(stream.ssl),
        df_api.SSL_get_version(stream.ssl).decode(),
        df_api.SSL_CIPHER_get_protocol_id(cipher),
        df_api.SSL_CIPHER_get_name(cipher).decode(),
        df_api.SSL_CIPHER_get_bits(cipher, NULL),
    )


cdef bytes _der(const void* certificate):
    cdef int size = df_api.i2d_X509(certificate, NULL)
    cdef bytes der
    cdef unsigned char* place
    if size <= 0:
        df_api.ERR_clear_error()
        return None
    der = PyBytes_FromStringAndSize(NULL, size)
    place = <unsigned char*>PyBytes_AS_STRING(der)
    df_api.i2d_X509(certificate, &place)
    return der


cdef void* certificate_pointer(TLSStream* stream) noexcept:
    return df_api.SSL_get_certificate(stream.ssl)


cdef bytes server_certificate(TLSStream* stream):
    cdef void* certificate = df_api.SSL_get_certificate(stream.ssl)
    return None if certificate == NULL else _der(certificate)


cdef list client_certificates(TLSStream* stream):
    cdef void* own = df_api.peer_certificate(stream.ssl)
    cdef void* chain
    cdef int index
    cdef list found
    if own == NULL:
        return []
    try:
        found = [_der(own)]
    finally:
        df_api.X509_free(own)
    chain = df_api.SSL_get_peer_cert_chain(stream.ssl)   # a server is not given the client's own again
    if chain != NULL:
        for index in range(df_api.OPENSSL_sk_num(chain)):
            found.append(_der(df_api.OPENSSL_sk_value(chain, index)))
    return found
