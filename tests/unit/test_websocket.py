"""Frames and messages of a websocket: what is read, what is refused and with which code, what is written."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from support.machine import counts_memory

from duckfast import _debug, _zlib
from duckfast._deflate import Compression
from duckfast._websocket import Probe, WebSocketConnection, is_valid_close_code

MASK = b"\x37\xfa\x21\x3d"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def server(max_size: int = 1 << 20, **agreed: Any) -> Probe:
    return Probe(WebSocketConnection(max_size, Compression(**agreed) if agreed else None))


def client(max_size: int = 1 << 20, **agreed: Any) -> Probe:
    return Probe(WebSocketConnection(max_size, Compression(**agreed) if agreed else None, client=True))


def masked(payload: bytes, mask: bytes = MASK) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = MASK) -> bytes:
    """One frame as a client writes it, made without any code of ours."""
    first = fin << 7 | rsv << 4 | opcode
    flag = 0 if mask is None else 0x80
    if len(payload) < 126:
        head = bytes([first, flag | len(payload)])
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, flag | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, flag | 127, len(payload))
    return head + (payload if mask is None else mask + masked(payload, mask))


def deflated(data: bytes, *, bits: int = 15) -> bytes:
    stream = zlib.compressobj(wbits=-bits)
    return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def events(door: Probe, *pieces: bytes) -> list[tuple[Any, ...]]:
    """What comes out of these bytes, up to the end or a failure."""
    found = []
    for piece in pieces:
        door.feed(piece)
        while (event := door.poll()) != ("nothing",):
            found.append(event)
            if event[0] == "failure":
                return found
    return found


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


WHOLE: list[tuple[bytes, list[tuple[Any, ...]]]] = [
    (frame(TEXT, b"hello"), [("text", "hello")]),
    (frame(TEXT), [("text", "")]),
    (frame(BINARY), [("binary", b"")]),
    (frame(TEXT, "Grüße, 世界 🦆".encode()), [("text", "Grüße, 世界 🦆")]),
    (frame(BINARY, bytes(range(256)) * 3), [("binary", bytes(range(256)) * 3)]),
    (frame(BINARY, b"x" * 125), [("binary", b"x" * 125)]),
    (frame(BINARY, b"x" * 126), [("binary", b"x" * 126)]),
    (frame(BINARY, b"x" * 65535), [("binary", b"x" * 65535)]),
    (frame(TEXT, b"x" * 65536), [("text", "x" * 65536)]),
    (frame(PING, b"are you there"), [("ping", b"are you there")]),
    (frame(PING), [("ping", b"")]),
    (frame(PONG, b"y" * 125), [("pong", b"y" * 125)]),
    (frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"c"), [("text", "a"), ("binary", b"b"), ("text", "c")]),
    (
        frame(TEXT, b"one ", fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b"two"),
        [("ping", b"p"), ("text", "one two")],
    ),
    (frame(BINARY, b"", fin=False) + frame(CONTINUATION), [("binary", b"")]),
    (frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\xa6\x86"), [("text", "🦆")]),
    (frame(TEXT, b"hello", mask=bytes(4)), [("text", "hello")]),
    (frame(CLOSE), [("close", 1005, "")]),
    (frame(CLOSE, b"\x03\xe8"), [("close", 1000, "")]),
    (frame(CLOSE, b"\x0f\xa0" + "tschüß".encode()), [("close", 4000, "tschüß")]),
    (frame(CLOSE, b"\x03\xe8") + b"\xff" * 100, [("close", 1000, "")]),
]


@pytest.mark.parametrize(("data", "expected"), WHOLE, ids=[str(index) for index in range(len(WHOLE))])
def test_frames_become_the_messages_that_they_carry(data: bytes, expected: list[tuple[Any, ...]]) -> None:
    assert events(server(), data) == expected
    cut = random.Random(1).randrange(len(data))
    assert events(server(), data[:cut], data[cut:]) == expected
    if len(data) < 2000:
        assert events(server(), *one_by_one(data)) == expected


BROKEN: list[tuple[str, bytes, int]] = [
    ("a reserved bit", frame(TEXT, b"a", rsv=1), 1002),
    ("a reserved bit", frame(TEXT, b"a", rsv=2), 1002),
    ("compressed without agreement", frame(TEXT, b"a", rsv=4), 1002),
    ("no mask", frame(TEXT, b"a", mask=None), 1002),
    *[("an unknown opcode", frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    *[("a fragmented control frame", frame(opcode, fin=False), 1002) for opcode in (CLOSE, PING, PONG)],
    *[("a long control frame", frame(opcode, b"\x03\xe8" + b"x" * 124), 1002) for opcode in (CLOSE, PING, PONG)],
    ("a continuation of nothing", frame(CONTINUATION, b"a"), 1002),
    ("a continuation behind the end", frame(TEXT, b"a") + frame(CONTINUATION, b"a"), 1002),
    ("a message within a message", frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002),
    ("a long form of a short length", b"\x81\xfe\x00\x05" + MASK, 1002),
    ("a long form of a short length", b"\x81\xff" + struct.pack("!Q", 65535) + MASK, 1002),
    ("a length of 64 bits", b"\x82\xff" + b"\xff" * 8 + MASK, 1002),
    ("too large", frame(BINARY, b"x" * 101), 1009),
    ("too large in sum", frame(BINARY, b"x" * 60, fin=False) + frame(CONTINUATION, b"x" * 41), 1009),
    ("too large by what it says", b"\x82\xff" + struct.pack("!Q", 1 << 40) + MASK, 1009),
    ("no UTF-8", frame(TEXT, b"\xff"), 1007),
    ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("an overlong form", frame(TEXT, b"\xc0\xaf"), 1007),
    ("beyond Unicode", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    ("half a character", frame(TEXT, b"\xce\xba\xe1"), 1007),
    ("half a character in pieces", frame(TEXT, b"\xce\xba", fin=False) + frame(CONTINUATION, b"\xe1"), 1007),
    ("a close frame of one byte", frame(CLOSE, b"\x03"), 1002),
    *[("a close code", frame(CLOSE, struct.pack("!H", code)), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)],
    ("a reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007),
]


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_rule_fails_with_its_code_and_nothing_more_is_read(data: bytes, code: int) -> None:
    for pieces in ([data], one_by_one(data)):
        door = server(max_size=100)
        event, seen, reason = events(door, *pieces)[-1]
        assert (event, seen) == ("failure", code)
        assert reason.isascii()
        assert door.stored == 0
        assert events(door, frame(TEXT, b"more"), frame(CLOSE)) == []


def test_text_that_is_no_utf8_fails_before_its_message_ends() -> None:
    begun = frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited" + b"x" * 100)
    door = server()
    found = events(door, *one_by_one(begun[:20]))
    assert found == [("failure", 1007, "text is not UTF-8")]


CHARACTERS = (65, 0xE9, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF)


def test_text_is_checked_as_python_checks_it() -> None:
    chosen = random.Random(2)
    for _ in range(3000):
        data = b"".join(
            chosen.choice((chr(chosen.choice(CHARACTERS)).encode(), b"x" * chosen.randrange(20)))
            for _ in range(chosen.randrange(1, 6))
        )
        changed = bytearray(data)
        if changed and chosen.random() < 0.7:
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        raw = bytes(changed)
        try:
            expected = [("text", raw.decode())]
        except UnicodeDecodeError:
            expected = [("failure", 1007)]
        for pieces in ([frame(TEXT, raw)], one_by_one(frame(TEXT, raw))):
            assert [event[:2] for event in events(server(), *pieces)] == expected


def test_any_close_code_of_the_registry_may_be_sent_and_no_other() -> None:
    allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(70000) if is_valid_close_code(code)} == allowed


def test_memory_grows_with_what_has_come_and_not_with_what_is_announced() -> None:
    door = server(max_size=1 << 30)
    door.feed(b"\x82\xff" + struct.pack("!Q", 1 << 29) + MASK + b"x" * 1000)
    assert door.poll() == ("nothing",)
    assert door.stored <= 2000


def test_unread_bytes_are_kept_only_until_they_are_read() -> None:
    door = server()
    door.feed(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(TEXT, b"c"))
    assert door.poll() == ("text", "a")
    assert door.unread == 14
    door.settle()
    assert door.kept >= 14
    door.feed(frame(TEXT, b"d"))
    assert [door.poll() for _ in range(4)] == [("text", "b"), ("text", "c"), ("text", "d"), ("nothing",)]
    door.settle()
    assert door.kept == 0


def test_after_stop_reading_everything_is_thrown_away() -> None:
    door = server()
    door.feed(frame(BINARY, b"x" * 1000)[:500])
    assert door.poll() == ("nothing",) and door.stored
    door.stop_reading()
    assert door.stored == 0
    assert events(door, frame(TEXT, b"a")) == []


# Writing ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
def test_server_writes_frames_in_the_shortest_form(size: int) -> None:
    data = random.Random(size).randbytes(size)
    door = server()
    assert door.frame(BINARY, data) == frame(BINARY, data, mask=None)
    assert door.head(BINARY, size) + data == frame(BINARY, data, mask=None)
    assert events(client(), door.frame(BINARY, data)) == [("binary", data)]


@pytest.mark.parametrize("message", ["", "hello", "Grüße 🦆", "x" * 70000, b"", b"\x00\xff" * 100])
def test_client_and_server_understand_each_other(message: str | bytes) -> None:
    kind = "text" if isinstance(message, str) else "binary"
    assert events(server(), client().send(message)) == [(kind, message)]
    assert events(client(), server().send(message)) == [(kind, message)]


def test_client_masks_every_frame_differently() -> None:
    door = client()
    assert door.send("hello") != door.send("hello")


def test_masked_frame_is_refused_by_a_client() -> None:
    assert events(client(), frame(TEXT, b"a")) == [("failure", 1002, "a frame is masked by the server")]


def test_close_frames_hold_what_fits() -> None:
    assert server().close() == frame(CLOSE, mask=None)
    assert server().close(1000) == frame(CLOSE, b"\x03\xe8", mask=None)
    assert server().close(4999, "byé") == frame(CLOSE, b"\x13\x87" + "byé".encode(), mask=None)
    long = server().close(1011, "é" * 200)
    assert long == frame(CLOSE, b"\x03\xf3" + "é".encode() * 61, mask=None)
    door = server()
    door.close(1000)
    assert door.connection.close_sent


# permessage-deflate ----------------------------------------------------------------------------------------------------

TEXTS = ["quack " * 300, '{"name": "duck", "legs": 2}' * 60, "x" * 200_000, "short", ""]


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_messages_arrive_whatever_was_agreed(bits: int, takeover: bool) -> None:
    ours = server(out_bits=bits, in_bits=15, out_takeover=takeover)
    theirs = client(out_bits=15, in_bits=bits, in_takeover=takeover)
    chosen = random.Random(bits)
    for _ in range(3):
        for text in TEXTS:
            assert events(theirs, ours.compressed(text)) == [("text", text)]
        data = chosen.randbytes(50) * 100 + chosen.randbytes(3000)
        assert events(theirs, ours.send(data)) == [("binary", data)]


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_what_is_compressed_stays_within_the_window_that_was_agreed(bits: int) -> None:
    # Repeats further away than the window tell an inflater of that size if one of them was referred to.
    chosen = random.Random(bits)
    page = chosen.randbytes(3000)
    ours = server(out_bits=bits)
    strict = zlib.decompressobj(wbits=-bits)
    for _ in range(20):
        data = page + chosen.randbytes(1 << 14) + page
        written = ours.compressed(data)
        payload = written[4:] if written[1] == 126 else written[10:]
        assert written[0] == 0xC2
        assert strict.decompress(payload + b"\x00\x00\xff\xff") == data


def test_small_messages_are_not_compressed() -> None:
    ours = server(out_bits=15)
    assert ours.send("x" * 1023)[0] == 0x81
    assert ours.send("x" * 1024)[0] == 0xC1
    assert server().send("x" * 5000)[0] == 0x81


def test_what_does_not_become_smaller_is_soon_no_longer_tried() -> None:
    chosen = random.Random(3)
    ours, theirs = server(out_bits=15), client(in_bits=15)
    tried = 0
    for _ in range(200):
        data = chosen.randbytes(5000)
        written = ours.send(data)
        tried += written[0] & 0x40 != 0
        assert events(theirs, written) == [("binary", data)]
    assert tried < 12
    for _ in range(100):
        written = ours.send("quack " * 1000)
    assert written[0] & 0x40, "what can be compressed is found again"


def test_fragments_of_a_compressed_message_are_one_message() -> None:
    payload = deflated(b"hello world " * 100)
    door = server(in_bits=15)
    pieces = [frame(TEXT, payload[:5], fin=False, rsv=4), frame(PING), frame(CONTINUATION, payload[5:9], fin=False)]
    assert events(door, *pieces, frame(CONTINUATION, payload[9:])) == [("ping", b""), ("text", "hello world " * 100)]
    assert events(door, frame(TEXT, b"plain")) == [("text", "plain")]


def test_continuation_frame_must_not_say_compressed() -> None:
    door = server(in_bits=15)
    found = events(door, frame(TEXT, deflated(b"a"), fin=False, rsv=4), frame(CONTINUATION, b"", rsv=4))
    assert found[-1][:2] == ("failure", 1002)
    assert events(server(in_bits=15), frame(PING, rsv=4))[-1][:2] == ("failure", 1002)


def test_last_blocks_and_empty_messages_are_understood() -> None:
    # RFC 7692 7.2.3: several blocks, a stored one, one with BFINAL set, an empty message
    door = server(in_bits=15)
    assert events(door, frame(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\xf2\x00\x11\x00\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\xf2\x00\x11\x00\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", rsv=4)) == [("text", "Hello")]
    assert events(door, frame(TEXT, b"\x00", rsv=4)) == [("text", "")]


@pytest.mark.parametrize("size", [10_000_000, 1001])
def test_bomb_is_stopped_at_the_limit(size: int) -> None:
    door = server(max_size=1000, in_bits=15)
    payload = deflated(bytes(size))
    assert events(door, frame(BINARY, payload, rsv=4)) == [("failure", 1009, "the message is too large")]
    assert events(server(max_size=1000, in_bits=15), frame(BINARY, deflated(bytes(1000)), rsv=4)) == [("binary", bytes(1000))]
    door = server(max_size=1000, in_bits=15)
    for piece in one_by_one(frame(BINARY, payload, rsv=4))[:4000]:
        door.feed(piece)
        event = door.poll()
        assert door.stored <= 1001
        if event[0] == "failure":
            return
    raise AssertionError("never stopped")


def test_broken_compression_fails_with_1007() -> None:
    assert events(server(in_bits=15), frame(BINARY, b"\xff\xff\xff\xff", rsv=4))[-1][:2] == ("failure", 1007)
    assert events(server(in_bits=15), frame(TEXT, deflated(b"\xff"), rsv=4))[-1][:2] == ("failure", 1007)
    for part in (b"", deflated(b"hello")[:-1]):  # what follows would be read as its rest
        assert events(server(in_bits=15), frame(BINARY, part, rsv=4))[-1][:2] == ("failure", 1007)


def test_reference_beyond_the_window_that_was_agreed_gives_the_message_or_its_refusal() -> None:
    # zlib follows it within what one of its calls makes: how the network cut the frame decides. Fuzzing has found it.
    data = random.Random(1).randbytes(4000)
    wire = frame(BINARY, deflated(data + data[:500]), rsv=4)
    refused = [("failure", 1007, "a compressed message cannot be decompressed")]
    assert events(server(in_bits=11), wire) in ([("binary", data + data[:500])], refused)
    assert events(server(in_bits=11), *one_by_one(wire)) == refused
    assert events(server(in_bits=12), *one_by_one(wire)) == [("binary", data + data[:500])]


def test_history_that_was_not_agreed_is_not_there() -> None:
    stream = zlib.compressobj(wbits=-15)
    first = (stream.compress(b"hello world " * 4) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    second = (stream.compress(b"hello world " * 4) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    pieces = frame(TEXT, first, rsv=4), frame(TEXT, second, rsv=4)
    assert events(server(in_bits=15), *pieces) == [("text", "hello world " * 4)] * 2
    assert events(server(in_bits=15, in_takeover=False), *pieces)[1][:2] == ("failure", 1007)


@pytest.mark.parametrize("bits", [9, 12, 15])
def test_idle_websocket_has_no_streams_and_remembers_what_the_peer_may_refer_to(bits: int) -> None:
    theirs = client(out_bits=bits, in_bits=bits)
    compression = Compression(out_bits=bits, in_bits=bits)
    ours = Probe(WebSocketConnection(1 << 20, compression))
    assert compression.streams() == (False, False, 0), "nothing is made before it is needed"
    for number in range(5):
        text = f"message {number}: " + "quack " * 300
        assert events(ours, theirs.send(text)) == [("text", text)]
        assert events(theirs, ours.send(text)) == [("text", text)]
        assert compression.streams() == (True, True, 0)
        ours.rest()
        assert compression.streams()[:2] == (False, False)
        assert 0 < compression.streams()[2] <= 1 << bits


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@counts_memory
def test_streams_of_idle_websockets_go_back_to_the_system() -> None:
    pairs = [(server(out_bits=12, in_bits=12), client(out_bits=12, in_bits=12)) for _ in range(200)]
    text = '{"name": "duck", "legs": 2}' * 60
    begin = resident()
    for ours, theirs in pairs:
        assert events(theirs, ours.compressed(text)) == [("text", text)]
        assert events(ours, theirs.compressed(text)) == [("text", text)]
    grown = resident() - begin
    assert grown > 400 * 12_000, "each has a decompressor, and many a compressor"
    for pair in pairs:
        for door in pair:
            door.rest()  # each keeps a history, which lies between what the others had
    assert resident() - begin < grown / 8


def test_more_websockets_than_compressors_each_get_what_was_sent_to_them() -> None:
    # In turn and in any order, so that some find their history and others a compressor without one.
    chosen = random.Random(1)
    pairs = [(server(out_bits=bits), client(in_bits=bits)) for bits in (9, 12, 12, 12, 15) for _ in range(60)]
    for number in range(3):
        for index in chosen.choices(range(len(pairs)), k=len(pairs)):
            ours, theirs = pairs[index]
            text = f'{{"pond": {index}, "message": {number}}}' * 80
            assert events(theirs, ours.compressed(text)) == [("text", text)]


def test_history_goes_on_from_message_to_message_and_begins_anew_behind_a_large_one() -> None:
    chosen = random.Random(2)
    ours, theirs = server(out_bits=12), client(in_bits=12)
    page = chosen.randbytes(1500).hex()
    sizes = []
    for text in (page, page, page + "quack " * 10_000, page, page):
        written = ours.compressed(text)
        sizes.append(len(written))
        assert events(theirs, written) == [("text", text)]
    first, again, _, behind, last = sizes
    assert again < first / 10, "only what differs from the message before"
    assert behind > first / 2, "nothing refers to what another compressor has seen"
    assert last < first / 10


@counts_memory
def test_memory_of_compressors_does_not_grow_with_the_number_of_websockets() -> None:
    def grow(count: int) -> int:
        begin = resident()
        doors = [server(out_bits=12) for _ in range(count)]
        for door in doors:
            door.compressed('{"name": "duck", "legs": 2}' * 60)
        kept.extend(doors)
        return resident() - begin

    kept: list[Probe] = []
    grow(150)
    assert grow(2000) < 2000 * 4096, "a compressor each would be 40 KiB and more"


def test_message_in_progress_keeps_its_streams() -> None:
    compression = Compression()
    door = Probe(WebSocketConnection(1 << 20, compression))
    payload = deflated(b"hello world " * 100)
    assert events(door, frame(TEXT, payload[:5], fin=False, rsv=4)) == []
    door.rest()
    assert compression.streams()[1]
    assert events(door, frame(CONTINUATION, payload[5:])) == [("text", "hello world " * 100)]


def test_without_takeover_no_stream_outlives_its_message() -> None:
    compression = Compression(out_takeover=False, in_takeover=False)
    door = Probe(WebSocketConnection(1 << 20, compression))
    door.send("quack " * 1000)
    events(door, frame(TEXT, deflated(b"hello"), rsv=4))
    assert compression.streams() == (False, False, 0)


def test_zlib_ng_is_what_compresses() -> None:
    # A dependency; what it exports is found by name. Without it all works, more slowly.
    assert _zlib.library.startswith("zlib-ng 2.")
    assert _zlib.missing == ""


def test_without_zlib_ng_it_is_the_zlib_of_python() -> None:
    script = """
import sys
sys.modules["zlib_ng"] = None  # as if it were not installed
from duckfast import _zlib
from duckfast._deflate import Compression
from duckfast._websocket import Probe, WebSocketConnection
assert _zlib.library.startswith("zlib 1."), _zlib.library
for bits in range(8, 16):
    ours = Probe(WebSocketConnection(1 << 20, Compression(out_bits=bits)))
    theirs = Probe(WebSocketConnection(1 << 20, Compression(in_bits=bits), client=True))
    for text in ("quack " * 300, "x" * 200_000, "quack " * 300):
        written = ours.compressed(text)
        assert len(written) < len(text) / 2
        theirs.feed(written)
        assert theirs.poll() == ("text", text)
    ours.rest(), theirs.rest()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_windows_outside_of_the_rfc_cannot_be_made() -> None:
    for bits in (7, 16):
        with pytest.raises(ValueError, match="8 to 15"):
            Compression(out_bits=bits)


def test_nothing_is_left_alive() -> None:
    before = _debug.alive()
    doors = [server(in_bits=15), client(out_bits=9), server()]
    for door in doors:
        door.send("x" * 5000)
        door.feed(frame(TEXT, b"abc")[:7] + b"\0" * 3)
        door.poll()
        door.settle()
    del door, doors
    assert _debug.alive() == before
