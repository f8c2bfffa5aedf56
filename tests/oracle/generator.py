"""Requests made from a grammar of what parsers disagree about: nearly right ones, with an oddity or two.

Knows words of HTTP, nothing of any parser. The same generator state gives the same bytes. A request with many oddities would be
refused by everybody for the first of them; one or two show what each reader makes of that very thing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

METHODS = (
    b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"CONNECT", b"TRACE", b"PATCH", b"PRI", b"QUERY", b"BREW", b"get",
    b"G3T", b"M-SEARCH", b"GE_T", b"", b"G\xc9T", b"GET:", b"GET\0", b"\"GET\"", b"!#$%&'*+-.^_`|~", b"SOURCE", b"X" * 200,
)  # fmt: skip
TARGETS = (
    b"/", b"/a?b=c", b"*", b"http://a/", b"http://b:80/x?y", b"HTTP://A", b"https://[::1]:1/", b"a:443", b"//a/b", b"/a#b",
    b"http://u@a/", b"http:///x", b"http://", b"/\xe9", b"/\xff?\x80", b"/a%00", b"/%c3%A9", b"/%zz", b"/a\tb", b"/a\x0bb",
    b"/a\0b", b"/a\x7fb", b"a", b"", b"?x", b"/a b", b"/\\", b"/\"<>^`{|}", b"ftp://a/", b"/?#", b"http://a:b/", b"http://a b/",
    b"*?x", b"/" + b"a" * 300, b"mailto:a", b"http:/a", b"http://[::1", b"/a\rb", b"[::1]:80", b"/..;/x", b"http://a\\b/",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0", b"http/1.1", b"HTTP/1.10",
    b"HTTP/01.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP /1.1", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/11", b"HTTP/-1.1",
    b"ICE/1.0", b"RTSP/1.0", b"", b"HTTP/1.a", b"HTTP/1\x2e1\0", b"HTTP/+1.1", b"HTTPS/1.1", b"HTTP/1,1",
)  # fmt: skip
SPACES = (b" ", b"  ", b"\t", b"", b" \t", b"\x0b", b"\x0c", b"\xa0", b"\0", b"\r")
LINE_ENDS = (
    b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\t\r\n", b"\0\r\n", b"\r\n\r", b"", b"\x0b", b"\x85", b"\r\n ", b"\r\n\t",
)  # fmt: skip
BEFORE = (b"\r\n", b"\n", b"\r", b"\r\n" * 4, b"\r\n" * 5, b" ", b"\t", b"\0", b"\xef\xbb\xbf", b"\r\n \r\n", b"X\r\n")

HOSTS = (
    b"Host: b:80", b"host:a", b"HOST: \t a \t ", b"Host:", b"Host: a b", b"Host: a, b", b"Host: a@b", b"Host: a/b",
    b"Host: [::1]", b"Host: [::1", b"Host: [1::2::3]", b"Host: [v1.a:b]", b"Host: [v.a]", b"Host: [vg.a]", b"Host: [v1.]",
    b"Host: [12345::]", b"Host: [1:2]", b"Host: a:b", b"Host: :80", b"Host: \xe9", b"Host: a\x7f", b"Host: a%20", b"Host: %zz",
    b"Host : a", b"H\xf6st: a", b"Host: a\r\nHost: a", b"Host: a\r\nhost: b", b"Ho_st: a", b"Host: a\r\n b", b"Host: 1.2.3.4:",
    b"Host: a#", b"Host: a\\b", b"Host: [1::2%25x]", b"Host: a..b", b"Host: a_b", b"Host: a:99999", b"Host: a\0",
)  # fmt: skip
FIELDS = (
    b"X: y", b"X:", b"X:  ", b"X: \t y \t ", b"X :y", b"X\t:y", b" X: y", b"\tX: y", b": y", b":", b"X", b"X y", b"X(: y",
    b"X\0: y", b"X\xe9: y", b"X: \xe9\xff", b"X: a\0b", b"X: a\x01b", b"X: a\x7fb", b"X: a\x0bb", b"X: a\rb", b"X: a\nb",
    b"X: a\r\n b", b"X: a\r\n\tb", b"X_Y: z", b"X-Y: z", b"\"X\": y", b"X@: y", b"X/: y", b"X{}: y", b"X,Y: z", b"X;: y",
    b"X=: y", b"X\\: y", b"X[]: y", b"!#$%&'*+.^`|~: y", b"X: y\r\nX: z", b"X: " + b"y" * 500, b"X" * 500 + b": y", b"X:\x0by",
    b"X\xa0: y", b"X\x0c: y", b"\xffX: y", b"X::y", b"Cookie: a=b\r\nCookie: c=d", b"X: \r\n \r\n y", b"X: a\x80\x9f",
    b"X: \x00", b"X: \x1b[0m", b"Content Length: 3",
)  # fmt: skip
LENGTHS = (
    b"Content-Length: 0", b"Content-Length: 5", b"content-length:5", b"Content-Length: 05", b"Content-Length: +5",
    b"Content-Length: -5", b"Content-Length: 5 ", b"Content-Length: 5, 5", b"Content-Length: 5,", b"Content-Length: ,5",
    b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\nContent-Length:", b"Content-Length:", b"Content-Length: 0x5", b"Content-Length: 5_0",
    b"Content-Length: 5.0", b"Content-Length: 5e0", b"Content-Length: \"5\"", b"Content-Length: 5;x",
    b"Content-Length: 9223372036854775807", b"Content-Length: 9223372036854775808", b"Content-Length: 18446744073709551616",
    b"Content-Length: 18446744073709551621", b"Content-Length: 0000000000000000000000000000005", b"Content-Length: 5 5",
    b"Content-Length: \x0b5", b"Content-Length: 5\x0b", b"Content-Length: 5\0", b"Content-Length: \xb2", b"Content-Length : 5",
    b"Content_Length: 5", b"Content-Length\t: 5", b"Content-Length:\r\n 5", b"Content-Length: 5\r\n 0", b"CONTENT-LENGTH: 5",
    b" Content-Length: 5", b"Content-Length: 4", b"Content-Length: 6", b"X: y\nContent-Length: 5", b"X: y\rContent-Length: 5",
    b"Content-Length: \t5\t", b"Content-Length: 5,5", b"Content-Length: 0\r\nContent-Length: 5", b"Content-Length: \xef\xbc\x95",
)  # fmt: skip
CODINGS = (
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding: CHUNKED", b"Transfer-Encoding: Chunked ",
    b"Transfer-Encoding: \tchunked\t", b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding:",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: , chunked", b"Transfer-Encoding: chunked,", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx", b"Transfer-Encoding: \"chunked\"",
    b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: chunk", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding: chunked\x0b", b"Transfer-Encoding: chunked\0", b"Transfer-Encoding: \xffchunked",
    b"Transfer_Encoding: chunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding: x\r\n chunked",
    b"Transfer-Encoding: chunked\r\n x", b"TRANSFER-ENCODING: chunked", b"Transfer-Encoding: chun ked",
    b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: cow",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
    b"TE: chunked", b"Transfer-Encoding: chunked\r\nContent-Length:", b"Transfer-Encoding: identity\r\nContent-Length: 5",
    b"Transfer-Encoding: \r\nContent-Length: 5", b"Transfer-Encoding: chunKed\r\nContent_Length: 5",
    b"Transfer-Encoding: \xe7hunked", b"Transfer-Encodin\xe7: chunked",
)  # fmt: skip
OPTIONS = (
    b"Connection: close", b"Connection: keep-alive", b"Connection: close, keep-alive", b"connection:CLOSE",
    b"Connection: upgrade", b"Connection: Upgrade\r\nUpgrade: websocket", b"Upgrade: h2c",
    b"Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings", b"Connection:", b"Connection: x", b"Connection: \xe9",
    b"Proxy-Connection: close", b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5",
    b"Connection: keep-alive\r\nConnection: close", b"Connection: ,close,", b"Connection: closed", b"Connection: \"close\"",
    b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: 100-continue, 100-continue", b"Expect:", b"TE: trailers",
    b"Trailer: X", b"Connection: transfer-encoding", b"Connection: host, content-length", b"HTTP2-Settings: AAAA",
)  # fmt: skip
CHUNKS = (
    b"5\r\nhello\r\n", b"5;a=b\r\nhello\r\n", b"5 ;a\r\nhello\r\n", b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"05\r\nhello\r\n",
    b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"-5\r\nhello\r\n", b"5\nhello\r\n", b"5\r\nhello\n", b"5\r\nhello",
    b"5\r\nhello\r\r\n", b"5\rhello\r\n", b"5\r\nhelloXX", b"5;a=\"\r\n\"\r\nhello\r\n", b"5;\r\nhello\r\n", b"5;;\r\nhello\r\n",
    b"5;a=\"b;c\"\r\nhello\r\n", b"5;a=\"b\r\nhello\r\n", b"5;\xe9\r\nhello\r\n", b"5;\0\r\nhello\r\n", b"5;a\nhello\r\n",
    b"5;a\rb\r\nhello\r\n", b"5;a b\r\nhello\r\n", b"5\t;a\r\nhello\r\n", b"\r\nhello\r\n", b";a\r\nhello\r\n",
    b"G\r\nhello\r\n", b"5,\r\nhello\r\n", b"5_0\r\nhello\r\n", b"A\r\nhellohello\r\n", b"a\r\nhellohello\r\n",
    b"000000000000000000005\r\nhello\r\n", b"00000000000000000005\r\nhello\r\n", b"10000000000000000\r\nhello\r\n",
    b"7fffffffffffffff\r\nhello\r\n", b"8000000000000000\r\nhello\r\n", b"ffffffffffffffff\r\nhello\r\n",
    b"fffffffffffffffb\r\nhello\r\n", b"5;" + b"x" * 300 + b"\r\nhello\r\n", b"5;a=b;c=d\r\nhello\r\n", b"5;a =b\r\nhello\r\n",
    b"5; a= b\r\nhello\r\n", b"5;=b\r\nhello\r\n", b"5;a=\r\nhello\r\n", b"5;a=\"\\\"\"\r\nhello\r\n", b"5\x0b\r\nhello\r\n",
    b"5\0\r\nhello\r\n", b"1\r\nh\r\n4\r\nello\r\n", b"5\r\nhello\r\n\r\n", b"5;\x7f\r\nhello\r\n", b"5.\r\nhello\r\n",
    b"5:\r\nhello\r\n", b"5\xa0\r\nhello\r\n",
)  # fmt: skip
LAST_CHUNKS = (
    b"0\r\n", b"00\r\n", b"000000000000000000000\r\n", b"0;a\r\n", b"0 \r\n", b"0\n", b"0\r", b"-0\r\n", b"0x0\r\n", b"",
    b"0;a=\"b\"\r\n", b"0\r\r\n", b"0\t\r\n",
)  # fmt: skip
TRAILERS = (
    b"\r\n", b"X: y\r\n\r\n", b"X: y\r\nY: z\r\n\r\n", b"X : y\r\n\r\n", b" X: y\r\n\r\n", b"X\r\n\r\n", b": y\r\n\r\n",
    b"X: a\0\r\n\r\n", b"X: y\n\r\n", b"X: y\r\n\n", b"\n", b"\r", b"\r\r\n", b"Content-Length: 3\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n", b"Host: b\r\n\r\n", b"X: y\r\n z\r\n\r\n", b"", b"X: \xe9\r\n\r\n", b"X_Y: z\r\n\r\n",
    b"Content-Length: x\r\n\r\n", b"X: a\rb\r\n\r\n", b"Connection: close\r\n\r\n", b"Content-Length:\r\n\r\n",
    b"Transfer-Encoding: gzip\r\n\r\n", b"Transfer-Encoding:\r\n\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"X:\r\n\r\n", b"\xe9: y\r\n\r\n", b"Content-Length: 99999999999999999999\r\n\r\n", b"X: y\r\r\n\r\n", b"X: a\x7f\r\n\r\n",
)  # fmt: skip
FOLLOWERS = (
    b"", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /next HTTP/1.0\r\n\r\n",
    b"x", b"\0", b"POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /third HTTP/1.1\r\nHost: a\r\n\r\n",
    b"0\r\n\r\n",
    b"POST /next HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /third HTTP/1.1\r\nHost: "
    b"a\r\n\r\n", b"\n\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /unfinished HTTP/1.1\r\nHost:",
)  # fmt: skip


class Parts:
    """One request in its parts, each as it should be until an oddity changes it."""

    def __init__(self, chosen: random.Random) -> None:
        self.before = b""
        self.method = chosen.choice((b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS"))
        self.spaces = [b" ", b" "]
        self.target = chosen.choice((b"/", b"/a?b=c", b"http://a/x"))
        self.version = chosen.choice((b"HTTP/1.1",) * 4 + (b"HTTP/1.0",))
        self.host = b"Host: a"
        self.fields: list[bytes] = []
        self.head_end = b"\r\n"
        self.ends: dict[int, bytes] = {}
        self.framing = b""
        self.content = b""
        how = chosen.choice(("none", "length", "chunked", "chunked"))
        if how == "length":
            self.frame_by_length(b"Content-Length: 5")
        elif how == "chunked" and self.version == b"HTTP/1.1":
            self.frame_by_chunks(b"Transfer-Encoding: chunked")

    def frame_by_length(self, field: bytes) -> None:
        self.framing = field
        self.content = b"hello"

    def frame_by_chunks(
        self, field: bytes, chunks: tuple[bytes, ...] = (b"5\r\nhello\r\n",), last: bytes = b"0\r\n", trailers: bytes = b"\r\n"
    ) -> None:
        self.framing = field
        self.content = b"".join(chunks) + last + trailers

    def bytes(self, chosen: random.Random) -> bytes:
        lines = [self.method + self.spaces[0] + self.target + self.spaces[1] + self.version]
        fields = [field for field in (self.host, *self.fields, self.framing) if field]
        if chosen.random() < 0.2:
            chosen.shuffle(fields)
        lines += fields
        head = b"".join(line + self.ends.get(index, b"\r\n") for index, line in enumerate(lines))
        return self.before + head + self.head_end + self.content


def odd_method(parts: Parts, chosen: random.Random) -> None:
    parts.method = chosen.choice(METHODS)


def odd_target(parts: Parts, chosen: random.Random) -> None:
    parts.target = chosen.choice(TARGETS)
    if chosen.random() < 0.2:
        parts.method = chosen.choice((b"OPTIONS", b"CONNECT"))


def odd_target_byte(parts: Parts, chosen: random.Random) -> None:
    parts.target = chosen.choice((b"/a%cb", b"http://%c/", b"/?%c", b"%c", b"/%c/")) % chosen.randrange(256)


def odd_version(parts: Parts, chosen: random.Random) -> None:
    parts.version = chosen.choice(VERSIONS)


def odd_space(parts: Parts, chosen: random.Random) -> None:
    parts.spaces[chosen.randrange(2)] = chosen.choice(SPACES)


def odd_start(parts: Parts, chosen: random.Random) -> None:
    parts.before = chosen.choice(BEFORE)


def odd_line_end(parts: Parts, chosen: random.Random) -> None:
    if chosen.random() < 0.3:
        parts.head_end = chosen.choice(LINE_ENDS)
    else:
        parts.ends[chosen.randrange(3)] = chosen.choice(LINE_ENDS)


def odd_host(parts: Parts, chosen: random.Random) -> None:
    parts.host = chosen.choice((*HOSTS, b""))


def odd_field(parts: Parts, chosen: random.Random) -> None:
    parts.fields.append(chosen.choice(FIELDS))


def odd_field_byte(parts: Parts, chosen: random.Random) -> None:
    field = chosen.choice((b"X%c: y", b"%cX: y", b"X: a%cb", b"X:%cy", b"X: y%c", b"Host%c: b"))
    parts.fields.append(field % chosen.randrange(256))


def odd_options(parts: Parts, chosen: random.Random) -> None:
    parts.fields.append(chosen.choice(OPTIONS))


def odd_length(parts: Parts, chosen: random.Random) -> None:
    parts.frame_by_length(chosen.choice(LENGTHS))


def odd_coding(parts: Parts, chosen: random.Random) -> None:
    parts.frame_by_chunks(chosen.choice(CODINGS))
    if chosen.random() < 0.3:
        parts.content = chosen.choice((b"hello", b"5\r\nhello\r\n", b""))


def odd_chunks(parts: Parts, chosen: random.Random) -> None:
    chunks = tuple(chosen.choice((CHUNKS[0], chosen.choice(CHUNKS))) for _ in range(chosen.randrange(1, 4)))
    parts.frame_by_chunks(b"Transfer-Encoding: chunked", chunks)


def odd_chunk_byte(parts: Parts, chosen: random.Random) -> None:
    size = chosen.choice((b"5%c\r\n", b"%c5\r\n", b"5;%c\r\n", b"5;a=%c\r\n", b"5\r%c"))
    chunk = chosen.choice((size + b"hello\r\n", b"5\r\nhello%c\r\n"))
    parts.frame_by_chunks(b"Transfer-Encoding: chunked", (chunk % chosen.randrange(256),))


def odd_chunk_end(parts: Parts, chosen: random.Random) -> None:
    parts.frame_by_chunks(b"Transfer-Encoding: chunked", last=chosen.choice(LAST_CHUNKS))


def odd_trailers(parts: Parts, chosen: random.Random) -> None:
    parts.frame_by_chunks(b"Transfer-Encoding: chunked", trailers=chosen.choice(TRAILERS))


def odd_content(parts: Parts, chosen: random.Random) -> None:
    """Too short or too long for what was announced."""
    parts.content = chosen.choice((parts.content[:-1], parts.content[:-2], parts.content + b"z", parts.content + b"\r\n", b""))


ODDITIES: tuple[Callable[[Parts, random.Random], None], ...] = (
    odd_method, odd_target, odd_target_byte, odd_version, odd_space, odd_start, odd_line_end, odd_host, odd_field,
    odd_field_byte, odd_options, odd_length, odd_coding, odd_chunks, odd_chunk_byte, odd_chunk_end, odd_trailers, odd_content,
)  # fmt: skip


def generate(chosen: random.Random) -> bytes:
    """A request with none, one or two oddities, and mostly something behind it."""
    parts = Parts(chosen)
    for _ in range(chosen.choice((0, 1, 1, 1, 1, 2))):
        chosen.choice(ODDITIES)(parts, chosen)
    return parts.bytes(chosen) + chosen.choice(FOLLOWERS)


def every_oddity(chosen: random.Random) -> list[bytes]:
    """Each word of each list above once, in a request that is right otherwise, with another request behind it."""
    made = []
    for oddity, words in (
        ("method", METHODS), ("target", TARGETS), ("version", VERSIONS), ("before", BEFORE), ("host", (*HOSTS, b"")),
    ):  # fmt: skip
        for word in words:
            parts = Parts(chosen)
            setattr(parts, oddity, word)
            made.append(parts.bytes(chosen))
    for word in (*FIELDS, *OPTIONS):
        parts = Parts(chosen)
        parts.fields.append(word)
        made.append(parts.bytes(chosen))
    for number in range(2):
        for word in SPACES:
            parts = Parts(chosen)
            parts.spaces[number] = word
            made.append(parts.bytes(chosen))
    for number in range(3):
        for word in LINE_ENDS:
            parts = Parts(chosen)
            parts.ends[number] = word
            made.append(parts.bytes(chosen))
    for word in LINE_ENDS:
        parts = Parts(chosen)
        parts.head_end = word
        made.append(parts.bytes(chosen))
    for word in LENGTHS:
        parts = Parts(chosen)
        parts.frame_by_length(word)
        made.append(parts.bytes(chosen))
    coding = CODINGS[0]
    for word in CODINGS:
        parts = Parts(chosen)
        parts.frame_by_chunks(word)
        made.append(parts.bytes(chosen))
    for options in (
        *({"chunks": (word,)} for word in CHUNKS),
        *({"last": word} for word in LAST_CHUNKS),
        *({"trailers": word} for word in TRAILERS),
    ):
        parts = Parts(chosen)
        parts.frame_by_chunks(coding, **options)  # type: ignore[arg-type]
        made.append(parts.bytes(chosen))
    return [one + FOLLOWERS[1] for one in made]
