"""Four readers of the same bytes, in whatever pieces: ours, ours with llhttp behind it, httptools as it comes, and h11.

Each gives the whole requests it saw, in one shape, and how it ended. None of them knows another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import h11
import httptools
from support.corpus import probe

from duckfast._http1 import HTTP1Connection
from duckfast._httptools import HttptoolsConnection

# Endings: "waits" (between requests or inside one), "refuses", "closes" (the last request asked for it), "upgrades". Of ours,
# "refuses content" tells that the head was accepted.


@dataclass
class Request:
    method: bytes = b""
    target: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)  # names in lower case, values trimmed
    body: bytes = b""


@dataclass
class Reading:
    requests: list[Request]
    ending: str
    why: str = ""


def read_by(connection: type[HTTP1Connection], pieces: Sequence[bytes]) -> Reading:
    door = probe(connection)
    waiting = list(pieces)
    requests: list[Request] = []
    request = Request()
    in_content = False
    while True:
        event, *values = door.poll()
        if event == "request":
            in_content = True
            head = values[0]
            fields = [(name.lower(), value) for name, value in head["fields"]]
            request = Request(head["method"], head["target"], fields)
        elif event == "data":
            request.body += values[0]
        elif event == "end":
            in_content = False
            requests.append(request)
            if not door.connection.request_keep_alive:
                return Reading(requests, "closes")
        elif event == "paused":
            door.next_request()
        elif event == "failed":
            return Reading(requests, "refuses content" if in_content else "refuses", values[1])
        elif waiting:
            door.feed(waiting.pop(0))
        else:
            return Reading(requests, "waits")


def read_by_ours(pieces: Sequence[bytes]) -> Reading:
    return read_by(HTTP1Connection, pieces)


def read_by_ours_with_llhttp(pieces: Sequence[bytes]) -> Reading:
    return read_by(HttptoolsConnection, pieces)


class Collector:
    """Takes llhttp's callbacks; `parser` is set once there is one."""

    parser: Any

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.request = Request()
        self.in_head = True
        self.closes = False

    def on_message_begin(self) -> None:
        self.request = Request()
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self.request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.request.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.request.method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.request.body += body

    def on_message_complete(self) -> None:
        self.requests.append(self.request)
        self.closes = not self.parser.should_keep_alive()


def read_by_httptools(pieces: Sequence[bytes]) -> Reading:
    collector = Collector()
    collector.parser = httptools.HttpRequestParser(collector)
    try:
        for piece in pieces:
            collector.parser.feed_data(piece)
    except httptools.HttpParserUpgrade:
        return Reading(collector.requests, "upgrades")
    except httptools.HttpParserError as error:
        return Reading(collector.requests, "closes" if collector.closes else "refuses", str(error))
    return Reading(collector.requests, "closes" if collector.closes else "waits")


def read_by_h11(pieces: Sequence[bytes]) -> Reading:
    waiting = list(pieces)
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    requests: list[Request] = []
    request = Request()
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError as error:
            return Reading(requests, "refuses", str(error))
        if isinstance(event, h11.Request):
            fields = [(bytes(name).lower(), bytes(value)) for name, value in event.headers]
            request = Request(bytes(event.method), bytes(event.target), fields)
        elif isinstance(event, h11.Data):
            request.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            requests.append(request)
            server.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE:
                return Reading(requests, "closes")
        elif event is h11.PAUSED:
            if server.our_state is h11.DONE and server.their_state is h11.DONE:
                server.start_next_cycle()
            else:
                return Reading(requests, "upgrades")
        else:
            if server.our_state is h11.DONE and server.their_state is h11.DONE:
                server.start_next_cycle()
            elif waiting:
                server.receive_data(waiting.pop(0))
            else:
                return Reading(requests, "waits")


OTHERS: dict[str, Callable[[Sequence[bytes]], Reading]] = {
    "ours with llhttp": read_by_ours_with_llhttp,
    "httptools": read_by_httptools,
    "h11": read_by_h11,
}
