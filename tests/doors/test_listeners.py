"""Real servers on every kind of address: unix sockets with permissions and without a file, both IP versions, shared ports."""

from __future__ import annotations

import os
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.machine import needs_ipv6
from support.process import ServerProcess, run_duckfast

Serve = Callable[..., ServerProcess]

WEBSITE = """
    import os

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [repr((os.getpid(), environ["SERVER_NAME"], environ["REMOTE_ADDR"])).encode()]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        client = scope["client"] and scope["client"][0]
        body = repr((os.getpid(), scope["server"][0], client)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""

both_engines = pytest.mark.parametrize("target", ["website:app", "website:asgi"])


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@both_engines
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names without a file")
def test_abstract_socket_is_served(serve: Serve, website: Path, target: str) -> None:
    name = f"@duckfast-doors-{os.getpid()}"
    server = serve(target, "-b", f"unix:{name}", cwd=website)
    assert server.addresses == [f"unix:{name}"]
    answer = eval(fetch(f"unix:{name}").text)
    assert answer[0] == server.pid
    if target == "website:asgi":
        assert answer[1] == name
    assert sorted(path.suffix for path in website.iterdir()) in ([".py"], ["", ".py"])  # maybe the bytecode, no socket


def test_socket_file_has_the_permissions_that_are_asked_for(serve: Serve, website: Path) -> None:
    serve("website:app", "--uds", "a.sock", "--uds-permissions", "620", "--umask", "777", cwd=website)
    assert stat.S_IMODE(os.stat("a.sock").st_mode) == 0o620
    assert fetch("unix:a.sock").status == 200


@both_engines
@needs_ipv6
def test_dual_stack_shows_the_ipv4_address_of_a_client(serve: Serve, website: Path, target: str) -> None:
    server = serve(target, "--no-ipv6-only", "-b", "[::]:0", cwd=website)
    assert eval(fetch(f"http://127.0.0.1:{server.port}").text)[2] == "127.0.0.1"
    assert eval(fetch(f"http://[::1]:{server.port}").text)[2] == "::1"


@needs_ipv6
def test_ipv6_wildcard_does_not_listen_for_ipv4_otherwise(serve: Serve, website: Path) -> None:
    server = serve("website:app", "-b", "[::]:0", cwd=website)
    assert fetch(f"http://[::1]:{server.port}").status == 200
    with pytest.raises(ConnectionRefusedError):
        fetch(f"http://127.0.0.1:{server.port}")


@both_engines
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere one of the sockets may get all connections")
def test_servers_share_a_port_when_both_ask_for_it(serve: Serve, website: Path, target: str) -> None:
    first = serve(target, "--reuse-port", "--port", "0", cwd=website)
    ended = run_duckfast(target, "--port", str(first.port), cwd=website)
    assert ended.returncode == 2
    assert "the address is in use" in ended.stderr
    second = serve(target, "--reuse-port", "--port", str(first.port), cwd=website)
    answering = {eval(fetch(first.url).text)[0] for _ in range(64)}
    assert answering == {first.pid, second.pid}
