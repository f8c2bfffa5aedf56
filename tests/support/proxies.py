"""Debian's nginx and HAProxy in front of a server: own instances, on loopback, ended by their ids. Knows nothing of duckfast."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import textwrap
from pathlib import Path
from types import TracebackType

from support.machine import free_port
from support.wire import eventually

DEADLINE = 30.0  # seconds; only a broken proxy reaches it
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # where Debian keeps daemons
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def find(name: str) -> str | None:
    return shutil.which(name, path=PATH)


class Proxy:
    """A started proxy that listens on `port` of 127.0.0.1; in its configuration PORT and FOLDER are replaced."""

    def __init__(self, name: str, configuration: str, folder: Path) -> None:
        self.port = free_port()
        self._output = folder / f"{name}.out"
        path = folder / f"{name}.conf"
        text = textwrap.dedent(configuration).replace("FOLDER", str(folder)).replace("PORT", str(self.port))
        path.write_text(text)
        command = find(name)
        assert command is not None
        arguments = {
            "nginx": ["-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")],
            "haproxy": ["-db", "-f", str(path)],
        }
        self._command = [command, *arguments[name]]

    def __enter__(self) -> Proxy:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._output.parent
            )
        try:
            eventually(self._listens, "a listening proxy", DEADLINE)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"{self._command} has ended:\n{self._output.read_text()}"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def nginx(folder: Path, inside: str, main: str = "") -> Proxy:
    """nginx as one process: `inside` is what stands in http, `main` beside it."""
    configuration = f"""
daemon off;
master_process off;
pid FOLDER/nginx.pid;
{main}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
{inside}
}}
"""
    return Proxy("nginx", configuration, folder)


def haproxy(folder: Path, frontend: str, backend: str, mode: str = "http") -> Proxy:
    configuration = f"""
global
    maxconn 512
defaults
    mode {mode}
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:PORT
    {frontend}
    default_backend back
backend back
    {backend}
"""
    return Proxy("haproxy", configuration, folder)
