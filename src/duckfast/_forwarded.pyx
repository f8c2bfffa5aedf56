"""What trusted proxies say of a request, read from the right: X-Forwarded-*, or Forwarded (RFC 7239).

Each proxy adds what it saw behind what it was sent, so only the right end of a list is known to come from proxies that are
trusted. Both readers begin there, stop at the first address that is not trusted (the client), and never look at what stands
further left: a client can write there whatever it likes, unbalanced quotes included, and change nothing.

What cannot be read is not believed. A client address that cannot be read leaves the client unknown, for taking the proxy's
own address instead would turn a stranger into localhost. Owns these rules; refuses to know sockets and the app's dict.
The rules of one's own (names for a scheme, names with underscores) are in this one file because one Forwarded tells all.
"""

import logging

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memchr

from duckfast._headers cimport (
    NAME_FORWARDED, NAME_X_FORWARDED_FOR, NAME_X_FORWARDED_HOST, NAME_X_FORWARDED_PORT, NAME_X_FORWARDED_PREFIX,
    NAME_X_FORWARDED_PROTO,
)
from duckfast._limits cimport Limits
from duckfast._parser cimport Field, add_field, free_head, is_authority, is_token, new_head
from duckfast._trust cimport describe_address, parse_address, parse_port

cdef object _logger = logging.getLogger("duckfast")

cdef enum:
    SHOWN = 120     # bytes of a value in the log
    VALUE_ROOM = 1024   # bytes of a quoted value without its quotes; host names have 255, addresses fewer


cdef struct Backwards:
    # A list spread over field lines, taken from its end.
    Head* head
    int name_id
    bint quoted           # a comma inside of quotes separates nothing
    int line              # index of the line that is being read; the count of fields before the first
    const char* start     # of its value
    const char* end       # of what is left of it; NULL: go to the next line


cdef struct Element:
    # One of Forwarded, RFC 7239 4. Spans into the head, or into the room of the reader.
    Span node       # for=; data NULL when it is not there, and so with the others
    Span proto
    Span host


cdef inline bint _blank(char byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef inline char _before(const char* cursor) noexcept nogil:
    return (cursor - 1)[0]


cdef Backwards _backwards(Head* head, int name_id, bint quoted) noexcept nogil:
    cdef Backwards walk
    walk.head = head
    walk.name_id = name_id
    walk.quoted = quoted
    walk.line = <int>head.field_count
    walk.start = walk.end = NULL
    return walk


cdef bint _previous(Backwards* walk, Span* item) noexcept nogil:
    """The next item to the left, without the white space around it; empty ones are no items (RFC 9110 5.6.1)."""
    cdef Field* field
    cdef const char* begin
    cdef const char* end
    while True:
        if walk.end == NULL:
            walk.line -= 1
            while walk.line >= 0 and walk.head.fields[walk.line].name_id != walk.name_id:
                walk.line -= 1
            if walk.line < 0:
                return False
            field = &walk.head.fields[walk.line]
            walk.start = field.value.data
            walk.end = field.value.data + field.value.size
        end = walk.end
        begin = _item_start(walk.start, end, walk.quoted)
        walk.end = begin - 1 if begin > walk.start else NULL   # without the comma
        while begin < end and _blank(begin[0]):
            begin += 1
        while begin < end and _blank(_before(end)):
            end -= 1
        if begin < end:
            item.data = begin
            item.size = <uint32_t>(end - begin)
            return True


cdef const char* _item_start(const char* start, const char* end, bint quoted) noexcept nogil:
    """Where the item that ends at `end` begins: behind the last comma that is not between quotes."""
    cdef bint inside = False
    cdef const char* cursor = end
    cdef const char* slash
    while cursor > start:
        if _before(cursor) == c"," and not inside:
            break
        cursor -= 1
        if quoted and cursor[0] == c'"':
            # RFC 9110 5.6.4: behind an odd number of backslashes it is a part of the text.
            slash = cursor
            while inside and slash > start and _before(slash) == c"\\":
                slash -= 1
            if (cursor - slash) & 1 == 0:
                inside = not inside
    return cursor


cdef bint _at(Head* head, int name_id, int distance, Span* item) noexcept nogil:
    """The item that belongs to the client: as far from the right as its address is; the last one of a shorter list."""
    cdef Backwards walk = _backwards(head, name_id, False)
    cdef Span other
    if not _previous(&walk, item):
        return False
    other = item[0]
    while distance > 0:
        if not _previous(&walk, &other):
            return True
        distance -= 1
    item[0] = other
    return True


cdef bint _is_word(Span* text, const char* word, size_t size) noexcept nogil:
    """Whether it is this lower-case word, in any case."""
    cdef size_t index
    if text.size != size:
        return False
    for index in range(size):
        if (text.data[index] | 0x20) != word[index]:
            return False
    return True


cdef str _scheme(Span* text):
    if _is_word(text, b"https", 5) or _is_word(text, b"wss", 3):
        return "https"
    if _is_word(text, b"http", 4) or _is_word(text, b"ws", 2):
        return "http"
    return None


cdef bint _is_hidden(Span* node) noexcept nogil:
    """RFC 7239 6.2 and 6.3: `unknown`, or an identifier of the proxy's own, with or without a port."""
    cdef const char* colon = <const char*>memchr(node.data, c":", node.size)
    cdef Span name = node[0]
    cdef Span port
    if colon != NULL:
        name.size = <uint32_t>(colon - node.data)
        port.data = colon + 1
        port.size = node.size - name.size - 1
        if not _is_port(&port):
            return False
    return _is_word(&name, b"unknown", 7) or _is_obfuscated(&name)


cdef bint _is_obfuscated(Span* text) noexcept nogil:
    cdef uint32_t index
    cdef char byte
    if text.size < 2 or text.data[0] != c"_":
        return False
    for index in range(1, text.size):
        byte = text.data[index]
        if not (c"a" <= byte | 0x20 <= c"z" or c"0" <= byte <= c"9" or byte == c"." or byte == c"_" or byte == c"-"):
            return False
    return True


cdef bint _is_port(Span* text) noexcept nogil:
    return parse_port(text.data, text.size) >= 0 or _is_obfuscated(text)


cdef bint _parse_node(Span* node, Address* address) noexcept nogil:
    """An address and maybe its port; a port may be hidden (RFC 7239 6)."""
    cdef const char* cursor = node.data + node.size
    cdef Span port
    if parse_address(address, node.data, node.size):
        return True
    while cursor > node.data and _before(cursor) != c":":
        cursor -= 1
    if cursor == node.data:
        return False
    port.data = cursor
    port.size = <uint32_t>(node.data + node.size - cursor)
    return _is_obfuscated(&port) and parse_address(address, node.data, node.size - port.size - 1)


cdef object _complain(str name, Span* value):
    if _logger.isEnabledFor(logging.DEBUG):
        _logger.debug("%s is not believed, because it cannot be read: %r", name, value.data[:min(value.size, SHOWN)])


cdef class Forwarded:
    """What was said. Only made when there was something."""


cdef Forwarded read_forwarded(Head* head, Proxies proxies):
    cdef Forwarded told = Forwarded.__new__(Forwarded)
    cdef uint32_t present = head.forwarded & <uint32_t>proxies.fields
    told.client_host = ""
    if present & 1:
        _read_elements(told, head, proxies)
    elif present:
        _read_lists(told, head, proxies, present)
    if proxies.tells_schemes:
        _read_schemes(told, head, proxies)
    if proxies.admitted:
        _read_script_name(told, head)
    if told.client == CLIENT_NOT_TOLD and told.scheme is None and told.host is None and told.server_port is None \
            and told.prefix is None:
        return None
    return told


# --- rules of one's own ---------------------------------------------------------------------------------------------

cdef char _lower(char byte) noexcept nogil:
    return byte | 0x20 if c"A" <= byte <= c"Z" else byte


cdef bint _is_name(Span* name, bytes lower) noexcept:
    """Whether a field has this name, which is written in lower case."""
    cdef const char* letters = lower
    cdef uint32_t index
    if name.size != <uint32_t>PyBytes_GET_SIZE(lower):
        return False
    for index in range(name.size):
        if _lower(name.data[index]) != letters[index]:
            return False
    return True


cdef int _read_schemes(Forwarded told, Head* head, Proxies proxies) except -1:
    """Each field by itself; a value is compared whole, so that a list is never the word for TLS."""
    cdef uint32_t index
    cdef Field* field
    cdef str scheme
    for index in range(head.field_count):
        field = &head.fields[index]
        for name, secure in proxies.schemes:
            if _is_name(&field.name, name):
                scheme = "https" if field.value.data[:field.value.size] == secure else "http"
                told.contradictory = told.contradictory or (told.scheme is not None and told.scheme != scheme)
                told.scheme = scheme
    return 0


cdef int _read_script_name(Forwarded told, Head* head) except -1:
    cdef uint32_t index
    cdef Field* field
    for index in range(head.field_count):
        field = &head.fields[index]
        if not field.underscore and _is_name(&field.name, b"script_name"):
            if field.value.size == 0 or _is_prefix(&field.value):
                told.prefix = field.value.data[:field.value.size].decode("ascii").rstrip("/")
            else:
                _complain("SCRIPT_NAME", &field.value)
    return 0


cdef int admit_underscores(Head* head, Proxies proxies) except -1:
    cdef uint32_t index, other
    cdef Field* field
    cdef Field* twin
    for index in range(head.field_count):
        field = &head.fields[index]
        if not field.underscore or not _is_admitted(&field.name, proxies):
            continue
        field.underscore = 0
        head.dropped -= 1
        for other in range(head.field_count):
            twin = &head.fields[other]
            if not twin.underscore and memchr(twin.name.data, c"_", twin.name.size) == NULL and _are_twins(&field.name, &twin.name):
                twin.underscore = 1   # the client's own, which the proxy's is there to replace
    return 0


cdef bint _is_admitted(Span* name, Proxies proxies) noexcept:
    cdef bytes admitted
    if _is_name(name, b"content_length") or _is_name(name, b"content_type"):
        return False   # what replaces those would speak of another body than the one that comes
    if proxies.admits_all:
        return True
    for admitted in proxies.admitted:
        if _is_name(name, admitted):
            return True
    return False


cdef char _dashed(char byte) noexcept nogil:
    return c"-" if byte == c"_" else _lower(byte)


cdef bint _are_twins(Span* one, Span* other) noexcept nogil:
    """Names that an application's dict of CGI names takes for one."""
    cdef uint32_t index
    cdef char left, right
    if one.size != other.size:
        return False
    for index in range(one.size):
        left, right = one.data[index], other.data[index]
        if _dashed(left) != _dashed(right):
            return False
    return True


# --- X-Forwarded-* ------------------------------------------------------------------------------------------------

cdef int _read_lists(Forwarded told, Head* head, Proxies proxies, uint32_t present) except -1:
    cdef int distance = 0    # of the client's address from the right end
    cdef Span item
    if present & _bit(NAME_X_FORWARDED_FOR):
        distance = _read_addresses(told, head, proxies)
    if present & _bit(NAME_X_FORWARDED_PROTO) and _at(head, NAME_X_FORWARDED_PROTO, distance, &item):
        told.scheme = _scheme(&item)
        if told.scheme is None:
            _complain("X-Forwarded-Proto", &item)
    if present & _bit(NAME_X_FORWARDED_HOST) and _at(head, NAME_X_FORWARDED_HOST, distance, &item):
        _set_host(told, "X-Forwarded-Host", &item)
    if present & _bit(NAME_X_FORWARDED_PORT) and _at(head, NAME_X_FORWARDED_PORT, distance, &item):
        _set_port(told, head, &item)
    if present & _bit(NAME_X_FORWARDED_PREFIX) and _at(head, NAME_X_FORWARDED_PREFIX, distance, &item):
        if _is_prefix(&item):
            told.prefix = item.data[:item.size].decode("ascii").rstrip("/")
        else:
            _complain("X-Forwarded-Prefix", &item)
    if told.host is not None and told.server_port is None:
        told.server_port = 443 if told.scheme == "https" else 80
    return 0


cdef inline uint32_t _bit(int name_id) noexcept nogil:
    return <uint32_t>1 << (name_id - NAME_FORWARDED)


cdef int _read_addresses(Forwarded told, Head* head, Proxies proxies) except -1:
    """The client, and how far from the right end of the list it stands."""
    cdef Backwards walk = _backwards(head, NAME_X_FORWARDED_FOR, False)
    cdef Address address
    cdef Span item
    cdef int distance = -1
    while _previous(&walk, &item):
        distance += 1
        if not _set_client(told, "X-Forwarded-For", &item, &address):
            break
        if not proxies.senders.trusts(address.family, address.octets):
            break
    if told.client == CLIENT_TOLD:   # the last one read
        told.client_host = describe_address(address.family, address.octets)
        told.client_port = address.port
    return max(distance, 0)


cdef bint _set_client(Forwarded told, str name, Span* node, Address* address) except -1:
    """False: it is not known, and what stands to the left is not known to be true."""
    if _parse_node(node, address):
        told.client = CLIENT_TOLD
        return True
    told.client = CLIENT_UNKNOWN
    if not _is_hidden(node):
        _complain(name, node)
    return False


cdef int _set_host(Forwarded told, str name, Span* value) except -1:
    cdef const char* colon = value.data + value.size
    cdef int port
    if not is_authority(value.data, value.size):
        _complain(name, value)
        return 0
    while colon > value.data and c"0" <= _before(colon) <= c"9":
        colon -= 1
    port = -1
    if colon > value.data and _before(colon) == c":":
        port = parse_port(colon, value.data + value.size - colon)
        if port < 0 and colon < value.data + value.size:
            _complain(name, value)
            return 0
        colon -= 1
    else:
        colon = value.data + value.size
    if colon == value.data:
        _complain(name, value)
        return 0
    told.host = value.data[:value.size]
    told.server_host = value.data[:colon - value.data].decode("latin-1")
    told.server_host = told.server_host.strip("[]")
    if port >= 0:
        told.server_port = port
    return 0


cdef int _set_port(Forwarded told, Head* head, Span* value) except -1:
    """X-Forwarded-Port supplies what the host does not say: a port written there is the one the client has used."""
    cdef int port = parse_port(value.data, value.size)
    cdef bytes host
    if port <= 0:
        _complain("X-Forwarded-Port", value)
        return 0
    if told.server_port is not None:
        return 0
    told.server_port = port
    host = told.host
    if host is None:
        if head.authority.data != NULL:
            host = head.authority.data[:head.authority.size]
        elif head.host >= 0:
            host = head.fields[head.host].value.data[:head.fields[head.host].value.size]
        if not host or b":" in host.rpartition(b"]")[2]:
            return 0
    if port != (443 if told.scheme == "https" else 80):
        told.host = host + b":%d" % port
    return 0


cdef bint _is_prefix(Span* text) noexcept nogil:
    """A path of plain characters, without the empty and dotted segments by which it could mean another place or host."""
    cdef uint32_t index
    cdef uint32_t segment = 0    # where the present one begins
    cdef char byte
    cdef bint dots = True
    if text.data[0] != c"/":
        return False
    segment = 1
    for index in range(1, text.size + 1):
        byte = c"/" if index == text.size else text.data[index]
        if byte == c"/":
            if index < text.size and index == segment or index > segment and dots and index - segment <= 2:
                return False
            segment = index + 1
            dots = True
            continue
        dots = dots and byte == c"."
        if not (c"a" <= byte | 0x20 <= c"z" or c"0" <= byte <= c"9" or memchr(b"-._~!$&'()*+,;=:@", byte, 17) != NULL):
            return False
    return True


# --- Forwarded ----------------------------------------------------------------------------------------------------

cdef int _read_elements(Forwarded told, Head* head, Proxies proxies) except -1:
    cdef Backwards walk = _backwards(head, NAME_FORWARDED, True)
    cdef char[4 * VALUE_ROOM] room   # for each of the three, and for a parameter that nobody reads
    cdef Element element
    cdef Address address
    cdef Span item
    cdef str scheme
    while _previous(&walk, &item):
        if not _parse_element(&item, &element, room):
            told.client = CLIENT_UNKNOWN
            _complain("Forwarded", &item)
            break
        # Each trusted proxy says how it was reached itself; the one that is farthest out is the one the client has spoken to.
        if element.proto.data != NULL:
            scheme = _scheme(&element.proto)
            if scheme is None:
                _complain("Forwarded: proto", &element.proto)
            else:
                told.scheme = scheme
        if element.host.data != NULL:
            told.server_port = None
            _set_host(told, "Forwarded: host", &element.host)
        if element.node.data == NULL:
            break   # it does not say who spoke to it, so nobody knows who has written what stands to the left
        if not _set_client(told, "Forwarded: for", &element.node, &address):
            break
        if not proxies.senders.trusts(address.family, address.octets):
            break
    if told.client == CLIENT_TOLD:
        told.client_host = describe_address(address.family, address.octets)
        told.client_port = address.port
    if told.host is not None and told.server_port is None:
        told.server_port = 443 if told.scheme == "https" else 80
    return 0


cdef bint _parse_element(Span* item, Element* element, char* room) noexcept nogil:
    """forwarded-pair *( ";" forwarded-pair ), RFC 7239 4; no parameter twice. room: for what stands in quotes."""
    cdef const char* cursor = item.data
    cdef const char* end = item.data + item.size
    cdef Span name
    cdef Span value
    cdef Span* place
    element.node.data = element.proto.data = element.host.data = NULL
    while True:
        while cursor < end and _blank(cursor[0]):
            cursor += 1
        name.data = cursor
        while cursor < end and cursor[0] != c"=" and cursor[0] != c";":
            cursor += 1
        name.size = <uint32_t>(cursor - name.data)
        if name.size != 0 or cursor < end and cursor[0] == c"=":
            if cursor == end or cursor[0] != c"=" or not is_token(name.data, name.size):
                return False
            cursor += 1
            place = NULL
            if _is_word(&name, b"for", 3):
                place = &element.node
            elif _is_word(&name, b"proto", 5):
                place = &element.proto
            elif _is_word(&name, b"host", 4):
                place = &element.host
            if place != NULL and place.data != NULL:
                return False
            cursor = _parse_pair_value(cursor, end, &value, room)
            if cursor == NULL:
                return False
            if place != NULL:
                place[0] = value
                room += VALUE_ROOM
        while cursor < end and _blank(cursor[0]):
            cursor += 1
        if cursor == end:
            return True
        if cursor[0] != c";":
            return False
        cursor += 1


cdef const char* _parse_pair_value(const char* cursor, const char* end, Span* value, char* room) noexcept nogil:
    """A token or a quoted string: where it ends, or NULL.

    Unquoted, a value may also hold ":" and brackets: RFC 7239 wants quotes around such, proxies leave them out, and they separate
    nothing here.
    """
    cdef char* into = room
    value.data = cursor
    if cursor < end and cursor[0] == c'"':
        cursor += 1
        value.data = room
        while cursor < end and cursor[0] != c'"':
            if cursor[0] == c"\\":
                cursor += 1
                if cursor == end:
                    return NULL
            if into == room + VALUE_ROOM:
                return NULL
            into[0] = cursor[0]
            into += 1
            cursor += 1
        value.size = <uint32_t>(into - room)
        return cursor + 1 if cursor < end and value.size != 0 else NULL
    while cursor < end and (is_token(cursor, 1) or cursor[0] == c":" or cursor[0] == c"[" or cursor[0] == c"]"):
        cursor += 1
    value.size = <uint32_t>(cursor - value.data)
    return cursor if value.size != 0 else NULL


# --- for tests ----------------------------------------------------------------------------------------------------

def read(fields: list, Proxies proxies not None) -> Forwarded | None:
    """What these (name, value) pairs of bytes say, sent by a trusted peer."""
    cdef Head* head = new_head(Limits(fields=max(len(fields), 1)))
    cdef bytes name, value
    cdef uint32_t index
    cdef int name_id
    try:
        head.field_count = 0
        head.forwarded = 0
        head.authority.data = NULL
        head.host = -1
        for name, value in fields:
            if name.lower() == b"host":
                head.host = <int>head.field_count
            add_field(head, name, <size_t>len(name), value, <size_t>len(value))
        for index in range(head.field_count):
            name_id = head.fields[index].name_id
            if NAME_FORWARDED <= name_id <= NAME_X_FORWARDED_PREFIX:
                head.forwarded |= _bit(name_id)
        admit_underscores(head, proxies)
        return read_forwarded(head, proxies)
    finally:
        free_head(head)
