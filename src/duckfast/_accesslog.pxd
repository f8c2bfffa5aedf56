# Access lines, formatted without Python objects into one buffer that a thread of its own writes in batches.
from libc.stdint cimport int64_t, uint64_t



cdef class AccessLog:
    cdef readonly int fd
    cdef void* _state      # the C side: two buffers, a mutex, a condition
    cdef object _thread

    # client: its printable address; request: "GET /path HTTP/1.1" as it came, escaped while written; time in nanoseconds
    cdef void write_line(
        self, const char* client, size_t client_size, const char* request, size_t request_size,
        int status, uint64_t body_size, int64_t duration) noexcept nogil
