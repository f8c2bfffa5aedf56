"""Field names made once: ids for the names rules look at, and interned spellings for the usual ones. Knows no values."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from "Python.h":
    bytes PyBytes_FromStringAndSize(const char* data, Py_ssize_t size)
    char* PyBytes_AS_STRING(object data)
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void* PyUnicode_DATA(object text)

# In the order of the enum Name; what follows the named ones is what browsers, proxies, API clients and tracers send.
_NAMES = (
    b"host", b"content-length", b"content-type", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade",
    b"expect", b"cookie", b"te", b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
    b"x-forwarded-port", b"x-forwarded-prefix", b"trailer", b"date", b"server", b"proxy", b"proxy-connection",
    b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol", b"sec-websocket-extensions",
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"access-control-request-headers",
    b"access-control-request-method", b"age", b"allow", b"alt-used", b"authorization", b"b3", b"baggage",
    b"cache-control", b"cdn-loop", b"cf-connecting-ip", b"cf-ipcountry", b"cf-ray", b"cf-visitor", b"content-encoding",
    b"content-language", b"content-location", b"content-disposition", b"content-range", b"device-memory", b"dnt",
    b"downlink", b"dpr", b"early-data", b"ect", b"etag", b"expires", b"from", b"http2-settings",
    b"idempotency-key", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
    b"last-event-id", b"last-modified", b"link", b"location", b"max-forwards", b"origin", b"pragma", b"prefer",
    b"priority", b"proxy-authorization", b"purpose", b"range", b"referer", b"rtt", b"save-data", b"sec-ch-ua",
    b"sec-ch-ua-arch", b"sec-ch-ua-mobile", b"sec-ch-ua-model", b"sec-ch-ua-platform", b"sec-ch-ua-platform-version",
    b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"sec-gpc", b"sec-purpose",
    b"sec-websocket-accept", b"set-cookie", b"service-worker-navigation-preload", b"traceparent", b"tracestate",
    b"true-client-ip", b"upgrade-insecure-requests", b"user-agent", b"vary", b"via", b"viewport-width", b"warning",
    b"width", b"x-amz-cf-id", b"x-amzn-trace-id", b"x-api-key", b"x-b3-sampled", b"x-b3-spanid", b"x-b3-traceid",
    b"x-client-ip", b"x-cluster-client-ip", b"x-correlation-id", b"x-csrf-token", b"x-csrftoken", b"x-forwarded",
    b"x-forwarded-client-cert", b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-http-method-override",
    b"x-original-forwarded-for", b"x-original-uri", b"x-original-url", b"x-real-ip", b"x-request-id",
    b"x-request-start", b"x-requested-with", b"x-scheme", b"x-xsrf-token",
)

cdef enum:
    NAME_ROOM = 40      # bytes; the longest known name has 33, rounded up to whole words
    NAMES_ROOM = 192    # known names, and id 0
    SLOTS = 1024        # of the hash table: about one in eight is taken, so a probe seldom meets a stranger


cdef struct KnownName:
    uint32_t size
    char lower[NAME_ROOM]
    char fold[NAME_ROOM]  # 0x20 under each letter: or-ing it in lower-cases letters and leaves other bytes as they are


cdef KnownName _known[NAMES_ROOM]
cdef uint16_t _slots[SLOTS]
# One reference each is held for the life of the process.
cdef PyObject* _asgi_names[NAMES_ROOM]
cdef PyObject* _wsgi_names[NAMES_ROOM]


cdef inline uint32_t _slot(const char* name, size_t size) noexcept nogil:
    # First, middle and last letter in lower case, and the length, tell nearly all known names apart.
    cdef uint32_t first = <uint8_t>name[0] | 0x20
    cdef uint32_t middle = <uint8_t>name[size >> 1] | 0x20
    cdef uint32_t last = <uint8_t>name[size - 1] | 0x20
    return (first * 131 + middle * 1543 + last * 37 + <uint32_t>size * 353) & (SLOTS - 1)


cdef inline uint64_t _word(const char* data) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, data, 8)
    return word


cdef inline bint _same(const KnownName* known, const char* name, size_t size) noexcept nogil:
    cdef size_t index = 0
    if known.size != size:
        return False
    if size < 8:
        while index < size:
            if (name[index] | known.fold[index]) != known.lower[index]:
                return False
            index += 1
        return True
    while index + 8 < size:
        if (_word(name + index) | _word(known.fold + index)) != _word(known.lower + index):
            return False
        index += 8
    index = size - 8  # the last word overlaps the one before
    return (_word(name + index) | _word(known.fold + index)) == _word(known.lower + index)


cdef uint16_t find_name(const char* name, size_t size) noexcept nogil:
    cdef uint32_t slot
    cdef uint16_t name_id
    if size == 0:
        return NAME_UNKNOWN
    slot = _slot(name, size)
    while True:
        name_id = _slots[slot]
        if name_id == NAME_UNKNOWN or _same(&_known[name_id], name, size):
            return name_id
        slot = (slot + 1) & (SLOTS - 1)


cdef bytes asgi_name(uint16_t name_id, const char* name, size_t size):
    cdef bytes made
    cdef char* into
    cdef size_t index
    if name_id != NAME_UNKNOWN:
        return <bytes>_asgi_names[name_id]
    made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    into = PyBytes_AS_STRING(made)
    for index in range(size):
        into[index] = name[index] | 0x20 if c"A" <= name[index] <= c"Z" else name[index]
    return made


cdef str wsgi_name(uint16_t name_id, const char* name, size_t size):
    cdef str made
    cdef char* into
    cdef char letter
    cdef size_t index
    if name_id != NAME_UNKNOWN:
        return <str>_wsgi_names[name_id]
    made = PyUnicode_New(<Py_ssize_t>size + 5, 127)  # a token is ASCII
    into = <char*>PyUnicode_DATA(made)
    memcpy(into, b"HTTP_", 5)
    for index in range(size):
        letter = name[index] & 0x7f
        if c"a" <= letter <= c"z":
            letter &= 0x5f
        into[5 + index] = c"_" if letter == c"-" else letter
    return made


cdef void _keep(PyObject** where, object interned) noexcept:
    Py_INCREF(interned)
    where[0] = <PyObject*>interned


def _fill() -> None:
    from sys import intern

    cdef uint32_t slot
    cdef size_t index
    cdef bytes name
    cdef str made
    cdef KnownName* known
    cdef int name_id
    assert len(_NAMES) < NAMES_ROOM and max(map(len, _NAMES)) <= NAME_ROOM and len(set(_NAMES)) == len(_NAMES)
    memset(_slots, 0, sizeof(_slots))
    for name_id, name in enumerate(_NAMES, 1):
        known = &_known[name_id]
        known.size = <uint32_t>len(name)
        memcpy(known.lower, PyBytes_AS_STRING(name), len(name))
        for index in range(known.size):
            known.fold[index] = 0x20 if c"a" <= known.lower[index] <= c"z" else 0
        slot = _slot(known.lower, known.size)
        while _slots[slot]:
            slot = (slot + 1) & (SLOTS - 1)
        _slots[slot] = <uint16_t>name_id
        made = name.decode("ascii").upper().replace("-", "_")
        if name_id not in (NAME_CONTENT_LENGTH, NAME_CONTENT_TYPE):
            made = "HTTP_" + made
        _keep(&_asgi_names[name_id], name)
        _keep(&_wsgi_names[name_id], intern(made))
    assert _NAMES[NAME_SEC_WEBSOCKET_EXTENSIONS - 1] == b"sec-websocket-extensions"


_fill()


def lookup(bytes name) -> tuple[int, bytes, str]:
    """The id of a field name (0 when it is none of the known ones) and its ASGI and WSGI spellings."""
    cdef uint16_t name_id = find_name(name, <size_t>len(name))
    return name_id, asgi_name(name_id, name, <size_t>len(name)), wsgi_name(name_id, name, <size_t>len(name))


def known_names() -> tuple[bytes, ...]:
    """The names that have interned spellings, in the order of their ids, the first one being id 1."""
    return _NAMES
