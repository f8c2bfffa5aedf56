"""The PROXY protocol, versions 1 and 2: who has connected to the proxy, in the first bytes of a connection.

By HAProxy's proxy-protocol.txt, strictly: what is not exactly a header is refused. Extensions (TLVs) are walked within their bounds; of them
CRC32C is checked, and SSL tells https. Authority, unique id and the others are skipped: neither WSGI nor ASGI has a place for them. Knows bytes; refuses to know sockets and who is trusted.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset

from duckfast._trust cimport describe_address, parse_octets, parse_port, unmap

cdef extern from "<sys/socket.h>":
    enum: AF_INET, AF_INET6, AF_UNIX

cdef enum:
    V1_MOST = 107          # bytes with CRLF: "PROXY UNKNOWN" and two addresses of the greatest length
    V2_FIXED = 16          # signature, version and command, family and protocol, length
    SIGNATURE = 12
    SIZE_INET = 12         # two addresses, two ports
    SIZE_INET6 = 36
    SIZE_UNIX = 216
    TYPE_CRC32C = 0x03
    TYPE_SSL = 0x20
    CLIENT_SSL = 0x01      # a bit of the SSL extension's first byte
    CRC32C_POLYNOMIAL = 0x82F63B78   # reflected, RFC 3720 12.1

cdef const char* V1_START = b"PROXY "
cdef const char* V2_START = b"\r\n\r\n\0\r\nQUIT\n"

cdef uint32_t[256] _crc_table


cdef ProxyParsed _refuse(ProxyHeader* header, const char* reason) noexcept nogil:
    header.reason = reason
    return PROXY_REFUSED


cdef ProxyParsed parse_proxy_header(ProxyHeader* header, int versions, const char* data, size_t size) noexcept nogil:
    memset(header, 0, sizeof(ProxyHeader))
    if size == 0:
        return PROXY_INCOMPLETE
    if memcmp(data, V1_START, min(size, 6)) == 0:
        if size < 6:
            return PROXY_INCOMPLETE
        if not versions & 1:
            return _refuse(header, b"a PROXY header of version 1, which is not accepted here")
        return _parse_v1(header, data, size)
    if memcmp(data, V2_START, min(size, SIGNATURE)) == 0:
        if size < SIGNATURE:
            return PROXY_INCOMPLETE
        if not versions & 2:
            return _refuse(header, b"a PROXY header of version 2, which is not accepted here")
        return PROXY_INCOMPLETE if size < V2_FIXED else _parse_v2(header, <const uint8_t*>data, size)
    return _refuse(header, b"no PROXY header")


# --- version 1: a line --------------------------------------------------------------------------------------------

cdef ProxyParsed _parse_v1(ProxyHeader* header, const char* data, size_t size) noexcept nogil:
    cdef const char* cursor = data + 6
    cdef const char* end = <const char*>memchr(data, c"\n", min(size, V1_MOST))
    cdef int family
    if end == NULL:
        if size >= V1_MOST:
            return _refuse(header, b"a PROXY line longer than 107 bytes")
        return PROXY_INCOMPLETE
    header.size = <size_t>(end - data) + 1
    end -= 1
    if end < cursor or end[0] != c"\r":
        return _refuse(header, b"a PROXY line that does not end with CRLF")
    if memchr(data, c"\r", end - data) != NULL:
        return _refuse(header, b"a PROXY line with a bare CR")
    if end - cursor >= 7 and memcmp(cursor, b"UNKNOWN", 7) == 0 and (end - cursor == 7 or cursor[7] == c" "):
        return PROXY_PARSED   # what follows is to be ignored
    if end - cursor < 5 or memcmp(cursor, b"TCP", 3) != 0 or cursor[4] != c" ":
        return _refuse(header, b"a PROXY line of a protocol that is not TCP4, TCP6 or UNKNOWN")
    if cursor[3] == c"4":
        family = AF_INET
    elif cursor[3] == c"6":
        family = AF_INET6
    else:
        return _refuse(header, b"a PROXY line of a protocol that is not TCP4, TCP6 or UNKNOWN")
    cursor += 5
    cursor = _v1_address(&header.source, family, cursor, end)
    if cursor != NULL:
        cursor = _v1_address(&header.destination, family, cursor, end)
    if cursor != NULL:
        cursor = _v1_port(&header.source, cursor, end, False)
    if cursor != NULL:
        cursor = _v1_port(&header.destination, cursor, end, True)
    if cursor == NULL:
        return _refuse(header, b"a PROXY line that is not two addresses and two ports")
    unmap(&header.source)
    unmap(&header.destination)
    return PROXY_PARSED


cdef const char* _v1_address(Address* address, int family, const char* cursor, const char* end) noexcept nogil:
    """Behind the address and its space, or NULL."""
    cdef const char* space = <const char*>memchr(cursor, c" ", end - cursor)
    if space == NULL or not parse_octets(address, family, cursor, space - cursor):
        return NULL
    return space + 1


cdef const char* _v1_port(Address* address, const char* cursor, const char* end, bint last) noexcept nogil:
    cdef const char* space = end if last else <const char*>memchr(cursor, c" ", end - cursor)
    cdef int port
    if space == NULL:
        return NULL
    port = parse_port(cursor, space - cursor)
    if port < 0 or cursor[0] == c"0" and space - cursor > 1:   # "without leading zeros"
        return NULL
    address.port = <uint16_t>port
    return end if last else space + 1


# --- version 2: binary --------------------------------------------------------------------------------------------

cdef inline uint16_t _short(const uint8_t* data) noexcept nogil:
    return <uint16_t>(data[0] << 8 | data[1])


cdef ProxyParsed _parse_v2(ProxyHeader* header, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t command = data[12] & 15
    cdef uint8_t family = data[13] >> 4
    cdef uint8_t protocol = data[13] & 15
    cdef size_t length = _short(data + 14)
    cdef size_t addresses
    if data[12] >> 4 != 2 or command > 1:
        return _refuse(header, b"a PROXY header of an unknown version or command")
    if V2_FIXED + length > LONGEST_PROXY_HEADER:
        return _refuse(header, b"a PROXY header longer than 16 KiB")
    header.size = V2_FIXED + length
    if command == 0:
        header.local = True   # whatever else it says is to be ignored
        return PROXY_PARSED if size >= header.size else PROXY_INCOMPLETE
    if family > 3 or protocol > 2:
        return _refuse(header, b"a PROXY header of an unknown family")
    if protocol == 2:
        return _refuse(header, b"a PROXY header that speaks of datagrams")
    if family == 0 or protocol == 0:
        return PROXY_PARSED if size >= header.size else PROXY_INCOMPLETE   # the proxy does not know either
    addresses = SIZE_INET if family == 1 else SIZE_INET6 if family == 2 else SIZE_UNIX
    if length < addresses:
        return _refuse(header, b"a PROXY header too short for its addresses")
    if size < header.size:
        return PROXY_INCOMPLETE
    if family == 1:
        _take_addresses(header, AF_INET, 4, data + V2_FIXED)
    elif family == 2:
        _take_addresses(header, AF_INET6, 16, data + V2_FIXED)
    else:
        header.source.family = header.destination.family = AF_UNIX
    return _parse_extensions(header, data, V2_FIXED + addresses)


cdef void _take_addresses(ProxyHeader* header, int family, size_t octets, const uint8_t* data) noexcept nogil:
    header.source.family = header.destination.family = family
    memcpy(header.source.octets, data, octets)
    memcpy(header.destination.octets, data + octets, octets)
    header.source.port = _short(data + 2 * octets)
    header.destination.port = _short(data + 2 * octets + 2)
    unmap(&header.source)
    unmap(&header.destination)


cdef ProxyParsed _parse_extensions(ProxyHeader* header, const uint8_t* data, size_t place) noexcept nogil:
    cdef size_t length
    while place < header.size:
        if header.size - place < 3:
            return _refuse(header, b"a PROXY header with an extension that is cut off")
        length = _short(data + place + 1)
        if header.size - place - 3 < length:
            return _refuse(header, b"a PROXY header with an extension that is cut off")
        if data[place] == TYPE_CRC32C:
            if length != 4 or not _checks(data, header.size, place + 3):
                return _refuse(header, b"a PROXY header with a wrong checksum")
        elif data[place] == TYPE_SSL:
            if length < 5:
                return _refuse(header, b"a PROXY header with an extension that is cut off")
            header.https = data[place + 3] & CLIENT_SSL != 0
        place += 3 + length
    return PROXY_PARSED


cdef bint _checks(const uint8_t* data, size_t size, size_t place) noexcept nogil:
    """CRC32C of the whole header, with zeros where it stands itself."""
    cdef uint32_t crc = 0xFFFFFFFF
    cdef uint32_t told
    cdef size_t index
    cdef uint8_t byte
    told = <uint32_t>_short(data + place) << 16 | _short(data + place + 2)
    for index in range(size):
        byte = 0 if place <= index < place + 4 else data[index]
        crc = _crc_table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ <uint32_t>0xFFFFFFFF == told


def _fill_table() -> None:
    cdef uint32_t crc
    cdef int index, bit
    for index in range(256):
        crc = <uint32_t>index
        for bit in range(8):
            crc = crc >> 1 ^ CRC32C_POLYNOMIAL if crc & 1 else crc >> 1
        _crc_table[index] = crc


_fill_table()


def parse(bytes data, int versions=3) -> dict | str | None:
    """For tests. None: more bytes are needed; a str: why it is refused; a dict: what the header says, and its size."""
    cdef ProxyHeader header
    cdef ProxyParsed parsed = parse_proxy_header(&header, versions, data, <size_t>len(data))
    if parsed == PROXY_INCOMPLETE:
        return None
    if parsed == PROXY_REFUSED:
        return (<bytes>header.reason).decode("ascii")
    return {
        "size": header.size,
        "local": bool(header.local),
        "https": bool(header.https),
        "unix": header.source.family == AF_UNIX,
        "source": (describe_address(header.source.family, header.source.octets), header.source.port),
        "destination": (describe_address(header.destination.family, header.destination.octets), header.destination.port),
    }
