"""The corpus over real sockets: every case through both engines and both readers, whole, byte by byte and at seeded splits."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.corpus import Case, byte_by_byte, expand, load_cases, random_splits, whole
from support.process import ServerProcess

HERE = Path(__file__).parent
TIMEOUT = 20.0  # seconds; only a server that neither answers nor closes reaches it
LONG = 3000  # bytes: a longer case is not sent byte by byte, the bare core has already read it so

# The names of the corpus are those of Limits; a server is given options.
OPTIONS = {
    "request_line": "--limit-request-line",
    "field_line": "--limit-request-field-size",
    "fields": "--limit-request-fields",
    "head": "--limit-request-head",
    "body": "--limit-request-body",
    "chunk_extensions": "--limit-chunk-extensions",
    "trailers": "--limit-request-trailers",
}
SPLITS: dict[str, Callable[[Case], list[bytes]]] = {
    "whole": lambda case: whole(case.raw),
    "byte by byte": lambda case: byte_by_byte(case.raw) if len(case.raw) <= LONG else whole(case.raw),
    "at splits": lambda case: random_splits(case.raw, seed=len(case.raw)),
}

Start = Callable[[str, str, dict[str, int]], ServerProcess]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """A server for an interface, a reader and limits, started once for all its cases."""
    with ExitStack() as running:
        servers: dict[object, ServerProcess] = {}

        def get(interface: str, http: str, limits: dict[str, int]) -> ServerProcess:
            key = (interface, http, *sorted(limits.items()))
            if key not in servers:
                options = [word for name, value in limits.items() for word in (OPTIONS[name], str(value))]
                # A handshake is an ordinary request here; tests/conformance/test_websocket_wire.py is about the others.
                command = [f"corpus_app:{interface}", "--http", http, "--ws", "none", "--no-access-log", *options]
                servers[key] = running.enter_context(ServerProcess(command, cwd=HERE))
            return servers[key]

        yield get


def exchange(port: int, pieces: list[bytes]) -> bytes:
    """Sends the pieces, then ends our half, and returns all that came back."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        received = []
        while data := client.recv(65536):
            received.append(data)
    return b"".join(received)


def read_responses(data: bytes, methods: list[str]) -> list[tuple[int, bytes]]:
    """(status, body) of each final response. Every one of them has a Content-Length here."""
    responses = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, head
        version, status, _ = head.split(b"\r\n")[0].split(b" ", 2)
        assert version == b"HTTP/1.1"
        if status.startswith(b"1"):
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert b"date" in fields and b"transfer-encoding" not in fields
        size = int(fields[b"content-length"])
        if len(responses) < len(methods) and methods[len(responses)] == "HEAD":
            size = 0
        assert len(data) >= size
        responses.append((int(status), data[:size]))
        data = data[size:]
    return responses


def expected_statuses(case: Case, http: str) -> list[list[int]]:
    """Each acceptable sequence of statuses. The client ends its half: a message that still waits for bytes is cut, a 400."""
    cut = [*case.statuses, 400] if case.flow and case.flow[-1] == "wait" else case.statuses
    if http == "duckfast":
        return [cut]
    if case.llhttp_refuses:
        # It refuses one of the requests that we serve: what came before it was answered.
        return [[*cut[:index], 400] for index in range(len(cut) + 1)]
    # What both refuse, llhttp may refuse sooner, without the number that says more than 400.
    return [cut, [*cut[:-1], 400]] if cut and cut[-1] >= 400 else [cut]


CASES = load_cases()


@pytest.mark.parametrize("http", ["duckfast", "httptools"])
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
@pytest.mark.parametrize("topic", sorted({case.topic for case in CASES}))
def test_engines_make_of_the_corpus_what_the_core_does(start: Start, topic: str, interface: str, http: str) -> None:
    wrong = []
    for case in CASES:
        if case.topic != topic:
            continue
        server = start(interface, http, case.limits)
        for name, split in SPLITS.items():
            if http == "httptools" and name != "whole":
                continue
            data = exchange(server.port, split(case))
            methods = [method for method, _, _ in case.requests]
            responses = read_responses(data, methods)
            statuses = [status for status, _ in responses]
            if statuses not in expected_statuses(case, http):
                wrong.append(f"{case.name} ({name}): {case.flow} gave {statuses}")
                continue
            for (method, target, body), (status, answer) in zip(case.requests, responses, strict=False):
                if status == 200 and method != "HEAD" and target.startswith("/"):
                    seen_method, seen_target, seen_body = json.loads(answer)
                    sent_target = expand(target).decode("latin-1")
                    expected = (method, sent_target.rstrip("?"), body.decode("latin-1"))
                    if (seen_method, seen_target.rstrip("?"), seen_body) != expected:
                        wrong.append(f"{case.name} ({name}): {expected} reached the app as {answer!r}")
    assert not wrong, "\n".join(wrong)
