"""Real gunicorn processes with duckfast's workers. The newest gunicorn of the test environment, or the one in GUNICORN_PATH.

GUNICORN_PATH is a folder that `pip install --target` has filled; `make test-gunicorn` sets it to one version after the other.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from support.client import Answer, fetch
from support.process import OutputReader, ServerProcess

FOLDER = os.environ.get("GUNICORN_PATH", "")


def find_version() -> tuple[int, ...]:
    found = importlib.metadata.distributions(path=[FOLDER]) if FOLDER else [importlib.metadata.distribution("gunicorn")]
    text = next(each.version for each in found if each.metadata["Name"].lower() == "gunicorn")
    return tuple(int(part) for part in text.split(".")[:2])


VERSION = find_version()
WORKERS = {"wsgi": "duckfast.gunicorn.WSGIWorker", "asgi": "duckfast.gunicorn.ASGIWorker"}
SERVING = r"\[(\d+)\] \[INFO\] duckfast \S+ serves \("  # said by each worker

# "/": what the app sees, as the text of a dict. /pid: which worker. /slow waits for the file `go`, /block for ever.
# POST: the body again. /fail raises.
WEBSITE = """
    import asyncio, os, time

    def slowly():
        print("begun", flush=True)
        while not os.path.exists("go"):
            yield 0.01

    def wsgi(environ, start_response):
        path = environ["PATH_INFO"]
        plain = {name: value for name, value in environ.items() if isinstance(value, (str, bool))}
        body = str(plain).encode()
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"].read()
        elif path == "/pid":
            body = str(os.getpid()).encode()
        elif path == "/slow":
            for pause in slowly():
                time.sleep(pause)
        elif path == "/block":
            print("begun", flush=True)
            time.sleep(600)
        elif path == "/fail":
            raise ValueError("on purpose")
        start_response("200 OK", [("Content-Length", str(len(body))), ("X-Made-By", "the app")])
        return [body]

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    print("lifespan.shutdown", flush=True)
                    return
        path = scope["path"]
        body = str({name: value for name, value in scope.items() if name not in ("state", "app")}).encode()
        if scope["method"] == "POST":
            body, message = b"", {"more_body": True}
            while message.get("more_body"):
                message = await receive()
                body += message.get("body", b"")
        elif path == "/pid":
            body = str(os.getpid()).encode()
        elif path == "/slow":
            for pause in slowly():
                await asyncio.sleep(pause)
        elif path == "/block":
            print("begun", flush=True)
            time.sleep(600)
        elif path == "/fail":
            raise ValueError("on purpose")
        headers = [(b"content-length", str(len(body)).encode()), (b"x-made-by", b"the app")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def write_site(folder: Path, source: str = "", configuration: str = "") -> Path:
    """site.py and gunicorn.conf.py in a folder."""
    (folder / "website.py").write_text(textwrap.dedent(WEBSITE) + textwrap.dedent(source))
    (folder / "gunicorn.conf.py").write_text(textwrap.dedent(configuration))
    return folder


class Gunicorn(ServerProcess):
    """`gunicorn -k <a worker of ours> website:<kind>` in a folder of write_site(); started, then stopped with exit code 0."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *args: str,
        workers: int = 1,
        target: str = "",
        worker_class: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        options = ["-k", worker_class or WORKERS[kind], "-w", str(workers)]
        if not any(arg in ("-b", "--bind") for arg in args):
            options += ["-b", "127.0.0.1:0"]
        if VERSION >= (25, 1):
            options += ["--no-control-socket"]
        super().__init__(
            [*options, *args, target or f"website:{kind}"], env=env, cwd=folder, command=[sys.executable, "-m", "gunicorn"]
        )
        if FOLDER:
            self._env["PYTHONPATH"] = os.pathsep.join([FOLDER, self._env["PYTHONPATH"]])
        self._env["PYTHONFAULTHANDLER"] = ""
        self._workers = workers
        self.folder = folder

    def start(self) -> Gunicorn:
        """Return once every worker says that it is about to serve."""
        self.launch()
        if self._stderr.wait_until(lambda text: len(re.findall(SERVING, text)) >= self._workers):
            return self
        self.kill()
        raise AssertionError(f"gunicorn did not start, exit code {self.returncode}:\n{self.stderr_text()}")

    def launch(self) -> None:
        """Start it and do not wait."""
        self._process = subprocess.Popen(
            self._command,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._stdout = OutputReader(self._process.stdout)
        self._stderr = OutputReader(self._process.stderr)

    def run(self) -> int:
        """Start one that ends by itself; its exit code."""
        self.launch()
        try:
            return self.wait()
        finally:
            self.kill()

    def __enter__(self) -> Gunicorn:
        return self.start()

    @property
    def addresses(self) -> list[str]:
        found = re.search(r"Listening at: (\S+) \(\d+\)", self.stderr_text())
        assert found is not None, self.stderr_text()
        return found[1].split(",")

    @property
    def worker_pids(self) -> list[int]:
        """Every worker that has ever said that it is about to serve, oldest first."""
        return [int(pid) for pid in re.findall(SERVING, self.stderr_text())]

    def wait_for_workers(self, count: int) -> list[int]:
        """Until so many workers have served in all."""
        return [int(pid) for pid in self.wait_for_matches(SERVING, count)]

    def get(self, path: str = "/", **options: object) -> Answer:
        return fetch(self.addresses[0], path, **options)  # type: ignore[arg-type]

    def release_slow(self) -> None:
        (self.folder / "go").touch()

    def end(self, signum: int = signal.SIGTERM) -> str:
        """Send the master a signal; once it has ended, what it has said."""
        self.send_signal(signum)
        self.wait()
        return self.stderr_text()
