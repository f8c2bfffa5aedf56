"""Every system call on a request's way fails once, at one place after the other, under a real server that goes on.

A library of our own (shim.c) is loaded in front of the C library. What the kernel may do without harm the client never notices;
after anything else a response is whole, or its connection visibly breaks. Then the server serves on, with as many descriptors as
before, and has not complained of itself.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.faulty_app import FILE, LARGE
from support.authority import Authority
from support.process import ServerProcess
from support.wire import Cut, Wire, eventually, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloading and the names of system calls are Linux's")

HERE = Path(__file__).parent
PLAN = struct.Struct("=5i")
CALLS = {"recv": 1, "send": 2, "sendmsg": 3, "sendfile": 4, "accept4": 5, "epoll_ctl": 6, "epoll_wait": 7}  # as in shim.c
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


class FaultyServer:
    def __init__(self, server: ServerProcess, plan: mmap.mmap, tls: ssl.SSLContext | None) -> None:
        self.process = server
        self._plan = plan
        self._tls = tls

    def fail(self, call: str, error: str, at: int, times: int = 1) -> None:
        PLAN.pack_into(self._plan, 0, CALLS[call], getattr(errno, error), at, 0, times)

    def disarm(self) -> None:
        PLAN.pack_into(self._plan, 0, 0, 0, 0, 0, 0)

    @property
    def struck(self) -> int:
        return int(PLAN.unpack_from(self._plan)[3])

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ask_everything(self) -> bool:
        """All requests on one connection; whether all answers came. One that looks whole must be right."""
        try:
            with Wire((self.process.host, self.process.port), tls=self._tls) as wire:
                for raw, answer in REQUESTS:
                    wire.send(raw)
                    response = wire.read_response()
                    assert (response.status, response.body) == (200, answer)
        except (Cut, OSError):
            return False
        return True

    def complaints(self) -> list[str]:
        lines = self.process.stderr_text().splitlines()
        return [line for line in lines if "Traceback" in line or " bug " in line or "Exception" in line]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", HERE / "shim.c", "-o", library, "-ldl"], check=True)
    return library


@contextmanager
def start(interface: str, shim: Path, folder: Path, authority: Authority | None = None) -> Iterator[FaultyServer]:
    path = folder / "plan"
    path.write_bytes(bytes(PLAN.size))
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(shim)]))
    options = [f"faulty_app:{interface}", "--interface", interface, "--no-access-log", "--timeout-keep-alive", "1h"]
    if authority is not None:
        options += authority.options("localhost")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), PLAN.size) as plan:
        with ServerProcess(options, cwd=HERE, env={"LD_PRELOAD": preload, "FAULT_PLAN": str(path)}) as server:
            yield FaultyServer(server, plan, None if authority is None else authority.client())


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
    assert faulty.ask_everything()
    before = faulty.descriptors
    struck = 0
    for at in range(PLACES):
        faulty.fail(call, error, at)
        whole = faulty.ask_everything()
        struck += faulty.struck
        faulty.disarm()
        assert whole or noticed, f"place {at}"
        assert faulty.ask_everything(), f"after place {at}"
    eventually(lambda: faulty.descriptors <= before, "the descriptors")
    assert faulty.complaints() == []
    assert struck, "the server never made this call"


def test_a_server_that_can_no_longer_poll_ends_where_it_is_seen(shim: Path, tmp_path: Path) -> None:
    with start("wsgi", shim, tmp_path) as server:
        server.fail("epoll_wait", "EBADF", 0, times=1_000_000)
        server.ask_everything()
        assert server.process.wait() == 1
        assert "the engine cannot go on" in server.process.stderr_text()
