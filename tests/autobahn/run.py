"""Autobahn's 517 websocket cases against a started server, plain and over TLS. `make autobahn` runs it in .venv-autobahn.

The cases come with `kosoku`, which runs Autobahn's own case files. A case passes if its behaviour is OK, NON-STRICT or
INFORMATIONAL and so is the way it closed; everything else is listed with its reason and makes the exit code 1. kosoku
speaks no TLS, so a tunnel of this file does it for the cases over TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import fnmatch
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import kosoku.cases
from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult
from kosoku._report import write_reports

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
REPORTS = PROJECT / "build" / "autobahn"

ALL = 517  # Autobahn's cases, by its own count
CATEGORIES = ("1", "2", "3", "4", "5", "6", "7", "9", "10", "12", "13")  # 8 and 11 are empty
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
MAX_MESSAGE = 32 * 1024 * 1024  # bytes; the largest case sends 16 MiB
START_TIMEOUT = 20.0  # seconds until the port is open
UNFINISHED = "Case did not finish within"  # kosoku 0.1 stops a case after 20 s, whatever the case itself allows
PIECE = 256 * 1024  # bytes the tunnel reads at once

PEERS = {
    "uvicorn": ["--ws", "websockets-sansio", "--loop", "uvloop"],
    "uvicorn-wsproto": ["--ws", "wsproto", "--loop", "uvloop"],
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--cases", default="*", metavar="GLOBS", help="of case numbers, with commas: 1.*,7.9.*,12.1.1")
    parser.add_argument("--skip", default="", metavar="GLOBS", help="the opposite")
    parser.add_argument("--way", choices=["plain", "tls", "both"], default="both", help="how the server is reached")
    parser.add_argument("--concurrency", type=int, default=2, metavar="N", help="cases at the same time")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS", help="for one category of cases")
    parser.add_argument("--server", choices=["duckfast", *PEERS], default="duckfast", help="the peers prove the runner itself")
    ours = str(PROJECT / ".venv" / "bin" / "duckfast")
    parser.add_argument("--duckfast", default=ours, metavar="COMMAND", help="another build, or more options")
    return parser.parse_args()


# The server ---------------------------------------------------------------------------------------------------------


def server_command(arguments: argparse.Namespace, port: int, certificate: tuple[str, str] | None) -> list[str]:
    if arguments.server == "duckfast":
        command = [*shlex.split(arguments.duckfast), "--interface", "asgi", "--no-access-log"]
    else:
        command = [sys.executable, "-m", "uvicorn", "--log-level", "critical", *PEERS[arguments.server]]
    command += ["echo:application", "--app-dir", str(HERE), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ws-max-size", str(MAX_MESSAGE)]
    if certificate is not None:
        command += ["--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1]]
    return command


@contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Runs a server until the end of the block, which it must reach alive and leave by SIGTERM in order."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DUCKFAST_", "UVICORN_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_for_port(process, port, log)
            yield
            if process.poll() is not None:
                raise SystemExit(f"the server ended by itself with {process.returncode}, see {log}")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"the server did not stop when asked to, see {log}", file=sys.stderr)
    if process.returncode not in (0, -signal.SIGTERM):
        raise SystemExit(f"the server ended with {process.returncode}, see {log}")


def wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{shlex.join(map(str, process.args))}\n{log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificate(folder: Path) -> tuple[str, str]:
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


# TLS ----------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tunnel(port: int, certificate: str) -> AsyncIterator[int]:
    """A port that speaks in clear with the runner what the server's `port` speaks over TLS. Ends are passed on both ways."""
    context = ssl.create_default_context(cafile=certificate)
    tasks: set[asyncio.Task[None] | None] = set()

    async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(PIECE):
                target.write(data)
                await target.drain()
        except OSError:
            pass  # the case goes by what its own side of the tunnel sees
        finally:
            target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await join(reader, writer)
        except asyncio.CancelledError:
            writer.close()  # at the end of the block: a case has left its connection open

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            secure = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost", limit=PIECE)
        except OSError as error:
            print(f"the tunnel could not connect: {error}", file=sys.stderr)
            writer.close()
            return
        await asyncio.gather(carry(reader, secure[1]), carry(secure[0], writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=PIECE)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


# The cases ----------------------------------------------------------------------------------------------------------


async def run_categories(arguments: argparse.Namespace, port: int, way: str) -> tuple[list[CaseResult], list[str]]:
    """What the cases gave, and what went wrong outside of any case."""
    found: list[CaseResult] = []
    errors: list[str] = []
    wanted, unwanted = globs(arguments.cases), globs(arguments.skip)
    for category in CATEGORIES:
        # A glob selects by the whole number: `1.*` is not `12.*`.
        chosen = [glob for glob in (narrowed(glob, category) for glob in wanted) if glob is not None]
        if not chosen:
            continue
        begun = time.monotonic()
        try:
            results = await run_cases(arguments, port, chosen, unwanted)
        except TimeoutError:
            errors.append(f"category {category} took longer than {arguments.timeout:.0f} s")
            continue
        except ValueError as error:
            errors.append(f"category {category}: {error}")
            continue
        failed = sum(not passed(result) for result in results)
        seconds = time.monotonic() - begun
        print(f"{way:5} {category:>2}.*  {len(results):3} cases, {failed} failed  {seconds:6.1f} s", flush=True)
        found += results
    return found, errors


async def run_cases(arguments: argparse.Namespace, port: int, chosen: list[str], unwanted: list[str]) -> list[CaseResult]:
    """The results of the cases; those that took longer than kosoku lets a case take are run once more, alone."""

    async def run(cases: list[str], concurrency: int) -> list[CaseResult]:
        running = run_fuzzingclient(f"ws://127.0.0.1:{port}", cases, unwanted or None, concurrency=concurrency)
        try:
            return await asyncio.wait_for(running, arguments.timeout)
        except FailureError as failure:
            return failure.results

    results = await run(chosen, arguments.concurrency)
    slow = [result.case_id for result in results if result.result.startswith(UNFINISHED) and arguments.concurrency > 1]
    if slow:
        print(f"      once more, alone, because they took too long side by side: {', '.join(slow)}", flush=True)
        again = {result.case_id: result for result in await run(slow, 1)}
        results = [again.get(result.case_id, result) for result in results]
    return results


def accept_uncompressed_answers() -> None:
    """The cases of compression hash each answer, and kosoku 0.1 gives those that came uncompressed as a str: text as it reads,
    bytes as code points up to 255. A server may send a short message uncompressed (RFC 7692 6), so such answers become the
    bytes they were."""
    for number, case in kosoku.cases.CASES.items():
        if number.startswith(("12.", "13.")):
            case.onMessage = with_bytes(case.onMessage)


def with_bytes(on_message: Callable[[object, bytes, bool], None]) -> Callable[[object, str | bytes, bool], None]:
    def on_bytes(case: object, message: str | bytes, binary: bool) -> None:
        on_message(case, message.encode("latin-1" if binary else "utf-8") if isinstance(message, str) else message, binary)

    return on_bytes


def globs(text: str) -> list[str]:
    return text.replace(",", " ").split()


def narrowed(glob: str, category: str) -> str | None:
    """The glob where it can match cases of this category, of all cases where it is a bare `*`."""
    first, dot, _ = glob.partition(".")
    if not dot:
        return f"{category}.*" if fnmatch.fnmatch(category, first) else None
    return f"{category}{glob[len(first) :]}" if fnmatch.fnmatch(category, first) else None


def passed(result: CaseResult) -> bool:
    return result.behavior.value in GOOD and result.behavior_close.value in GOOD


def reason(result: CaseResult) -> str:
    said = f"{result.behavior.value}: {result.result}" if result.behavior.value not in GOOD else ""
    closed = f"close {result.behavior_close.value}: {result.result_close}" if result.behavior_close.value not in GOOD else ""
    return f"{result.case_id}  {' | '.join(filter(None, (said, closed)))} [close code {result.remote_close_code}]"


async def run_way(arguments: argparse.Namespace, way: str, port: int, certificate: tuple[str, str] | None) -> bool:
    if certificate is None:
        found, errors = await run_categories(arguments, port, way)
    else:
        async with tunnel(port, certificate[0]) as entrance:
            found, errors = await run_categories(arguments, entrance, way)
    if found:
        folder = REPORTS / f"{arguments.server}-{way}"
        write_reports(found, str(folder))
        print(f"{way:5} reports of every case: {folder.relative_to(PROJECT)}/index.html")
    counts = collections.Counter(result.behavior.value for result in found)
    closes = collections.Counter(result.behavior_close.value for result in found)
    print(f"{way:5} {len(found)} cases: {summary(counts)}; how they closed: {summary(closes)}")
    failed = [result for result in found if not passed(result)]
    for result in failed:
        print(f"{way:5} FAILED {reason(result)}")
    for error in errors:
        print(f"{way:5} ERROR {error}")
    if not found:
        print(f"{way:5} ERROR no case was run")
    if arguments.cases == "*" and not arguments.skip and len(found) != ALL:
        print(f"{way:5} ERROR {len(found)} cases of {ALL} were run")
        return False
    return bool(found) and not failed and not errors


def summary(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def main() -> int:
    arguments = parse_arguments()
    REPORTS.mkdir(parents=True, exist_ok=True)
    accept_uncompressed_answers()
    good = True
    with tempfile.TemporaryDirectory(prefix="autobahn-") as name:
        for way in ("plain", "tls") if arguments.way == "both" else (arguments.way,):
            certificate = make_certificate(Path(name)) if way == "tls" else None
            port = free_port()
            log = REPORTS / f"{arguments.server}-{way}.log"
            with started(server_command(arguments, port, certificate), port, log):
                good &= asyncio.run(run_way(arguments, way, port, certificate))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
