# UTF-8 (RFC 3629) of messages: checked as it comes, made into a str, and a str made into it. Pure functions over memory.
from libc.stdint cimport uint8_t


cdef struct Text:
    # What has been seen of one text; all zero in the beginning.
    uint8_t state        # 0: between characters; else a character has begun, or all is lost
    uint8_t highest      # its largest byte, which tells how wide its str is
    size_t characters


cdef bint check_text(Text* text, const char* data, size_t size) noexcept nogil   # the next bytes; False: no text, whatever follows

# The str of bytes that were all checked, and whose last character is whole.
cdef str build_text(const Text* text, const char* data, size_t size)

cdef str read_text(const char* data, size_t size)   # of all its bytes at once; None: they are no text

# The bytes of a str, and who owns them: a new object, or the str itself. UnicodeEncodeError: it holds half of a surrogate pair.
cdef object encode_text(object text, const char** data, Py_ssize_t* size)
