"""Every allocation on a request's way fails once, one after the other, under a real server that goes on.

The same library as of the failing system calls stands in front of the C library and, hooked into the interpreter, of Python's
allocators. Whatever cannot be had, the client sees the whole answer, a clean error of the server's, or a connection that breaks
visibly; the next request is served, and nothing of the failed one stays (on the debug build, by its counters).

FAULT_STRIDE=1 fails every single allocation of the interpreter's; without it they are sampled.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.hungry_app import LARGE
from support.authority import Authority
from support.faults import FaultyServer, start
from support.websocket import BINARY, CLOSE, PING, PONG, TEXT, Frame, WebSocketWire, asking, closing, frame
from support.wire import Cut, Wire, chunked, eventually, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloading, and the stack that is looked at, are Linux's")

STRIDE = int(os.environ.get("FAULT_STRIDE", "0"))
UPLOAD = bytes(range(256)) * 1200  # 300 KB: several reads, more than a connection buffers
FIELDS = [
    ("User-Agent", "u" * 300),
    ("Referer", "http://r/" + "r" * 300),
    ("X-Forwarded-For", "192.0.2.1"),
    ("Cookie", "a=b"),
    ("Cookie", "c"),
]
LOG_FORMAT = """%(h)s "%(r)s" %(s)s %(B)s "%(f)s" "%(a)s" %({x-padding}o)s %({cookie}i)s"""


def digest(data: bytes) -> bytes:
    return hashlib.blake2s(data).hexdigest().encode()


class Broken(Exception):
    """The client has seen that its answer is not whole."""


def expect(wire: Wire, body: bytes) -> None:
    response = wire.read_response()
    if response.status in (500, 503):
        raise Broken(response)
    assert (response.status, response.body) == (200, body)
    if response.closes:
        raise Broken(response)


def small(wire: Wire) -> None:
    for target in ("/", "/%61", "/?a=b"):
        wire.send(request(target=target, headers=FIELDS))
        expect(wire, digest(b""))
    wire.send(request(target="/") * 3)
    for _ in range(3):
        expect(wire, digest(b""))


def bodies(wire: Wire) -> None:
    wire.send(request("POST", body=b"short"))
    expect(wire, digest(b"short"))
    head = request("POST", headers=[("Transfer-Encoding", "chunked")])
    wire.send(head + chunked(b"one", b"two", b"three", trailers=b"X-T: 1\r\n"))
    expect(wire, digest(b"onetwothree"))
    # A head and a body that come in pieces are kept meanwhile.
    wire.send(b"POST / HT")
    wire.send(b"TP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    wire.send(b"cd")
    expect(wire, digest(b"abcd"))


def upload(wire: Wire) -> None:
    for headers in ([], [("Expect", "100-continue")]):
        wire.send(request("POST", headers=headers, body=UPLOAD))
        expect(wire, digest(UPLOAD))


def large(wire: Wire) -> None:
    wire.send(request(target="/large"))
    expect(wire, LARGE)


def streams(wire: Wire) -> None:
    wire.send(request(target="/stream"))
    expect(wire, digest(b"") + LARGE + digest(b""))
    wire.send(request(target="/write"))
    expect(wire, digest(b""))


def other_heads(wire: Wire) -> None:
    wire.send(request(target="/hints"))
    expect(wire, digest(b""))
    wire.send(request(target="/trailers", headers=[("TE", "trailers")]))
    expect(wire, digest(b""))


def refused(wire: Wire) -> None:
    wire.send(request(headers=[("Content-Length", "x")]))
    response = wire.read_response()
    assert response.status in (400, 500, 503)


def websocket(wire: WebSocketWire) -> None:
    deflate = zlib.compressobj(wbits=-15)
    inflate = zlib.decompressobj(wbits=-15)
    wire.send(asking(headers=(("Sec-WebSocket-Extensions", "permessage-deflate"),)))
    response = wire.read_head()
    if response.status in (500, 503):
        raise Broken(response)
    assert response.status == 101
    wire.send(frame(PING, b"p" * 100))
    for opcode, payload in ((TEXT, b"short"), (BINARY, bytes(range(256)) * 800)):
        packed = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        half = len(packed) // 2
        wire.send(frame(opcode, packed[:half], fin=False, rsv=4) + frame(PING, b"q"))
        wire.send(frame(0, packed[half:-4]))
        answer = read_frame(wire)
        while answer.opcode == PONG:
            answer = read_frame(wire)
        whole = answer.payload if not answer.rsv else inflate.decompress(answer.payload + b"\0\0\xff\xff")
        assert whole == payload
    wire.send(closing(1000))
    answer = read_frame(wire)
    assert answer.opcode == CLOSE and answer.code == 1000


def read_frame(wire: WebSocketWire) -> Frame:
    answer = wire.read_frame()
    if answer.opcode == CLOSE and answer.code in (1011, 1013):
        raise Broken(answer)
    return answer


Visit = Callable[[Any], None]
HTTP: list[Visit] = [small, bodies, upload, large, streams, other_heads, refused]
WEBSOCKET: list[Visit] = [websocket]


class SocketWire(WebSocketWire):
    """Ends within a frame are Cut here, as ends within a response."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None, receive_buffer: int | None = None) -> None:
        Wire.__init__(self, address, tls=tls, receive_buffer=receive_buffer)

    def _read_exactly(self, size: int) -> bytes:
        return self.read_exactly(size)


class Hungry:
    def __init__(self, faulty: FaultyServer) -> None:
        self.faulty = faulty
        self.address = (faulty.process.host, faulty.process.port)
        self.is_asyncs = "asyncio" in faulty.process.stderr_text()

    def visit(self, what: Visit) -> bool:
        """Whether the client got all it asked for."""
        try:
            with SocketWire(self.address, self.faulty.tls) as wire:
                what(wire)
        except (Cut, Broken, OSError) as error:
            assert not isinstance(error, TimeoutError), "neither an answer nor an end"
            return False
        return True

    def alive(self) -> dict[str, int]:
        with Wire(self.address, tls=self.faulty.tls) as wire:
            wire.send(request(target="/alive"))
            counts: dict[str, int] = json.loads(wire.read_response().body)
            return counts

    def sweep(self, kind: str, what: Visit, stride: int = 1) -> None:
        """Fails every stride-th allocation of a visit, one at a time."""
        faulty = self.faulty
        assert self.visit(what) and self.visit(what)
        before = self.alive()
        descriptors = faulty.descriptors
        at = 0
        struck = True
        with ExitStack() as held:
            while struck:
                if kind == "own":
                    self.use_a_block(held)
                faulty.fail(kind, "ENOMEM", at)
                self.visit(what)
                struck = faulty.struck > 0
                faulty.disarm()
                assert self.visit(what), f"after allocation {at}"
                at += stride
        if kind == "python" and self.is_asyncs:
            del before["exchange"]   # when call_soon() fails asyncio loses whom a future was to wake: that task never ends
        eventually(lambda: all(self.alive()[name] <= count for name, count in before.items()), "the counts of what is alive")
        eventually(lambda: faulty.descriptors <= descriptors, "the descriptors")
        assert faulty.process.returncode is None

    def use_a_block(self, held: ExitStack) -> None:
        """Output blocks are kept for the next response: one that nobody reads keeps another of them in use."""
        wire = held.enter_context(SocketWire(self.address, self.faulty.tls, receive_buffer=4096))
        wire.send(request(target="/huge", headers=FIELDS))
        wire.read_head()


@contextmanager
def hungry(interface: str, shim: Path, folder: Path, authority: Authority | None = None) -> Iterator[Hungry]:
    options = ["--access-logfile", str(folder / "access.log"), "--access-logformat", LOG_FORMAT, "--loop", "asyncio"]
    with start(interface, shim, folder, authority, app="hungry_app", options=options) as faulty:
        yield Hungry(faulty)


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def plain(request: pytest.FixtureRequest, shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hungry]:
    with hungry(request.param, shim, tmp_path_factory.mktemp("plan")) as server:
        yield server


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def secure(
    request: pytest.FixtureRequest, shim: Path, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Hungry]:
    with hungry(request.param, shim, tmp_path_factory.mktemp("plan"), authority) as server:
        yield server


@pytest.fixture(scope="module")
def websockets(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hungry]:
    with hungry("asgi", shim, tmp_path_factory.mktemp("plan")) as server:
        yield server


@pytest.mark.parametrize("what", HTTP)
def test_the_server_survives_a_failed_allocation_of_its_own(plain: Hungry, what: Visit) -> None:
    plain.sweep("own", what)


@pytest.mark.parametrize("what", HTTP)
def test_the_server_survives_failed_allocations_of_the_interpreter(plain: Hungry, what: Visit) -> None:
    plain.sweep("python", what, STRIDE or 29)


@pytest.mark.parametrize("kind, stride", [("own", 1), ("foreign", STRIDE or 61), ("python", STRIDE or 29)])
def test_the_server_survives_failed_allocations_under_tls(secure: Hungry, kind: str, stride: int) -> None:
    secure.sweep(kind, small, stride)


@pytest.mark.parametrize("kind, stride", [("own", 1), ("foreign", 1), ("python", STRIDE or 29)])
def test_the_server_survives_failed_allocations_of_a_websocket(websockets: Hungry, kind: str, stride: int) -> None:
    websockets.sweep(kind, websocket, stride)
