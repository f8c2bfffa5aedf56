"""Projects of the Duck framework on duckfast, by both routes, against the real package: `make test-duck`.

The default suite does not have the package: there these tests are not collected (conftest.py).
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import simple_websocket
from support.process import clean_environment
from support.wire import eventually

from duckfast.config import SETTINGS

PROJECT = Path(__file__).parent / "project"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as the framework makes it, with the routes of these tests."""
    folder = tmp_path_factory.mktemp("duck")
    subprocess.run([sys.executable, "-m", "duck", "makeproject", "site", "--mini"], cwd=folder, check=True, capture_output=True)
    web = folder / "site" / "web"
    for name in ("urls.py", "main.py", "micro.py", "serve.py"):
        shutil.copy(PROJECT / name, web)
    with open(web / "settings.py", "a") as settings:
        settings.write("\n" + (PROJECT / "more_settings.py").read_text())
    return folder / "site"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class Site:
    """A started project: `url` is the application's, `micro` the micro app's."""

    def __init__(self, project: Path, command: list[str], port: int, micro: int, **environment: str) -> None:
        self.url, self.micro = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{micro}"
        self.port = port
        settings = {"SITE_PORT": str(port), "SITE_MICRO_PORT": str(micro), **environment}
        self._text = project / f"output-{port}.txt"
        self._output = open(self._text, "wb")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, *command], cwd=project, env=clean_environment(settings), stdout=self._output, stderr=self._output
        )

    def wait(self, url: str) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self._text.read_text(errors="replace")
            try:
                return httpx.get(url, timeout=5).status_code > 0
            except httpx.HTTPError:
                return False

        eventually(answers, f"an answer of {url}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._output.close()


DROP_IN, ADAPTER = "drop-in", "adapter"


@pytest.fixture(scope="module", params=[(DROP_IN, "0"), (DROP_IN, "1"), (ADAPTER, "0"), (ADAPTER, "1"), (DROP_IN, "workers")],
                ids=["drop-in", "drop-in async", "adapter", "adapter async", "drop-in workers"])  # fmt: skip
def site(request: pytest.FixtureRequest, project: Path) -> Iterator[Site]:
    route, kind = request.param
    port, micro = free_port(), free_port()
    settings = {"SITE_ASYNC": "1" if kind == "1" else "0", "SITE_WORKERS": "2" if kind == "workers" else "0"}
    if route == DROP_IN:
        found = Site(project, ["-m", "duckfast.contrib.duck", "web/main.py"], port, micro, **settings)
        try:
            found.wait(found.url)
            found.wait(found.micro)
            yield found
        finally:
            found.stop()
        return
    # The framework speaks WebSocket itself, over the connection that it takes.
    words = ["--ws", "none"] if "ws" in SETTINGS else []
    command = ["-m", "duckfast", "web.serve:application", *words, "--port"]
    found = Site(project, [*command, str(port)], port, micro, **settings)
    other = Site(project, [*command, str(micro)], free_port(), micro, SITE_MICRO="1", **settings)
    try:
        found.wait(found.url)
        other.wait(found.micro)
        yield found
    finally:
        found.stop()
        other.stop()


def test_get(site: Site) -> None:
    with httpx.Client() as client:
        for _ in range(3):  # on one connection
            answer = client.get(site.url)
            assert (answer.status_code, answer.text) == (200, "hello from duck")
            assert answer.headers["content-type"].startswith("text/plain")


def test_form_is_parsed(site: Site) -> None:
    answer = httpx.post(f"{site.url}/form", data={"name": "a duck"})
    assert answer.json() == {"name": "a duck", "method": "POST"}


def test_chunked_body_arrives_whole(site: Site) -> None:
    parts = [b"a" * 1000, b"b" * 70_000, b"c"]
    answer = httpx.post(f"{site.url}/body", content=iter(parts), headers={"Content-Type": "application/octet-stream"})
    assert answer.content == b"".join(parts)


def test_streaming_response(site: Site) -> None:
    with httpx.stream("GET", f"{site.url}/stream") as answer:
        assert "".join(answer.iter_text()) == "".join(f"part {number}\n" for number in range(5))
        assert answer.headers.get("transfer-encoding") == "chunked"


def test_not_found_and_error_pages_are_the_frameworks(site: Site) -> None:
    missing, failed = httpx.get(f"{site.url}/nowhere"), httpx.get(f"{site.url}/fails")
    assert (missing.status_code, failed.status_code) == (404, 500)
    assert "<html" in missing.text and "<html" in failed.text
    assert httpx.get(site.url).status_code == 200


def test_cookies_are_set(site: Site) -> None:
    answer = httpx.get(f"{site.url}/cookie")
    assert answer.cookies["duck"] == "quack"


def test_head_has_no_body(site: Site) -> None:
    answer = httpx.head(site.url)
    assert answer.content == b""


def test_micro_app(site: Site) -> None:
    assert httpx.get(f"{site.micro}/any/path").text == "micro GET /any/path"
    assert httpx.post(f"{site.micro}/other", content=b"x").text == "micro POST /other"
    assert httpx.get(f"{site.micro}/fails").status_code == 500
    assert httpx.get(f"{site.micro}/again").status_code == 200


def test_websocket_echo(site: Site) -> None:
    url, origin = f"ws://localhost:{site.port}/echo", [("Origin", "http://localhost")]
    clients = [simple_websocket.Client.connect(url, headers=origin) for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(f"quack {number}")
        assert client.receive(30) == f"quack {number}"
        client.send(b"\0\xff" * 3000)
        assert client.receive(30) == b"\0\xff" * 3000
    assert httpx.get(site.url).status_code == 200  # meanwhile
    for client in clients:
        client.close()


def test_https_with_the_settings_certificate(project: Path, authority: Any) -> None:
    certificate, key = authority.server("localhost", "127.0.0.1")
    port = free_port()
    settings = {"SITE_CERTIFICATE": certificate, "SITE_KEY": key}
    site = Site(project, ["-m", "duckfast.contrib.duck", "web/main.py"], port, free_port(), **settings)
    try:
        def answers() -> bool:
            try:
                return httpx.get(f"https://localhost:{port}/", verify=authority.client()).text == "hello from duck"
            except httpx.HTTPError:
                return False

        eventually(answers, "an answer over TLS")
    finally:
        site.stop()


def test_install_after_the_application_is_too_late(project: Path) -> None:
    code = "import duck.app, duckfast.contrib.duck as d; d.install()"
    environment = clean_environment({"DUCK_SETTINGS_MODULE": "web.settings", "PYTHONPATH": os.fspath(project)})
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert "call duckfast.contrib.duck.install() before" in ended.stderr
