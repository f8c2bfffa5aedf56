"""Slow, rude and hostile clients against duckfast, and the same against uvicorn and granian in the same run. See README.md.

Writes a Markdown table; exit code 1 if duckfast held on to something, failed a polite client, or let a hostile one stay. Linux.
"""

import argparse
import datetime
import fnmatch
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apps
from harness import measure, processes, rude, tools, watch
from harness.client import Expected, WrongAnswer, check, free_port
from harness.rude import ATTACKS, DEADLINE, Attack, Ends
from harness.servers import Start, duckfast_command
from harness.watch import Held, Innocent, Served, Watch

DESCRIPTORS = 8192
KEEP_ALIVE = 40  # seconds: the polite client keeps one connection while it waits for an answer on another
INNOCENT_PATIENCE = 30.0  # seconds until the polite client calls an answer missing
SETTLE = 10.0  # seconds a server has to let go of what it held
MEMORY_MARGIN = 8 << 20  # bytes: allocators and stacks of threads keep what they have had once
PEAK_MARGIN = 64 << 20  # bytes more than before, at any time
ALLOWED = "500"  # connections, where they are limited
FEW_DESCRIPTORS = "256"
WARM_UP = 200  # requests before the first look
STAYS = {"slow-readers"}  # which no deadline has to end: they take bytes all the time


@dataclass(frozen=True)
class Server:
    key: str
    start: Callable[[int, str], Start]  # port, the attack's setting

    @property
    def judged(self) -> bool:
        return self.key.startswith("duckfast")


def servers(duckfast: list[str]) -> list[Server]:
    return [
        Server("duckfast wsgi", _duckfast(duckfast, "wsgi")),
        Server("duckfast asgi", _duckfast(duckfast, "asgi")),
        Server("uvicorn asgi", _uvicorn),
        Server("granian wsgi", _granian("wsgi")),
        Server("granian asgi", _granian("asgi")),
    ]


def _duckfast(duckfast: list[str], interface: str) -> Callable[[int, str], Start]:
    def start(port: int, setting: str) -> Start:
        names = ("request-headers", "request-body", "write", "drain")
        more = [part for name in names for part in (f"--timeout-{name}", str(DEADLINE))]
        more += ["--timeout-keep-alive", str(KEEP_ALIVE)]
        if setting == "connections":
            more += ["--limit-connections", ALLOWED]
        command = duckfast_command(duckfast, interface, port, threads=8, more=tuple(more))
        return Start(command, tools.server_environ())

    return start


def _uvicorn(port: int, setting: str) -> Start:
    command = [str(tools.PEERS / "bin" / "uvicorn"), "apps:asgi", "--app-dir", str(tools.BENCH), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--http", "httptools", "--loop", "uvloop", "--ws", "none", "--no-access-log"]
    command += ["--log-level", "critical", "--timeout-keep-alive", str(KEEP_ALIVE)]
    if setting == "connections":
        command += ["--limit-concurrency", ALLOWED]
    return Start(command, tools.peers_environ())


def _granian(interface: str) -> Callable[[int, str], Start]:
    def start(port: int, setting: str) -> Start:
        command = [str(tools.PEERS / "bin" / "granian"), f"apps:{interface}", "--interface", interface, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--workers", "1", "--http", "1", "--no-ws", "--working-dir", str(tools.BENCH)]
        command += ["--blocking-threads", "8"] if interface == "wsgi" else ["--loop", "uvloop"]
        command += ["--no-access-log", "--log-level", "critical", "--http1-header-read-timeout", str(DEADLINE * 1000)]
        if setting == "connections":
            command += ["--backpressure", ALLOWED]
        return Start(command, tools.peers_environ())

    return start


@dataclass(frozen=True)
class Row:
    attack: Attack
    server: str
    ends: Ends
    before: Held
    peak: Held
    highest_rss: int
    after: Held
    served: Served
    seconds: float
    complaints: list[str]

    def line(self) -> str:
        ends = "; ".join(f"{end} ({count:,})" for end, count in self.ends.most_common(4))
        if len(self.ends) > 4:
            ends += f"; {len(self.ends) - 4} other ends"
        memory = " / ".join(f"{size / 2**20:.1f}" for size in (self.before.pss, self.peak.pss, self.after.pss))
        descriptors = " / ".join(str(held.descriptors) for held in (self.before, self.peak, self.after))
        innocent = f"{self.served.answers:,}, slowest {self.served.slowest:.2f} s"
        if self.served.failures:
            innocent += f"; {len(self.served.failures):,} not ({self.served.failures[0][:60]})"
        cells = [self.attack.about, self.server, ends, memory, f"{self.highest_rss / 2**20:.1f}", descriptors, innocent]
        cells.append(f"{self.seconds:.1f}")
        cells.append("; ".join(self.complaints))
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


HEADINGS = [
    "client",
    "server",
    "what its connections got",
    "PSS before / peak / after, MiB",
    "highest RSS, MiB",
    "descriptors before / peak / after",
    "a polite client beside it: answers",
    "seconds",
    "duckfast's faults",
]


def judge(attack: Attack, ends: Ends, before: Held, peak: Held, after: Held, served: Served) -> list[str]:
    """What duckfast must not do."""
    complaints = []
    if after.descriptors != before.descriptors:
        complaints.append(f"{after.descriptors - before.descriptors:+} descriptors")
    if after.pss > before.pss + MEMORY_MARGIN:
        complaints.append(f"{(after.pss - before.pss) / 2**20:+.1f} MiB")
    if peak.pss > before.pss + PEAK_MARGIN:
        complaints.append(f"{(peak.pss - before.pss) / 2**20:+.1f} MiB at its peak")
    if served.failures or not served.answers:
        complaints.append("a polite client was not served")
    if attack.key not in STAYS and any(end.endswith("open") for end in ends):
        complaints.append("no deadline ended it")
    if any(end.startswith("no connection") for end in ends):
        complaints.append("connections were not taken")
    return complaints


def run(server: Server, attack: Attack) -> Row:
    with tempfile.TemporaryDirectory(prefix="duckfast-hostile-") as name:
        port = free_port()
        start = server.start(port, attack.setting)
        command = start.command
        if attack.setting == "descriptors":
            command = ["prlimit", f"--nofile={FEW_DESCRIPTORS}:{FEW_DESCRIPTORS}", *command]
        with processes.Process(
            command, environ=start.environ, cwd=tools.BENCH, output=Path(name) / "output", core=measure.SERVER_CORE
        ) as process:
            wait_until_up(process, port)
            begun = time.monotonic()
            ends, before, peak, highest, after, served = attack_server(process, port, attack)
            seconds = time.monotonic() - begun
            complaints = judge(attack, ends, before, peak, after, served) if server.judged else []
            if server.judged and process.exited is not None:
                complaints.append(f"the server ended: {process.tail(200)}")
            return Row(attack, server.key, ends, before, peak, highest, after, served, seconds, complaints)


def attack_server(process: processes.Process, port: int, attack: Attack) -> tuple[Ends, Held, Held, int, Held, Served]:
    warm_up(port)
    before = watch.look(process.pid)
    watch.restart_mark(process.pid)
    innocent = Innocent(port, INNOCENT_PATIENCE)
    watching = Watch(process.pid)
    watching.start()
    try:
        ends = attack.run(port)
    finally:
        served = innocent.finish()
        peak = watching.finish()
    after = watch.wait_until_settled(process.pid, before, MEMORY_MARGIN, SETTLE)
    return ends, before, peak, watch.highest_rss(process.pid), after, served


def warm_up(port: int) -> None:
    """Everything that is made once is made: threads, buffers, the application's modules."""
    for path in ("/", "/10k", "/stream"):
        rude.repeat(port, WARM_UP // 10, rude.ask_once(path))
    rude.repeat(port, WARM_UP, rude.ask_once("/"))
    rude.crowd(port, 16, lambda: [rude.head("GET", "/sleep", "Connection: close")])
    time.sleep(0.5)


def wait_until_up(process: processes.Process, port: int) -> None:
    deadline = time.monotonic() + measure.START_TIMEOUT
    while True:
        if process.exited is not None or time.monotonic() > deadline:
            raise measure.Failed(f"the server did not come up:\n{process.tail()}")
        try:
            check(port, "GET", "/", {}, None, Expected(apps.HELLO, len(apps.HELLO), False))
            return
        except OSError:
            time.sleep(0.05)


def table(rows: list[Row], duckfast: list[str]) -> str:
    versions = {"duckfast": tools.first_line([*duckfast, "--version"]).removeprefix("duckfast ")} | tools.peer_versions()
    machine = tools.machine()
    used = {key: versions.get(key, "unknown") for key in ("duckfast", "uvicorn", "httptools", "uvloop", "granian")}
    lines = [
        "# Slow, rude and hostile clients",
        "",
        ", ".join(f"{key} {version}" for key, version in used.items())
        + f" · commit {tools.commit()} · {machine['python']}, {machine['cpu']}, Linux {machine['kernel']}",
        "",
        f"Deadlines of {DEADLINE} s where a server has an option for them. Memory, descriptors: of the server's process tree.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *(row.line() for row in rows),
        "",
    ]
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOBS", help="clients, as --list names them")
    parser.add_argument("--servers", default="*", metavar="GLOBS", help="such as 'duckfast*' or '*asgi'")
    parser.add_argument("--list", action="store_true", help="show the clients, and stop")
    parser.add_argument("--duckfast", default=os.environ.get("DUCKFAST"), metavar="COMMAND", help="another build than .venv's")
    parser.add_argument("--output", type=Path, default=tools.RESULTS, metavar="FOLDER", help="where results go")
    return parser.parse_args()


def chosen(name: str, globs: str) -> bool:
    return any(fnmatch.fnmatch(name, glob.strip()) for glob in globs.split(","))


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        for attack in ATTACKS:
            print(f"{attack.key:20} {attack.about}")
        return 0
    try:
        tools.need_command("taskset", "util-linux")
        tools.need_command("prlimit", "util-linux")
        duckfast = tools.need_duckfast(arguments.duckfast)
        plan = [server for server in servers(duckfast) if chosen(server.key, arguments.servers)]
        if any(not server.judged for server in plan):
            tools.need_peers()
    except tools.Missing as error:
        print(error, file=sys.stderr)
        return 2
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, DESCRIPTORS), hard), hard))
    os.sched_setaffinity(0, {measure.CLIENT_CORE})
    rows: list[Row] = []
    failures: list[str] = []
    for attack in ATTACKS:
        for server in plan if chosen(attack.key, arguments.only) else []:
            try:
                rows.append(run(server, attack))
                print(rows[-1].line(), flush=True)
            except (measure.Failed, WrongAnswer, OSError) as error:
                print(f"{attack.key}, {server.key}: not measured: {error}", file=sys.stderr, flush=True)
                if server.judged:
                    failures.append(attack.key)
    folder = arguments.output / datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    text = table(rows, duckfast)
    (folder / "hostile.md").write_text(text)
    print(f"\n{text}\nwritten: {folder / 'hostile.md'}")
    faults = [f"{row.attack.key}, {row.server}: {'; '.join(row.complaints)}" for row in rows if row.complaints]
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults or failures else 0


if __name__ == "__main__":
    sys.exit(main())
