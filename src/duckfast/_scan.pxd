# Classes of bytes, and the three scans every head is made of. Inline C only: nothing to link, nothing to import.
#
# A scan returns the first byte it does not like, or `end`. It reads no byte at or after `end`. SSE2 is part of every
# x86-64 processor; elsewhere (or with DUCKFAST_SWAR defined) eight bytes at a time are tested in an ordinary register.
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef extern from *:
    """
    #ifndef DUCKFAST_SCAN
    #define DUCKFAST_SCAN
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #if defined(__SSE2__) && !defined(DUCKFAST_SWAR)
    #include <emmintrin.h>
    #endif

    #define BYTE_TOKEN  0x01  /* tchar, RFC 9110 5.6.2 */
    #define BYTE_PLAIN  0x02  /* letters, digits and "-": what almost every field name is made of */
    #define BYTE_VALUE  0x04  /* field-vchar, SP and HTAB, RFC 9110 5.5: no other control, no DEL */
    #define BYTE_TARGET 0x08  /* a byte of a request target that needs no look: no control, SP, DEL, "?", "#", "%" */
    #define BYTE_HOST   0x10  /* unreserved / sub-delims, RFC 3986 2 */
    #define BYTE_HEX    0x20
    #define BYTE_DIGIT  0x40

    /* One row per sixteen bytes, so 'A' (0x41) is in the fifth row; tests/unit/test_parser.py holds it to the grammar. */
    static const uint8_t BYTE_CLASS[256] = {
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x04, 0x1d, 0x0c, 0x05, 0x1d, 0x05, 0x1d, 0x1d, 0x1c, 0x1c, 0x1d, 0x1d, 0x1c, 0x1f, 0x1d, 0x0c,
        0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x0c, 0x1c, 0x0c, 0x1c, 0x0c, 0x04,
        0x0c, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f,
        0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x0c, 0x0c, 0x0c, 0x0d, 0x1d,
        0x0d, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f,
        0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x1f, 0x0c, 0x0d, 0x0c, 0x1d, 0x00,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
        0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c, 0x0c,
    };

    #define DUCKFAST_ONES 0x0101010101010101ULL
    #define DUCKFAST_TOPS 0x8080808080808080ULL

    /* Non-zero when a byte of `word` is below `limit` (at most 0x80) or equal to `byte`: exact as a yes or no. */
    static inline uint64_t duckfast_below(uint64_t word, uint8_t limit) {
        return (word - DUCKFAST_ONES * limit) & ~word & DUCKFAST_TOPS;
    }
    static inline uint64_t duckfast_equal(uint64_t word, uint8_t byte) {
        return duckfast_below(word ^ (DUCKFAST_ONES * byte), 1);
    }
    static inline uint64_t duckfast_word(const char *data) {
        uint64_t word;
        memcpy(&word, data, 8);
        return word;
    }

    /* The first byte a field value may not hold, eight at a time: for processors without SSE2, and for the tests of both. */
    static inline const char *scan_value_words(const char *data, const char *end) {
        while (end - data >= 8) {
            uint64_t word = duckfast_word(data);
            if (duckfast_below(word, 0x20) | duckfast_equal(word, 0x7f)) {
                int left = 8;
                while (left > 0 && (BYTE_CLASS[(uint8_t)*data] & BYTE_VALUE)) {
                    data++;
                    left--;
                }
                if (left > 0) return data;  /* it was not only HTAB, the one control that a value may hold */
            } else {
                data += 8;
            }
        }
        while (data < end && (BYTE_CLASS[(uint8_t)*data] & BYTE_VALUE)) data++;
        return data;
    }

    static inline const char *scan_value(const char *data, const char *end) {
    #if defined(__SSE2__) && !defined(DUCKFAST_SWAR)
        while (end - data >= 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)data);
            __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            __m128i del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
            int found = _mm_movemask_epi8(_mm_or_si128(low, del));
            if (!found) {
                data += 16;
                continue;
            }
            data += __builtin_ctz((unsigned)found);
            if (*data != 9) return data;
            data++;
        }
    #endif
        return scan_value_words(data, end);
    }

    /* The first byte of a request target that ends it, or that the parser has to look at. */
    static inline const char *scan_target(const char *data, const char *end) {
    #if defined(__SSE2__) && !defined(DUCKFAST_SWAR)
        while (end - data >= 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)data);
            __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x20)), bytes);
            __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(63)), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(37)));
            __m128i stops = _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(35)), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f)));
            int found = _mm_movemask_epi8(_mm_or_si128(low, _mm_or_si128(marks, stops)));
            if (found) return data + __builtin_ctz((unsigned)found);
            data += 16;
        }
    #endif
        while (data < end && (BYTE_CLASS[(uint8_t)*data] & BYTE_TARGET)) data++;
        return data;
    }

    /* The first byte that is no letter, digit or "-"; a token may go on after it. */
    static inline const char *scan_name(const char *data, const char *end) {
    #if defined(__SSE2__) && !defined(DUCKFAST_SWAR)
        while (end - data >= 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)data);
            /* Shifted so that a range starts at -128, one signed comparison tests it. */
            __m128i folded = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
            __m128i letter = _mm_cmplt_epi8(_mm_add_epi8(folded, _mm_set1_epi8((char)(-128 - 97))), _mm_set1_epi8(-128 + 26));
            __m128i digit = _mm_cmplt_epi8(_mm_add_epi8(bytes, _mm_set1_epi8((char)(-128 - 48))), _mm_set1_epi8(-128 + 10));
            __m128i dash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(45));
            int plain = _mm_movemask_epi8(_mm_or_si128(letter, _mm_or_si128(digit, dash)));
            if (plain != 0xffff) return data + __builtin_ctz(~(unsigned)plain);
            data += 16;
        }
    #endif
        while (data < end && (BYTE_CLASS[(uint8_t)*data] & BYTE_PLAIN)) data++;
        return data;
    }
    #endif
    """
    const uint8_t BYTE_CLASS[256]
    enum:
        BYTE_TOKEN
        BYTE_PLAIN
        BYTE_VALUE
        BYTE_TARGET
        BYTE_HOST
        BYTE_HEX
        BYTE_DIGIT

    const char* scan_value(const char* data, const char* end) noexcept nogil
    const char* scan_value_words(const char* data, const char* end) noexcept nogil
    const char* scan_target(const char* data, const char* end) noexcept nogil
    const char* scan_name(const char* data, const char* end) noexcept nogil
