"""Does a deploy lose requests? Clients ask all the time, while workers are reloaded, recycled, upgraded and killed.

Prints a Markdown table of what the clients saw; exit code 1 if a request was lost that another worker could have
served. See README.md.
"""

import argparse
import itertools
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMEOUT = 20.0  # seconds a client waits for an answer
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
KEEP_ALIVE_CLIENTS = 64
NEW_CLIENTS = 4  # each opens a connection per request
EVENT_TIMEOUT = 60.0  # seconds until the server must have said that it is done
PAUSE = 0.01  # seconds a keep-alive client thinks between two requests, so that some are idle at every moment

APP = """
import os

def wsgi(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    assert scope["type"] == "http"  # there is no lifespan, which is found out at every start
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""


class Lost(Exception):
    """A request that got no whole answer."""


@dataclass
class Seen:
    """What the clients saw, all together."""

    answers: int = 0
    connections: int = 0
    lost: list[tuple[str, int | None]] = field(default_factory=list)  # why, and which worker the connection belonged to
    pids: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Clients:
    """Keep-alive clients, and others that connect anew for every request."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, look_first: bool) -> None:
        self.seen = Seen()
        self._look_first = look_first
        self._port = port
        self._tls = tls
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(True,)) for _ in range(KEEP_ALIVE_CLIENTS)]
        self._threads += [threading.Thread(target=self._live, args=(False,)) for _ in range(NEW_CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _live(self, keep: bool) -> None:
        while not self._ending.is_set():
            worker: int | None = None
            try:
                with self._connect() as sock:
                    with self.seen.lock:
                        self.seen.connections += 1
                    closes = False
                    while not closes and not self._ending.is_set():
                        worker, closes = self._ask(sock)
                        with self.seen.lock:
                            self.seen.answers += 1
                            self.seen.pids[worker] += 1
                        if not keep:
                            break
                        time.sleep(PAUSE)
                        if self._look_first and select.select([sock], [], [], 0)[0]:
                            break  # closed while it was idle: no request is on its way
            except (OSError, Lost) as error:
                with self.seen.lock:
                    self.seen.lost.append((f"{type(error).__name__}: {error}", worker))

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._port), TIMEOUT)
        return sock if self._tls is None else self._tls.wrap_socket(sock, server_hostname="localhost")

    def _ask(self, sock: socket.socket) -> tuple[int, bool]:
        sock.sendall(REQUEST)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more(sock, data)
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Lost(f"answer {head[:40]!r}")
        size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if size is None:
            raise Lost("no length")
        while len(body) < int(size[1]):
            body += self._more(sock, data)
        return int(body), re.search(rb"(?i)\r\nconnection: *close", head) is not None

    def _more(self, sock: socket.socket, so_far: bytes) -> bytes:
        piece = sock.recv(65536)
        if not piece:
            raise Lost(f"closed after {len(so_far)} bytes of the answer")
        return piece


class Server:
    """`duckfast` with workers, and what it says."""

    def __init__(self, duckfast: str, interface: str, folder: Path, options: list[str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [duckfast, f"app:{interface}", "--port", str(self.port), "--workers", "2", "--no-access-log",
                   "--log-level", "debug", *options]
        self._process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for(" serving ")

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def mark(self) -> int:
        return len(self.lines)

    def wait_for(self, text: str, since: int = 0, times: int = 1) -> None:
        with self._changed:
            found = self._changed.wait_for(
                lambda: sum(text in line for line in self.lines[since:]) >= times, EVENT_TIMEOUT
            )
        if not found:
            raise SystemExit(f"the server never said {text!r}:\n" + "\n".join(self.lines[-40:]))

    def signal(self, signum: int) -> None:
        os.kill(self._process.pid, signum)

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self._process.wait(60)


def renew(server: Server, signum: int, count: int) -> None:
    for _ in range(count):
        since = server.mark()
        server.signal(signum)
        server.wait_for("the old retire", since)
        server.wait_for("has ended", since, 2)


def recycles(server: Server, count: int) -> None:
    server.wait_for("has ended", 0, count)


def kills(server: Server, count: int) -> Iterator[int]:
    for _ in range(count):
        since = server.mark()
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        yield victim
        server.wait_for("has died", since)
        server.wait_for("is ready", since)


def certificate(folder: Path) -> tuple[list[str], ssl.SSLContext]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True)
    return ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key)], ssl.create_default_context(cafile=cert)


def trial(duckfast: str, interface: str, tls: bool, what: str, count: int, options: list[str]) -> bool:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        context = None
        if tls:
            more, context = certificate(folder)
            options = options + more
        if what == "recycle":
            options = options + ["--limit-max-requests", "2000"]
        server = Server(duckfast, interface, folder, options)
        clients = Clients(server.port, context, look_first=what == "kill")
        clients.start()
        victims: list[int] = []
        begin = time.monotonic()
        try:
            if what == "kill":
                victims = list(kills(server, count))
            elif what == "recycle":
                recycles(server, count)
            else:
                renew(server, signal.SIGHUP if what == "reload" else signal.SIGUSR2, count)
        finally:
            clients.stop()
            code = server.stop()
        seconds = time.monotonic() - begin
    seen = clients.seen
    # A killed worker takes with it what it was answering: at most one request of each client, and nobody else's.
    unexcused = [why for why, worker in seen.lost if worker is not None and worker not in victims]
    most = (KEEP_ALIVE_CLIENTS + NEW_CLIENTS) * len(victims)
    passed = not unexcused and len(seen.lost) <= most and code == 0
    lost = f"{len(seen.lost)}{' in flight on the killed' if what == 'kill' and passed and seen.lost else ''}"
    print(f"| {interface} | {'TLS' if tls else 'plain'} | {count} x {what} | {seen.answers:,} | {seen.connections:,} | "
          f"{len(seen.pids)} | {lost} | {seconds:.0f} | {'pass' if passed else '**FAIL**'} |", flush=True)
    for (why, known), number in Counter((why, worker is not None) for why, worker in seen.lost).most_common(5):
        print(f"  {number} x {why}, on {'a kept' if known else 'a new'} connection", file=sys.stderr)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--duckfast", default=str(Path(sys.executable).parent / "duckfast"))
    parser.add_argument("--interface", choices=["wsgi", "asgi"], action="append")
    parser.add_argument("--what", choices=["reload", "recycle", "upgrade", "kill"], action="append")
    parser.add_argument("--tls", choices=["off", "on", "both"], default="both")
    parser.add_argument("--scale", type=float, default=1.0, help="of 20 reloads, 20 recycles, 5 upgrades, 20 kills")
    parser.add_argument("options", nargs="*", help="more options for the server")
    given = parser.parse_args()
    counts = {"reload": 20, "recycle": 20, "upgrade": 5, "kill": 20}
    print("| interface | | event | answers | connections | workers | lost | s | |")
    print("|---|---|---|---:|---:|---:|---:|---:|---|", flush=True)
    ways = {"off": [False], "on": [True], "both": [False, True]}[given.tls]
    passed = [
        trial(given.duckfast, interface, tls, what, max(1, round(counts[what] * given.scale)), given.options)
        for interface, tls, what in itertools.product(given.interface or ["wsgi", "asgi"], ways, given.what or counts)
    ]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
