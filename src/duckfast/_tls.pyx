"""A Transport over TLS, in two ways with the same verbs. Knows sockets and ssl contexts, no HTTP, no reactor, no settings.

DescriptorTransport drives OpenSSL on the descriptor itself. MemoryTransport uses ssl.MemoryBIO, where that cannot be had, or where
a context has callbacks that need Python's own connection object (sni_callback, keylog_filename). The file is long because
the two must be read side by side: a test that passes on one passes on the other.

A record in progress: when the kernel takes only a part of a record, the send has not happened yet as far as the caller knows (-EAGAIN),
but its bytes are fixed. The caller repeats the send with the same bytes first, as it does on a plain socket anyway.
"""

import base64
import os
import ssl as _ssl_module

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from duckfast._openssl cimport (
    READING, WRITING, ServerName, certificate_pointer, choose_by_name, client_certificates, context_of, end_stream, free_stream,
    install_ticket_keys, open_stream, read_stream, server_certificate, shake_hands, stream_facts, write_stream,
)
from duckfast._transport cimport end_writing, iovec, read_at, receive, transmit

from duckfast import certificates
from duckfast._openssl import unusable_because

cdef extern from "<errno.h>":
    enum: EAGAIN, EWOULDBLOCK, ENOMEM, EPIPE, EPROTO

cdef enum:
    RECORD = 16384      # bytes: the most plain text of a TLS record (RFC 8446 5.1)

_Want = (_ssl_module.SSLWantReadError, _ssl_module.SSLWantWriteError)
_End = (_ssl_module.SSLZeroReturnError, _ssl_module.SSLEOFError)
_get_chain = getattr(_ssl_module.SSLObject, "get_unverified_chain", None)   # from Python 3.13


# Facts --------------------------------------------------------------------------------------------------------------------

def _pem(bytes der) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[place : place + 64] for place in range(0, len(text), 64)]
    return "-----BEGIN CERTIFICATE-----\n" + "\n".join(lines) + "\n-----END CERTIFICATE-----\n"


def _cgi(str text) -> str:
    """As PEP 3333 wants it: the UTF-8 bytes, each a character."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _date(moment) -> str:
    return f"{moment:%b} {moment.day:2d} {moment:%H:%M:%S %Y} GMT"


def _name_entries(str prefix, name):
    yield prefix, _cgi(certificates.rfc4514(name))
    for short, value in certificates.fields(name).items():
        yield f"{prefix}_{'Email' if short == 'emailAddress' else short}", _cgi(value)


cdef TLSFacts _make_facts(tuple agreed, bytes server, list clients):
    """agreed: (version number, version, suite number, suite, bits); certificates in DER."""
    cdef TLSFacts facts = TLSFacts.__new__(TLSFacts)
    number, version, suite_number, suite, bits = agreed
    cdef list pems = []
    for der in clients:   # no comprehension: Cython 3.3's lets go of an item twice when its list cannot grow
        pems.append(_pem(der))
    # ASGI TLS extension 0.2. A certificate that does not verify ends the handshake, so there is never an error to tell.
    facts.extension = extension = {
        "server_cert": None if server is None else _pem(server),
        "client_cert_chain": pems,
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": number,
        "cipher_suite": suite_number,
    }
    # The names of Apache's mod_ssl, which applications know.
    facts.environ = environ = {
        "HTTPS": "on",
        "SSL_PROTOCOL": version,
        "SSL_CIPHER": suite,
        "SSL_CIPHER_USEKEYSIZE": str(bits),
        "SSL_CLIENT_VERIFY": "SUCCESS" if clients else "NONE",
    }
    if not clients:
        return facts
    try:
        certificate = certificates.Certificate.read(clients[0])
    except ValueError:
        environ["SSL_CLIENT_CERT"] = pems[0]
        return facts   # OpenSSL has verified it all the same: the application has its bytes
    extension["client_cert_name"] = certificates.rfc4514(certificate.subject)
    serial = f"{certificate.serial:X}"
    environ.update(
        SSL_CLIENT_CERT=pems[0],
        SSL_CLIENT_M_VERSION=str(certificate.version),
        SSL_CLIENT_M_SERIAL=serial if len(serial) % 2 == 0 else "0" + serial,
        SSL_CLIENT_V_START=_date(certificate.not_before),
        SSL_CLIENT_V_END=_date(certificate.not_after),
    )
    environ.update(_name_entries("SSL_CLIENT_S_DN", certificate.subject))
    environ.update(_name_entries("SSL_CLIENT_I_DN", certificate.issuer))
    for index, pem in enumerate(pems[1:]):
        environ[f"SSL_CLIENT_CERT_CHAIN_{index}"] = pem
    return facts


# Endpoint -------------------------------------------------------------------------------------------------------------------

def _needs_python(context) -> str:
    """Why a context only works with Python's own connection object; "" when it does not need it."""
    if context.sni_callback is not None:
        return "the context has an sni_callback"
    if context.keylog_filename is not None:
        return "the context logs keys"
    if context._msg_callback is not None:
        return "the context has a message callback"
    return ""


def _choose_in_python(dict contexts):
    """An sni_callback that takes the context of the asked name. RFC 6125 6.4.3: an asterisk is one whole label."""
    def choose(connection, name, context):
        name = (name or "").lower()
        chosen = contexts.get(name) or contexts.get("*." + name.partition(".")[2])
        if chosen is not None:
            connection.context = chosen
    return choose


cdef class TLSEndpoint:
    """entries: (ssl.SSLContext, the host names it is for), the default first. io: "auto", or "descriptor" or "memory" to insist.

    ticket_keys: 80 secret bytes that processes share so that each resumes what another began; b"": OpenSSL's own, for one context.
    Raises ValueError when io="descriptor" cannot be had, and says why.
    """

    def __init__(self, entries, *, str io="auto", bytes ticket_keys=b""):
        entries = list(entries)
        self.contexts = [context for context, _ in entries]
        self._facts = {}
        why = unusable_because() if io != "memory" else "so asked for"
        for context in self.contexts:
            why = why or _needs_python(context) or ("" if context_of(context) != NULL else "a context has an unknown form")
        if why and io == "descriptor":
            raise ValueError(f"TLS cannot be driven on the descriptor: {why}")
        self.io = "memory" if why else "descriptor"
        if ticket_keys and context_of(self.contexts[0]) != NULL:
            install_ticket_keys(context_of(self.contexts[0]), ticket_keys)
        if self.io == "descriptor":
            self.native = context_of(self.contexts[0])
            self._index_names(entries)
        else:
            self._suites = {suite["name"]: suite["id"] & 0xFFFF for context in self.contexts for suite in context.get_ciphers()}
            if len(entries) > 1:
                self.contexts[0].sni_callback = _choose_in_python(_by_name(entries))

    def __dealloc__(self):
        free(self.names.entries)

    cdef int _index_names(self, list entries) except -1:
        cdef int index
        cdef dict named = _by_name(entries)
        if len(entries) == 1:
            return 0
        self._kept = [name.encode() for name in named]
        self.names.entries = <ServerName*>calloc(len(named), sizeof(ServerName))
        if self.names.entries == NULL:
            raise MemoryError
        for index, context in enumerate(named.values()):
            self.names.entries[index].name = PyBytes_AS_STRING(self._kept[index])
            self.names.entries[index].context = context_of(context)
        self.names.count = len(named)
        choose_by_name(self.native, &self.names)
        return 0

    cdef TLSTransport new_transport(self, int fd):
        cdef TLSTransport transport
        if self.native != NULL:
            transport = DescriptorTransport.__new__(DescriptorTransport, fd)
        else:
            transport = MemoryTransport.__new__(MemoryTransport, fd)
        transport.endpoint = self
        return transport


cdef dict _by_name(list entries):
    """The first context that is for a name has it."""
    cdef dict named = {}
    for context, names in entries:
        for name in names:
            named.setdefault(name, context)
    return named


# Transports -----------------------------------------------------------------------------------------------------------------

@cython.no_gc   # what it refers to never refers back
cdef class TLSTransport(Transport):
    cdef Handshake handshake(self) noexcept nogil:
        """One step. The first byte decides whether there is anything to shake: a TLS record begins with 22, HTTP with a letter."""
        cdef char first = 0
        cdef Py_ssize_t count
        if not self.begun:
            count = self.peek(&first, 1)
            if count == -EAGAIN or count == -EWOULDBLOCK:
                return HANDSHAKE_GOES_ON
            if count <= 0:
                return HANDSHAKE_GONE
            if c"A" <= first <= c"Z" or c"a" <= first <= c"z":
                return HANDSHAKE_PLAIN
            if self._begin() < 0:
                return HANDSHAKE_FAILED
            self.begun = True
        return self._go_on()

    cdef object failure(self):
        raise NotImplementedError

    cdef TLSFacts facts(self):
        raise NotImplementedError

    cdef int _begin(self) noexcept nogil:
        return -1

    cdef Handshake _go_on(self) noexcept nogil:
        return HANDSHAKE_FAILED

    cdef Py_ssize_t send_vector(self, iovec* pieces, int count) noexcept nogil:
        """Head and body in one record as far as they fit: a record costs more than the copy."""
        cdef char record[RECORD]
        cdef size_t size = 0
        cdef size_t part
        cdef int index
        if count == 1 or pieces[0].iov_len >= RECORD:
            return self.send(<const char*>pieces[0].iov_base, pieces[0].iov_len, False)
        for index in range(count):
            part = min(pieces[index].iov_len, RECORD - size)
            memcpy(record + size, pieces[index].iov_base, part)
            size += part
        return self.send(record, size, False)

    cdef Py_ssize_t send_file(self, int source, int64_t offset, size_t size) noexcept nogil:
        cdef char record[RECORD]
        cdef Py_ssize_t count = read_at(source, record, min(size, <size_t>RECORD), offset)
        if count <= 0:
            return count
        return self.send(record, count, <size_t>count < size)


@cython.no_gc
cdef class DescriptorTransport(TLSTransport):
    """OpenSSL on the descriptor."""

    def __dealloc__(self):
        self.close()

    cdef int _begin(self) noexcept nogil:
        return open_stream(&self.stream, self.endpoint.native, self.fd)

    cdef Handshake _go_on(self) noexcept nogil:
        cdef int result = shake_hands(&self.stream)
        self.read_wants_write = self.stream.blocked & WRITING
        if result == 0:
            return HANDSHAKE_GOES_ON
        return HANDSHAKE_DONE if result > 0 else HANDSHAKE_FAILED

    cdef object failure(self):
        if self.stream.reason != NULL:
            return self.stream.reason.decode("utf-8", "replace")
        if self.stream.error:
            return os.strerror(self.stream.error)
        return "the client left" if self.stream.ended else "out of memory"

    cdef TLSFacts facts(self):
        cdef TLSEndpoint endpoint = self.endpoint
        cdef TLSFacts facts = self._facts
        cdef tuple agreed
        if facts is not None:
            return facts
        clients = client_certificates(&self.stream)
        agreed = stream_facts(&self.stream)
        if clients:
            self._facts = facts = _make_facts(agreed, server_certificate(&self.stream), clients)
            return facts
        key = (agreed[0], agreed[2], <size_t>certificate_pointer(&self.stream))
        facts = endpoint._facts.get(key)
        if facts is None:
            facts = endpoint._facts[key] = _make_facts(agreed, server_certificate(&self.stream), clients)
        self._facts = facts
        return facts

    cdef Py_ssize_t recv(self, char* data, size_t size) noexcept nogil:
        cdef Py_ssize_t count
        if self.ended:
            return receive(self.fd, data, size)
        count = read_stream(&self.stream, data, size)
        self.unread = self.stream.behind
        self.read_wants_write = self.stream.blocked & WRITING
        return count

    cdef Py_ssize_t send(self, const char* data, size_t size, bint more) noexcept nogil:
        cdef Py_ssize_t count
        if self.ended:
            return -EPIPE
        count = write_stream(&self.stream, data, size, more)
        self.write_wants_read = self.stream.blocked & READING
        return count

    cdef void shutdown(self) noexcept nogil:
        if self.stream.established and not self.stream.broken and not self.ended and not end_stream(&self.stream):
            self.shutdown_due = True
            return
        self.shutdown_due = False
        self.ended = True
        end_writing(self.fd)

    cdef void close(self) noexcept nogil:
        if self.fd < 0:
            return
        if self.stream.ssl != NULL:
            if self.stream.established and not self.stream.broken and not self.ended:
                end_stream(&self.stream)   # as far as the socket takes it
            free_stream(&self.stream)
        Transport.close(self)

    cdef void abort(self) noexcept nogil:
        if self.stream.ssl != NULL:
            free_stream(&self.stream)
        Transport.abort(self)


@cython.no_gc
cdef class MemoryTransport(TLSTransport):
    """Python's ssl between two memory BIOs. Whoever calls has the GIL, except for the handshake."""

    def __dealloc__(self):
        self.close()

    cdef int _begin(self) noexcept nogil:
        with gil:
            try:
                self.incoming = _ssl_module.MemoryBIO()
                self.outgoing = _ssl_module.MemoryBIO()
                self.tls = self.endpoint.contexts[0].wrap_bio(self.incoming, self.outgoing, server_side=True)
                self.unsent = b""
            except Exception as error:
                self.reason = str(error)
                return -1
        return 0

    cdef Handshake _go_on(self) noexcept nogil:
        with gil:
            return self._step()

    cdef Handshake _step(self) noexcept:
        cdef Py_ssize_t count
        try:
            while True:
                try:
                    self.tls.do_handshake()
                    self.established = True
                except _Want:
                    pass
                self.read_wants_write = not self._flush(False)
                if self.established:
                    return HANDSHAKE_DONE   # what is unsent goes before the first answer
                if self.read_wants_write:
                    return HANDSHAKE_GOES_ON
                count = self._receive()
                if count == -EAGAIN or count == -EWOULDBLOCK:
                    return HANDSHAKE_GOES_ON
                if count < 0:
                    self.reason = os.strerror(-count)
                    break
                if count == 0:
                    self.reason = "the client left"
                    break
        except _ssl_module.SSLCertVerificationError as error:
            self.reason = error.verify_message
            self._flush(False)
        except _ssl_module.SSLError as error:
            self.reason = (error.reason or str(error)).replace("_", " ").lower()
            self._flush(False)   # the alert
        except Exception as error:
            self.reason = str(error)
        self.broken = True
        return HANDSHAKE_FAILED

    cdef object failure(self):
        return self.reason

    cdef TLSFacts facts(self):
        cdef TLSEndpoint endpoint = self.endpoint
        cdef TLSFacts facts = self._facts
        if facts is not None:
            return facts
        suite, version, bits = self.tls.cipher()
        version = self.tls.version()
        number = int(getattr(_ssl_module.TLSVersion, version.replace(".", "_")))
        agreed = (number, version, endpoint._suites.get(suite, 0), suite, bits)
        own = self.tls.getpeercert(True)
        if own is None:
            facts = endpoint._facts.get(agreed)
            if facts is None:
                facts = endpoint._facts[agreed] = _make_facts(agreed, None, [])
        else:
            clients = [own]
            for der in self._chain():
                if der != own:
                    clients.append(der)
            facts = _make_facts(agreed, None, clients)
        self._facts = facts
        return facts

    def _chain(self):
        """DER of what the client sent."""
        if _get_chain is not None:
            return self.tls.get_unverified_chain()
        chain = self.tls._sslobj.get_unverified_chain() or ()
        ders = []
        for certificate in chain:
            ders.append(certificate.public_bytes(_ssl_module._ssl.ENCODING_DER))
        return ders

    # ------------------------------------------------------------------ between BIOs and socket

    cdef Py_ssize_t _receive(self) noexcept:
        """From the socket into `incoming`. 0: the end, which the BIO is not told, or a half-closed client gets no answer; -errno."""
        cdef char data[RECORD]
        cdef Py_ssize_t count = receive(self.fd, data, RECORD)
        self.drained = count < RECORD
        try:
            if count > 0:
                self.incoming.write(PyMemoryView_FromMemory(data, count, PyBUF_READ))
        except Exception:
            return -ENOMEM
        return count

    cdef bint _flush(self, bint more) noexcept:
        """From `outgoing` to the socket. False: it is full. A broken socket is for the next read to find."""
        cdef Py_ssize_t count
        try:
            while True:
                if len(self.unsent) == 0:
                    self.unsent = self.outgoing.read()
                    if len(self.unsent) == 0:
                        return True
                count = transmit(self.fd, PyBytes_AS_STRING(self.unsent), PyBytes_GET_SIZE(self.unsent), more)
                if count == -EAGAIN or count == -EWOULDBLOCK:
                    return False
                if count < 0:
                    self.broken = True
                    return True
                self.unsent = self.unsent[count:]
        except Exception:
            self.broken = True
            return True

    # ------------------------------------------------------------------ verbs

    cdef Py_ssize_t recv(self, char* data, size_t size) noexcept nogil:
        cdef Py_ssize_t count
        if self.ended:
            return receive(self.fd, data, size)
        with gil:
            self.working = True
            count = self._read(data, size)
            self.working = False
        return count

    cdef Py_ssize_t _read(self, char* data, size_t size) noexcept:
        cdef size_t total = 0
        cdef Py_ssize_t count
        cdef bytes piece
        self.unread = False
        try:
            while total < size:
                try:
                    piece = self.tls.read(size - total)
                except _Want:
                    piece = None
                except _End:
                    piece = b""
                self.read_wants_write = not self._flush(False)
                if piece is None:
                    count = self._receive()
                    if count > 0:
                        continue
                    self.unread = count == 0 and total > 0
                    if total:
                        return total
                    return -EAGAIN if count == -EWOULDBLOCK else count
                if len(piece) == 0:
                    self.unread = total > 0
                    return total
                memcpy(data + total, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
                total += PyBytes_GET_SIZE(piece)
                if self.drained and self.incoming.pending == 0 and self.tls.pending() == 0:
                    break
        except Exception:
            self.broken = True
            self._flush(False)
            self.unread = total > 0
            return total if total else -EPROTO
        return total

    cdef Py_ssize_t send(self, const char* data, size_t size, bint more) noexcept nogil:
        cdef Py_ssize_t count
        if self.ended:
            return -EPIPE
        with gil:
            self.working = True
            count = self._write(data, size, more)
            self.working = False
        return count

    cdef Py_ssize_t _write(self, const char* data, size_t size, bint more) noexcept:
        cdef Py_ssize_t count
        self.write_wants_read = False
        try:
            if self.accepted == 0:
                try:
                    self.accepted = self.tls.write(PyMemoryView_FromMemory(<char*>data, min(size, <size_t>RECORD), PyBUF_READ))
                except _ssl_module.SSLWantReadError:
                    self.write_wants_read = True
                    self._flush(more)
                    return -EAGAIN
            if not self._flush(more):
                return -EAGAIN
            if self.broken:
                return -EPIPE
            count = self.accepted
            self.accepted = 0
            return count
        except Exception:
            self.broken = True
            return -EPIPE

    cdef bint _say_goodbye(self) noexcept:
        """close_notify. False: the socket is full."""
        try:
            if not self.shutdown_due:
                try:
                    self.tls.unwrap()
                except _ssl_module.SSLError:
                    pass   # it waits for the client's; we do not
            return self._flush(False)
        except Exception:
            return True

    cdef void shutdown(self) noexcept nogil:
        if self.established and not self.broken and not self.ended:
            with gil:
                self.shutdown_due = not self._say_goodbye()
            if self.shutdown_due:
                return
        self.ended = True
        end_writing(self.fd)

    cdef void close(self) noexcept nogil:
        if self.fd < 0:
            return
        if self.established and not self.broken and not self.ended:
            with gil:
                self._say_goodbye()
        Transport.close(self)
