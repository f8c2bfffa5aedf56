"""The parser against its rules written down a second time (reference.py), and against other parsers (tests/oracle).

The harnesses take bytes and raise AssertionError when a promise is broken, as those of harnesses.py, which lists them.
"""

from __future__ import annotations

import random
import zlib

from fuzz import reference
from oracle.check import check
from oracle.generator import CHUNKS, FIELDS, LAST_CHUNKS, TRAILERS, generate
from support.corpus import probe, random_splits

# What the reference knows nothing of.
LIMITS = ("too large", "too long", "too many", "that fits")


def check_heads(data: bytes) -> None:
    """Heads are accepted exactly when the rules accept them, with the framing that follows from the rules."""
    check_head(data)
    check_head(generate(random.Random(data)))


def check_head(data: bytes) -> None:
    head = data.lstrip(b"\r\n")
    end = head.find(b"\r\n\r\n")
    if end < 0:
        return
    head = head[: end + 4]
    door = probe()
    for piece in random_splits(head, zlib.crc32(data)):
        door.feed(piece)
        if (event := door.poll())[0] != "need_data":
            break
    expected = reference.read_head(head)
    if event[0] == "failed":
        assert expected is None or any(words in event[2] for words in LIMITS), f"{event} for {expected}"
        return
    assert event[0] == "request", event
    seen = event[1]
    assert expected == reference.Head(
        seen["method"], seen["target"], seen["minor"], seen["fields"], seen["content_length"], seen["chunked"], seen["keep_alive"]
    )


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def check_chunks(data: bytes) -> None:
    """Chunked content is accepted exactly when the rules accept it, with the same content and the same end."""
    chosen = random.Random(data)
    made = b"".join(chosen.choice((CHUNKS[0], CHUNKS[1], chosen.choice(CHUNKS))) for _ in range(chosen.randrange(4)))
    last = chosen.choice((b"0\r\n", chosen.choice(LAST_CHUNKS)))
    trailers = b"".join(chosen.choice(FIELDS) + b"\r\n" for _ in range(chosen.randrange(3)))
    end = chosen.choice((b"\r\n", chosen.choice(TRAILERS)))
    check_body(data.partition(b"\r\n\r\n")[2] or data)
    check_body(made + last + trailers + end + data[:20])
    check_body(made + data)


def check_body(data: bytes) -> None:
    door = probe()
    door.feed(CHUNKED)
    assert door.poll()[0] == "request"
    content = b""
    ended = refused = False
    for piece in random_splits(data, zlib.crc32(data)):
        door.feed(piece)
        while (event := door.poll())[0] == "data":
            content += event[1]
        if event[0] != "need_data":
            ended, refused = event[0] == "end", event[0] == "failed"
            break
    expected = reference.read_chunks(data)
    if ended:
        assert expected is not None and expected[0] == content
        # Where it ends: what was fed and not read is what stands behind it.
        left = door.unread
        assert data[: expected[1]] and left == fed_behind(data, expected[1])
    elif refused:
        assert expected is None or any(words in event[2] for words in LIMITS), event
    else:
        assert expected is None


def fed_behind(data: bytes, end: int) -> int:
    """How many bytes behind `end` have been fed when the piece with the byte in front of it has."""
    fed = 0
    for piece in random_splits(data, zlib.crc32(data)):
        fed += len(piece)
        if fed >= end:
            break
    return fed - end


def check_readers(data: bytes) -> None:
    """What ours, llhttp and h11 all read they read alike; what only one of them reads is a difference that is known."""
    if len(data) <= 20_000:
        check(data)
    check(generate(random.Random(data)))
