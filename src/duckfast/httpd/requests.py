"""What hooks and micro apps are given and may return: RequestData, Request, Response. Plain data: knows no socket, no server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

TOP = "topheader"  # under this name the headers of a RequestData hold the request line

Headers = list[tuple[str, str]]


class RequestData:
    """One request: `headers` with names in lower case, and the request line as "topheader"; `content`, the body without framing.

    A field that came several times has its values joined, with "; " for cookie and "," for all others. `request_store` is for
    whoever handles the request.
    """

    __slots__ = ("content", "headers", "request_store")

    def __init__(self, headers: dict[str, str], content: bytes = b"") -> None:
        self.headers = headers
        self.content = content
        self.request_store: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.headers.get(TOP, '')!r}>"

    @property
    def request_line(self) -> tuple[str, str, str]:
        """Method, target and version. Raises ValueError when "topheader" does not hold three words."""
        words = self.headers.get(TOP, "").split()
        if len(words) != 3:
            raise ValueError(f"{TOP!r} must hold a request line such as 'GET / HTTP/1.1'; got {self.headers.get(TOP)!r}")
        return words[0], words[1], words[2]

    def to_bytes(self) -> bytes:
        """The request as it could have come from the network, the body framed by its length."""
        method, target, version = self.request_line
        framing = {TOP, "content-length", "transfer-encoding"}
        fields = [(name, value) for name, value in self.headers.items() if name not in framing]
        if self.content or "content-length" in self.headers or "transfer-encoding" in self.headers:
            fields.append(("content-length", str(len(self.content))))
        lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.content


class RawRequestData(RequestData):
    """One request as the bytes that came, in `data`."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.request_store: dict[str, Any] = {}

    def __repr__(self) -> str:
        line, _, _ = self.data.partition(b"\r\n")
        return f"<{type(self).__name__} {line.decode('latin-1')!r}>"

    def to_bytes(self) -> bytes:
        return self.data


class Request:
    """What a micro app's view is called with."""

    def __init__(self, environ: Mapping[str, Any], content: bytes) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = (environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1").decode("utf-8", "replace")
        self.query_string: str = environ.get("QUERY_STRING", "")
        self.scheme: str = environ["wsgi.url_scheme"]
        self.client_address = environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0)
        self.content = content
        self.headers = headers_of(environ)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Raises ValueError."""
        return json.loads(self.content)


class Processor:
    """The second argument of a view: a micro app has no routes and no middleware, so it only knows the request."""

    def __init__(self, request: Request) -> None:
        self.request = request


class Response:
    """A whole response: `Response("hello")`, `Response(b"...", 404, {"Content-Type": "image/png"})`."""

    def __init__(
        self,
        content: str | bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str | None = None,
    ) -> None:
        self.content = content.encode() if isinstance(content, str) else bytes(content)
        self.status = int(status)
        self.headers: Headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        if not any(name.lower() == "content-type" for name, _ in self.headers):
            default = "text/html; charset=utf-8" if isinstance(content, str) else "application/octet-stream"
            self.headers.insert(0, ("Content-Type", content_type or default))

    @property
    def status_line(self) -> str:
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return f"{self.status} Unknown"


def to_response(value: Any) -> Response:
    """What a view or a hook returned, as a Response. Raises TypeError for what is none.

    A Response; str (HTML) or bytes; a dict or list (JSON); a tuple of one of these, a status and perhaps headers; or an object
    with `status_code`, `headers` and `content`, as frameworks have them.
    """
    if isinstance(value, Response):
        return value
    if isinstance(value, (str, bytes, bytearray)):
        return Response(value if isinstance(value, str) else bytes(value))
    if isinstance(value, (dict, list)):
        return Response(json.dumps(value).encode(), content_type="application/json")
    if isinstance(value, tuple) and 2 <= len(value) <= 3:
        made = to_response(value[0])
        more = value[2] if len(value) == 3 else ()
        given = list(more.items() if isinstance(more, Mapping) else more)
        names = {name.lower() for name, _ in given}
        return Response(made.content, value[1], [pair for pair in made.headers if pair[0].lower() not in names] + given)
    if all(hasattr(value, name) for name in ("status_code", "headers", "content")):
        items = value.headers.items() if hasattr(value.headers, "items") else value.headers
        return Response(value.content, value.status_code, [(str(name), str(text)) for name, text in items])
    raise TypeError(f"this is no response: {value!r:.200}; return a Response, str, bytes, a dict, or (body, status, headers)")


def headers_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """The header fields in an environ, with names in lower case."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return headers


def data_of(environ: Mapping[str, Any], content: bytes) -> RequestData:
    """The RequestData of a WSGI request whose body has been read."""
    target = environ.get("RAW_URI") or environ["PATH_INFO"]
    headers = {TOP: f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}", **headers_of(environ)}
    return RequestData(headers, content)


def environ_of(data: RequestData, base: Mapping[str, Any]) -> dict[str, Any]:
    """The environ for a RequestData, which may have been changed by a hook; what does not come from it is taken from `base`."""
    method, target, version = data.request_line
    if target.startswith("/"):
        path, _, query = target.partition("?")
    else:  # absolute-form, or an asterisk
        path, query = base.get("PATH_INFO", "/"), base.get("QUERY_STRING", "")
    environ = {name: value for name, value in base.items() if not name.startswith("HTTP_")}
    environ.update(
        REQUEST_METHOD=method, QUERY_STRING=query, SERVER_PROTOCOL=version, RAW_URI=target, REQUEST_URI=target, CONTENT_TYPE="",
    )
    if target.startswith("/"):
        decoded = unquote_to_bytes(path).decode("latin-1")
        script = base.get("SCRIPT_NAME", "")
        environ["PATH_INFO"] = decoded[len(script) :] if script and decoded.startswith(script) else decoded
    environ["wsgi.input"] = io.BytesIO(data.content)
    for name, value in data.headers.items():
        if name == TOP or name == "proxy" or "_" in name:  # X_A would shadow X-A; HTTP_PROXY steers the app's own clients
            continue
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[key] = value
        else:
            environ[f"HTTP_{key}"] = value
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    if data.content or environ.get("CONTENT_LENGTH"):
        environ["CONTENT_LENGTH"] = str(len(data.content))
    if not environ["CONTENT_TYPE"]:
        del environ["CONTENT_TYPE"]
    return environ
