"""An HTTP/1.1 client for tests that sees the bytes: one connection, written and read by hand.

Reads responses strictly (RFC 9112), keeps their framing visible (which chunks, how the body ended, what came before
the final status) and never retries, normalises or hides anything. Knows nothing about duckfast.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

DEADLINE = 30.0  # seconds; only a broken server reaches it
READ_SIZE = 65536  # bytes per recv

Address = tuple[str, int] | str

everywhere: ssl.SSLContext | None = None  # set by `pytest --tls`: every connection of every test is TLS

Fields = list[tuple[bytes, bytes]]
Result = TypeVar("Result")


class Cut(AssertionError):
    """The connection ended inside a response; `response` is what had arrived."""

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


@dataclass
class Response:
    status: int
    reason: bytes
    version: bytes
    headers: Fields
    interim: list[tuple[int, Fields]] = field(default_factory=list)  # the 1xx that came before
    framing: str = "none"  # none, length, chunked, close
    chunks: list[bytes] = field(default_factory=list)  # as framed on the wire when chunked, else as received
    trailers: Fields = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def all(self, name: str) -> list[bytes]:
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str) -> bytes | None:
        """The value of a field that must not appear twice."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} appears {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        """Whether the server said that it closes: the option of RFC 9112 9.6, or a 1.0 answer without keep-alive."""
        options = {token.strip().lower() for value in self.all("connection") for token in value.split(b",")}
        return b"close" in options or (self.version == b"HTTP/1.0" and b"keep-alive" not in options)


def eventually(probe: Callable[[], Result], what: str = "the condition", deadline: float = DEADLINE) -> Result:
    """The first true result of `probe`, called again and again; fails after the deadline."""
    end = time.monotonic() + deadline
    while True:
        result = probe()
        if result:
            return result
        assert time.monotonic() < end, f"{what} did not come true within {deadline:g} s; last result {result!r}"


class Wire:
    """One client connection.

        with Wire(("127.0.0.1", 8000)) as wire:
            wire.send(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
            assert wire.read_response().status == 200

    An address that is a str is the path of a Unix socket. `receive_buffer` shrinks the kernel's, for slow readers. With `tls` the
    handshake is done, for the host `name`.
    """

    def __init__(
        self,
        address: Address,
        *,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(address)
        tls = tls or everywhere
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name, session=session)
        self._received = bytearray()
        self._ended = False
        self._reset = False

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Leave with a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def half_close(self) -> None:
        """Send FIN; the answer can still be read."""
        # Not SSLSocket's own, which would go on without TLS.
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    @property
    def tls(self) -> ssl.SSLSocket:
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_what_is_taken(self, data: bytes) -> bool:
        """Send all, or stop without complaint when the server has closed; whether all was taken."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            return False
        return True

    # Reading

    def _fill(self) -> bool:
        """Read once more; False at the end of the connection."""
        if self._ended:
            return False
        try:
            data = self.socket.recv(READ_SIZE)
        except ConnectionResetError:
            self._reset = True
            data = b""
        except ssl.SSLEOFError:  # a FIN in the middle of a record
            data = b""
        self._ended = not data
        self._received += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _take_line(self) -> bytes:
        """One line without its CRLF; a bare LF fails."""
        while (end := self._received.find(b"\r\n")) < 0:
            if not self._fill():
                raise Cut(f"the connection ended inside a line: {bytes(self._received[:200])!r}")
        line = self._take(end + 2)[:-2]
        assert b"\n" not in line and b"\r" not in line, f"a bare CR or LF in {line!r}"
        return line

    def _take_fields(self) -> Fields:
        fields: Fields = []
        while line := self._take_line():
            name, colon, value = line.partition(b":")
            assert colon and name and not any(byte in b' \t"(),/:;<=>?@[\\]{}' for byte in name), f"bad field {line!r}"
            fields.append((name, value.strip(b" \t")))
        return fields

    def _take_head(self) -> Response:
        line = self._take_line()
        version, _, rest = line.partition(b" ")
        code, space, reason = rest.partition(b" ")
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), f"bad status line {line!r}"
        assert len(code) == 3 and code.isdigit() and space, f"bad status line {line!r}"
        return Response(int(code), reason, version, self._take_fields())

    def read_head(self) -> Response:
        """The next final response head with the interim ones before it; the body stays unread."""
        interim: list[tuple[int, Fields]] = []
        while True:
            response = self._take_head()
            if response.status >= 200 or response.status == 101:
                response.interim = interim
                return response
            assert not response.all("content-length") and not response.all("transfer-encoding")
            interim.append((response.status, response.headers))

    def read_interim(self) -> tuple[int, Fields]:
        """One 1xx head, which must be the next thing the server sends."""
        response = self._take_head()
        assert 100 <= response.status < 200, f"expected an interim response, got {response}"
        return response.status, response.headers

    def read_exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            if not self._fill():
                raise Cut(f"the connection ended with {size - len(self._received)} bytes missing")
        return self._take(size)

    def read_chunk(self) -> bytes:
        """One chunk of a chunked body; b"" is the last one, whose trailers stay unread."""
        line = self._take_line()
        assert line and all(byte in b"0123456789abcdefABCDEF" for byte in line), f"bad chunk size line {line!r}"
        data = self.read_exactly(int(line, 16))
        if data:
            assert self.read_exactly(2) == b"\r\n", "chunk data is not followed by CRLF"
        return data

    def read_body(self, response: Response, method: str = "GET") -> Response:
        """Complete a response whose head has been read, by the rules of RFC 9112 6.3."""
        codings = response.all("transfer-encoding")
        lengths = response.all("content-length")
        assert not (codings and lengths), f"both lengths in {response.headers}"
        assert len(lengths) <= 1 and len(codings) <= 1, f"double framing in {response.headers}"
        if method == "HEAD" or response.status in (204, 304):
            return response
        try:
            if codings:
                assert codings[0].lower() == b"chunked" and response.version == b"HTTP/1.1"
                response.framing = "chunked"
                while chunk := self.read_chunk():
                    response.chunks.append(chunk)
                response.trailers = self._take_fields()
            elif lengths:
                response.framing = "length"
                left = int(lengths[0])
                while left:
                    if not self._received and not self._fill():
                        raise Cut(f"the connection ended with {left} bytes of the body missing")
                    response.chunks.append(self._take(left))
                    left -= len(response.chunks[-1])
            else:
                response.framing = "close"
                response.chunks.append(self.read_rest())
                if self._reset:
                    raise Cut("the connection was reset inside a body that its end delimits")
        except Cut as cut:
            cut.response = response
            raise
        return response

    def read_response(self, method: str = "GET") -> Response:
        """The next complete response; Cut when the connection ends before it does."""
        return self.read_body(self.read_head(), method)

    def read_broken_response(self, method: str = "GET") -> Response:
        """A response whose end must be missing visibly, followed by the end of the connection."""
        head = self.read_head()
        try:
            response = self.read_body(head, method)
        except Cut as cut:
            assert cut.response is not None
            assert not self._fill()
            return cut.response
        raise AssertionError(f"this response looks complete: {response}")

    def read_rest(self) -> bytes:
        """Everything up to the end of the connection, by FIN or RST."""
        while self._fill():
            pass
        return self._take(len(self._received))

    def expect_end(self) -> None:
        """The server sends nothing more and closes."""
        rest = self.read_rest()
        assert rest == b"", f"more after the last response: {rest[:200]!r}"

    def expect_clean_end(self) -> None:
        """The server sends nothing more and closes with FIN, not RST."""
        self.expect_end()
        assert not self._reset, "the connection was reset"

    @property
    def was_reset(self) -> bool:
        return self._reset

    def buffered(self) -> bytes:
        """What has been received and not read yet, without waiting for more."""
        return bytes(self._received)


def request(
    method: str = "GET",
    target: bytes | str = "/",
    headers: Iterable[tuple[str, str | bytes]] = (),
    body: bytes | None = None,
    *,
    version: str = "1.1",
    host: str | None = "test",
) -> bytes:
    """The bytes of one request; Content-Length is added for a body, nothing else."""
    line = method.encode() + b" " + (target if isinstance(target, bytes) else target.encode()) + b" HTTP/"
    lines = [line + version.encode()]
    if host is not None:
        lines.append(b"Host: " + host.encode())
    for name, value in headers:
        lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """A chunked body with its last chunk."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailers + b"\r\n"
