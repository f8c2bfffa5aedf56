"""UTF-8 of websocket messages: an incremental check, and both conversions. Knows memory and str objects; no frames.

CPython's own conversions take a character at a time once a text has one that is no ASCII. Most such texts (JSON with names in it)
have few, with runs of ASCII between them, which go sixteen at a time here: half the time. For short texts, and those
that are mostly something else, CPython's are the faster ones, and used.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)
    void* PyUnicode_DATA(object text)
    int PyUnicode_KIND(object text)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #if PY_VERSION_HEX < 0x030C0000
    #define df_has_characters(text) PyUnicode_IS_READY(text)
    #else
    #define df_has_characters(text) 1   /* the str objects that got theirs when first asked are gone */
    #endif

    /* UTF-8 as an automaton whose state is a number of bits to shift by: a byte's word holds, six bits each, where it leads to from
       every state, so a step is one shift and never a branch to guess wrong. States: between characters, hopeless, one, two or three
       more bytes, and behind E0, ED, F0 and F4, whose next byte is limited (the table of well-formed sequences, Unicode 3.9 D92). */
    enum { DF_BETWEEN, DF_HOPELESS, DF_ONE, DF_TWO, DF_THREE, DF_E0, DF_ED, DF_F0, DF_F4, DF_STATES };
    static uint64_t df_utf8_steps[256];

    static int df_utf8_next(int state, int byte) {
        int tail = byte >= 0x80 && byte <= 0xbf;
        switch (state) {
        case DF_BETWEEN:
            return byte < 0x80 ? DF_BETWEEN : byte < 0xc2 ? DF_HOPELESS : byte < 0xe0 ? DF_ONE : byte == 0xe0 ? DF_E0
                : byte == 0xed ? DF_ED : byte < 0xf0 ? DF_TWO : byte == 0xf0 ? DF_F0 : byte < 0xf4 ? DF_THREE
                : byte == 0xf4 ? DF_F4 : DF_HOPELESS;
        case DF_ONE: return tail ? DF_BETWEEN : DF_HOPELESS;
        case DF_TWO: return tail ? DF_ONE : DF_HOPELESS;
        case DF_THREE: return tail ? DF_TWO : DF_HOPELESS;
        case DF_E0: return tail && byte >= 0xa0 ? DF_ONE : DF_HOPELESS;
        case DF_ED: return tail && byte < 0xa0 ? DF_ONE : DF_HOPELESS;
        case DF_F0: return tail && byte >= 0x90 ? DF_TWO : DF_HOPELESS;
        case DF_F4: return tail && byte < 0x90 ? DF_TWO : DF_HOPELESS;
        }
        return DF_HOPELESS;
    }
    static void df_make_utf8_steps(void) {
        int byte, state;
        for (byte = 0; byte < 256; byte++)
            for (state = 0; state < DF_STATES; state++)
                df_utf8_steps[byte] |= (uint64_t)(6 * df_utf8_next(state, byte)) << 6 * state;
    }
    static int df_check_utf8(uint8_t *state, uint8_t *highest, size_t *characters, const uint8_t *data, size_t size) {
        const uint8_t *end = data + size;
        uint64_t at = *state;
        size_t count = 0;
        uint8_t top = *highest;
        while (data < end) {
            const uint8_t *stop = end - data > 16 ? data + 16 : end;
            if ((at & 63) == 6 * DF_BETWEEN) {
                for (; end - data >= 16; data += 16, count += 16) {
                    uint64_t pieces[2];
                    memcpy(pieces, data, 16);
                    if ((pieces[0] | pieces[1]) & 0x8080808080808080ULL) break;
                }
                stop = end - data > 16 ? data + 16 : end;
            }
            for (; data < stop; data++) {
                at = df_utf8_steps[*data] >> (at & 63);
                count += (*data & 0xc0) != 0x80;
                top = *data > top ? *data : top;
            }
        }
        *characters += count;
        *highest = top;
        *state = (uint8_t)(at & 63);
        return *state != 6 * DF_HOPELESS;
    }

    enum { DF_SAMPLE = 512 };

    /* For each width of a str: characters of checked bytes; whether more than one in sixteen of a sample is no ASCII; how many
       bytes characters become (0: one is half of a surrogate pair, which is no character); those bytes. */
    #define DF_CONVERSIONS(name, character)                                                                                     \\
    static void df_decode_##name(character *restrict out, const uint8_t *data, size_t size) {                                   \\
        const uint8_t *end = data + size;                                                                                       \\
        while (data < end) {                                                                                                    \\
            if (*data < 0x80) {                                                                                                 \\
                for (; end - data >= 16; data += 16, out += 16) {                                                               \\
                    uint64_t pieces[2];                                                                                         \\
                    int index;                                                                                                  \\
                    memcpy(pieces, data, 16);                                                                                   \\
                    if ((pieces[0] | pieces[1]) & 0x8080808080808080ULL) break;                                                 \\
                    for (index = 0; index < 16; index++) out[index] = data[index];                                              \\
                }                                                                                                               \\
                while (data < end && *data < 0x80) *out++ = *data++;                                                            \\
            } else if (*data < 0xe0) {                                                                                          \\
                *out++ = (character)((data[0] & 0x1f) << 6 | (data[1] & 0x3f));                                                 \\
                data += 2;                                                                                                      \\
            } else if (*data < 0xf0) {                                                                                          \\
                *out++ = (character)((data[0] & 0x0f) << 12 | (data[1] & 0x3f) << 6 | (data[2] & 0x3f));                        \\
                data += 3;                                                                                                      \\
            } else {                                                                                                            \\
                *out++ = (character)((data[0] & 7) << 18 | (data[1] & 0x3f) << 12 | (data[2] & 0x3f) << 6 | (data[3] & 0x3f));  \\
                data += 4;                                                                                                      \\
            }                                                                                                                   \\
        }                                                                                                                       \\
    }                                                                                                                           \\
    static int df_is_dense_##name(const character *in) {                                                                        \\
        int index, wide = 0;                                                                                                    \\
        for (index = 0; index < DF_SAMPLE; index++) wide += in[index] >= 0x80;                                                  \\
        return wide > DF_SAMPLE / 16;                                                                                           \\
    }                                                                                                                           \\
    static inline int df_is_ascii_##name(const character *in) {                                                                 \\
        uint64_t pieces[2 * sizeof(character)], seen = 0;                                                                       \\
        size_t index;                                                                                                           \\
        memcpy(pieces, in, sizeof pieces);                                                                                      \\
        for (index = 0; index < 2 * sizeof(character); index++) seen |= pieces[index];                                          \\
        return !(seen & ~(uint64_t)0 / (character)~(character)0 * (character)~(character)0x7f);                                 \\
    }                                                                                                                           \\
    static size_t df_measure_##name(const character *in, size_t length) {                                                       \\
        size_t size = length, place;                                                                                            \\
        uint32_t halves = 0;                                                                                                    \\
        for (place = 0; length - place >= 16; place += 16) {                                                                    \\
            uint32_t more = 0;                                                                                                  \\
            int index;                                                                                                          \\
            if (df_is_ascii_##name(in + place)) continue;                                                                       \\
            for (index = 0; index < 16; index++) {                                                                              \\
                uint32_t point = in[place + index];                                                                             \\
                halves |= (point & ~(uint32_t)0x7ff) == 0xd800;                                                                 \\
                more += (point >= 0x80) + (point >= 0x800) + (point >= 0x10000);                                                \\
            }                                                                                                                   \\
            size += more;                                                                                                       \\
        }                                                                                                                       \\
        for (; place < length; place++) {                                                                                       \\
            uint32_t point = in[place];                                                                                         \\
            halves |= (point & ~(uint32_t)0x7ff) == 0xd800;                                                                     \\
            size += (point >= 0x80) + (point >= 0x800) + (point >= 0x10000);                                                    \\
        }                                                                                                                       \\
        return halves ? 0 : size;                                                                                               \\
    }                                                                                                                           \\
    static void df_encode_##name(char *restrict out, const character *restrict in, size_t length) {                             \\
        const character *end = in + length;                                                                                     \\
        while (in < end) {                                                                                                      \\
            uint32_t point = *in;                                                                                               \\
            if (point < 0x80) {                                                                                                 \\
                for (; end - in >= 16 && df_is_ascii_##name(in); in += 16, out += 16) {                                         \\
                    int index;                                                                                                  \\
                    for (index = 0; index < 16; index++) out[index] = (char)in[index];                                          \\
                }                                                                                                               \\
                while (in < end && *in < 0x80) *out++ = (char)*in++;                                                            \\
                continue;                                                                                                       \\
            }                                                                                                                   \\
            if (point < 0x800) {                                                                                                \\
                *out++ = (char)(0xc0 | point >> 6);                                                                             \\
            } else {                                                                                                            \\
                if (point < 0x10000) {                                                                                          \\
                    *out++ = (char)(0xe0 | point >> 12);                                                                        \\
                } else {                                                                                                        \\
                    *out++ = (char)(0xf0 | point >> 18);                                                                        \\
                    *out++ = (char)(0x80 | (point >> 12 & 0x3f));                                                               \\
                }                                                                                                               \\
                *out++ = (char)(0x80 | (point >> 6 & 0x3f));                                                                    \\
            }                                                                                                                   \\
            *out++ = (char)(0x80 | (point & 0x3f));                                                                             \\
            in++;                                                                                                               \\
        }                                                                                                                       \\
    }
    DF_CONVERSIONS(1, uint8_t)
    DF_CONVERSIONS(2, uint16_t)
    DF_CONVERSIONS(4, uint32_t)
    """
    bint df_has_characters(object text)
    Py_ssize_t DF_SAMPLE
    bint df_is_dense_1(const void* characters) noexcept nogil
    bint df_is_dense_2(const void* characters) noexcept nogil
    bint df_is_dense_4(const void* characters) noexcept nogil
    void df_make_utf8_steps() noexcept
    bint df_check_utf8(uint8_t* state, uint8_t* highest, size_t* characters, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_1(void* out, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_2(void* out, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_4(void* out, const uint8_t* data, size_t size) noexcept nogil
    size_t df_measure_1(const void* characters, size_t length) noexcept nogil
    size_t df_measure_2(const void* characters, size_t length) noexcept nogil
    size_t df_measure_4(const void* characters, size_t length) noexcept nogil
    void df_encode_1(char* out, const void* characters, size_t length) noexcept nogil
    void df_encode_2(char* out, const void* characters, size_t length) noexcept nogil
    void df_encode_4(char* out, const void* characters, size_t length) noexcept nogil


df_make_utf8_steps()


cdef bint check_text(Text* text, const char* data, size_t size) noexcept nogil:
    return df_check_utf8(&text.state, &text.highest, &text.characters, <const uint8_t*>data, size)


cdef str build_text(const Text* text, const char* data, size_t size):
    cdef const uint8_t* bytes = <const uint8_t*>data
    cdef Py_ssize_t length = <Py_ssize_t>text.characters
    if text.highest < 0x80:
        made = PyUnicode_New(length, 127)
        if size:
            memcpy(PyUnicode_DATA(made), data, size)
    elif text.highest < 0xc4:   # what C3 begins ends at U+00FF
        made = PyUnicode_New(length, 0xff)
        df_decode_1(PyUnicode_DATA(made), bytes, size)
    elif text.highest < 0xf0:
        made = PyUnicode_New(length, 0xffff)
        df_decode_2(PyUnicode_DATA(made), bytes, size)
    else:
        made = PyUnicode_New(length, 0x10ffff)
        df_decode_4(PyUnicode_DATA(made), bytes, size)
    return made


cdef str read_text(const char* data, size_t size):
    cdef Text text = Text(0, 0, 0)
    if size < <size_t>DF_SAMPLE or df_is_dense_1(data):
        try:
            return PyUnicode_DecodeUTF8(data, <Py_ssize_t>size, NULL)
        except UnicodeDecodeError:
            return None
    if not check_text(&text, data, size) or text.state:
        return None
    return build_text(&text, data, size)


cdef inline bint _is_dense(const void* characters, int width) noexcept:
    if width == 1:
        return df_is_dense_1(characters)
    return df_is_dense_2(characters) if width == 2 else df_is_dense_4(characters)


cdef object encode_text(object text, const char** data, Py_ssize_t* size):
    cdef void* characters
    cdef size_t length
    cdef size_t needed
    cdef int width
    if not df_has_characters(text) or PyUnicode_IS_ASCII(text) or PyUnicode_GET_LENGTH(text) < DF_SAMPLE:
        data[0] = PyUnicode_AsUTF8AndSize(text, size)
        return text
    characters = PyUnicode_DATA(text)
    length = <size_t>PyUnicode_GET_LENGTH(text)
    width = PyUnicode_KIND(text)
    needed = 0
    if not _is_dense(characters, width):
        needed = df_measure_1(characters, length) if width == 1 else df_measure_2(characters, length) if width == 2 \
            else df_measure_4(characters, length)
    if needed == 0:
        data[0] = PyUnicode_AsUTF8AndSize(text, size)   # or raises what Python says of half a pair
        return text
    made = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>needed)
    data[0] = PyBytes_AS_STRING(made)
    size[0] = <Py_ssize_t>needed
    if width == 1:
        df_encode_1(PyBytes_AS_STRING(made), characters, length)
    elif width == 2:
        df_encode_2(PyBytes_AS_STRING(made), characters, length)
    else:
        df_encode_4(PyBytes_AS_STRING(made), characters, length)
    return made


# As Python sees it: for tests and fuzzers ---------------------------------------------------------------------------------


def decode(list pieces not None) -> str:
    """The text whose bytes came in these pieces. UnicodeError: they are none, or it is not whole."""
    cdef Text text = Text(0, 0, 0)
    cdef bytes piece
    cdef bytes whole = b"".join(pieces)
    for piece in pieces:
        if not check_text(&text, PyBytes_AS_STRING(piece), <size_t>len(piece)):
            raise UnicodeError("not UTF-8")
    if text.state:
        raise UnicodeError("the last character is not whole")
    return build_text(&text, PyBytes_AS_STRING(whole), <size_t>len(whole))


def decode_whole(bytes data not None) -> str | None:
    """The text; None: it is none."""
    return read_text(PyBytes_AS_STRING(data), <size_t>len(data))


def encode(text) -> bytes:
    """UnicodeEncodeError: it holds half of a surrogate pair."""
    cdef const char* data
    cdef Py_ssize_t size = 0
    owner = encode_text(text, &data, &size)
    return PyBytes_FromStringAndSize(data, size) if owner is not None else b""
