"""RFC 6455 and RFC 7692, bytes in and bytes out, against a started server. Written from the RFCs, not from the code.

The app behind it is websocket_probe; WEBSOCKET_SERVER (see support.websocket_wire) runs the same tests against another server.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.probe import literal, new_key
from support.websocket_wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    KEY,
    PING,
    PONG,
    TEXT,
    Deflater,
    Frame,
    Inflater,
    Served,
    WebSocketWire,
    accept_for,
    close_frame,
    frame,
    handshake,
    serving,
)
from support.wire import Response, Wire, eventually, request

APPS = Path(__file__).parent / "apps"
MAX_SIZE = 100_000  # bytes of a message on the server with a limit


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("websocket_probe:application", cwd=APPS) as served:
        yield served


@pytest.fixture(scope="module")
def limited() -> Iterator[Served]:
    with serving("websocket_probe:application", "--ws-max-size", str(MAX_SIZE), cwd=APPS) as served:
        yield served


def connect(served: Served, target: str = "/echo", *headers: tuple[str, str], behind: bytes = b"") -> WebSocketWire:
    return WebSocketWire(served.address, target, headers, behind=behind)


def deflating(served: Served, *offers: str) -> WebSocketWire:
    return connect(served, "/echo", *(("Sec-WebSocket-Extensions", offer) for offer in offers or (DEFLATE,)))


def ask(served: Served, data: bytes) -> Response:
    """The answer to these bytes, on a connection of its own, with its body unless it is 101."""
    with Wire(served.address) as wire:
        wire.send(data)
        response = wire.read_head()
        return response if response.status == 101 else wire.read_body(response)


def notes(served: Served, key: str, count: int = 1) -> list[object]:
    """What the app has noted, once it has `count` times."""

    def look() -> list[object] | None:
        found: list[object] = literal(ask(served, request(target=f"/notes?{key}")))
        return found if len(found) >= count else None

    found = eventually(look, f"notes of {key}")
    assert found is not None
    return found


# Opening handshake, RFC 6455 4.2 ------------------------------------------------------------------------------------


def test_handshake_is_answered_with_exactly_what_the_rfc_asks_for(served: Served) -> None:
    response = ask(served, handshake())
    assert response.status == 101
    assert (response.get("upgrade") or b"").lower() == b"websocket"
    assert (response.get("connection") or b"").lower() == b"upgrade"
    assert response.get("sec-websocket-accept") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for absent in ("sec-websocket-protocol", "sec-websocket-extensions", "content-length", "transfer-encoding"):
        assert response.get(absent) is None, absent


def test_accept_is_made_from_the_key_as_it_was_sent(served: Served) -> None:
    for key in ("AAAAAAAAAAAAAAAAAAAAAA==", "/+/+/+/+/+/+/+/+/+/+/w=="):
        response = ask(served, handshake(headers=[("Sec-WebSocket-Key", key)], without=["Sec-WebSocket-Key"]))
        assert response.get("sec-websocket-accept") == accept_for(key)


@pytest.mark.parametrize(
    "fields",
    [
        [("Connection", "upgrade"), ("Upgrade", "WebSocket")],
        [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket")],
        [("Connection", "keep-alive"), ("Connection", "UPGRADE"), ("Upgrade", "websocket")],
        [("Connection", "Upgrade,keep-alive"), ("Upgrade", "WEBSOCKET")],
    ],
)
def test_connection_and_upgrade_are_lists_of_tokens_in_any_case(served: Served, fields: list[tuple[str, str]]) -> None:
    assert ask(served, handshake(headers=fields, without=["Connection", "Upgrade"])).status == 101


@pytest.mark.parametrize("version", ["8", "7", "0", "14", "13, 8", "x", ""])
def test_other_version_is_426_with_the_version_to_use(served: Served, version: str) -> None:
    response = ask(served, handshake(headers=[("Sec-WebSocket-Version", version)], without=["Sec-WebSocket-Version"]))
    assert response.status == 426
    assert response.get("sec-websocket-version") == b"13"


def test_missing_version_is_refused(served: Served) -> None:
    assert ask(served, handshake(without=["Sec-WebSocket-Version"])).status in (400, 426)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [""],
        ["dGhlIHNhbXBsZSBub25jZQ"],  # no padding
        ["dGhlIHNhbXBsZSBub25j"],  # 15 bytes
        ["dGhlIHNhbXBsZSBub25jZSE="],  # 17 bytes
        ["dGhlIHNhbXBsZSBub25jZ!=="],
        ["dGhlIHNhbXBs ZSBub25jZQ=="],
        [KEY, KEY],
    ],
)
def test_key_that_is_not_one_of_16_bytes_is_400(served: Served, keys: list[str]) -> None:
    fields = [("Sec-WebSocket-Key", key) for key in keys]
    assert ask(served, handshake(headers=fields, without=["Sec-WebSocket-Key"])).status == 400


def test_request_that_is_no_handshake_goes_to_the_app_as_http(served: Served) -> None:
    assert ask(served, handshake(without=["Upgrade"])).text == "GET /echo"
    assert ask(served, handshake(without=["Upgrade"], headers=[("Upgrade", "h2c")])).text == "GET /echo"
    assert ask(served, handshake(without=["Upgrade"], headers=[("Upgrade", "websockets")])).text == "GET /echo"


def test_only_get_of_http_1_1_opens_a_websocket(served: Served) -> None:
    for data in (handshake(method="POST", body=b""), handshake(method="HEAD"), handshake(version="1.0")):
        with Wire(served.address) as wire:
            wire.send(data)
            assert wire.read_head().status != 101, data


def test_body_of_a_handshake_is_never_taken_for_frames(served: Served) -> None:
    """A proxy in front would see one request with a body where we see frames, or the other way round."""
    body = frame(TEXT, b"hidden")
    for framing in ([("Content-Length", str(len(body)))], [("Transfer-Encoding", "chunked")]):
        with Wire(served.address) as wire:
            closing = [("Connection", "Upgrade, close"), *framing]
            wire.send(handshake(headers=closing, without=["Connection"]) + body)
            assert wire.read_head().status != 101
            assert b"hidden" not in wire.read_rest()


def test_frames_right_behind_the_handshake_are_received(served: Served) -> None:
    with connect(served, behind=frame(TEXT, b"early") + frame(BINARY, b"bird")) as ws:
        ws.expect_echo(TEXT, b"early")
        ws.expect_echo(BINARY, b"bird")


def test_part_of_a_frame_behind_the_handshake_waits_for_the_rest(served: Served) -> None:
    whole = frame(TEXT, b"in two parts")
    with connect(served, behind=whole[:7]) as ws:
        ws.send(whole[7:])
        ws.expect_echo(TEXT, b"in two parts")


def test_handshake_may_come_byte_by_byte(served: Served) -> None:
    with Wire(served.address) as wire:
        for byte in handshake():
            wire.send(bytes([byte]))
        assert wire.read_head().status == 101


def test_handshake_may_follow_other_requests_on_the_connection(served: Served) -> None:
    with Wire(served.address) as wire:
        wire.send(request(target="/one"))
        assert wire.read_response().text == "GET /one"
        wire.send(request(target="/two") + handshake() + frame(TEXT, b"behind two"))
        assert wire.read_response().text == "GET /two"
        assert wire.read_head().status == 101
        assert wire.read_exactly(12) == b"\x81\x0abehind two"


def test_subprotocols_come_from_all_lines_in_order(served: Served) -> None:
    fields = [("Sec-WebSocket-Protocol", "chat, superchat"), ("Sec-WebSocket-Protocol", "v2.duck ,v1.duck")]
    with connect(served, "/choose-second", *fields) as ws:
        assert ws.response.get("sec-websocket-protocol") == b"superchat"
        assert ws.read_message()[1] == b"['chat', 'superchat', 'v2.duck', 'v1.duck']"


def test_offered_subprotocols_that_the_app_does_not_choose_are_not_answered(served: Served) -> None:
    with connect(served, "/echo", ("Sec-WebSocket-Protocol", "chat")) as ws:
        assert ws.response.get("sec-websocket-protocol") is None


def test_headers_of_the_apps_accept_keep_their_order(served: Served) -> None:
    with connect(served, "/more-headers") as ws:
        fields = [(name.lower(), value) for name, value in ws.response.headers]
    mine = [field for field in fields if field[0] in (b"x-first", b"set-cookie", b"x-last")]
    assert mine == [(b"x-first", b"1"), (b"set-cookie", b"a=b"), (b"set-cookie", b"c=d"), (b"x-last", b"2")]


def test_scope_is_of_a_websocket(served: Served) -> None:
    with connect(served, "/scope?a=%20b", ("X-Duck", "quack"), ("Origin", "http://pond.example")) as ws:
        scope = literal(Response(200, b"", b"", [], chunks=[ws.read_message()[1]]))
    assert scope["type"] == "websocket"
    assert scope["scheme"] in ("ws", "wss")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/scope", b"/scope", b"a=%20b")
    assert scope["subprotocols"] == []
    assert scope["http_version"] == "1.1"
    assert scope["asgi"]["version"] in ("2.5", "3.0")
    headers = list(map(tuple, scope["headers"]))
    assert (b"x-duck", b"quack") in headers and (b"origin", b"http://pond.example") in headers
    assert "method" not in scope
    assert "websocket.http.response" in scope["extensions"]


def test_close_in_place_of_accept_is_403(served: Served) -> None:
    assert ask(served, handshake("/deny")).status == 403


def test_app_denies_with_a_response_of_its_own(served: Served) -> None:
    response = ask(served, handshake("/deny-with-response"))
    assert (response.status, response.body) == (418, b"no ducks")
    assert response.get("x-why") == b"closed on Sundays"


def test_app_that_fails_or_leaves_before_its_answer_is_500(served: Served) -> None:
    assert ask(served, handshake("/fail-first")).status == 500
    assert ask(served, handshake("/leave-first")).status == 500


# Frames, RFC 6455 5 -------------------------------------------------------------------------------------------------


def test_messages_of_every_width_of_length_come_back(served: Served) -> None:
    with connect(served) as ws:
        for size in (0, 1, 2, 3, 4, 7, 8, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537, 1_000_003):
            data = os.urandom(size)
            ws.send(frame(BINARY, data))
            ws.expect_echo(BINARY, data)
            text = bytes(97 + octet % 26 for octet in data)
            ws.send(frame(TEXT, text))
            ws.expect_echo(TEXT, text)
        ws.close()


def test_frames_may_come_byte_by_byte(served: Served) -> None:
    with connect(served) as ws:
        # One after the other: a pong may come before the app's answer to an earlier message.
        for opcode, payload, answer in ((TEXT, b"drop", TEXT), (PING, b"by", PONG), (BINARY, b"d" * 126, BINARY)):
            for byte in frame(opcode, payload):
                ws.send(bytes([byte]))
            assert ws.read_frame() == Frame(answer, payload)


def test_every_mask_is_taken_off_at_every_offset(served: Served) -> None:
    """Word-wide unmasking has its errors at the ends: all sizes up to some words, each after others of odd lengths."""
    sent = [os.urandom(size) for size in range(75)]
    masks = [os.urandom(4), b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"]
    with connect(served) as ws:
        for mask in masks:
            ws.send(*(frame(BINARY, data, mask=mask) for data in sent))
            for data in sent:
                ws.expect_echo(BINARY, data)


def test_long_payload_in_odd_pieces_is_unmasked_where_it_was_cut(served: Served) -> None:
    data = os.urandom(20_000)
    whole = frame(BINARY, data)
    for piece in (1021, 4099, 7777):
        with connect(served) as ws:
            for start in range(0, len(whole), piece):
                ws.send(whole[start : start + piece])
            ws.expect_echo(BINARY, data)


@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE])
def test_unmasked_frame_is_a_protocol_error(served: Served, opcode: int) -> None:
    with connect(served) as ws:
        ws.send(frame(opcode, b"", mask=None))
        ws.expect_failure(1002)


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_reserved_opcode_is_a_protocol_error(served: Served, opcode: int) -> None:
    with connect(served) as ws:
        ws.send(frame(opcode, b"x"))
        ws.expect_failure(1002)


@pytest.mark.parametrize("reserved", range(1, 8))
def test_reserved_bits_without_an_extension_are_a_protocol_error(served: Served, reserved: int) -> None:
    for opcode in (TEXT, PING, CLOSE):
        with connect(served) as ws:
            ws.send(frame(opcode, b"", reserved=reserved))
            ws.expect_failure(1002)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frame_has_at_most_125_bytes_and_no_fragments(served: Served, opcode: int) -> None:
    for bad in (
        frame(opcode, b"\x03\xe8" + b"x" * 124),
        frame(opcode, b"\x03\xe8" + b"x" * 10, width=2),
        frame(opcode, b"\x03\xe8", width=8),
        frame(opcode, b"\x03\xe8", final=False),
    ):
        with connect(served) as ws:
            ws.send(bad)
            ws.expect_failure(1002)


def test_length_with_its_highest_bit_set_fails_the_connection(served: Served) -> None:
    for size in (1 << 63, (1 << 64) - 1):
        with connect(served) as ws:
            ws.send(frame(BINARY, b"", size=size, width=8))
            ws.expect_failure(1002, 1009)


def test_ping_is_answered_with_its_payload(served: Served) -> None:
    with connect(served) as ws:
        for payload in (b"", b"x", os.urandom(125)):
            ws.send(frame(PING, payload))
            assert ws.read_frame() == Frame(PONG, payload)


def test_pings_are_answered_in_order_and_pongs_ignored(served: Served) -> None:
    with connect(served) as ws:
        ws.send(*(frame(PING, b"%d" % number) + frame(PONG, b"unasked") for number in range(10)))
        ws.send(frame(TEXT, b"and now"))
        answers = [ws.read_frame() for _ in range(11)]
    # RFC 6455 5.5.3 allows to answer only the latest of several pings; each is what we promise.
    pongs = [answer.payload for answer in answers if answer.opcode == PONG]
    assert pongs == [b"%d" % number for number in range(10)]
    assert Frame(TEXT, b"and now") in answers


def test_ping_between_fragments_is_answered_before_the_message_ends(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(TEXT, b"one ", final=False), frame(PING, b"still there?"))
        assert ws.read_frame() == Frame(PONG, b"still there?")
        ws.send(frame(CONTINUATION, b"two ", final=False), frame(PONG), frame(CONTINUATION, b"three"))
        ws.expect_echo(TEXT, b"one two three")


def test_fragments_are_joined_empty_ones_too(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(BINARY, b"", final=False), frame(CONTINUATION, b"a", final=False))
        ws.send(frame(CONTINUATION, b"", final=False), frame(CONTINUATION, b"b", final=False), frame(CONTINUATION, b""))
        ws.expect_echo(BINARY, b"ab")
        ws.send(frame(TEXT, b"", final=False), frame(CONTINUATION, b""))
        ws.expect_echo(TEXT, b"")
        ws.send(frame(BINARY, b"q", final=False), *[frame(CONTINUATION, b"u", final=False)] * 5000, frame(CONTINUATION, b"ack"))
        ws.expect_echo(BINARY, b"q" + b"u" * 5000 + b"ack")


def test_continuation_without_a_beginning_is_a_protocol_error(served: Served) -> None:
    for final in (True, False):
        with connect(served) as ws:
            ws.send(frame(CONTINUATION, b"of what?", final=final))
            ws.expect_failure(1002)
        with connect(served) as ws:
            ws.send(frame(TEXT, b"whole"))
            ws.expect_echo(TEXT, b"whole")
            ws.send(frame(CONTINUATION, b"more", final=final))
            ws.expect_failure(1002)


def test_new_message_inside_fragments_is_a_protocol_error(served: Served) -> None:
    for first, second in itertools.product((TEXT, BINARY), repeat=2):
        with connect(served) as ws:
            ws.send(frame(first, b"one", final=False), frame(second, b"two"))
            ws.expect_failure(1002)


def test_nothing_is_delivered_after_a_protocol_error(served: Served) -> None:
    key = new_key()
    with connect(served, f"/echo?{key}") as ws:
        ws.send(frame(TEXT, b"good"))
        ws.expect_echo(TEXT, b"good")
        ws.send(frame(3, b"bad"), frame(TEXT, b"too late"))
        ws.expect_failure(1002)
    message = notes(served, key)[0]
    assert isinstance(message, dict) and message["type"] == "websocket.disconnect"


def test_messages_keep_their_order_when_many_come_at_once(served: Served) -> None:
    with connect(served) as ws:
        ws.send(*(frame(TEXT, b"%d" % number) for number in range(2000)))
        for number in range(2000):
            ws.expect_echo(TEXT, b"%d" % number)


# UTF-8, RFC 6455 5.6 and 8.1 ----------------------------------------------------------------------------------------

LETTERS = "κόσμε € 水鳥 𐍈 \U0010ffff \ud7ff \ue000 \x00\x7f\x80".encode()
NOT_UTF_8 = [
    b"\x80",
    b"\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"\xe2\x28\xa1",
    b"\xe2\x82\x28",
    b"\xf0\x28\x8c\xbc",
    b"\xf0\x90\x28\xbc",
    b"\xf0\x90\x8d\x28",
    b"\xc3\xc3",
]
CUT_OFF = [b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x90", b"\xf0\x90\x8d", b"\xf4\x8f\xbf"]


def test_text_may_be_cut_anywhere_into_fragments(served: Served) -> None:
    with connect(served) as ws:
        for cut in range(len(LETTERS) + 1):
            ws.send(frame(TEXT, LETTERS[:cut], final=False), frame(CONTINUATION, LETTERS[cut:]))
            ws.expect_echo(TEXT, LETTERS)
        pieces = [frame(CONTINUATION, bytes([octet]), final=False) for octet in LETTERS]
        ws.send(frame(TEXT, b"", final=False), *pieces, frame(CONTINUATION, b""))
        ws.expect_echo(TEXT, LETTERS)


@pytest.mark.parametrize("bad", NOT_UTF_8, ids=bytes.hex)
def test_text_that_is_not_utf_8_is_1007(served: Served, bad: bytes) -> None:
    for around in (b"", b"a", b"0123456789abcdef", b"x" * 200):
        with connect(served) as ws:
            ws.send(frame(TEXT, around + bad + around))
            ws.expect_failure(1007)


@pytest.mark.parametrize("bad", NOT_UTF_8, ids=bytes.hex)
def test_text_that_is_not_utf_8_is_seen_across_any_cut(served: Served, bad: bytes) -> None:
    text = b"\xc3\xa4" + bad + b"ok"
    for cut in range(1, len(text)):
        with connect(served) as ws:
            ws.send(frame(TEXT, text[:cut], final=False), frame(CONTINUATION, text[cut:]))
            ws.expect_failure(1007)


@pytest.mark.parametrize("bad", CUT_OFF, ids=bytes.hex)
def test_text_that_ends_inside_a_letter_is_1007(served: Served, bad: bytes) -> None:
    for message in ([frame(TEXT, b"a" * 20 + bad)], [frame(TEXT, bad, final=False), frame(CONTINUATION, b"")]):
        with connect(served) as ws:
            ws.send(*message)
            ws.expect_failure(1007)


def test_letter_is_not_continued_in_the_next_message(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(TEXT, b"\xc3"), frame(TEXT, b"\xa4"))
        ws.expect_failure(1007)


def test_wrong_text_fails_at_once_before_its_last_fragment(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(TEXT, b"fine so far", final=False), frame(CONTINUATION, b"\xff", final=False))
        ws.expect_failure(1007)


def test_binary_may_be_any_bytes(served: Served) -> None:
    data = bytes(range(256)) + b"".join(NOT_UTF_8)
    with connect(served) as ws:
        ws.send(frame(BINARY, data))
        ws.expect_echo(BINARY, data)


# Closing, RFC 6455 5.5.1 and 7 --------------------------------------------------------------------------------------

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", GOOD_CODES)
def test_close_is_answered_with_its_code_and_told_to_the_app(served: Served, code: int) -> None:
    key = new_key()
    with connect(served, f"/echo?{key}") as ws:
        ws.send(close_frame(code, "Tschüß"))
        ws.expect_close(code)
        ws.wire.expect_clean_end()
    message = notes(served, key)[0]
    assert isinstance(message, dict)
    assert (message["code"], message.get("reason")) == (code, "Tschüß")


def test_close_without_a_code_is_1005_to_the_app(served: Served) -> None:
    key = new_key()
    with connect(served, f"/echo?{key}") as ws:
        ws.send(close_frame(None))
        ws.expect_close(None, 1000)
        ws.wire.expect_clean_end()
    message = notes(served, key)[0]
    assert isinstance(message, dict) and message["code"] == 1005


def test_end_without_a_close_frame_is_1006_to_the_app(served: Served) -> None:
    for leave in ("close", "reset", "half_close"):
        key = new_key()
        with connect(served, f"/echo?{key}") as ws:
            ws.send(frame(TEXT, b"here"))
            ws.expect_echo(TEXT, b"here")
            getattr(ws.wire, leave)()
            message = notes(served, key)[0]
        assert isinstance(message, dict) and message["code"] == 1006, leave


@pytest.mark.parametrize("code", BAD_CODES)
def test_close_code_that_nobody_may_send_is_a_protocol_error(served: Served, code: int) -> None:
    with connect(served) as ws:
        ws.send(close_frame(code))
        ws.expect_failure(1002)


def test_close_with_half_a_code_is_a_protocol_error(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(CLOSE, b"\x03"))
        ws.expect_failure(1002)


def test_close_reason_that_is_not_utf_8_fails_the_connection(served: Served) -> None:
    for bad in (b"\xff", b"abc\xc3", b"\xed\xa0\x80"):
        with connect(served) as ws:
            ws.send(close_frame(1000, bad))
            ws.expect_failure(1007, 1002)


def test_close_with_the_longest_reason_is_good(served: Served) -> None:
    with connect(served) as ws:
        ws.send(close_frame(1000, "r" * 123))
        ws.expect_close(1000)
        ws.wire.expect_clean_end()


def test_what_follows_a_close_frame_is_ignored(served: Served) -> None:
    with connect(served) as ws:
        ws.send(close_frame(1000), frame(TEXT, b"too late"), frame(PING, b"hello?"), frame(3, b"bad"))
        ws.expect_close(1000)
        assert ws.wire.read_rest() == b""


def test_close_inside_a_fragmented_message_ends_it(served: Served) -> None:
    key = new_key()
    with connect(served, f"/echo?{key}") as ws:
        ws.send(frame(TEXT, b"never", final=False), close_frame(1001, "gone"))
        ws.expect_close(1001)
        ws.wire.expect_clean_end()
    assert notes(served, key) == [{"type": "websocket.disconnect", "code": 1001, "reason": "gone"}]


def test_messages_before_a_close_are_answered_before_it(served: Served) -> None:
    with connect(served) as ws:
        ws.send(frame(TEXT, b"last words"))
        ws.expect_echo(TEXT, b"last words")
        ws.send(close_frame(1000))
        ws.expect_close(1000)
        ws.wire.expect_clean_end()


def test_app_closes_with_its_code_and_reason_and_hears_of_it(served: Served) -> None:
    key = new_key()
    with connect(served, f"/close-with-reason?{key}") as ws:
        ws.send(frame(TEXT, b"go"))
        assert ws.expect_close(4001).reason == "enough, Gänse"
        ws.send(frame(TEXT, b"crossing"), close_frame(4001))
        ws.wire.expect_clean_end()
    disconnect, late = notes(served, key, 2)
    assert isinstance(disconnect, dict)
    assert (disconnect["type"], disconnect["code"]) == ("websocket.disconnect", 4001)
    assert late is True, "send() after close() must raise an OSError"


def test_app_that_closes_without_a_code_closes_with_1000(served: Served) -> None:
    with connect(served, "/close") as ws:
        ws.expect_close(1000)
        ws.send(close_frame(1000))
        ws.wire.expect_clean_end()


def test_app_that_returns_closes_with_1000(served: Served) -> None:
    with connect(served, "/leave") as ws:
        ws.send(frame(TEXT, b"go"))
        ws.expect_close(1000)
        ws.send(close_frame(1000))
        ws.wire.expect_clean_end()


def test_app_that_fails_closes_with_1011(served: Served) -> None:
    with connect(served, "/fail") as ws:
        ws.send(frame(TEXT, b"go"))
        ws.expect_failure(1011)


# Limits and back-pressure ---------------------------------------------------------------------------------------------


def test_message_as_large_as_allowed_is_taken_and_one_byte_more_is_1009(limited: Served) -> None:
    data = os.urandom(MAX_SIZE)
    with connect(limited) as ws:
        ws.send(frame(BINARY, data))
        ws.expect_echo(BINARY, data)
        ws.send(frame(BINARY, data[1:], final=False), frame(CONTINUATION, data[:1]))
        ws.expect_echo(BINARY, data[1:] + data[:1])
    with connect(limited) as ws:
        ws.wire.send_what_is_taken(frame(BINARY, data + b"x"))
        ws.expect_failure(1009)


def test_too_large_a_message_is_refused_by_its_length_alone(limited: Served) -> None:
    for size in (MAX_SIZE + 1, 1 << 32, (1 << 63) - 1):
        with connect(limited) as ws:
            ws.send(frame(BINARY, b"", size=size))
            ws.expect_failure(1009)


def test_fragments_that_become_too_large_together_are_1009(limited: Served) -> None:
    with connect(limited) as ws:
        ws.send(frame(BINARY, bytes(MAX_SIZE - 10), final=False), frame(CONTINUATION, bytes(10), final=False))
        ws.send(frame(PING, b"good so far"))
        assert ws.read_frame() == Frame(PONG, b"good so far")
        ws.send(frame(CONTINUATION, b"x", final=False))
        ws.expect_failure(1009)


def test_decompression_bomb_is_stopped_at_the_limit(limited: Served) -> None:
    bomb = Deflater()(bytes(50_000_000))
    assert len(bomb) < MAX_SIZE
    with deflating(limited) as ws:
        ws.send(frame(BINARY, bomb, reserved=4))
        ws.expect_failure(1009)
    with deflating(limited) as ws:
        half = len(bomb) // 2
        ws.send(frame(BINARY, bomb[:half], reserved=4, final=False))
        ws.expect_failure(1009)


def test_message_that_is_compressed_may_have_the_size_that_is_allowed(limited: Served) -> None:
    deflate, data = Deflater(), bytes(MAX_SIZE)
    with deflating(limited) as ws:
        inflate = Inflater()
        ws.send(frame(BINARY, deflate(data), reserved=4))
        ws.expect_echo(BINARY, data, inflate)
        ws.send(frame(BINARY, deflate(data + b"x"), reserved=4))
        ws.expect_failure(1009)


def test_app_that_does_not_receive_holds_its_client_back_and_loses_nothing(served: Served) -> None:
    key, message = new_key(), frame(BINARY, bytes(65536))
    with connect(served, f"/wait-at-gate?{key}") as ws:
        notes(served, key)
        ws.wire.socket.setblocking(False)
        sent, looks = 0, 0
        # Up to where nothing has been taken any more over many whole requests through the same server.
        while looks < 20:
            offset = sent % len(message)
            try:
                sent += ws.wire.socket.send(message[offset:])
                looks = 0
            except BlockingIOError:
                notes(served, key)
                looks += 1
            assert sent < 200_000_000, "the server takes everything, though the app takes nothing"
        ws.wire.socket.settimeout(30)
        assert ask(served, request(target=f"/open-gate?{key}")).status == 200
        ws.send(message[sent % len(message) :])
        ws.send(frame(BINARY, b""))
        count = sent // len(message) + 1
        ws.expect_echo(TEXT, f"{count} {count * 65536}".encode())


def test_client_that_does_not_read_holds_the_app_back_and_loses_nothing(served: Served) -> None:
    key = new_key()
    with WebSocketWire(served.address, f"/flood?{key}", receive_buffer=65536) as ws:
        looks, latest = 0, -1
        while looks < 20:
            taken = notes(served, key)[0]
            assert isinstance(taken, int)
            looks = looks + 1 if taken == latest else 0
            latest = taken
            assert taken * 65536 < 100_000_000, "the server buffers without bound"
        for number in range(latest + 50):
            ws.expect_echo(BINARY, struct.pack("!I", number) * 16384)
    assert notes(served, key, 2)[1] == "the client has left"


# permessage-deflate, RFC 7692 ---------------------------------------------------------------------------------------

WORDS = b"the duck swims, the duck dives, the duck flies; " * 40


def test_offer_is_accepted_and_both_ways_are_compressed(served: Served) -> None:
    deflate, inflate = Deflater(), Inflater()
    with deflating(served) as ws:
        for opcode in (TEXT, BINARY, TEXT):
            data = deflate(WORDS)
            ws.send(frame(opcode, data, reserved=4))
            answer = ws.read_frame()
            assert answer.reserved == 4 and len(answer.payload) < len(WORDS) // 4
            assert (answer.opcode, inflate(answer.payload)) == (opcode, WORDS)
        ws.close()


def test_second_message_refers_to_the_first_where_contexts_are_kept(served: Served) -> None:
    deflate, data = Deflater(), os.urandom(2000)
    with deflating(served) as ws:
        inflate = Inflater()
        first, second = deflate(data), deflate(data)
        assert len(second) < 100 < len(first)
        for message in (first, second):
            ws.send(frame(BINARY, message, reserved=4))
            ws.expect_echo(BINARY, data, inflate)


def test_uncompressed_messages_may_come_between(served: Served) -> None:
    deflate = Deflater()
    with deflating(served) as ws:
        inflate = Inflater()
        for _ in range(3):
            ws.send(frame(TEXT, deflate(WORDS), reserved=4), frame(TEXT, b"as it is"))
            ws.expect_echo(TEXT, WORDS, inflate)
            ws.expect_echo(TEXT, b"as it is", inflate)


def test_compressed_message_may_be_cut_anywhere_into_fragments(served: Served) -> None:
    data = Deflater(takeover=False)(LETTERS)
    with deflating(served) as ws:
        inflate = Inflater()
        for cut in range(len(data) + 1):
            ws.send(frame(TEXT, data[:cut], reserved=4, final=False), frame(PING, b"between"), frame(CONTINUATION, data[cut:]))
            assert ws.read_frame() == Frame(PONG, b"between")
            ws.expect_echo(TEXT, LETTERS, inflate)


def test_empty_message_may_be_compressed(served: Served) -> None:
    with deflating(served) as ws:
        inflate = Inflater()
        # RFC 7692 7.2.3.6: an empty stored block, or a sender's own way to say nothing.
        for nothing in (b"\x00", b"\x02\x00", Deflater()(b"")):
            ws.send(frame(TEXT, nothing, reserved=4))
            ws.expect_echo(TEXT, b"", inflate)


def test_examples_of_the_rfc_are_understood(served: Served) -> None:
    """RFC 7692 7.2.3: one block, the same with its context, stored, with BFINAL set, two blocks."""
    messages = ["f248cdc9c90700", "f200110000", "000500faff48656c6c6f00", "f348cdc9c9070000", "f248050000 00ffff cac9c90700"]
    with deflating(served) as ws:
        inflate = Inflater()
        for message in messages:
            ws.send(frame(TEXT, bytes.fromhex(message), reserved=4))
            ws.expect_echo(TEXT, b"Hello", inflate)


def test_reserved_bit_belongs_only_to_the_first_frame_of_a_message(served: Served) -> None:
    data = Deflater()(WORDS)
    for bad in (
        [frame(TEXT, data[:10], reserved=4, final=False), frame(CONTINUATION, data[10:], reserved=4)],
        [frame(TEXT, b"plain", final=False), frame(CONTINUATION, b"", reserved=4)],
        [frame(PING, b"", reserved=4)],
        [frame(CLOSE, b"", reserved=4)],
        [frame(TEXT, data, reserved=2)],
        [frame(TEXT, data, reserved=5)],
    ):
        with deflating(served) as ws:
            ws.send(*bad)
            ws.expect_failure(1002)


def test_data_that_does_not_inflate_fails_the_connection(served: Served) -> None:
    deflate = Deflater()
    deflate(WORDS)
    refers_to_nothing = deflate(WORDS)  # to a message that the server has not had
    # A block of the kind that does not exist, and a stored one whose length is not repeated as it should be.
    for bad in (b"\x07", b"\xff" * 20, b"\x00\x05\x00\x05\x00Hello", refers_to_nothing):
        with deflating(served) as ws:
            ws.send(frame(BINARY, bad, reserved=4))
            ws.expect_failure(1002, 1007)


def test_text_is_checked_after_inflating(served: Served) -> None:
    for bad in (b"ok \xff", b"\xc3", b"x" * 5000 + b"\xed\xa0\x80"):
        with deflating(served) as ws:
            ws.send(frame(TEXT, Deflater()(bad), reserved=4))
            ws.expect_failure(1007)


def test_large_messages_pass_compressed(served: Served) -> None:
    deflate = Deflater()
    with deflating(served) as ws:
        inflate = Inflater()
        for data in (os.urandom(300_000), bytes(1_000_000), WORDS * 500):
            ws.send(frame(BINARY, deflate(data), reserved=4))
            ws.expect_echo(BINARY, data, inflate)


def test_server_gives_up_its_context_where_the_client_asks_for_it(served: Served) -> None:
    with deflating(served, f"{DEFLATE}; server_no_context_takeover") as ws:
        assert "server_no_context_takeover" in ws.deflate
        for _ in range(3):
            ws.send(frame(TEXT, Deflater()(WORDS), reserved=4))
            ws.expect_echo(TEXT, WORDS, Inflater())  # a new context each time


def test_client_without_context_is_understood(served: Served) -> None:
    with deflating(served, f"{DEFLATE}; client_no_context_takeover") as ws:
        deflate, inflate = Deflater(takeover=False), Inflater()
        for _ in range(3):
            ws.send(frame(TEXT, deflate(WORDS), reserved=4))
            ws.expect_echo(TEXT, WORDS, inflate)


@pytest.mark.parametrize("bits", range(8, 16))
def test_window_of_the_server_is_no_larger_than_the_client_allows(served: Served, bits: int) -> None:
    with deflating(served, f"{DEFLATE}; server_max_window_bits={bits}") as ws:
        if not ws.extensions and bits == 8:
            return  # zlib has no such window; an offer may be declined
        agreed = int(ws.deflate["server_max_window_bits"] or "")
        assert 8 <= agreed <= bits
        data = os.urandom(600) * 60  # repeats itself at a distance that only large windows reach
        deflate, inflate = Deflater(), Inflater(bits=bits)
        for _ in range(2):
            ws.send(frame(BINARY, deflate(data), reserved=4))
            ws.expect_echo(BINARY, data, inflate)


def test_client_says_how_large_its_window_may_be_and_keeps_to_the_answer(served: Served) -> None:
    for bits in ("", "=12", '="15"'):
        with deflating(served, f"{DEFLATE}; client_max_window_bits{bits}") as ws:
            agreed = int(ws.deflate.get("client_max_window_bits") or 15)
            assert 9 <= agreed <= 15
            deflate, inflate = Deflater(bits=agreed), Inflater()
            ws.send(frame(BINARY, deflate(WORDS), reserved=4))
            ws.expect_echo(BINARY, WORDS, inflate)


def test_answer_has_no_parameter_that_the_client_did_not_offer(served: Served) -> None:
    with deflating(served) as ws:
        assert "client_max_window_bits" not in ws.deflate  # RFC 7692 7.1.2.2


@pytest.mark.parametrize(
    "offer",
    [
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        "server_max_window_bits=1e1",
        "client_max_window_bits=16",
        "client_max_window_bits=7",
        "client_max_window_bits=x",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_max_window_bits=10; server_max_window_bits=11",
        "client_no_context_takeover; client_no_context_takeover",
        "unheard_of",
        "mem_level=9",
    ],
)
def test_offer_that_the_rfc_does_not_allow_is_declined(served: Served, offer: str) -> None:
    with deflating(served, f"{DEFLATE}; {offer}") as ws:
        assert ws.extensions == []
        ws.send(frame(TEXT, b"as it is"))
        ws.expect_echo(TEXT, b"as it is")
    # The next offer, of the same or another line, is looked at (RFC 7692 7.1.3).
    for offers in ([f"{DEFLATE}; {offer}, {DEFLATE}"], [f"{DEFLATE}; {offer}", DEFLATE]):
        with deflating(served, *offers) as ws:
            assert ws.deflate.keys() <= {"server_max_window_bits", "server_no_context_takeover", "client_no_context_takeover"}


def test_other_extensions_are_declined(served: Served) -> None:
    with deflating(served, "x-webkit-deflate-frame", f"bbf-usp-protocol, {DEFLATE}") as ws:
        assert [extension.name for extension in ws.extensions] == [DEFLATE]
    with deflating(served, "permessage-bzip2; level=9") as ws:
        assert ws.extensions == []
