"""Flask: forms, uploads, streams with context, files, sessions, JSON."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.sites import WSGI_WAYS, Site, serving


@pytest.fixture(scope="module", params=list(WSGI_WAYS))
def site(request: pytest.FixtureRequest, large_file: Path) -> Iterator[Site]:
    with serving("flask_site:app", *WSGI_WAYS[request.param], env={"FLASK_FILE": str(large_file)}) as site:
        yield site


def test_route_sees_the_request(site: Site) -> None:
    seen = site.client.get("/", params={"a": "b c", "é": "ü"}).json()
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/", {"a": "b c", "é": "ü"})
    assert seen["url"].startswith(site.server.url)


def test_head_and_options_are_answered(site: Site) -> None:
    head = site.client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert "GET" in site.client.options("/").headers["allow"]


def test_form_fields_arrive(site: Site) -> None:
    assert site.client.post("/form", data={"name": "Donald é", "empty": ""}).json() == {"name": "Donald é", "empty": ""}


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_file_upload_is_whole(site: Site, size: int) -> None:
    content = os.urandom(size)
    answer = site.client.post("/upload", files={"file": ("ducks.bin", content)}, data={"note": "quack"})
    digest = hashlib.sha256(content).hexdigest()
    assert answer.json() == {"name": "ducks.bin", "size": size, "sha256": digest, "note": "quack"}


def test_large_json_body_is_read(site: Site) -> None:
    data = [{"number": number, "text": "quack" * 20} for number in range(30_000)]
    assert site.client.post("/json", json=data).json() == {"count": 30_000, "total": sum(range(30_000))}


def test_broken_json_is_flasks_400(site: Site) -> None:
    answer = site.client.post("/json", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_chunked_body_is_read(site: Site) -> None:
    """Werkzeug reads a body without Content-Length only because wsgi.input_terminated says that it ends."""
    pieces = [os.urandom(5000) for _ in range(50)]
    assert site.client.post("/body", content=iter(pieces)).content == b"".join(pieces)


def test_stream_keeps_the_request_context(site: Site) -> None:
    with site.client.stream("GET", "/stream", params={"word": "quack"}) as answer:
        assert list(answer.iter_lines()) == [f"quack {number}" for number in range(100)]


def test_sent_file_is_whole_and_can_be_asked_for_in_parts(site: Site, large_file: Path) -> None:
    content = large_file.read_bytes()
    answer = site.client.get("/file")
    assert answer.content == content
    part = site.client.get("/file", headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, content[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(content)}"
    unchanged = site.client.get("/file", headers={"If-None-Match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert site.client.get("/").status_code == 200


def test_session_cookie_counts(site: Site) -> None:
    with httpx.Client(base_url=site.server.url, trust_env=False) as client:
        assert [client.get("/counter").json()["count"] for _ in range(3)] == [1, 2, 3]


def test_error_in_a_view_is_flasks_500(site: Site) -> None:
    answer = site.client.get("/error")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    site.server.wait_for_stderr("secret of the view")
    assert site.client.get("/nowhere").status_code == 404


def test_empty_answer(site: Site) -> None:
    answer = site.client.get("/empty")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers


def test_many_clients_at_once(site: Site) -> None:
    def visit(number: int) -> object:
        with httpx.Client(base_url=site.server.url, trust_env=False, timeout=30) as client:
            return [client.post("/form", data={"n": str(number)}).json()["n"] for _ in range(10)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(16))) == [[str(number)] * 10 for number in range(16)]


def test_httptools_parser_serves_it_too(large_file: Path) -> None:
    with serving("flask_site:app", "--interface", "wsgi", "--http", "httptools", env={"FLASK_FILE": str(large_file)}) as site:
        assert site.client.get("/", params={"a": "b"}).json()["query"] == {"a": "b"}
        content = os.urandom(500_000)
        assert site.client.post("/body", content=content).content == content
        assert site.client.post("/body", content=iter([content, content])).content == content * 2
        assert site.client.get("/file").content == large_file.read_bytes()


def test_interface_is_found_by_inspection(large_file: Path) -> None:
    with serving("flask_site:app", env={"FLASK_FILE": str(large_file)}) as site:
        assert site.client.get("/").status_code == 200
