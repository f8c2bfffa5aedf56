"""Websocket frames written and read by hand (RFC 6455, RFC 7692), and servers for them. Knows nothing about duckfast's codec.

WEBSOCKET_SERVER names another server to run the tests against, with its options: it is how the tests themselves are proved.

    WEBSOCKET_SERVER="uvicorn --ws websockets-sansio" make test TESTS=tests/conformance/test_websocket_wire.py
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
import socket
import ssl
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.process import ServerProcess, clean_environment
from support.wire import Address, Response, Wire, eventually, request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 1.3
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
MASK = b"\x37\xfa\x21\x3d"  # of RFC 6455 5.7
DEFLATE = "permessage-deflate"

other_server = shlex.split(os.environ.get("WEBSOCKET_SERVER", ""))


# Servers ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    address: tuple[str, int]
    scheme: str  # http or https, as the server was started
    server: ServerProcess | None  # None when another server is tested

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address[0]}:{self.address[1]}"

    @property
    def ws_url(self) -> str:
        return "ws" + self.url.removeprefix("http")


@contextmanager
def serving(target: str, *options: str, cwd: Path) -> Iterator[Served]:
    """An ASGI application on duckfast, or on the server that WEBSOCKET_SERVER names, until the end of the block."""
    if other_server:
        with _other(target, options, cwd) as served:
            yield served
        return
    with ServerProcess([target, "--interface", "asgi", *options], cwd=cwd) as server:
        yield Served((server.host, server.port), server.url.split(":")[0], server)


@contextmanager
def _other(target: str, options: Iterable[str], cwd: Path) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*other_server, target, "--host", "127.0.0.1", "--port", str(port), *options]

    def is_up() -> bool:
        assert process.poll() is None, f"{command} has ended:\n{Path(log.name).read_text()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with tempfile.NamedTemporaryFile() as log:
        with subprocess.Popen(command, cwd=cwd, env=clean_environment(), stdout=log, stderr=log) as process:
            try:
                eventually(is_up, "an open port")
                yield Served(("127.0.0.1", port), "https" if "--ssl-certfile" in options else "http", None)
            finally:
                process.kill()


# Frames -------------------------------------------------------------------------------------------------------------


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    mask: bytes | None = MASK,
    size: int | None = None,
    width: int | None = None,
) -> bytes:
    """One frame of a client. `reserved` are RSV1 to RSV3 as 4, 2, 1; `size` lies about the length; `width` is of it, in bytes."""
    length = len(payload) if size is None else size
    if width is None:
        width = 0 if length < 126 else 2 if length < 65536 else 8
    masked = 0 if mask is None else 0x80
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    if width == 0:
        head += bytes([masked | length])
    else:
        head += bytes([masked | (126 if width == 2 else 127)]) + length.to_bytes(width, "big")
    return head if mask is None and not payload else head + (mask or b"") + masked_by(mask, payload)


def masked_by(mask: bytes | None, payload: bytes) -> bytes:
    """RFC 6455 5.3, an octet at a time."""
    if mask is None:
        return payload
    return bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))


def close_frame(code: int | None = 1000, reason: str | bytes = b"") -> bytes:
    reason = reason.encode() if isinstance(reason, str) else reason
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Deflater:
    """Compresses messages as RFC 7692 7.2.1 says."""

    def __init__(self, *, bits: int = 15, takeover: bool = True) -> None:
        self._bits = bits
        self._takeover = takeover
        self._context = self._new()

    def __call__(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._context = self._new()
        data = self._context.compress(payload) + self._context.flush(zlib.Z_SYNC_FLUSH)
        assert data.endswith(b"\x00\x00\xff\xff")
        return data[:-4]

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(9, zlib.DEFLATED, -self._bits)


class Inflater:
    """Decompresses messages as RFC 7692 7.2.2 says, with no larger a window than was agreed on."""

    def __init__(self, *, bits: int = 15, takeover: bool = True) -> None:
        self._bits = bits
        self._takeover = takeover
        self._context = zlib.decompressobj(-bits)

    def __call__(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._context = zlib.decompressobj(-self._bits)
        return self._context.decompress(payload + b"\x00\x00\xff\xff")


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    final: bool = True
    reserved: int = 0

    @property
    def code(self) -> int | None:
        """Of a close frame; None where it has none."""
        assert self.opcode == CLOSE, f"expected a close frame, got {self}"
        assert len(self.payload) != 1, "a close frame with half a code"
        return int.from_bytes(self.payload[:2], "big") if self.payload else None

    @property
    def reason(self) -> str:
        assert self.opcode == CLOSE, f"expected a close frame, got {self}"
        return self.payload[2:].decode()


@dataclass(frozen=True)
class Extension:
    name: str
    parameters: dict[str, str | None]


def parse_extensions(response: Response) -> list[Extension]:
    """What the server has agreed to, from all lines; strict."""
    found = []
    for value in response.all("sec-websocket-extensions"):
        for item in value.decode().split(","):
            name, *parameters = (part.strip() for part in item.split(";"))
            pairs = [parameter.partition("=") for parameter in parameters]
            names = [pair[0] for pair in pairs]
            assert len(set(names)) == len(names), f"a parameter twice: {item}"
            found.append(Extension(name, {key: text.strip('"') if equals else None for key, equals, text in pairs}))
    return found


def handshake(
    target: str = "/echo", headers: Iterable[tuple[str, str | bytes]] = (), *, without: Iterable[str] = (), **others: object
) -> bytes:
    """The opening handshake of RFC 6455 4.1, less some of its headers; more may be said instead."""
    fields: list[tuple[str, str | bytes]] = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
    dropped = {name.lower() for name in without}
    kept = [(name, value) for name, value in fields if name.lower() not in dropped]
    return request(others.pop("method", "GET"), target, [*kept, *headers], **others)  # type: ignore[arg-type]


def accept_for(key: str) -> bytes:
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest())


class WebSocketWire:
    """One websocket of a client that sees the frames. Opened when made; every frame read is checked for RFC 6455 5."""

    def __init__(
        self,
        address: Address,
        target: str = "/echo",
        headers: Iterable[tuple[str, str | bytes]] = (),
        *,
        behind: bytes = b"",
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.wire = Wire(address, receive_buffer=receive_buffer, tls=tls)
        self.wire.send(handshake(target, headers) + behind)
        self.response = self.wire.read_head()
        assert self.response.status == 101, self.response
        assert self.response.get("sec-websocket-accept") == accept_for(KEY)
        self.extensions = parse_extensions(self.response)
        self._in_message = False

    def __enter__(self) -> WebSocketWire:
        return self

    def __exit__(self, *of_the_block: object) -> None:
        self.wire.close()

    @property
    def deflate(self) -> dict[str, str | None]:
        """The parameters that were agreed on."""
        assert [extension.name for extension in self.extensions] == [DEFLATE], self.response.headers
        return self.extensions[0].parameters

    def send(self, *frames: bytes) -> None:
        self.wire.send(b"".join(frames))

    def read_frame(self) -> Frame:
        first, second = self.wire.read_exactly(2)
        assert not second & 0x80, "a masked frame from the server"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self.wire.read_exactly(2), "big")
            assert size > 125, "a length longer than needed"
        elif size == 127:
            size = int.from_bytes(self.wire.read_exactly(8), "big")
            assert 65535 < size < 1 << 63, "a length longer than needed"
        found = Frame(first & 0x0F, self.wire.read_exactly(size), bool(first & 0x80), first >> 4 & 7)
        if found.opcode >= CLOSE:
            assert found.final and size <= 125 and found.reserved == 0, f"not a control frame: {found}"
        else:
            assert (found.opcode == CONTINUATION) == self._in_message, f"out of order: {found}"
            assert found.reserved in ((0, 4) if self.extensions and not self._in_message else (0,)), f"reserved bits: {found}"
            self._in_message = not found.final
        return found

    def read_message(self, inflate: Inflater | None = None) -> tuple[int, bytes]:
        """The opcode and payload of one message, whatever its fragments and whether it is compressed or not."""
        first = self.read_frame()
        assert first.opcode in (TEXT, BINARY), f"expected a message, got {first}"
        pieces = [first.payload]
        while self._in_message:
            pieces.append(self.read_frame().payload)
        payload = b"".join(pieces)
        if first.reserved:
            assert inflate is not None, "a compressed message"
            payload = inflate(payload)
        return first.opcode, payload

    def expect_echo(self, opcode: int, payload: bytes, inflate: Inflater | None = None) -> None:
        answer = self.read_message(inflate)
        # Not compared by assert itself: a difference in a megabyte takes it minutes to show.
        if answer != (opcode, payload):
            at = os.path.commonprefix([answer[1], payload])
            raise AssertionError(
                f"opcode {answer[0]}, expected {opcode}; {len(answer[1])} bytes, expected {len(payload)}, "
                f"alike up to {len(at)}: {answer[1][len(at) :][:50]!r}, expected {payload[len(at) :][:50]!r}"
            )

    def expect_close(self, *codes: int | None) -> Frame:
        """The next frame closes with one of the codes; None is no code."""
        found = self.read_frame()
        assert found.code in codes, f"closed with {found.code} {found.reason!r}, expected {codes}"
        return found

    def expect_failure(self, *codes: int) -> None:
        """The server fails the connection (RFC 6455 7.1.7): a close frame with one of the codes, then the end."""
        self.expect_close(*codes)
        self.wire.send_what_is_taken(close_frame(1000))
        self.wire.expect_end()

    def close(self) -> None:
        """A close handshake that we begin: the server's answer, then its end of the connection (7.1.1)."""
        self.send(close_frame(1000))
        self.expect_close(1000)
        self.wire.expect_end()
