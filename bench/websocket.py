"""Websockets against the Python servers: CPU per message, memory of ten thousand idle ones, a broadcast. See README.md.

Prints Markdown tables; exit code 1 if a goal is missed or a figure of duckfast is invalid. Linux, two cores, a C compiler.
"""

# Not named websockets.py: servers started from this folder would take it for the library of that name.

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import random
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import measure, processes, tools
from harness.client import Expected, WrongAnswer, check, free_port
from harness.measure import Failed

CONNECTIONS = 64
WARM_UP = 1.0  # second
MESSAGE_BYTES = 65536  # of different text before it starts again: more than a window of permessage-deflate holds
WINDOW_BITS = 12  # of what the client compresses: what the smallest window that peers ask for allows
MAX_MESSAGE = 1 << 20  # bytes, of the servers
QUIET = 3600  # seconds between the servers' own pings: none of them falls into a measurement of time
PINGS = 20  # seconds between them where memory is measured: the default of uvicorn and duckfast
PING_TIMEOUT = 120  # seconds: the client answers none while it opens ten thousand connections

IDLE = 10_000
IDLE_DEFLATE = 5_000
STALLED = 100  # of IDLE
ROUNDS = 40  # broadcasts
BROADCAST = 4096  # bytes
SETTLE = 2.0  # seconds for kernel and server to finish what the clients began
REST = 2.5 * PINGS  # seconds without a message, after which a server may have given up what only messages need
DESCRIPTORS = IDLE + 1000

HALF = 0.5  # goal: CPU per message, to the best peer
THIRD = 1 / 3  # goal: memory per idle connection, to uvicorn
STALLED_MEMORY = 64 * 1024 * 1024  # bytes; 100 readers that stop, each with 160 KiB sent to it and buffers on both sides
LATE_MEMORY = 4 * 1024 * 1024  # bytes in the second half of the rounds, when everybody's buffers are there
NOT_SLOWER = 1.25  # what broadcasts differ by on a shared machine


# What is sent -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    name: str
    size: int
    text: bool
    deflate: bool
    pipeline: int = 1

    @property
    def about(self) -> str:
        size = f"{self.size // 1024} KiB" if self.size >= 1024 else f"{self.size} bytes"
        more = ", compressed" if self.deflate else ""
        more += f", {self.pipeline} at a time" if self.pipeline > 1 else ""
        return f"{size} of {'text' if self.text else 'binary'}{more}"


SCENARIOS = [
    Scenario(f"{'text' if text else 'binary'}-{label}{'-deflate' if deflate else ''}", size, text, deflate)
    for size, label in ((64, "64"), (65536, "64k"))
    for deflate in (False, True)
    for text in (True, False)
]
SCENARIOS.append(Scenario("binary-64-pipelined", 64, False, False, pipeline=8))


def make_payload(scenario: Scenario, number: int) -> bytes:
    """Records as applications send them: half structure, half values. Text has letters of two and three bytes in it."""
    chance = random.Random(number)
    words = ["duck", "pond", "Ente", "Gänse", "水鳥", "reed", "north", "feather"]
    data = bytearray()
    while len(data) < scenario.size:
        record = {"id": chance.getrandbits(32), "name": chance.choice(words), "depth": round(chance.random(), 6)}
        data += json.dumps(record, ensure_ascii=False).encode() + b"\n" if scenario.text else chance.randbytes(12) + bytes(12)
    if not scenario.text:
        return bytes(data[: scenario.size])
    cut = data[: scenario.size].decode("utf-8", "ignore").encode()
    return cut + b"." * (scenario.size - len(cut))


def make_frame(payload: bytes, text: bool, deflate: bool, number: int) -> bytes:
    """RFC 6455 5.2 and 7692 7.2.1; every message is compressed on its own, which a context on the other side allows."""
    head = (0x81 if text else 0x82) | (0x40 if deflate else 0)
    if deflate:
        compressor = zlib.compressobj(6, zlib.DEFLATED, -WINDOW_BITS)
        payload = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    size = len(payload)
    if size < 126:
        start = struct.pack("!BB", head, 0x80 | size)
    elif size < 65536:
        start = struct.pack("!BBH", head, 0x80 | 126, size)
    else:
        start = struct.pack("!BBQ", head, 0x80 | 127, size)
    mask = random.Random(-number).randbytes(4)
    repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return start + mask + (int.from_bytes(payload, "big") ^ repeated).to_bytes(size, "big")


def write_messages(path: Path, messages: list[tuple[bytes, bytes]]) -> None:
    path.write_bytes(b"".join(struct.pack("=II", len(frame), len(payload)) + frame + payload for frame, payload in messages))


# Servers ------------------------------------------------------------------------------------------------------------


class NotOffered(Exception):
    """The server has no permessage-deflate."""


UVICORN = {"uvicorn": "websockets-sansio", "uvicorn-legacy": "websockets", "uvicorn-wsproto": "wsproto"}
PEERS = [*UVICORN, "granian"]
LIBRARIES = ("uvicorn", "websockets", "wsproto", "granian", "uvloop")  # whose versions a reader needs


def server_command(key: str, duckfast: list[str], port: int, pings: bool) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--ws-max-size", str(MAX_MESSAGE)]
    times = (PINGS, PING_TIMEOUT) if pings else (QUIET, QUIET)
    quiet = ["--ws-ping-interval", str(times[0]), "--ws-ping-timeout", str(times[1])]
    if key == "granian":
        command = [str(tools.PEERS / "bin" / "granian"), "websocket_app:application", "--interface", "asgi", "--loop", "uvloop"]
        command += ["--workers", "1", "--http", "1", "--ws", "--no-access-log", "--log-level", "warning"]
        return [*command, "--working-dir", str(tools.BENCH), *where[:4]]
    app = ["websocket_app:application", "--app-dir", str(tools.BENCH), "--no-access-log", "--log-level", "warning"]
    app += [*where, *quiet]
    if key in UVICORN:
        return [str(tools.PEERS / "bin" / "uvicorn"), *app, "--http", "httptools", "--loop", "uvloop", "--ws", UVICORN[key]]
    return [*duckfast, *app, "--interface", "asgi"]


@dataclass(frozen=True)
class Running:
    process: processes.Process
    port: int

    @property
    def pss(self) -> int:
        return processes.memory(self.process.pid).pss


class Bench:
    def __init__(self, client: Path, duckfast: list[str]) -> None:
        self.client = client
        self._duckfast = duckfast

    @contextlib.contextmanager
    def server(self, key: str, pings: bool = False) -> Iterator[Running]:
        with tempfile.TemporaryDirectory(prefix="duckfast-websocket-") as name:
            port = free_port()
            environ = tools.server_environ() if key == "duckfast" else tools.peers_environ()
            with processes.Process(
                server_command(key, self._duckfast, port, pings),
                environ=environ,
                cwd=tools.BENCH,
                output=Path(name) / "output",
                core=measure.SERVER_CORE,
            ) as process:
                wait_until_up(process, port)
                try:
                    yield Running(process, port)
                except Failed as error:
                    raise Failed(f"{error}; the server's output ends with: {process.tail(600)}") from error
                if process.exited is not None:
                    raise Failed(f"the server ended by itself with {process.exited}: {process.tail(600)}")
                code = process.stop()
                if code not in measure.STOPPED:
                    raise Failed(f"the server exited with {code} when asked to stop: {process.tail(600)}")

    def echo(self, server: Running, scenario: Scenario, file: Path, seconds: float) -> dict[str, Any]:
        opcode = 1 if scenario.text else 2
        words = self._words("echo", server.port, CONNECTIONS, scenario.pipeline, seconds, opcode, int(scenario.deflate), file)
        done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 200, check=False)
        return read_result(done.stdout, done.returncode)

    @contextlib.contextmanager
    def connected(self, *words: object) -> Iterator[Client]:
        with subprocess.Popen(self._words(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                yield Client(process, process.stdin, process.stdout)
            finally:
                process.kill()

    def _words(self, *words: object) -> list[str]:
        return ["taskset", "-c", str(measure.CLIENT_CORE), str(self.client), *map(str, words)]


@dataclass(frozen=True)
class Client:
    """A load client that keeps its connections: each line it is told has lines as an answer."""

    process: subprocess.Popen[str]
    input: IO[str]
    output: IO[str]

    def say(self) -> None:
        self.input.write("\n")
        self.input.flush()

    def hear(self) -> dict[str, Any]:
        line = self.output.readline()
        return read_result(line, self.process.poll())


def read_result(text: str, code: int | None) -> dict[str, Any]:
    lines = text.splitlines()
    if not lines:
        raise Failed(f"the client said nothing and ended with {code}")
    result: dict[str, Any] = json.loads(lines[-1])
    if "error" in result:
        if result["error"] == "permessage-deflate was not negotiated":
            raise NotOffered
        raise Failed(f"the client says: {result['error']}")
    return result


def wait_until_up(process: processes.Process, port: int) -> None:
    deadline = time.monotonic() + measure.START_TIMEOUT
    while True:
        if process.exited is not None or time.monotonic() > deadline:
            raise Failed(f"the server did not come up:\n{process.tail()}")
        try:
            check(port, "GET", "/", {}, None, Expected(b"", 0, False))
            return
        except WrongAnswer as error:
            raise Failed(f"{error}\n{process.tail()}") from error
        except OSError:
            time.sleep(0.05)


# Echo ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Echo:
    scenario: str
    server: str
    round: int
    cpu: float  # microseconds per message
    throughput: float
    p50: float  # microseconds
    p99: float
    answer: float  # bytes on the wire per answer
    compressed: float  # share of the answers
    invalid: str | None = None


def run_echoes(bench: Bench, chosen: list[Scenario], servers: list[str], rounds: int, seconds: float) -> list[Echo]:
    """Servers take turns within a scenario and scenarios within a round, so that a slow minute hits all alike."""
    found: list[Echo] = []
    without: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory(prefix="duckfast-websocket-") as name:
        files = {scenario.name: Path(name) / scenario.name for scenario in chosen}
        for scenario in chosen:
            payloads = [make_payload(scenario, number) for number in range(max(16, MESSAGE_BYTES // scenario.size))]
            frames = [make_frame(payload, scenario.text, scenario.deflate, n) for n, payload in enumerate(payloads)]
            write_messages(files[scenario.name], list(zip(frames, payloads, strict=True)))
        for number in range(1, rounds + 1):
            for scenario in chosen:
                for server in servers:
                    if (scenario.name, server) in without:
                        continue
                    try:
                        row = measure_echo(bench, server, scenario, files[scenario.name], number, seconds)
                    except NotOffered:
                        without.add((scenario.name, server))
                        print(f"{scenario.name} {server}: does not offer permessage-deflate", file=sys.stderr, flush=True)
                        continue
                    except Failed as error:
                        row = Echo(scenario.name, server, number, 0, 0, 0, 0, 0, 0, str(error))
                    found.append(row)
                    note = f"\n!!! INVALID: {row.invalid}" if row.invalid else ""
                    figures = f"{row.cpu:8.2f} us  {row.throughput:9,.0f}/s"
                    print(f"{scenario.name:20} {server:16} {figures}{note}", file=sys.stderr, flush=True)
    return found


def measure_echo(bench: Bench, key: str, scenario: Scenario, file: Path, number: int, seconds: float) -> Echo:
    with bench.server(key) as server:
        bench.echo(server, scenario, file, WARM_UP)
        before = processes.usage(server.process.pid)
        seen = bench.echo(server, scenario, file, seconds)
        used = processes.usage(server.process.pid).since(before)
    messages = seen["messages"]
    return Echo(
        scenario.name,
        key,
        number,
        cpu=used.total / messages,
        throughput=messages / seen["seconds"],
        p50=seen["p50_us"],
        p99=seen["p99_us"],
        answer=seen["bytes"] / messages,
        compressed=seen["compressed"] / messages,
    )


@dataclass(frozen=True)
class Proof:
    what: str
    goal: str
    found: str
    passed: bool

    def line(self) -> str:
        return f"| {self.what} | {self.goal} | {self.found} | {'pass' if self.passed else '**FAIL**'} |"


def echo_tables(rows: list[Echo], chosen: list[Scenario], servers: list[str]) -> list[Proof]:
    proofs: list[Proof] = []
    for scenario in chosen:
        print(f"\n### {scenario.name}: {scenario.about}\n")
        print("| server | CPU us/message | ratio to duckfast | messages/s | p50 us | p99 us | answer, bytes | compressed |")
        print("|---|---|---|---|---|---|---|---|")
        cpu: dict[str, dict[int, float]] = {}
        for server in servers:
            mine = [row for row in rows if (row.scenario, row.server) == (scenario.name, server)]
            valid = [row for row in mine if row.invalid is None]
            if not mine:
                print(f"| {server} | does not offer permessage-deflate | | | | | | |")
            elif not valid:
                print(f"| {server} | INVALID: {plain(mine[0].invalid)} | | | | | | |")
            else:
                cpu[server] = {row.round: row.cpu for row in valid}
                print(echo_line(server, valid, cpu.get("duckfast", {})))
        if "duckfast" in servers:
            proofs.append(judge(scenario, cpu))
    return proofs


def plain(text: str | None) -> str:
    return (text or "").replace("\n", " ").replace("|", "/")


def echo_line(server: str, rows: list[Echo], ours: dict[int, float]) -> str:
    def median(name: str) -> float:
        return statistics.median(getattr(row, name) for row in rows)

    ratios = [row.cpu / ours[row.round] for row in rows if row.round in ours]
    ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
    line = f"| {server} | {median('cpu'):.2f} | {ratio} | {median('throughput'):,.0f} | {median('p50'):.0f} "
    return line + f"| {median('p99'):.0f} | {median('answer'):.0f} | {median('compressed'):.0%} |"


def judge(scenario: Scenario, cpu: dict[str, dict[int, float]]) -> Proof:
    """The ratio is taken within a round, to the best peer of the medians, and then the median of the rounds."""
    what = f"echo {scenario.name}: CPU per message, to the best peer"
    peers = {server: statistics.median(rounds.values()) for server, rounds in cpu.items() if server != "duckfast"}
    ours = cpu.get("duckfast", {})
    if not ours or not peers:
        return Proof(what, f"<= {HALF}", "no valid figures" if not ours else "no peer to compare with", False)
    best = min(peers, key=lambda server: peers[server])
    ratios = [ours[number] / cpu[best][number] for number in ours if number in cpu[best]]
    ratio = statistics.median(ratios) if ratios else statistics.median(ours.values()) / peers[best]
    return Proof(what, f"<= {HALF}", f"{ratio:.2f} ({best})", ratio <= HALF)


# Idle ---------------------------------------------------------------------------------------------------------------


def run_idle(bench: Bench, servers: list[str]) -> list[Proof]:
    """Memory of 10,000 connections after the handshake, and after each has had one message; half of them with deflate."""
    print(f"\n### {IDLE:,} idle websockets, {IDLE_DEFLATE:,} of them with permessage-deflate (as far as the server has it)\n")
    print(f"| server | bytes per connection | after a message each | {REST:.0f} s later | deflate |")
    print("|---|---|---|---|---|")
    found: dict[str, tuple[float, float, float]] = {}
    with tempfile.TemporaryDirectory(prefix="duckfast-websocket-") as name:
        file = Path(name) / "messages"
        payload = make_payload(Scenario("", 1024, True, False), 1)
        write_messages(file, [(make_frame(payload, True, deflate, 1), payload) for deflate in (False, True)])
        for key in servers:
            try:
                # Without deflate where a server has none: its figure is the smaller for it.
                try:
                    found[key], deflated = measure_idle(bench, key, file, IDLE_DEFLATE), IDLE_DEFLATE
                except NotOffered:
                    found[key], deflated = measure_idle(bench, key, file, 0), 0
                figures = " | ".join(f"{size:,.0f}" for size in found[key])
                print(f"| {key} | {figures} | {deflated:,} |", flush=True)
            except Failed as error:
                print(f"| {key} | INVALID: {plain(str(error))} | | | |", flush=True)
    if "duckfast" not in servers:
        return []
    proofs = []
    for which, what in ((0, "after the handshake"), (2, f"{REST:.0f} s after a message each")):
        title, goal = f"{IDLE:,} idle websockets {what}: memory each, to uvicorn", f"<= {THIRD:.2f}"
        if "duckfast" not in found or "uvicorn" not in found:
            proofs.append(Proof(title, goal, "no valid figures", False))
            continue
        ratio = found["duckfast"][which] / found["uvicorn"][which]
        proofs.append(Proof(title, goal, f"{ratio:.2f} ({found['duckfast'][which]:,.0f} bytes)", ratio <= THIRD))
    return proofs


def measure_idle(bench: Bench, key: str, file: Path, deflated: int) -> tuple[float, float, float]:
    with bench.server(key, pings=True) as server:
        with bench.connected("hold", server.port, 200, 100 if deflated else 0, file) as client:
            wait_for(client, "opened")
            send_a_message_each(client)
        time.sleep(SETTLE)
        before = server.pss
        with bench.connected("hold", server.port, IDLE, deflated, file) as client:
            wait_for(client, "opened")
            time.sleep(SETTLE)
            opened = server.pss
            send_a_message_each(client)
            time.sleep(SETTLE)
            used = server.pss
            time.sleep(REST)
            rested = server.pss
        return (opened - before) / IDLE, (used - before) / IDLE, (rested - before) / IDLE


def wait_for(client: Client, wanted: str) -> None:
    if wanted not in (answer := client.hear()):
        raise Failed(f"the client said {answer}")


def send_a_message_each(client: Client) -> None:
    client.say()
    wait_for(client, "answered")


# Broadcast ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    milliseconds: float  # median round
    slowest: float
    growth: int  # bytes of the server's memory over all rounds
    late: int  # bytes of it in the second half of the rounds


def run_broadcast(bench: Bench, servers: list[str]) -> list[Proof]:
    """Messages to all of 10,000 connections, first all reading, then with one in a hundred that has stopped to."""
    print(f"\n### {ROUNDS} broadcasts of {BROADCAST} bytes to {IDLE:,} websockets\n")
    print("| server | stalled readers | median round, ms | slowest | memory grew by | in the second half |")
    print("|---|---|---|---|---|---|")
    found: dict[tuple[str, int], Spread] = {}
    for key in servers:
        for stalled in (0, STALLED):
            try:
                spread = found[key, stalled] = measure_spread(bench, key, stalled)
            except (Failed, NotOffered) as error:
                print(f"| {key} | {stalled} | INVALID: {plain(str(error))} | | | |", flush=True)
                continue
            line = f"| {key} | {stalled} | {spread.milliseconds:.0f} | {spread.slowest:.0f} "
            print(line + f"| {spread.growth / 2**20:.1f} MiB | {spread.late / 2**20:.1f} MiB |", flush=True)
    if "duckfast" not in servers:
        return []
    title = f"broadcast to {IDLE:,}, {STALLED} of them stalled"
    if ("duckfast", 0) not in found or ("duckfast", STALLED) not in found:
        return [Proof(title, "completes", "no valid figures", False)]
    free, held = found["duckfast", 0], found["duckfast", STALLED]
    ratio = held.milliseconds / free.milliseconds
    growth, late = f"{held.growth / 2**20:.1f} MiB", f"{held.late / 2**20:.1f} MiB"
    return [
        Proof(f"{title}: memory grows by", f"< {STALLED_MEMORY >> 20} MiB", growth, held.growth < STALLED_MEMORY),
        Proof(f"{title}: in the second half of the rounds", f"< {LATE_MEMORY >> 20} MiB", late, held.late < LATE_MEMORY),
        Proof(f"{title}: median round, to one without", f"<= {NOT_SLOWER}", f"{ratio:.2f}", ratio <= NOT_SLOWER),
    ]


def measure_spread(bench: Bench, key: str, stalled: int) -> Spread:
    with bench.server(key) as server:
        with bench.connected("spread", server.port, IDLE, stalled, ROUNDS, BROADCAST) as client:
            wait_for(client, "opened")
            time.sleep(SETTLE)
            times: list[float] = []
            memory = [server.pss]
            for _ in range(0, ROUNDS, 10):
                client.say()
                times += [client.hear()["ms"] for _ in range(10)]
                memory.append(server.pss)
            # The first rounds find what every connection's first write allocates.
            return Spread(statistics.median(times), max(times), memory[-1] - memory[0], memory[-1] - memory[len(memory) // 2])


# ------------------------------------------------------------------------------------------------------------------------


def build_client() -> Path:
    source = tools.BENCH / "harness" / "wsload.c"
    target = tools.PROJECT / "build" / "bench-wsload"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        compiler = tools.need_command(os.environ.get("CC", "gcc"), "gcc")
        target.parent.mkdir(exist_ok=True)
        command = [compiler, "-O2", "-o", str(target), str(source), "-lz"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise tools.Missing(f"the load client cannot be compiled (apt-get install gcc zlib1g-dev):\n{done.stderr}")
    return target


def raise_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(DESCRIPTORS, min(hard, 20_000)), max(hard, DESCRIPTORS)))
    except (ValueError, OSError) as error:
        message = f"{DESCRIPTORS:,} open files are needed and {hard:,} allowed; run: ulimit -Hn {DESCRIPTORS} as root"
        raise tools.Missing(message) from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    names = ", ".join([*(scenario.name for scenario in SCENARIOS), "idle", "broadcast"])
    parser.add_argument("--only", default="*", metavar="GLOBS", help=f"of {names}")
    parser.add_argument("--servers", default="*", metavar="GLOBS", help=f"of duckfast, {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="medians of this many, of the echoes")
    parser.add_argument("--seconds", type=float, default=3.0, help="per echo")
    parser.add_argument("--duckfast", default=os.environ.get("DUCKFAST"), metavar="COMMAND", help="another build than .venv's")
    arguments = parser.parse_args()

    def chosen(name: str, globs: str) -> bool:
        return any(fnmatch.fnmatch(name, glob) for glob in globs.replace(",", " ").split())

    servers = [name for name in ("duckfast", *PEERS) if chosen(name, arguments.servers)]
    try:
        tools.need_peers()
        bench = Bench(build_client(), tools.need_duckfast(arguments.duckfast) if "duckfast" in servers else [])
        raise_descriptors()
    except tools.Missing as error:
        print(error, file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {measure.CLIENT_CORE})
    versions = tools.peer_versions()
    machine = tools.machine()
    print(f"{machine['cpu']}, Linux {machine['kernel']}, {machine['python']}, commit {tools.commit()}")
    print(", ".join(f"{name} {versions[name]}" for name in LIBRARIES if name in versions))
    proofs: list[Proof] = []
    scenarios = [scenario for scenario in SCENARIOS if chosen(scenario.name, arguments.only)]
    if scenarios:
        rows = run_echoes(bench, scenarios, servers, arguments.rounds, arguments.seconds)
        proofs += echo_tables(rows, scenarios, servers)
    if chosen("idle", arguments.only):
        proofs += run_idle(bench, servers)
    if chosen("broadcast", arguments.only):
        proofs += run_broadcast(bench, servers)
    if proofs:
        print("\n| what | goal | found | |\n|---|---|---|---|")
    for proof in proofs:
        print(proof.line())
    return 0 if all(proof.passed for proof in proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
