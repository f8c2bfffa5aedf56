# What trusted proxies say of a request: out of X-Forwarded-* or Forwarded (RFC 7239). No sockets, no state between requests.
from libc.stdint cimport uint16_t

from duckfast._parser cimport Head, Span
from duckfast._trust cimport Address, Proxies


cdef enum Client:
    CLIENT_NOT_TOLD   # nothing was said of it: the peer is the client
    CLIENT_TOLD
    CLIENT_UNKNOWN    # hidden, or unreadable: nobody can say who it is


cdef class Forwarded:
    cdef readonly Client client
    cdef readonly str client_host      # "" unless CLIENT_TOLD
    cdef readonly uint16_t client_port # 0: not known
    cdef readonly str scheme           # "http" or "https"; None: not told, and so with all that follow
    cdef readonly bytes host           # what stands for the Host field
    cdef readonly str server_host      # without its port
    cdef readonly object server_port   # int
    cdef readonly str prefix           # begins with "/" and does not end with one; "": told to be none
    cdef readonly bint contradictory   # two fields tell different schemes: the request is to be refused


# None when the head's forwarded fields say nothing that can be believed. The peer must be a trusted one.
cdef Forwarded read_forwarded(Head* head, Proxies proxies)

# Lets fields with underscores in that a trusted peer may send; those of the same name with dashes are dropped for them.
cdef int admit_underscores(Head* head, Proxies proxies) except -1
