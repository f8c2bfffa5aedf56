"""Behind a proxy: what applications on both interfaces see of X-Forwarded-*, Forwarded, the PROXY protocol and root paths."""

from __future__ import annotations

import ast
import http.client
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.probe import Probe
from support.process import ServerProcess
from support.proxy_protocol import tlv, v1, v2
from support.wire import Wire, request

APPS = Path(__file__).parent / "apps"
TARGETS = {"wsgi": "wsgi_probe:application", "asgi": "asgi_probe:application"}
CLIENT = ("203.0.113.9", 4711)
FRONT = ("198.51.100.1", 8443)

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Seen:
    """The same facts out of a scope or an environ."""

    client: tuple[str, int] | None
    scheme: str
    server: tuple[str, int | None]
    host: str
    root_path: str
    path: str
    fields: dict[str, str]


def seen_by(interface: str, told: dict[str, Any]) -> Seen:
    if interface == "asgi":
        headers = {name.decode(): value.decode("latin-1") for name, value in told["headers"]}
        client = tuple(told["client"]) if told["client"] else None
        server, scheme, root_path, path = tuple(told["server"]), told["scheme"], told["root_path"], told["path"]
    else:
        headers = {key[5:].lower().replace("_", "-"): value for key, value in told.items() if key.startswith("HTTP_")}
        client = (told["REMOTE_ADDR"], int(told["REMOTE_PORT"])) if told["REMOTE_ADDR"] else None
        server, scheme = (told["SERVER_NAME"], int(told["SERVER_PORT"])), told["wsgi.url_scheme"]
        root_path, path = told["SCRIPT_NAME"], told["PATH_INFO"]
        assert told.get("HTTPS", "off") == ("on" if scheme == "https" else "off")
    return Seen(client, scheme, server, headers.get("host", ""), root_path, path, headers)


class Front:
    """A started probe of either interface, and what it sees of a request."""

    def __init__(self, interface: str, server: ServerProcess, address: Any) -> None:
        self.interface = interface
        self.server = server
        self.address = address

    def send(self, headers: Headers, target: str = "/", version: str = "1.1", host: str | None = "test") -> bytes:
        return request("GET", target, headers, version=version, host=host)

    def see(self, *headers: tuple[str, str], target: str = "/", before: bytes = b"", **more: Any) -> Seen:
        with Wire(self.address) as wire:
            wire.send(before + self.send(list(headers), target, **more))
            return self.read(wire)

    def read(self, wire: Wire) -> Seen:
        response = wire.read_response()
        assert response.status == 200, response
        return seen_by(self.interface, ast.literal_eval(response.text))

    def is_closed_after(self, data: bytes) -> bool:
        """Whether the connection ends without an answer."""
        with Wire(self.address) as wire:
            wire.send(data)
            try:
                return wire.socket.recv(1000) == b""
            except ConnectionResetError:
                return True


Start = Callable[..., Front]


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[..., ServerProcess]]:
    """One server for each set of options, for all tests of the module: none of them changes it."""
    with ExitStack() as running:
        started: dict[tuple[str, ...], ServerProcess] = {}

        def start(*options: str) -> ServerProcess:
            if options not in started:
                started[options] = running.enter_context(ServerProcess(options, cwd=APPS))
            return started[options]

        yield start


@pytest.fixture(params=["wsgi", "asgi"])
def start(request: pytest.FixtureRequest, servers: Callable[..., ServerProcess]) -> Start:
    """`start("--root-path", "/api")`: a probe of each interface in turn."""

    def front(*options: str, uds: Path | None = None) -> Front:
        arguments = [TARGETS[request.param], "--interface", request.param, *options]
        if uds is not None:
            arguments += ["--uds", str(uds)]
        server = servers(*arguments)
        return Front(request.param, server, str(uds) if uds is not None else (server.host, server.port))

    return front


# Fields


def test_client_and_scheme_of_a_local_proxy_are_believed_by_default(start: Start) -> None:
    front = start()
    seen = front.see(("X-Forwarded-For", "198.51.100.7, 203.0.113.9"), ("X-Forwarded-Proto", "https"))
    assert (seen.client, seen.scheme) == (("203.0.113.9", 0), "https")
    assert seen.fields["x-forwarded-for"] == "198.51.100.7, 203.0.113.9"


def test_other_parser_marks_the_fields_as_well(start: Start) -> None:
    seen = start("--http", "httptools").see(("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"))
    assert (seen.client, seen.scheme) == (("203.0.113.9", 0), "https")


def test_host_port_and_prefix_are_not_believed_by_default(start: Start) -> None:
    """nginx passes them on from whoever has sent them, unless it is told otherwise."""
    front = start()
    seen = front.see(("X-Forwarded-Host", "evil.test"), ("X-Forwarded-Port", "1"), ("X-Forwarded-Prefix", "/evil"))
    assert (seen.host, seen.server, seen.root_path) == ("test", (front.server.host, front.server.port), "")
    assert seen.fields["x-forwarded-host"] == "evil.test"


def test_all_of_the_family_is_believed_when_it_is_asked_for(start: Start) -> None:
    front = start("--proxy-headers")
    seen = front.see(
        ("X-Forwarded-For", "203.0.113.9:4711"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "example.org"),
        ("X-Forwarded-Port", "8443"), ("X-Forwarded-Prefix", "/shop/"), target="/cart",
    )  # fmt: skip
    assert seen.client == CLIENT
    assert (seen.scheme, seen.server, seen.host) == ("https", ("example.org", 8443), "example.org:8443")
    assert (seen.root_path, seen.path) == ("/shop", "/shop/cart" if front.interface == "asgi" else "/cart")


def test_prefix_of_a_proxy_replaces_the_root_path(start: Start) -> None:
    front = start("--proxy-headers", "x-forwarded", "--root-path", "/api")
    prefix = "" if front.interface == "wsgi" else "/shop"
    assert front.see(("X-Forwarded-Prefix", "/shop"), target="/a").path == f"{prefix}/a"
    assert front.see(("X-Forwarded-Prefix", "/shop"), target="/a").root_path == "/shop"
    assert front.see(("X-Forwarded-Prefix", "/"), target="/a").root_path == ""
    assert front.see(target="/a").root_path == "/api"


def test_nothing_of_one_request_stays_for_the_next(start: Start) -> None:
    front = start("--proxy-headers", "x-forwarded")
    with Wire(front.address) as wire:
        told = {"For": "203.0.113.9", "Proto": "https", "Host": "a.test:1", "Prefix": "/p"}
        wire.send(front.send([(f"X-Forwarded-{name}", value) for name, value in told.items()]))
        assert front.read(wire).client == ("203.0.113.9", 0)
        wire.send(front.send([]))
        seen = front.read(wire)
        assert seen.client == ("127.0.0.1", wire.socket.getsockname()[1])
        assert (seen.scheme, seen.host, seen.root_path) == ("http", "test", "")
        assert seen.server == (front.server.host, front.server.port)
        wire.send(front.send([("X-Forwarded-For", "2001:db8::9")]))
        assert front.read(wire).client == ("2001:db8::9", 0)


def test_first_request_of_a_server_leaves_no_traces_in_later_ones() -> None:
    for interface, target in TARGETS.items():
        with ServerProcess([target, "--interface", interface, "--proxy-headers"], cwd=APPS) as server:
            front = Front(interface, server, (server.host, server.port))
            front.see(("X-Forwarded-Host", "a.test:1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Prefix", "/p"))
            seen = front.see()
            assert (seen.server, seen.scheme, seen.root_path) == ((server.host, server.port), "http", "")


def test_peer_that_is_not_trusted_is_not_believed(start: Start) -> None:
    front = start("--proxy-headers", "x-forwarded", "--forwarded-allow-ips", "127.0.0.2, 10.0.0.0/8")
    with Wire(front.address) as wire:
        told = {"For": "203.0.113.9", "Proto": "https", "Host": "evil.test", "Port": "1", "Prefix": "/evil"}
        wire.send(front.send([(f"X-Forwarded-{name}", value) for name, value in told.items()]))
        seen = front.read(wire)
        assert seen.client == ("127.0.0.1", wire.socket.getsockname()[1])
    assert (seen.scheme, seen.host, seen.root_path, seen.server[1]) == ("http", "test", "", front.server.port)
    assert seen.fields["x-forwarded-for"] == "203.0.113.9"


def test_off_believes_nothing(start: Start) -> None:
    seen = start("--no-proxy-headers").see(("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.9;proto=https"))
    assert seen.client is not None and seen.client[0] == "127.0.0.1"
    assert seen.scheme == "http"


def test_forwarded_is_another_family(start: Start) -> None:
    front = start("--proxy-headers", "forwarded")
    told = 'for="[2001:db8::9]:4711";proto=https;host="example.org:8443"'
    seen = front.see(("X-Forwarded-For", "198.51.100.7"), ("Forwarded", told), ("X-Forwarded-Host", "evil.test"))
    assert seen.client == ("2001:db8::9", 4711)
    assert (seen.scheme, seen.host, seen.server) == ("https", "example.org:8443", ("example.org", 8443))
    assert front.see(("X-Forwarded-For", "198.51.100.7")).client != ("198.51.100.7", 0)
    assert start().see(("Forwarded", told)).client != ("2001:db8::9", 4711)


def test_hidden_client_is_nobody_and_never_the_proxy(start: Start) -> None:
    front = start("--proxy-headers", "forwarded")
    assert front.see(("Forwarded", "for=_hidden")).client is None
    assert front.see(("Forwarded", 'for="nonsense')).client is None
    assert start().see(("X-Forwarded-For", "unknown")).client is None


def test_misspelt_names_say_nothing(start: Start) -> None:
    seen = start().see(("X_Forwarded_For", "203.0.113.9"), ("X-Forwarded_Proto", "https"))
    assert seen.client is not None and seen.client[0] == "127.0.0.1"
    assert seen.scheme == "http"
    assert "x-forwarded-for" not in seen.fields


def test_star_trusts_every_peer_and_unix_those_on_unix_sockets(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    told = ("X-Forwarded-For", "198.51.100.7, 203.0.113.9")
    assert start("--forwarded-allow-ips", "*").see(told).client == ("198.51.100.7", 0)
    folder = tmp_path_factory.mktemp("sockets")
    assert start(uds=folder / "default").see(told).client == ("203.0.113.9", 0)
    assert start("--forwarded-allow-ips", "127.0.0.1", uds=folder / "other").see(told).client is None
    assert start("--forwarded-allow-ips", "unix", uds=folder / "only").see(told).client == ("203.0.113.9", 0)


def test_trust_of_all_servers_comes_from_the_environment() -> None:
    options = [TARGETS["wsgi"], "--interface", "wsgi"]
    with ServerProcess(options, cwd=APPS, env={"FORWARDED_ALLOW_IPS": "192.0.2.1"}) as server:
        seen = Front("wsgi", server, (server.host, server.port)).see(("X-Forwarded-For", "203.0.113.9"))
        assert seen.client is not None and seen.client[0] == "127.0.0.1"


def test_host_of_a_proxy_goes_before_that_of_the_target(start: Start) -> None:
    front = start("--proxy-headers", "x-forwarded")
    told = ("X-Forwarded-Host", "example.org")
    assert front.see(told, target="http://other.test/").host == "example.org"
    assert front.see(told, version="1.0", host=None).host == "example.org"
    assert front.see(version="1.0", host=None, target="http://other.test/").host == "other.test"


def test_access_log_and_refusals_name_the_forwarded_client(start: Start) -> None:
    front = start("--access-log", "--limit-request-body", "1000")
    front.see(("X-Forwarded-For", "203.0.113.77"), target="/who")
    front.server.wait_for_stdout("/who")
    line = next(line for line in front.server.stdout_text().splitlines() if "/who" in line)
    assert line.startswith("203.0.113.77 - - [")
    front.see(("X-Forwarded-For", "unknown"), target="/nobody")
    front.server.wait_for_stdout("/nobody")
    assert next(line for line in front.server.stdout_text().splitlines() if "/nobody" in line).startswith("- - - [")


# Root path modes


@pytest.mark.parametrize(
    ("mode", "target", "asgi", "wsgi"),
    [
        ("prefix", "/items", ("/api", "/api/items"), ("/api", "/items")),
        ("prefix", "/api/items", ("/api", "/api/api/items"), ("/api", "/api/items")),
        ("set", "/api/items", ("/api", "/api/items"), ("/api", "/items")),
        ("set", "/api", ("/api", "/api"), ("/api", "")),
        ("set", "/health", ("/api", "/health"), ("", "/health")),
        ("strip", "/api/items", ("/api", "/items"), ("/api", "/items")),
        ("strip", "/api/", ("/api", "/"), ("/api", "/")),
        ("strip", "/api", ("/api", "/"), ("/api", "")),
        ("strip", "/apiary", ("", "/apiary"), ("", "/apiary")),
        ("strip", "/health", ("", "/health"), ("", "/health")),
        ("strip", "/%61pi/a%20b", ("/api", "/a b"), ("/api", "/a b")),
    ],
)
def test_root_path_mode_says_what_requests_come_with(
    start: Start, mode: str, target: str, asgi: tuple[str, str], wsgi: tuple[str, str]
) -> None:
    front = start("--root-path", "/api/", "--root-path-mode", mode)
    seen = front.see(target=target)
    assert (seen.root_path, seen.path) == (asgi if front.interface == "asgi" else wsgi)


def test_raw_path_is_what_came_in_every_mode(servers: Callable[..., ServerProcess]) -> None:
    for mode in ("prefix", "set", "strip"):
        options = (TARGETS["asgi"], "--interface", "asgi", "--root-path", "/api/", "--root-path-mode", mode)
        assert Probe(servers(*options)).value("show_scope", target="/api/a%20b?c")["raw_path"] == b"/api/a%20b"


@pytest.mark.parametrize("mode", ["prefix", "set", "strip"])
def test_asterisk_is_below_no_prefix(start: Start, mode: str) -> None:
    front = start("--root-path", "/api/", "--root-path-mode", mode)
    with Wire(front.address) as wire:
        wire.send(request("OPTIONS", "*"))
        assert front.read(wire).path == "*"


@pytest.mark.parametrize("mode", ["prefix", "set", "strip"])
def test_start_shows_at_debug_level_what_the_application_will_see(start: Start, mode: str) -> None:
    front = start("--root-path", "/api", "--root-path-mode", mode, "--log-level", "debug")
    found = re.search(
        rf"root path mode {mode}: a request for (\S+) reaches the application with \w+ '(.*)', \w+ '(.*)'",
        front.server.stderr_text(),
    )
    assert found is not None
    seen = front.see(target=found[1])
    assert (seen.root_path, seen.path) == (found[2], found[3])


# The PROXY protocol


@pytest.mark.parametrize("mode", ["v1", "v2", "auto"])
def test_header_names_client_and_server(start: Start, mode: str) -> None:
    front = start("--proxy-protocol", mode)
    for version, header in (("v1", v1(CLIENT, FRONT)), ("v2", v2(CLIENT, FRONT, tlv(5, b"id")))):
        if mode in (version, "auto"):
            seen = front.see(before=header)
            assert (seen.client, seen.server, seen.scheme) == (CLIENT, FRONT, "http")


def test_bare_option_accepts_both_versions_and_ipv6(start: Start) -> None:
    front = start("--proxy-protocol")
    client, server = ("2001:db8::9", 4711), ("2001:db8::1", 443)
    for header in (v1(client, server), v2(client, server)):
        seen = front.see(before=header)
        assert (seen.client, seen.server) == (client, server)


def test_all_requests_of_a_connection_are_its_clients(start: Start) -> None:
    front = start("--proxy-protocol")
    with Wire(front.address) as wire:
        wire.send(v2(CLIENT, FRONT) + front.send([]) + front.send([]))
        assert front.read(wire).client == front.read(wire).client == CLIENT
        wire.send(front.send([]))
        assert front.read(wire).client == CLIENT


def test_tls_of_the_client_is_told_by_the_header(start: Start) -> None:
    front = start("--proxy-protocol")
    assert front.see(before=v2(CLIENT, FRONT, tlv(0x20, b"\x01\0\0\0\0"))).scheme == "https"
    assert front.see(before=v2(CLIENT, FRONT, tlv(0x20, b"\0\0\0\0\0"))).scheme == "http"


def test_header_that_names_nobody_leaves_the_peer(start: Start) -> None:
    front = start("--proxy-protocol")
    for header in (v2(command=0), v2(), b"PROXY UNKNOWN\r\n"):
        seen = front.see(before=header)
        assert seen.client is not None and seen.client[0] == "127.0.0.1"
        assert seen.server == (front.server.host, front.server.port)
    assert front.see(before=v2("/a", "/b")).client is None


@pytest.mark.parametrize("header", [v1(CLIENT, FRONT), v2(CLIENT, FRONT, tlv(0xEA, bytes(40)))], ids=["v1", "v2"])
def test_header_may_come_in_any_pieces(start: Start, header: bytes) -> None:
    front = start("--proxy-protocol")
    data = header + front.send([])
    with Wire(front.address) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(data)):
            wire.send(data[place : place + 1])
        assert front.read(wire).client == CLIENT


def test_connection_without_a_header_is_closed_with_one_line(start: Start) -> None:
    front = start("--proxy-protocol", "v2", "--log-level", "info")
    assert front.is_closed_after(front.send([]))
    front.server.wait_for_stderr("127.0.0.1: connection refused: no PROXY header\n")
    assert front.is_closed_after(v1(CLIENT, FRONT) + front.send([]))
    front.server.wait_for_stderr("127.0.0.1: connection refused: a PROXY header of version 1, which is not accepted here\n")
    assert front.server.stderr_text().count("connection refused") == 2


def test_header_that_breaks_off_is_told_and_silence_is_not(start: Start) -> None:
    front = start("--proxy-protocol", "v2", "--log-level", "info", "--no-access-log")
    with Wire(front.address) as wire:
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.socket.recv(10) == b""
    with Wire(front.address) as wire:
        wire.send(v2(CLIENT, FRONT)[:20])
        wire.socket.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # what it has sent was never read
            assert wire.socket.recv(10) == b""
    front.server.wait_for_stderr("connection refused: the PROXY header breaks off\n")
    assert front.server.stderr_text().count("connection refused") == 1


def test_header_has_the_time_of_a_request_head(start: Start) -> None:
    front = start("--proxy-protocol", "--timeout-request-headers", "0.2")
    assert front.is_closed_after(v2(CLIENT, FRONT)[:20])
    front.server.wait_for_stderr("connection refused: the PROXY header took too long\n")


def test_peer_that_may_not_speak_it_is_refused(start: Start) -> None:
    front = start("--proxy-protocol", "--proxy-allow-from", "127.0.0.2")
    assert front.is_closed_after(v2(CLIENT, FRONT) + front.send([]))
    front.server.wait_for_stderr("127.0.0.1: connection refused: this peer is not one that may speak the PROXY protocol")


def test_without_the_option_a_header_is_a_bad_request(start: Start) -> None:
    front = start()
    with Wire(front.address) as wire:
        wire.send(v1(CLIENT, FRONT) + front.send([]))
        assert wire.read_response().status == 400


def test_forwarded_fields_are_believed_of_whom_the_header_names_and_not_of_its_carrier(start: Start) -> None:
    """A proxy that passes on connections as they are passes on what a client has written as well."""
    told = ("X-Forwarded-For", "198.51.100.7")
    front = start("--proxy-protocol")
    assert front.see(told, before=v2(CLIENT, FRONT)).client == CLIENT
    assert front.see(told, before=v2(("127.0.0.1", 5), FRONT)).client == ("198.51.100.7", 0)
    assert front.see(told, before=v2(command=0)).client == ("198.51.100.7", 0)
    seen = front.see(told, before=v2())
    assert seen.client is not None and seen.client[0] == "127.0.0.1"
    front = start("--proxy-protocol", "--forwarded-allow-ips", "203.0.113.0/24")
    assert front.see(told, before=v2(CLIENT, FRONT)).client == ("198.51.100.7", 0)


def test_header_on_a_unix_socket_names_client_and_server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    front = start("--proxy-protocol", uds=tmp_path_factory.mktemp("sockets") / "proxied")
    seen = front.see(before=v2(CLIENT, FRONT))
    assert (seen.client, seen.server) == (CLIENT, FRONT)
    assert front.see(before=v2(command=0)).client is None


def test_access_log_names_the_client_of_the_header(start: Start) -> None:
    front = start("--proxy-protocol", "--access-log")
    front.see(before=v2(("203.0.113.78", 1), FRONT), target="/who")
    front.server.wait_for_stdout("203.0.113.78 - - [")


def test_stop_does_not_wait_for_headers_that_do_not_come() -> None:
    for interface, target in TARGETS.items():
        with ServerProcess([target, "--interface", interface, "--proxy-protocol"], cwd=APPS) as server:
            waiting = Wire((server.host, server.port))
            waiting.send(v2(CLIENT, FRONT)[:20])
            Front(interface, server, (server.host, server.port)).see(before=v2(CLIENT, FRONT))
            server.stop()
            waiting.socket.close()


# With TLS behind the header


def secured(authority: Authority, interface: str, io: str) -> ServerProcess:
    options = ["--interface", interface, "--ssl-io", io, "--proxy-protocol", "v2", *authority.options("localhost")]
    return ServerProcess([TARGETS[interface], *options], cwd=APPS)


@pytest.mark.parametrize("io", ["descriptor", "memory"])
@pytest.mark.parametrize("interface", TARGETS)
def test_header_comes_before_tls(authority: Authority, interface: str, io: str) -> None:
    header = v2(CLIENT, FRONT, tlv(0xEA, bytes(100)))
    with secured(authority, interface, io) as server:
        for cuts in ([], [1], [12, 16, 50], range(1, len(header))):
            with socket.create_connection((server.host, server.port), 30) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                places = [0, *cuts, len(header)]
                for start, end in zip(places, places[1:], strict=False):
                    # The last piece and the first bytes of the handshake leave in one segment where the system can do that.
                    plain.sendall(header[start:end], getattr(socket, "MSG_MORE", 0) if end == len(header) else 0)
                with authority.client().wrap_socket(plain, server_hostname="localhost") as sock:
                    for _ in range(3):
                        sock.sendall(request())
                        answer = http.client.HTTPResponse(sock)
                        answer.begin()
                        seen = seen_by(interface, ast.literal_eval(answer.read().decode()))
                        assert (seen.client, seen.server, seen.scheme) == (CLIENT, FRONT, "https")


@pytest.mark.parametrize("interface", TARGETS)
def test_handshake_without_a_header_is_refused(authority: Authority, interface: str) -> None:
    with secured(authority, interface, "descriptor") as server:
        with socket.create_connection((server.host, server.port), 30) as plain, pytest.raises(OSError):
            authority.client().wrap_socket(plain, server_hostname="localhost")
        server.wait_for_stderr("127.0.0.1: connection refused: no PROXY header\n")
        with socket.create_connection((server.host, server.port), 30) as plain:
            plain.sendall(v2(CLIENT, FRONT))
            with authority.client().wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(request())
                assert sock.recv(12) == b"HTTP/1.1 200"
