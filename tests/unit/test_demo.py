"""demo.py: the built-in application, called as a server calls it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from wsgiref.validate import validator

import pytest

from duckfast import __version__, demo

Answer = tuple[int, dict[str, str], bytes]
Ask = Callable[..., Answer]


def ask_asgi(
    path: str = "/", *, query: str = "", headers: dict[str, str] | None = None, body: bytes = b"", root: str = ""
) -> Answer:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "POST" if body else "GET",
        "scheme": "http",
        "path": root + path,
        "raw_path": (root + path).encode("utf-8", "surrogateescape"),
        "query_string": query.encode(),
        "root_path": root,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ["127.0.0.1", 40000],
        "server": ["127.0.0.1", 8000],
    }
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]
    incoming = [{"type": "http.request", "body": halves[0], "more_body": True}, {"type": "http.request", "body": halves[1]}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(demo.asgi(scope, receive, send))
    start, *parts = sent
    assert all(part.get("more_body") for part in parts[:-1])
    assert not parts[-1].get("more_body")
    fields = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return start["status"], fields, b"".join(part["body"] for part in parts)


def ask_wsgi(
    path: str = "/", *, query: str = "", headers: dict[str, str] | None = None, body: bytes = b"", root: str = ""
) -> Answer:
    environ = {
        "REQUEST_METHOD": "POST" if body else "GET",
        "SCRIPT_NAME": root,
        "PATH_INFO": path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in (headers or {}).items()}
    started: list[Any] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.append((int(status[:3]), {name.lower(): value for name, value in fields}))
        return lambda data: None

    iterable = validator(demo.wsgi)(environ, start_response)
    try:
        content = b"".join(iterable)
    finally:
        iterable.close()  # type: ignore[attr-defined]
    return (*started[0], content)


@pytest.fixture(params=[ask_asgi, ask_wsgi], ids=["asgi", "wsgi"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param  # type: ignore[no-any-return]


BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Host": "127.0.0.1:8000"}


class Outline(HTMLParser):
    """Tags that were opened and whether each was closed, and everything that a page would fetch from elsewhere."""

    VOID = {"meta", "link"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(document: bytes) -> Outline:
    parsed = Outline()
    parsed.feed(document.decode())
    parsed.close()
    assert parsed.open == []
    return parsed


def test_browser_gets_a_page_that_shows_its_request(ask: Ask) -> None:
    status, fields, body = ask("/", query="a=1&b=2", headers={**BROWSER, "X-Duck": "quack"})
    assert status == 200
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["content-length"] == str(len(body))
    for expected in ("GET", "?a=1&amp;b=2", "HTTP/1.1", "x-duck", "quack", "127.0.0.1 port 40000", f"duckfast {__version__}"):
        assert expected in body.decode()
    outline(body)


def test_page_needs_nothing_from_elsewhere(ask: Ask) -> None:
    parsed = outline(ask("/", headers=BROWSER)[2])
    assert [target for target in parsed.fetched if not target.startswith(("data:", "/"))] == []


def test_page_runs_only_its_own_script(ask: Ask) -> None:
    policy = ask("/", headers=BROWSER)[1]["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


HOSTILE = "<script>alert('quack')</script>\"&"


def test_everything_of_the_request_is_escaped(ask: Ask) -> None:
    # The target itself is refused by the server's parser long before it could look like this.
    for path in ("/", f"/{HOSTILE}"):
        body = ask(path, query=HOSTILE, headers={**BROWSER, "X-Duck": HOSTILE, "Host": HOSTILE}, root="/a\"b")[2]
        assert b"<script>alert" not in body
        assert b'data-prefix="/a&quot;b"' in body
        outline(body)


def test_curl_gets_text(ask: Ask) -> None:
    status, fields, body = ask("/", query="a=<1>", headers={"Accept": "*/*", "Host": "duck"})
    assert (status, fields["content-type"]) == (200, "text/plain; charset=utf-8")
    assert "GET /?a=<1> HTTP/1.1" in body.decode()
    assert "host: duck" in body.decode()
    assert ask("/")[1]["content-type"] == "text/plain; charset=utf-8"


def test_page_says_which_interface_served_it() -> None:
    assert "interface  ASGI" in ask_asgi("/")[2].decode()
    assert "loop       asyncio" in ask_asgi("/")[2].decode()
    assert "interface  WSGI" in ask_wsgi("/")[2].decode()


def test_prefix_is_shown_and_not_part_of_the_path(ask: Ask) -> None:
    body = ask("/", headers=BROWSER, root="/mounted")[2].decode()
    assert 'data-prefix="/mounted"' in body
    assert "/mounted/" in body


def test_counters_are_json(ask: Ask) -> None:
    status, fields, body = ask("/counters")
    assert (status, fields["content-type"]) == (200, "application/json")
    assert "requests" in json.loads(body)


def test_echo_returns_the_body(ask: Ask) -> None:
    status, fields, body = ask("/echo", body=bytes(range(256)) * 1000)
    assert status == 200
    assert fields["content-type"] == "application/octet-stream"
    assert "content-length" not in fields
    assert body == bytes(range(256)) * 1000
    assert ask("/echo")[2] == b""


def test_stream_sends_its_lines(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STREAM_PAUSE", 0)
    status, fields, body = ask("/stream")
    assert status == 200
    assert "content-length" not in fields
    assert len(body.splitlines()) == demo.STREAM_LINES


def test_unknown_path_is_not_found(ask: Ask) -> None:
    status, fields, body = ask("/nowhere", headers=BROWSER)
    assert (status, fields["content-type"]) == (404, "text/html; charset=utf-8")
    outline(body)
    assert ask("/nowhere")[::2] == (404, b"nothing at /nowhere; there is / /counters /echo /stream\n")


def test_path_that_is_not_unicode_is_shown_escaped(ask: Ask) -> None:
    assert ask("/\udcff")[0] == 404
    assert b"\\udcff" in ask("/\udcff", headers=BROWSER)[2]


def test_asgi2_variant_answers_like_asgi() -> None:
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "lifespan.shutdown" if sent else "lifespan.startup"}

    asyncio.run(demo.asgi2({"type": "lifespan"})(receive, send))  # type: ignore[arg-type]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
