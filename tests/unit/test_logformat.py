"""logformat.py and _logformat: access log formats, from their text to the bytes of a line."""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any

import pytest

from duckfast._logformat import LogFormat
from duckfast.logformat import ATOMS, NAMED, FormatError, parse

REQUEST = (
    b"POST /a%20b/c?x=1&y HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/8\r\nReferer: http://r/\r\n"
    b"X-Request-ID: 5f-1.a\r\nX-Own: mine\r\nx-own: second\r\n\r\n"
)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Took:  3 ms\r\nEmpty:\r\nContent-Length: 13\r\n\r\n"
CLF = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def line(text: str, request: bytes = REQUEST, *, id_field: str = "X-Request-ID", **facts: Any) -> str:
    written = LogFormat(parse(text), id_field).line(request, **facts)
    assert written is not None and written.endswith(b"\n") and written.count(b"\n") == 1
    return written[:-1].decode("utf-8")


def test_common_is_the_common_log_format_with_the_duration() -> None:
    written = line("common", sent=13, duration=1_234_567_890)
    assert re.fullmatch(f'127\\.0\\.0\\.1 - - {CLF} "POST /a%20b/c\\?x=1&y HTTP/1\\.1" 200 13 1\\.234567', written)


def test_combined_has_referer_and_user_agent() -> None:
    assert re.fullmatch(
        f'::1 - - {CLF} "POST /a%20b/c\\?x=1&y HTTP/1\\.1" 404 0 "http://r/" "curl/8"',
        line("combined", client=b"::1", status=404),
    )


def test_json_is_one_object_with_everything() -> None:
    found = json.loads(line("json", sent=13, received=7, duration=1_500))
    assert re.fullmatch(RFC_3339, found.pop("time"))
    assert found == {
        "client": "127.0.0.1", "method": "POST", "path": "/a%20b/c", "query": "x=1&y", "protocol": "HTTP/1.1", "status": 200,
        "bytes_sent": 13, "bytes_received": 7, "duration": 0.000001, "host": "example.org", "referer": "http://r/",
        "user_agent": "curl/8", "request_id": "5f-1.a",
    }  # fmt: skip


def test_json_says_null_for_what_is_not_there() -> None:
    found = json.loads(line("json", b"GET / HTTP/1.0\r\n\r\n", client=b""))
    assert [name for name, value in found.items() if value is None] == ["client", "host", "referer", "user_agent", "request_id"]
    assert found["query"] == ""


@pytest.mark.parametrize(
    ("atom", "expected"),
    [
        ("%(h)s", "127.0.0.1"), ("%(l)s", "-"), ("%(u)s", "-"), ("%(r)s", "POST /a%20b/c?x=1&y HTTP/1.1"), ("%(m)s", "POST"),
        ("%(U)s", "/a%20b/c"), ("%(q)s", "x=1&y"), ("%(H)s", "HTTP/1.1"), ("%(s)s", "200"), ("%(st)s", "OK"), ("%(b)s", "-"),
        ("%(B)s", "0"), ("%(f)s", "http://r/"), ("%(a)s", "curl/8"), ("%(T)s", "12"), ("%(M)s", "12345"), ("%(D)s", "12345678"),
        ("%(L)s", "12.345678"), ("%(p)s", f"<{os.getpid()}>"), ("%(pid)s", str(os.getpid())), ("%({x-own}i)s", "mine"),
        ("%({X-OWN}i)s", "mine"), ("%({absent}i)s", "-"), ("%({content-type}o)s", "text/plain"), ("%({X-Took}o)s", "3 ms"),
        ("%({Empty}o)s", "-"), ("%({x-own}o)s", "-"), ("%({HTTP_X_OWN}e)s", "mine"), ("%({REMOTE_ADDR}e)s", "127.0.0.1"),
        ("%({wsgi.url_scheme}e)s", "http"), ("%(S)s", "http"), ("%(R)s", "POST /a%20b/c HTTP/1.1"), ("%(addr)s", "127.0.0.1"),
        ("%(dt_ms).3f", "12345.678"), ("%(dt_ms).1f", "12345.6"), ("%(dt_ms)d", "12345"), ("%(status)d", "200"),
        ("%(L)f", "12.345678"), ("%(D)f", "12345678.901"), ("%(path)s?%(query)s", "/a%20b/c?x=1&y"), ("100%% %(s)s", "100% 200"),
        ("%(U)j %(s)j %(l)j %(b)j", '"/a%20b/c" 200 "-" 0'), ("%(R)j", '"POST /a%20b/c HTTP/1.1"'), ("é %(s)s", "é 200"),
        ("%(request_id)s", "5f-1.a"), ("%({host}i)s", "example.org"), ("%(status_code)s %(status_phrase)s", "200 OK"),
        ("%(received)s", "9"), ("%(query_string)s", "x=1&y"), ("%(h)s %(h)s", "127.0.0.1 127.0.0.1"),
    ],
)  # fmt: skip
def test_atom_is_written_as_elsewhere(atom: str, expected: str) -> None:
    assert line(atom, response=RESPONSE, duration=12_345_678_901, received=9) == expected


def test_times_are_local_in_the_common_format_and_utc_in_ours() -> None:
    assert re.fullmatch(f'{CLF} {RFC_3339} "{RFC_3339}"', line("%(t)s %(time)s %(time)j"))


def test_every_atom_can_be_written_as_text_and_as_json() -> None:
    for name in ATOMS:
        assert line(f"<%({name})s>", response=RESPONSE).startswith("<")
        json.loads(line(f"[%({name})j]", response=RESPONSE))


def test_user_is_that_of_basic_credentials_without_the_password() -> None:
    def user(credentials: str) -> str:
        return line("%(u)s", b"GET / HTTP/1.0\r\nAuthorization: " + credentials.encode() + b"\r\n\r\n")

    assert user("Basic " + base64.b64encode(b"alice:secret").decode()) == "alice"
    assert user("basic " + base64.b64encode(b'a"\n:secret').decode()) == r"a\x22\x0a"
    for none in ("Bearer abc", "Basic", "Basic !!!", "Basic YWxpY2U=", "Basic " + base64.b64encode(b"a" * 500 + b":").decode()):
        assert user(none) == "-"


@pytest.mark.parametrize("text", ["%(a)s", "%({user-agent}i)s"])
def test_text_is_escaped_and_stays_on_its_line(text: str) -> None:
    request = b'GET / HTTP/1.0\r\nUser-Agent: a"b\\c\td\x80\xc3\xa9\xe2\x80\xa8 plain enough to be copied\r\n\r\n'
    assert line(text, request) == r"a\x22b\x5cc\x09d\x80\xc3\xa9\xe2\x80\xa8 plain enough to be copied"


def test_json_strings_are_ascii_and_read_back() -> None:
    agent = 'a"b\\c\td\x85é\u2028🦆, and \x80 (C1) plain'
    request = b"GET / HTTP/1.0\r\nUser-Agent: " + agent.encode() + b"\r\n\r\n"
    written = line('{"ua":%(a)j}', request)
    assert written.isascii() and written.isprintable()
    assert json.loads(written) == {"ua": agent}


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b"\xff", "�"), (b"\xc3", "�"), (b"\xc3(", "�("), (b"\xc0\xaf", "��"), (b"\xed\xa0\x80", "���"),
        (b"\xf4\x90\x80\x80", "����"), (b"\xf0\x9f\xa6", "���"),
        (b"\xe2\x28\xa1", "�(�"), (b"\xef\xbf\xbf", "\uffff"), (b"\xf4\x8f\xbf\xbf", "\U0010ffff"),
    ],
)  # fmt: skip
def test_what_is_no_utf8_reads_as_replacement_characters(raw: bytes, read: str) -> None:
    assert json.loads(line("[%(a)j]", b"GET / HTTP/1.0\r\nUser-Agent: " + raw + b"\r\n\r\n")) == [read]


def test_request_id_is_a_short_token_or_none() -> None:
    def request_id(value: bytes) -> str:
        return line("%(request_id)s", b"GET / HTTP/1.0\r\nX-Request-ID: " + value + b"\r\n\r\n")

    assert request_id(b"a" * 128) == "a" * 128
    for refused in (b"a" * 129, b"a b", b'a"b', b"a,b", b"", b"\xc3\xa9"):
        assert request_id(refused) == "-"
    assert line("%(request_id)s", id_field="") == "-"
    assert line("%(request_id)s", id_field="X-Own") == "mine"


def test_names_with_an_underscore_are_other_fields() -> None:
    assert line("%({x-own}i)s", b"GET / HTTP/1.0\r\nX_Own: forged\r\n\r\n") == "-"


def test_host_is_that_of_an_absolute_target() -> None:
    request = b"GET http://other:81?q HTTP/1.1\r\nHost: example.org\r\n\r\n"
    found = json.loads(line("json", request))
    assert (found["host"], found["path"], found["query"]) == ("other:81", "/", "q")


@pytest.mark.parametrize(
    ("raw", "shown", "words"),
    [
        (b"", "-", (None, None, "", None)),
        (b"\x16\x03\x01\x02", r"\x16\x03\x01\x02", (None, None, "", None)),
        (b"GET", "GET", ("GET", None, "", None)),
        (b"GET /a?b=\x1b[2J HTTP/1.1\r\nX\x00: y", r"GET /a?b=\x1b[2J HTTP/1.1", ("GET", "/a", "b=\x1b[2J", "HTTP/1.1")),
        (b"GET /a b HTTP/1.1\r\n", "GET /a b HTTP/1.1", ("GET", "/a", "", None)),
        (b"G\xc3\xa9T / HTTP/1.1\n", r"G\xc3\xa9T / HTTP/1.1", (None, None, "", None)),
        (b"GET /\rX: y HTTP/1.1\n", r"GET /\x0dX: y HTTP/1.1", ("GET", "/\rX:", "", None)),
        (b"A" * 5000, "A" * 1024, ("A" * 1024, None, "", None)),
    ],
)
def test_refused_request_shows_its_first_line(raw: bytes, shown: str, words: tuple[str | None, ...]) -> None:
    assert line("%(r)s", raw, refused=True) == shown
    found = json.loads(line("json", raw, refused=True, status=400))
    assert (found["method"], found["path"], found["query"], found["protocol"]) == words


def test_line_that_does_not_fit_is_not_begun() -> None:
    for text in (*NAMED, "%(a)s", "%(R)j", "x%(u)sy"):
        made = LogFormat(parse(text))
        whole = made.line(REQUEST)
        assert whole is not None
        for room in range(len(whole)):
            assert made.line(REQUEST, room=room) is None
        assert made.line(REQUEST, room=len(whole) + 4096)


def test_long_fields_are_written_whole() -> None:
    agent = b"x" * 8000
    assert line("%(a)s", b"GET / HTTP/1.0\r\nUser-Agent: " + agent + b"\r\n\r\n") == agent.decode()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jsn", "did you mean 'json'?"),
        ("nothing like it", "it is common, combined, json or a template"),
        ("", "it is common, combined, json or a template"),
        ("%(addres)s", "did you mean %(addr)s?"),
        ("%(user_agnt)s", "did you mean %(user_agent)s?"),
        ("%(zzzz)s", "docs/logging.md lists the atoms"),
        ("%(h)d", "%(h)d is no number: write %(h)s"),
        ("%(s)f", "is no number"),
        ("%(L).3s", "decimals are for the letter f"),
        ("%(h)s 100%", "is no atom: write %(name)s"),
        ("%(h)10s", "is no atom: write %(name)s"),
        ("%(h)", "is no atom: write %(name)s"),
        ("%({a b}i)s", "is not the name of a header field"),
        ("%({}i)s", "is not the name of a header field"),
        ("%({FOO}e)s", "of the WSGI environ, what comes from the request can be logged"),
        ("%(h)s\n%(s)s", "one line of printable characters"),
        ("\x1b%(h)s", "one line of printable characters"),
        (" ".join(f"%({{x{number}}}i)s" for number in range(40)), "names 40 header fields; 32 are the most"),
        ("%(t)s" * 9, "the time more than 8 times"),
    ],
)
def test_wrong_format_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(FormatError, match=re.escape(complaint)):
        parse(text)


def test_a_format_holds_as_many_fields_as_are_allowed() -> None:
    text = " ".join(f"%({{x{number}}}{'io'[number % 2]})s" for number in range(32))
    assert LogFormat(parse(text + " %(u)s %(request_id)s"), "X-Own", True).line(REQUEST, response=RESPONSE)
