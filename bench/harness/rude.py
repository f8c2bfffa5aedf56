"""Clients that are slow, rude or hostile, each a function from a port to what its connections got. No server, no measurement.

They send what no browser sends: heads byte by byte, bodies that stop, resets in every state, floods. A client counts how each of
its connections ended: the statuses it was answered with, then "closed" (FIN), "reset", or "open" when its patience was over.
"""

import itertools
import re
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

SOURCES = 16  # loopback addresses the clients come from: one alone has some 28,000 ports, less those in TIME_WAIT
PATIENCE = 12.0  # seconds; several times the servers' deadlines of DEADLINE
DEADLINE = 2  # seconds: every deadline of a server that it has an option for
PACE = 0.1  # seconds between the bytes of a client that drips
ANSWER = 5.0  # seconds a client that goes on waits for one answer
IP_BIND_ADDRESS_NO_PORT = 24
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
FIELD = b"X-Filler: " + b"a" * 50 + b"\r\n"

Ends = Counter[str]
_turns = itertools.count()


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE)
    try:
        connection.bind((f"127.0.0.{next(_turns) % SOURCES + 2}", 0))
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection


def head(method: str = "GET", path: str = "/", *fields: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "", ""]).encode()


def reset(connection: socket.socket) -> None:
    """Leaves with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Many connections at a time -------------------------------------------------------------------------------------------


@dataclass
class Member:
    """One of many connections: what it has still to send, what it was answered."""

    connection: socket.socket
    pieces: Iterable[bytes] = ()  # sent one after the other: each PACE, or as fast as they are taken
    waiting: memoryview = field(default_factory=lambda: memoryview(b""))
    statuses: Counter[str] = field(default_factory=Counter)
    tail: bytes = b""
    sends: bool = True

    def __post_init__(self) -> None:
        self.connection.setblocking(False)
        self._pieces = iter(self.pieces)

    def send(self) -> None:
        """One piece, or what is left of it."""
        if not self.waiting:
            piece = next(self._pieces, None)
            if piece is None:
                self.sends = False
                return
            self.waiting = memoryview(piece)
        try:
            self.waiting = self.waiting[self.connection.send(self.waiting) :]
        except BlockingIOError:
            pass
        except OSError:
            self.sends = False  # closed on the other side; an answer may still be there to read

    def receive(self, size: int) -> str | None:
        """How the connection ended, None while it has not."""
        try:
            data = self.connection.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return "reset"
        seen = self.tail + data
        self.statuses.update(status.decode() for status in STATUS.findall(seen))
        self.tail = b"" if STATUS.search(seen[-13:]) else seen[-12:]
        return None if data else "closed"

    def told(self, end: str) -> str:
        words = [status if count == 1 else f"{status} x {count:,}" for status, count in self.statuses.items()]
        return ", ".join([*words, end])


@dataclass
class Crowd:
    """Drives connections until all have ended or `patience` seconds are over.

    pace: seconds between two pieces of a connection, None: as fast as the server takes them. reads: whether answers are read at
    all; read_size: so many bytes each PACE, None: whatever is there.
    """

    members: Sequence[Member]
    pace: float | None = None
    reads: bool = True
    read_size: int | None = None
    patience: float = PATIENCE

    def run(self) -> Ends:
        ends: Ends = Counter()
        left = {member.connection.fileno(): member for member in self.members}
        poll = select.poll()
        for descriptor, member in left.items():
            poll.register(descriptor, self._interest(member))
        until = time.monotonic() + self.patience
        paced = self.pace is not None or self.read_size is not None
        due = 0.0
        while left and (now := time.monotonic()) < until:
            if paced and now >= due:
                due = now + (self.pace or PACE)
                for descriptor, member in list(left.items()):
                    if self.pace is not None and member.sends:
                        member.send()
                    if self.read_size is not None and (end := member.receive(self.read_size)) is not None:
                        ends[member.told(end)] += 1
                        self._drop(poll, left, descriptor)
            wait = min(due if paced else until, until) - time.monotonic()
            for descriptor, events in poll.poll(max(0, wait * 1000)):
                end = self._handle(left[descriptor], events)
                if end is not None:
                    ends[left[descriptor].told(end)] += 1
                    self._drop(poll, left, descriptor)
                else:
                    poll.modify(descriptor, self._interest(left[descriptor]))
        for descriptor, member in list(left.items()):
            ends[member.told("open")] += 1
            self._drop(poll, left, descriptor)
        return ends

    def _interest(self, member: Member) -> int:
        events = select.POLLIN if self.reads and self.read_size is None else select.POLLRDHUP
        return events | (select.POLLOUT if self.pace is None and member.sends else 0)

    def _handle(self, member: Member, events: int) -> str | None:
        if events & select.POLLOUT and member.sends:
            member.send()
        if self.reads and self.read_size is None:
            return member.receive(1 << 16) if events & (select.POLLIN | select.POLLHUP | select.POLLERR) else None
        if events & (select.POLLERR | select.POLLHUP):
            return "reset"
        return "closed" if events & select.POLLRDHUP else None

    def _drop(self, poll: select.poll, left: dict[int, Member], descriptor: int) -> None:
        poll.unregister(descriptor)
        left.pop(descriptor).connection.close()


def crowd(
    port: int, number: int, pieces: Callable[[], Iterable[bytes]], *, receive_buffer: int | None = None,
    pace: float | None = None, reads: bool = True, read_size: int | None = None, patience: float = PATIENCE,
) -> Ends:
    members = [Member(connect(port, receive_buffer), pieces()) for _ in range(number)]
    return Crowd(members, pace, reads, read_size, patience).run()


def bytewise(data: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: (bytes([byte]) for byte in data)


# Slow -----------------------------------------------------------------------------------------------------------------


def drip_heads(port: int) -> Ends:
    return crowd(port, 50, bytewise(head()[:-2] + FIELD * 100), pace=PACE)


def drip_bodies(port: int) -> Ends:
    opening = head("POST", "/upload", "Content-Length: 1000000")
    return crowd(port, 50, lambda: itertools.chain([opening], itertools.repeat(b"x", 1000)), pace=PACE)


def drip_chunks(port: int) -> Ends:
    opening = head("POST", "/upload", "Transfer-Encoding: chunked")
    chunk = [b"1", b"\r", b"\n", b"x", b"\r", b"\n"]
    return crowd(port, 50, lambda: itertools.chain([opening], itertools.cycle(chunk)), pace=PACE)


def read_slowly(port: int) -> Ends:
    """They take a little all the time, as a bad line does, and leave."""
    opening = head("GET", "/download")
    return crowd(port, 32, lambda: [opening], receive_buffer=4096, read_size=1024, patience=6)


def stop_reading(port: int) -> Ends:
    opening = head("GET", "/download")
    return crowd(port, 32, lambda: [opening], receive_buffer=4096, reads=False)


# Rude -----------------------------------------------------------------------------------------------------------------


def repeat(port: int, times: int, once: Callable[[socket.socket], str]) -> Ends:
    ends: Ends = Counter()
    for _ in range(times):
        try:
            connection = connect(port)
        except OSError as error:
            ends[f"no connection ({error.strerror or error})"] += 1
            continue
        with connection:
            ends[once(connection)] += 1
    return ends


def rest(connection: socket.socket) -> str:
    """What is still answered, up to the end of the connection."""
    member = Member(connection, sends=False)
    connection.settimeout(ANSWER)
    while True:
        try:
            end = member.receive(1 << 16)
        except TimeoutError:
            end = "open"
        if end is not None:
            return member.told(end)


def ask_once(path: str) -> Callable[[socket.socket], str]:
    """An ordinary request, the last of its connection."""

    def once(connection: socket.socket) -> str:
        connection.sendall(head("GET", path, "Connection: close"))
        return rest(connection)

    return once


def half_close(data: bytes, receives: int = 0) -> Callable[[int], Ends]:
    """Sends `data` and a FIN, reads `receives` bytes before that, and the rest behind it."""

    def once(connection: socket.socket) -> str:
        try:
            connection.sendall(data)
            if receives:
                connection.recv(receives)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            return "reset"
        return rest(connection)

    return lambda port: repeat(port, 200, once)


def leave(data: bytes, receives: int = 0) -> Callable[[int], Ends]:
    """Sends `data`, reads `receives` bytes, and resets the connection."""

    def once(connection: socket.socket) -> str:
        try:
            connection.sendall(data)
            if receives:
                connection.recv(receives)
        except OSError:
            return "reset by the server first"
        reset(connection)
        return "left"

    return lambda port: repeat(port, 1000, once)


def open_and_drop(port: int) -> Ends:
    """100,000 connections, every other one closed by FIN or RST."""
    turns = itertools.count()

    def once(connection: socket.socket) -> str:
        if next(turns) % 2:
            reset(connection)
        return "left"

    return repeat(port, 100_000, once)


def abort_uploads(port: int) -> Ends:
    """A megabyte of a hundred, then a FIN or a RST, by turns and in both codings."""
    ends: Ends = Counter()
    openings = head("POST", "/upload", "Content-Length: 100000000"), head("POST", "/upload", "Transfer-Encoding: chunked")
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for number in range(200):
        with connect(port) as connection:
            try:
                connection.sendall(openings[number % 2])
                for _ in range(16):
                    connection.sendall(piece)
            except OSError:
                ends["reset by the server first"] += 1
                continue
            if number % 4 < 2:
                reset(connection)
                ends["left"] += 1
            else:
                connection.shutdown(socket.SHUT_WR)
                ends[rest(connection)] += 1
    return ends


# Floods ---------------------------------------------------------------------------------------------------------------


def hold_connections(number: int, data: bytes = b"") -> Callable[[int], Ends]:
    """Opens so many, sends `data` on each, and holds all of them."""

    def run(port: int) -> Ends:
        ends: Ends = Counter()
        members = []
        for _ in range(number):
            try:
                members.append(Member(connect(port), [data] if data else []))
            except OSError as error:
                ends[f"no connection ({error.strerror or error})"] += 1
        return ends + Crowd(members, patience=2 * PATIENCE).run()

    return run


def flood(opening: bytes, piece: bytes, size: int, number: int = 20) -> Callable[[int], Ends]:
    """`opening`, then `piece` again and again until `size` bytes are sent, as fast as they are taken, on so many connections."""
    block = piece * max(1, 65536 // len(piece))
    blocks = size // len(block) + 1
    return lambda port: crowd(port, number, lambda: itertools.chain([opening], itertools.repeat(block, blocks)))


def pipeline_unread(port: int) -> Ends:
    """100,000 requests each, as far as they are taken, and not a byte of the answers read."""
    block = head("GET", "/10k") * 1000
    return crowd(port, 4, lambda: itertools.repeat(block, 100), receive_buffer=4096, reads=False)


def pipeline_read(port: int) -> Ends:
    """The same with an end, and read: all are answered."""
    block, last = head() * 1000, head("GET", "/", "Connection: close")
    return crowd(port, 2, lambda: itertools.chain(itertools.repeat(block, 99), [head() * 999, last]), patience=60)


PARTIAL = head("POST", "/upload", "Content-Length: 1000") + b"x" * 500
CHUNKED = head("POST", "/upload", "Transfer-Encoding: chunked")
EXTENDED = b"1;" + b"a" * 100 + b"\r\nx\r\n"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Attack:
    """One row of the table. setting: "connections" or "descriptors", for a server that is given few of them."""

    key: str
    about: str
    run: Callable[[int], Ends]
    setting: str = ""


ATTACKS = [
    Attack("drip-head", "50 heads, a byte each 0.1 s", drip_heads),
    Attack("drip-body", "50 bodies with a length, a byte each 0.1 s", drip_bodies),
    Attack("drip-chunks", "50 chunked bodies, a byte each 0.1 s", drip_chunks),
    Attack("slow-readers", "32 readers of 1 GiB, 10 KB/s each for 6 s", read_slowly),
    Attack("stopped-readers", "32 readers of 1 GiB that stop reading", stop_reading),
    Attack("half-close-connect", "200 half-closes after connecting", half_close(b"")),
    Attack("half-close-head", "200 half-closes within the head", half_close(head()[:-8])),
    Attack("half-close-body", "200 half-closes within the body", half_close(PARTIAL)),
    Attack("half-close-request", "200 half-closes after a request", half_close(head())),
    Attack("half-close-slow", "200 half-closes after a request whose answer takes 10 ms", half_close(head("GET", "/sleep"))),
    Attack("half-close-pipeline", "200 half-closes after 10 pipelined requests", half_close(head() * 10)),
    Attack("reset-connect", "1,000 resets after connecting", leave(b"")),
    Attack("reset-head", "1,000 resets within the head", leave(head()[:-8])),
    Attack("reset-body", "1,000 resets within the body", leave(head("POST", "/upload", "Content-Length: 1000000") + b"x" * 1000)),
    Attack("reset-request", "1,000 resets before the response", leave(head("GET", "/sleep"))),
    Attack("reset-response", "1,000 resets within the response", leave(head("GET", "/download"), 1024)),
    Attack("reset-pipeline", "1,000 resets between pipelined requests", leave(head() * 20, 200)),
    Attack("open-and-drop", "100,000 connections opened and dropped", open_and_drop),
    Attack("abort-uploads", "200 uploads broken off after 1 MiB", abort_uploads),
    Attack("connection-flood", "2,000 silent connections where 500 are allowed", hold_connections(2000), "connections"),
    Attack("request-flood", "1,500 half heads where 500 are allowed", hold_connections(1500, head()[:-4]), "connections"),
    Attack("descriptor-flood", "1,000 silent connections where 256 descriptors are", hold_connections(1000), "descriptors"),
    Attack("field-flood", "20 heads of 10 MB in fields of 60 bytes", flood(head()[:-2], FIELD, 10 * MEGABYTE)),
    Attack("field-size", "20 heads with a field of 10 MB", flood(head()[:-2] + b"X-Long: ", b"a" * 65536, 10 * MEGABYTE)),
    Attack("target-size", "20 request lines of 10 MB", flood(b"GET /", b"a" * 65536, 10 * MEGABYTE)),
    Attack("trailer-flood", "20 trailer sections of 10 MB", flood(CHUNKED + b"1\r\nx\r\n0\r\n", FIELD, 10 * MEGABYTE)),
    Attack("extension-size", "20 chunks with an extension of 10 MB", flood(CHUNKED + b"1;", b"a" * 65536, 10 * MEGABYTE)),
    Attack("extension-flood", "20 bodies of 1-byte chunks with extensions, 10 MB", flood(CHUNKED, EXTENDED, 10 * MEGABYTE)),
    Attack("pipeline-unread", "4 pipelines of 100,000 requests, answers unread", pipeline_unread),
    Attack("pipeline-read", "2 pipelines of 100,000 requests, answers read", pipeline_read),
]
