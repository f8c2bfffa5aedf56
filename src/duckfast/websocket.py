"""The opening handshake of a websocket: what a request asks for, what is wrong with it, what is agreed (RFC 6455, RFC 7692).

Knows header fields; no bytes of a connection, no application. It runs once per websocket, so it is ordinary Python.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from duckfast.exceptions import RemoteProtocolError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
# A name; perhaps a value, as a token or in quotes (RFC 6455 9.1).
EXTENSION_PART = re.compile(rb"[ \t]*(%b)[ \t]*(?:=[ \t]*(?:(%b)|\"([^\"\\]*)\"))?[ \t]*" % (TOKEN.pattern, TOKEN.pattern))
WINDOW_BITS = {b"%d" % bits: bits for bits in range(8, 16)}

Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Deflate:
    """What was agreed of permessage-deflate."""

    server_bits: int
    client_bits: int
    server_takeover: bool
    client_takeover: bool

    def answer(self, offered: Collection[bytes]) -> bytes:
        """The value of the answer to an offer with these parameters."""
        parts = [b"permessage-deflate"]
        if not self.server_takeover:
            parts.append(b"server_no_context_takeover")
        if not self.client_takeover:
            parts.append(b"client_no_context_takeover")
        if self.server_bits < 15 or b"server_max_window_bits" in offered:  # RFC 7692 7.1.2.1: accepted by saying so
            parts.append(b"server_max_window_bits=%d" % self.server_bits)
        if b"client_max_window_bits" in offered and self.client_bits < 15:
            parts.append(b"client_max_window_bits=%d" % self.client_bits)
        return b"; ".join(parts)


@dataclass(frozen=True)
class Handshake:
    """A request that asks for a websocket in the right way."""

    accept: bytes  # the value of Sec-WebSocket-Accept
    subprotocols: tuple[str, ...]  # in the client's order
    deflate: Deflate | None = None
    extensions: bytes = b""  # the value of Sec-WebSocket-Extensions in the answer; empty: without that field


def read_handshake(fields: Fields, window_bits: int | None) -> Handshake:
    """Reads the fields of a GET request with Upgrade: websocket. window_bits: of permessage-deflate; None: it is not wanted.

    Raises RemoteProtocolError with the status of the answer: 426 for another version, else 400.
    """
    versions: list[bytes] = []
    keys: list[bytes] = []
    protocols: list[bytes] = []
    offers: list[bytes] = []
    wanted = {
        b"sec-websocket-version": versions,
        b"sec-websocket-key": keys,
        b"sec-websocket-protocol": protocols,
        b"sec-websocket-extensions": offers,
    }
    for name, value in fields:
        found = wanted.get(name)
        if found is not None:
            found.append(value)
    if versions != [b"13"]:
        raise RemoteProtocolError("the only version of the websocket protocol here is 13", status=426)
    if len(keys) != 1 or not is_key(keys[0]):
        raise RemoteProtocolError("Sec-WebSocket-Key is not one base64 value of 16 bytes")
    subprotocols = tuple(read_subprotocols(protocols))
    digest = hashlib.sha1(keys[0] + GUID, usedforsecurity=False).digest()
    accept = binascii.b2a_base64(digest, newline=False)
    if not offers:
        return Handshake(accept, subprotocols)
    deflate = None
    extensions = b""
    for name, parameters in read_extensions(offers):
        if name == b"permessage-deflate" and window_bits is not None and deflate is None:
            deflate = accept_offer(parameters, window_bits)
            if deflate is not None:
                extensions = deflate.answer([key for key, _ in parameters])
    return Handshake(accept, subprotocols, deflate, extensions)


def is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False


def read_subprotocols(lines: list[bytes]) -> Iterator[str]:
    for line in lines:
        for element in line.split(b","):
            name = element.strip(b" \t")
            if not name:
                continue
            if not TOKEN.fullmatch(name):
                raise RemoteProtocolError("Sec-WebSocket-Protocol is not a list of tokens")
            yield name.decode("ascii")


def read_extensions(lines: list[bytes]) -> Iterator[tuple[bytes, list[tuple[bytes, bytes | None]]]]:
    """The extensions that the client offers, in its order, each with its parameters."""
    for line in lines:
        for element in line.split(b","):
            if not element.strip(b" \t"):
                continue
            parts = [EXTENSION_PART.fullmatch(part) for part in element.split(b";")]
            if None in parts or parts[0] is None or b"=" in parts[0][0]:
                raise RemoteProtocolError("Sec-WebSocket-Extensions is not a list of extensions")
            parameters = [(part[1], part[2] if part[3] is None else part[3]) for part in parts[1:] if part is not None]
            yield parts[0][1], parameters


def accept_offer(parameters: list[tuple[bytes, bytes | None]], window_bits: int) -> Deflate | None:
    """What we make of one offer; None declines it, as RFC 7692 7.1 wants for a parameter that is unknown, doubled or wrong."""
    given = dict(parameters)
    if len(given) != len(parameters):
        return None
    server_takeover = client_takeover = True
    server_bits = window_bits
    client_bits = 15  # without the parameter the client would not know of a smaller one
    for name, value in parameters:
        if name == b"server_no_context_takeover" and value is None:
            server_takeover = False
        elif name == b"client_no_context_takeover" and value is None:
            client_takeover = False
        elif name == b"server_max_window_bits" and value in WINDOW_BITS:
            server_bits = min(server_bits, WINDOW_BITS[value])
        elif name == b"client_max_window_bits" and (value is None or value in WINDOW_BITS):
            client_bits = min(window_bits, 15 if value is None else WINDOW_BITS[value])
        else:
            return None
    return Deflate(server_bits, client_bits, server_takeover, client_takeover)
