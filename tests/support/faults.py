"""Servers with tests/faults/shim.c loaded in front of the C library, and the plan that both map: which call fails, and when."""

from __future__ import annotations

import errno
import mmap
import os
import ssl
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.authority import Authority
from support.process import ServerProcess

FOLDER = Path(__file__).parent.parent / "faults"
PLAN = struct.Struct("=5i")
CALLS = {"recv": 1, "send": 2, "sendmsg": 3, "sendfile": 4, "accept4": 5, "epoll_ctl": 6, "epoll_wait": 7}
CALLS |= {"own": 8, "foreign": 9, "python": 10}  # of memory; all as in shim.c


class FaultyServer:
    def __init__(self, server: ServerProcess, plan: mmap.mmap, tls: ssl.SSLContext | None) -> None:
        self.process = server
        self._plan = plan
        self.tls = tls

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

    def complaints(self) -> list[str]:
        lines = self.process.stderr_text().splitlines()
        return [line for line in lines if "Traceback" in line or " bug " in line or "Exception" in line]


def compile_shim(library: Path) -> Path:
    compiler = os.environ.get("CC", "cc")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, FOLDER / "shim.c", "-o", library, "-ldl"], check=True)
    return library


@contextmanager
def start(
    interface: str,
    shim: Path,
    folder: Path,
    authority: Authority | None = None,
    *,
    app: str = "faulty_app",
    options: Iterable[str] = ("--no-access-log",),
) -> Iterator[FaultyServer]:
    path = folder / "plan"
    path.write_bytes(bytes(PLAN.size))
    # In front of a sanitizer's own library, or its malloc would be called instead of ours.
    preload = " ".join(filter(None, [str(shim), os.environ.get("LD_PRELOAD")]))
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    options = [f"{app}:{interface}", "--interface", interface, "--timeout-keep-alive", "1h", *options]
    if authority is not None:
        options += authority.options("localhost")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), PLAN.size) as plan:
        env = {"LD_PRELOAD": preload, "FAULT_PLAN": str(path), "ASAN_OPTIONS": sanitizer}
        with ServerProcess(options, cwd=FOLDER, env=env) as server:
            yield FaultyServer(server, plan, None if authority is None else authority.client())
