"""Starlette: streams, files, BaseHTTPMiddleware, disconnects, lifespan state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sites import ASGI_WAYS, Site, serving
from support.wire import eventually, request


@pytest.fixture(scope="module", params=list(ASGI_WAYS))
def site(request: pytest.FixtureRequest, large_file: Path) -> Iterator[Site]:
    with serving("starlette_site:app", *ASGI_WAYS[request.param], env={"STARLETTE_FILE": str(large_file)}) as site:
        yield site
    assert "shutdown of starlette_site" in site.server.stdout_text()


def count(site: Site, event: str) -> int:
    seen: list[str] = site.client.get("/events").json()
    return seen.count(event)


def test_state_of_the_lifespan_is_shared_by_requests(site: Site) -> None:
    first = site.client.get("/", params={"a": "b c"}).json()
    assert (first["path"], first["query"]) == ("/", {"a": "b c"})
    assert site.client.get("/").json()["visits"] == first["visits"] + 1


def test_body_is_echoed_whole_and_streamed(site: Site) -> None:
    content = os.urandom(2_000_000)
    assert site.client.post("/echo", content=content).content == content
    pieces = [content[start : start + 9000] for start in range(0, len(content), 9000)]
    assert site.client.post("/echo-stream", content=iter(pieces)).content == content


@pytest.mark.parametrize("prefix", ["", "/stamped", "/zipped"])
def test_streaming_response_passes_middleware(site: Site, prefix: str) -> None:
    before = count(site, "after stream")
    with site.client.stream("GET", prefix + "/stream") as answer:
        assert list(answer.iter_lines()) == [f"line {number}" for number in range(100)]
        assert answer.headers.get("x-stamp") == ("stamped" if prefix == "/stamped" else None)
        assert answer.headers.get("content-encoding") == ("gzip" if prefix == "/zipped" else None)
    eventually(lambda: count(site, "after stream") == before + 1, "the background task")


@pytest.mark.parametrize("prefix", ["", "/stamped", "/zipped"])
def test_file_response_is_whole_in_parts_and_through_middleware(site: Site, large_file: Path, prefix: str) -> None:
    content = large_file.read_bytes()
    answer = site.client.get(prefix + "/file")
    assert answer.content == content
    assert site.client.head(prefix + "/file").status_code in (200, 405)
    part = site.client.get(prefix + "/file", headers={"Range": "bytes=1000-1999", "Accept-Encoding": "identity"})
    assert (part.status_code, part.content) == (206, content[1000:2000])
    assert site.client.get("/events").status_code == 200


def test_client_that_leaves_is_seen_by_is_disconnected(site: Site) -> None:
    """Not behind BaseHTTPMiddleware: there Starlette's own receive() never has an answer at once, on any server."""
    waiting = count(site, "waiting for the disconnect")
    seen = count(site, "saw the disconnect")
    wire = site.connect()
    wire.send(request(target="/wait-for-disconnect"))
    eventually(lambda: count(site, "waiting for the disconnect") > waiting, "the endpoint's start")
    wire.close()
    eventually(lambda: count(site, "saw the disconnect") > seen, "the disconnect")


@pytest.mark.parametrize("prefix", ["", "/stamped"])
def test_client_that_leaves_ends_an_endless_stream(site: Site, prefix: str) -> None:
    before = count(site, "endless ended")
    wire = site.connect()
    wire.send(request(target=prefix + "/endless"))
    assert wire.read_head().status == 200
    wire.reset()
    eventually(lambda: count(site, "endless ended") > before, "the stream's end")


def test_client_that_leaves_inside_an_upload_is_a_client_disconnect(site: Site) -> None:
    before = count(site, "upload broken off")
    started = count(site, "uploading")
    wire = site.connect()
    wire.send(request("POST", "/upload-to-nowhere", [("Content-Length", "100")]) + b"some")
    eventually(lambda: count(site, "uploading") > started, "the upload")
    wire.close()
    eventually(lambda: count(site, "upload broken off") > before, "ClientDisconnect")


def test_error_is_starlettes_500(site: Site) -> None:
    answer = site.client.get("/error")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    site.server.wait_for_stderr("secret of the view")
    assert site.client.get("/nowhere").status_code == 404


def test_httptools_parser_serves_it_too(large_file: Path) -> None:
    with serving("starlette_site:app", "--http", "httptools", env={"STARLETTE_FILE": str(large_file)}) as site:
        content = os.urandom(500_000)
        assert site.client.post("/echo", content=content).content == content
        assert site.client.post("/echo-stream", content=iter([content, content])).content == content * 2
        assert site.client.get("/file").content == large_file.read_bytes()
        assert site.client.get("/stamped/").headers["x-stamp"] == "stamped"
