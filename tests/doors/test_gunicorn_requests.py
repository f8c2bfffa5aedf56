"""gunicorn with duckfast's workers: what is made of a request, and who hears of it. Real processes."""

from __future__ import annotations

import ast
import re
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.client import Answer, connect, read_answer, send_request
from support.gunicorn import VERSION, Gunicorn, write_site
from support.wire import eventually

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = pytest.mark.parametrize("kind", ["wsgi", "asgi"])


def facts(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return ast.literal_eval(answer.text)


def header(seen: dict[str, Any], name: str) -> str | None:
    """A field as the application saw it."""
    if "headers" in seen:
        return next((value.decode() for key, value in seen["headers"] if key.decode() == name.lower()), None)
    return seen.get("HTTP_" + name.upper().replace("-", "_"))


# Hooks and loggers ---------------------------------------------------------------------------------------------------

HOOKS = """
    import time

    accesslog = "access.log"
    access_log_format = '%(h)s "%(r)s" %(s)s %(b)s %({x-name}i)s %({x-made-by}o)s %(U)s?%(q)s'

    def pre_request(worker, req):
        req.began = time.monotonic()
        if req.path == "/forbidden":
            raise PermissionError("the hook says no")

    def post_request(worker, req, environ, resp):
        assert req.began <= time.monotonic()
        name = dict(req.headers).get("X-NAME")
        maker = {name.lower(): value for name, value in resp.headers}.get("x-made-by")
        print("post", req.method, req.uri, name, resp.status, resp.sent, maker, environ["REMOTE_ADDR"], worker.nr, flush=True)
"""


@KINDS
def test_hooks_and_the_access_log_hear_of_every_request(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path, configuration=HOOKS)
    log = tmp_path / "access.log"
    with Gunicorn(tmp_path, kind, "--max-requests", "100") as server:
        assert server.get("/pid?a=b", headers={"X-Name": "duck"}).status == 200
        assert server.get("/fail").status == 500
        assert server.get("/forbidden").status == 500
        assert server.get("/pid", headers={"Content-Length": "x"}).status == 400  # no request for a hook
        size = len(server.get("/pid").body)
        server.wait_for_stdout("post GET /pid None")
        posted = re.findall(r"post (.*)", server.stdout_text())
        assert posted[0] == f"GET /pid?a=b duck 200 OK {size} the app 127.0.0.1 1"
        assert posted[1].startswith("GET /fail None 500 Internal Server Error")
        assert posted[2].startswith("GET /forbidden None 500 Internal Server Error")
        assert len(posted) == 4
        server.wait_for_stderr("the hook says no")

        eventually(lambda: log.read_text().count("\n") == 5, "five access lines")
        lines = log.read_text().splitlines()
        assert lines[0] == f'127.0.0.1 "GET /pid?a=b HTTP/1.1" 200 {size} duck the app /pid?a=b'
        assert [line.split('" ')[1].split()[0] for line in lines] == ["200", "500", "500", "400", "200"]

        log.rename(tmp_path / "rotated")
        server.send_signal(signal.SIGUSR1)
        eventually(log.exists, "a new log file")

        def is_logged() -> bool:
            server.get("/pid")
            return log.read_text() != ""

        eventually(is_logged, "a line in the new file")


@KINDS
def test_statsd_counts_the_requests(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(30)
        place = f"127.0.0.1:{statsd.getsockname()[1]}"
        with Gunicorn(tmp_path, kind, "--statsd-host", place) as server:
            for _ in range(7):
                assert server.get("/pid").status == 200
            assert server.get("/fail").status == 500
            seen: list[str] = []
            while sum("gunicorn.requests:1" in packet for packet in seen) < 8:
                seen.append(statsd.recv(1000).decode())
        assert sum("gunicorn.request.status.200:1" in packet for packet in seen) == 7
        assert sum("gunicorn.request.duration:" in packet for packet in seen) == 8
        assert any("gunicorn.log.error" in packet for packet in seen)  # the failure of /fail


@KINDS
def test_a_response_that_waits_for_its_reader_is_logged_when_it_has_left(tmp_path: Path, kind: str) -> None:
    size = 10_000_000
    write_site(
        tmp_path,
        f"""
        def large_wsgi(environ, start_response):
            start_response("200 OK", [("Content-Length", "{size}")])
            return [b"x" * {size}]

        async def large_asgi(scope, receive, send):
            if scope["type"] == "http":
                await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"{size}")]}})
                await send({{"type": "http.response.body", "body": b"x" * {size}}})
        """,
        "accesslog = '-'\naccess_log_format = 'line of %(m)s %(U)s %(s)s %(B)s'",
    )
    with Gunicorn(tmp_path, kind, target=f"website:large_{kind}") as server:
        with connect(server.addresses[0]) as wire:
            send_request(wire, path="/whole")
            assert len(read_answer(wire).body) == size
        with connect(server.addresses[0]) as wire:
            send_request(wire, path="/left")
            wire.recv(100)
        server.wait_for_stdout("line of GET /left 200")
        assert f"line of GET /whole 200 {size}\n" in server.stdout_text()
        sent = re.search(r"line of GET /left 200 (\d+)", server.stdout_text())
        assert sent is not None and 0 < int(sent[1]) < size


# Proxies -------------------------------------------------------------------------------------------------------------


@KINDS
def test_trusted_peers_tell_scheme_and_prefix_by_gunicorns_rules(tmp_path: Path, kind: str) -> None:
    write_site(
        tmp_path,
        configuration="""
        secure_scheme_headers = {"X-FORWARDED-PROTO": "https", "FRONT-END-TLS": "yes"}
        forwarder_headers = "SCRIPT_NAME,REMOTE_USER"
        """,
    )
    scheme = "wsgi.url_scheme" if kind == "wsgi" else "scheme"
    with Gunicorn(tmp_path, kind) as server:
        assert facts(server.get("/"))[scheme] == "http"
        assert facts(server.get("/", headers={"Front-End-Tls": "yes"}))[scheme] == "https"
        assert facts(server.get("/", headers={"X-Forwarded-Proto": "https", "Front-End-Tls": "yes"}))[scheme] == "https"
        assert facts(server.get("/", headers={"X-Forwarded-Proto": "https, http"}))[scheme] == "http"  # compared whole
        assert server.get("/", headers={"X-Forwarded-Proto": "http", "Front-End-Tls": "yes"}).status == 400

        seen = facts(server.get("/shop/list", headers={"SCRIPT_NAME": "/shop", "X-Forwarded-For": "192.0.2.1"}))
        if kind == "wsgi":
            assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["REMOTE_ADDR"]) == ("/shop", "/list", "127.0.0.1")
        else:
            assert (seen["root_path"], seen["path"], seen["client"][0]) == ("/shop", "/shop/list", "192.0.2.1")

        if VERSION < (23, 0):
            return  # it has no forwarder_headers but SCRIPT_NAME
        headers = {"REMOTE_USER": "bob", "Remote-User": "admin", "X_Other": "dropped"}
        seen = facts(server.get("/", headers=headers))
        assert (header(seen, "Remote_User"), header(seen, "X_Other")) == ("bob", None)
        if kind == "asgi":
            assert header(seen, "Remote-User") is None


@pytest.mark.parametrize("kind", ["wsgi"])
def test_others_tell_nothing(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path)
    extra = ["--header-map", "refuse"] if VERSION >= (22, 0) else []
    with Gunicorn(tmp_path, kind, "--forwarded-allow-ips", "192.0.2.7", *extra) as server:
        seen = facts(server.get("/", headers={"X-Forwarded-Proto": "https"}))
        assert seen["wsgi.url_scheme"] == "http"
        answer = server.get("/", headers={"SCRIPT_NAME": "/shop"})
        if extra:
            assert answer.status == 400
            assert "underscores" in answer.text
        else:
            assert facts(answer)["SCRIPT_NAME"] == ""


@KINDS
def test_proxy_protocol_names_the_client(tmp_path: Path, kind: str) -> None:
    write_site(tmp_path, configuration="proxy_protocol = True")  # a bool before 24.1, and a word since
    with Gunicorn(tmp_path, kind) as server, connect(server.addresses[0]) as wire:
        wire.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n")
        send_request(wire)
        seen = facts(read_answer(wire))
        assert (seen["REMOTE_ADDR"] if kind == "wsgi" else seen["client"][0]) == "192.0.2.1"


# TLS, limits, the environment ----------------------------------------------------------------------------------------


@KINDS
def test_tls_asks_the_users_hook(tmp_path: Path, authority: Authority, kind: str) -> None:
    certificate, key = authority.server("localhost")
    write_site(
        tmp_path,
        configuration=f"""
        certfile, keyfile = {certificate!r}, {key!r}

        def ssl_context(conf, default_ssl_context_factory):
            print("ssl_context called", flush=True)
            context = default_ssl_context_factory()
            context.set_alpn_protocols(["h2", "http/1.1"])
            return context
        """,
    )
    with Gunicorn(tmp_path, kind) as server:
        context = authority.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        host, _, port = server.addresses[0].removeprefix("https://").rpartition(":")
        with socket.create_connection((host, int(port))) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as wire:
                assert wire.selected_alpn_protocol() == "http/1.1"  # what is served, whatever the context offers
                send_request(wire)
                seen = facts(read_answer(wire))
        assert (seen["wsgi.url_scheme"] if kind == "wsgi" else seen["scheme"]) == "https"
        assert ("ssl_context called" in server.stdout_text()) == (VERSION >= (21, 0))


def test_tls_settings_are_honoured(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.server("localhost")
    write_site(tmp_path)
    args = ["--certfile", certificate, "--keyfile", key, "--ca-certs", str(authority.path), "--cert-reqs", "2"]
    with Gunicorn(tmp_path, "wsgi", *args) as server:
        host, _, port = server.addresses[0].removeprefix("https://").rpartition(":")

        def ask(context: ssl.SSLContext) -> Answer:
            with socket.create_connection((host, int(port))) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as wire:
                    send_request(wire)
                    return read_answer(wire)

        assert facts(ask(authority.client(authority.issue("someone"))))["wsgi.url_scheme"] == "https"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(authority.client())  # without a certificate of its own


def test_limits_threads_and_environment(tmp_path: Path) -> None:
    write_site(tmp_path)
    args = ["--limit-request-line", "200", "--limit-request-fields", "6", "--limit-request-field_size", "100"]
    with Gunicorn(tmp_path, "wsgi", *args, "--threads", "3", "--keep-alive", "0", "-e", "SCRIPT_NAME=/shop", workers=2) as server:
        seen = facts(server.get("/shop/x"))
        assert (seen["wsgi.multithread"], seen["wsgi.multiprocess"]) == (True, True)
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/shop", "/x")
        assert server.get("/" + "x" * 200).status == 414
        assert server.get("/", headers={"X-Long": "x" * 100}).status == 431
        assert server.get("/", headers={f"X-{number}": "" for number in range(6)}).status == 431
        with connect(server.addresses[0]) as wire:
            send_request(wire, headers={"Connection": "keep-alive"})
            assert read_answer(wire).headers["connection"] == "close"


def test_the_example_of_a_configuration_serves(tmp_path: Path) -> None:
    for name in ("gunicorn_conf.py", "wsgi_hello.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    args = ["-c", "gunicorn_conf.py", "-b", "127.0.0.1:0"]
    with Gunicorn(tmp_path, "wsgi", *args, target="wsgi_hello:app", workers=2) as server:
        assert "Hello" in server.get("/").text
        server.wait_for_stdout('"GET / HTTP/1.1" 200')
