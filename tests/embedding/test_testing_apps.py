"""duckfast.testing: the same answers by either interface."""

from __future__ import annotations

import hashlib
import wsgiref.validate
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from duckfast import testing
from duckfast.pytest_plugin import StartServer

BODY = bytes(range(256)) * 1000


def validated(environ: dict[str, Any], start_response: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return testing.wsgi(environ, start_response)

    return wsgiref.validate.validator(app)(environ, start_response)


@pytest.fixture(params=["asgi", "wsgi"])
def interface(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(interface: str, duckfast_server: StartServer) -> Iterator[httpx.Client]:
    server = duckfast_server(getattr(testing, interface))
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


def test_greets(client: httpx.Client, interface: str) -> None:
    assert client.get("/").text == f"Hello from {interface.upper()}\n"
    assert client.get("/nowhere").status_code == 404


def test_echoes_a_body_of_either_framing(client: httpx.Client) -> None:
    answer = client.post("/echo", content=BODY, headers={"Content-Type": "text/x-duck"})
    assert (answer.content, answer.headers["content-type"]) == (BODY, "text/x-duck")
    assert client.post("/echo", content=iter([BODY, b"end"])).content == BODY + b"end"
    assert client.get("/echo").content == b""


def test_digests(client: httpx.Client) -> None:
    expected = {"size": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
    assert client.post("/digest", content=BODY).json() == expected
    assert client.post("/digest", content=iter([BODY[:7], BODY[7:]])).json() == expected


def test_shows_the_request(client: httpx.Client, interface: str) -> None:
    shown = client.put("/request?a=%20b", headers={"X-Duck": "quack"}).json()
    assert ["x-duck", "quack"] in shown.pop("headers")
    assert shown == {
        "interface": interface,
        "method": "PUT",
        "path": "/request",
        "query": "a=%20b",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "client": "127.0.0.1",
    }


def test_streams(client: httpx.Client) -> None:
    with client.stream("GET", "/stream?count=3&size=40&delay=0.001") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.read() == (b"0123456789abcdef" * 3)[:40] * 3


def test_sleeps_and_gives_any_status(client: httpx.Client) -> None:
    assert client.get("/sleep?seconds=0").text == "awake\n"
    assert [client.get(f"/status?code={code}").status_code for code in (204, 304, 404, 599)] == [204, 304, 404, 599]


def test_raises(client: httpx.Client) -> None:
    assert client.get("/raise").status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/raise?after=2")


@pytest.mark.parametrize("query", ["/stream?count=x", "/stream?size=-1", "/sleep?seconds=inf", "/status?code=100"])
def test_refuses_what_is_no_number(client: httpx.Client, query: str) -> None:
    assert client.get(query).status_code == 400


def test_wsgi_application_keeps_to_the_standard(duckfast_server: StartServer) -> None:
    server = duckfast_server(validated)
    for path in ("/", "/request", "/stream", "/status?code=404"):
        assert httpx.get(server.url + path).status_code in (200, 404)
    assert httpx.post(f"{server.url}/digest", content=BODY).json()["size"] == len(BODY)
