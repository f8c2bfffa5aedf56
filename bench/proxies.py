"""A million requests through nginx and another through HAProxy: none may fail, and every answer must name the right client.

Forwarded fields and the PROXY protocol, WSGI and ASGI, TCP and unix sockets, on connections that the proxy keeps
where it can. wrk compares each answer with whom it comes from; beside it clients of other addresses do the same. Prints a
Markdown table; exit code 1 when a single request failed or named somebody else. See README.md. Linux, nginx, haproxy, wrk.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import processes, tools
from harness.client import free_port
from harness.measure import Failed

CONNECTIONS = 64
TURN = 10  # seconds wrk runs at a time, until enough requests have been answered
UP_TIMEOUT = 20.0  # seconds for a server or proxy to listen
SAMPLERS = [f"127.0.0.{number}" for number in range(5, 9)]  # other clients, none of them trusted by default
PAUSE = 0.002  # seconds between a sampler's requests
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
{main}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""
NGINX_FIELDS = """
    upstream site {{ server {place}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://site;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            {fields}
        }}
    }}
"""
X_FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https;"
FORWARDED = "proxy_set_header Forwarded 'for=$remote_addr;proto=https';"
NGINX_STREAM = """
load_module {module};
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {place}; proxy_protocol on; }} }}
"""
HAPROXY = """
global
    maxconn 1024
    nbthread 1
defaults
    mode {mode}
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port}
    {frontend}
    default_backend back
backend back
    http-reuse always
    server one {place} {server}
"""
PROXY_V2 = ("--proxy-protocol", "v2")
HAPROXY_FIELDS = "option forwardfor\n    http-request set-header X-Forwarded-Proto https"


@dataclass(frozen=True)
class Way:
    """One way in: how the proxy is told, what duckfast is told, and the scheme the application is to see."""

    proxy: str
    name: str
    options: tuple[str, ...]  # of duckfast
    scheme: str
    configuration: Callable[[str, int, Path], str]  # of where duckfast listens, the proxy's port and folder
    unix: bool = False


def nginx_fields(fields: str) -> Callable[[str, int, Path], str]:
    def configuration(place: str, port: int, folder: Path) -> str:
        return NGINX.format(folder=folder, main="", http=NGINX_FIELDS.format(place=place, port=port, fields=fields))

    return configuration


def nginx_stream(place: str, port: int, folder: Path) -> str:
    main = NGINX_STREAM.format(module=STREAM_MODULE, port=port, place=place)
    return NGINX.format(folder=folder, main=main, http="")


def haproxy(mode: str, frontend: str = "", server: str = "") -> Callable[[str, int, Path], str]:
    def configuration(place: str, port: int, folder: Path) -> str:
        text = HAPROXY.format(mode=mode, port=port, frontend=frontend, place=place.removeprefix("unix:"), server=server)
        return text if mode == "http" else text.replace("    http-reuse always\n", "")

    return configuration


def ways() -> list[Way]:
    found = [
        Way("nginx", "X-Forwarded, TCP", (), "https", nginx_fields(X_FORWARDED)),
        Way("nginx", "Forwarded, unix", ("--proxy-headers", "forwarded"), "https", nginx_fields(FORWARDED), unix=True),
        Way("haproxy", "X-Forwarded, TCP", (), "https", haproxy("http", HAPROXY_FIELDS)),
        Way("haproxy", "PROXY v1, tcp mode", ("--proxy-protocol", "v1"), "http", haproxy("tcp", server="send-proxy")),
        Way("haproxy", "PROXY v2, tcp mode, unix", PROXY_V2, "http", haproxy("tcp", server="send-proxy-v2"), unix=True),
        Way("haproxy", "PROXY v2, http mode", PROXY_V2, "http", haproxy("http", server="send-proxy-v2")),
    ]
    if STREAM_MODULE.exists():
        found.insert(2, Way("nginx", "PROXY v1, stream", ("--proxy-protocol", "v1"), "http", nginx_stream))
    else:
        print("nginx without PROXY protocol: apt-get install libnginx-mod-stream", file=sys.stderr)
    return found


class Sampler(threading.Thread):
    """A client of another address, on a connection that is kept and on a new one in turn."""

    def __init__(self, port: int, address: str, scheme: str) -> None:
        super().__init__(daemon=True)
        self._port, self._address = port, address
        self._expected = f"{address} {scheme}".encode()
        self._stopping = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self._stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30, source_address=(self._address, 0))
            try:
                for _ in range(20):
                    connection.request("GET", "/", headers={"Host": "example.org"})
                    response = connection.getresponse()
                    body = response.read()
                    self.answers += 1
                    if response.status != 200 or body != self._expected:
                        self.wrong.append(f"{response.status} {body[:80]!r}")
                    if response.will_close or self._stopping.wait(PAUSE):
                        break
            except (OSError, http.client.HTTPException) as error:
                self.answers += 1
                self.wrong.append(repr(error))
            finally:
                connection.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


@dataclass
class Outcome:
    way: Way
    interface: str
    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    sampled: int = 0
    wrong: int = 0

    @property
    def clean(self) -> bool:
        return self.failed == 0 and self.wrong == 0 and self.sampled > 0

    def line(self) -> str:
        rate = self.requests / self.seconds if self.seconds else 0
        return (
            f"| {self.way.proxy} | {self.way.name} | {self.interface} | {self.requests:,} | {self.failed} | {self.sampled:,} "
            f"| {self.wrong} | {rate:,.0f} | {'pass' if self.clean else '**FAIL**'} |"
        )


def wait_until_up(process: processes.Process, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UP_TIMEOUT
    while not ready():
        if process.exited is not None or time.monotonic() > deadline:
            raise Failed(f"{process.command[0]} did not come up:\n{process.tail()}")
        time.sleep(0.05)


def is_right(port: int, expected: bytes) -> Callable[[], bool]:
    def ready() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/", headers={"Host": "example.org"})
            return connection.getresponse().read() == expected
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def drive(way: Way, interface: str, requests: int, duckfast: list[str], commands: dict[str, str]) -> Outcome:
    outcome = Outcome(way, interface)
    with tempfile.TemporaryDirectory(prefix="duckfast-proxies-") as name:
        folder = Path(name)
        port, inner = free_port(), free_port()
        place = f"unix:{folder}/http.sock" if way.unix else f"127.0.0.1:{inner}"
        where = ["--uds", f"{folder}/http.sock"] if way.unix else ["--host", "127.0.0.1", "--port", str(inner)]
        server = [*duckfast, f"proxied:{interface}", "--app-dir", str(tools.BENCH), "--interface", interface, *where]
        server += [*way.options, "--no-access-log", "--timeout-keep-alive", "75s", "--threads", "4"]
        path = folder / f"{way.proxy}.conf"
        path.write_text(way.configuration(place, port, folder))
        words = ["-p", name, "-c", str(path)] if way.proxy == "nginx" else ["-db", "-f", str(path)]
        proxy = [commands[way.proxy], *words]
        environ = tools.server_environ()
        expected = f"127.0.0.1 {way.scheme}"
        with (
            processes.Process(server, environ=environ, cwd=tools.BENCH, output=folder / "duckfast.out") as serving,
            processes.Process(proxy, environ=environ, cwd=folder, output=folder / "proxy.out") as relaying,
        ):
            wait_until_up(relaying, is_right(port, expected.encode()))
            samplers = [Sampler(port, address, way.scheme) for address in SAMPLERS]
            for sampler in samplers:
                sampler.start()
            started = time.monotonic()
            while outcome.requests < requests:
                load(outcome, port, expected, commands["wrk"])
                if outcome.failed:
                    break
            outcome.seconds = time.monotonic() - started
            for sampler in samplers:
                sampler.stop()
                outcome.sampled += sampler.answers
                outcome.wrong += len(sampler.wrong)
                for complaint in sampler.wrong[:3]:
                    print(f"{way.proxy}, {way.name}, {interface}: {complaint}", file=sys.stderr)
            refused = serving.output.read_text(errors="replace").count("refused")
            if refused or serving.exited is not None:
                outcome.failed += max(refused, 1)
                print(serving.tail(), file=sys.stderr)
    return outcome


def load(outcome: Outcome, port: int, expected: str, wrk: str) -> None:
    script = str(tools.BENCH / "proxies.lua")
    command = [wrk, "-t", "1", "-c", str(CONNECTIONS), "-d", f"{TURN}s", "--timeout", "30s", "-s", script]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/", "--", expected], capture_output=True, text=True, check=False, timeout=120
    )
    found = re.search(r"^WRK (\{.*\})$", done.stdout, re.MULTILINE)
    if found is None:
        raise Failed(f"wrk said nothing that can be read:\n{done.stdout}{done.stderr}")
    counts = json.loads(found[1])
    outcome.requests += counts.pop("answered")
    outcome.failed += sum(counts.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000, help="through each proxy, shared by its ways (a million)")
    parser.add_argument("--duckfast", metavar="COMMAND", help="another build than the project's .venv")
    arguments = parser.parse_args()
    try:
        duckfast = tools.need_duckfast(arguments.duckfast)
        commands = {name: tools.need_command(name, name) for name in ("nginx", "haproxy", "wrk")}
        outcomes = []
        print("| proxy | way | interface | requests | failed | sampled | wrong client | requests/s | |")
        print("|---|---|---|---:|---:|---:|---:|---:|---|", flush=True)
        all_ways = ways()
        for way in all_ways:
            share = arguments.requests // (2 * sum(other.proxy == way.proxy for other in all_ways)) + 1
            for interface in ("wsgi", "asgi"):
                outcomes.append(drive(way, interface, share, duckfast, commands))
                print(outcomes[-1].line(), flush=True)
    except (tools.Missing, Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for proxy in ("nginx", "haproxy"):
        mine = [outcome for outcome in outcomes if outcome.way.proxy == proxy]
        requests, failed = sum(one.requests for one in mine), sum(one.failed for one in mine)
        sampled, wrong = sum(one.sampled for one in mine), sum(one.wrong for one in mine)
        print(f"\n{proxy}: {requests:,} requests, {failed} failed; {sampled:,} answers to other addresses, {wrong} wrong")
    return 0 if all(outcome.clean for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
