"""Instructions per request under callgrind, against the committed baseline: the gate for speed. See README.md.

Counts, and so does not care how busy the machine is. Says nothing about the kernel's share or about waiting.
"""

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import processes, tools
from harness.client import WrongAnswer, free_port, receive_response
from harness.measure import Failed
from harness.scenarios import SCENARIOS, Scenario
from harness.servers import duckfast_command

BASELINE = tools.BENCH / "baseline.json"
CHECKED = ["wsgi-hello", "wsgi-browser", "wsgi-post", "asgi-hello", "asgi-browser"]
WARM_UP = 500  # requests before counting: the adaptive interpreter has settled, free lists are filled
REQUESTS = 1000  # per count
COUNTS = 3  # the median of them; a garbage collection or a new second's Date may fall into one
TOLERANCE = 0.01  # the count itself repeats to a few hundredths of a percent
START_TIMEOUT = 60.0  # seconds; valgrind starts Python ten times slower


@dataclass(frozen=True)
class Comparison:
    scenario: str
    counted: float
    baseline: float | None

    @property
    def change(self) -> float | None:
        return self.counted / self.baseline - 1 if self.baseline else None

    @property
    def regressed(self) -> bool:
        return self.change is not None and self.change > TOLERANCE


class Counter:
    """A duckfast under callgrind, told through vgdb when to count."""

    def __init__(self, valgrind: str, vgdb: str, command: Callable[[int], list[str]], folder: Path) -> None:
        """`command` is what serves on a port."""
        self._vgdb = vgdb
        self._folder = folder
        self._dumps = 0
        self.port = free_port()
        server = command(self.port)
        callgrind = [valgrind, "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        # Hash seeds and addresses move dictionary collisions: the shell's other variables would shift the whole memory.
        kept = {name: value for name, value in tools.server_environ().items() if name in ("PATH", "PYTHONPATH")}
        environ = {**kept, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = processes.Process([*callgrind, *server], environ=environ, cwd=tools.BENCH, output=folder / "output")

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.process.exited is not None or time.monotonic() > deadline:
                raise Failed(f"duckfast did not come up under valgrind:\n{self.process.tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)

    def count(self, scenario: Scenario) -> float:
        """Instructions per request. Counting goes on all the time after the first call; a dump starts again at zero."""
        request = request_bytes(scenario)
        self._tell("instrumentation on")
        with socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connection, request, WARM_UP, scenario.answer)
            self._take_dump()
            counts = []
            for _ in range(COUNTS):
                ask(connection, request, REQUESTS, scenario.answer)
                counts.append(self._take_dump() / REQUESTS)
        return statistics.median(counts)

    def _take_dump(self) -> int:
        self._tell("dump")
        self._dumps += 1
        path = self._folder / f"counts.{self._dumps}"
        found = re.search(r"^totals: (\d+)", path.read_text(), re.MULTILINE)
        if found is None:
            raise Failed(f"no totals in {path.name} of callgrind")
        return int(found.group(1))

    def _tell(self, command: str) -> None:
        told = subprocess.run(
            [self._vgdb, f"--pid={self.process.pid}", *command.split()], capture_output=True, text=True, timeout=60, check=False
        )
        if told.returncode != 0:
            raise Failed(f"vgdb {command}: {told.stderr.strip()}\n{self.process.tail()}")


def command_line(duckfast: list[str], interface: str) -> Callable[[int], list[str]]:
    """One thread and asyncio: no second thread and no second native library between two runs to compare."""
    more = ("--loop", "asyncio") if interface == "asgi" else ()
    return lambda port: duckfast_command(with_interpreter(duckfast), interface, port, threads=1, more=more)


def with_interpreter(command: list[str]) -> list[str]:
    """`.venv/bin/duckfast` is a script: valgrind is to run its interpreter, not a shell that starts it."""
    with open(command[0], "rb") as file:
        line = file.readline()
    if not line.startswith(b"#!"):
        return command
    return [*line[2:].decode().split(), *command]


def request_bytes(scenario: Scenario) -> bytes:
    fields = {"Host": "127.0.0.1", **scenario.headers}
    if scenario.request_body is not None:
        fields["Content-Type"] = "application/octet-stream"
        fields["Content-Length"] = str(scenario.body_size)
    lines = [f"{scenario.method} {scenario.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + (scenario.request_body or b"")


def ask(connection: socket.socket, request: bytes, times: int, answer: bytes) -> None:
    for _ in range(times):
        connection.sendall(request)
        if receive_response(connection) != answer:
            raise WrongAnswer("another body than the scenario's")


def count_all(valgrind: str, vgdb: str, duckfast: list[str]) -> dict[str, float]:
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in CHECKED]
    counted: dict[str, float] = {}
    for interface in ("wsgi", "asgi"):
        with tempfile.TemporaryDirectory(prefix="duckfast-check-") as folder:
            counter = Counter(valgrind, vgdb, command_line(duckfast, interface), Path(folder))
            with counter.process:
                counter.wait_until_up()
                for scenario in scenarios:
                    if scenario.interface == interface:
                        counted[scenario.name] = round(counter.count(scenario), 1)
    return counted


def load_baseline() -> dict[str, dict[str, object]]:
    if not BASELINE.exists():
        return {}
    loaded: dict[str, dict[str, object]] = json.loads(BASELINE.read_text())
    return loaded


def interpreter(duckfast: list[str]) -> dict[str, str]:
    """Of the server, which need not be the one we run on."""
    command = with_interpreter(duckfast)
    code = "import platform as p; print(p.python_version(), p.machine(), p.python_compiler(), sep='|')"
    version, machine, compiler = tools.first_line([command[0], "-c", code]).split("|")
    return {"key": f"{version}-{machine}", "compiler": compiler}


def compare(counted: dict[str, float], entry: dict[str, object] | None) -> list[Comparison]:
    known = entry["instructions"] if entry is not None else {}
    assert isinstance(known, dict)
    return [Comparison(name, count, known.get(name)) for name, count in counted.items()]


def table(comparisons: list[Comparison]) -> str:
    lines = ["| scenario | instructions/request | baseline | change | |", "|---|---:|---:|---:|---|"]
    for item in comparisons:
        baseline = f"{item.baseline:,.0f}" if item.baseline else ""
        change = f"{item.change:+.2%}" if item.change is not None else ""
        verdict = "**DEARER**" if item.regressed else "cheaper" if item.change and item.change < -TOLERANCE else ""
        lines.append(f"| {item.scenario} | {item.counted:,.0f} | {baseline} | {change} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="write what was counted into baseline.json")
    parser.add_argument("--duckfast", metavar="COMMAND", help="another build than the project's .venv")
    arguments = parser.parse_args()
    try:
        valgrind = tools.need_command("valgrind", "valgrind")
        vgdb = tools.need_command("vgdb", "valgrind")
        duckfast = tools.need_duckfast(arguments.duckfast)
        found = interpreter(duckfast)
        counted = count_all(valgrind, vgdb, duckfast)
    except (tools.Missing, Failed, WrongAnswer, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    baseline = load_baseline()
    entry = baseline.get(found["key"])
    comparisons = compare(counted, entry)
    print(table(comparisons))
    if arguments.update:
        baseline[found["key"]] = {
            "compiler": found["compiler"],
            "valgrind": tools.first_line([valgrind, "--version"]),
            "instructions": counted,
        }
        BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n")
        print(f"\nwritten to {BASELINE.name} as {found['key']}")
        return 0
    return judge(comparisons, entry, found)


def judge(comparisons: list[Comparison], entry: dict[str, object] | None, found: dict[str, str]) -> int:
    if entry is None:
        print(f"\nno baseline for {found['key']}: nothing compared. Make one with: python bench/check.py --update")
        return 0
    built, building = entry["compiler"], found["compiler"]
    if built != building:
        print(f"\nthe baseline's Python was built by {built}, this one by {building}: part of the change is due to that")
    regressed = ", ".join(item.scenario for item in comparisons if item.regressed)
    if regressed:
        print(f"\ndearer by more than {TOLERANCE:.0%}: {regressed}. If it is worth it: --update, and say why in the commit")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
