"""Request head, framing and chunked decoding over bytes that somebody else owns. No objects, no state between calls, no I/O.

Longer than most files because one grammar has one home: request line and targets, fields, Host, framing, chunks, in this order.
A rule that is broken is a status and a sentence, never an echo of what came in. Every verdict depends only on bytes up to the
LF of the line it is about, so a head is judged alike however the network cut it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp

from duckfast._headers cimport (
    NAME_CONNECTION, NAME_CONTENT_LENGTH, NAME_EXPECT, NAME_FORWARDED, NAME_HOST, NAME_TE, NAME_TRANSFER_ENCODING,
    NAME_UNKNOWN, NAME_UPGRADE, NAME_X_FORWARDED_PREFIX, find_name)
from duckfast._limits cimport Limits
from duckfast._scan cimport (
    BYTE_CLASS, BYTE_DIGIT, BYTE_HEX, BYTE_HOST, BYTE_TOKEN, scan_name, scan_target, scan_value, scan_value_words)

cdef extern from *:
    """
    #define likely_(condition) __builtin_expect(!!(condition), 1)
    #define rarely_(condition) __builtin_expect(!!(condition), 0)
    /* The eight bytes at `data` are those of `text`: one load and one comparison. */
    #define is_eight(data, text) (memcmp((data), (text), 8) == 0)
    /* Lengths are signed 64-bit numbers everywhere behind this file. */
    #define LARGEST UINT64_C(0x7fffffffffffffff)
    """
    bint likely_(bint condition) noexcept nogil
    bint rarely_(bint condition) noexcept nogil
    bint is_eight(const char* data, const char* text) noexcept nogil
    const uint64_t LARGEST


cdef Head* new_head(Limits limits) except NULL:
    cdef Head* head = <Head*>calloc(1, sizeof(Head))
    if head is NULL:
        raise MemoryError
    head.field_capacity = <uint32_t>max(limits.fields, 1)
    head.fields = <Field*>calloc(head.field_capacity, sizeof(Field))
    if head.fields is NULL:
        free(head)
        raise MemoryError
    return head


cdef void free_head(Head* head) noexcept nogil:
    if head is NULL:
        return
    free(head.fields)
    free(head)


cdef inline uint8_t _class(const char* data) noexcept nogil:
    return BYTE_CLASS[<uint8_t>data[0]]


cdef inline bint _blank(char byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef inline Parsed _refuse(Progress* progress, int status, const char* reason) noexcept nogil:
    progress.status = status
    progress.reason = reason
    return REFUSED


cdef bint _same(const char* data, size_t size, const char* lower, size_t lower_size) noexcept nogil:
    # Equal but for the case of letters; `lower` holds lower-case letters and "-" only.
    cdef size_t index
    if size != lower_size:
        return False
    for index in range(size):
        if data[index] != lower[index] and not (c"A" <= data[index] <= c"Z" and (data[index] | 0x20) == lower[index]):
            return False
    return True


cdef bint is_token(const char* data, size_t size) noexcept nogil:
    cdef size_t index
    for index in range(size):
        if not _class(data + index) & BYTE_TOKEN:
            return False
    return size > 0


cdef bint is_value(const char* data, size_t size) noexcept nogil:
    return scan_value(data, data + size) == data + size


cdef int64_t parse_length(const char* data, size_t size) noexcept nogil:
    cdef uint64_t length = 0
    cdef size_t index
    if size == 0:
        return -1
    for index in range(size):
        if not _class(data + index) & BYTE_DIGIT:
            return -1
        # Checked before it can wrap: a length of 2**64 + 3 must not become 3.
        if length > (LARGEST - 9) // 10:
            return -1
        length = length * 10 + <uint64_t>(data[index] - c"0")
    return <int64_t>length


# Lines ---------------------------------------------------------------------------------------------------------------

cdef Parsed _judge(
    Limits limits, const char* data, size_t size, size_t line_start, bint request_line, int status, const char* reason,
    Progress* progress,
) noexcept nogil:
    """The verdict on a line that cannot be read on: too long, not all here yet, or wrong as the caller says."""
    cdef size_t line_limit = <size_t>(limits.request_line if request_line else limits.field_line) + 2
    cdef size_t head_limit = <size_t>limits.head
    cdef size_t reach = min(size, line_start + line_limit, head_limit)
    if reach > line_start and memchr(data + line_start, c"\n", reach - line_start) is not NULL:
        return _refuse(progress, status, reason)
    progress.line_start = line_start
    progress.request_line = request_line
    return check_unfinished(limits, size, progress)


cdef Parsed check_unfinished(Limits limits, size_t size, Progress* progress) noexcept nogil:
    # RFC 9112 3 and RFC 9110 5.4 leave the limits to us. CRLF is not counted into a line's length.
    cdef size_t line_end = progress.line_start + 2 + <size_t>(
        limits.request_line if progress.request_line else limits.field_line)
    cdef size_t head_end = <size_t>limits.head
    if line_end <= head_end and size >= line_end:
        if progress.request_line:
            return _refuse(progress, 414, b"the request line is too long")
        return _refuse(progress, 431, b"a field line is too long")
    if size >= head_end:
        return _refuse(progress, 431, b"the request head is too large")
    return INCOMPLETE


cdef inline bint _fits(Limits limits, size_t line_start, size_t line_end, bint request_line) noexcept nogil:
    # line_end is behind the LF.
    cdef size_t limit = <size_t>(limits.request_line if request_line else limits.field_line)
    return line_end - line_start <= limit + 2 and line_end <= <size_t>limits.head


# Targets, RFC 9112 3.2 ----------------------------------------------------------------------------------------------

cdef Parsed parse_target(Head* head, Progress* progress) noexcept nogil:
    cdef const char* cursor = head.target.data
    cdef const char* end = head.target.data + head.target.size
    cdef const char* question = NULL
    cdef bint escaped = False
    while True:
        cursor = scan_target(cursor, end)
        if cursor == end:
            return _split_target(head, question, escaped, progress)
        if cursor[0] == c"%":
            escaped = escaped or question is NULL
        elif cursor[0] == c"?":
            if question is NULL:
                question = cursor
        elif cursor[0] == c"#":
            return _refuse(progress, 400, b"the target has a fragment")
        else:
            return _refuse(progress, 400, b"a control character or a space in the target")
        cursor += 1


cdef inline Parsed _split_target(Head* head, const char* question, bint escaped, Progress* progress) noexcept nogil:
    """The four forms of a target. `question`: its first "?" or NULL; `escaped`: there is "%" before that."""
    cdef const char* end = head.target.data + head.target.size
    head.authority.data = NULL
    head.authority.size = 0
    head.https = False
    # One letter tells that it is not CONNECT; the few other methods with a C go the long way round.
    if rarely_(head.target.size == 0 or head.target.data[0] != c"/" or head.method.data[0] == c"C"):
        return _split_other_target(head, question, progress)
    head.path_escaped = escaped
    _cut(head, head.target.data, question, end)
    return PARSED


cdef inline void _cut(Head* head, const char* path, const char* question, const char* end) noexcept nogil:
    head.path.data = path
    if question is NULL:
        head.path.size = <uint32_t>(end - path)
        head.query.data = end
        head.query.size = 0
    else:
        head.path.size = <uint32_t>(question - path)
        head.query.data = question + 1
        head.query.size = <uint32_t>(end - question - 1)


cdef Parsed _split_other_target(Head* head, const char* question, Progress* progress) noexcept nogil:
    cdef const char* target = head.target.data
    cdef size_t size = head.target.size
    if size == 0:
        return _refuse(progress, 400, b"the request line has no target")
    if head.method.size == 7 and memcmp(head.method.data, b"CONNECT", 7) == 0:
        # RFC 9110 9.3.6: a tunnel to host:port; nothing here is a proxy.
        if is_authority(target, size) and memchr(target, c":", size) is not NULL:
            return _refuse(progress, 501, b"CONNECT is not supported")
        return _refuse(progress, 400, b"the target of CONNECT is not host:port")
    if target[0] == c"/":  # another method that begins with C
        head.path_escaped = memchr(target, c"%", (target + size if question is NULL else question) - target) is not NULL
        _cut(head, target, question, target + size)
        return PARSED
    if size == 1 and target[0] == c"*":
        if head.method.size != 7 or memcmp(head.method.data, b"OPTIONS", 7) != 0:
            return _refuse(progress, 400, b"the target * is for OPTIONS only")
        head.path_escaped = False
        _cut(head, target, NULL, target + 1)
        return PARSED
    return _split_absolute_target(head, progress)


cdef Parsed _split_absolute_target(Head* head, Progress* progress) noexcept nogil:
    # RFC 9112 3.2.2: http and https only; the authority replaces Host.
    cdef const char* cursor = head.target.data
    cdef const char* end = cursor + head.target.size
    if head.target.size > 7 and _same(cursor, 4, b"http", 4) and memcmp(cursor + 4, b"://", 3) == 0:
        cursor += 7
    elif head.target.size > 8 and _same(cursor, 5, b"https", 5) and memcmp(cursor + 5, b"://", 3) == 0:
        cursor += 8
        head.https = True
    else:
        return _refuse(progress, 400, b"the target is neither a path nor an http or https URI")
    head.authority.data = cursor
    while cursor < end and cursor[0] != c"/" and cursor[0] != c"?":
        cursor += 1
    head.authority.size = <uint32_t>(cursor - head.authority.data)
    if memchr(head.authority.data, c"@", head.authority.size) is not NULL:
        return _refuse(progress, 400, b"the target's authority holds user information")
    # RFC 9110 4.2.1: an http URI with an empty host is invalid.
    if (head.authority.size == 0 or head.authority.data[0] == c":"
            or not is_authority(head.authority.data, head.authority.size)):
        return _refuse(progress, 400, b"the target's authority is not host or host:port")
    return _split_absolute_path(head, cursor, end)


cdef Parsed _split_absolute_path(Head* head, const char* cursor, const char* end) noexcept nogil:
    cdef const char* question = <const char*>memchr(cursor, c"?", end - cursor) if cursor < end else NULL
    _cut(head, cursor, question, end)
    head.path_escaped = head.path.size > 0 and memchr(head.path.data, c"%", head.path.size) is not NULL
    if head.path.size == 0:
        head.path.data = b"/"  # a literal: outlives every head
        head.path.size = 1
    return PARSED


# Host, RFC 9110 7.2 and RFC 3986 3.2.2 --------------------------------------------------------------------------------

cdef bint is_authority(const char* data, size_t size) noexcept nogil:
    cdef const char* cursor = data
    cdef const char* end = data + size
    if cursor < end and cursor[0] == c"[":
        cursor = <const char*>memchr(data, c"]", size)
        if cursor is NULL or not _is_address_literal(data + 1, cursor):
            return False
        cursor += 1
    else:
        while cursor < end and cursor[0] != c":":
            if _class(cursor) & BYTE_HOST:
                cursor += 1
            elif cursor[0] == c"%" and end - cursor > 2 and _class(cursor + 1) & _class(cursor + 2) & BYTE_HEX:
                cursor += 3
            else:
                return False
    if cursor == end:
        return True
    if cursor[0] != c":" or (cursor == data and size > 0):
        return False  # a port without a host names nothing
    cursor += 1
    while cursor < end:
        if not _class(cursor) & BYTE_DIGIT:
            return False
        cursor += 1
    return True


cdef bint _is_address_literal(const char* cursor, const char* end) noexcept nogil:
    # IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )
    if cursor < end and (cursor[0] | 0x20) == c"v":
        cursor += 1
        if cursor == end or not _class(cursor) & BYTE_HEX:
            return False
        while cursor < end and _class(cursor) & BYTE_HEX:
            cursor += 1
        if cursor == end or cursor[0] != c"." or cursor + 1 == end:
            return False
        cursor += 1
        while cursor < end and (_class(cursor) & BYTE_HOST or cursor[0] == c":"):
            cursor += 1
        return cursor == end
    return _is_ipv6(cursor, end)


cdef bint _is_ipv6(const char* cursor, const char* end) noexcept nogil:
    cdef int groups = 0
    cdef bint compressed = False
    cdef const char* group
    if end - cursor >= 2 and cursor[0] == c":" and cursor[1] == c":":
        compressed = True
        cursor += 2
    while cursor < end:
        group = cursor
        while cursor < end and _class(cursor) & BYTE_HEX:
            cursor += 1
        if cursor < end and cursor[0] == c".":
            return _is_ipv4(group, end) and (groups + 2 < 8 if compressed else groups + 2 == 8)
        if cursor == group or cursor - group > 4:
            return False
        groups += 1
        if cursor == end:
            break
        if cursor[0] != c":" or cursor + 1 == end:
            return False
        cursor += 1
        if cursor[0] == c":":
            if compressed:
                return False
            compressed = True
            cursor += 1
    return groups < 8 if compressed else groups == 8


cdef bint _is_ipv4(const char* cursor, const char* end) noexcept nogil:
    cdef int part, value
    cdef const char* start
    for part in range(4):
        if part > 0:
            if cursor == end or cursor[0] != c".":
                return False
            cursor += 1
        start = cursor
        value = 0
        while cursor < end and _class(cursor) & BYTE_DIGIT and cursor - start < 4:
            value = value * 10 + (cursor[0] - c"0")
            cursor += 1
        if cursor == start or value > 255 or (start[0] == c"0" and cursor - start > 1):
            return False
    return cursor == end


# Request line, RFC 9112 3 ---------------------------------------------------------------------------------------------

cdef const char* _parse_request_line(
    Head* head, const char* data, const char* end, int* status, const char** reason) noexcept nogil:
    """Behind the line's CRLF, or NULL with the reason it cannot be read (which may be that it is not all here)."""
    cdef const char* cursor = data
    cdef const char* question = NULL
    cdef bint escaped = False
    cdef Progress progress
    status[0] = 400
    reason[0] = b"the request line is not: method, one space, target, one space, HTTP version"

    head.method.data = data
    while cursor < end and _class(cursor) & BYTE_TOKEN:
        cursor += 1
    if cursor == end or cursor[0] != c" ":
        return NULL
    head.method.size = <uint32_t>(cursor - data)
    cursor += 1

    head.target.data = cursor
    while True:
        cursor = scan_target(cursor, end)
        if cursor == end:
            return NULL
        if cursor[0] == c" ":
            break
        if cursor[0] == c"?":
            if question is NULL:
                question = cursor
        elif cursor[0] == c"%":
            escaped = escaped or question is NULL
        elif cursor[0] == c"#":
            reason[0] = b"the target has a fragment"
            return NULL
        else:
            if <uint8_t>cursor[0] != c"\r":
                reason[0] = b"a control character in the request line"
            return NULL
        cursor += 1
    head.target.size = <uint32_t>(cursor - head.target.data)
    cursor += 1

    # HTTP-version CRLF is ten bytes; both usual ones are told by one comparison.
    if end - cursor < 10:
        return NULL
    if likely_(is_eight(cursor, b"HTTP/1.1")):
        head.minor = 1
    elif is_eight(cursor, b"HTTP/1.0"):
        head.minor = 0
    elif not _parse_version(head, cursor, status, reason):
        return NULL
    if cursor[8] != c"\r" or cursor[9] != c"\n":
        return NULL
    if rarely_(_split_target(head, question, escaped, &progress) != PARSED):
        status[0] = progress.status
        reason[0] = progress.reason
        return NULL
    return cursor + 10


cdef bint _parse_version(Head* head, const char* cursor, int* status, const char** reason) noexcept nogil:
    if memcmp(cursor, b"HTTP/", 5) != 0 or cursor[6] != c"." or cursor[8] != c"\r":
        return False
    if not _class(cursor + 5) & _class(cursor + 7) & BYTE_DIGIT:
        return False
    if cursor[5] != c"1":
        status[0] = 505  # RFC 9110 15.6.6
        reason[0] = b"only HTTP/1.0 and HTTP/1.1 are served here"
        return False
    head.minor = 1  # RFC 9110 2.5: a later minor version is served as the latest one known
    return True


# Fields, RFC 9112 5 ----------------------------------------------------------------------------------------------------

cdef inline const char* _parse_field(
    Field* field, const char* line, const char* end, const char** reason) noexcept nogil:
    """Behind the CRLF of the field line, or NULL with the reason it cannot be read (which may be that it is not all here)."""
    cdef const char* cursor = scan_name(line, end)
    cdef const char* value
    cdef const char* stop
    cdef uint8_t underscore = 0
    if rarely_(cursor == end or cursor[0] != c":"):
        while cursor < end and _class(cursor) & BYTE_TOKEN:
            underscore |= cursor[0] == c"_"
            cursor += 1
        if cursor == end or cursor[0] != c":":
            reason[0] = _why_no_name(line, cursor, end)
            return NULL
    if rarely_(cursor == line):
        reason[0] = b"a field without a name"
        return NULL
    field.name.data = line
    field.name.size = <uint32_t>(cursor - line)
    field.underscore = underscore
    field.name_id = NAME_UNKNOWN if underscore else find_name(line, <size_t>(cursor - line))

    value = cursor + 1
    while value < end and _blank(value[0]):
        value += 1
    cursor = scan_value(value, end)
    if rarely_(end - cursor < 2):
        reason[0] = b"a field line does not end with CRLF"  # only looked at when its LF is here
        return NULL
    if rarely_(cursor[0] != c"\r" or cursor[1] != c"\n"):
        if cursor[0] == c"\r" or cursor[0] == c"\n":
            reason[0] = b"a field line does not end with CRLF"
        else:
            reason[0] = b"a control character in a field value"
        return NULL
    stop = cursor
    while stop > value and _blank((stop - 1)[0]):
        stop -= 1
    field.value.data = value
    field.value.size = <uint32_t>(stop - value)
    return cursor + 2


cdef const char* _why_no_name(const char* line, const char* cursor, const char* end) noexcept nogil:
    if cursor < end and _blank(cursor[0]):
        if cursor == line:
            return b"a field line begins with white space"  # RFC 9112 5.2: obs-fold
        return b"white space in or behind a field name"
    if cursor < end and (cursor[0] == c"\r" or cursor[0] == c"\n"):
        return b"a field line without a colon, or without CRLF"
    return b"a field name is not a token"


cdef void add_field(Head* head, const char* name, size_t name_size, const char* value, size_t value_size) noexcept nogil:
    cdef Field* field = &head.fields[head.field_count]
    field.name.data = name
    field.name.size = <uint32_t>name_size
    field.value.data = value
    field.value.size = <uint32_t>value_size
    field.underscore = memchr(name, c"_", name_size) is not NULL
    field.name_id = NAME_UNKNOWN if field.underscore else find_name(name, name_size)
    head.dropped += field.underscore
    head.field_count += 1


cdef Parsed parse_head(Head* head, Limits limits, const char* data, size_t size, Progress* progress) noexcept nogil:
    cdef const char* end = data + size
    cdef const char* line = data
    cdef const char* cursor
    cdef const char* reason
    cdef int status
    cdef Field* field
    cdef uint32_t most = min(<uint32_t>limits.fields, head.field_capacity)
    cdef uint32_t count = 0
    cdef int dropped = 0

    head.method.size = 0
    if size > 0 and not _class(data) & BYTE_TOKEN:
        # Told at once, whatever follows: another protocol (a TLS hello) may never send an LF.
        return _refuse(progress, 400, b"the request line does not begin with a method")
    cursor = _parse_request_line(head, data, end, &status, &reason)
    if rarely_(cursor is NULL or not _fits(limits, 0, cursor - data, True)):
        return _judge(limits, data, size, 0, True, status, reason, progress)

    reason = b""
    while True:
        line = cursor
        if rarely_(end - line < 2 or line[0] == c"\n"):
            return _judge(limits, data, size, line - data, False, 400, b"a bare LF ends the head", progress)
        if line[0] == c"\r":
            if line[1] != c"\n" or not _fits(limits, line - data, line - data + 2, False):
                return _judge(limits, data, size, line - data, False, 400, b"a bare CR in the head", progress)
            break
        if rarely_(count == most):
            return _judge(limits, data, size, line - data, False, 431, b"too many fields", progress)
        field = &head.fields[count]
        cursor = _parse_field(field, line, end, &reason)
        if rarely_(cursor is NULL or not _fits(limits, line - data, cursor - data, False)):
            return _judge(limits, data, size, line - data, False, 400, reason, progress)
        dropped += field.underscore
        count += 1
    head.field_count = count
    head.dropped = dropped
    progress.consumed = <size_t>(line + 2 - data)
    return parse_framing(head, progress)


cdef Parsed measure_head(Limits limits, const char* data, size_t size, Progress* progress) noexcept nogil:
    cdef const char* end = data + size
    cdef const char* line = data
    cdef const char* cursor
    cdef int64_t fields = -1  # the request line is none
    cdef bint request_line = True
    cdef const char* reason
    if size > 0 and not _class(data) & BYTE_TOKEN:
        return _refuse(progress, 400, b"the request line does not begin with a method")
    while True:
        cursor = scan_value(line, end)
        reason = NULL
        if end - cursor < 2 or cursor[0] != c"\r" or cursor[1] != c"\n":
            reason = b"a control character, or a line that does not end with CRLF"
        elif not _fits(limits, line - data, cursor + 2 - data, request_line):
            reason = b""
        elif cursor > line and _blank(line[0]):
            reason = b"a field line begins with white space"
        if reason is not NULL:
            return _judge(limits, data, size, line - data, request_line, 400, reason, progress)
        if cursor == line:
            progress.consumed = <size_t>(cursor + 2 - data)
            return PARSED
        if fields == limits.fields:
            return _judge(limits, data, size, line - data, False, 431, b"too many fields", progress)
        fields += 1
        request_line = False
        line = cursor + 2


# Framing and persistence, RFC 9112 6 and 9 -----------------------------------------------------------------------------

cdef inline bint _next_element(const char** cursor, const char* end, const char** element, size_t* size) noexcept nogil:
    """The next element of a comma-separated list without the white space around it, which may be empty; false: no more."""
    # RFC 9110 5.6.1
    cdef const char* stop
    if cursor[0] >= end:
        return False
    element[0] = cursor[0]
    while cursor[0] < end and cursor[0][0] != c",":
        cursor[0] += 1
    stop = cursor[0]
    cursor[0] += 1
    while element[0] < stop and _blank(element[0][0]):
        element[0] += 1
    while stop > element[0] and _blank((stop - 1)[0]):
        stop -= 1
    size[0] = <size_t>(stop - element[0])
    return True


cdef bint has_token(const char* value, size_t size, const char* token, size_t token_size) noexcept nogil:
    cdef const char* cursor = value
    cdef const char* element
    cdef size_t element_size
    while _next_element(&cursor, value + size, &element, &element_size):
        if _same(element, element_size, token, token_size):
            return True
    return False


cdef enum:
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_UPGRADE = 4


cdef int _parse_connection(const char* value, size_t size) noexcept nogil:
    """The options of one Connection line that mean something here."""
    cdef const char* cursor = value
    cdef const char* element
    cdef size_t element_size
    cdef int options = 0
    while _next_element(&cursor, value + size, &element, &element_size):
        if element_size == 10 and _same(element, 10, b"keep-alive", 10):
            options |= OPTION_KEEP_ALIVE
        elif element_size == 5 and _same(element, 5, b"close", 5):
            options |= OPTION_CLOSE
        elif element_size == 7 and _same(element, 7, b"upgrade", 7):
            options |= OPTION_UPGRADE
    return options


cdef Parsed parse_framing(Head* head, Progress* progress) noexcept nogil:
    cdef uint32_t index
    cdef Field* field
    cdef int hosts = 0
    cdef int codings = 0
    cdef bint expects = False
    cdef bint unmet = False
    cdef int options = 0
    cdef bint websocket = False

    head.content_length = -1
    head.chunked = False
    head.expect_continue = False
    head.te_trailers = False
    head.upgrade_websocket = False
    head.host = -1
    head.forwarded = 0
    for index in range(head.field_count):
        field = &head.fields[index]
        if field.name_id == NAME_UNKNOWN or field.name_id > NAME_X_FORWARDED_PREFIX:
            continue
        if field.name_id == NAME_HOST:
            hosts += 1
            head.host = <int>index
        elif field.name_id == NAME_CONNECTION:
            options |= _parse_connection(field.value.data, field.value.size)
        elif field.name_id == NAME_CONTENT_LENGTH:
            # RFC 9110 8.6 lets us refuse repeats even when they agree: applications see every line of them.
            if head.content_length >= 0:
                return _refuse(progress, 400, b"more than one Content-Length")
            head.content_length = parse_length(field.value.data, field.value.size)
            if head.content_length < 0:
                return _refuse(progress, 400, b"Content-Length is not a decimal number that fits")
        elif field.name_id == NAME_TRANSFER_ENCODING:
            codings += 1
            if codings > 1:
                return _refuse(progress, 400, b"more than one Transfer-Encoding")
            head.chunked = True
            if not _same(field.value.data, field.value.size, b"chunked", 7):
                return _refuse_coding(field, progress)
        elif field.name_id == NAME_UPGRADE:
            websocket = websocket or has_token(field.value.data, field.value.size, b"websocket", 9)
        elif field.name_id == NAME_EXPECT:
            expects = True
            unmet = unmet or not _same(field.value.data, field.value.size, b"100-continue", 12)
        elif field.name_id == NAME_TE:
            head.te_trailers = head.te_trailers or has_token(field.value.data, field.value.size, b"trailers", 8)
        elif field.name_id >= NAME_FORWARDED:
            head.forwarded |= <uint32_t>1 << (field.name_id - NAME_FORWARDED)

    # RFC 9112 6.3: both present is how requests are smuggled.
    if rarely_(head.chunked and head.content_length >= 0):
        return _refuse(progress, 400, b"both Content-Length and Transfer-Encoding")
    # RFC 9112 6.1: a 1.0 client cannot mean it; a relay that passed it on may frame differently.
    if rarely_(head.chunked and head.minor == 0):
        return _refuse(progress, 400, b"Transfer-Encoding in an HTTP/1.0 request")
    if rarely_(head.dropped > 0 and _misspelt_coding(head)):
        return _refuse(progress, 400, b"Transfer-Encoding is misspelt with an underscore")
    # RFC 9112 3.2: none on 1.1, or more than one anywhere.
    if rarely_(hosts != 1):
        if hosts > 1:
            return _refuse(progress, 400, b"more than one Host")
        if head.minor == 1:
            return _refuse(progress, 400, b"Host is missing")
    elif rarely_(not is_authority(head.fields[head.host].value.data, head.fields[head.host].value.size)):
        return _refuse(progress, 400, b"Host is not host or host:port")

    head.keep_alive = not options & OPTION_CLOSE and (head.minor == 1 or options & OPTION_KEEP_ALIVE)
    if rarely_(expects and head.minor == 1):
        if unmet:
            return _refuse(progress, 417, b"the only expectation met here is 100-continue")
        # RFC 9110 10.1.1: without content there is nothing to continue with.
        head.expect_continue = head.chunked or head.content_length > 0
    if rarely_(websocket and options & OPTION_UPGRADE):
        head.upgrade_websocket = (
            head.minor == 1 and not head.chunked and head.content_length <= 0
            and head.method.size == 3 and memcmp(head.method.data, b"GET", 3) == 0)
    return PARSED


cdef Parsed _refuse_coding(Field* field, Progress* progress) noexcept nogil:
    # RFC 9112 6.1: an unknown coding is 501; a value that is not one plain coding name is simply wrong.
    if is_token(field.value.data, field.value.size):
        return _refuse(progress, 501, b"the only transfer coding known here is chunked")
    return _refuse(progress, 400, b"Transfer-Encoding is not exactly: chunked")


cdef bint _misspelt_coding(Head* head) noexcept nogil:
    # A relay that maps "_" to "-" would frame by it.
    cdef uint32_t index, letter
    cdef Field* field
    cdef char byte
    cdef const char* name = b"transfer-encoding"
    for index in range(head.field_count):
        field = &head.fields[index]
        if not field.underscore or field.name.size != 17:
            continue
        for letter in range(17):
            byte = field.name.data[letter]
            byte = c"-" if byte == c"_" else byte | 0x20 if c"A" <= byte <= c"Z" else byte
            if byte != name[letter]:
                break
        else:
            return True
    return False


# Chunks, RFC 9112 7.1 --------------------------------------------------------------------------------------------------

cdef enum ChunkState:
    SIZE_FIRST     # the first digit of a chunk size
    SIZE_NEXT      # further digits, ";" or CR
    EXTENSION      # up to CR
    SIZE_LF
    CONTENT
    CONTENT_CR
    CONTENT_LF
    TRAILERS       # whole lines up to the empty one


cdef void start_chunks(ChunkDecoder* decoder) noexcept nogil:
    decoder.state = SIZE_FIRST
    decoder.left = 0
    decoder.declared = 0
    decoder.extension = 0
    decoder.extensions = 0
    decoder.trailers = 0
    decoder.seen = 0


cdef int _hex_digit(unsigned char letter) noexcept nogil:
    if c"0" <= letter <= c"9":
        return letter - c"0"
    letter |= 0x20
    if c"a" <= letter <= c"f":
        return letter - c"a" + 10
    return -1


cdef size_t unquote(const char* data, size_t size, char* out) noexcept nogil:
    # RFC 3986 2.1
    cdef size_t read = 0
    cdef size_t written = 0
    cdef int high, low
    while read < size:
        if data[read] == c"%" and read + 2 < size:
            high = _hex_digit(data[read + 1])
            low = _hex_digit(data[read + 2])
            if high >= 0 and low >= 0:
                out[written] = <char>(high << 4 | low)
                written += 1
                read += 3
                continue
        out[written] = data[read]
        written += 1
        read += 1
    return written


cdef inline Chunk _refuse_chunk(Progress* progress, int status, const char* reason) noexcept nogil:
    progress.status = status
    progress.reason = reason
    return CHUNK_REFUSED


cdef inline uint64_t _hex(char digit) noexcept nogil:
    return <uint64_t>(digit - c"0" if digit <= c"9" else (digit | 0x20) - c"a" + 10)


cdef Chunk decode_chunk(
    ChunkDecoder* decoder, Limits limits, const char** cursor, const char* end, const char** data, size_t* data_size,
    Progress* progress,
) noexcept nogil:
    cdef char byte
    cdef const char* stop
    while cursor[0] < end:
        if decoder.state == CONTENT:
            data[0] = cursor[0]
            data_size[0] = <size_t>min(decoder.left, <uint64_t>(end - cursor[0]))
            cursor[0] += data_size[0]
            decoder.left -= data_size[0]
            if decoder.left == 0:
                decoder.state = CONTENT_CR
            return CHUNK_DATA
        if decoder.state == TRAILERS:
            return _decode_trailers(decoder, limits, cursor, end, progress)
        if decoder.state == EXTENSION:
            # Skipped unread: quotes do not hide CRLF, and neither CR nor LF is ever part of it.
            stop = scan_value(cursor[0], end)
            if not _charge_extension(decoder, limits, stop - cursor[0]):
                return _refuse_chunk(progress, 400, b"chunk extensions are too large")
            cursor[0] = stop
            if stop == end:
                return CHUNK_MORE
            if stop[0] != c"\r":
                return _refuse_chunk(progress, 400, b"a control character or a bare LF in a chunk extension")
            decoder.state = SIZE_LF
            cursor[0] += 1
            continue

        byte = cursor[0][0]
        cursor[0] += 1
        if decoder.state == SIZE_FIRST or decoder.state == SIZE_NEXT:
            if BYTE_CLASS[<uint8_t>byte] & BYTE_HEX:
                if not _add_digit(decoder, limits, byte):
                    return _refuse_chunk(progress, 400, b"a chunk size is too large")
                decoder.state = SIZE_NEXT
            elif decoder.state == SIZE_FIRST:
                return _refuse_chunk(progress, 400, b"a chunk size is not hexadecimal")
            elif byte == c"\r":
                decoder.state = SIZE_LF
            elif byte == c";":
                if not _charge_extension(decoder, limits, 1):
                    return _refuse_chunk(progress, 400, b"chunk extensions are too large")
                decoder.state = EXTENSION
            else:
                return _refuse_chunk(progress, 400, b"a chunk size is followed by neither CRLF nor an extension")
        elif decoder.state == SIZE_LF:
            if byte != c"\n":
                return _refuse_chunk(progress, 400, b"a bare CR in a chunk-size line")
            if decoder.left > LARGEST - decoder.declared:
                return _refuse_chunk(progress, 400, b"a chunk size is too large")
            decoder.declared += decoder.left
            if limits.body >= 0 and decoder.declared > <uint64_t>limits.body:
                return _refuse_chunk(progress, 413, b"the body is too large")
            decoder.state = CONTENT if decoder.left else TRAILERS
        elif decoder.state == CONTENT_CR:
            if byte != c"\r":
                return _refuse_chunk(progress, 400, b"chunk data is not followed by CRLF")
            decoder.state = CONTENT_LF
        else:
            if byte != c"\n":
                return _refuse_chunk(progress, 400, b"chunk data is not followed by CRLF")
            decoder.state = SIZE_FIRST
            decoder.left = 0
            decoder.extension = 0
    return CHUNK_MORE


cdef inline bint _add_digit(ChunkDecoder* decoder, Limits limits, char digit) noexcept nogil:
    if decoder.left == 0 and digit == c"0":
        # Leading zeros say nothing, so they count as what they are: padding.
        return decoder.state == SIZE_FIRST or _charge_extension(decoder, limits, 1)
    if decoder.left > LARGEST >> 4:  # before it can wrap; 16 significant digits at most pass
        return False
    decoder.left = decoder.left << 4 | _hex(digit)
    return True


cdef inline bint _charge_extension(ChunkDecoder* decoder, Limits limits, int64_t size) noexcept nogil:
    # Per chunk a line's length, per body the limit of its own: CVE-2023-39326 is what happens without either.
    decoder.extension += size
    decoder.extensions += size
    return decoder.extension <= limits.field_line and decoder.extensions <= limits.chunk_extensions


cdef Chunk _decode_trailers(
    ChunkDecoder* decoder, Limits limits, const char** cursor, const char* end, Progress* progress) noexcept nogil:
    """Whole trailer lines, validated and dropped. An unfinished one stays unread: decoder.seen of its bytes hold no LF."""
    cdef const char* line
    cdef const char* newline
    cdef const char* reason = b"a trailer line is not a field"
    cdef size_t room
    cdef Field field
    while True:
        line = cursor[0]
        room = min(<size_t>limits.field_line + 2, <size_t>(limits.trailers - decoder.trailers) + 2)
        newline = NULL
        if <size_t>(end - line) > decoder.seen:
            newline = <const char*>memchr(
                line + decoder.seen, c"\n", min(<size_t>(end - line), room) - min(decoder.seen, room))
        if newline is NULL:
            if <size_t>(end - line) >= room:
                return _refuse_chunk(progress, 431, b"trailers are too large")
            decoder.seen = <size_t>(end - line)
            return CHUNK_MORE
        decoder.seen = 0
        if newline == line + 1 and line[0] == c"\r":
            cursor[0] = newline + 1
            return CHUNK_END
        if _parse_field(&field, line, newline + 1, &reason) != newline + 1:
            return _refuse_chunk(progress, 400, reason)
        decoder.trailers += newline + 1 - line
        if decoder.trailers > limits.trailers:
            return _refuse_chunk(progress, 431, b"trailers are too large")
        cursor[0] = newline + 1


# For the tests -----------------------------------------------------------------------------------------------------------

def find_value_end(bytes data not None, Py_ssize_t start=0) -> tuple[int, int]:
    """Where a field value that begins at `start` cannot go on: by this processor's scan, and by the portable one."""
    cdef const char* text = data
    cdef const char* end = text + len(data)
    return scan_value(text + start, end) - text, scan_value_words(text + start, end) - text
