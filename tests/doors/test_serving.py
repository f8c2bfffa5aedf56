"""Real servers: where they listen, what they say about it, and every way to start one."""

from __future__ import annotations

import os
import re
import socket
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.process import START_LINE, ServerProcess

import duckfast

Serve = Callable[..., ServerProcess]

WEBSITE = """
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"wsgi " + environ["PATH_INFO"].encode("latin-1")]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode()})

    class Asgi2:
        def __init__(self, scope):
            assert scope["type"] == "http"

        async def __call__(self, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"asgi2"})

    def create(name="wsgi"):
        return {"wsgi": app, "asgi": asgi}[name]
"""


@pytest.fixture
def website(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)  # socket files are named relative to it: the whole path may be too long for a socket
    return tmp_path


def test_start_line_tells_what_is_served_where(serve: Serve, website: Path) -> None:
    server = serve("website:app", cwd=website)
    start = START_LINE.search(server.stderr_text())
    assert start is not None
    assert start["version"] == duckfast.__version__
    assert start["target"] == "website:app"
    assert start["engine"].startswith("wsgi, ")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", start["address"])
    assert int(start["pid"]) == server.pid


@pytest.mark.parametrize(
    ("target", "engine", "body"),
    [
        ("website:app", "wsgi, threads auto", "wsgi /"),
        ("website", "wsgi, threads auto", "wsgi /"),
        ("website:create()", "wsgi, threads auto", "wsgi /"),
        ("website.py:app", "wsgi, threads auto", "wsgi /"),
        ("website:asgi", "asgi, uvloop", "asgi /"),
        ("website:create('asgi')", "asgi, uvloop", "asgi /"),
        ("website:Asgi2", "asgi2, uvloop", "asgi2"),
    ],
)
def test_every_form_of_target_is_served_by_the_interface_it_speaks(
    serve: Serve, website: Path, target: str, engine: str, body: str
) -> None:
    server = serve(target, cwd=website)
    start = START_LINE.search(server.stderr_text())
    assert start is not None
    assert start["engine"] == engine
    assert fetch(server.url).text == body


def test_reason_for_the_interface_is_in_the_debug_log(serve: Serve, website: Path) -> None:
    server = serve("website:asgi", "--log-level", "debug", cwd=website)
    assert "interface asgi, because of what website:asgi is: it is a coroutine function" in server.stderr_text()


def test_factory_app_dir_threads_and_loop_are_options(serve: Serve, website: Path) -> None:
    server = serve("website:create", "--factory", "--app-dir", str(website), "--threads", "1", cwd="/")
    assert "(wsgi, 1 thread)" in server.stderr_text()
    server = serve("website:asgi", "--loop", "asyncio", cwd=website)
    assert "(asgi, asyncio)" in server.stderr_text()
    assert fetch(server.url).text == "asgi /"


def test_settings_come_from_the_environment(serve: Serve, website: Path) -> None:
    env = {"DUCKFAST_APP": "website:asgi", "DUCKFAST_LOOP": "asyncio", "DUCKFAST_PROT": "1"}
    server = serve(cwd=website, env=env)
    assert "website:asgi (asgi, asyncio)" in server.stderr_text()
    assert "DUCKFAST_PROT is not a setting and has no effect; did you mean DUCKFAST_PORT?" in server.stderr_text()


def test_unix_socket(serve: Serve, website: Path) -> None:
    server = serve("website:app", "--uds", "a.sock", cwd=website)
    assert server.addresses == ["unix:a.sock"]
    assert stat.S_ISSOCK(os.stat("a.sock").st_mode)
    assert fetch("unix:a.sock", "/over/unix").text == "wsgi /over/unix"
    server.stop()
    assert not os.path.exists("a.sock")


def test_unix_socket_of_a_killed_server_is_taken_over(serve: Serve, website: Path) -> None:
    first = serve("website:app", "--uds", "a.sock", cwd=website)
    first.kill()
    assert os.path.exists("a.sock")
    serve("website:app", "--uds", "a.sock", cwd=website)
    assert fetch("unix:a.sock").status == 200


def test_inherited_descriptor(serve: Serve, website: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        server = serve("website:app", "--fd", str(number), cwd=website, pass_fds=[number])
        assert server.url == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert fetch(server.url).text == "wsgi /"


@pytest.mark.parametrize("target", ["website:app", "website:asgi"])
def test_many_addresses_at_once(serve: Serve, website: Path, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        binds = ["-b", "127.0.0.1:0", "--bind", "127.0.0.1:0", "-b", "unix:a.sock", "-b", f"fd://{number}"]
        server = serve(target, *binds, cwd=website, listeners=4, pass_fds=[number])
        assert len(set(server.addresses)) == 4
        for address in server.addresses:
            assert fetch(address).status == 200


def test_run_serves_an_application_object(website: Path) -> None:
    (website / "script.py").write_text("import duckfast\nfrom website import asgi\nduckfast.run(asgi, port=0)\nprint('after')\n")
    with ServerProcess(command=[sys.executable, "script.py"], cwd=website) as server:
        assert fetch(server.url).text == "asgi /"
        server.stop()
        assert "after" in server.stdout_text()


def test_run_serves_a_target(website: Path) -> None:
    command = [sys.executable, "-c", "import duckfast; duckfast.run('website:app', port=0, threads=2)"]
    with ServerProcess(command=command, cwd=website) as server:
        assert "website:app (wsgi, up to 2 threads)" in server.stderr_text()
        assert fetch(server.url).text == "wsgi /"


def test_server_in_a_thread_is_stopped_by_its_own_stop(website: Path) -> None:
    script = """
        import signal, threading
        import duckfast
        from website import app

        def stopping(environ, start_response):
            server.stop()
            return app(environ, start_response)

        server = duckfast.Server(duckfast.Config(stopping, port=0))
        thread = threading.Thread(target=server.run)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        print("joined")
    """
    with ServerProcess(command=[sys.executable, "-c", textwrap.dedent(script)], cwd=website) as server:
        assert fetch(server.url).text == "wsgi /"
        assert server.wait() == 0
        assert "joined" in server.stdout_text()


# The demo page --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["asgi", "asgi2", "wsgi"])
def demo(serve: Serve, request: pytest.FixtureRequest) -> str:
    return serve("--interface", request.param).url


def test_no_target_serves_the_demo_page(serve: Serve) -> None:
    server = serve()
    assert "serving the demo page (asgi, uvloop)" in server.stderr_text()
    assert f"duckfast {duckfast.__version__} received" in fetch(server.url).text


def test_demo_shows_a_browser_its_request(demo: str) -> None:
    answer = fetch(demo, "/?a=%3Cb%3E", headers={"Accept": "text/html", "X-Duck": "<quack>"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "&lt;quack&gt;" in answer.text
    assert "<quack>" not in answer.text


def test_demo_counts(demo: str) -> None:
    first, second = (eval(fetch(demo, "/counters").text) for _ in range(2))
    assert second["requests"] == first["requests"] + 1
    assert second["connections_accepted"] == first["connections_accepted"] + 1


def test_demo_echoes(demo: str) -> None:
    body = bytes(range(256)) * 1024
    assert fetch(demo, "/echo", method="POST", body=body).body == body


def test_demo_streams_in_chunks(demo: str) -> None:
    answer = fetch(demo, "/stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(answer.text.splitlines()) == 5


def test_demo_has_nothing_elsewhere(demo: str) -> None:
    assert fetch(demo, "/nowhere").status == 404
