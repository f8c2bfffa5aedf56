"""Real websocket clients against the endpoints of frameworks. WEBSOCKET_SERVER (support.websocket_wire) names another server."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import socketio
import websockets
import wsproto
from support.authority import Authority
from support.machine import foreign_environ
from support.sites import APPS
from support.websocket_wire import Served, WebSocketWire, serving
from support.wire import eventually
from websockets.sync.client import ClientConnection, connect
from wsproto import events
from wsproto.extensions import PerMessageDeflate

FRAMEWORKS = ["starlette", "fastapi", "litestar", "channels"]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# Text and binary of every width of length, letters of every width, compressible and not.
SAMPLES: list[str | bytes] = ["", "quack", "Gänse 水鳥 𐍈" * 50, "duck " * 300_000]
SAMPLES += [b"", bytes(126), os.urandom(65_536), os.urandom(1_000_000)]


@pytest.fixture(scope="module")
def site() -> Iterator[Served]:
    with serving("websocket_site:application", "--ws-max-size", "4000000", cwd=APPS) as served:
        yield served


@pytest.fixture(scope="module")
def secure_site(authority: Authority) -> Iterator[Served]:
    """Without the frameworks, which would be loaded a second time."""
    apps = APPS.parents[1] / "conformance" / "apps"
    with serving("websocket_probe:application", *authority.options("localhost"), cwd=apps) as served:
        yield served


def open_with_websockets(site: Served, path: str, **options: Any) -> ClientConnection:
    return connect(site.ws_url + path, max_size=None, proxy=None, open_timeout=30, close_timeout=30, **options)


def ended(site: Served, event: str) -> Callable[[], bool]:
    """True once there is one more of this event than now."""
    url = site.url + "/events"
    before = httpx.get(url, trust_env=False).json().count(event)
    return lambda: httpx.get(url, trust_env=False).json().count(event) == before + 1


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_websockets_has_every_message_back(site: Served, framework: str, compression: str | None) -> None:
    with open_with_websockets(site, f"/{framework}/echo", compression=compression) as client:
        assert client.subprotocol is None
        assert [extension.name for extension in client.protocol.extensions] == (["permessage-deflate"] if compression else [])
        for sample in SAMPLES:
            client.send(sample)
        for sample in SAMPLES:
            assert client.recv(30) == sample or pytest.fail(f"another answer to {sample[:40]!r}")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_websockets_sends_fragments_and_pings(site: Served, framework: str) -> None:
    with open_with_websockets(site, f"/{framework}/echo") as client:
        client.send(iter(["one, ", "", "two, ", "thr\u00e9e"]))
        assert client.recv(30) == "one, two, thr\u00e9e"
        client.send(iter([b"1", b"2" * 70_000, b"3"]))
        assert client.recv(30) == b"1" + b"2" * 70_000 + b"3"
        assert client.ping("still there?").wait(30)
        client.pong("not asked for")
        client.send("on")
        assert client.recv(30) == "on"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_subprotocol_is_the_one_that_the_app_takes(site: Served, framework: str) -> None:
    with open_with_websockets(site, f"/{framework}/echo", subprotocols=["swan.v9", "duck.v1"]) as client:
        assert client.subprotocol == "duck.v1"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_app_closes_with_its_own_code(site: Served, framework: str) -> None:
    with open_with_websockets(site, f"/{framework}/echo") as client:
        client.send("close me")
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            client.recv(30)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4002, "as you wish")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_app_hears_how_its_clients_leave(site: Served, framework: str) -> None:
    left = ended(site, f"{framework} 3000")
    with open_with_websockets(site, f"/{framework}/echo") as client:
        client.close(3000, "bye")
        assert client.close_code == 3000
    eventually(left, "the disconnect with 3000")
    # Without a close handshake, by FIN and by RST.
    for leave in ("close", "reset"):
        lost = ended(site, f"{framework} 1006")
        with WebSocketWire(site.address, f"/{framework}/echo") as ws:
            getattr(ws.wire, leave)()
        eventually(lost, f"the disconnect after {leave}")


def test_unknown_path_is_refused_by_the_framework(site: Served) -> None:
    for framework in ("starlette", "fastapi", "litestar"):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            open_with_websockets(site, f"/{framework}/nowhere")
        assert refused.value.response.status_code in (403, 404)


def test_fastapi_has_parameters_and_json(site: Served) -> None:
    with open_with_websockets(site, "/fastapi/ponds/7?ducks=3") as client:
        client.send('{"a": ["b", 1.5, null]}')
        assert client.recv(30) == '{"pond":7,"ducks":3,"said":{"a":["b",1.5,null]}}'


def test_synchronous_consumer_of_channels_answers_from_its_threads(site: Served) -> None:
    with open_with_websockets(site, "/channels/sync") as client:
        for number in range(20):
            client.send(f"message {number}")
            assert client.recv(30) == f"message {number}"


def test_many_clients_at_once_get_their_own_messages(site: Served) -> None:
    async def one(session: Any, number: int) -> None:
        framework = FRAMEWORKS[number % len(FRAMEWORKS)]
        async with session.ws_connect(f"{site.url}/{framework}/echo", compress=15 * (number % 2)) as ws:
            for turn in range(5):
                data = f"{number} {turn} " * (1 + number * 50)
                await ws.send_str(data)
                assert await ws.receive_str(timeout=60) == data

    async def all_of_them() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(one(session, number) for number in range(60)))

    asyncio.run(all_of_them())


@pytest.mark.parametrize("compress", [0, 9, 15])
def test_aiohttp_talks_and_closes(site: Served, compress: int) -> None:
    async def talk() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(
                f"{site.url}/starlette/echo", compress=compress, protocols=("duck.v1",), max_msg_size=0
            ) as ws:
                assert ws.protocol == "duck.v1"
                assert bool(ws.compress) == bool(compress)
                for sample in SAMPLES:
                    await (ws.send_str(sample) if isinstance(sample, str) else ws.send_bytes(sample))
                    assert (await ws.receive(60)).data == sample or pytest.fail("another answer")
                await ws.ping(b"duck")
                await ws.close(code=3456, message=b"enough")
                assert ws.close_code == 3456

    left = ended(site, "starlette 3456")
    asyncio.run(talk())
    eventually(left, "the disconnect")


@pytest.mark.parametrize("compressed", [False, True])
def test_wsproto_talks_and_closes(site: Served, compressed: bool) -> None:
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    seen: list[Any] = []
    with socket.create_connection(site.address, 30) as connection:

        def tell(event: Any) -> None:
            connection.sendall(ws.send(event))

        def wait_for(kind: type) -> Any:
            while not any(isinstance(event, kind) for event in seen):
                ws.receive_data(connection.recv(65536) or None)
                seen.extend(ws.events())
            return seen.pop(next(at for at, event in enumerate(seen) if isinstance(event, kind)))

        extensions = [PerMessageDeflate()] if compressed else []
        tell(events.Request("127.0.0.1", "/litestar/echo", extensions=extensions, subprotocols=["duck.v1"]))
        accepted = wait_for(events.AcceptConnection)
        assert accepted.subprotocol == "duck.v1" and bool(accepted.extensions) == compressed
        tell(events.TextMessage("one ", message_finished=False))
        tell(events.Ping(b"in between"))
        tell(events.TextMessage("two"))
        assert bytes(wait_for(events.Pong).payload) == b"in between"
        assert wait_for(events.TextMessage).data == "one two"
        tell(events.BytesMessage(b"\x00\xff"))
        assert wait_for(events.BytesMessage).data == b"\x00\xff"
        tell(events.CloseConnection(1001, "going"))
        assert wait_for(events.CloseConnection).code == 1001
        assert connection.recv(1) == b""


@pytest.mark.parametrize("transports", [["websocket"], ["polling", "websocket"]])
def test_socketio_emits_and_is_acknowledged(site: Served, transports: list[str]) -> None:
    async def talk() -> None:
        client = socketio.AsyncClient()
        heard: asyncio.Queue[Any] = asyncio.Queue()
        client.on("quacked", heard.put)
        await client.connect(site.url, transports=transports, wait_timeout=30)
        assert client.transport() == transports[-1]
        for data in ("quack", {"ducks": [1, 2.5, None], "name": "Gänse"}, b"\x00\xff" * 40_000):
            assert await client.call("quack", data, timeout=30) == data
            assert await asyncio.wait_for(heard.get(), 30) == data
        await client.disconnect()

    left = ended(site, "socketio left")
    asyncio.run(talk())
    eventually(left, "the disconnect")


def test_websockets_talks_over_tls(secure_site: Served, authority: Authority) -> None:
    context: ssl.SSLContext = authority.client()
    with open_with_websockets(secure_site, "/echo", ssl=context, server_hostname="localhost") as client:
        for sample in SAMPLES:
            client.send(sample)
            assert client.recv(30) == sample or pytest.fail(f"another answer to {sample[:40]!r}")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH (Debian: apt-get install chromium)")
def test_page_in_chromium_has_its_messages_back(site: Served, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--no-proxy-server", f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", site.url + "/page"]

    def results() -> Any:
        return httpx.get(site.url + "/results", trust_env=False).json()

    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(command, env=foreign_environ(), stdout=output, stderr=output) as browser,
    ):
        try:
            found = eventually(results, "the page's report", 60)[0]
        finally:
            browser.terminate()
    assert found.pop("extensions").startswith("permessage-deflate")
    assert found.pop("refused").startswith("cannot open")
    # A server answers with the code; whether with the reason too is its own business (RFC 6455 5.5.1).
    del found["closed_by_page"][1]
    assert found == {
        "protocol": "duck.v1",
        "text": "Gänse 水鳥",
        "binary": True,
        "long": True,
        "blob": 5,
        "closed_by_server": [4002, "as you wish", True],
        "closed_by_page": [3001, True],
    }
