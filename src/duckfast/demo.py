"""The built-in demo application: one page that shows the request it received, as WSGI and as ASGI.

Owns the page, /counters, /echo and /stream; refuses to know settings and engines: it is an application like any other.
Everything that comes from the request is escaped, and the policy header lets no foreign script run.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import platform
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from string import Template
from typing import Any

from . import __version__

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
StartResponse = Callable[..., Any]

TITLE = f"duckfast {__version__}"
STREAM_LINES = 5
STREAM_PAUSE = 0.1  # seconds between the lines of /stream: a person sees them arrive one by one
ECHO_CHUNK = 64 * 1024  # bytes read at a time by the WSGI /echo


@dataclass(frozen=True)
class Request:
    """What both interfaces know of a request."""

    method: str
    path: str
    query: str
    prefix: str  # where a proxy has mounted us, without a slash at the end
    protocol: str  # HTTP/1.1
    scheme: str
    client: str
    headers: list[tuple[str, str]]
    server_rows: list[tuple[str, str]]  # what serves it: interface, loop or thread

    @property
    def wants_html(self) -> bool:
        return any("text/html" in value for name, value in self.headers if name.lower() == "accept")


@dataclass(frozen=True)
class Page:
    status: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def fields(self) -> list[tuple[str, str]]:
        return [("Content-Type", self.content_type), ("Content-Length", str(len(self.body))), *self.headers]


# /echo and /stream have no length of their own, so the server chunks them. Whatever was sent to /echo comes back as
# plain bytes, or another site could make this one answer with its script.
ECHO_FIELDS = [("Content-Type", "application/octet-stream"), ("X-Content-Type-Options", "nosniff")]
STREAM_FIELDS = [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]

STYLE = """
:root { color-scheme: light dark; --ground: #f6f5f1; --card: #fff; --ink: #22262b; --faint: #646a73; --line: #e3e0d8;
  --accent: #a85504 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15171a; --card: #1e2126; --ink: #e6e4df; --faint: #9aa0a8; --line: #2e3238; --accent: #ffc145 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
header { display: flex; align-items: center; gap: 1.1rem; margin-bottom: 2rem }
header svg { width: 4.5rem; height: 4.5rem; flex: none }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.02em }
h1 small { color: var(--accent); font-size: .6em; font-weight: 600; margin-left: .3em }
header p { margin: .2rem 0 0; color: var(--faint) }
h2 { margin: 0 0 .8rem; font-size: .8rem; text-transform: uppercase; letter-spacing: .08em; color: var(--faint) }
section { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 1.3rem 1.5rem;
  margin-bottom: 1.2rem }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 0 1.2rem }
code, td, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .86rem }
table { width: 100%; border-collapse: collapse }
th { text-align: left; font-weight: 500; color: var(--faint); font-size: .86rem; width: 32%; padding-right: 1rem }
th, td { padding: .34rem 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere }
tr:first-child > * { border-top: 0 }
.line { font-size: 1.05rem; font-weight: 600; margin: 0 0 1rem; overflow-wrap: anywhere }
.line b { color: var(--accent) }
#counters { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1.2rem; margin: 0 }
#counters div { border-left: 3px solid var(--line); padding-left: .7rem }
#counters div.moved { border-color: var(--accent) }
#counters dt { color: var(--faint); font-size: .78rem }
#counters dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums }
pre { margin: 0; overflow-x: auto; color: var(--ink) }
pre i { color: var(--faint); font-style: normal }
"""

SCRIPT = """
const board = document.getElementById("counters");
const state = document.getElementById("state");
let last = {};
function show(name, value) {
  let tile = document.getElementById("counter-" + name);
  if (!tile) {
    tile = document.createElement("div");
    tile.id = "counter-" + name;
    tile.append(document.createElement("dt"), document.createElement("dd"));
    tile.firstChild.textContent = name.replaceAll("_", " ");
    board.append(tile);
  }
  tile.lastChild.textContent = value.toLocaleString();
  tile.className = name in last && last[name] !== value ? "moved" : "";
}
async function refresh() {
  try {
    const answer = await fetch(document.body.dataset.prefix + "/counters", {cache: "no-store"});
    const counters = await answer.json();
    for (const [name, value] of Object.entries(counters)) show(name, value);
    last = counters;
    state.textContent = "";
  } catch (error) {
    state.textContent = "(the server does not answer)";
  }
  setTimeout(refresh, 1000);
}
refresh();
"""

DUCK = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" aria-hidden="true">'
    '<path fill="#ffc145" d="M8 37c4 3 9 3 14 1 4-2 6-4 6-8-4-3-6-7-5-12C24 11 30 6 37 6c8 0 14 6 14 13 0 5-2 8-5 11 6 3 '
    '10 8 10 14 0 9-8 14-22 14C18 58 8 50 8 37z"/><path fill="#f08a24" d="M50 16c5-1 9 0 11 2-2 4-6 6-11 5z"/>'
    '<circle cx="42" cy="16" r="2.6" fill="#22262b"/>'
    '<path fill="none" stroke="#d99413" stroke-width="2.6" stroke-linecap="round" d="M24 41c3 6 12 8 19 3"/></svg>'
)

DOCUMENT = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="data:image/svg+xml;base64,$icon">
<style>$style</style>
<body data-prefix="$prefix">
$content
</body>
</html>
""")

CONTENT = Template("""<header>$duck<div><h1>It works. <small>$title</small></h1>
<p>This page is the demo application. Serve your own with <code>duckfast module:app</code>.</p></div></header>
<section><h2>Request</h2><p class="line"><b>$method</b> $target $protocol</p><table>$headers</table></section>
<div class="pair">
<section><h2>Connection</h2><table>$connection</table></section>
<section><h2>Server</h2><table>$server</table></section>
</div>
<section><h2>Counters of this process <span id="state"></span></h2><dl id="counters"></dl>
<noscript>Without scripts: <a href="$prefix/counters">counters as JSON</a>.</noscript></section>
<section><h2>Try</h2><pre>curl $base/ <i># this page as text</i>
curl $base/counters <i># the counters as JSON</i>
curl --data 'quack' $base/echo <i># your body comes back</i>
curl --no-buffer $base/stream <i># a chunked answer, line by line</i></pre></section>
<script>$script</script>""")

NOT_FOUND = Template("""<header>$duck<div><h1>Not here. <small>404</small></h1>
<p>The demo application has nothing at <code>$target</code>.</p></div></header>
<section><h2>It has</h2><table><tr><th><a href="$prefix/">/</a></th><td>this request, as received</td></tr>
<tr><th><a href="$prefix/counters">/counters</a></th><td>live counters as JSON</td></tr>
<tr><th>/echo</th><td>the request body comes back</td></tr>
<tr><th><a href="$prefix/stream">/stream</a></th><td>a chunked answer</td></tr></table></section>""")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


HTML_FIELDS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept"),
)


def answer(request: Request) -> Page:
    """The answer to everything but /echo and /stream."""
    if request.path == "/":
        return _html(request, CONTENT) if request.wants_html else _text("200 OK", _plain(request))
    if request.path == "/counters":
        from ._limits import totals

        return Page("200 OK", "application/json", json.dumps(totals()).encode(), (("Cache-Control", "no-store"),))
    if request.wants_html:
        return _html(request, NOT_FOUND, "404 Not Found")
    return _text("404 Not Found", f"nothing at {request.path}; there is / /counters /echo /stream\n")


def _html(request: Request, content: Template, status: str = "200 OK") -> Page:
    target = request.prefix + request.path + ("?" + request.query if request.query else "")
    host = next((value for name, value in request.headers if name.lower() == "host"), "localhost")
    values = {
        "title": TITLE,
        "method": html.escape(request.method),
        "target": html.escape(target),
        "protocol": html.escape(request.protocol),
        "prefix": html.escape(request.prefix),
        "base": html.escape(f"{request.scheme}://{host}{request.prefix}"),
        "headers": _table(request.headers),
        "connection": _table(_connection_rows(request)),
        "server": _table(request.server_rows),
        "duck": DUCK,
        "script": SCRIPT,
    }
    document = DOCUMENT.substitute(
        values, style=STYLE, icon=base64.b64encode(DUCK.encode()).decode(), content=content.substitute(values)
    )
    return Page(status, "text/html; charset=utf-8", _encode(document), HTML_FIELDS)


def _text(status: str, text: str) -> Page:
    return Page(status, "text/plain; charset=utf-8", _encode(text), (("Vary", "Accept"),))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # a path may hold bytes that are not UTF-8, as surrogates


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)


def _connection_rows(request: Request) -> list[tuple[str, str]]:
    return [
        ("client", request.client),
        ("scheme", request.scheme),
        ("path", request.path),
        ("query", request.query or "none"),
        ("mounted at", request.prefix or "/"),
    ]


def _plain(request: Request) -> str:
    query = "?" + request.query if request.query else ""
    sections = [
        f"{TITLE} received",
        "",
        f"  {request.method} {request.prefix}{request.path}{query} {request.protocol}",
        *(f"  {name}: {value}" for name, value in request.headers),
        "",
        *(f"  {name:<10} {value}" for name, value in (*_connection_rows(request), *request.server_rows)),
        "",
        "also here: /counters (JSON), /echo (your body comes back), /stream (a chunked answer)",
        "",
    ]
    return "\n".join(sections)


def _server_rows(interface: str, runs_on: tuple[str, str]) -> list[tuple[str, str]]:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    python = f"{platform.python_implementation()} {platform.python_version()}{'' if gil else ', free-threaded'}"
    return [("version", TITLE), ("interface", interface), runs_on, ("python", python), ("system", platform.platform())]


def _stream_line(number: int) -> bytes:
    return f"line {number} of {STREAM_LINES}, sent on its own\n".encode()


# ASGI -------------------------------------------------------------------------------------------------------------


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """The demo as an ASGI 3 application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    request = _request_of_scope(scope)
    if request.path == "/echo":
        await _start(send, "200 OK", ECHO_FIELDS)
        await _echo(receive, send)
    elif request.path == "/stream":
        await _start(send, "200 OK", STREAM_FIELDS)
        for number in range(1, STREAM_LINES + 1):
            await send({"type": "http.response.body", "body": _stream_line(number), "more_body": True})
            await asyncio.sleep(STREAM_PAUSE)
        await send({"type": "http.response.body", "body": b""})
    else:
        page = answer(request)
        await _start(send, page.status, page.fields())
        await send({"type": "http.response.body", "body": page.body})


def asgi2(scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
    """The demo as an ASGI 2 application."""

    async def instance(receive: Receive, send: Send) -> None:
        await asgi(scope, receive, send)

    return instance


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _start(send: Send, status: str, fields: Iterable[tuple[str, str]]) -> None:
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in fields]
    await send({"type": "http.response.start", "status": int(status[:3]), "headers": headers})


async def _echo(receive: Receive, send: Send) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


def _request_of_scope(scope: Scope) -> Request:
    loop = type(asyncio.get_running_loop())
    prefix = scope.get("root_path", "").rstrip("/")
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=scope["path"].removeprefix(prefix) or "/",
        query=scope["query_string"].decode("latin-1"),
        prefix=prefix,
        protocol=f"HTTP/{scope['http_version']}",
        scheme=scope.get("scheme", "http"),
        client=f"{client[0]} port {client[1]}" if client else "a unix socket",
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
        server_rows=_server_rows("ASGI", ("loop", loop.__module__.partition(".")[0])),
    )


# WSGI -------------------------------------------------------------------------------------------------------------


def wsgi(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """The demo as a WSGI application."""
    request = _request_of_environ(environ)
    if request.path == "/echo":
        start_response("200 OK", ECHO_FIELDS[:])
        return iter(lambda: environ["wsgi.input"].read(ECHO_CHUNK), b"")
    if request.path == "/stream":
        start_response("200 OK", STREAM_FIELDS[:])
        return _stream()
    page = answer(request)
    start_response(page.status, page.fields())
    return [page.body]


def _stream() -> Iterator[bytes]:
    for number in range(1, STREAM_LINES + 1):
        yield _stream_line(number)
        time.sleep(STREAM_PAUSE)


def _request_of_environ(environ: dict[str, Any]) -> Request:
    headers = [(name[5:].replace("_", "-").lower(), value) for name, value in environ.items() if name[:5] == "HTTP_"]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers.append((name.replace("_", "-").lower(), environ[name]))
    address, port = environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", "")
    return Request(
        method=environ["REQUEST_METHOD"],
        path=_unicode(environ.get("PATH_INFO", "")) or "/",
        query=environ.get("QUERY_STRING", ""),
        prefix=_unicode(environ.get("SCRIPT_NAME", "")),
        protocol=environ["SERVER_PROTOCOL"],
        scheme=environ["wsgi.url_scheme"],
        client=f"{address} port {port}" if address else "a unix socket",
        headers=headers,
        server_rows=_server_rows("WSGI", ("thread", threading.current_thread().name)),
    )


def _unicode(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "surrogateescape")  # PEP 3333 keeps bytes in latin-1


APPLICATIONS: dict[str, Callable[..., Any]] = {"asgi": asgi, "asgi2": asgi2, "wsgi": wsgi}
