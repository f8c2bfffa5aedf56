"""One measurement: start a server, prove its answer, warm it up, load it with wrk, read what it used, stop it."""

import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import processes, tools
from .client import Visitor, WrongAnswer, check, free_port, percentile
from .scenarios import Scenario
from .servers import Server

SERVER_CORE = 0
CLIENT_CORE = 1
CONNECTIONS = 64
WARM_UP = 1  # second; long enough for Python's adaptive interpreter and every pool to settle
START_TIMEOUT = 20.0  # seconds until the first correct answer
STOPPED = (0, -15)  # exit codes of a regular end: some servers let SIGTERM end them
LOGGED_SHARE = 0.99  # of the requests must have a line; the rest may still be in a batch when wrk stops


class Failed(Exception):
    """No figure could be taken; the message says why."""


@dataclass
class Load:
    """What wrk saw."""

    requests: int
    duration: float  # seconds
    size: float  # bytes per response, head included
    p50: float  # microseconds
    p99: float
    longest: float
    errors: dict[str, int]


@dataclass
class Row:
    """One server under one scenario in one round. CPU in microseconds per request, latencies in microseconds."""

    scenario: str
    server: str
    round: int
    cpu: float
    cpu_user: float
    throughput: float  # requests per second
    p50: float
    p99: float
    longest: float
    requests: int
    seconds: float
    rss: int  # bytes, the whole tree, after the load
    pss: int
    threads: int
    other_load: float  # share of the server's core used by processes that are not the server
    visitor_p50: float | None = None
    visitor_p99: float | None = None
    invalid: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def load(
    wrk: str,
    port: int,
    path: str,
    seconds: int,
    *,
    connections: int = CONNECTIONS,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body_size: int = 0,
    tls: bool = False,
) -> Load:
    command = ["taskset", "-c", str(CLIENT_CORE), wrk, "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["-s", str(tools.BENCH / "wrk.lua")]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    command += [f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}", "--", method, str(body_size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("WRK "):
            report = json.loads(line[4:])
            requests = report["requests"]
            return Load(
                requests=requests,
                duration=report["duration_us"] / 1e6,
                size=report["bytes"] / requests if requests else 0.0,
                p50=report["p50_us"],
                p99=report["p99_us"],
                longest=report["max_us"],
                errors=report["errors"],
            )
    raise Failed(f"wrk gave no summary: {done.stdout[-500:]}{done.stderr[-500:]}")


def complaint(seen: Load, smallest: int) -> str | None:
    """Why these figures must not be believed, or None."""
    if seen.requests == 0:
        return "no request was answered"
    wrong = {name: count for name, count in seen.errors.items() if count}
    if wrong:
        return "wrk counted errors: " + ", ".join(f"{name} {count}" for name, count in wrong.items())
    if seen.size < smallest:
        return f"responses of {seen.size:.0f} bytes, the body alone has {smallest}"
    return None


def wait_until_right(process: processes.Process, server: Server, scenario: Scenario, port: int) -> None:
    """The port is open and the answer is the scenario's, to the byte."""
    expected = scenario.expected if server.chunks else replace(scenario.expected, chunked=False)
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        if process.exited is not None:
            raise Failed(f"exited with {process.exited} at start:\n{process.tail()}")
        try:
            # Keep-alive and then closed by us: fastpysgi 0.6 serving ASGI dies of its own `Connection: close`.
            check(port, scenario.method, scenario.path, scenario.headers, scenario.request_body, expected, scenario.tls)
            return
        except WrongAnswer as error:
            raise Failed(f"{error}\n{process.tail()}") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failed(f"no answer within {START_TIMEOUT:.0f} s ({error}):\n{process.tail()}") from error
            time.sleep(0.05)


def measure(wrk: str, server: Server, scenario: Scenario, number: int, seconds: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="duckfast-bench-") as name:
        folder = Path(name)
        port = free_port()
        start = server.start(scenario, port, folder)
        output = folder / "output"
        with processes.Process(start.command, environ=start.environ, cwd=tools.BENCH, output=output, core=SERVER_CORE) as process:
            wait_until_right(process, server, scenario, port)
            try:
                row = _measure_running(wrk, process, server, scenario, number, seconds, port)
            except Failed as error:
                raise Failed(f"{error}{_death(process)}") from error
            if death := _death(process):
                row.invalid = f"{row.invalid or 'measured'}{death}"
            code = process.stop()
        if row.invalid is None and code not in STOPPED:
            row.invalid = f"exited with {code} when asked to stop"
        if row.invalid is None and server.logs and scenario.access_log:
            row.invalid = _log_complaint(start.log or output, row.requests)
        return row


def _death(process: processes.Process) -> str:
    return "" if process.exited is None else f"; the server had ended by itself with {process.exited}: {process.tail(300)}"


def _measure_running(
    wrk: str, process: processes.Process, server: Server, scenario: Scenario, number: int, seconds: int, port: int
) -> Row:
    def run(duration: int) -> Load:
        return load(
            wrk,
            port,
            scenario.path,
            duration,
            method=scenario.method,
            headers=scenario.headers,
            body_size=scenario.body_size,
            tls=scenario.tls,
        )

    run(WARM_UP)
    visitor = Visitor(port) if scenario.visitor else None
    if visitor is not None:
        visitor.start()
    busy_before = processes.core_busy(SERVER_CORE)
    before = processes.usage(process.pid)
    begun = time.monotonic()
    seen = run(seconds)
    used = processes.usage(process.pid).since(before)
    elapsed = time.monotonic() - begun
    busy = processes.core_busy(SERVER_CORE) - busy_before
    memory = processes.memory(process.pid)
    visits = visitor.finish() if visitor is not None else []
    invalid = complaint(seen, scenario.expected.size)
    if visitor is not None and visitor.error is not None:
        invalid = invalid or visitor.error
    requests = seen.requests + len(visits)
    # The scheduler's total is exact; the kernel only samples how it divides into user and system.
    return Row(
        scenario=scenario.name,
        server=server.key,
        round=number,
        cpu=used.total / max(requests, 1),
        cpu_user=used.user / max(requests, 1),
        throughput=seen.requests / seen.duration,
        p50=seen.p50,
        p99=seen.p99,
        longest=seen.longest,
        requests=seen.requests,
        seconds=seen.duration,
        rss=memory.rss,
        pss=memory.pss,
        threads=processes.threads(process.pid),
        other_load=max(0.0, busy - used.total / 1e6) / elapsed,
        visitor_p50=percentile(visits, 0.50) * 1e6 if visits else None,
        visitor_p99=percentile(visits, 0.99) * 1e6 if visits else None,
        invalid=invalid,
    )


def _log_complaint(log: Path, requests: int) -> str | None:
    """A server that skips its log would win the scenario about logs."""
    lines = 0
    with log.open("rb") as file:
        while piece := file.read(1 << 20):
            lines += piece.count(b"\n")
    if lines < requests * LOGGED_SHARE:
        return f"{lines} access lines for {requests} requests"
    return None
