"""Websockets through the command: real clients, workers that are reloaded, TLS, the access log."""

from __future__ import annotations

import re
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import websockets.exceptions
from support.authority import Authority
from support.process import ServerProcess
from support.websocket import WebSocketWire, closing
from support.wire import eventually
from websockets.sync.client import connect

Serve = Callable[..., ServerProcess]

# Says who serves, then sends everything back.
APP = """
    import os

    VERSION = "one"

    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({"type": "websocket.accept"})
        greeting = f"{os.getpid()} {VERSION} {scope['scheme']} {'tls' in scope['extensions']}"
        await send({"type": "websocket.send", "text": greeting})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        print("disconnect", message["code"], flush=True)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text(textwrap.dedent(APP))
    return tmp_path


def address(server: ServerProcess, scheme: str = "ws") -> str:
    return f"{scheme}://{server.host}:{server.port}/chat"


def test_real_client_talks_and_its_line_is_in_the_access_log(site: Path, serve: Serve) -> None:
    server = serve("site_app:app", "--access-log-format", '%(m)s %(U)s %(s)s %(b)s', cwd=site)
    with connect(address(server)) as client:
        assert client.recv().split()[1:] == ["one", "ws", "False"]
        for message in ("hello", "x" * 300_000, b"\x00\xff" * 5000, "quack " * 5000):
            client.send(message)
            assert client.recv() == message
        client.ping().wait(30)
        client.close(4000, "done")
    server.wait_for_stdout("disconnect 4000")
    server.wait_for_stdout("GET /chat 101 ")


def test_everything_goes_over_tls_too(site: Path, serve: Serve, authority: Authority) -> None:
    for how in ("descriptor", "memory"):
        server = serve("site_app:app", "--ssl-io", how, *authority.options("localhost"), cwd=site)
        with connect(f"wss://localhost:{server.port}/", ssl=authority.client()) as client:
            assert client.recv().split()[1:] == ["one", "wss", "True"]
            for message in ("hello", "x" * 300_000, b"\x00\xff" * 100_000):
                client.send(message)
                assert client.recv() == message


@pytest.mark.parametrize("polite", [True, False])
def test_reload_tells_every_websocket_and_waits_for_none(site: Path, serve: Serve, polite: bool) -> None:
    server = serve("site_app:app", "--workers", "2", cwd=site)
    old = [WebSocketWire((server.host, server.port)) for _ in range(6)]
    before = {str(wire.read_message()).split()[0] for wire in old}
    (site / "site_app.py").write_text(textwrap.dedent(APP).replace('"one"', '"three"'))
    server.send_signal(signal.SIGHUP)

    def reaches_new_worker() -> bool:
        # Once one of the old workers is told, another may still accept for a moment; it says 1012 too, then.
        with connect(address(server)) as new:
            pid, version, *_ = str(new.recv()).split()
            return version == "three" and pid not in before

    for wire in old:
        wire.expect_close(1012)
        eventually(reaches_new_worker, "a connection to a new worker")
        if polite:
            wire.send(closing(1012))
            wire.expect_clean_end()
    for wire in old:
        wire.expect_end()
        wire.close()


@pytest.mark.parametrize("polite", [True, False])
def test_changed_file_ends_open_websockets_and_waits_for_none(site: Path, serve: Serve, polite: bool) -> None:
    arguments = ("site_app:app", "--reload", "--reload-delay", "0.05")
    server = serve(*arguments, cwd=site, env={"PYTHONDONTWRITEBYTECODE": "1"})
    old = WebSocketWire((server.host, server.port))
    assert str(old.read_message()).split()[1] == "one"
    (site / "site_app.py").write_text(textwrap.dedent(APP).replace('"one"', '"three"'))

    def reaches_new_code() -> bool:
        with connect(address(server)) as new:
            return str(new.recv()).split()[1] == "three"

    old.expect_close(1012)
    eventually(reaches_new_code, "the new code")
    if polite:
        old.send(closing(1012))
        old.expect_clean_end()
    old.expect_end()
    old.close()


def test_stop_of_all_workers_ends_websockets_with_1012(site: Path, serve: Serve) -> None:
    server = serve("site_app:app", "--workers", "2", cwd=site)
    with connect(address(server)) as client:
        client.recv()
        server.send_signal(signal.SIGTERM)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
    assert server.wait() == 0
    assert re.search("disconnect 1012", server.stdout_text())
