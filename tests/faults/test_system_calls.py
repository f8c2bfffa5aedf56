"""Every system call on a request's way fails once, at one place after the other, under a real server that goes on.

A library of our own (shim.c) is loaded in front of the C library. What the kernel may do without harm the client never notices;
after anything else a response is whole, or its connection visibly breaks. Then the server serves on, with as many descriptors as
before, and has not complained of itself.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.faulty_app import FILE, LARGE
from support.authority import Authority
from support.faults import FaultyServer, start
from support.wire import Cut, Wire, eventually, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloading and the names of system calls are Linux's")

UNNOTICED = {
    "recv": ["EINTR"],
    "send": ["EINTR"],
    "sendmsg": ["EINTR"],
    "sendfile": ["EINTR"],
    "accept4": ["EINTR", "EAGAIN", "ECONNABORTED", "EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EPROTO", "EPERM"],
    "epoll_wait": ["EINTR"],
}
BREAKING = {
    "recv": ["ECONNRESET", "ETIMEDOUT", "ENOMEM", "EHOSTUNREACH"],
    "send": ["EPIPE", "ECONNRESET", "ENOBUFS", "ENOMEM"],
    "sendmsg": ["EPIPE", "ECONNRESET", "ENOBUFS", "ENOMEM"],
    "sendfile": ["EPIPE", "ECONNRESET", "EIO", "EINVAL", "ENOMEM"],
    "epoll_ctl": ["ENOMEM", "ENOSPC"],
}
PLACES = 4  # each call of the requests below fails at the first, second ... of its kind
UPLOAD = bytes(range(256)) * 1200  # 300 KB: several reads, more than a connection buffers
REQUESTS = [
    (request(target="/"), hashlib.sha256().hexdigest().encode()),
    (request("POST", "/upload", body=UPLOAD), hashlib.sha256(UPLOAD).hexdigest().encode()),
    (request(target="/large"), LARGE),
    (request(target="/file"), FILE.read_bytes()),
]


def ask_everything(server: FaultyServer) -> bool:
    """All requests on one connection; whether all answers came. One that looks whole must be right."""
    try:
        with Wire((server.process.host, server.process.port), tls=server.tls) as wire:
            for raw, answer in REQUESTS:
                wire.send(raw)
                response = wire.read_response()
                assert (response.status, response.body) == (200, answer)
    except (Cut, OSError):
        return False
    return True


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def faulty(request: pytest.FixtureRequest, shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with start(request.param, shim, tmp_path_factory.mktemp("plan")) as server:
        yield server


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def faulty_tls(
    request: pytest.FixtureRequest, shim: Path, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[FaultyServer]:
    with start(request.param, shim, tmp_path_factory.mktemp("plan"), authority) as server:
        yield server


def cases(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(call, error) for call, errors in table.items() for error in errors]


@pytest.mark.parametrize("call, error", cases(UNNOTICED))
def test_clients_do_not_notice_what_the_kernel_may_do(faulty: FaultyServer, call: str, error: str) -> None:
    check(faulty, call, error, noticed=False)


@pytest.mark.parametrize("call, error", cases(BREAKING))
def test_an_error_breaks_a_response_visibly_or_not_at_all(faulty: FaultyServer, call: str, error: str) -> None:
    check(faulty, call, error, noticed=True)


@pytest.mark.parametrize("call", ["recv", "send"])
def test_clients_do_not_notice_an_interrupted_call_under_tls(faulty_tls: FaultyServer, call: str) -> None:
    check(faulty_tls, call, "EINTR", noticed=False)


@pytest.mark.parametrize("call, error", [("recv", "ECONNRESET"), ("recv", "ETIMEDOUT"), ("send", "EPIPE"), ("send", "ENOBUFS")])
def test_an_error_under_tls_breaks_a_response_visibly_or_not_at_all(faulty_tls: FaultyServer, call: str, error: str) -> None:
    check(faulty_tls, call, error, noticed=True)


def check(faulty: FaultyServer, call: str, error: str, *, noticed: bool) -> None:
    assert ask_everything(faulty)
    before = faulty.descriptors
    struck = 0
    for at in range(PLACES):
        faulty.fail(call, error, at)
        whole = ask_everything(faulty)
        struck += faulty.struck
        faulty.disarm()
        assert whole or noticed, f"place {at}"
        assert ask_everything(faulty), f"after place {at}"
    eventually(lambda: faulty.descriptors <= before, "the descriptors")
    assert faulty.complaints() == []
    assert struck, "the server never made this call"


def test_a_server_that_can_no_longer_poll_ends_where_it_is_seen(shim: Path, tmp_path: Path) -> None:
    with start("wsgi", shim, tmp_path) as server:
        server.fail("epoll_wait", "EBADF", 0, times=1_000_000)
        ask_everything(server)
        assert server.process.wait() == 1
        assert "the engine cannot go on" in server.process.stderr_text()
