"""A client as plain as curl: one request per connection over a real socket, TCP or unix.

Knows http.client's parsing and nothing of duckfast, so that a bug here and one there do not cancel out.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass

TIMEOUT = 30.0  # seconds; only a broken server reaches it


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case; repeated fields joined with ", "
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def connect(address: str) -> socket.socket:
    """A connection to an address as the start line shows it: `http://host:port` or `unix:path`."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        path = address.removeprefix("unix:")
        sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        return sock
    scheme, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    return sock


def send_request(
    sock: socket.socket, method: str = "GET", path: str = "/", *, headers: dict[str, str] | None = None, body: bytes = b""
) -> None:
    fields = {"Host": "localhost", "Connection": "close", "Accept": "*/*", **(headers or {})}
    if body:
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    sock.sendall("\r\n".join(lines).encode("latin-1") + body)


def read_answer(sock: socket.socket, method: str = "GET") -> Answer:
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(response.status, headers, response.read())


def fetch(
    address: str, path: str = "/", *, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request on a connection of its own."""
    with connect(address) as sock:
        send_request(sock, method, path, headers=headers, body=body)
        return read_answer(sock, method)
