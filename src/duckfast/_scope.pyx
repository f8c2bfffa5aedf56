"""The ASGI scope of an HTTP request: a fresh dict, made directly from the spans of a parsed head.

Owns what every key holds (ASGI HTTP 2.5, "connection scope"). Refuses to know tasks, bodies and responses.

`path` is the percent-decoded target, read as UTF-8, with `root_path` in front of it, left alone or taken off; bytes that are no UTF-8 become U+FFFD, because a lone
surrogate would fail later, in the first template or log that encodes it. `raw_path` keeps the exact bytes.
"""

import sys

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_Copy, PyDict_GetItem
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeLatin1, PyUnicode_DecodeUTF8
from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from duckfast._forwarded cimport Forwarded
from duckfast._headers cimport asgi_name
from duckfast._parser cimport Field, Span, unquote

cdef extern from "Python.h":
    # With pointers, so that asking for a reference count does not change it.
    Py_ssize_t Py_REFCNT(PyObject* thing)
    bint PyDict_CheckExact(PyObject* thing)
    Py_ssize_t PyDict_GET_SIZE(PyObject* mapping)
    bint PyDict_Next(PyObject* mapping, Py_ssize_t* place, PyObject** key, PyObject** value)

cdef enum:
    SMALL_PATH = 1024   # bytes decoded on the stack; longer paths are rare
    MOST_SPARE = 64     # unused dicts kept: as many as requests usually run at a time


cdef str K_TLS = sys.intern("tls")


cdef class ScopeBuilder:
    """Makes scopes. state: the namespace that the lifespan filled, copied for every request; None when there is none.

    root_path_mode: `prefix` puts root_path in front of every path, `set` leaves paths alone, `strip` takes it off.
    """

    def __init__(self, str root_path, str root_path_mode, dict state, str spec_version):
        self._prepends = root_path_mode == "prefix"
        self._strips = root_path_mode == "strip"
        self._asgis = []
        self._plain = []
        self._secure = []
        self._host = self._port = None
        self._root_path = root_path.rstrip("/")
        self._state = state
        self._asgi = {"version": "3.0", "spec_version": spec_version}
        self._extensions = {
            "http.response.pathsend": None,
            "http.response.zerocopysend": None,
            "http.response.early_hint": None,
        }
        _remember(&self._asgi_part, self._asgi)
        _remember(&self._plain_part, self._extensions)
        self._template = {
            "type": "http",
            "asgi": None,
            "http_version": "1.1",
            "server": None,
            "client": None,
            "scheme": "http",
            "root_path": self._root_path,
            "method": "GET",
            "path": None,
            "raw_path": None,
            "query_string": b"",
            "headers": None,
            "extensions": None,
        }
        if state is not None:
            self._template["state"] = None

    cdef dict build(self, Channel channel, Head* head):
        cdef dict scope = PyDict_Copy(self._template)
        cdef str root_path = self._root_path
        cdef str path = self._path(head)
        cdef dict extensions
        cdef str scheme
        scope["asgi"] = self._asgis.pop() if len(self._asgis) != 0 else PyDict_Copy(self._asgi)
        if head.minor == 0:
            scope["http_version"] = "1.0"
        self._add_addresses(scope, channel)
        scheme = channel.scheme()
        if scheme != "http":
            scope["scheme"] = scheme
        if channel.forwarded is not None:
            self._add_forwarded(scope, channel)
            root_path = scope["root_path"]
        if head.method.size != 3 or memcmp(head.method.data, b"GET", 3) != 0:
            scope["method"] = _method(&head.method)
        scope["raw_path"] = PyBytes_FromStringAndSize(head.path.data, head.path.size)
        # The asterisk of `OPTIONS *` names the server, not a place below a prefix.
        scope["path"] = path if not root_path or head.path.data[0] != c"/" else self._place(scope, root_path, path)
        if head.query.size != 0:
            scope["query_string"] = PyBytes_FromStringAndSize(head.query.data, head.query.size)
        scope["headers"] = _headers(head)
        extensions = self._supported(head) if channel.security == 0 else self._supported_by_tls(channel, head)
        scope["extensions"] = extensions
        if self._state is not None:
            scope["state"] = self._state.copy()
        return scope

    cdef dict build_websocket(self, Channel channel, Head* head):
        """The scope of the request that asks for a websocket (ASGI WebSocket 2.5, "connection scope")."""
        cdef dict scope = self.build(channel, head)
        cdef dict extensions = {"websocket.http.response": {}}
        if channel.security != 0:
            extensions[K_TLS] = PyDict_Copy(channel.tls().extension)
        scope["type"] = "websocket"
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["extensions"] = extensions
        scope["subprotocols"] = []
        del scope["method"]   # it is always GET
        return scope

    cdef int _add_addresses(self, dict scope, Channel channel) except -1:
        host = channel.server_host()
        port = channel.server_port()
        if host is not self._host or port != self._port:
            self._host, self._port = host, port
            self._template["server"] = scope["server"] = (host, port)
        host = channel.client_host()
        if host:
            scope["client"] = (host, channel.client_port())
        return 0

    cdef int _add_forwarded(self, dict scope, Channel channel) except -1:
        """What a trusted proxy says in place of what the connection shows; Host has been replaced in the head."""
        cdef Forwarded told = channel.forwarded
        if told.scheme is not None:
            scope["scheme"] = told.scheme
        if told.server_port is not None:
            scope["server"] = (channel.server_host() if told.server_host is None else told.server_host, told.server_port)
        if told.prefix is not None:
            scope["root_path"] = told.prefix
        return 0

    cdef str _path(self, Head* head):
        if head.path_escaped:
            return _unquote(&head.path)
        return PyUnicode_DecodeUTF8(head.path.data, head.path.size, "replace")

    cdef str _place(self, dict scope, str root_path, str path):
        if self._prepends:
            return root_path + path
        if not self._strips:
            return path
        if path.startswith(root_path) and (len(path) == len(root_path) or path[len(root_path)] == "/"):
            return path[len(root_path):] or "/"
        scope["root_path"] = ""   # the request did not come by way of the prefix
        return path

    cdef dict _supported(self, Head* head):
        """What this very request can be answered with; nested dicts are fresh, since middleware may write into them."""
        cdef dict extensions
        cdef bint plain = head.minor == 1 and not head.te_trailers
        if plain and len(self._plain) != 0:
            return self._plain.pop()
        extensions = PyDict_Copy(self._extensions)
        extensions["http.response.pathsend"] = {}
        extensions["http.response.zerocopysend"] = {}
        if head.minor == 0:
            del extensions["http.response.early_hint"]   # RFC 9110 15.2: no 1xx to a 1.0 client
            return extensions
        extensions["http.response.early_hint"] = {}
        if head.te_trailers:   # RFC 9110 6.5.1: only to who said it reads them; 1.1, because they need chunks
            extensions["http.response.trailers"] = {}
        return extensions

    cdef dict _supported_by_tls(self, Channel channel, Head* head):
        cdef dict extensions
        if head.minor == 1 and not head.te_trailers and len(self._secure) != 0:
            extensions = self._secure.pop()
        else:
            extensions = self._supported(head)
        extensions[K_TLS] = PyDict_Copy(channel.tls().extension)
        return extensions

    cdef int take_back(self, dict scope) except -1:
        """What the next scope may have of one that only the caller still holds: dicts that nobody has, and nobody changed."""
        cdef PyObject* found
        if Py_REFCNT(<PyObject*>scope) != 1:
            return 0
        found = PyDict_GetItem(scope, "asgi")
        if _is_as_made(found, &self._asgi_part) and len(self._asgis) < MOST_SPARE:
            self._asgis.append(<object>found)
        found = PyDict_GetItem(scope, "extensions")
        if _is_as_made(found, &self._plain_part):
            if len(self._plain) < MOST_SPARE:
                self._plain.append(<object>found)
        elif _is_as_made(found, &self._plain_part, True) and len(self._secure) < MOST_SPARE:
            (<dict>found)[K_TLS] = None   # the facts of that connection stay with it
            self._secure.append(<object>found)
        return 0


cdef int _remember(Part* part, dict template) except -1:
    part.count = 0
    for key, value in template.items():
        # Borrowed: the template, which is never changed, keeps them.
        part.keys[part.count] = <PyObject*>key
        part.values[part.count] = <PyObject*>value
        part.count += 1
    return 0


cdef bint _is_as_made(PyObject* found, Part* part, bint with_tls=False) noexcept:
    """Whether the scope alone has this dict, and its keys and values are those we gave it (None stands for an empty dict).

    with_tls: and `tls` behind them, whatever it is.
    """
    cdef PyObject* key
    cdef PyObject* value
    cdef Py_ssize_t place = 0
    cdef int index
    if found == NULL or Py_REFCNT(found) != 1 or not PyDict_CheckExact(found) or PyDict_GET_SIZE(found) != part.count + with_tls:
        return False
    for index in range(part.count):
        if not PyDict_Next(found, &place, &key, &value) or key != part.keys[index]:
            return False
        if part.values[index] != <PyObject*>None:
            if value != part.values[index]:
                return False
        elif Py_REFCNT(value) != 1 or not PyDict_CheckExact(value) or PyDict_GET_SIZE(value) != 0:
            return False
    return not with_tls or PyDict_Next(found, &place, &key, &value) and key == <PyObject*>K_TLS


cdef str _method(Span* method):
    cdef const char* data = method.data
    if method.size == 3 and memcmp(data, b"PUT", 3) == 0:
        return "PUT"
    if method.size == 4:
        if memcmp(data, b"POST", 4) == 0:
            return "POST"
        if memcmp(data, b"HEAD", 4) == 0:
            return "HEAD"
    return PyUnicode_DecodeLatin1(data, method.size, NULL)


cdef str _unquote(Span* path):
    cdef char small[SMALL_PATH]
    cdef char* decoded = small
    if path.size > SMALL_PATH:
        decoded = <char*>PyMem_Malloc(path.size)
        if decoded == NULL:
            raise MemoryError
    try:
        return PyUnicode_DecodeUTF8(decoded, unquote(path.data, path.size, decoded), "replace")
    finally:
        if decoded != small:
            PyMem_Free(decoded)


cdef tuple _pair(object name, object value):
    cdef tuple pair = PyTuple_New(2)
    Py_INCREF(name)
    PyTuple_SET_ITEM(pair, 0, name)
    Py_INCREF(value)
    PyTuple_SET_ITEM(pair, 1, value)
    return pair


cdef list _headers(Head* head):
    """Order and duplicates as sent. Names with an underscore are left out: a gateway behind us may read "_" and "-" as one."""
    cdef bint host_missing = head.authority.data != NULL and head.host < 0
    cdef list headers
    cdef uint32_t count = host_missing
    cdef uint32_t place = 0
    cdef uint32_t index
    cdef Field* field
    cdef Span value
    for index in range(head.field_count):
        count += not head.fields[index].underscore
    headers = PyList_New(count)
    if host_missing:
        place = _put(headers, place, b"host", &head.authority)
    for index in range(head.field_count):
        field = &head.fields[index]
        if field.underscore:
            continue
        value = field.value
        # RFC 9112 3.2.2: the authority of an absolute-form target stands in for Host.
        if head.authority.data != NULL and <int>index == head.host:
            value = head.authority
        place = _put(headers, place, asgi_name(field.name_id, field.name.data, field.name.size), &value)
    return headers


cdef uint32_t _put(list headers, uint32_t place, bytes name, Span* value) except 0:
    cdef tuple pair = _pair(name, PyBytes_FromStringAndSize(value.data, value.size))
    Py_INCREF(pair)
    PyList_SET_ITEM(headers, place, pair)
    return place + 1
