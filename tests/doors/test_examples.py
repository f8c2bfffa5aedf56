"""Every file of examples/ serves as its docstring says."""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.authority import Authority
from support.client import fetch
from support.process import ServerProcess, clean_environment
from support.proxies import Proxy, find

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Serve = Callable[..., ServerProcess]

MOST_LINES = 60
PATHS = sorted(EXAMPLES.glob("*.py"))
SERVERS = ["asgi_hello:app", "wsgi_hello:app", "fastapi_app:app", "flask_app:app"]
SERVERS += ["django_app:application", "django_app:asgi_application"]


def script(name: str, *arguments: str) -> ServerProcess:
    """`python name`, as its docstring says, on a free port."""
    return ServerProcess(command=[sys.executable, name, *arguments], cwd=EXAMPLES, env={"PORT": "0"})


@pytest.mark.parametrize("path", PATHS, ids=[path.name for path in PATHS])
def test_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < MOST_LINES
    usage = ast.get_docstring(ast.parse(text)) or ""
    assert re.search(rf"\bRun (it|both)\b.*\b{path.stem}\b", usage, re.DOTALL)


@pytest.mark.parametrize("target", SERVERS)
def test_example_greets(serve: Serve, target: str) -> None:
    assert f"duckfast {target}" in (EXAMPLES / f"{target.split(':')[0]}.py").read_text()
    server = serve(target, cwd=EXAMPLES)
    answer = httpx.get(f"{server.url}/")
    assert answer.status_code == 200
    assert "Hello" in answer.text


@pytest.mark.parametrize("target", ["flask_app:app", "fastapi_app:app"])
def test_example_takes_json(serve: Serve, target: str) -> None:
    server = serve(target, cwd=EXAMPLES)
    answer = httpx.post(f"{server.url}/sum", json={"numbers": [1, 2, 3.5]})
    assert answer.status_code == 200
    assert answer.json() == {"sum": 6.5}


def test_django_example_has_an_async_view_on_both_interfaces(serve: Serve) -> None:
    for target in ("django_app:application", "django_app:asgi_application"):
        server = serve(target, cwd=EXAMPLES)
        answer = httpx.get(f"{server.url}/whoami/", headers={"User-Agent": "a duck"})
        assert answer.json() == {"path": "/whoami/", "agent": "a duck"}


def test_stream_flows_until_the_server_is_told_to_stop(serve: Serve) -> None:
    server = serve("streaming:app", cwd=EXAMPLES)
    with httpx.stream("GET", f"{server.url}/", timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        server.stop()
        rest = list(lines)  # ends without an error: the app closed its stream in good order
    assert all(line == "" or line.startswith("data: ") for line in rest)


def test_stream_ends_when_the_client_leaves(serve: Serve) -> None:
    server = serve("streaming:app", cwd=EXAMPLES)
    with httpx.stream("GET", f"{server.url}/", timeout=30) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    server.stop()
    assert "Traceback" not in server.stderr_text()


def test_upload_is_hashed(serve: Serve) -> None:
    body = bytes(range(256)) * 20_000
    expected = f"{len(body)} bytes, sha256 {hashlib.sha256(body).hexdigest()}\n"
    server = serve("upload:app", cwd=EXAMPLES)
    assert httpx.put(f"{server.url}/", content=body).text == expected
    assert httpx.post(f"{server.url}/", content=iter([body[:1], body[1:]])).text == expected
    assert httpx.get(f"{server.url}/").status_code == 405


@pytest.mark.parametrize("asks", [False, True], ids=["of anyone", "with a certificate"])
def test_https(authority: Authority, asks: bool) -> None:
    certificate, key = authority.server("localhost", "127.0.0.1")
    with script("https.py", certificate, key, *([str(authority.path)] if asks else [])) as server:
        me = authority.issue(common_name="a duck") if asks else None
        answer = httpx.get(f"{server.url}/", verify=authority.client(me))
        assert answer.text.startswith("Hello CN=a duck" if asks else "Hello whoever you are")
        assert answer.text.endswith("by TLS 1.3\n")
        if asks:
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"{server.url}/", verify=authority.client())


@pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed (apt-get install nginx)")
def test_behind_nginx(serve: Serve, tmp_path: Path) -> None:
    usage = (EXAMPLES / "behind_nginx.py").read_text()
    command = re.search(r"duckfast (behind_nginx:app .*)", usage)
    assert command is not None
    shutil.copy(EXAMPLES / "behind_nginx.py", tmp_path)
    serve(*command[1].split(), cwd=tmp_path)
    configuration = (EXAMPLES / "behind_nginx.conf").read_text()
    place = "listen 127.0.0.1:8080;"
    assert place in configuration
    configuration = "daemon off; master_process off;\n" + configuration.replace(place, "listen 127.0.0.1:PORT;")
    with Proxy("nginx", configuration, tmp_path) as proxy, httpx.Client() as client:
        for path in ("/a", "/b"):
            answer = client.get(f"http://127.0.0.1:{proxy.port}{path}")
            assert answer.text == f"Hello 127.0.0.1, you asked http://127.0.0.1:{proxy.port} for {path}\n"


def test_embedded() -> None:
    with script("embedded.py") as server:
        assert httpx.get(f"{server.url}/").text.startswith("Hello, I have counted to ")
        server.stop()
        assert "ended at " in server.stdout_text()


def test_class_api() -> None:
    with script("class_api.py") as server:
        assert httpx.get(f"{server.url}/").text == "Hello! The hook saw GET / from 127.0.0.1.\n"
        assert httpx.post(f"{server.url}/b", content=b"x").text == "Hello! The hook saw POST /b from 127.0.0.1.\n"
        assert httpx.get(f"{server.url}/count").json() == {"requests": 2}


def test_sans_io() -> None:
    command, environment = [sys.executable, "sans_io.py"], clean_environment({"PORT": "0"})
    with subprocess.Popen(command, cwd=EXAMPLES, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = f"http://127.0.0.1:{process.stdout.readline().split()[-1]}"
            with httpx.Client(base_url=address, timeout=30) as client:
                assert client.get("/a?b").text == "Hello, /a?b came with 0 bytes\n"
                assert client.post("/c", content=b"x" * 100_000).text == "Hello, /c came with 100000 bytes\n"
                assert client.post("/d", content=iter([b"1", b"2"])).text == "Hello, /d came with 2 bytes\n"
            assert fetch(address, headers={"Content-Length": "x"}).status == 400
        finally:
            process.kill()
