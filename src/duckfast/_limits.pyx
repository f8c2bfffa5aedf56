"""Limits (what a connection may do) and Counters (where it counts). No configuration, no I/O: plain numbers."""

import weakref

cdef int64_t NANOSECONDS = 1_000_000_000

_counters = weakref.WeakSet()


cdef int64_t _nanoseconds(object seconds) except? -1:
    return 0 if seconds is None else <int64_t>(float(seconds) * NANOSECONDS)


cdef int64_t _bound(object number) except? -2:
    return -1 if number is None else <int64_t>number


cdef class Limits:
    """The bounds of one listener's connections.

    Sizes are bytes, times are seconds (kept as nanoseconds), None means no limit; a keep-alive time of 0 means no keep-alive. The defaults are those of the
    settings table; every one names its precedent there.
    """

    def __init__(
        self, *, request_line=8190, field_line=8190, fields=100, head=65536, body=None, chunk_extensions=16384,
        trailers=8192, drain=65536, body_buffer=65536, connections=None, head_time=10.0, body_time=30.0,
        keep_alive_time=5.0, write_time=60.0, drain_time=5.0, request_time=None,
        handshakes=1024, handshake_time=10.0,
    ):
        self.request_line = request_line
        self.field_line = field_line
        self.fields = fields
        self.head = head
        self.body = _bound(body)
        self.chunk_extensions = chunk_extensions
        self.trailers = trailers
        self.drain = drain
        self.body_buffer = body_buffer
        self.connections = _bound(connections)
        self.head_time = _nanoseconds(head_time)
        self.body_time = _nanoseconds(body_time)
        self.keep_alive_time = _nanoseconds(keep_alive_time)
        self.keep_alive = keep_alive_time is None or self.keep_alive_time > 0
        self.write_time = _nanoseconds(write_time)
        self.drain_time = _nanoseconds(drain_time)
        self.request_time = _nanoseconds(request_time)
        self.handshakes = handshakes
        self.handshake_time = _nanoseconds(handshake_time)


cdef class Counters:
    """What one reactor has seen since it started. Written by the thread that owns the reactor, read by anyone."""

    def __cinit__(self):
        _counters.add(self)

    def snapshot(self) -> dict[str, int]:
        """The counters by name; connections_open is the difference of the two connection counters."""
        return {
            "connections_accepted": self.accepted,
            "connections_open": self.accepted - self.closed,
            "requests": self.requests,
            "requests_refused": self.refused,
            "timeouts": self.timeouts,
            "fields_dropped": self.dropped_fields,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "responses_2xx": self.responses[2],
            "responses_3xx": self.responses[3],
            "responses_4xx": self.responses[4],
            "responses_5xx": self.responses[5],
            "app_errors": self.app_errors,
            "tls_handshakes": self.handshakes,
            "tls_handshakes_failed": self.handshakes_failed,
        }


def totals() -> dict[str, int]:
    """The live counters of this process, summed over its reactors."""
    total = Counters.__new__(Counters).snapshot()
    for counters in list(_counters):
        for name, number in counters.snapshot().items():
            total[name] += number
    return total
