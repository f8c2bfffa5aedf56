"""The access log of real servers: one line per request, escaped, and never in the way."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.client import connect, fetch, read_answer
from support.process import DEADLINE, ServerProcess, clean_environment, run_duckfast
from support.wire import Wire

HERE = Path(__file__).parent
LINE = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
    r'"(?P<request>[^"]*)" (?P<status>\d{3}) (?P<size>\d+) \d+\.\d{6}'
)


def logged(text: str) -> list[tuple[str, int, int]]:
    lines = text.splitlines()
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found), lines
    return [(match["request"], int(match["status"]), int(match["size"])) for match in found if match]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_every_request_is_one_line(interface: str) -> None:
    with ServerProcess([f"corpus_app:{interface}", "--interface", interface], cwd=HERE) as server:
        sizes = [len(fetch(server.url, f"/page/{number}?a=b").body) for number in range(20)]
    expected = [(f"GET /page/{number}?a=b HTTP/1.1", 200, size) for number, size in enumerate(sizes)]
    assert logged(server.stdout_text()) == expected


def test_quotes_backslashes_and_high_bytes_are_escaped() -> None:
    with ServerProcess(["corpus_app:wsgi", "--interface", "wsgi"], cwd=HERE) as server:
        with connect(server.url) as client:
            client.sendall(b'GET /"\\\xff HTTP/1.0\r\n\r\n')
            size = len(read_answer(client).body)
    assert logged(server.stdout_text()) == [(r"GET /\x22\x5c\xff HTTP/1.0", 200, size)]


def test_an_app_that_fails_is_logged_as_500() -> None:
    with ServerProcess(["corpus_app:fails", "--interface", "wsgi"], cwd=HERE) as server:
        assert fetch(server.url, "/x").status == 500
    assert [line[:2] for line in logged(server.stdout_text())] == [("GET /x HTTP/1.1", 500)]


def test_a_log_that_nobody_reads_costs_lines_not_requests() -> None:
    """Standard output is a pipe that is full from the start: requests go on, and the loss is told once somebody reads."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    filled = 0
    while True:
        try:
            filled += os.write(write_end, b"\n" * 65536)
        except BlockingIOError:
            break
    os.set_blocking(write_end, True)
    command = [sys.executable, "-m", "duckfast", "corpus_app:wsgi", "--interface", "wsgi", "--uds", "log.sock"]
    server = subprocess.Popen(
        [*command], cwd=HERE, env=clean_environment(), stdout=write_end, stderr=subprocess.PIPE, text=True
    )
    os.close(write_end)
    try:
        assert server.stderr is not None
        server.stderr.readline()
        with connect(f"unix:{HERE / 'log.sock'}") as client:
            for _ in range(500):  # more than a megabyte of lines
                client.sendall(b"GET /" + b"long" * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                assert read_answer(client).status == 200
        server.terminate()
        with os.fdopen(read_end, "rb") as log:
            text = log.read()[filled:].decode()
        told = server.stderr.read()
        assert server.wait(DEADLINE) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close() if server.stderr else None
    assert text.count("GET /long") >= 100
    lost = [int(number) for number in re.findall(r"warning  (\d+) access lines lost", told)]
    assert sum(lost) == 500 - text.count("GET /long") > 0


JSON = ("--access-log-format", "json")
INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])
BOTH_READERS = pytest.mark.parametrize("reader", ["duckfast", "httptools"])


def log_app(interface: str, *options: str) -> ServerProcess:
    return ServerProcess([f"log_app:{interface}", "--interface", interface, *options], cwd=HERE)


def objects(server: ServerProcess) -> list[dict[str, Any]]:
    """The access lines of a server that has ended."""
    return [json.loads(line) for line in server.stdout_text().splitlines()]


@INTERFACES
def test_json_lines_hold_what_was_asked_and_answered(interface: str) -> None:
    with log_app(interface, *JSON) as server:
        fetch(server.url, "/read?q=1", method="POST", body=b"12345", headers={"User-Agent": "us", "X-Request-ID": "id-7"})
    (found,) = objects(server)
    duration = found.pop("duration")
    assert isinstance(duration, float) and duration > 0 and found.pop("time").endswith("Z")
    assert found == {
        "client": "127.0.0.1", "method": "POST", "path": "/read", "query": "q=1", "protocol": "HTTP/1.1", "status": 200,
        "bytes_sent": 5, "bytes_received": 5, "host": "localhost", "referer": None, "user_agent": "us", "request_id": "id-7",
    }  # fmt: skip


@INTERFACES
@pytest.mark.parametrize(
    ("method", "path", "status", "sent"),
    [("HEAD", "/", 200, 0), ("GET", "/status/304", 304, 0), ("GET", "/status/204", 204, 0), ("GET", "/status/404", 404, 5)],
)
def test_a_response_without_a_body_sent_none(interface: str, method: str, path: str, status: int, sent: int) -> None:
    with log_app(interface) as server:
        fetch(server.url, path, method=method)
    assert logged(server.stdout_text()) == [(f"{method} {path} HTTP/1.1", status, sent)]


@INTERFACES
def test_answers_that_the_server_gives_for_the_app_count_their_bytes(interface: str) -> None:
    with log_app(interface) as server:
        sizes = [len(fetch(server.url, "/fails", method=method).body) for method in ("GET", "HEAD")]
    assert [line[1:] for line in logged(server.stdout_text())] == [(500, size) for size in sizes]
    assert sizes[0] > 0 and sizes[1] == 0


@INTERFACES
def test_a_response_that_breaks_counts_what_was_sent(interface: str) -> None:
    with log_app(interface) as server:
        with connect(server.url) as client:
            client.sendall(b"GET /breaks HTTP/1.1\r\nHost: a\r\n\r\n")
            while client.recv(4096):
                pass
    assert logged(server.stdout_text()) == [("GET /breaks HTTP/1.1", 200, 5)]


@INTERFACES
def test_a_client_that_leaves_in_the_middle_is_logged_with_what_it_may_have_got(interface: str) -> None:
    with log_app(interface) as server:
        with connect(server.url) as client:
            client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(4096)
        server.wait_for_stdout("/big")
    ((request, status, sent),) = logged(server.stdout_text())
    assert (request, status) == ("GET /big HTTP/1.1", 200)
    assert 0 < sent < 60_000_000


def test_a_client_that_leaves_before_the_response_is_499() -> None:
    with log_app("asgi") as server:
        with connect(server.url) as client:
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            server.wait_for_stderr("begun")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leave by a reset
        server.wait_for_stdout("/wait")
    assert logged(server.stdout_text()) == [("GET /wait HTTP/1.1", 499, 0)]


REFUSED = {
    b"GET / HTTP/1.1\r\n\r\n": (400, "GET / HTTP/1.1"),
    b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n": (400, r"GET /\x1b[2J HTTP/1.1"),
    b"\x16\x03\x01\x02\x00": (400, r"\x16\x03\x01\x02"),
    b"\n": (400, "-"),
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n": (413, "POST / HTTP/1.1"),
    b"GET /" + b"a" * 300: (414, "GET /" + "a" * 200),
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n": (417, "POST / HTTP/1.1"),
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 300: (431, "GET / HTTP/1.1"),
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n": (501, "CONNECT a:1 HTTP/1.1"),
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n": (505, "GET / HTTP/2.0"),
    b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n": (400, "POST /read HTTP/1.1"),
}
LIMITS = ("--limit-request-line", "200", "--limit-request-field-size", "200", "--limit-request-body", "1000")


@INTERFACES
@BOTH_READERS
def test_a_refused_request_is_one_line_and_its_reason_another(interface: str, reader: str) -> None:
    answers = []
    with log_app(interface, *LIMITS, "--http", reader) as server:
        for raw in REFUSED:
            with connect(server.url) as client:
                client.sendall(raw)
                answers.append(read_answer(client))
    lines = logged(server.stdout_text())
    assert [answer.status for answer in answers] == [status for status, _ in REFUSED.values()]
    assert [(status, size) for _, status, size in lines] == [(answer.status, len(answer.body)) for answer in answers]
    for (request, _, _), (_, expected) in zip(lines, REFUSED.values(), strict=True):
        assert request.startswith(expected)
    told = re.findall(r"info     (127\.0\.0\.1: refused with .*)", server.stderr_text())
    assert told == [f"127.0.0.1: refused with {answer.status}: {answer.text.strip()}" for answer in answers]


@INTERFACES
def test_a_head_that_takes_too_long_is_one_line(interface: str) -> None:
    with log_app(interface, "--timeout-request-headers", "100ms", *JSON) as server:
        with connect(server.url) as client:
            client.sendall(b"\r\nGET /slow?a HTTP/1.1\r\nHo")
            answer = read_answer(client)
    (found,) = objects(server)
    assert (answer.status, found["status"], found["bytes_sent"]) == (408, 408, len(answer.body))
    assert (found["method"], found["path"], found["query"]) == ("GET", "/slow", "a")


@INTERFACES
def test_the_second_request_of_a_connection_is_refused_on_a_line_of_its_own(interface: str) -> None:
    with log_app(interface) as server:
        with Wire((server.host, server.port)) as wire:
            wire.send(b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b\x00 HTTP/1.1\r\n\r\n")
            assert [wire.read_response("POST").status, wire.read_response().status] == [200, 400]
    assert [line[:2] for line in logged(server.stdout_text())] == [
        ("POST /read HTTP/1.1", 200), (r"GET /b\x00 HTTP/1.1", 400)
    ]  # fmt: skip


def test_many_refused_requests_cannot_fill_the_error_log() -> None:
    with log_app("wsgi") as server:
        for _ in range(300):
            with connect(server.url) as client:
                client.sendall(b"\n")
                assert read_answer(client).status == 400
    assert len(logged(server.stdout_text())) == 300
    assert 10 <= server.stderr_text().count("refused with 400") <= 200


@INTERFACES
def test_template_reads_fields_of_both_sides(interface: str) -> None:
    template = "%(h)s %(s)s %({x-own}o)s|%({content-length}o)s|%({content-type}o)s %({host}i)s"
    with log_app(interface, "--access-logformat", template) as server:
        fetch(server.url, "/")
        fetch(server.url, "/fails")
        with connect(server.url) as client:
            client.sendall(b"\n")
            length = read_answer(client).headers["content-length"]
    lines = server.stdout_text().splitlines()
    assert lines[0].startswith("127.0.0.1 200 of the app|")
    assert lines[0].endswith("|- localhost")
    assert lines[1].startswith("127.0.0.1 500 -|")
    assert lines[2] == f"127.0.0.1 400 -|{length}|text/plain; charset=utf-8 -"


def test_wrong_format_ends_the_start_with_a_suggestion() -> None:
    done = run_duckfast("log_app:wsgi", "--access-log-format", "%(metod)s", cwd=HERE)
    assert done.returncode == 2
    assert done.stderr == "duckfast: --access-log-format: %(metod)s is no atom; did you mean %(method)s?\n"
