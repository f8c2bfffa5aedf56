"""Access log formats, compiled: what is noted of a request, and how it is written as one line. Bytes only; no file, no thread.

Nothing that a client sends can end a line, leave its quotes or steer a terminal. In text, what is not printable ASCII, and `"`
and `\\`, is written as \\xHH; an absent or empty value is `-`. In JSON, it is escaped as JSON asks, everything beyond ASCII too;
bytes that are no UTF-8 read as U+FFFD, and an absent value is null. The caller sees to it that one thread writes at a time.

The file is long because what a note holds, how it is made and how it is read are one agreement.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from duckfast._headers cimport NAME_UNKNOWN, find_name
from duckfast._limits cimport Limits
from duckfast._parser cimport PARSED, Field, Head, Progress, free_head, is_token, new_head, parse_head
from duckfast._writer cimport standard_reason

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #include <time.h>

    static void df_wall_clock(int fine, int64_t *second, int *milliseconds) {
        struct timespec now;
    #ifdef CLOCK_REALTIME_COARSE
        clock_gettime(fine ? CLOCK_REALTIME : CLOCK_REALTIME_COARSE, &now);
    #else
        clock_gettime(CLOCK_REALTIME, &now);
    #endif
        *second = (int64_t)now.tv_sec;
        *milliseconds = (int)(now.tv_nsec / 1000000);
    }
    static void df_stamps(int64_t second, char *clf, char *iso) {
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        time_t time = (time_t)second;
        struct tm at;
        long offset;
        localtime_r(&time, &at);
        offset = at.tm_gmtoff / 60;
        snprintf(clf, 40, "[%02d/%.3s/%04d:%02d:%02d:%02d %c%02ld%02ld]", at.tm_mday, months + 3 * at.tm_mon,
                 (at.tm_year + 1900) % 10000, at.tm_hour, at.tm_min, at.tm_sec, offset < 0 ? '-' : '+',
                 labs(offset) / 60 % 100, labs(offset) % 60);
        gmtime_r(&time, &at);
        snprintf(iso, 40, "%04d-%02d-%02dT%02d:%02d:%02d", (at.tm_year + 1900) % 10000, at.tm_mon + 1, at.tm_mday,
                 at.tm_hour, at.tm_min, at.tm_sec);
    }
    """
    void df_wall_clock(int fine, int64_t* second, int* milliseconds) noexcept nogil
    void df_stamps(int64_t second, char* clf, char* iso) noexcept nogil

cdef enum Fact:
    NOTHING
    CLIENT
    USER
    LINE
    LINE_WITHOUT_QUERY
    METHOD
    PATH
    QUERY
    PROTOCOL
    SCHEME
    FIELD
    REQUEST_ID
    STATUS
    PHRASE
    SENT
    SENT_OR_DASH
    RECEIVED
    DURATION

_FACTS = {
    "client": CLIENT, "user": USER, "line": LINE,
    "line_without_query": LINE_WITHOUT_QUERY, "method": METHOD, "path": PATH, "query": QUERY, "protocol": PROTOCOL,
    "scheme": SCHEME, "request_field": FIELD, "response_field": FIELD, "request_id": REQUEST_ID, "status": STATUS,
    "phrase": PHRASE, "sent": SENT, "sent_or_dash": SENT_OR_DASH, "received": RECEIVED, "duration": DURATION,
}

# What describe() calls the fields it is asked for.
RECORD_FIELDS = {b"host": "host", b"referer": "referer", b"user-agent": "user_agent"}

cdef enum:
    FIXED_ROOM = 72      # bytes: the longest fact that has no length of its own (a phrase) with its quotes
    EXPANSION = 6        # bytes that one byte may become: \u00XX
    MOST_USER = 192      # bytes of a user name; longer Basic credentials count as none
    MOST_REQUEST_ID = 128   # bytes; a UUID has 36, a W3C traceparent 55
    MOST_REFUSED = 1024  # bytes that are shown of the first line of a request that was refused

# Times as they stand in a literal before the first line is written.
cdef bytes CLF_BLANK = b"[00/Jan/1970:00:00:00 +0000]"
cdef bytes ISO_BLANK = b"1970-01-01T00:00:00.000Z"

cdef uint64_t ONES = 0x0101010101010101
cdef uint64_t TOPS = 0x8080808080808080

cdef char _pairs[200]   # "00" to "99"

# 1: written as it is, by text and by JSON alike.
cdef uint8_t _plain[256]
cdef const char* HEX = b"0123456789abcdef"


def _fill() -> None:
    cdef int byte
    for byte in range(100):
        _pairs[2 * byte] = <char>(c"0" + byte // 10)
        _pairs[2 * byte + 1] = <char>(c"0" + byte % 10)
    for byte in range(256):
        _plain[byte] = 0x20 <= byte < 0x7f and byte != c'"' and byte != c"\\"


_fill()


# Writing -------------------------------------------------------------------------------------------------------------

cdef char* _put(char* out, const char* data, size_t size) noexcept nogil:
    if size != 0:   # the span of what never came has no address
        memcpy(out, data, size)
    return out + size


cdef inline void _put_digits(char* out, uint64_t number, int count) noexcept nogil:
    while count > 1:
        count -= 2
        memcpy(out + count, _pairs + 2 * (number % 100), 2)
        number //= 100
    if count:
        out[0] = <char>(c"0" + number % 10)


cdef inline char* _put_number(char* out, uint64_t number) noexcept nogil:
    cdef uint64_t above = 10
    cdef int count = 1
    while number >= above and count < 19:
        above *= 10
        count += 1
    if number >= above:
        count += 1   # the twentieth digit of 2**64
    _put_digits(out, number, count)
    return out + count


cdef inline uint64_t _zeros(uint64_t word) noexcept nogil:
    """Not 0 when one of the eight bytes is 0."""
    return (word - ONES) & ~word & TOPS


cdef inline uint64_t _not_plain(uint64_t word) noexcept nogil:
    """Eight bytes at a time what _plain says of one: 0 when all are."""
    return ((word & TOPS) | ((word - ONES * 0x20) & ~word & TOPS) | _zeros(word ^ (ONES * 0x7f))
            | _zeros(word ^ (ONES * c'"')) | _zeros(word ^ (ONES * c"\\")))


cdef inline bint _copy_plain(char* out, const char* data, size_t size) noexcept nogil:
    """Copies what needs no escape at all, as nearly everything; False: some of it does."""
    cdef uint64_t word
    cdef uint64_t found = 0
    cdef size_t index = 0
    if size < 8:
        return False   # a byte at a time is as quick
    while index + 8 < size:
        memcpy(&word, data + index, 8)
        memcpy(out + index, &word, 8)
        found |= _not_plain(word)
        index += 8
    memcpy(&word, data + size - 8, 8)   # the last word overlaps the one before
    memcpy(out + size - 8, &word, 8)
    return (found | _not_plain(word)) == 0


cdef char* _put_text(char* out, const char* data, size_t size) noexcept nogil:
    cdef size_t index
    cdef uint8_t byte
    if _copy_plain(out, data, size):
        return out + size
    for index in range(size):
        byte = <uint8_t>data[index]
        if _plain[byte]:
            out[0] = <char>byte
            out += 1
            continue
        out[0] = c"\\"
        out[1] = c"x"
        out[2] = HEX[byte >> 4]
        out[3] = HEX[byte & 15]
        out += 4
    return out


cdef char* _put_unit(char* out, uint32_t unit) noexcept nogil:
    """One UTF-16 unit as JSON writes it."""
    out[0] = c"\\"
    out[1] = c"u"
    out[2] = HEX[unit >> 12 & 15]
    out[3] = HEX[unit >> 8 & 15]
    out[4] = HEX[unit >> 4 & 15]
    out[5] = HEX[unit & 15]
    return out + 6


cdef int _read_utf8(const uint8_t* data, size_t left, uint32_t* code) noexcept nogil:
    """Bytes of the character that begins here, 0 when none does (RFC 3629: no overlong form, no surrogate)."""
    cdef uint32_t least
    cdef int size, index
    if data[0] < 0xc2:
        return 0
    if data[0] < 0xe0:
        size, least, code[0] = 2, 0x80, data[0] & 0x1f
    elif data[0] < 0xf0:
        size, least, code[0] = 3, 0x800, data[0] & 0x0f
    elif data[0] < 0xf5:
        size, least, code[0] = 4, 0x10000, data[0] & 0x07
    else:
        return 0
    if left < <size_t>size:
        return 0
    for index in range(1, size):
        if data[index] & 0xc0 != 0x80:
            return 0
        code[0] = code[0] << 6 | (data[index] & 0x3f)
    if code[0] < least or code[0] > 0x10ffff or 0xd800 <= code[0] < 0xe000:
        return 0
    return size


cdef char* _put_json(char* out, const char* data, size_t size) noexcept nogil:
    """The inside of a JSON string: ASCII only, so that no reader of lines and no terminal finds anything in it."""
    cdef size_t index = 0
    cdef uint32_t code = 0
    cdef uint8_t byte
    cdef int used
    if _copy_plain(out, data, size):
        return out + size
    while index < size:
        byte = <uint8_t>data[index]
        if _plain[byte]:
            out[0] = <char>byte
            out += 1
            index += 1
        elif byte == c'"' or byte == c"\\":
            out[0] = c"\\"
            out[1] = <char>byte
            out += 2
            index += 1
        elif byte < 0x80:
            out = _put_unit(out, byte)
            index += 1
        else:
            used = _read_utf8(<const uint8_t*>data + index, size - index, &code)
            if used == 0:
                out = _put_unit(out, 0xfffd)
                index += 1
                continue
            if code < 0x10000:
                out = _put_unit(out, code)
            else:
                out = _put_unit(out, 0xd800 + ((code - 0x10000) >> 10))
                out = _put_unit(out, 0xdc00 + ((code - 0x10000) & 0x3ff))
            index += used
    return out


cdef int _read_base64(const char* data, size_t size, char* out, int most) noexcept nogil:
    """Decodes up to a colon; the size of what stands before it, -1 when there is none or it is no base64."""
    cdef uint32_t bits = 0
    cdef int have = 0
    cdef int count = 0
    cdef size_t index
    cdef char letter
    cdef int value
    for index in range(size):
        letter = data[index]
        if c"A" <= letter <= c"Z":
            value = letter - c"A"
        elif c"a" <= letter <= c"z":
            value = letter - c"a" + 26
        elif c"0" <= letter <= c"9":
            value = letter - c"0" + 52
        elif letter == c"+":
            value = 62
        elif letter == c"/":
            value = 63
        else:
            return -1
        bits = (bits << 6 | <uint32_t>value) & 0xffff
        have += 6
        if have < 8:
            continue
        have -= 8
        out[count] = <char>(bits >> have & 0xff)
        if out[count] == c":":
            return count
        count += 1
        if count == most:
            return -1
    return -1


# Notes ---------------------------------------------------------------------------------------------------------------

cdef inline void _set(Piece* piece, size_t at, size_t size) noexcept nogil:
    piece.at = <uint32_t>at
    piece.size = <int32_t>size


cdef bint _same_name(const char* name, size_t size, const char* lower, size_t lower_size) noexcept nogil:
    cdef size_t index
    cdef char letter
    if lower_size != size:
        return False
    for index in range(size):
        letter = name[index]
        if c"A" <= letter <= c"Z":
            letter += 32
        if letter != lower[index]:
            return False
    return True


cdef str _escaped(const char* data, Py_ssize_t size):
    """As it stands in a line of text."""
    cdef bytes text = PyBytes_FromStringAndSize(NULL, 4 * size)
    cdef char* start = PyBytes_AS_STRING(text)
    return PyUnicode_DecodeLatin1(start, _put_text(start, data, <size_t>size) - start, NULL)


cdef bint _is_request_id(const char* data, size_t size) noexcept nogil:
    return 0 < size <= MOST_REQUEST_ID and is_token(data, size)


cdef class LogFormat:
    """An access log format. steps: those of logformat.parse(); request_id_field: the name of the field that brings a request's
    id, "" for none; for_records: describe() will be called."""

    def __cinit__(self):
        self._host_slot = -1
        self._second = -1

    def __init__(self, steps, str request_id_field="", bint for_records=False):
        if self._steps != NULL:
            raise RuntimeError("a format is made once")
        self._id_field = request_id_field.lower().encode("ascii")
        steps = list(steps)
        requests = [step.argument for step in steps if step.fact == "request_field"]
        requests += [b"authorization" for step in steps if step.fact == "user"]
        requests += [self._id_field for step in steps if step.fact == "request_id" and self._id_field]
        if for_records:
            requests += [*RECORD_FIELDS, *filter(None, [self._id_field])]
        requests = list(dict.fromkeys(requests))
        self._request_slots = len(requests)
        self._names = requests + list(dict.fromkeys(step.argument for step in steps if step.fact == "response_field"))
        self._slots = len(self._names)
        self._name_fields()
        self._compile(steps)

    def __dealloc__(self):
        free(self._steps)
        free(self._text)

    cdef int _name_fields(self) except -1:
        cdef bytes name
        cdef int slot, name_id
        if self._slots > MOST_SLOTS:
            raise ValueError("too many header fields in an access log format")
        self.wants_response = self._slots > self._request_slots
        for slot, name in enumerate(self._names):
            self._name_data[slot] = PyBytes_AS_STRING(name)
            self._name_size[slot] = <uint32_t>len(name)
            if slot >= self._request_slots:
                continue
            if name == b"host":
                self._host_slot = slot
            name_id = find_name(PyBytes_AS_STRING(name), <size_t>len(name))
            if name_id == NAME_UNKNOWN:
                self._unknown_slots += 1
            else:
                self._slot_of_id[name_id] = <uint8_t>(slot + 1)
        return 0

    cdef int _compile(self, list steps) except -1:
        """Steps of facts with the literal behind each; what is the same for a second or for ever is a literal."""
        cdef bytes text = b""
        cdef bytes literal
        cdef Step* step
        cdef int index
        starts, clf, iso = [0], [], []   # where the literals begin, and times in them
        self._steps = <Step*>calloc(len(steps) + 1, sizeof(Step))
        if self._steps == NULL:
            raise MemoryError
        self._count = 1   # the first one is no fact, only what stands before all facts
        for found in steps:
            literal = self._literal_of(found)
            if literal is not None:
                if found.fact == "clf_time":
                    clf.append(len(text) + found.json)
                elif found.fact == "iso_time":
                    iso.append(len(text) + found.json)
                text += literal
                continue
            self._fill_step(&self._steps[self._count], found)
            self._count += 1
            starts.append(len(text))
        text += b"\n"
        if len(clf) > MOST_TIMES or len(iso) > MOST_TIMES:
            raise ValueError("too many times in an access log format")
        self._text = <char*>malloc(<size_t>len(text) + 8)   # a short literal is copied as eight bytes
        if self._text == NULL:
            raise MemoryError
        memcpy(self._text, PyBytes_AS_STRING(text), <size_t>len(text))
        memset(self._text + <size_t>len(text), 0, 8)
        for place in clf:
            self._clf_spots[self._clf_count] = self._text + <size_t>place
            self._clf_count += 1
        for place in iso:
            self._iso_spots[self._iso_count] = self._text + <size_t>place
            self._iso_count += 1
        starts.append(len(text))
        for index in range(self._count - 1, -1, -1):
            step = &self._steps[index]
            step.tail = self._text + <size_t>starts[index]
            step.tail_size = starts[index + 1] - starts[index]
            step.rest = self._room + max(step.tail_size, <uint32_t>8)
            self._room = step.rest + FIXED_ROOM
        return 0

    cdef bytes _literal_of(self, found):
        """What a step writes for every request, None when that differs."""
        cdef bytes text = None
        if found.fact == "literal":
            return found.argument
        if found.fact == "pid":
            text = b"%d" % os.getpid()
            return b"<%s>" % text if found.argument and not found.json else text
        if found.fact == "clf_time":
            text = CLF_BLANK
        elif found.fact == "iso_time":
            text = ISO_BLANK
        elif found.fact == "request_id" and not self._id_field:
            return b"null" if found.json else b"-"
        return b'"%s"' % text if text is not None and found.json else text

    cdef int _fill_step(self, Step* step, found) except -1:
        step.fact = _FACTS[found.fact]
        step.json = found.json
        if found.fact == "request_field":
            step.slot = self._names.index(found.argument)
        elif found.fact == "response_field":
            step.slot = self._names.index(found.argument, self._request_slots)
        elif found.fact == "user":
            step.slot = self._names.index(b"authorization")
        elif found.fact == "request_id":
            step.slot = self._names.index(self._id_field)
        elif found.fact == "scheme":
            self.wants_scheme = True
        elif found.fact == "duration":
            step.scale = min(10 ** found.digits, found.unit)   # not more digits than there are nanoseconds
            step.unit = found.unit // step.scale
            step.digits = len(str(step.scale)) - 1
        return 0

    cdef Piece* _pieces(self, Note* note) noexcept nogil:
        return <Piece*>(note + 1)

    cdef const char* _bytes(self, const Note* note) noexcept nogil:
        return <const char*>(<const Piece*>(note + 1) + self._slots)

    cdef Note* _new(self, size_t size, Note* spare) noexcept nogil:
        cdef size_t needed = self._slots * sizeof(Piece) + size
        cdef Note* note = spare
        cdef int slot
        if note == NULL or note.capacity < needed:
            free(spare)
            needed = max(needed, <size_t>NOTE_CAPACITY)
            note = <Note*>malloc(sizeof(Note) + needed)
            if note == NULL:
                return NULL
            note.capacity = <uint32_t>needed
        note.status = 0
        note.began = 0
        note.size = <uint32_t>size
        for slot in range(self._slots):
            self._pieces(note)[slot].size = -1
        return note

    cdef Note* note(self, const Head* head, Note* spare) noexcept nogil:
        cdef const char* found[MOST_SLOTS]
        cdef uint32_t sizes[MOST_SLOTS]
        cdef size_t line_size = <size_t>head.method.size + 1 + head.target.size + 9
        cdef size_t place
        cdef bint inside = head.target.data <= head.path.data <= head.target.data + head.target.size
        cdef size_t size = line_size + (0 if inside else head.path.size)
        cdef size_t target = <size_t>head.method.size + 1
        cdef char* out
        cdef Note* note
        cdef Piece* pieces
        cdef int slot
        if self._request_slots:
            size += self._find(head, found, sizes)
        note = self._new(size, spare)
        if note == NULL:
            return NULL
        note.line_size = <uint32_t>line_size
        _set(&note.method, 0, head.method.size)
        _set(&note.path, target + <size_t>(head.path.data - head.target.data) if inside else line_size, head.path.size)
        _set(&note.protocol, line_size - 8, 8)
        note.query.size = -1
        if head.query.size:
            _set(&note.query, target + <size_t>(head.query.data - head.target.data), head.query.size)
        out = <char*>self._bytes(note)
        out = _put(out, head.method.data, head.method.size)
        out[0] = c" "
        out = _put(out + 1, head.target.data, head.target.size)
        out = _put(out, b" HTTP/1.1" if head.minor else b" HTTP/1.0", 9)
        if not inside:
            out = _put(out, head.path.data, head.path.size)
        if self._request_slots:
            pieces = self._pieces(note)
            place = <size_t>(out - self._bytes(note))
            for slot in range(self._request_slots):
                if found[slot] != NULL:
                    _set(&pieces[slot], place, sizes[slot])
                    out = _put(out, found[slot], sizes[slot])
                    place += sizes[slot]
        return note

    cdef int _find(self, const Head* head, const char** data, uint32_t* sizes) noexcept nogil:
        """The values of the fields that are asked for; of fields with the same name, the first. Their size together."""
        cdef const Field* field
        cdef uint32_t index
        cdef uint32_t total = 0
        cdef int slot
        for slot in range(self._request_slots):
            data[slot] = NULL
        if self._host_slot >= 0 and head.authority.data != NULL:   # RFC 9112 3.2.2: it stands in for Host
            data[self._host_slot] = head.authority.data
            sizes[self._host_slot] = head.authority.size
            total += head.authority.size
        for index in range(head.field_count):
            field = &head.fields[index]
            slot = -1
            if field.name_id != NAME_UNKNOWN:
                slot = <int>self._slot_of_id[field.name_id] - 1
            elif self._unknown_slots and not field.underscore:
                slot = self._slot_of(field.name.data, field.name.size, 0, self._request_slots)
            if slot >= 0 and data[slot] == NULL:
                data[slot] = field.value.data
                sizes[slot] = field.value.size
                total += field.value.size
        return <int>total

    cdef int _slot_of(self, const char* name, size_t size, int first, int end) noexcept nogil:
        cdef int slot
        for slot in range(first, end):
            if _same_name(name, size, self._name_data[slot], self._name_size[slot]):
                return slot
        return -1

    cdef Note* note_line(self, const char* line, size_t size) noexcept nogil:
        cdef const char* end
        cdef const char* word
        cdef size_t left
        cdef Note* note
        size = min(size, <size_t>MOST_REFUSED)
        end = <const char*>memchr(line, c"\n", size) if size else NULL
        if end != NULL:
            size = <size_t>(end - line)
        if size and line[size - 1] == c"\r":
            size -= 1
        note = self._new(size, NULL)
        if note == NULL:
            return NULL
        if size:   # else there may be no line at all
            _put(<char*>self._bytes(note), line, size)
        line = self._bytes(note)
        note.line_size = <uint32_t>size
        note.method.size = note.path.size = note.query.size = note.protocol.size = -1
        # As far as it looks like a request line, its words are shown as such.
        end = line + size
        word = <const char*>memchr(line, c" ", size) if size else NULL
        left = <size_t>((end if word == NULL else word) - line)
        if not is_token(line, left):
            return note
        _set(&note.method, 0, left)
        if word == NULL:
            return note
        word += 1
        left = <size_t>(end - word)
        line = <const char*>memchr(word, c" ", left) if left else NULL
        if line != NULL:
            left = <size_t>(line - word)
            line += 1
            if end - line >= 5 and memcmp(line, b"HTTP/", 5) == 0 and memchr(line, c" ", <size_t>(end - line)) == NULL:
                _set(&note.protocol, <size_t>(line - self._bytes(note)), <size_t>(end - line))
        _set(&note.path, <size_t>(word - self._bytes(note)), left)
        line = <const char*>memchr(word, c"?", left) if left else NULL
        if line != NULL:
            note.path.size = <int32_t>(line - word)
            _set(&note.query, <size_t>(line + 1 - self._bytes(note)), left - <size_t>(line + 1 - word))
        return note

    cdef Note* note_response(self, Note* note, const char* head, size_t size) noexcept nogil:
        cdef const char* end = head + size
        cdef const char* line
        cdef const char* colon
        cdef const char* value
        cdef size_t needed = self._slots * sizeof(Piece) + note.size + size
        cdef Note* moved = note
        cdef Piece* pieces
        cdef int slot
        if note.capacity < needed:
            moved = <Note*>realloc(note, sizeof(Note) + needed)
            if moved == NULL:
                return NULL
            moved.capacity = <uint32_t>needed
        pieces = self._pieces(moved)
        for slot in range(self._request_slots, self._slots):
            pieces[slot].size = -1
        while head < end:
            line = head
            head = <const char*>memchr(line, c"\n", <size_t>(end - line))
            head = end if head == NULL else head + 1
            colon = <const char*>memchr(line, c":", <size_t>(head - line))
            if colon == NULL or head - colon < 3:
                continue
            slot = self._slot_of(line, <size_t>(colon - line), self._request_slots, self._slots)
            if slot < 0 or pieces[slot].size >= 0:
                continue
            value = colon + 1
            while value < head - 2 and (value[0] == c" " or value[0] == c"\t"):
                value += 1
            _set(&pieces[slot], moved.size, <size_t>(head - 2 - value))
            _put(<char*>self._bytes(moved) + moved.size, value, <size_t>(head - 2 - value))
            moved.size += <uint32_t>(head - 2 - value)
        return moved

    # ------------------------------------------------------------------ the line

    cdef char* write(self, char* out, const char* end, const Note* note, const Facts* facts) noexcept nogil:
        cdef const char* data = self._bytes(note)
        cdef const Step* step = self._steps
        cdef const Step* last = step + self._count
        cdef uint64_t number
        if <size_t>(end - out) < self._room:
            return NULL
        if self._clf_count or self._iso_count:
            self._set_time()
        while step < last:
            if step.fact == NOTHING:
                pass
            elif step.fact == CLIENT:
                out = self._write_span(
                    out, end - step.rest, facts.client if facts.client_size else NULL, facts.client_size, step.json)
            elif step.fact == LINE:
                out = self._write_span(out, end - step.rest, data, note.line_size, step.json)
            elif step.fact == STATUS:
                _put_digits(out, <uint64_t>facts.status, 3)
                out += 3
            elif step.fact == SENT or step.fact == RECEIVED:
                out = _put_number(out, facts.sent if step.fact == SENT else facts.received)
            elif step.fact == DURATION:
                number = <uint64_t>max(facts.duration, 0) // step.unit
                out = _put_number(out, number // step.scale)
                if step.digits:
                    out[0] = c"."
                    _put_digits(out + 1, number % step.scale, step.digits)
                    out += 1 + step.digits
            else:
                out = self._write_other(out, end - step.rest, step, note, facts)
            if out == NULL:
                return NULL
            if step.tail_size <= 8:
                memcpy(out, step.tail, 8)
            else:
                memcpy(out, step.tail, step.tail_size)
            out += step.tail_size
            step += 1
        return out

    cdef char* _write_other(
        self, char* out, const char* end, const Step* step, const Note* note, const Facts* facts) noexcept nogil:
        cdef const char* data = self._bytes(note)
        cdef const Piece* piece = <const Piece*>(note + 1) + step.slot
        cdef const char* phrase
        if step.fact == METHOD:
            piece = &note.method
        elif step.fact == PATH:
            piece = &note.path
        elif step.fact == PROTOCOL:
            piece = &note.protocol
        elif step.fact == QUERY:
            # No query is an empty one: what stands around it in a template reads on.
            if note.query.size <= 0:
                return _put(out, b'""', 2) if step.json else out
            piece = &note.query
        elif step.fact == REQUEST_ID:
            if piece.size < 0 or not _is_request_id(data + piece.at, <size_t>piece.size):
                return self._write_span(out, end, NULL, 0, step.json)
        elif step.fact == SENT_OR_DASH:
            return _put_number(out, facts.sent) if facts.sent or step.json else _put(out, b"-", 1)
        elif step.fact == SCHEME:
            return self._write_span(out, end, b"https" if facts.https else b"http", 5 if facts.https else 4, step.json)
        elif step.fact == PHRASE:
            phrase = standard_reason(facts.status)
            return self._write_span(out, end, phrase, strlen(phrase), step.json)
        elif step.fact == USER:
            return self._write_user(out, end, data + piece.at, piece.size, step.json)
        elif step.fact == LINE_WITHOUT_QUERY:
            if note.query.size >= 0:
                return self._write_without_query(out, end, note, step.json)
            return self._write_span(out, end, data, note.line_size, step.json)
        if piece.size < 0:
            return self._write_span(out, end, NULL, 0, step.json)
        return self._write_span(out, end, data + piece.at, <size_t>piece.size, step.json)

    cdef char* _write_span(self, char* out, const char* end, const char* data, size_t size, bint json) noexcept nogil:
        """A client's words; NULL: there are none."""
        if size == 0 and (data == NULL or not json):
            return _put(out, b"null", 4) if json else _put(out, b"-", 1)
        if out >= end or <size_t>(end - out) < EXPANSION * size + 2:
            return NULL
        if not json:
            return _put_text(out, data, size)
        out[0] = c'"'
        out = _put_json(out + 1, data, size)
        out[0] = c'"'
        return out + 1

    cdef char* _write_without_query(self, char* out, const char* end, const Note* note, bint json) noexcept nogil:
        cdef const char* data = self._bytes(note)
        cdef size_t before = note.query.at - 1   # the question mark goes too
        cdef size_t after = note.query.at + <size_t>note.query.size
        if out >= end or <size_t>(end - out) < EXPANSION * <size_t>note.line_size + 2:
            return NULL
        if not json:
            return _put_text(_put_text(out, data, before), data + after, note.line_size - after)
        out[0] = c'"'
        out = _put_json(out + 1, data, before)
        out = _put_json(out, data + after, note.line_size - after)
        out[0] = c'"'
        return out + 1

    cdef char* _write_user(self, char* out, const char* end, const char* data, int32_t size, bint json) noexcept nogil:
        cdef char user[MOST_USER]
        cdef int count = -1
        if size > 6 and (data[0] | 32) == c"b" and (data[1] | 32) == c"a" and data[5] == c" ":   # RFC 7617
            count = _read_base64(data + 6, <size_t>(size - 6), user, MOST_USER)
        return self._write_span(out, end, user if count > 0 else NULL, <size_t>max(count, 0), json)

    cdef void _set_time(self) noexcept nogil:
        """Writes the time into the literals."""
        cdef int64_t second = 0
        cdef int milliseconds = 0
        cdef char clf[40]
        cdef char iso[40]
        cdef int index
        df_wall_clock(self._iso_count, &second, &milliseconds)
        if second != self._second:
            self._second = second
            df_stamps(second, clf, iso)
            for index in range(self._clf_count):
                memcpy(self._clf_spots[index], clf, 28)
            for index in range(self._iso_count):
                memcpy(self._iso_spots[index], iso, 19)
        for index in range(self._iso_count):
            _put_digits(self._iso_spots[index] + 20, <uint64_t>milliseconds, 3)

    # ------------------------------------------------------------------ for Python

    cdef object _shown(self, const Note* note, const Piece* piece):
        return None if piece.size < 0 else _escaped(self._bytes(note) + piece.at, piece.size)

    cdef bytes line_of(self, const Note* note):
        return PyBytes_FromStringAndSize(self._bytes(note), note.line_size)

    cdef dict describe(self, const Note* note, const Facts* facts):
        cdef const Piece* pieces = <const Piece*>(note + 1)
        cdef Piece line
        cdef int slot
        _set(&line, 0, note.line_size)
        values = {
            "client": _escaped(facts.client, <Py_ssize_t>facts.client_size) or None,
            "request_line": self._shown(note, &line),
            "method": self._shown(note, &note.method),
            "path": self._shown(note, &note.path),
            "query": self._shown(note, &note.query) or "",
            "protocol": self._shown(note, &note.protocol),
            "status": facts.status,
            "bytes_sent": facts.sent,
            "bytes_received": facts.received,
            "duration": facts.duration / 1e9,
            "scheme": "https" if facts.https else "http",
            "host": None,
            "referer": None,
            "user_agent": None,
            "request_id": None,
        }
        for slot in range(self._request_slots):
            name = self._names[slot]
            if name == self._id_field:
                if pieces[slot].size > 0 and _is_request_id(self._bytes(note) + pieces[slot].at, <size_t>pieces[slot].size):
                    values["request_id"] = self._shown(note, &pieces[slot])
            elif name in RECORD_FIELDS:
                values[RECORD_FIELDS[name]] = self._shown(note, &pieces[slot])
        return values

    def line(self, bytes request not None, *, bint refused=False, bytes response=b"", bytes client=b"127.0.0.1", int status=200,
             sent=0, received=0, duration=0, bint https=False, room=None):
        """The line of one request, from its head's bytes: for tests, fuzzers and tools.

        refused: the bytes are those of a head that could not be read. response: a response's head. duration: nanoseconds.
        room: bytes to write into, None when the line does not fit; without it there is room enough. ValueError: no request.
        """
        cdef Note* note = NULL
        cdef Note* moved
        cdef Facts facts
        cdef size_t size = 4096 if room is None else room
        cdef char* out = NULL
        cdef char* end
        facts.client, facts.client_size = PyBytes_AS_STRING(client), <size_t>len(client)
        facts.status, facts.https = status, https
        facts.sent, facts.received, facts.duration = sent, received, duration
        try:
            note = self._note_of(request, refused)
            if response:
                moved = self.note_response(note, PyBytes_AS_STRING(response), <size_t>len(response))
                if moved == NULL:
                    raise MemoryError
                note = moved
            while True:
                free(out)
                out = <char*>malloc(max(size, <size_t>1))
                if out == NULL:
                    raise MemoryError
                end = self.write(out, out + size, note, &facts)
                if end != NULL:
                    return PyBytes_FromStringAndSize(out, end - out)
                if room is not None:
                    return None
                size *= 2
        finally:
            free(out)
            free(note)

    cdef Note* _note_of(self, bytes request, bint refused) except NULL:
        cdef Head* head
        cdef Note* note = NULL
        cdef Progress progress
        if refused:
            note = self.note_line(PyBytes_AS_STRING(request), <size_t>len(request))
        else:
            limits = Limits()
            head = new_head(limits)
            try:
                if parse_head(head, limits, PyBytes_AS_STRING(request), <size_t>len(request), &progress) != PARSED:
                    raise ValueError("this is not the head of a request")
                note = self.note(head, NULL)
            finally:
                free_head(head)
        if note == NULL:
            raise MemoryError
        return note
