"""A whole connection without sockets: any bytes in any pieces, and an application that answers whatever and whenever it likes.

The harness takes bytes and raises AssertionError when a promise is broken, as those of harnesses.py, which lists it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import h11
from oracle.generator import Parts, generate
from support.corpus import random_splits

from duckfast._http1 import HTTP1Connection, Probe
from duckfast._httptools import HttptoolsConnection
from duckfast._limits import Limits
from duckfast._writer import DefaultFields

FIELDS = (
    (b"X", b"y"), (b"Set-Cookie", b"a=b"), (b"Content-Length", b"0"), (b"Content-Length", b"3"), (b"content-length", b"70"),
    (b"Connection", b"close"), (b"Connection", b"keep-alive"), (b"Transfer-Encoding", b"chunked"), (b"Date", b"now"),
    (b"Server", b"mine"), (b"Keep-Alive", b"5"), (b"Trailer", b"X-Sum"), (b"Upgrade", b"h2c"), (b"X", b" y "), (b"X", b"\xff"),
)  # fmt: skip
WRONG_FIELDS = ((b"X Y", b"z"), (b"", b""), (b"X", b"a\r\nb"), (b"Content-Length", b"x"), (b"X", b"\0"), (b"X\n", b""))
STATUSES = (200, 200, 200, 201, 204, 205, 206, 304, 404, 500, 599)
WRONG_STATUSES = (0, 99, 100, 101, 600, 999, -1)
DEFAULTS = (
    DefaultFields(),
    DefaultFields(None, False),
    DefaultFields(extra=[("X-Extra", "1"), ("Server", "another"), ("Date", "never")]),
)


@dataclass
class Answer:
    """One response as the application meant it. `ending`: what finish() said; empty while it is not finished."""

    method: bytes
    framing: str
    sent: bytes = b""
    ending: str = ""


class Conversation:
    """One connection: reads what comes, answers at random, and knows what it has said."""

    def __init__(self, data: bytes, chosen: random.Random, connection: type[HTTP1Connection], **limits: int | None) -> None:
        self.door = Probe(connection(Limits(**limits), chosen.choice(DEFAULTS)))  # type: ignore[arg-type]
        self.chosen = chosen
        self.waiting = random_splits(data, chosen.randrange(1 << 16))
        self.ends = chosen.random() < 0.5  # does the client end its half?
        self.wire = b""
        self.answers: list[Answer] = []
        self.method = b""

    def run(self) -> None:
        while True:
            event, *values = self.read()
            if event == "request":
                self.method = values[0]["method"]
            elif event == "paused":
                while self.door.writing != "done":
                    self.answer()
                ending = self.answers[-1].ending
                if ending != "keep_alive":
                    return
                assert self.door.connection.request_keep_alive and not self.door.connection.closing
                self.door.next_request()
                continue
            elif event == "failed":
                if self.door.writing == "head":
                    self.refuse(values[0], values[1].encode())
                return
            elif event not in ("data", "end"):
                return
            while self.door.writing != "done" and self.chosen.random() < 0.5:
                self.answer()

    def read(self) -> tuple[object, ...]:
        """The next event; "need_data" once everything has been read."""
        while (event := self.door.poll())[0] == "need_data":
            if self.waiting:
                self.door.feed(self.waiting.pop(0))
            elif self.ends:
                self.ends = False
                self.door.feed_eof()
            else:
                break
            if self.chosen.random() < 0.1:
                self.door.settle()
        return event

    def answer(self) -> None:
        """The application does one thing."""
        if self.door.writing == "head":
            self.start()
        elif self.chosen.random() < 0.6:
            piece = b"0\r\n\r\n" * self.chosen.choice((0, 1, 5, 100))
            self.wire += self.door.send(piece)
            self.answers[-1].sent += piece
        else:
            trailers = b"X-Sum: 1\r\n" if self.door.framing == "chunked" and self.chosen.random() < 0.3 else b""
            tail, self.answers[-1].ending = self.door.finish(trailers)
            self.wire += tail

    def start(self) -> None:
        if self.chosen.random() < 0.1:
            self.refuse(self.chosen.choice((500, 503)), None)
            return
        if self.chosen.random() < 0.1:
            self.door.close_after_response()
        fields = [self.chosen.choice(FIELDS) for _ in range(self.chosen.choice((0, 0, 1, 2, 4)))]
        wrong = self.chosen.choice(("status", "field", "reason", *[""] * 12))
        if wrong == "field":
            fields.append(self.chosen.choice(WRONG_FIELDS))
        try:
            self.wire += self.door.start_response(
                self.chosen.choice(WRONG_STATUSES if wrong == "status" else STATUSES),
                fields,
                reason=b"a\nb" if wrong == "reason" else self.chosen.choice((None, None, b"Fine", b"")),
                body_size=self.chosen.choice((-1, -1, 0, 5, 70)),
                trailers=self.chosen.random() < 0.2,
            )
            assert not wrong
        except ValueError:
            # Nothing has left; what a server does then is say so.
            assert self.door.writing == "head"
            self.refuse(500, None)
            return
        self.answers.append(Answer(self.method, self.door.framing))

    def refuse(self, status: int, reason: bytes | None) -> None:
        self.wire += self.door.refuse(status, reason)
        # The line that is refused tells the method, as far as it could be read.
        head = self.door.connection.head_request
        self.answers.append(Answer(b"HEAD" if head else b"GET", "nothing" if head else "length", ending="close"))
        assert self.door.connection.closing

    def check(self) -> None:
        """What a client makes of what has been sent: every response whole, in order, until one closes or breaks off."""
        rest = self.wire
        for answer in self.answers:
            rest = check_response(rest, answer, last=answer is self.answers[-1])
        assert rest == b""


def check_response(wire: bytes, answer: Answer, *, last: bool) -> bytes:
    """The bytes behind this response."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if answer.method == b"HEAD" else "GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    response = client.next_event()
    assert isinstance(response, h11.Response), response
    fields = [name for name, _ in response.headers]
    assert fields.count(b"content-length") + fields.count(b"transfer-encoding") <= 1 and fields.count(b"connection") <= 1
    assert (b"connection", b"close") in response.headers or not last or answer.ending in ("keep_alive", "short", "")
    content = b""
    while isinstance(event := client.next_event(), h11.Data):
        content += bytes(event.data)
    if event is h11.NEED_DATA:
        client.receive_data(b"")
        try:
            event = client.next_event()
        except h11.RemoteProtocolError:
            assert last and answer.ending in ("short", ""), "a response that was finished breaks off"
            return b""
        assert last and answer.framing == "until_close"
    assert isinstance(event, h11.EndOfMessage)
    assert answer.ending != "short", "a response that was cut looks whole"
    if answer.ending == "":
        assert last and answer.framing != "chunked"
    elif answer.framing in ("chunked", "until_close"):
        assert content == answer.sent
    elif answer.framing == "nothing":
        assert content == b""
    return bytes(client.trailing_data[0])


LIMITS: tuple[dict[str, int | None], ...] = (
    {}, {}, {"body": 4}, {"request_line": 40, "fields": 3}, {"trailers": 8, "chunk_extensions": 5},
)  # fmt: skip


def check_application(data: bytes) -> None:
    """Whatever comes and whatever the application does, what leaves is one whole response to each request, or a visible break."""
    chosen = random.Random(data)
    if chosen.random() < 0.6:
        requests = [Parts(chosen).bytes(chosen) for _ in range(chosen.randrange(5))]
        data = b"".join([*requests, chosen.choice((b"", generate(chosen), data))])
    connection = HttptoolsConnection if chosen.random() < 0.2 else HTTP1Connection
    conversation = Conversation(data, chosen, connection, **chosen.choice(LIMITS))
    conversation.run()
    conversation.check()
