"""The settings of TLS, on real servers: client certificates, names, versions, passwords, reloading, and what people get wrong."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from support.authority import Authority
from support.client import fetch
from support.machine import foreign_environ
from support.probe import Probe, literal
from support.process import ServerProcess, run_duckfast
from support.wire import DEADLINE, Wire, eventually, request

APPS = Path(__file__).parents[1] / "conformance" / "apps"
WAYS = [("asgi", "descriptor"), ("asgi", "memory"), ("wsgi", "descriptor"), ("wsgi", "memory")]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


def start(way: tuple[str, str], *options: str, command: list[str] | None = None) -> ServerProcess:
    interface, io = way
    arguments = [f"{interface}_probe:application", "--interface", interface, "--ssl-io", io, *options]
    return ServerProcess(arguments, cwd=APPS, command=command)


def facts(server: ServerProcess, way: tuple[str, str], tls: ssl.SSLContext) -> dict[str, object]:
    """What the application learns of the connection."""
    probe = Probe(server, tls=tls)
    value = probe.value("show_scope" if way[0] == "asgi" else "show_environ")
    return value["extensions"]["tls"] if way[0] == "asgi" else value  # type: ignore[no-any-return]


# Client certificates


def test_a_client_certificate_is_told_to_the_application(authority: Authority, way: tuple[str, str]) -> None:
    client = authority.client(authority.issue("duck@pond.test", common_name='Donald "D" Duck, Esq.'))
    options = [*authority.options("localhost"), "--ssl-ca-certs", str(authority.path), "--ssl-cert-reqs", "required"]
    with start(way, *options) as server:
        seen = facts(server, way, client)
        if way[0] == "asgi":
            assert seen["client_cert_name"] == r"CN=Donald \"D\" Duck\, Esq.,OU=Testing cert,O=Ducks\, Inc." or (
                str(seen["client_cert_name"]).startswith(r"CN=Donald \"D\" Duck\, Esq.,")
            )
            assert seen["client_cert_error"] is None
            chain = seen["client_cert_chain"]
            assert isinstance(chain, list) and chain[0].startswith("-----BEGIN CERTIFICATE-----\n")
            ssl.PEM_cert_to_DER_cert(chain[0])
        else:
            assert seen["SSL_CLIENT_VERIFY"] == "SUCCESS"
            assert seen["SSL_CLIENT_S_DN_CN"] == 'Donald "D" Duck, Esq.'
            assert seen["SSL_CLIENT_S_DN_O"] == "Ducks, Inc." and "O=ca" in str(seen["SSL_CLIENT_I_DN"])
            assert int(str(seen["SSL_CLIENT_M_SERIAL"]), 16) > 0 and str(seen["SSL_CLIENT_V_END"]).endswith(" GMT")
            ssl.PEM_cert_to_DER_cert(str(seen["SSL_CLIENT_CERT"]))


def refused(server: ServerProcess, tls: ssl.SSLContext) -> str:
    """The alert that a client meets, in the handshake or with its first request."""
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught, Wire((server.host, server.port), tls=tls) as wire:
        wire.send(request())
        wire.tls.recv(1)
        raise AssertionError("the server answered")
    return str(caught.value)


def test_required_means_no_answer_without_a_certificate(authority: Authority, way: tuple[str, str]) -> None:
    options = [*authority.options("localhost"), "--ca-certs", str(authority.path), "--ssl-client-verify"]
    with start(way, *options) as server:
        assert "CERTIFICATE_REQUIRED" in refused(server, authority.client())
        server.wait_for_stderr("TLS handshake failed: peer did not return a certificate")


def test_optional_takes_both_but_no_strangers_certificate(authority: Authority, way: tuple[str, str], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").issue("x@y.test")
    options = [*authority.options("localhost"), "--ssl-ca-certs", str(authority.path), "--ssl-cert-reqs", "1"]
    with start(way, *options) as server:
        without = facts(server, way, authority.client())
        assert without.get("client_cert_chain") == [] or without.get("SSL_CLIENT_VERIFY") == "NONE"
        facts(server, way, authority.client(authority.issue("a@b.test")))
        assert "UNKNOWN_CA" in refused(server, authority.client(stranger))
        server.wait_for_stderr("TLS handshake failed: unable to get local issuer certificate")


def test_a_revoked_certificate_is_refused(authority: Authority, way: tuple[str, str]) -> None:
    good, bad = authority.issue("good@pond.test"), authority.issue("bad@pond.test")
    options = [*authority.options("localhost"), "--ssl-ca-certs", str(authority.path), "--ssl-cert-reqs", "required"]
    with start(way, *options, "--ssl-crl", authority.revoke(bad)) as server:
        facts(server, way, authority.client(good))
        assert "REVOKED" in refused(server, authority.client(bad))
        server.wait_for_stderr("TLS handshake failed: certificate revoked")


def test_a_client_certificate_survives_resumption(authority: Authority, way: tuple[str, str]) -> None:
    client = authority.client(authority.issue("again@pond.test", common_name="again"))
    options = [*authority.options("localhost"), "--ssl-ca-certs", str(authority.path), "--ssl-cert-reqs", "required"]
    scenario = "show_scope" if way[0] == "asgi" else "show_environ"
    with start(way, *options) as server:
        probe = Probe(server)
        with Wire(probe.address, tls=client) as wire:
            wire.send(probe.request(scenario))
            wire.read_response()
            session = wire.tls.session
        with Wire(probe.address, tls=client, session=session) as wire:
            assert wire.tls.session_reused
            wire.send(probe.request(scenario))
            assert "again" in wire.read_response().text


# Names, versions, ciphers


def presented(server: ServerProcess, authority: Authority, name: str) -> list[str]:
    context = authority.client()
    context.check_hostname = False
    with Wire((server.host, server.port), tls=context, name=name) as wire:
        certificate = wire.tls.getpeercert() or {}
    return [value for _, value in certificate["subjectAltName"]]  # type: ignore[misc]


def test_the_certificate_is_chosen_by_the_name_a_client_asks_for(authority: Authority, way: tuple[str, str]) -> None:
    options = [*authority.options("first.test"), *authority.options("second.test", "*.pond.test")]
    with start(way, *options) as server:
        assert presented(server, authority, "first.test") == ["first.test"]
        assert presented(server, authority, "SECOND.test") == ["second.test", "*.pond.test"]
        assert presented(server, authority, "a.pond.test") == ["second.test", "*.pond.test"]
        assert presented(server, authority, "a.b.pond.test") == ["first.test"]  # an asterisk is one label
        assert presented(server, authority, "unknown.test") == ["first.test"]
        assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200  # asks for no name


def test_versions_and_ciphers_are_what_was_set(authority: Authority, way: tuple[str, str]) -> None:
    with start(way, *authority.options("localhost"), "--ssl-min-version", "1.3") as server:
        old = authority.client()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert "PROTOCOL_VERSION" in refused(server, old)
    with start(way, *authority.options("localhost"), "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384") as server:
        client = authority.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire((server.host, server.port), tls=client) as wire:
            assert (wire.tls.cipher() or ("",))[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


def test_curl_is_content(authority: Authority, way: tuple[str, str]) -> None:
    if shutil.which("curl") is None:
        return
    with start(way, *authority.options("localhost")) as server:
        command = ["curl", "-sS", "--cacert", str(authority.path), "-H", "X-Scenario: echo", "--data-binary", "quack"]
        url = f"https://localhost:{server.port}/"
        done = subprocess.run(
            [*command, "--ipv4", url, url], capture_output=True, timeout=DEADLINE, check=True, env=foreign_environ()
        )
        assert done.stdout == b"quackquack"


# Contexts of one's own

CONTEXTS = """
import ssl, sys
import duckfast
certificate, key, how = sys.argv[1:4]
sys.argv = sys.argv[:1]

def make():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context

def factory(config, default):
    context = default()
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return context

settings = {}
if how == "own":
    settings["ssl_context"] = make()
elif how == "callback":
    context = make()
    context.sni_callback = lambda connection, name, context: print("asked for", name, flush=True)
    settings["ssl_context"] = context
else:
    settings.update(ssl_context=factory, ssl_certfile=certificate, ssl_keyfile=key)
duckfast.run("wsgi_probe:application", interface="wsgi", port=0, **settings)
"""


@pytest.mark.parametrize("how", ["own", "callback", "factory"])
def test_a_context_made_in_code_is_used(authority: Authority, how: str) -> None:
    command = [sys.executable, "-c", CONTEXTS, *authority.server("localhost"), how]
    with ServerProcess(command=command, cwd=APPS) as server:
        client = authority.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire((server.host, server.port), tls=client) as wire:
            wire.send(request(headers=[("X-Scenario", "echo")]))
            assert wire.read_response().status == 200
            if how == "factory":
                assert (wire.tls.cipher() or ("",))[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
        if how == "callback":
            server.wait_for_stdout("asked for localhost")


# New certificates


def serial(server: ServerProcess, authority: Authority) -> str:
    with Wire((server.host, server.port), tls=authority.client()) as wire:
        return str((wire.tls.getpeercert() or {})["serialNumber"])


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    certificate, key = authority.write(authority.issue("localhost"), "rotated")
    shutil.copy(certificate, tmp_path / "cert.pem")
    shutil.copy(key, tmp_path / "key.pem")
    yield tmp_path / "cert.pem", tmp_path / "key.pem"


def replace(path: Path, source: str) -> None:
    fresh = path.with_suffix(".new")
    shutil.copy(source, fresh)
    fresh.rename(path)


def test_changed_files_are_used_for_new_connections(
    authority: Authority, way: tuple[str, str], pair: tuple[Path, Path]
) -> None:
    certificate, key = pair
    with start(way, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-reload") as server:
        before = serial(server, authority)
        probe = Probe(server, tls=authority.client())
        with probe.connect() as old:
            new_certificate, new_key = authority.write(authority.issue("localhost"), "renewed")
            replace(certificate, new_certificate)  # its key is not there yet
            server.wait_for_stderr("TLS certificates were not reloaded, the previous ones stay: the key in")
            assert serial(server, authority) == before
            replace(key, new_key)
            eventually(lambda: serial(server, authority) != before)
            assert server.stderr_text().count("were not reloaded") == 1
            old.send(probe.request("echo", method="POST", body=b"still here"))
            assert old.read_response().body == b"still here"
        key.write_text("no key at all")
        server.wait_for_stderr("holds no private key in PEM")
        assert serial(server, authority) != before


def test_rotation_under_load_fails_no_request(authority: Authority, pair: tuple[Path, Path]) -> None:
    certificate, key = pair
    generations = [authority.write(authority.issue("localhost"), f"generation-{number}") for number in range(2)]
    failures: list[BaseException] = []
    seen: set[str] = set()
    over = threading.Event()

    def keep_asking(server: ServerProcess) -> None:
        probe = Probe(server, tls=authority.client())
        try:
            while not over.is_set():
                with probe.connect() as wire:
                    seen.add(str((wire.tls.getpeercert() or {})["serialNumber"]))
                    for _ in range(3):
                        wire.send(probe.request("echo", method="POST", body=b"quack"))
                        assert wire.read_response().body == b"quack"
        except BaseException as error:
            failures.append(error)

    with start(("wsgi", "descriptor"), "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-reload") as server:
        clients = [threading.Thread(target=keep_asking, args=(server,)) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for number, (new_certificate, new_key) in enumerate(generations):
                replace(certificate, new_certificate)
                replace(key, new_key)
                eventually(lambda number=number: len(seen) >= number + 2 or failures)  # type: ignore[misc]
        finally:
            over.set()
            for client in clients:
                client.join()
        assert not failures
        assert len(seen) == 3


# What people get wrong


def told(*arguments: str) -> str:
    done = run_duckfast("wsgi_probe:application", "--app-dir", str(APPS), "--port", "0", *arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("duckfast: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def encrypted(key: str, folder: Path, password: str) -> str:
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    path = folder / "encrypted.pem"
    path.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    return str(path)


def test_mistakes_are_told_in_one_line(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("localhost")
    _, other = authority.server("other.test")
    locked = encrypted(key, tmp_path, "secret")
    assert "--ssl-certfile /nowhere.pem cannot be read" in told("--ssl-certfile", "/nowhere.pem")
    assert "does not belong to the certificate" in told("--ssl-certfile", certificate, "--ssl-keyfile", other)
    assert "holds no private key in PEM; give --ssl-keyfile" in told("--ssl-certfile", certificate)
    assert "holds no certificate in PEM" in told("--ssl-certfile", key, "--ssl-keyfile", key)
    assert "is encrypted; give --ssl-keyfile-password" in told("--ssl-certfile", certificate, "--ssl-keyfile", locked)
    wrong = told("--ssl-certfile", certificate, "--ssl-keyfile", locked, "--ssl-keyfile-password", "guess")
    assert "--ssl-keyfile-password does not open it" in wrong
    assert "--ssl-keyfile needs a certificate" in told("--ssl-keyfile", key)
    assert "give --ssl-certfile" in told("--ssl-cert-reqs", "required")
    assert "names no cipher" in told("--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ciphers", "ROT13")
    assert "needs --ssl-ca-certs" in told("--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-cert-reqs", "2")
    assert "holds no certificate in PEM" in told(
        "--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-ca-certs", key, "--ssl-cert-reqs", "2"
    )
    assert "give one for each" in told(
        "--ssl-certfile", certificate, "--ssl-keyfile", key, "--ssl-keyfile", other
    )


def test_an_encrypted_key_is_opened(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server("localhost")
    locked = encrypted(key, tmp_path, "secret")
    options = ["--certfile", certificate, "--keyfile", locked, "--ssl-keyfile-password", "secret", "--ssl-version", "17"]
    with start(("wsgi", "descriptor"), *options) as server:
        assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200
        assert "--ssl-version has no effect" in server.stderr_text()


def test_a_unix_socket_is_secure_as_well(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with start(("wsgi", "descriptor"), *authority.options("localhost"), "--uds", str(path)) as server:
        assert server.addresses == [f"unix:{path}"]
        with Wire(str(path), tls=authority.client()) as wire:
            wire.send(request(headers=[("X-Scenario", "show_environ")]))
            environ = literal(wire.read_response())
            assert (environ["wsgi.url_scheme"], environ["SERVER_PORT"]) == ("https", "443")


def test_the_start_line_says_https_and_a_port_scan_leaves_no_line(authority: Authority) -> None:
    with start(("wsgi", "auto"), *authority.options("localhost")) as server:
        assert server.url.startswith("https://")
        with socket.create_connection((server.host, server.port), DEADLINE):
            pass  # a port scan leaves no line
    assert "handshake failed" not in server.stderr_text()


def test_workers_resume_each_others_sessions(authority: Authority) -> None:
    with start(("wsgi", "descriptor"), *authority.options("localhost"), "--workers", "2") as server:
        client = authority.client()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire((server.host, server.port), tls=client) as wire:
            session = wire.tls.session
        for _ in range(20):  # so that both have had some
            with Wire((server.host, server.port), tls=client, session=session) as wire:
                assert wire.tls.session_reused
        assert server.url.startswith("https://")
