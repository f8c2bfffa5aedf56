"""Whether the bytes a hook has sent by itself were one whole response that its length frames. Knows HTTP/1.1, no socket.

Only then can the connection bring another request: of a response that ends in any other way nobody could tell where it does.
"""

from __future__ import annotations

import re

from .requests import RequestData

MOST_HEAD = 64 * 1024  # bytes
FRAMING = re.compile(rb"^(?:(content-length)[ \t]*:[ \t]*(\d+)|(connection)[ \t]*:(.*)|transfer-encoding[ \t]*:.*)[ \t]*$", re.I)


class SentResponse:
    """Fed with what goes out; `whole` once it was one response, all of it, and both sides keep the connection."""

    def __init__(self, method: str, request: RequestData) -> None:
        self._method = method
        self._wanted = wants_keep_alive(request)
        self._head = b""
        self._left: int | None = None  # bytes of body to come; None: the head is not complete
        self._unframed = False

    def add(self, data: bytes) -> None:
        if self._unframed:
            return
        if self._left is not None:
            self._left -= len(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            self._unframed = len(self._head) > MOST_HEAD
            return
        self._read(head, rest)

    def _read(self, head: bytes, rest: bytes) -> None:
        line, *fields = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 (\d\d\d)(?: .*)?", line)
        status = int(found[1]) if found else 0
        if 100 <= status < 200 and status != 101:  # another head follows
            self._head = b""
            self.add(rest)
            return
        lengths = []
        for field in fields:
            match = FRAMING.match(field)
            if match is None:
                continue
            if match[1]:
                lengths.append(int(match[2]))
            elif not match[3] or b"close" in match[4].lower():  # coded, or the last response
                self._unframed = True
        bodiless = status in (204, 304) or self._method == "HEAD"
        if status in (0, 101) or len(set(lengths)) != 1 and not bodiless:
            self._unframed = True
        self._left = (0 if bodiless else lengths[0] if lengths else 0) - len(rest)

    @property
    def whole(self) -> bool:
        return self._wanted and not self._unframed and self._left == 0


def wants_keep_alive(request: RequestData) -> bool:
    """RFC 9112 9.3: HTTP/1.1 unless it says close, HTTP/1.0 only if it asks."""
    tokens = {token.strip().lower() for token in request.headers.get("connection", "").split(",")}
    _, _, version = request.request_line
    if "close" in tokens:
        return False
    return version == "HTTP/1.1" or (version == "HTTP/1.0" and "keep-alive" in tokens)
