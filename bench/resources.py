"""Memory and fairness of real duckfast processes against fixed limits: idle connections, huge bodies, slow readers, sleepers.

Prints a Markdown table; exit code 1 if a limit is broken. See README.md. Linux, two cores and wrk.
"""

import argparse
import fnmatch
import os
import resource
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apps
from harness import measure, processes, tools
from harness.client import Visitor, WrongAnswer, free_port, percentile, receive_response, unverified
from harness.measure import Failed
from harness.servers import duckfast_command

CONNECTIONS = 10_000
DESCRIPTORS = CONNECTIONS + 1000  # the server's own, and wrk's beside them
SOURCES = 4  # loopback addresses the clients come from: one alone has some 28,000 ports, less those in TIME_WAIT
KEEP_ALIVE = 600  # seconds; the connections must outlive the measurement
GIBIBYTE = 1 << 30
PIECE = 1 << 20  # bytes the uploading client hands over at once
SLOW_SECONDS = 20
SLOW_RATE = 1024  # bytes per second
SETTLE = 1.0  # second for the kernel and the server to finish what the clients began

ABORTED = 10_000  # handshakes
ABORTED_GROWTH = 1 << 20  # bytes; one leaked handshake is some 50 KiB
SECURE = 1000  # idle TLS connections

BYTES_PER_SECURE = 24 * 1024
BYTES_PER_IDLE = 1.5 * 1024
MEMORY_LIMIT = 100e6  # bytes, the highest resident size of the whole tree
NOT_SLOWER = 1.10  # what two measurements of the same differ by on a shared machine
SLEEP_FLOOR = 700.0  # requests/s of at most 800
FAST_VIEW = 0.010  # seconds: single milliseconds


@dataclass(frozen=True)
class Proof:
    what: str
    limit: str
    found: str
    passed: bool

    def line(self) -> str:
        return f"| {self.what} | {self.limit} | {self.found} | {'pass' if self.passed else '**FAIL**'} |"


@dataclass(frozen=True)
class Running:
    process: processes.Process
    port: int

    @property
    def rss(self) -> int:
        return processes.memory(self.process.pid).rss

    @property
    def peak(self) -> int:
        return processes.memory(self.process.pid).peak


class Bench:
    """The tools the proofs share."""

    def __init__(self, duckfast: list[str], wrk: str) -> None:
        self._duckfast = duckfast
        self._wrk = wrk

    @contextmanager
    def server(self, interface: str, *, threads: int = 8, more: tuple[str, ...] = ()) -> Iterator[Running]:
        with tempfile.TemporaryDirectory(prefix="duckfast-resources-") as name:
            port = free_port()
            command = duckfast_command(self._duckfast, interface, port, threads=threads, more=more)
            output = Path(name) / "output"
            with processes.Process(
                command, environ=tools.server_environ(), cwd=tools.BENCH, output=output, core=measure.SERVER_CORE
            ) as process:
                wait_until_up(process, port, "--ssl-certfile" in more)
                try:
                    yield Running(process, port)
                finally:
                    # Whatever went wrong before: this is why.
                    if process.exited is not None:
                        raise Failed(f"the server ended by itself with {process.exited}: {process.tail(300)}")

    def load(self, server: Running, path: str, seconds: int, connections: int = measure.CONNECTIONS) -> measure.Load:
        seen = measure.load(self._wrk, server.port, path, seconds, connections=connections)
        if (complaint := measure.complaint(seen, 1)) is not None:
            raise Failed(f"GET {path}: {complaint}")
        return seen

    def cpu_per_request(self, server: Running, seconds: int = 2) -> float:
        before = processes.usage(server.process.pid)
        seen = self.load(server, "/", seconds)
        return processes.usage(server.process.pid).since(before).total / seen.requests


def wait_until_up(process: processes.Process, port: int, tls: bool) -> None:
    deadline = time.monotonic() + measure.START_TIMEOUT
    while True:
        if process.exited is not None or time.monotonic() > deadline:
            raise Failed(f"the server did not come up:\n{process.tail()}")
        try:
            with connect(port) as connection:
                if tls or get(connection, "/") == apps.HELLO:
                    return
        except OSError:
            time.sleep(0.05)


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def get(connection: socket.socket, path: str) -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return receive_response(connection)


def latency(port: int, seconds: float = 1.5) -> float:
    """The median a light visitor sees, seconds."""
    visitor = Visitor(port)
    visitor.start()
    time.sleep(seconds)
    seen = visitor.finish()
    if visitor.error is not None:
        raise Failed(visitor.error)
    return percentile(seen, 0.5)


# Idle connections --------------------------------------------------------------------------------------------------


def idle(bench: Bench, interface: str) -> Iterator[Proof]:
    """Each connection has been answered once, as a browser's has, and then says nothing."""
    with bench.server(interface, more=("--timeout-keep-alive", str(KEEP_ALIVE))) as server:
        bench.load(server, "/", 1)
        cpu_without = bench.cpu_per_request(server)
        latency_without = latency(server.port)
        before = server.rss
        with hold_connections(server.port) as count_open:
            growth = (server.rss - before) / CONNECTIONS
            cpu_beside = bench.cpu_per_request(server)
            latency_beside = latency(server.port)
            still_open = count_open()
        cpu_without = max(cpu_without, bench.cpu_per_request(server))
        latency_without = max(latency_without, latency(server.port))
    what = f"{interface}: {CONNECTIONS:,} idle connections"
    yield Proof(f"{what}, still open at the end", f"{CONNECTIONS:,}", f"{still_open:,}", still_open == CONNECTIONS)
    yield Proof(f"{what}, memory each", f"<= {BYTES_PER_IDLE:.0f} bytes", f"{growth:.0f} bytes", growth <= BYTES_PER_IDLE)
    yield not_slower(f"{what}, CPU of a request beside them", cpu_without, cpu_beside)
    yield not_slower(f"{what}, latency of a request beside them", latency_without * 1e6, latency_beside * 1e6)


def not_slower(what: str, without: float, beside: float) -> Proof:
    limit = without * NOT_SLOWER
    return Proof(what, f"<= {limit:.1f} us ({without:.1f} without, +10 %)", f"{beside:.1f} us", beside <= limit)


@contextmanager
def hold_connections(port: int) -> Iterator[Callable[[], int]]:
    """In a process of its own: its descriptors and its CPU are not the measuring one's."""
    holder = subprocess.Popen(
        [sys.executable, __file__, "--hold", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None and holder.stdout is not None
    ask, answers = holder.stdin, holder.stdout

    def count_open() -> int:
        ask.write("count\n")
        ask.flush()
        return int(answers.readline())

    try:
        if answers.readline().strip() != "ready":
            raise Failed(f"the clients could not open {CONNECTIONS:,} connections")
        time.sleep(SETTLE)
        yield count_open
    finally:
        ask.close()
        holder.wait()
        time.sleep(SETTLE)


def hold(port: int) -> int:
    """The holding process: opens all connections, says so, and counts the living ones when asked."""
    connections = []
    for number in range(CONNECTIONS):
        connection = connect(port, f"127.0.0.{number % SOURCES + 1}")
        if get(connection, "/") != apps.HELLO:
            return 1
        connections.append(connection)
    print("ready", flush=True)
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    for _ in sys.stdin:
        # Nobody asked anything on them: readable means closed by the server.
        print(CONNECTIONS - len(poll.poll(0)), flush=True)
    return 0


# TLS ---------------------------------------------------------------------------------------------------------------


def handshakes(bench: Bench, interface: str) -> Iterator[Proof]:
    """Clients that leave in the middle of a handshake, in three ways; then connections that are idle."""
    certificate, key = tools.certificate()
    more = ("--ssl-certfile", certificate, "--ssl-keyfile", key, "--timeout-keep-alive", str(KEEP_ALIVE))
    with bench.server(interface, more=more) as server:
        break_off_handshakes(server.port, ABORTED // 10)  # allocators have seen it all by then
        before = server.rss
        break_off_handshakes(server.port, ABORTED)
        time.sleep(SETTLE)
        growth = server.rss - before
        what = f"{interface}: memory after {ABORTED:,} aborted handshakes"
        yield Proof(what, f"<= {ABORTED_GROWTH >> 10} KiB more", f"{growth >> 10} KiB", growth <= ABORTED_GROWTH)
        before = server.rss
        clients = [secure(server.port) for _ in range(SECURE)]
        time.sleep(SETTLE)
        each = (server.rss - before) / SECURE
        what = f"{interface}: {SECURE:,} idle TLS connections, memory each"
        yield Proof(what, f"<= {BYTES_PER_SECURE} bytes", f"{each:.0f} bytes", each <= BYTES_PER_SECURE)
        for client in clients:
            client.close()


def break_off_handshakes(port: int, count: int) -> None:
    outgoing = ssl.MemoryBIO()
    tls = unverified().wrap_bio(ssl.MemoryBIO(), outgoing)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        hello = outgoing.read()
    for number in range(count):
        with connect(port) as connection:
            connection.sendall(hello[:40] if number % 3 == 0 else hello)
            if number % 3 == 2:
                connection.recv(1)  # the server has signed by then


def secure(port: int) -> ssl.SSLSocket:
    connection = unverified().wrap_socket(connect(port))
    if get(connection, "/") != apps.HELLO:
        raise Failed("a wrong answer over TLS")
    return connection


# Huge bodies and slow readers --------------------------------------------------------------------------------------


def upload(bench: Bench, interface: str) -> Iterator[Proof]:
    with bench.server(interface) as server:
        begun = time.monotonic()
        with connect(server.port) as connection:
            head = f"POST /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {GIBIBYTE}\r\n\r\n"
            connection.sendall(head.encode())
            piece = bytes(PIECE)
            for _ in range(GIBIBYTE // PIECE):
                connection.sendall(piece)
            received = int(receive_response(connection))
        seconds = time.monotonic() - begun
        yield bounded(f"{interface}: 1 GiB upload ({seconds:.1f} s)", server.peak, received == GIBIBYTE)


def download(bench: Bench, interface: str) -> Iterator[Proof]:
    with bench.server(interface) as server:
        begun = time.monotonic()
        with connect(server.port) as connection:
            connection.sendall(b"GET /download HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            received = receive_many(connection, GIBIBYTE)
        seconds = time.monotonic() - begun
        yield bounded(f"{interface}: 1 GiB streamed download ({seconds:.1f} s)", server.peak, received == GIBIBYTE)


def receive_many(connection: socket.socket, size: int) -> int:
    """Bytes of the body received; stops at `size`, or early where the server does."""
    buffer = bytearray(PIECE)
    begin = connection.recv(65536)
    while b"\r\n\r\n" not in begin:
        begin += connection.recv(65536)
    received = len(begin) - begin.index(b"\r\n\r\n") - 4
    while received < size and (count := connection.recv_into(buffer)):
        received += count
    return received


def receive_exactly(connection: socket.socket, size: int) -> int:
    received = 0
    while received < size and (piece := connection.recv(size - received)):
        received += len(piece)
    return received


def slow(bench: Bench, interface: str) -> Iterator[Proof]:
    with bench.server(interface) as server:
        visitor = Visitor(server.port)
        with socket.socket() as connection:
            # Before connecting: the window offered to the server is made from it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(30)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(b"GET /download HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            visitor.start()
            received = 0
            for _ in range(SLOW_SECONDS):
                received += receive_exactly(connection, SLOW_RATE)
                time.sleep(1)
        beside = percentile(visitor.finish(), 0.99)
        what = f"{interface}: a client reading 1 KB/s for {SLOW_SECONDS} s"
        yield bounded(what, server.peak, received == SLOW_SECONDS * SLOW_RATE)
        passed = visitor.error is None and beside < FAST_VIEW
        yield Proof(f"{what}, p99 of a view beside it", "< 10 ms", visitor.error or f"{beside * 1000:.2f} ms", passed)


def bounded(what: str, peak: int, complete: bool) -> Proof:
    found = f"{peak / 1e6:.1f} MB" + ("" if complete else ", NOT ALL BYTES ARRIVED")
    return Proof(f"{what}, highest memory", f"< {MEMORY_LIMIT / 1e6:.0f} MB", found, complete and peak < MEMORY_LIMIT)


# Sleeping views ----------------------------------------------------------------------------------------------------


def sleep(bench: Bench, interface: str) -> Iterator[Proof]:
    """64 connections keep all 8 threads in a view that blocks 10 ms; then 4 connections, so that threads are free."""
    with bench.server("wsgi", threads=8) as server:
        bench.load(server, "/sleep", 1)
        for connections, floor in ((64, SLEEP_FLOOR), (4, None)):
            visitor = Visitor(server.port)
            visitor.start()
            seen = bench.load(server, "/sleep", 4, connections)
            visits = visitor.finish()
            throughput = seen.requests / seen.duration
            what = f"wsgi: view sleeping 10 ms, 8 threads, {connections} connections"
            if floor is not None:
                yield Proof(f"{what}, requests/s", f">= {floor:.0f}", f"{throughput:.0f}", throughput >= floor)
            p50, p99 = percentile(visits, 0.5), percentile(visits, 0.99)
            found = visitor.error or f"{p50 * 1000:.2f} ms (p99 {p99 * 1000:.2f} ms)"
            yield Proof(f"{what}, fast view beside it, p50", "< 10 ms", found, visitor.error is None and p50 < FAST_VIEW)


PROOFS: dict[str, tuple[Callable[[Bench, str], Iterator[Proof]], tuple[str, ...]]] = {
    "idle": (idle, ("wsgi", "asgi")),
    "upload": (upload, ("wsgi", "asgi")),
    "download": (download, ("wsgi", "asgi")),
    "slow": (slow, ("wsgi", "asgi")),
    "sleep": (sleep, ("wsgi",)),
    "handshakes": (handshakes, ("wsgi", "asgi")),
}


def prove(bench: Bench, globs: list[str]) -> list[Proof]:
    proofs: list[Proof] = []
    for name, (proof, interfaces) in PROOFS.items():
        for interface in interfaces:
            if not any(fnmatch.fnmatch(name, glob) or fnmatch.fnmatch(f"{name}-{interface}", glob) for glob in globs):
                continue
            print(f"{name}-{interface} ...", file=sys.stderr, flush=True)
            try:
                proofs += proof(bench, interface)
            except (Failed, WrongAnswer, OSError) as error:
                text = str(error).replace("\n", " ").replace("|", "/")
                proofs.append(Proof(f"{interface}: {name}", "completes", text, False))
    return proofs


def raise_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= DESCRIPTORS:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(hard, DESCRIPTORS)))
    except (ValueError, PermissionError, OSError) as error:
        message = f"{DESCRIPTORS:,} open files are needed and {hard:,} allowed; run: ulimit -Hn {DESCRIPTORS} as root"
        raise tools.Missing(message) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", metavar="GLOBS", help=f"of {', '.join(PROOFS)}, with -wsgi or -asgi behind")
    parser.add_argument("--duckfast", default=os.environ.get("DUCKFAST"), metavar="COMMAND", help="another build than .venv's")
    parser.add_argument("--hold", type=int, metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold is not None:
        return hold(arguments.hold)
    try:
        wrk = tools.need_command("wrk", "wrk")
        bench = Bench(tools.need_duckfast(arguments.duckfast), wrk)
        raise_descriptors()
    except tools.Missing as error:
        print(error, file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {measure.CLIENT_CORE})
    proofs = prove(bench, arguments.only.replace(",", " ").split())
    print("| what | limit | found | |\n|---|---|---|---|")
    for proof in proofs:
        print(proof.line())
    return 0 if all(proof.passed for proof in proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
