"""A websocket client for tests that sees the bytes: the handshake and each frame are written and read by hand.

Knows RFC 6455 and nothing of duckfast; whatever a frame's bits are, it is sent.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass

from support.wire import Address, Response, Wire, request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
MASK = b"\x37\xfa\x21\x3d"


def asking(target: str = "/", headers: tuple[tuple[str, str], ...] = (), *, without: str = "", **changed: str) -> bytes:
    """The request for a websocket. `changed` replaces fields (version="8"), `without` names one to leave out."""
    fields = {"upgrade": "websocket", "connection": "Upgrade", "version": "13", "key": KEY, **changed}
    names = {"upgrade": "Upgrade", "connection": "Connection", "version": "Sec-WebSocket-Version", "key": "Sec-WebSocket-Key"}
    given = [(names[name], value) for name, value in fields.items() if name != without]
    return request(target=target, headers=[*given, *headers])


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    first = fin << 7 | rsv << 4 | opcode
    if len(payload) < 126:
        head = bytes([first, 0x80 | len(payload)])
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    mask = MASK * (len(payload) // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask[: len(payload)], "big")
    return head + MASK + masked.to_bytes(len(payload), "big")


def closing(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


@dataclass
class Frame:
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0

    @property
    def code(self) -> int:
        """Of a close frame; 1005 when it has none."""
        assert self.opcode == CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else 1005

    @property
    def reason(self) -> str:
        assert self.opcode == CLOSE
        return self.payload[2:].decode()


class WebSocketWire(Wire):
    """One client connection that asks for a websocket as it is made, unless told not to."""

    def __init__(
        self,
        address: Address,
        target: str = "/",
        headers: tuple[tuple[str, str], ...] = (),
        *,
        ask: bool = True,
        early: bytes = b"",
        receive_buffer: int | None = None,
    ) -> None:
        super().__init__(address, receive_buffer=receive_buffer)
        self.response: Response | None = None
        if ask:
            self.send(asking(target, headers) + early)
            self.response = self.read_head()
            assert self.response.status == 101, self.response

    def read_frame(self) -> Frame:
        head = self._read_exactly(2)
        assert not head[1] & 0x80, "a server does not mask"
        size = head[1]
        if size == 126:
            size = struct.unpack("!H", self._read_exactly(2))[0]
            assert size > 125
        elif size == 127:
            size = struct.unpack("!Q", self._read_exactly(8))[0]
            assert size > 65535
        return Frame(head[0] & 15, self._read_exactly(size), bool(head[0] & 0x80), head[0] >> 4 & 7)

    def read_message(self) -> str | bytes:
        """The next frame, which must be a whole message that is not compressed."""
        frame = self.read_frame()
        assert frame.fin and not frame.rsv and frame.opcode in (TEXT, BINARY), frame
        return frame.payload.decode() if frame.opcode == TEXT else frame.payload

    def say(self, message: str | bytes) -> None:
        self.send(frame(TEXT, message.encode()) if isinstance(message, str) else frame(BINARY, message))

    def ask(self, message: str | bytes) -> str | bytes:
        """What comes back for this message."""
        self.say(message)
        return self.read_message()

    def expect_close(self, code: int) -> Frame:
        """The server's close frame, with nothing before it."""
        frame = self.read_frame()
        assert frame.code == code, frame
        return frame

    def _read_exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            assert self._fill(), f"the connection ended within a frame: {self.buffered()!r}"
        return self._take(size)
