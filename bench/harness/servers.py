"""How each server is started for a scenario. One process that works, one core, logs off unless the scenario is about them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apps

from . import tools
from .scenarios import Scenario

NGINX_PIECE = 1024  # bytes; nginx refuses one configuration word above 4 KiB, so a long answer is made of pieces


@dataclass(frozen=True)
class Start:
    """All that is needed to start one server for one scenario."""

    command: list[str]
    environ: dict[str, str]
    log: Path | None = None  # where access lines go; None: the process's own output


@dataclass(frozen=True)
class Server:
    key: str
    serves: Callable[[Scenario], bool]
    start: Callable[[Scenario, int, Path], Start]
    logs: bool = True  # writes an access line per request where the scenario asks for it
    chunks: bool = True  # streams a body of unknown length in chunks; nginx `return` needs a length


def catalogue(duckfast: list[str] | None, nginx: str) -> list[Server]:
    """In the order they are measured. Without a duckfast command its rows are left out."""
    servers = [
        Server("nginx", _nginx_serves, _nginx(nginx, logs=False), logs=False, chunks=False),
        Server("nginx-log", lambda scenario: scenario.access_log, _nginx(nginx, logs=True)),
        Server("granian", lambda scenario: True, _granian),
        Server("uvicorn", lambda scenario: scenario.interface == "asgi", _uvicorn),
        Server("gunicorn", lambda scenario: scenario.interface == "wsgi" and not scenario.tls, _gunicorn),
        Server("fastpysgi", _fastpysgi_serves, _fastpysgi, logs=False),
    ]
    if duckfast is not None:
        servers.insert(1, Server("duckfast", lambda scenario: True, _duckfast(duckfast, logs=True)))
        without = Server("duckfast-nolog", lambda scenario: scenario.access_log, _duckfast(duckfast, False), logs=False)
        servers.insert(2, without)
    return servers


def duckfast_command(
    duckfast: list[str], interface: str, port: int, *, threads: int = 1, access_log: bool = False, more: tuple[str, ...] = ()
) -> list[str]:
    command = [*duckfast, f"apps:{interface}", "--app-dir", str(tools.BENCH), "--interface", interface]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    if interface == "wsgi":
        command += ["--threads", str(threads)]
    command.append("--access-log" if access_log else "--no-access-log")
    return [*command, *more]


def _duckfast(duckfast: list[str], logs: bool) -> Callable[[Scenario, int, Path], Start]:
    def start(scenario: Scenario, port: int, folder: Path) -> Start:
        access_log = logs and scenario.access_log
        more: tuple[str, ...] = ()
        if scenario.tls:
            certificate, key = tools.certificate()
            more = ("--ssl-certfile", certificate, "--ssl-keyfile", key)
        command = duckfast_command(
            duckfast, scenario.interface, port, threads=scenario.threads, access_log=access_log, more=more
        )
        return Start(command, tools.server_environ())

    return start


def _granian(scenario: Scenario, port: int, folder: Path) -> Start:
    command = [_peer("granian"), f"apps:{scenario.interface}", "--interface", scenario.interface]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--http", "1", "--no-ws"]
    command += ["--working-dir", str(tools.BENCH)]
    if scenario.interface == "wsgi":
        command += ["--blocking-threads", str(scenario.threads)]
    else:
        command += ["--loop", "uvloop"]
    if scenario.tls:
        certificate, key = tools.certificate()
        command += ["--ssl-certificate", certificate, "--ssl-keyfile", key]
    # Its access lines are of level info.
    command += ["--access-log"] if scenario.access_log else ["--no-access-log", "--log-level", "warning"]
    return Start(command, tools.peers_environ())


def _uvicorn(scenario: Scenario, port: int, folder: Path) -> Start:
    command = [_peer("uvicorn"), "apps:asgi", "--app-dir", str(tools.BENCH), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--http", "httptools", "--loop", "uvloop", "--ws", "none"]
    if scenario.tls:
        certificate, key = tools.certificate()
        command += ["--ssl-certfile", certificate, "--ssl-keyfile", key]
    command += ["--access-log"] if scenario.access_log else ["--no-access-log", "--log-level", "warning"]
    return Start(command, tools.peers_environ())


def _gunicorn(scenario: Scenario, port: int, folder: Path) -> Start:
    command = [_peer("gunicorn"), "apps:wsgi", "--chdir", str(tools.BENCH), "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--workers", "1", "--threads", str(scenario.threads)]
    command += ["--log-level", "warning"]
    if scenario.access_log:
        command += ["--access-logfile", "-"]
    return Start(command, tools.peers_environ())


def _fastpysgi(scenario: Scenario, port: int, folder: Path) -> Start:
    command = [_peer("fastpysgi"), f"apps:{scenario.interface}", "--host", "127.0.0.1", "--port", str(port)]
    return Start(command, tools.peers_environ())


def _fastpysgi_serves(scenario: Scenario) -> bool:
    """It has neither threads nor an access log, and does not stream (0.6): WSGI bodies are joined and sent with a length,
    and an ASGI body without a length is never answered."""
    return scenario.threads == 1 and not scenario.access_log and not scenario.chunked and not scenario.tls


def _peer(name: str) -> str:
    return str(tools.PEERS / "bin" / name)


def _nginx_serves(scenario: Scenario) -> bool:
    # Nothing of nginx's own sleeps; everything else it can answer with the same bytes.
    return scenario.path != "/sleep"


def _nginx(nginx: str, logs: bool) -> Callable[[Scenario, int, Path], Start]:
    def start(scenario: Scenario, port: int, folder: Path) -> Start:
        log = folder / "access.log" if logs else None
        configuration = folder / "nginx.conf"
        configuration.write_text(nginx_configuration(port, folder, log, scenario.tls))
        command = [nginx, "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
        return Start(command, tools.server_environ(), log)

    return start


def nginx_configuration(port: int, folder: Path, log: Path | None, tls: bool = False) -> str:
    """`return 200` for every path. Chunks cannot be returned: /stream gives the same bytes with a length."""
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in kinds)
    pieces = len(apps.TEN_KIB) // NGINX_PIECE
    ten_kib = _nginx_answer(apps.TEN_KIB[:NGINX_PIECE], pieces)
    stream = _nginx_answer(apps.PIECE, apps.PIECES)
    certificate, key = tools.certificate() if tls else ("", "")
    secure = f"ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;" if tls else ""
    return f"""
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
{temporary}
    access_log {log or "off"};
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 300;
    server {{
        listen 127.0.0.1:{port} {"ssl" if tls else ""} backlog=2048;
        {secure}
        location = /10k {{ {ten_kib} }}
        location = /stream {{ {stream} }}
        location / {{ return 200 "{apps.HELLO.decode()}"; }}
    }}
}}
"""


def _nginx_answer(piece: bytes, count: int) -> str:
    return f'set $piece "{piece.decode()}"; return 200 "{"$piece" * count}";'
