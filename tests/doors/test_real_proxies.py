"""nginx and HAProxy, as Debian ships them, in front of real servers: whose requests they are, and over what they came."""

from __future__ import annotations

import json
import socket
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.client import Answer, read_answer, send_request
from support.process import ServerProcess
from support.proxies import STREAM_MODULE, Proxy, find, haproxy, nginx

CLIENT = "127.0.0.5"  # loopback as well, and no address that is trusted by default
FORGED = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "Forwarded": 'for=192.0.2.1;proto=https;x="'}
REQUESTS = 20  # over one connection, so that the proxy's connections to the server are used again

needs_nginx = pytest.mark.skipif(find("nginx") is None, reason="nginx is not installed (apt-get install nginx)")
needs_haproxy = pytest.mark.skipif(find("haproxy") is None, reason="haproxy is not installed (apt-get install haproxy)")
needs_stream = pytest.mark.skipif(
    find("nginx") is None or not STREAM_MODULE.exists(),
    reason="nginx has no stream module (apt-get install libnginx-mod-stream)",
)

WEBSITE = """
    import json

    def app(environ, start_response):
        told = {"client": environ["REMOTE_ADDR"], "port": environ["REMOTE_PORT"], "scheme": environ["wsgi.url_scheme"],
                "host": environ["HTTP_HOST"], "root": environ["SCRIPT_NAME"], "path": environ["PATH_INFO"],
                "server": [environ["SERVER_NAME"], int(environ["SERVER_PORT"])]}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(told).encode()]

    async def asgi(scope, receive, send):
        assert scope["type"] == "http"
        host, port = scope["client"] or ("", 0)
        told = {"client": host, "port": str(port), "scheme": scope["scheme"], "server": scope["server"],
                "host": dict(scope["headers"])[b"host"].decode(), "root": scope["root_path"], "path": scope["path"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""

Start = Callable[..., str]


@pytest.fixture(params=["wsgi", "asgi"])
def start(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """`start("--proxy-protocol", "v2")`: a server of either interface; where it listens, as its proxy has to write it."""
    (tmp_path / "website.py").write_text(textwrap.dedent(WEBSITE))
    monkeypatch.chdir(tmp_path)
    target = "website:app" if request.param == "wsgi" else "website:asgi"
    with ExitStack() as running:

        def server(*options: str, unix: bool = False) -> str:
            place = ["--uds", "http.sock"] if unix else []
            arguments = [target, "--interface", request.param, *options, *place, "--timeout-keep-alive", "60"]
            started = running.enter_context(ServerProcess(arguments, cwd=tmp_path))
            return str(tmp_path / "http.sock") if unix else f"127.0.0.1:{started.port}"

        yield server


def answers(proxy: Proxy, path: str = "/", headers: dict[str, str] | None = None) -> list[dict[str, object]]:
    """What the application saw of each of some requests on one connection of a client that is not trusted."""
    seen: list[dict[str, object]] = []
    with socket.create_connection(("127.0.0.1", proxy.port), 30, source_address=(CLIENT, 0)) as sock:
        for _ in range(REQUESTS):
            send_request(sock, path=path, headers={"Connection": "keep-alive", "Host": "example.org", **(headers or {})})
            answer: Answer = read_answer(sock)
            assert answer.status == 200, answer
            seen.append({**json.loads(answer.text), "own port": sock.getsockname()[1]})
    return seen


def every(seen: list[dict[str, object]], **facts: object) -> bool:
    return all(facts.items() <= one.items() for one in seen)


UPSTREAM = """
    upstream site {{ server {address}; keepalive 8; }}
    server {{
        listen 127.0.0.1:PORT;
        location {location} {{
            proxy_pass http://site{slash};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            {fields}
        }}
    }}
"""
USUAL_FIELDS = """
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
"""
ALL_FIELDS = USUAL_FIELDS + """
            proxy_set_header X-Forwarded-Host www.example.org;
            proxy_set_header X-Forwarded-Port 8443;
            proxy_set_header X-Forwarded-Prefix /shop;
"""


def upstream(address: str, fields: str, location: str = "/", slash: str = "") -> str:
    return UPSTREAM.format(address=address, fields=fields, location=location, slash=slash)


@needs_nginx
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_nginx_with_forwarded_fields(start: Start, tmp_path: Path, unix: bool) -> None:
    address = start(unix=unix)
    with nginx(tmp_path, upstream(f"unix:{address}" if unix else address, USUAL_FIELDS)) as proxy:
        for headers in ({}, FORGED):
            assert every(answers(proxy, headers=headers), client=CLIENT, port="0", scheme="http", host="example.org", root="")


@needs_nginx
def test_nginx_with_the_whole_family_below_a_prefix(start: Start, tmp_path: Path) -> None:
    address = start("--proxy-headers", "x-forwarded")
    forged = {"X-Forwarded-Host": "evil.test", "X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/evil", **FORGED}
    with nginx(tmp_path, upstream(address, ALL_FIELDS, "/shop/", "/")) as proxy:
        seen = answers(proxy, "/shop/cart", headers=forged)
        assert every(seen, client=CLIENT, scheme="http", host="www.example.org:8443", server=["www.example.org", 8443])
        assert every(seen, root="/shop")
        assert {one["path"] for one in seen} <= {"/cart", "/shop/cart"}


@needs_nginx
def test_nginx_with_forwarded(start: Start, tmp_path: Path) -> None:
    address = start("--proxy-headers", "forwarded")
    fields = """proxy_set_header Forwarded '$http_forwarded, for=$remote_addr;proto=https;host="www.example.org"';"""
    with nginx(tmp_path, upstream(address, fields)) as proxy:
        for headers in ({}, FORGED):
            assert every(answers(proxy, headers=headers), client=CLIENT, scheme="https", host="www.example.org")


@needs_stream
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_nginx_with_the_proxy_protocol(start: Start, tmp_path: Path, unix: bool) -> None:
    address = start("--proxy-protocol", "v1", unix=unix)
    place = f"unix:{address}" if unix else address
    relay = f"server {{ listen 127.0.0.1:PORT; proxy_pass {place}; proxy_protocol on; }}"
    stream = f"load_module {STREAM_MODULE};\nstream {{ {relay} }}"
    with nginx(tmp_path, "", stream) as proxy:
        seen = answers(proxy, headers=FORGED)
        assert every(seen, client=CLIENT, scheme="http", server=["127.0.0.1", proxy.port])
        assert all(int(str(one["port"])) == one["own port"] for one in seen)


@needs_haproxy
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_haproxy_with_forwarded_fields(start: Start, tmp_path: Path, unix: bool) -> None:
    address = start(unix=unix)
    frontend = "option forwardfor\n    http-request set-header X-Forwarded-Proto http"
    with haproxy(tmp_path, frontend, f"http-reuse always\n    server one {address}") as proxy:
        for headers in ({}, FORGED):
            assert every(answers(proxy, headers=headers), client=CLIENT, port="0", scheme="http", host="example.org")


@needs_haproxy
def test_haproxy_with_forwarded(start: Start, tmp_path: Path) -> None:
    address = start("--proxy-headers", "forwarded")
    frontend = "http-request add-header Forwarded for=%[src];proto=https;host=%[req.hdr(host),lower]"
    with haproxy(tmp_path, frontend, f"server one {address}") as proxy:
        for headers in ({}, FORGED):
            assert every(answers(proxy, headers=headers), client=CLIENT, scheme="https", host="example.org")


@needs_haproxy
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("mode", ["tcp", "http"])
@pytest.mark.parametrize("option, version", [("send-proxy", "v1"), ("send-proxy-v2", "v2"), ("send-proxy-v2", "auto")])
def test_haproxy_with_the_proxy_protocol(start: Start, tmp_path: Path, option: str, version: str, mode: str, unix: bool) -> None:
    address = start("--proxy-protocol", version, unix=unix)
    with haproxy(tmp_path, "", f"server one {address} {option}", mode) as proxy:
        seen = answers(proxy, headers=FORGED)
        assert every(seen, client=CLIENT, scheme="http", server=["127.0.0.1", proxy.port])
        assert all(int(str(one["port"])) == one["own port"] for one in seen)


@needs_haproxy
def test_haproxy_with_every_extension_it_has_and_its_health_checks(start: Start, tmp_path: Path) -> None:
    address = start("--proxy-protocol", "v2")
    options = "send-proxy-v2-ssl-cn proxy-v2-options crc32c,unique-id,authority,cert-key check check-send-proxy inter 50ms"
    check = "option httpchk\n    http-check send meth GET uri / ver HTTP/1.1 hdr Host checked"
    backend = f"{check}\n    server one {address} {options}"
    with haproxy(tmp_path, "unique-id-format %[uuid]", backend) as proxy:
        assert every(answers(proxy, headers=FORGED), client=CLIENT, scheme="http")
