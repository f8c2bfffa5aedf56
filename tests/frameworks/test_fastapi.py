"""FastAPI: validation, thread pool, streams, background tasks, uploads, lifespan, dependencies, disconnects."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support.sites import ASGI_WAYS, Site, serving
from support.wire import eventually, request


@pytest.fixture(scope="module", params=list(ASGI_WAYS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with serving("fastapi_site:app", *ASGI_WAYS[request.param]) as site:
        yield site
    assert "shutdown of fastapi_site" in site.server.stdout_text()


def events(site: Site) -> list[str]:
    seen: list[str] = site.client.get("/events").json()
    return seen


def wait_for_event(site: Site, event: str) -> None:
    eventually(lambda: event in events(site), f"event {event!r}")


def test_json_body_is_validated(site: Site) -> None:
    assert site.client.post("/ducks", json={"name": "Donald é", "age": 5}).json() == {"name": "Donald é", "age": 5}


@pytest.mark.parametrize(
    "content", [b'{"name": "", "age": -1}', b'{"name": "x"}', b"[]", b"{broken", b"", b'{"name": "x", "age": "old"}']
)
def test_invalid_body_is_422_with_details(site: Site, content: bytes) -> None:
    answer = site.client.post("/ducks", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_sync_endpoint_runs_in_the_thread_pool(site: Site) -> None:
    assert site.client.get("/thread").json() == {"main": False, "path": "/thread"}


def test_streaming_response_arrives_line_by_line(site: Site) -> None:
    with site.client.stream("GET", "/stream") as answer:
        assert list(answer.iter_lines()) == [f"line {number}" for number in range(100)]


def test_background_task_runs_after_the_response_and_holds_nothing_up(site: Site) -> None:
    """The same connection answers on while the task is still at work."""
    with httpx.Client(base_url=site.server.url, trust_env=False, timeout=30) as client:
        assert client.post("/background/one").json() == "accepted"
        assert client.post("/background/two").json() == "accepted"
        wait_for_event(site, "background two began")
        assert "background one ended" not in client.get("/events").json()
        assert client.post("/background-may-end").json() == "ok"
    wait_for_event(site, "background one ended")
    wait_for_event(site, "background two ended")


def test_upload_of_20_megabytes_is_whole(site: Site) -> None:
    content = os.urandom(20 * 1024 * 1024)
    answer = site.client.post("/upload", files={"file": ("ducks.bin", content)}, data={"note": "quack"})
    digest = hashlib.sha256(content).hexdigest()
    assert answer.json() == {"name": "ducks.bin", "size": len(content), "sha256": digest, "note": "quack"}


def test_lifespan_state_reaches_requests(site: Site) -> None:
    assert site.client.get("/state").json() == {"greeting": "made in lifespan"}
    assert events(site).count("startup") == 1


def test_dependency_with_yield_is_closed_after_success_and_after_failure(site: Site) -> None:
    before = events(site).count("dependency closed")
    assert site.client.get("/dependency").json() == "a connection"
    eventually(lambda: events(site).count("dependency closed") == before + 1, "the dependency's end")
    assert site.client.get("/dependency-error").status_code == 500
    eventually(lambda: events(site).count("dependency closed") == before + 2, "the dependency's end")
    site.server.wait_for_stderr("secret of the view")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_leaves_is_seen_by_is_disconnected(site: Site, how: str) -> None:
    waiting = events(site).count("waiting for the disconnect")
    seen = events(site).count("saw the disconnect")
    wire = site.connect()
    wire.send(request(target="/wait-for-disconnect"))
    eventually(lambda: events(site).count("waiting for the disconnect") > waiting, "the endpoint's start")
    wire.close() if how == "close" else wire.reset()
    eventually(lambda: events(site).count("saw the disconnect") > seen, "the disconnect")


def test_client_that_leaves_ends_an_endless_stream_without_noise(site: Site) -> None:
    before = events(site).count("endless ended")
    said = len(site.server.stderr_text())
    wire = site.connect()
    wire.send(request(target="/endless"))
    assert wire.read_head().status == 200
    wire.reset()
    eventually(lambda: events(site).count("endless ended") > before, "the stream's end")
    assert "ClientDisconnected" not in site.server.stderr_text()[said:]


def test_openapi_and_docs_are_served(site: Site) -> None:
    assert site.client.get("/openapi.json").json()["paths"]["/ducks"]
    assert "swagger" in site.client.get("/docs").text.lower()


def test_many_clients_at_once(site: Site) -> None:
    def visit(number: int) -> Any:
        with httpx.Client(base_url=site.server.url, trust_env=False, timeout=30) as client:
            return [client.post("/ducks", json={"name": "x", "age": number}).json()["age"] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(16))) == [[number] * 10 for number in range(16)]


def test_httptools_parser_serves_it_too() -> None:
    with serving("fastapi_site:app", "--http", "httptools") as site:
        assert site.client.post("/ducks", json={"name": "x", "age": 1}).json() == {"name": "x", "age": 1}
        content = os.urandom(1_000_000)
        answer = site.client.post("/upload", files={"file": ("ducks.bin", content)}, data={"note": "quack"})
        assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
        with site.client.stream("GET", "/stream") as stream:
            assert len(list(stream.iter_lines())) == 100


def test_root_path_is_known_to_the_docs() -> None:
    with serving("fastapi_site:app", "--root-path", "/api") as site:
        assert site.client.get("/openapi.json").json()["servers"] == [{"url": "/api"}]
        assert site.client.get("/thread").json()["path"].endswith("/thread")
