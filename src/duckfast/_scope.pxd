# The ASGI scope of an HTTP request, made directly from the spans of its head.
from duckfast._parser cimport Head
from duckfast._reactor cimport Channel


cdef class ScopeBuilder:
    # per process: what every scope of a service has in common
    cdef dict _template       # constant values in place, so that a scope is one copy and a few stores
    cdef dict _asgi
    cdef dict _extensions     # of an HTTP/1.1 request
    cdef dict _state          # the lifespan's namespace; None: there is none
    cdef str _root_path
    cdef object _host, _port  # of the server in the template, the last one asked for: listeners are few

    cdef dict build(self, Channel channel, Head* head)
    cdef int _add_addresses(self, dict scope, Channel channel) except -1
    cdef str _path(self, Head* head)
    cdef dict _supported(self, Head* head)
