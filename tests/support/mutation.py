"""Seeded changes to bytes: how the fuzzer and the tests of parsers side by side make new requests from those of the corpus.

Knows words of HTTP, nothing of duckfast. The same generator state gives the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

# What parsers disagree about.
WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xa0",
    b"\xff", b":", b",", b";", b"=", b'"', b"\\", b"/", b"//", b"?", b"#", b"%", b"%0d%0a", b"@", b"*", b"_", b"-",
    b"+", b"0", b"0x", b"1", b"00000000", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616",
    b"7fffffffffffffff", b"ffffffffffffffff", b"0\r\n\r\n", b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n",
    b"GET / HTTP/1.1\r\n", b"HEAD ", b"POST ", b"CONNECT a:1 ", b"OPTIONS * ", b" HTTP/1.0\r\n", b" HTTP/1.1\r\n",
    b" HTTP/2.0\r\n", b"http://a", b"https://[::1]:80/", b"Host: a\r\n", b"Host: b:80\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n", b"content-length:3\r\n", b"Content-Length: 5, 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: CHUNKED\r\n", b"Transfer-Encoding: identity\r\n", b"chunked", b", chunked",
    b"Transfer_Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n",
    b"Trailer: X\r\n", b"X: y\r\n", b" folded\r\n", b"X_Y: z\r\n",
)  # fmt: skip


def flip(data: bytearray, chosen: random.Random) -> None:
    if data:
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)


def overwrite(data: bytearray, chosen: random.Random) -> None:
    if data:
        data[chosen.randrange(len(data))] = chosen.randrange(256)


def insert_word(data: bytearray, chosen: random.Random) -> None:
    place = chosen.randrange(len(data) + 1)
    data[place:place] = chosen.choice(WORDS)


def insert_word_at_line(data: bytearray, chosen: random.Random) -> None:
    """In front of a line, where a whole field makes sense."""
    ends = [index + 1 for index, byte in enumerate(data) if byte == 10]
    place = chosen.choice(ends) if ends else 0
    data[place:place] = chosen.choice(WORDS)


def remove(data: bytearray, chosen: random.Random) -> None:
    if data:
        place = chosen.randrange(len(data))
        del data[place : place + chosen.choice((1, 1, 2, 4, 16))]


def repeat(data: bytearray, chosen: random.Random) -> None:
    if data:
        place = chosen.randrange(len(data))
        part = bytes(data[place : place + chosen.choice((1, 2, 8, 40))])
        data[place:place] = part * chosen.choice((1, 1, 2, 50))


def swap_case(data: bytearray, chosen: random.Random) -> None:
    if data:
        place = chosen.randrange(len(data))
        data[place : place + 8] = data[place : place + 8].swapcase()


CHANGES: Sequence[Callable[[bytearray, random.Random], None]] = (
    flip, overwrite, insert_word, insert_word, insert_word_at_line, insert_word_at_line, remove, repeat, swap_case,
)  # fmt: skip

LONGEST = 200_000  # bytes; keeps repeated repeats from growing without end


def mutate(data: bytes, others: Sequence[bytes], chosen: random.Random) -> bytes:
    """`data` with one to six changes, now and then with a piece of another one of `others` spliced in."""
    changed = bytearray(data)
    if others and chosen.random() < 0.2:
        other = chosen.choice(others)
        place = chosen.randrange(len(changed) + 1)
        cut = chosen.randrange(len(other) + 1)
        changed[place:] = other[cut:]
    for _ in range(chosen.choice((1, 1, 2, 3, 6))):
        chosen.choice(CHANGES)(changed, chosen)
    return bytes(changed[:LONGEST])
