"""What must hold for any bytes that come in over a websocket, and for any messages between our two ends.

The harnesses take bytes and raise AssertionError when a promise is broken, as those of harnesses.py, which lists them.
"""

from __future__ import annotations

import random
import struct
import zlib

from support.corpus import byte_by_byte, random_splits, whole

from duckfast._deflate import Compression
from duckfast._websocket import Probe, WebSocketConnection

SLOW_UP_TO = 1_000  # bytes that are also fed one at a time
MAX_SIZES = (0, 50, 3_000, 1 << 20)
CODES = {1002, 1007, 1009}
LARGEST_WINDOW = 15  # bits: nothing can refer to what is beyond it
BROKEN = ("failure", 1007, "a compressed message cannot be decompressed")


def agreed(number: int) -> Compression | None:
    """One of many agreements, or none."""
    if number % 3 == 0:
        return None
    return Compression(8 + number // 3 % 8, 8 + number // 24 % 8, bool(number // 192 % 2), bool(number // 384 % 2))


def receive(data: bytes, pieces: list[bytes], max_size: int, *, stops: bool) -> list[tuple[object, ...]]:
    """The events of these pieces; `stops`: now and then the reader rests before it has taken everything."""
    number = zlib.crc32(data)
    door = Probe(WebSocketConnection(max_size, agreed(number)))
    chosen = random.Random(number)
    events: list[tuple[object, ...]] = []
    ended = False
    for piece in pieces:
        if ended or not stops or chosen.random() < 0.7:
            door.settle()
        door.feed(piece)
        while (event := door.poll())[0] != "nothing":
            assert not ended, "nothing follows a failure or a close"
            events.append(event)
            ended = event[0] in ("failure", "close")
            if event[0] == "text":
                assert len(event[1].encode()) <= max_size
            elif event[0] == "binary":
                assert len(event[1]) <= max_size
            elif event[0] == "failure":
                assert event[1] in CODES and event[2].isascii()
            if stops and chosen.random() < 0.2:
                door.settle()
                door.rest()
        assert door.unread == 0
        assert door.stored <= max(2 * max_size, max_size + 513)
        door.settle()
        assert door.kept == 0
    return events


def framed(data: bytes) -> bytes:
    """These bytes as the payload of frames that mostly follow each other as they may."""
    chosen = random.Random(data)
    frames = []
    within = False
    while data:
        piece, data = data[: (size := chosen.choice((0, 1, 5, 60, 125, 126, 700)))], data[size:] if size else data[1:]
        final = chosen.random() < 0.6
        opcode = 0 if within else chosen.choice((1, 1, 2))
        rsv = 0x40 * (not within and chosen.random() < 0.4)
        if rsv and chosen.random() < 0.7:
            piece = _deflated(piece * chosen.choice((1, 30)))[: -4 if final else None]
        if chosen.random() < 0.1:
            frames.append(_frame(0x80 | chosen.choice((8, 9, 10)), piece[:125]))
            continue
        frames.append(_frame(final << 7 | rsv | opcode, piece))
        within = not final
    return b"".join(frames)


def check_frames(data: bytes) -> None:
    """Any bytes give the same events however they are cut, within bounded memory, and what comes out keeps the rules."""
    check_cuts(data)
    check_cuts(framed(data[:5000]))


def check_cuts(data: bytes) -> None:
    max_size = MAX_SIZES[zlib.crc32(data) % len(MAX_SIZES)]
    expected = receive(data, list(whole(data)), max_size, stops=False)
    check_same(data, receive(data, list(random_splits(data, zlib.crc32(data))), max_size, stops=True), expected)
    if len(data) <= SLOW_UP_TO:
        check_same(data, receive(data, list(byte_by_byte(data)), max_size, stops=False), expected)


def check_same(data: bytes, events: list[tuple[object, ...]], expected: list[tuple[object, ...]]) -> None:
    """But for one cut seeing a broken compression where another goes on: a reference to what is beyond the window that was
    agreed, but within what zlib makes in the same call, it follows."""
    compression = agreed(zlib.crc32(data))
    small_window = compression is not None and compression.in_bits < LARGEST_WINDOW
    if small_window and (events[-1:] == [BROKEN]) != (expected[-1:] == [BROKEN]):
        broken, other = (events, expected) if events[-1:] == [BROKEN] else (expected, events)
        events, expected = broken[:-1], other[: len(broken) - 1]
    assert events == expected


def check_conversation(data: bytes) -> None:
    """Whatever is sent arrives as it was, compressed or not, in any agreement, with pauses at any time."""
    number = zlib.crc32(data)
    chosen = random.Random(number)
    ours = agreed(number)
    theirs = Compression(ours.in_bits, ours.out_bits, ours.in_takeover, ours.out_takeover) if ours is not None else None
    server = Probe(WebSocketConnection(1 << 20, ours))
    client = Probe(WebSocketConnection(1 << 20, theirs, client=True))
    for _ in range(chosen.randrange(1, 5)):
        start = chosen.randrange(len(data) + 1)
        part = data[start : start + chosen.choice((3, 200, 5_000))] * chosen.choice((1, 1, 40))
        message: str | bytes = part if chosen.random() < 0.5 else part.decode("utf-8", "replace")
        sender, receiver = chosen.choice(((server, client), (client, server)))
        wire = sender.compressed(message) if ours is not None and chosen.random() < 0.5 else sender.send(message)
        if chosen.random() < 0.3:
            wire = sender.frame(9, b"still there?") + wire
        events = []
        for piece in random_splits(wire, number):
            receiver.feed(piece)
            while (event := receiver.poll())[0] != "nothing":
                events.append(event)
        assert events[-1][1] == message and type(events[-1][1]) is type(message)
        assert len(events) == 1 or events[0] == ("ping", b"still there?")
        if chosen.random() < 0.5:
            chosen.choice((server, client)).rest()


def _frame(first: int, payload: bytes, mask: bytes = b"\x01\x80\xff\x20") -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    return bytes([first]) + size + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def _deflated(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    stream = zlib.compressobj(wbits=-9)
    return stream.compress(data) + stream.flush(flush)


SEEDS = (
    _frame(0x81, b"hello"),
    _frame(0x01, "Grüße ".encode()) + _frame(0x89, b"ping") + _frame(0x80, "🦆".encode()),
    _frame(0x82, bytes(300)) + _frame(0x8A, b"") + _frame(0x88, b"\x03\xe8done"),
    _frame(0xC1, _deflated(b"quack " * 50)[:-4]) + _frame(0xC1, b"\xf2\x00\x11\x00\x00") + _frame(0x81, b"plain"),
    _frame(0x42, _deflated(bytes(5000))[:9]) + _frame(0x80, _deflated(bytes(5000))[9:-4]),
    _frame(0xC1, _deflated(b"the end", zlib.Z_FINISH) + b"\0") + _frame(0xC2, b"\x00") + _frame(0x88, b""),
)
