"""UTF-8 of websocket messages: an incremental check, and both conversions. Knows memory and str objects; no frames.

CPython's own conversions take a character at a time once a text has one that is no ASCII. Most such texts (JSON with names in it)
have few, with runs of ASCII between them, which go sixteen at a time here: a fifth of the time. For short texts, and those
that are mostly something else, CPython's are the faster ones, and used.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    # For a bytes object whose size is not known yet: it has one reference, which is ours, and only then may be resized.
    PyObject* df_new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size) except NULL
    char* df_bytes "PyBytes_AS_STRING"(PyObject* made)
    int df_resize_bytes "_PyBytes_Resize"(PyObject** made, Py_ssize_t size) except -1   # lets go of it when it fails
    void df_drop "Py_DECREF"(PyObject* made)
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
    /* Sixteen characters at a time: which of them are no ASCII, a bit each; copied to bytes, which mean nothing for those; and bytes to
       characters. */
    #if defined(__SSE2__) && !defined(DUCKFAST_SWAR)
    #include <emmintrin.h>
    #define DF_PART(in, index) _mm_loadu_si128((const __m128i *)(in) + (index))
    #define DF_ASCII_2(in, index) _mm_cmpeq_epi16(_mm_and_si128(DF_PART(in, index), _mm_set1_epi16(~0x7f)), _mm_setzero_si128())
    #define DF_ASCII_4(in, index) _mm_cmpeq_epi32(_mm_and_si128(DF_PART(in, index), _mm_set1_epi32(~0x7f)), _mm_setzero_si128())

    static inline unsigned df_wide_1(const uint8_t *in) { return (unsigned)_mm_movemask_epi8(DF_PART(in, 0)); }
    static inline unsigned df_wide_2(const uint16_t *in) {
        return 0xffffu ^ (unsigned)_mm_movemask_epi8(_mm_packs_epi16(DF_ASCII_2(in, 0), DF_ASCII_2(in, 1)));
    }
    static inline unsigned df_wide_4(const uint32_t *in) {
        return 0xffffu ^ (unsigned)_mm_movemask_epi8(_mm_packs_epi16(
            _mm_packs_epi32(DF_ASCII_4(in, 0), DF_ASCII_4(in, 1)), _mm_packs_epi32(DF_ASCII_4(in, 2), DF_ASCII_4(in, 3))));
    }
    static inline void df_narrow_1(char *out, const uint8_t *in) { _mm_storeu_si128((__m128i *)out, DF_PART(in, 0)); }
    static inline void df_narrow_2(char *out, const uint16_t *in) {
        _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(DF_PART(in, 0), DF_PART(in, 1)));
    }
    static inline void df_narrow_4(char *out, const uint32_t *in) {
        _mm_storeu_si128((__m128i *)out, _mm_packus_epi16(
            _mm_packs_epi32(DF_PART(in, 0), DF_PART(in, 1)), _mm_packs_epi32(DF_PART(in, 2), DF_PART(in, 3))));
    }
    static inline void df_widen_1(uint8_t *out, const uint8_t *in) { _mm_storeu_si128((__m128i *)out, DF_PART(in, 0)); }
    static inline void df_widen_2(uint16_t *out, const uint8_t *in) {
        __m128i bytes = DF_PART(in, 0), zero = _mm_setzero_si128();
        _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi8(bytes, zero));
        _mm_storeu_si128((__m128i *)out + 1, _mm_unpackhi_epi8(bytes, zero));
    }
    static inline void df_widen_4(uint32_t *out, const uint8_t *in) {
        __m128i bytes = DF_PART(in, 0), zero = _mm_setzero_si128();
        __m128i low = _mm_unpacklo_epi8(bytes, zero), high = _mm_unpackhi_epi8(bytes, zero);
        _mm_storeu_si128((__m128i *)out, _mm_unpacklo_epi16(low, zero));
        _mm_storeu_si128((__m128i *)out + 1, _mm_unpackhi_epi16(low, zero));
        _mm_storeu_si128((__m128i *)out + 2, _mm_unpacklo_epi16(high, zero));
        _mm_storeu_si128((__m128i *)out + 3, _mm_unpackhi_epi16(high, zero));
    }
    #else
    #define DF_SIXTEEN(name, character)                                                                                         \\
    static inline unsigned df_wide_##name(const character *in) {                                                                \\
        unsigned index, wide = 0;                                                                                               \\
        for (index = 0; index < 16; index++) wide |= (unsigned)(in[index] >= 0x80) << index;                                    \\
        return wide;                                                                                                            \\
    }                                                                                                                           \\
    static inline void df_narrow_##name(char *out, const character *in) {                                                       \\
        int index;                                                                                                              \\
        for (index = 0; index < 16; index++) out[index] = (char)in[index];                                                      \\
    }                                                                                                                           \\
    static inline void df_widen_##name(character *out, const uint8_t *in) {                                                     \\
        int index;                                                                                                              \\
        for (index = 0; index < 16; index++) out[index] = in[index];                                                            \\
    }
    DF_SIXTEEN(1, uint8_t)
    DF_SIXTEEN(2, uint16_t)
    DF_SIXTEEN(4, uint32_t)
    #endif

    static int df_check_utf8(uint8_t *state, uint8_t *highest, size_t *characters, const uint8_t *data, size_t size) {
        const uint8_t *end = data + size;
        uint64_t at = *state;
        size_t count = 0;
        uint8_t top = *highest;
        while (data < end) {
            const uint8_t *stop;
            if ((at & 63) == 6 * DF_BETWEEN) {
                unsigned plain, wide = 0;
                for (; end - data >= 16 && !(wide = df_wide_1(data)); data += 16) count += 16;
                plain = wide ? (unsigned)__builtin_ctz(wide) : 0;
                data += plain;
                count += plain;
            }
            for (stop = end - data > 8 ? data + 8 : end; data < stop; data++) {
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

    enum { DF_SAMPLE = 512, DF_WIDEST = 20 };   /* bytes: sixteen characters of ASCII and one behind them, whatever it is */
    #define DF_NO_CHARACTER (~(size_t)0)

    /* For each width of a str: characters of checked bytes; whether more than one in sixteen of a sample is no ASCII; the bytes of
       characters, as long as there is room for DF_WIDEST more. Says how many it has done and how many bytes they became, or
       DF_NO_CHARACTER for half of a surrogate pair. */
    #define DF_CONVERSIONS(name, character)                                                                                     \\
    static void df_decode_##name(character *restrict out, size_t length, const uint8_t *data, size_t size) {                    \\
        const uint8_t *end = data + size;                                                                                       \\
        const character *stop = out + length;                                                                                   \\
        while (data < end) {                                                                                                    \\
            if (end - data >= 16 && stop - out >= 16) {                                                                         \\
                unsigned wide = df_wide_1(data), plain = wide ? (unsigned)__builtin_ctz(wide) : 16;                             \\
                df_widen_##name(out, data);                                                                                     \\
                data += plain;                                                                                                  \\
                out += plain;                                                                                                   \\
                if (!wide) continue;                                                                                            \\
            } else if (*data < 0x80) {                                                                                          \\
                *out++ = *data++;                                                                                               \\
                continue;                                                                                                       \\
            }                                                                                                                   \\
            do {                                                                                                                \\
                if (*data < 0xe0) {                                                                                             \\
                    *out++ = (character)((data[0] & 0x1f) << 6 | (data[1] & 0x3f));                                             \\
                    data += 2;                                                                                                  \\
                } else if (*data < 0xf0) {                                                                                      \\
                    *out++ = (character)((data[0] & 0x0f) << 12 | (data[1] & 0x3f) << 6 | (data[2] & 0x3f));                    \\
                    data += 3;                                                                                                  \\
                } else {                                                                                                        \\
                    *out++ = (character)((data[0] & 7) << 18 | (data[1] & 0x3f) << 12 | (data[2] & 0x3f) << 6 | (data[3] & 0x3f));\\
                    data += 4;                                                                                                  \\
                }                                                                                                               \\
            } while (data < end && *data >= 0x80);                                                                              \\
        }                                                                                                                       \\
    }                                                                                                                           \\
    static int df_is_dense_##name(const character *in) {                                                                        \\
        int index, wide = 0;                                                                                                    \\
        for (index = 0; index < DF_SAMPLE; index++) wide += in[index] >= 0x80;                                                  \\
        return wide > DF_SAMPLE / 16;                                                                                           \\
    }                                                                                                                           \\
    static size_t df_encode_##name(char *restrict out, size_t room, const character *restrict in, size_t length, size_t *done) {\\
        const character *start = in, *end = in + length;                                                                        \\
        char *first = out, *last = out + room - DF_WIDEST;                                                                      \\
        while (in < end && out <= last) {                                                                                       \\
            if (end - in >= 16) {                                                                                               \\
                unsigned wide = df_wide_##name(in), plain = wide ? (unsigned)__builtin_ctz(wide) : 16;                          \\
                df_narrow_##name(out, in);                                                                                      \\
                in += plain;                                                                                                    \\
                out += plain;                                                                                                   \\
                if (!wide) continue;                                                                                            \\
            } else if (*in < 0x80) {                                                                                            \\
                *out++ = (char)*in++;                                                                                           \\
                continue;                                                                                                       \\
            }                                                                                                                   \\
            do {                                                                                                                \\
                uint32_t point = *in;                                                                                           \\
                if (point < 0x800) {                                                                                            \\
                    *out++ = (char)(0xc0 | point >> 6);                                                                         \\
                } else {                                                                                                        \\
                    if (point < 0x10000) {                                                                                      \\
                        if ((point & ~(uint32_t)0x7ff) == 0xd800) return DF_NO_CHARACTER;                                       \\
                        *out++ = (char)(0xe0 | point >> 12);                                                                    \\
                    } else {                                                                                                    \\
                        *out++ = (char)(0xf0 | point >> 18);                                                                    \\
                        *out++ = (char)(0x80 | (point >> 12 & 0x3f));                                                           \\
                    }                                                                                                           \\
                    *out++ = (char)(0x80 | (point >> 6 & 0x3f));                                                                \\
                }                                                                                                               \\
                *out++ = (char)(0x80 | (point & 0x3f));                                                                         \\
                in++;                                                                                                           \\
            } while (in < end && *in >= 0x80 && out <= last);                                                                   \\
        }                                                                                                                       \\
        *done = (size_t)(in - start);                                                                                           \\
        return (size_t)(out - first);                                                                                           \\
    }
    DF_CONVERSIONS(1, uint8_t)
    DF_CONVERSIONS(2, uint16_t)
    DF_CONVERSIONS(4, uint32_t)
    """
    bint df_has_characters(object text)
    Py_ssize_t DF_SAMPLE
    size_t DF_WIDEST
    size_t DF_NO_CHARACTER
    bint df_is_dense_1(const void* characters) noexcept nogil
    bint df_is_dense_2(const void* characters) noexcept nogil
    bint df_is_dense_4(const void* characters) noexcept nogil
    void df_make_utf8_steps() noexcept
    bint df_check_utf8(uint8_t* state, uint8_t* highest, size_t* characters, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_1(void* out, size_t length, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_2(void* out, size_t length, const uint8_t* data, size_t size) noexcept nogil
    void df_decode_4(void* out, size_t length, const uint8_t* data, size_t size) noexcept nogil
    size_t df_encode_1(char* out, size_t room, const void* characters, size_t length, size_t* done) noexcept nogil
    size_t df_encode_2(char* out, size_t room, const void* characters, size_t length, size_t* done) noexcept nogil
    size_t df_encode_4(char* out, size_t room, const void* characters, size_t length, size_t* done) noexcept nogil


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
        df_decode_1(PyUnicode_DATA(made), text.characters, bytes, size)
    elif text.highest < 0xf0:
        made = PyUnicode_New(length, 0xffff)
        df_decode_2(PyUnicode_DATA(made), text.characters, bytes, size)
    else:
        made = PyUnicode_New(length, 0x10ffff)
        df_decode_4(PyUnicode_DATA(made), text.characters, bytes, size)
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


cdef inline size_t _encode(char* out, size_t room, const void* characters, int width, size_t length, size_t* done) noexcept:
    if width == 1:
        return df_encode_1(out, room, characters, length, done)
    if width == 2:
        return df_encode_2(out, room, characters, length, done)
    return df_encode_4(out, room, characters, length, done)


cdef object encode_text(object text, const char** data, Py_ssize_t* size):
    cdef const char* characters
    cdef size_t left, room, done, more
    cdef size_t written = 0
    cdef int width
    cdef PyObject* made
    if not df_has_characters(text) or PyUnicode_IS_ASCII(text) or PyUnicode_GET_LENGTH(text) < DF_SAMPLE:
        data[0] = PyUnicode_AsUTF8AndSize(text, size)
        return text
    characters = <const char*>PyUnicode_DATA(text)
    left = <size_t>PyUnicode_GET_LENGTH(text)
    width = PyUnicode_KIND(text)
    if _is_dense(characters, width):
        data[0] = PyUnicode_AsUTF8AndSize(text, size)
        return text
    room = left + left // 8 + DF_WIDEST   # mostly enough: the sample has few others
    made = df_new_bytes(NULL, <Py_ssize_t>room)
    while True:
        done = 0
        more = _encode(df_bytes(made) + written, room - written, characters, width, left, &done)
        if more == DF_NO_CHARACTER:
            df_drop(made)
            data[0] = PyUnicode_AsUTF8AndSize(text, size)   # which raises what Python says of half a pair
            return text
        written += more
        left -= done
        if left == 0:
            break
        characters += done * <size_t>width
        room = written + 4 * left + DF_WIDEST
        df_resize_bytes(&made, <Py_ssize_t>room)
    df_resize_bytes(&made, <Py_ssize_t>written)
    owner = <object>made
    df_drop(made)
    data[0] = PyBytes_AS_STRING(owner)
    size[0] = <Py_ssize_t>written
    return owner


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
