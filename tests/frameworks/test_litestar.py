"""Litestar: bodies, validation, streams, uploads, lifespan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest
from support.sites import ASGI_WAYS, Site, serving


@pytest.fixture(scope="module", params=list(ASGI_WAYS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with serving("litestar_site:app", *ASGI_WAYS[request.param]) as site:
        yield site
    assert "shutdown of litestar_site" in site.server.stdout_text()


def test_route_sees_the_request(site: Site) -> None:
    assert site.client.get("/", params={"a": "b c"}).json() == {"path": "/", "query": {"a": "b c"}}


def test_body_is_validated(site: Site) -> None:
    answer = site.client.post("/ducks", json={"name": "Donald", "age": 5})
    assert (answer.status_code, answer.json()) == (201, {"name": "Donald", "age": 5})
    assert site.client.post("/ducks", json={"name": "Donald", "age": "old"}).status_code == 400


def test_raw_body_is_echoed(site: Site) -> None:
    content = b"quack" * 100_000
    assert site.client.post("/body", content=content).text.strip('"').encode() == content


def test_stream_arrives_line_by_line(site: Site) -> None:
    with site.client.stream("GET", "/stream") as answer:
        assert list(answer.iter_lines()) == [f"line {number}" for number in range(100)]


def test_upload_is_whole(site: Site) -> None:
    content = os.urandom(2_000_000)
    answer = site.client.post("/upload", files={"data": ("ducks.bin", content)})
    assert answer.json() == {"name": "ducks.bin", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_lifespan_state_reaches_requests(site: Site) -> None:
    assert site.client.get("/state").json() == {"greeting": "made in lifespan"}


def test_sync_view_runs_in_a_thread(site: Site) -> None:
    assert site.client.get("/sync").json() == {"sync": True}


def test_error_is_litestars_500(site: Site) -> None:
    answer = site.client.get("/error")
    assert (answer.status_code, answer.json()["status_code"]) == (500, 500)
    assert site.client.get("/nowhere").status_code == 404


def test_httptools_parser_serves_it_too() -> None:
    with serving("litestar_site:app", "--http", "httptools") as site:
        assert site.client.post("/ducks", json={"name": "x", "age": 1}).json() == {"name": "x", "age": 1}
        content = b"quack" * 100_000
        assert site.client.post("/body", content=content).text.strip('"').encode() == content
