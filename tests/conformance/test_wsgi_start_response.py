"""PEP 3333, start_response(): its rules, exc_info, write(), and when the head leaves."""

from __future__ import annotations

import pytest
from support.probe import Probe, literal

BAD_STARTS = [
    "status is an int",
    "status is bytes",
    "status is empty",
    "status without digits",
    "status with two digits",
    "status with four digits",
    "status below 200",
    "status with CRLF",
    "status with LF",
    "status with NUL",
    "status beyond latin-1",
    "headers is None",
    "headers is a dict",
    "header is not a pair",
    "header name is bytes",
    "header value is bytes",
    "header value is an int",
    "header value is None",
    "CRLF in a value",
    "LF in a value",
    "CR in a value",
    "NUL in a value",
    "value beyond latin-1",
    "CRLF in a name",
    "space in a name",
    "colon in a name",
    "empty name",
    "name beyond ascii",
    "length is no number",
    "length is negative",
    "length has a sign",
    "two lengths",
]


@pytest.mark.parametrize("case", BAD_STARTS)
def test_bad_start_raises_out_of_start_response_and_the_app_can_still_answer(wsgi: Probe, key: str, case: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("bad_start", key, case=case))
        response = wire.read_response()
        assert wsgi.notes(key)[0][0] == "raised", f"{case} was accepted"
        assert (response.status, literal(response)) == (200, "recovered")
        assert response.all("x-evil") == []
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("case", ["status is an int", "CRLF in a value", "headers is None"])
def test_bad_start_that_the_app_does_not_catch_is_a_500(wsgi: Probe, case: str) -> None:
    response = wsgi.ask("leak_bad_start", case=case)
    assert response.status == 500
    assert b"evil" not in response.body.lower() and b"Traceback" not in response.body


@pytest.mark.parametrize("name", ["Transfer-Encoding", "Keep-Alive", "Upgrade", "TE"])
def test_hop_by_hop_fields_of_the_app_never_reach_the_wire(wsgi: Probe, name: str) -> None:
    """They are the server's to say; the app's would frame the body twice or promise what nobody keeps."""
    with wsgi.connect() as wire:
        wire.send(wsgi.request("bad_start", case=f"hop-by-hop {name}"))
        response = wire.read_response()
        assert (response.status, response.framing, response.all(name)) == (200, "length", [])
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_second_start_without_exc_info_is_an_assertion_error(wsgi: Probe, key: str) -> None:
    response = wsgi.ask("start_twice", key)
    assert (response.status, response.body) == (200, b"first")
    assert (response.all("x-first"), response.all("x-second")) == ([b"yes"], [])
    (outcome,) = wsgi.notes(key)
    assert outcome[0] == "raised" and "AssertionError" in outcome[2]


@pytest.mark.parametrize("scenario", ["replace_start", "replace_start_in_iteration"])
def test_exc_info_before_the_head_left_replaces_status_and_headers(wsgi: Probe, scenario: str) -> None:
    response = wsgi.ask(scenario)
    assert (response.status, response.reason, response.body) == (503, b"Sorry", b"sorry")
    assert (response.all("x-first"), response.all("x-second")) == ([], [b"yes"])
    assert response.all("content-length") in ([], [b"5"])


def test_exc_info_after_the_head_left_re_raises_and_breaks_the_response(wsgi: Probe, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("replace_too_late", key))
        response = wire.read_broken_response()
        assert (response.status, response.body) == (200, b"some of it")
    assert wsgi.wait_for_notes(key) == [("re-raised", "secret-too-late")]


def test_first_start_may_have_exc_info(wsgi: Probe) -> None:
    response = wsgi.ask("first_start_with_exc_info")
    assert (response.status, response.body) == (503, b"sorry")


def test_exc_info_may_be_none(wsgi: Probe) -> None:
    assert wsgi.ask("start_with_keywords").body == b"ok"


def test_start_may_be_called_in_the_first_step_of_the_iteration(wsgi: Probe) -> None:
    response = wsgi.ask("start_in_generator")
    assert (response.status, response.reason, response.body) == (202, b"Lazily", b"onetwo")


def test_headers_list_may_be_reused_after_start(wsgi: Probe) -> None:
    """The PEP lets the server change the list; a change by the app after the call has no meaning either way."""
    response = wsgi.ask("change_headers_after_start")
    assert (response.status, response.body) == (200, b"ok")


@pytest.mark.parametrize("scenario", ["never_start", "never_start_empty"])
def test_app_that_never_starts_is_a_500(wsgi: Probe, scenario: str) -> None:
    response = wsgi.ask(scenario)
    assert response.status == 500
    assert b"no head" not in response.body


@pytest.mark.parametrize("status", ["200 OK", "200 All right then", "418 I'm a teapot", "299 x", "599 caf\xe9", "404 "])
def test_reason_of_the_app_is_kept(wsgi: Probe, status: str) -> None:
    response = wsgi.ask("send_response", status=status.encode("latin-1"), parts="ok")
    code, _, reason = status.partition(" ")
    assert (response.status, response.reason) == (int(code), reason.strip().encode("latin-1"))
    assert response.body == b"ok"


def test_date_and_server_are_added_once_when_the_app_gave_none(wsgi: Probe) -> None:
    response = wsgi.ask("send_response", parts="ok")
    date = response.get("date")
    assert date is not None and date.endswith(b" GMT")
    server = response.get("server")
    assert server is not None and server.lower().startswith(b"duckfast")


def test_date_and_server_of_the_app_win(wsgi: Probe) -> None:
    response = wsgi.ask("send_response", parts="ok", field="DATE=Thu, 01 Jan 1970 00:00:00 GMT;server=mine")
    assert response.get("date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert response.get("server") == b"mine"


def test_headers_keep_order_case_and_duplicates(wsgi: Probe) -> None:
    response = wsgi.ask("send_response", parts="ok", field="X-A=1;Set-Cookie=a=1;x-b=2;Set-Cookie=b=2;X-a=3")
    ours = [pair for pair in response.headers if pair[0].lower() in (b"x-a", b"x-b", b"set-cookie")]
    assert ours == [(b"X-A", b"1"), (b"Set-Cookie", b"a=1"), (b"x-b", b"2"), (b"Set-Cookie", b"b=2"), (b"X-a", b"3")]


def test_header_values_leave_as_latin1(wsgi: Probe) -> None:
    field = "X-A=caf\xe9 \xff".encode("latin-1")
    assert wsgi.ask("send_response", parts="ok", field=field).get("x-a") == b"caf\xe9 \xff"


# write()


def test_write_comes_before_the_iterable(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("use_write"))
        response = wire.read_response()
        assert (response.framing, response.body) == ("chunked", b"written twice and returned")
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


def test_write_obeys_content_length(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("use_write_with_length"))
        response = wire.read_response()
        assert (response.framing, response.body) == ("length", b"written")
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


def test_write_of_a_str_is_refused(wsgi: Probe, key: str) -> None:
    assert wsgi.ask("write_str", key).body == b"ok"
    assert wsgi.notes(key)[0][0] == "raised"


def test_write_has_transmitted_when_it_returns(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(probe.request("write_then_wait", key))
        assert wire.read_head().status == 200
        assert wire.read_chunk() == b"first"
        probe.open_gate(key)
        assert (wire.read_chunk(), wire.read_chunk()) == (b"second", b"")


# Early hints


def test_early_hints_are_a_103_before_the_response(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(probe.request("early_hints", key, gate="1"))
        status, fields = wire.read_interim()
        assert (status, [value for _, value in fields]) == (103, [b"</a.css>; rel=preload", b"</b.js>; rel=preload"])
        probe.open_gate(key)
        response = wire.read_response()
        assert (response.interim, literal(response)) == ([], "ok")


def test_early_hints_are_not_sent_to_an_http10_client(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("early_hints", version="1.0"))
        response = wire.read_response()
        assert (response.interim, literal(response)) == ([], "ok")


def test_early_hints_that_would_split_the_response_are_refused(wsgi: Probe, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("evil_early_hints", key))
        response = wire.read_response()
        assert (response.interim, literal(response)) == ([], "ok")
    assert wsgi.notes(key)[0][0] == "raised"
