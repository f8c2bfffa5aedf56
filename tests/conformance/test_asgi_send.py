"""ASGI send(): what is refused, how responses are framed, what happens when either side gives up."""

from __future__ import annotations

import re

import pytest
from support.probe import Probe, StartProbe, literal

IMF_FIXDATE = re.compile(
    rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT"
)

BAD_STARTS = [
    "unknown type",
    "no type",
    "type is not str",
    "not a dict",
    "websocket message",
    "no status",
    "status is str",
    "status is None",
    "status too small",
    "status too large",
    "interim status",
    "header name is str",
    "header value is str",
    "header is not a pair",
    "headers is a number",
    "CRLF in a value",
    "LF in a value",
    "CR in a value",
    "NUL in a value",
    "CRLF in a name",
    "space in a name",
    "colon in a name",
    "empty name",
    "length is no number",
    "length is negative",
    "length has a sign",
    "two lengths",
    "body before start",
    "pathsend before start",
    "trailers before start",
]


@pytest.mark.parametrize("case", BAD_STARTS)
def test_bad_message_raises_out_of_send_and_the_app_can_still_answer(asgi: Probe, key: str, case: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_bad_message", key, case=case))
        response = wire.read_response()
        assert (response.status, literal(response)) == (200, "recovered")
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200
    (outcome,) = asgi.notes(key)
    assert outcome[0] == "raised", f"{case} was accepted"
    assert "OSError" not in outcome[2], "only a client that left is an OSError"


@pytest.mark.parametrize("case", ["unknown type", "no status", "header value is str", "CRLF in a value", "body before start"])
def test_bad_message_that_the_app_does_not_catch_is_a_500(asgi: Probe, case: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("leak_bad_message", case=case))
        response = wire.read_response()
        assert response.status == 500
        assert b"evil" not in response.body and b"Traceback" not in response.body
        assert response.all("x-evil") == []


@pytest.mark.parametrize(
    "case", ["body is str", "body is a number", "body is a list", "second start", "unknown type", "trailers not announced"]
)
def test_bad_message_inside_a_response_raises_and_leaves_the_response_whole(asgi: Probe, key: str, case: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_bad_body", key, case=case))
        response = wire.read_response()
        assert (response.status, response.body) == (200, b"onetwo")
    (outcome,) = asgi.notes(key)
    assert outcome[0] == "raised", f"{case} was accepted"


def test_unknown_keys_are_ignored(asgi: Probe) -> None:
    assert asgi.ask("send_unknown_keys").body == b"ok"


def test_every_optional_key_may_be_left_out(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_minimal"))
        response = wire.read_response()
        assert (response.status, response.framing, response.body) == (200, "length", b"")
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


# Heads


def test_date_and_server_are_added_once_when_the_app_gave_none(asgi: Probe) -> None:
    response = asgi.ask("send_response", parts="ok")
    date = response.get("date")
    assert date is not None and IMF_FIXDATE.fullmatch(date)
    server = response.get("server")
    assert server is not None and server.lower().startswith(b"duckfast")


def test_date_and_server_of_the_app_win(asgi: Probe) -> None:
    response = asgi.ask("send_response", parts="ok", field="Date=Thu, 01 Jan 1970 00:00:00 GMT;Server=mine")
    assert response.get("date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.get("server") == b"mine"


def test_headers_keep_their_order_and_may_come_from_a_generator(asgi: Probe) -> None:
    response = asgi.ask("send_headers_from_generator")
    ours = [(name.lower(), value) for name, value in response.headers if name.lower().startswith(b"x-")]
    assert ours == [(b"x-first", b"1"), (b"x-second", b"2"), (b"x-first", b"3")]


def test_set_cookie_lines_stay_separate(asgi: Probe) -> None:
    response = asgi.ask("send_response", parts="ok", field="Set-Cookie=a=1;Set-Cookie=b=2")
    assert response.all("set-cookie") == [b"a=1", b"b=2"]


@pytest.mark.parametrize("status", [200, 201, 299, 400, 404, 418, 451, 500, 511, 599])
def test_status_line_has_three_digits_and_a_space_even_without_a_known_reason(asgi: Probe, status: int) -> None:
    response = asgi.ask("send_response", status=str(status), parts="ok")
    assert (response.status, response.version, response.body) == (status, b"HTTP/1.1", b"ok")


def test_head_does_not_leave_before_the_first_body_message(asgi: Probe, key: str) -> None:
    """The start may still be replaced by a 500, so an app that fails between the two gets one."""
    with asgi.connect() as wire:
        wire.send(asgi.request("start_only_then_gate", key))
        asgi.wait_for_notes(key, 1)
        asgi.open_gate(key)
        response = wire.read_response()
    assert response.status == 500
    assert response.all("x-started") == []


# Framing


def test_single_body_gets_a_content_length(asgi: Probe) -> None:
    response = asgi.ask("send_response", parts="hello")
    assert (response.framing, response.get("content-length"), response.body) == ("length", b"5", b"hello")


def test_streamed_body_is_chunked_on_http11_and_the_connection_goes_on(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts="one|two|three"))
        response = wire.read_response()
        assert (response.framing, response.body) == ("chunked", b"onetwothree")
        assert response.chunks == [b"one", b"two", b"three"]
        assert not response.closes
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_streamed_body_ends_with_the_connection_on_http10(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts="one|two|three", version="1.0", headers=[("Connection", "keep-alive")]))
        response = wire.read_response()
        assert (response.framing, response.body) == ("close", b"onetwothree")
        assert response.closes
        wire.expect_clean_end()


def test_body_of_known_length_keeps_an_http10_connection_that_asked(asgi: Probe) -> None:
    with asgi.connect() as wire:
        for _ in range(2):
            wire.send(asgi.request("send_response", parts="hello", version="1.0", headers=[("Connection", "Keep-Alive")]))
            response = wire.read_response()
            assert (response.framing, response.body) == ("length", b"hello")
            assert not response.closes, "a 1.0 client must be told that the connection persists"
        wire.send(asgi.request("send_response", parts="bye", version="1.0"))
        assert wire.read_response().closes
        wire.expect_clean_end()


def test_streamed_body_with_a_length_is_not_chunked(asgi: Probe) -> None:
    response = asgi.ask("send_response", parts="one|two", field="Content-Length=6")
    assert (response.framing, response.body) == ("length", b"onetwo")


def test_empty_pieces_never_end_a_chunked_body(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_empty_pieces"))
        response = wire.read_response()
        assert response.chunks == [b"one", b"two"]
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("coding", ["chunked", "gzip", "identity", "gzip, chunked"])
@pytest.mark.parametrize("body", ["hello", "hel|lo"])
def test_transfer_encoding_of_the_app_is_ignored(asgi: Probe, coding: str, body: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts=body, field=f"Transfer-Encoding={coding}"))
        response = wire.read_response()  # asserts that there is one framing only, and one the body obeys
        assert response.body == b"hello"
        assert response.all("transfer-encoding") in ([], [b"chunked"])
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("field", ["Connection=keep-alive", "Keep-Alive=timeout=9", "Upgrade=h2c", "Connection=upgrade"])
def test_hop_by_hop_fields_of_the_app_do_not_break_the_connection(asgi: Probe, field: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts="a|b", field=field))
        assert wire.read_response().body == b"ab"
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_connection_close_of_the_app_is_honoured(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts="ok", field="Connection=close"))
        assert wire.read_response().closes
        wire.expect_clean_end()


@pytest.mark.parametrize("fields", [[("Connection", "close")], [("Connection", "keep-alive, CLOSE")]])
def test_close_asked_by_the_client_is_confirmed_and_done(asgi: Probe, fields: list[tuple[str, str]]) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("echo", headers=fields) + asgi.request("echo"))
        assert wire.read_response().closes
        wire.expect_end()


@pytest.mark.parametrize("body", ["12345|67890", "1234567890", "1234|567890", "12345||67890"])
def test_more_than_content_length_never_leaves(asgi: Probe, key: str, body: str) -> None:
    close = [("Connection", "close")]
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", key, parts=body, field="Content-Length=5", headers=close))
        head = wire.read_head()
        rest = wire.read_rest()
    assert b"6" not in rest
    assert head.status == 500 or b"12345".startswith(rest)
    assert asgi.notes(key)[0] == "sent" or asgi.notes(key)[0][0] == "raised"


@pytest.mark.parametrize("body", ["123", "1|23", ""])
def test_less_than_content_length_breaks_the_connection(asgi: Probe, body: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", parts=body, field="Content-Length=5") + asgi.request("echo"))
        response = wire.read_broken_response()
        assert response.get("content-length") == b"5"
        assert response.body in (body.replace("|", "").encode(), b"1", b"")


@pytest.mark.parametrize("body, length", [("hello", b"5"), ("he|llo", None)])
def test_head_has_the_fields_of_get_and_no_body(asgi: Probe, body: str, length: bytes | None) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", method="HEAD", parts=body))
        response = wire.read_response("HEAD")
        assert response.get("content-length") == length
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_head_keeps_the_content_length_of_the_app(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", method="HEAD", parts="", field="Content-Length=1234"))
        assert wire.read_response("HEAD").get("content-length") == b"1234"
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


@pytest.mark.parametrize("field", ["", "Content-Length=5", "Transfer-Encoding=chunked"])
@pytest.mark.parametrize("body", ["", "hello", "he|llo"])
def test_204_has_neither_length_nor_body(asgi: Probe, body: str, field: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", status="204", parts=body, field=field))
        response = wire.read_response()
        assert response.status == 204
        assert response.all("content-length") == [] and response.all("transfer-encoding") == []
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


@pytest.mark.parametrize("field", ["", "Content-Length=5", 'ETag="a"'])
@pytest.mark.parametrize("body", ["", "hello", "he|llo"])
def test_304_has_no_body_but_may_have_a_length(asgi: Probe, body: str, field: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_response", status="304", parts=body, field=field))
        response = wire.read_response()
        assert response.status == 304
        assert response.all("transfer-encoding") == []
        if "Content-Length" in field:
            assert response.get("content-length") == b"5"
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_body_may_be_any_byte_type_and_is_copied_if_kept(asgi: Probe) -> None:
    assert asgi.ask("send_byte_types").body == b"bytes bytearray memoryview abc"


def test_large_body_is_safe_from_changes_after_send_returned(asgi: Probe) -> None:
    with asgi.connect(receive_buffer=4096) as wire:
        wire.send(asgi.request("send_mutated_large"))
        body = wire.read_response().body
    assert body == b"a" * 4_000_000 + b"b" * 4_000_000


# Time: flushing and back-pressure


def test_each_piece_is_flushed_while_the_app_waits(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("flush_each_piece", key))
        head = wire.read_head()
        assert (head.status, wire.read_chunk()) == (200, b"first")
        asgi.open_gate(key)
        assert (wire.read_chunk(), wire.read_chunk()) == (b"second", b"")


def test_send_waits_for_a_client_that_does_not_read(asgi: Probe, key: str) -> None:
    pieces = 4096  # of 64 KiB: 256 MiB, far beyond what kernel buffers take
    with asgi.connect(receive_buffer=8192) as wire:
        wire.send(asgi.request("send_until_blocked", key, pieces=str(pieces)))
        asgi.wait_for_notes(key, 1)
        stalled_at = asgi.wait_until_stalled(key)
        assert stalled_at * 65536 < 32 * 1024 * 1024
        head = wire.read_head()
        assert head.status == 200
        size = 0
        while chunk := wire.read_chunk():
            size += len(chunk)
        assert size == pieces * 65536
    assert asgi.wait_for_notes(key, 2) == [pieces, "finished"]


# Ends


def test_late_messages_are_ignored(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("send_late_messages", key))
        assert wire.read_response().body == b"done"
        assert asgi.wait_for_notes(key, 1) == ["ignored"]
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


@pytest.mark.parametrize("scenario", ["raise_before_start", "raise_after_start"])
def test_exception_before_anything_was_sent_is_a_500_without_details(asgi: Probe, scenario: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request(scenario))
        response = wire.read_response()
    assert response.status == 500
    assert response.all("x-started") == []
    assert b"secret" not in response.body and b"Traceback" not in response.body
    assert response.get("date") is not None
    asgi.server.wait_for_stderr("secret-" + scenario.removeprefix("raise_").replace("_", "-"))
    assert "Traceback (most recent call last)" in asgi.server.stderr_text()


@pytest.mark.parametrize("length", ["", "1000"])
def test_exception_inside_the_body_is_a_visible_break(asgi: Probe, length: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("raise_in_body", **({"length": length} if length else {})) + asgi.request("echo"))
        response = wire.read_broken_response()
    assert (response.status, response.body) == (200, b"some of it")
    asgi.server.wait_for_stderr("secret-in-body")


def test_exception_after_the_response_is_logged_and_harms_nobody(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("raise_after_response"))
        assert literal(wire.read_response()) == "complete"
    asgi.server.wait_for_stderr("secret-after-response")
    assert asgi.ask("echo").status == 200


@pytest.mark.parametrize("scenario", ["return_without_start", "return_after_start"])
def test_app_that_returns_without_a_body_is_a_500(asgi: Probe, scenario: str) -> None:
    assert asgi.ask(scenario).status == 500


def test_app_that_returns_inside_the_body_breaks_the_connection(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("return_in_body"))
        assert wire.read_broken_response().body == b"some of it"


def test_app_that_returns_a_value_is_served(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("non_none_return"))
        assert literal(wire.read_response()) == "ok"
    assert asgi.ask("echo").status == 200


# Clients that leave


def test_send_after_the_client_left_raises_an_oserror_of_our_own(asgi: Probe, key: str) -> None:
    wire = asgi.connect()
    wire.send(asgi.request("send_until_disconnected", key))
    asgi.wait_for_notes(key, 1)
    wire.reset()
    last = asgi.wait_for_notes(key, lambda notes: notes[-1] != "streaming")[-1]
    assert last == ("OSError", True, False)


def test_send_after_a_told_disconnect_raises_too(asgi: Probe, key: str) -> None:
    wire = asgi.connect()
    wire.send(asgi.request("send_quietly_after_disconnect", key))
    assert wire.read_head().status == 200
    wire.reset()
    assert asgi.wait_for_notes(key, 1) == [("OSError", "ClientDisconnected")]


def test_start_after_a_told_disconnect_raises_too(asgi: Probe, key: str) -> None:
    wire = asgi.connect()
    wire.send(asgi.request("start_after_disconnect", key))
    asgi.wait_for_notes(key, 1)
    wire.reset()
    assert asgi.wait_for_notes(key, 2)[1] == ("OSError", "ClientDisconnected")


def test_disconnect_that_escapes_the_app_is_not_logged(start_asgi: StartProbe, key: str) -> None:
    probe = start_asgi()
    for scenario in ("send_until_disconnected", "send_quietly_after_disconnect"):
        wire = probe.connect()
        wire.send(probe.request(scenario, key + scenario, leak="1"))
        assert wire.read_head().status == 200
        wire.reset()
        probe.wait_for_notes(key + scenario, lambda notes: bool(notes) and notes[-1][0] == "OSError")
    probe.ask("raise_before_start")
    probe.server.wait_for_stderr("secret-before-start")
    log = probe.server.stderr_text()
    assert log.count("Traceback") == 1
    assert "ClientDisconnected" not in log


def test_no_raise_on_disconnect_makes_send_silent(start_asgi: StartProbe, key: str) -> None:
    probe = start_asgi("--no-raise-on-disconnect")
    for scenario, waiting in (("send_quietly_after_disconnect", False), ("start_after_disconnect", True)):
        wire = probe.connect()
        wire.send(probe.request(scenario, key + scenario))
        if waiting:
            probe.wait_for_notes(key + scenario, 1)
        else:
            assert wire.read_head().status == 200
        wire.reset()
        assert probe.wait_for_notes(key + scenario, 1 + waiting)[-1] == "silent"


def test_half_closed_client_gets_its_answer(asgi: Probe, key: str) -> None:
    """RFC 9112 9.6: a client may close its sending side and wait."""
    with asgi.connect() as wire:
        wire.send(asgi.request("wait_at_gate", key))
        wire.half_close()
        asgi.wait_for_notes(key, 1)
        asgi.open_gate(key)
        assert literal(wire.read_response()) == "first"
        wire.expect_clean_end()
