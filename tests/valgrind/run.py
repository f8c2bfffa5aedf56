"""The WSGI engine's threads under valgrind, with a few clients: races (helgrind) or bad memory accesses (memcheck) of our own.

    python tests/valgrind/run.py helgrind        make helgrind
    python tests/valgrind/run.py memcheck        make memcheck

A report is ours if its innermost frame outside of valgrind and the C library is in one of duckfast's modules; those of the
interpreter are counted and left alone. Helgrind sees the interpreter's lock, which is a mutex and a condition, but knows no
atomic operations: what goes through these in the code is named in ATOMIC below. Exits with 1 if anything else is found.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import process, wire
from support.process import ServerProcess
from support.wire import Wire, chunked, request

# The fields of _leader's df_crew that are atomic: by their places on x86-64 with glibc, in a block of this size.
CREW = 184
ATOMIC = {136: "sequence", 144: "in_app", 152: "asleep", 160: "idle", 168: "seen", 180: "push_fd"}
TARGETS = ["/", "/block", "/stream", "/large"]
FOREIGN = ("valgrind", "libc.so", "ld-linux", "libpthread", "libm.so")
SLOW = 600.0  # seconds; valgrind is 50 times slower


def drive(address: tuple[str, int], rounds: int) -> None:
    """One client: requests of every kind on a few connections, some of which it leaves in the middle."""
    for turn in range(rounds):
        with Wire(address) as client:
            for target in TARGETS:
                client.send(request(target=target) * 2)
                for _ in range(2):
                    assert client.read_response().status == 200
            client.send(request("POST", body=b"x" * 3000))
            assert client.read_response().body == b"3000"
            client.send(request("POST", headers=[("Transfer-Encoding", "chunked")]) + chunked(b"a", b"b"))
            assert client.read_response().body == b"2"
            client.send(request(target=TARGETS[turn % len(TARGETS)]))
            if turn % 2:
                client.reset()


def frames_of(stack: ElementTree.Element) -> list[tuple[str, str]]:
    """(library, function) from the innermost on."""
    return [(frame.findtext("obj", ""), frame.findtext("fn", "")) for frame in stack.findall("frame")]


def is_ours(frames: list[tuple[str, str]]) -> bool:
    for library, function in frames:
        if function == "__pthread_cond_wait_common":
            return False  # glibc's own use of its conditions
        if not any(name in library for name in FOREIGN):
            return "/duckfast/_" in library
    return False


def atomic_field(error: ElementTree.Element) -> str:
    """The atomic field that this race is about; "" if it is about anything else."""
    for note in error.findall("auxwhat"):
        place = re.search(rf"is (\d+) bytes inside a block of size {CREW} alloc'd", note.text or "")
        if place:
            return ATOMIC.get(int(place[1]), "")
    return ""


def read_reports(path: Path) -> tuple[Counter[tuple[str, ...]], Counter[tuple[str, ...]], Counter[str]]:
    """Our reports with our functions in their stacks, those about atomic fields, and how many of each kind are of others."""
    found: Counter[tuple[str, ...]] = Counter()
    atomic: Counter[tuple[str, ...]] = Counter()
    others: Counter[str] = Counter()
    for error in ElementTree.parse(path).getroot().findall("error"):
        kind = error.findtext("kind", "")
        stacks = [frames_of(stack) for stack in error.findall("stack")]
        places = tuple(map(place_of, stacks[:2]))
        if not stacks or not is_ours(stacks[0]):
            others[kind] += 1
        elif field := atomic_field(error):
            atomic[field, *places] += 1
        else:
            found[kind, error.findtext("xwhat/text") or error.findtext("what", ""), *places] += 1
    return found, atomic, others


def run(tool: str, threads: int, rounds: int) -> Path:
    report = Path(tempfile.mkdtemp()) / f"{tool}.xml"
    options = ["--history-level=full"] if tool == "helgrind" else ["--leak-check=no", "--undef-value-errors=yes"]
    command = [
        "valgrind", f"--tool={tool}", "--xml=yes", f"--xml-file={report}", "--num-callers=24", *options,
        sys.executable, "-m", "duckfast", "app:app", "--interface", "wsgi", "--port", "0", "--threads", str(threads),
        "--no-access-log", "--timeout-graceful-shutdown", "60",
    ]
    with ServerProcess(command=command, cwd=Path(__file__).parent, env={"PYTHONMALLOC": "malloc"}) as server:
        clients = [threading.Thread(target=drive, args=((server.host, server.port), rounds)) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        server.send_signal(signal.SIGTERM)
        assert server.wait(SLOW) == 0, server.stderr_text()
    return report


def place_of(frames: list[tuple[str, str]]) -> str:
    """The innermost of our functions."""
    return next((function for library, function in frames if "/duckfast/_" in library), "?")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", choices=["helgrind", "memcheck"])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    wire.DEADLINE = SLOW
    process.OutputReader.wait_until.__defaults__ = (SLOW,)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    found, atomic, others = read_reports(run(options.tool, options.threads, options.rounds))
    for name, reports in (("atomic", atomic), ("FOUND", found)):
        for report, number in reports.items():
            print(name, number, *report)
    print(f"{found.total()} reports of duckfast's, {atomic.total()} of its atomic fields; of others: {dict(others)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
