"""Serving over TLS: both engines, both ways of driving OpenSSL; clients that are Python's ssl and openssl s_client."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.authority import Authority
from support.client import fetch
from support.machine import counts_memory
from support.probe import Probe, literal
from support.process import ServerProcess
from support.wire import DEADLINE, Wire, request

APPS = Path(__file__).parent / "apps"
WAYS = [("asgi", "descriptor"), ("asgi", "memory"), ("wsgi", "descriptor"), ("wsgi", "memory")]
MEGABYTES = bytes(range(251)) * 20_000  # 5 MB, and no record boundary falls on a repetition

Serve = Callable[..., Probe]


def start(authority: Authority, way: tuple[str, str], *options: str) -> ServerProcess:
    interface, io = way
    arguments = [f"{interface}_probe:application", "--interface", interface, "--ssl-io", io, "--timeout-keep-alive", "60"]
    return ServerProcess([*arguments, *authority.options("localhost"), *options], cwd=APPS)


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def secure(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Probe]:
    with start(authority, request.param) as server:
        yield Probe(server, interface=request.param[0], tls=authority.client())


def s_client(probe: Probe, *options: str, send: bytes = b"") -> str:
    """What openssl s_client says while it sends `send`; its standard input then ends."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{probe.server.port}", "-servername", "localhost", *options]
    done = subprocess.run(command, input=send, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE, check=False)
    return done.stdout.decode("latin-1")


def only(version: ssl.TLSVersion, authority: Authority) -> ssl.SSLContext:
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    return context


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


# What the application is told


def test_requests_are_served_and_the_connection_is_kept(secure: Probe) -> None:
    with secure.connect() as wire:
        for number in range(20):
            wire.send(secure.request("echo", method="POST", body=b"%d" % number))
            assert wire.read_response().body == b"%d" % number


@pytest.mark.parametrize("version", VERSIONS)
def test_application_knows_that_the_connection_is_secure(secure: Probe, authority: Authority, version: ssl.TLSVersion) -> None:
    client = only(version, authority)
    with Wire(secure.address, tls=client) as wire:
        suite, name, bits = wire.tls.cipher() or ("", "", 0)
        if secure.interface == "wsgi":
            wire.send(secure.request("show_environ"))
            environ = literal(wire.read_response())
            assert environ["wsgi.url_scheme"] == "https" and environ["HTTPS"] == "on"
            assert (environ["SSL_PROTOCOL"], environ["SSL_CIPHER"]) == (wire.tls.version(), suite)
            assert environ["SSL_CIPHER_USEKEYSIZE"] == str(bits)
            assert environ["SSL_CLIENT_VERIFY"] == "NONE" and "SSL_CLIENT_CERT" not in environ
            assert environ["SERVER_PORT"] == str(secure.server.port)
            return
        wire.send(secure.request("show_scope"))
        scope = literal(wire.read_response())
        assert scope["scheme"] == "https"
        tls = scope["extensions"]["tls"]
        assert tls["tls_version"] == int(version)
        assert tls["cipher_suite"] == {entry["name"]: entry["id"] & 0xFFFF for entry in client.get_ciphers()}[suite]
        assert tls["client_cert_chain"] == [] and tls["client_cert_name"] is tls["client_cert_error"] is None
        peer = wire.tls.getpeercert(True)
        assert peer is not None
        assert tls["server_cert"] is None or ssl.PEM_cert_to_DER_cert(tls["server_cert"]) == peer
        assert "http.response.pathsend" in scope["extensions"]


def test_the_extension_is_a_fresh_dict_for_every_request(secure: Probe) -> None:
    if secure.interface == "asgi":
        with secure.connect() as wire:
            for _ in range(2):
                wire.send(secure.request("spoil_scope"))
                assert wire.read_response().status == 200
            wire.send(secure.request("show_scope"))
            assert set(literal(wire.read_response())["extensions"]["tls"]) == {
                "server_cert", "client_cert_chain", "client_cert_name", "client_cert_error", "tls_version", "cipher_suite"
            }


# Bytes in both directions


def test_large_bodies_go_up_and_down_whole(secure: Probe) -> None:
    with secure.connect() as wire:
        for body in (MEGABYTES, b"", b"small", MEGABYTES[: 16384 * 3]):
            wire.send(secure.request("echo", method="POST", body=body))
            assert wire.read_response().body == body


def test_files_are_sent(secure: Probe, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(MEGABYTES)
    scenario = "pathsend" if secure.interface == "asgi" else "send_real_file"
    with secure.connect() as wire:
        wire.send(secure.request(scenario, file=str(path), size=str(len(MEGABYTES)), length=str(len(MEGABYTES))))
        assert wire.read_response().body == MEGABYTES
        if secure.interface == "asgi":
            wire.send(secure.request("zerocopysend", file=str(path), plan="o3c40000 'middle' o0c7", size="40013"))
            assert wire.read_response().body == MEGABYTES[3:40003] + b"middle" + MEGABYTES[:7]
        wire.send(secure.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_pipelined_requests_in_one_record_are_all_answered(secure: Probe) -> None:
    with secure.connect() as wire:
        wire.send(b"".join(secure.request("echo", method="POST", body=b"%d" % number) for number in range(50)))
        assert [wire.read_response().body for _ in range(50)] == [b"%d" % number for number in range(50)]


def test_head_and_small_body_leave_in_one_record(secure: Probe) -> None:
    with secure.connect() as wire:
        wire.send(secure.request("echo", method="POST", body=b"x" * 9000))
        received = wire.tls.recv(65536)  # one call gives one record
        assert received.startswith(b"HTTP/1.1 200") and received.endswith(b"x" * 9000)


def test_a_request_may_come_byte_by_byte(secure: Probe) -> None:
    with secure.connect() as wire:
        for byte in secure.request("echo", method="POST", body=b"slow"):
            wire.send(bytes([byte]))
        assert wire.read_response().body == b"slow"


def test_a_slow_reader_holds_the_application_back_and_loses_nothing(secure: Probe, key: str) -> None:
    with secure.connect(receive_buffer=4096) as wire:
        wire.send(secure.request("send_until_blocked", key, pieces="400"))
        sent = secure.wait_until_stalled(key)
        assert 0 < sent < 400
        assert len(wire.read_response().body) == 400 * 65536


def test_a_client_that_ends_its_half_still_has_its_answer(secure: Probe) -> None:
    with secure.connect() as wire:
        wire.send(secure.request("echo", method="POST", body=b"last"))
        wire.half_close()  # a FIN without close_notify
        assert wire.read_response().body == b"last"


def test_close_notify_alone_is_the_end_of_the_requests(secure: Probe, authority: Authority) -> None:
    """The client's TCP stays open: only the record says that nothing more comes."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection((secure.server.host, secure.server.port), DEADLINE) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(secure.request("echo", method="POST", body=b"last"))
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())  # request and close_notify in one segment
        while data := sock.recv(65536):  # the server answers, then closes long before --timeout-keep-alive
            incoming.write(data)
        received = b""
        with pytest.raises(ssl.SSLZeroReturnError):
            while True:
                received += tls.read(65536)
        assert received.startswith(b"HTTP/1.1 200") and received.endswith(b"last")


def test_the_server_says_goodbye_before_it_closes(secure: Probe) -> None:
    with secure.connect() as wire:
        wire.tls.suppress_ragged_eofs = False  # a missing close_notify raises
        wire.send(secure.request("echo", headers=[("Connection", "close")], method="POST", body=b"bye"))
        assert wire.read_response().closes
        wire.expect_clean_end()


def test_a_client_that_breaks_off_is_noticed(secure: Probe, key: str) -> None:
    scenario = "send_until_disconnected" if secure.interface == "asgi" else "stream_until_gone"
    wire = secure.connect()
    wire.send(secure.request(scenario, key))
    wire.read_head()
    wire.reset()
    secure.wait_for_notes(key, lambda notes: notes != [] and notes[-1] not in ("streaming", "never told"))


def test_garbage_after_the_handshake_ends_that_connection_only(secure: Probe) -> None:
    with secure.connect() as wire, secure.connect() as other:
        socket.socket.sendall(wire.socket, b"\x17\x03\x03\x00\x20" + b"not encrypted at all, but 32 long")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            wire.tls.recv(1)
        other.send(secure.request("echo", method="POST", body=b"fine"))
        assert other.read_response().body == b"fine"


# Protocol


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_resumed(secure: Probe, authority: Authority, version: ssl.TLSVersion) -> None:
    client = only(version, authority)
    with Wire(secure.address, tls=client) as wire:
        wire.send(secure.request("echo"))
        wire.read_response()  # TLS 1.3 sends its tickets after the handshake
        session = wire.tls.session
        assert not wire.tls.session_reused
    with Wire(secure.address, tls=client, session=session) as wire:
        assert wire.tls.session_reused
        wire.send(secure.request("echo"))
        assert wire.read_response().status == 200


def test_sessions_are_resumed_by_identifier_without_tickets(secure: Probe, authority: Authority) -> None:
    client = only(ssl.TLSVersion.TLSv1_2, authority)
    client.options |= ssl.OP_NO_TICKET
    with Wire(secure.address, tls=client) as wire:
        session = wire.tls.session
        assert session is not None and not session.has_ticket and session.id
    with Wire(secure.address, tls=client, session=session) as wire:
        assert wire.tls.session_reused


def test_alpn_chooses_http_1_1(secure: Probe) -> None:
    assert "ALPN protocol: http/1.1" in s_client(secure, "-alpn", "h2,http/1.1")
    assert "No ALPN negotiated" in s_client(secure)


def test_old_versions_are_refused(secure: Probe) -> None:
    for version in ("-tls1", "-tls1_1"):
        assert "Cipher is (NONE)" in s_client(secure, version, "-cipher", "DEFAULT@SECLEVEL=0")
    for version, name in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
        assert f"New, {name}" in s_client(secure, version)


def test_renegotiation_is_refused(secure: Probe) -> None:
    said = s_client(secure, "-tls1_2", send=b"R\n")
    assert "no renegotiation" in said.partition("RENEGOTIATING")[2]
    assert fetch_over(secure) == 200


def test_key_update_of_tls_1_3_is_answered(secure: Probe) -> None:
    """`K` makes s_client change its keys and ask the server to change its own."""
    ask = secure.request("echo", method="POST", body=b"after the update", headers=[("Connection", "close")])
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.server.port}", "-tls1_3"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0) as client:
        assert client.stdin is not None and client.stdout is not None
        said = b""

        def wait_for(text: bytes) -> None:
            nonlocal said
            while text not in said:
                data = client.stdout.read(65536) if client.stdout else b""
                assert data, said
                said += data

        wait_for(b"Verify return code")
        for _ in range(3):
            client.stdin.write(b"K\n")
            wait_for(b"KEYUPDATE")
            said = said.replace(b"KEYUPDATE", b"")
        client.stdin.write(ask)
        wait_for(b"after the update")


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_handshakes_that_are_broken_off_leave_nothing(authority: Authority, way: tuple[str, str]) -> None:
    """Every way of leaving, many times; then connections are what they were."""
    hello = client_hello()
    with start(authority, way) as server:
        for number in range(60):
            sock = socket.create_connection((server.host, server.port), DEADLINE)
            if number % 3:
                sock.sendall(hello[: 20 if number % 3 == 1 else len(hello)])
            sock.close()
        server.wait_for_stderr("TLS handshake failed: the client left")
        assert fetch_over(Probe(server, interface=way[0], tls=authority.client())) == 200


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def fetch_over(probe: Probe) -> int:
    return fetch(f"https://127.0.0.1:{probe.server.port}", headers={"X-Scenario": "echo"}).status


def test_plain_http_is_told_to_use_https(secure: Probe) -> None:
    with Wire(secure.address) as wire:
        wire.send(request("GET", "/"))
        response = wire.read_response()
        assert response.status == 400 and b"https://" in response.body and response.closes
        wire.expect_clean_end()


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_what_is_neither_is_closed(authority: Authority, way: tuple[str, str]) -> None:
    with start(authority, way) as server:  # of its own: after many failures in a short time such lines are left out
        with Wire((server.host, server.port)) as wire:
            wire.send(b"\x00\x01\x02\x03 nothing that anybody speaks")
            wire.read_rest()
        server.wait_for_stderr("TLS handshake failed: wrong version number")


def test_a_handshake_has_a_deadline(authority: Authority) -> None:
    with start(authority, ("wsgi", "descriptor"), "--timeout-ssl-handshake", "200ms") as server:
        for hello in (b"", client_hello()[:30]):
            with Wire((server.host, server.port)) as wire:
                wire.send(hello)
                wire.expect_end()
        server.wait_for_stderr("TLS handshake failed: it took too long")


def test_too_many_handshakes_in_progress_make_the_oldest_leave(authority: Authority) -> None:
    with start(authority, ("asgi", "descriptor"), "--limit-ssl-handshakes", "3", "--timeout-ssl-handshake", "1h") as server:
        idle = [Wire((server.host, server.port)) for _ in range(5)]
        for _ in range(3):  # although five do nothing and have an hour to do it
            assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200
        for wire in idle:
            wire.close()


def test_a_stop_does_not_wait_for_who_has_not_begun(authority: Authority) -> None:
    with start(authority, ("asgi", "descriptor"), "--timeout-ssl-handshake", "1h") as server:
        with Wire((server.host, server.port)) as silent:
            assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200  # so it has been accepted
            server.stop()
            silent.expect_end()


@counts_memory
def test_memory_does_not_grow_with_connections(authority: Authority) -> None:
    """A debug build counts what is alive at the end; here it is the resident memory."""
    with start(authority, ("wsgi", "descriptor"), "--threads", "1") as server:

        def resident() -> int:
            return int(Path(f"/proc/{server.pid}/status").read_text().split("VmRSS:")[1].split()[0])

        def leave_in_the_middle(times: int) -> None:
            hello = client_hello()
            for _ in range(times):
                with socket.create_connection((server.host, server.port), DEADLINE) as sock:
                    sock.sendall(hello)
                    sock.recv(1)

        leave_in_the_middle(200)
        assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200  # behind all of them, on the one thread
        before = resident()
        leave_in_the_middle(600)
        assert fetch(server.url, headers={"X-Scenario": "echo"}).status == 200
        assert resident() - before < 3000  # KiB; 600 leaked handshakes would be 30 MB
