"""The access log of real servers: one line per request, escaped, and never in the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.client import connect, fetch, read_answer
from support.process import DEADLINE, ServerProcess, clean_environment

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
        assert server.wait(DEADLINE) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close() if server.stderr else None
    assert text.count("GET /long") >= 100
    assert re.search(r"^duckfast: \d+ access lines lost, the log was too slow$", text, re.MULTILINE)
