"""Django as WSGI and as ASGI: its admin, sessions in SQLite, forms with CSRF, uploads, streams, files."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.process import clean_environment
from support.sites import APPS, ASGI_WAYS, WSGI_WAYS, Site, serving
from support.wire import request

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
WAYS = {**WSGI_WAYS, **ASGI_WAYS}


def manage(*arguments: str, env: dict[str, str]) -> None:
    command = [sys.executable, "django_site.py", *arguments]
    subprocess.run(command, cwd=APPS, env=clean_environment(env), check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, large_file: Path) -> dict[str, str]:
    """A migrated database with one superuser."""
    environment = {
        "DJANGO_DATABASE": str(tmp_path_factory.mktemp("django") / "ducks.sqlite3"),
        "DJANGO_FILE": str(large_file),
        "DJANGO_SUPERUSER_PASSWORD": "quack",
    }
    manage("migrate", "--verbosity", "0", env=environment)
    manage("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org", env=environment)
    return environment


@pytest.fixture(scope="module", params=list(WAYS))
def site(request: pytest.FixtureRequest, project: dict[str, str]) -> Iterator[Site]:
    target = "django_site:wsgi" if request.param.startswith("wsgi") else "django_site:asgi"
    with serving(target, *WAYS[request.param], env=project) as site:
        yield site


def token_in(page: httpx.Response) -> str:
    match = TOKEN.search(page.text)
    assert match, page.text
    return match[1]


def log_in(client: httpx.Client) -> None:
    page = client.get("/admin/login/?next=/admin/")
    form = {"username": "ada", "password": "quack", "csrfmiddlewaretoken": token_in(page), "next": "/admin/"}
    answer = client.post("/admin/login/?next=/admin/", data=form)
    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/")


def test_view_sees_method_path_and_query(site: Site) -> None:
    seen = site.client.get("/page/caf%C3%A9/a%20b", params={"a": "b c"}).json()
    assert seen == {"method": "GET", "path": "/page/café/a b", "query": {"a": "b c"}}
    assert site.client.head("/").status_code == 200


def test_admin_is_used_through_its_forms(site: Site) -> None:
    """Log in, add a group, find it in the list, delete it, log out: sessions, CSRF, redirects, messages."""
    with httpx.Client(base_url=site.server.url, trust_env=False) as client:
        assert client.get("/admin/").status_code == 302
        log_in(client)
        assert "Site administration" in client.get("/admin/").text
        name = f"ducks of {os.getpid()} & friends, <b>é</b>"
        form = {"name": name, "csrfmiddlewaretoken": token_in(client.get("/admin/auth/group/add/"))}
        assert client.post("/admin/auth/group/add/", data=form).status_code == 302
        listed = client.get("/admin/auth/group/")
        assert "was added successfully" in listed.text
        number = re.findall(r"/admin/auth/group/(\d+)/change/", listed.text)[0]
        page = client.get(f"/admin/auth/group/{number}/delete/")
        form = {"post": "yes", "csrfmiddlewaretoken": token_in(page)}
        assert client.post(f"/admin/auth/group/{number}/delete/", data=form).status_code == 302
        form = {"csrfmiddlewaretoken": token_in(client.get("/admin/"))}
        assert "Logged out" in client.post("/admin/logout/", data=form).text
        assert client.get("/admin/").status_code == 302


def test_form_without_csrf_token_is_refused(site: Site) -> None:
    with httpx.Client(base_url=site.server.url, trust_env=False) as client:
        assert client.post("/admin/login/", data={"username": "ada", "password": "quack"}).status_code == 403
        assert client.get("/").status_code == 200


def test_session_counts_across_requests_and_connections(site: Site) -> None:
    with httpx.Client(base_url=site.server.url, trust_env=False) as client:
        counts = [client.get("/counter").json()["count"] for _ in range(3)]
        cookies = dict(client.cookies)
    with httpx.Client(base_url=site.server.url, trust_env=False, cookies=cookies) as other:
        counts.append(other.get("/counter").json()["count"])
    assert counts == [1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_file_upload_is_whole(site: Site, size: int) -> None:
    content = os.urandom(size)
    answer = site.client.post("/upload", files={"file": ("dücks.bin", content)}, data={"note": "quack é"})
    assert answer.json() == {
        "name": "dücks.bin",
        "size": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "quack é",
    }


def test_body_is_echoed(site: Site) -> None:
    content = os.urandom(300_000)
    assert site.client.post("/body", content=content).content == content


def test_chunked_body_is_echoed_by_the_asgi_side(project: dict[str, str]) -> None:
    """As WSGI, Django takes a request without Content-Length for one without a body, on any server."""
    content = os.urandom(300_000)
    pieces = [content[start : start + 7000] for start in range(0, len(content), 7000)]
    with serving("django_site:asgi", env=project) as site:
        assert site.client.post("/body", content=iter(pieces)).content == content


def test_streaming_response_arrives_line_by_line(site: Site) -> None:
    with site.client.stream("GET", "/stream") as answer:
        assert answer.status_code == 200
        assert list(answer.iter_lines()) == [f"line {number}" for number in range(100)]


def test_file_response_is_whole(site: Site, large_file: Path) -> None:
    answer = site.client.get("/file")
    assert answer.headers["content-length"] == str(large_file.stat().st_size)
    assert "ducks.bin" in answer.headers["content-disposition"]
    assert answer.content == large_file.read_bytes()
    assert site.client.head("/file").headers["content-length"] == str(large_file.stat().st_size)
    assert site.client.get("/").status_code == 200


def test_error_in_a_view_is_djangos_500(site: Site) -> None:
    answer = site.client.get("/error")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    site.server.wait_for_stderr("secret of the view")
    assert site.client.get("/nowhere").status_code == 404


def test_async_view(site: Site) -> None:
    assert site.client.get("/async", headers={"X-User": "ada"}).json() == {"async": True, "user": "ada"}


def test_many_clients_at_once(site: Site) -> None:
    def visit(number: int) -> object:
        with httpx.Client(base_url=site.server.url, trust_env=False, timeout=30) as client:
            return [client.get("/", params={"n": str(number)}).json()["query"]["n"] for _ in range(5)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(16))) == [[str(number)] * 5 for number in range(16)]


def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    with site.connect() as wire:
        wire.send(b"".join(request(target=f"/?n={number}") for number in range(10)))
        for number in range(10):
            assert f'"n": "{number}"' in wire.read_response().text


def test_httptools_parser_serves_it_too(project: dict[str, str]) -> None:
    for target, interface in (("django_site:wsgi", "wsgi"), ("django_site:asgi", "asgi")):
        with serving(target, "--interface", interface, "--http", "httptools", env=project) as site:
            log_in(site.client)
            assert "Site administration" in site.client.get("/admin/").text
            content = os.urandom(100_000)
            assert site.client.post("/body", content=content).content == content


def test_root_path_is_the_script_name(project: dict[str, str]) -> None:
    for target, interface in (("django_site:wsgi", "wsgi"), ("django_site:asgi", "asgi")):
        with serving(target, "--interface", interface, "--root-path", "/mounted", env=project) as site:
            location = site.client.get("/admin/").headers["location"]
            assert location.startswith("/mounted/admin/login/")
