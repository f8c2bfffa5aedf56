# The ASGI scope of an HTTP request, made directly from the spans of its head.
from cpython.object cimport PyObject

from duckfast._parser cimport Head
from duckfast._reactor cimport Channel


cdef struct Part:
    # What a dict inside of a scope holds when nobody has changed it.
    int count
    PyObject* keys[3]
    PyObject* values[3]   # None: an empty dict


cdef class ScopeBuilder:
    # per process: what every scope of a service has in common
    cdef dict _template       # constant values in place, so that a scope is one copy and a few stores
    cdef dict _asgi
    cdef dict _extensions     # of an HTTP/1.1 request
    cdef Part _asgi_part
    cdef Part _plain_part
    cdef dict _state          # the lifespan's namespace; None: there is none
    cdef str _root_path
    cdef bint _prepends       # the root path in front of the path
    cdef bint _strips         # the root path from a path that begins with it
    cdef object _host, _port  # of the server in the template, the last one asked for: listeners are few

    # changing
    cdef list _asgis          # dicts of scopes that are gone, as good as new
    cdef list _plain          # likewise extensions, of requests that read no trailers
    cdef list _secure         # likewise, of such requests over TLS

    cdef dict build(self, Channel channel, Head* head)
    cdef dict build_websocket(self, Channel channel, Head* head)   # `subprotocols` is the caller's to fill in
    cdef int take_back(self, dict scope) except -1
    cdef int _add_addresses(self, dict scope, Channel channel) except -1
    cdef int _add_forwarded(self, dict scope, Channel channel) except -1
    cdef str _path(self, Head* head)
    cdef str _place(self, dict scope, str root_path, str path)
    cdef dict _supported(self, Head* head)
    cdef dict _supported_by_tls(self, Channel channel, Head* head)
