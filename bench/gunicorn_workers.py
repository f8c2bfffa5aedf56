"""duckfast's workers for gunicorn beside gunicorn's own and uvicorn's: CPU per request, and what is lost when workers change.

Prints Markdown tables; exit code 1 if a request was lost, a worker that is blocked was not replaced, or statsd counted another
number than was sent. See README.md.
"""

import argparse
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import measure, tools
from harness.measure import Failed, Row
from harness.scenarios import SCENARIOS, Scenario
from harness.servers import Server, Start
from reloads import APP, EVENT_TIMEOUT, REQUEST, Clients

OURS = {"wsgi": "duckfast.gunicorn.WSGIWorker", "asgi": "duckfast.gunicorn.ASGIWorker"}
# Scenario -> worker classes in the order they are measured, ours first.
COMPARED = {
    "wsgi-hello": ["duckfast.gunicorn.WSGIWorker", "gthread"],
    "wsgi8-hello": ["duckfast.gunicorn.WSGIWorker", "gthread"],
    "wsgi-post": ["duckfast.gunicorn.WSGIWorker", "gthread"],
    "asgi-hello": ["duckfast.gunicorn.ASGIWorker", "asgi", "uvicorn_worker.UvicornWorker"],
    "asgi-post": ["duckfast.gunicorn.ASGIWorker", "asgi", "uvicorn_worker.UvicornWorker"],
}
BLOCK = """

import time
quick = wsgi

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/block":
        time.sleep(600)
    return quick(environ, start_response)

quick_asgi = asgi

async def asgi(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/block":
        time.sleep(600)
    await quick_asgi(scope, receive, send)
"""
SERVING = re.compile(r"\[INFO\] duckfast \S+ serves \(")
COUNTED = 2000  # requests for statsd; few enough that a socket's buffer holds what its reader has not read yet


def python_of(worker: str) -> str:
    """Ours runs in the project's environment, the others in the peers'; both have the same gunicorn and uvloop."""
    return sys.executable if worker.startswith("duckfast") else str(tools.PEERS / "bin" / "python")


def command(worker: str, target: str, port: int, *options: str) -> list[str]:
    return [python_of(worker), "-m", "gunicorn", target, "-k", worker, "-b", f"127.0.0.1:{port}", "--no-control-socket", *options]


# CPU per request -----------------------------------------------------------------------------------------------------


def server_of(worker: str) -> Server:
    def start(scenario: Scenario, port: int, folder: Path) -> Start:
        options = ["--chdir", str(tools.BENCH), "-w", "1", "--log-level", "warning"]
        if scenario.interface == "wsgi":
            options += ["--threads", str(scenario.threads)]
        return Start(command(worker, f"apps:{scenario.interface}", port, *options), tools.server_environ())

    return Server(worker, lambda scenario: True, start, logs=False)


def compare(wrk: str, rounds: int, seconds: int, only: list[str]) -> bool:
    """Medians, servers in turns. False: a measurement could not be believed."""
    rows: dict[tuple[str, str], list[Row]] = {}
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in COMPARED and (not only or scenario.name in only)]
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            for worker in COMPARED[scenario.name]:
                try:
                    row = measure.measure(wrk, server_of(worker), scenario, number, seconds)
                except Failed as error:
                    raise SystemExit(f"{worker} on {scenario.name}: {error}") from None
                print(f"  {number}: {scenario.name} {worker} {row.cpu:.2f} us {row.invalid or ''}", file=sys.stderr, flush=True)
                rows.setdefault((scenario.name, worker), []).append(row)
    print("| scenario | worker | CPU us per request | ours costs of it | requests/s |")
    print("|---|---|---:|---:|---:|")
    for (name, worker), seen in rows.items():
        cpu = statistics.median(row.cpu for row in seen)
        ours = statistics.median(row.cpu for row in rows[name, COMPARED[name][0]])
        share = "" if worker == COMPARED[name][0] else f"{100 * ours / cpu:.0f} %"
        print(f"| {name} | {worker} | {cpu:.1f} | {share} | {statistics.median(row.throughput for row in seen):,.0f} |")
    return not any(row.invalid for seen in rows.values() for row in seen)


# What is lost --------------------------------------------------------------------------------------------------------


class Gunicorn:
    """gunicorn with a worker of ours, and what it says."""

    def __init__(self, interface: str, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = command(OURS[interface], f"app:{interface}", self.port, *options)
        self._process = subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for_workers(self, count: int) -> None:
        """Until so many have begun to serve in all."""
        with self._changed:
            found = self._changed.wait_for(lambda: sum(map(bool, map(SERVING.search, self._lines))) >= count, EVENT_TIMEOUT)
        if not found:
            raise SystemExit(f"{count} workers never served:\n" + "\n".join(self._lines[-40:]))

    def wait_for_ends(self, count: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: sum("Worker exiting" in line for line in self._lines) >= count, EVENT_TIMEOUT):
                raise SystemExit(f"{count} workers never ended:\n" + "\n".join(self._lines[-40:]))

    def said(self, text: str) -> bool:
        return any(text in line for line in self._lines)

    def hang_up(self) -> None:
        os.kill(self._process.pid, signal.SIGHUP)

    def stop(self) -> int:
        os.kill(self._process.pid, signal.SIGTERM)
        return self._process.wait(60)


def change_workers(interface: str, what: str, count: int, folder: Path) -> bool:
    options = ["-w", "2", *(["--max-requests", "2000"] if what == "recycle" else [])]
    server = Gunicorn(interface, folder, *options)
    server.wait_for_workers(2)
    clients = Clients(server.port, None, look_first=False)
    clients.start()
    begun = time.monotonic()
    try:
        if what == "recycle":
            server.wait_for_workers(2 + count)
        else:
            for number in range(1, count + 1):
                server.hang_up()
                server.wait_for_workers(2 + 2 * number)
                server.wait_for_ends(2 * number)
    finally:
        clients.stop()
        code = server.stop()
    seen = clients.seen
    passed = not seen.lost and code == 0
    print(f"| {interface} | {count} x {what} | {seen.answers:,} | {seen.connections:,} | {len(seen.pids)} | {len(seen.lost)} | "
          f"{time.monotonic() - begun:.0f} | {'pass' if passed else '**FAIL**'} |", flush=True)
    for why, number in Counter(why for why, _ in seen.lost).most_common(5):
        print(f"  {number} x {why}", file=sys.stderr)
    return passed


def block(interface: str, folder: Path) -> bool:
    """A worker that never comes back, with --timeout 3: is there another one after it?"""
    server = Gunicorn(interface, folder, "-w", "1", "--timeout", "3")
    server.wait_for_workers(1)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as stuck:
        stuck.sendall(b"GET /block HTTP/1.1\r\nHost: bench\r\n\r\n")
        server.wait_for_workers(2)
        seconds = time.monotonic() - begun
        with socket.create_connection(("127.0.0.1", server.port), measure.START_TIMEOUT) as fresh:
            fresh.sendall(REQUEST)
            answered = fresh.recv(1000).startswith(b"HTTP/1.1 200 ")
    passed = server.said("WORKER TIMEOUT") and answered
    server.stop()
    verdict = "pass" if passed else "**FAIL**"
    print(f"| {interface} | blocked, --timeout 3 | replaced after {seconds:.1f} s | {verdict} |", flush=True)
    return passed


def count_by_statsd(interface: str, folder: Path) -> bool:
    counted = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        server = Gunicorn(interface, folder, "-w", "2", "--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}")
        server.wait_for_workers(2)
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            for _ in range(COUNTED):
                client.sendall(REQUEST)
                data = b""
                while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
                    data += client.recv(65536)
                while select.select([statsd], [], [], 0)[0]:
                    counted += b"gunicorn.requests:1|c" in statsd.recv(2048)
        server.stop()
        while select.select([statsd], [], [], 1)[0]:
            counted += b"gunicorn.requests:1|c" in statsd.recv(2048)
    passed = counted == COUNTED
    print(f"| {interface} | statsd | {counted:,} counted of {COUNTED:,} sent | {'pass' if passed else '**FAIL**'} |", flush=True)
    return passed


def check_changes(scale: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="duckfast-bench-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP + BLOCK)
        print("\n| interface | event | answers | connections | workers | lost | s | |")
        print("|---|---|---:|---:|---:|---:|---:|---|", flush=True)
        count = max(1, round(10 * scale))
        passed = [change_workers(interface, what, count, folder) for interface in OURS for what in ("SIGHUP", "recycle")]
        print("\n| interface | proof | seen | |")
        print("|---|---|---|---|", flush=True)
        passed += [proof(interface, folder) for proof in (block, count_by_statsd) for interface in OURS]
    return all(passed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="medians of this many")
    parser.add_argument("--seconds", type=int, default=3, help="per measurement")
    parser.add_argument("--only", action="append", choices=list(COMPARED), help="of the scenarios")
    parser.add_argument("--what", choices=["cpu", "losses", "both"], default="both")
    parser.add_argument("--scale", type=float, default=1.0, help="of 10 SIGHUPs and 10 recycled workers")
    given = parser.parse_args()
    passed = True
    try:
        if given.what != "losses":
            wrk = tools.need_command("wrk", "wrk")
            tools.need_peers()
            affinity = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {measure.CLIENT_CORE})
            passed = compare(wrk, given.rounds, given.seconds, given.only or [])
            os.sched_setaffinity(0, affinity)
    except tools.Missing as error:
        print(error, file=sys.stderr)
        return 2
    if given.what != "cpu":
        passed = check_changes(given.scale) and passed
    return not passed


if __name__ == "__main__":
    sys.exit(main())
