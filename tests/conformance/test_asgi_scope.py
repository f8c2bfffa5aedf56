"""ASGI 3.0, the scope of the HTTP protocol (2.5): what the application is told about a request."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import pytest
from support.probe import Probe, StartProbe, literal
from support.wire import request


def scope_of(probe: Probe, data: bytes) -> dict[str, Any]:
    """The scope of a request given as bytes."""
    with probe.connect() as wire:
        wire.send(data)
        response = wire.read_response()
    assert response.status == 200, response
    scope: dict[str, Any] = literal(response)
    return scope


def test_scope_of_a_plain_request_has_every_key_in_its_type(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(request(target="/a/b?c=d&e"))
        scope = literal(wire.read_response())
        client_port = wire.socket.getsockname()[1]
    assert scope["type"] == "http"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"]["spec_version"] in ("2.3", "2.4", "2.5")
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/a/b"
    assert scope["raw_path"] == b"/a/b"
    assert scope["query_string"] == b"c=d&e"
    assert scope["root_path"] == ""
    assert [tuple(pair) for pair in scope["headers"]] == [(b"host", b"test")]
    assert list(scope["client"]) == ["127.0.0.1", client_port]
    assert list(scope["server"]) == ["127.0.0.1", asgi.server.port]
    assert type(scope["client"][1]) is int and type(scope["server"][1]) is int


def test_scope_is_a_real_dict_with_str_keys_and_bytes_fields(asgi: Probe) -> None:
    types = asgi.value("show_exact_types", headers=[("A", "b")])
    assert types == {"scope": "dict", "asgi": "dict", "keys": ["str"], "fields": ["bytes"]}


def test_spec_version_announces_the_errors_of_send_after_disconnect(asgi: Probe) -> None:
    """2.4 is where send() began to raise OSError: a server that raises must say at least that."""
    assert tuple(map(int, scope_of(asgi, request())["asgi"]["spec_version"].split("."))) >= (2, 4)


@pytest.mark.parametrize("version, told", [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.1"), ("1.9", "1.1")])
def test_http_version_is_the_one_served(asgi: Probe, version: str, told: str) -> None:
    assert scope_of(asgi, request(version=version))["http_version"] == told


@pytest.mark.parametrize("method", ["GET", "DELETE", "PURGE", "M-SEARCH", "QUERY", "get", "Post", "!#$%&'*+-.^_`|~"])
def test_method_is_passed_on_as_it_came(asgi: Probe, method: str) -> None:
    assert scope_of(asgi, request(method))["method"] == method


@pytest.mark.parametrize(
    "target, path",
    [
        ("/", "/"),
        ("/a%20b", "/a b"),
        ("/a+b", "/a+b"),
        ("/caf%C3%A9", "/café"),
        ("/a%2Fb%2fc", "/a/b/c"),
        ("/a%00b", "/a\0b"),
        ("/%25", "/%"),
        ("/%2525", "/%25"),
        ("/%", "/%"),
        ("/%4", "/%4"),
        ("/%zz%41", "/%zzA"),
        ("//double//slash", "//double//slash"),
        ("/./a/../b", "/./a/../b"),
        ("/a\\b", "/a\\b"),
        ("/a;b=c", "/a;b=c"),
        ("/%F0%9F%A6%86", "/\N{DUCK}"),
    ],
)
def test_path_is_decoded_once_and_not_normalised(asgi: Probe, target: str, path: str) -> None:
    scope = scope_of(asgi, request(target=target))
    assert scope["path"] == path
    assert scope["raw_path"] == target.encode()
    assert scope["query_string"] == b""


@pytest.mark.parametrize("target", [b"/%ff", b"/a%C3", b"/%C3%28", b"/%ED%A0%80", b"/caf\xc3\xa9", b"/\xff\xfe"])
def test_path_that_is_not_utf8_or_not_ascii_does_no_harm(asgi: Probe, target: bytes) -> None:
    scope = scope_of(asgi, request(target=target))
    assert type(scope["path"]) is str
    assert scope["path"].startswith("/")
    assert scope["raw_path"] == target


@pytest.mark.parametrize(
    "target, path, query",
    [
        ("/?", "/", b""),
        ("/?a=b", "/", b"a=b"),
        ("/?a=%20%ff+", "/", b"a=%20%ff+"),
        ("/?a?b?c", "/", b"a?b?c"),
        ("/a%3Fb?c", "/a?b", b"c"),
        ("/??", "/", b"?"),
    ],
)
def test_query_string_is_everything_after_the_first_question_mark(asgi: Probe, target: str, path: str, query: bytes) -> None:
    scope = scope_of(asgi, request(target=target))
    assert scope["path"] == path
    assert scope["query_string"] == query
    assert scope["raw_path"] == target.encode().partition(b"?")[0]


def test_query_string_keeps_bytes_over_7f(asgi: Probe) -> None:
    assert scope_of(asgi, request(target=b"/?a=\xc3\xa9\xff"))["query_string"] == b"a=\xc3\xa9\xff"


@pytest.mark.parametrize(
    "target", ["http://other.example:81/a%20b?c=d", "HTTP://other.example:81/a%20b?c=d", "https://other.example:81/a%20b?c=d"]
)
def test_absolute_form_gives_path_and_query_and_replaces_host(asgi: Probe, target: str) -> None:
    """RFC 9112 3.2.2: the authority of the target wins over the Host field."""
    scope = scope_of(asgi, request(target=target))
    assert scope["path"] == "/a b"
    assert scope["query_string"] == b"c=d"
    assert scope["scheme"] == "http"  # what the client writes does not make the connection encrypted
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"other.example:81"]


def test_absolute_form_without_path_means_the_root(asgi: Probe) -> None:
    assert scope_of(asgi, request(target="http://other.example"))["path"] == "/"
    scope = scope_of(asgi, request(target="http://other.example?a=b"))
    assert (scope["path"], scope["query_string"]) == ("/", b"a=b")


def test_asterisk_form_is_the_path_of_an_options_request(asgi: Probe) -> None:
    scope = scope_of(asgi, request("OPTIONS", "*"))
    assert scope["path"] == "*"
    assert scope["query_string"] == b""


def test_header_order_and_duplicates_are_kept_and_names_are_lower_case(asgi: Probe) -> None:
    sent = [("Accept", "a"), ("X-B", "1"), ("accept", "b"), ("X-Unused", ""), ("x-b", "2"), ("COOKIE", "c=d")]
    scope = scope_of(asgi, request(headers=sent))
    assert [tuple(pair) for pair in scope["headers"]] == [
        (b"host", b"test"),
        (b"accept", b"a"),
        (b"x-b", b"1"),
        (b"accept", b"b"),
        (b"x-unused", b""),
        (b"x-b", b"2"),
        (b"cookie", b"c=d"),
    ]


def test_header_values_are_exact_bytes_with_blanks_trimmed_at_the_ends(asgi: Probe) -> None:
    head = b'GET / HTTP/1.1\r\nHost: test\r\nX-A: \t a \t b\x80\xa0\xff" \t \r\nX-B:c\r\nX-C:   \r\n\r\n'
    headers = dict(map(tuple, scope_of(asgi, head)["headers"]))
    assert headers[b"x-a"] == b'a \t b\x80\xa0\xff"'
    assert headers[b"x-b"] == b"c"
    assert headers[b"x-c"] == b""


def test_framing_fields_are_left_as_received(asgi: Probe) -> None:
    fields = [("Connection", "Keep-Alive, X-Other"), ("X-Other", "1"), ("Transfer-Encoding", "chunked")]
    with asgi.connect() as wire:
        wire.send(request("POST", headers=fields) + b"0\r\n\r\n")
        headers = dict(map(tuple, literal(wire.read_response())["headers"]))
    assert headers[b"connection"] == b"Keep-Alive, X-Other"
    assert headers[b"x-other"] == b"1"
    assert headers[b"transfer-encoding"] == b"chunked"
    assert dict(map(tuple, scope_of(asgi, request("POST", body=b"ab"))["headers"]))[b"content-length"] == b"2"


def test_names_with_underscores_are_dropped(asgi: Probe) -> None:
    """X_Real_Ip and X-Real-Ip are one name to everything that speaks CGI; only one of them is real."""
    scope = scope_of(asgi, request(headers=[("X_Real_Ip", "forged"), ("X-Real-Ip", "true"), ("Content_Length", "9")]))
    assert [tuple(pair) for pair in scope["headers"]] == [(b"host", b"test"), (b"x-real-ip", b"true")]


def test_proxy_headers_from_a_stranger_change_neither_scheme_nor_client(start_asgi: StartProbe) -> None:
    asgi = start_asgi("--forwarded-allow-ips", "192.0.2.1")
    forged = [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1;proto=https")]
    scope = scope_of(asgi, request(headers=forged))
    assert scope["scheme"] == "http"
    assert scope["client"][0] == "127.0.0.1"


def test_extensions_are_those_of_a_plain_http11_connection(asgi: Probe) -> None:
    extensions = scope_of(asgi, request(headers=[("TE", "trailers"), ("Connection", "TE")]))["extensions"]
    assert set(extensions) == {
        "http.response.pathsend",
        "http.response.zerocopysend",
        "http.response.trailers",
        "http.response.early_hint",
    }
    assert all(type(value) is dict for value in extensions.values())


def test_extensions_that_http10_cannot_carry_are_not_offered(asgi: Probe) -> None:
    extensions = scope_of(asgi, request(version="1.0", headers=[("TE", "trailers")]))["extensions"]
    assert "http.response.trailers" not in extensions  # there is no chunked coding to put them behind
    assert "http.response.early_hint" not in extensions  # RFC 9110 15.2: no 1xx to an HTTP/1.0 client
    assert {"http.response.pathsend", "http.response.zerocopysend"} <= set(extensions)


def test_each_request_has_a_scope_of_its_own(asgi: Probe) -> None:
    """Middleware changes scopes: nothing of that may reach the next request of the same connection."""
    with asgi.connect() as wire:
        wire.send(asgi.request("spoil_scope"))
        before = literal(wire.read_response())
        wire.send(asgi.request("spoil_scope"))
        after = literal(wire.read_response())
    before["state"].pop("shared")
    after["state"].pop("shared")
    assert after == before
    assert "spoiled" not in repr(after)


def test_state_is_a_shallow_copy_per_request(asgi: Probe) -> None:
    first = asgi.value("spoil_scope")
    second = asgi.value("spoil_scope")
    assert first["state"]["number"] == second["state"]["number"] == 1
    assert second["state"]["shared"] == [*first["state"]["shared"], "seen by all"]


def test_state_is_absent_without_lifespan(start_asgi: StartProbe) -> None:
    assert "state" not in start_asgi("--lifespan", "off").value("show_scope")


@pytest.mark.parametrize("given", ["/api", "/api/"])
def test_root_path_is_prefixed_to_the_path_but_not_to_raw_path(start_asgi: StartProbe, given: str) -> None:
    """path includes root_path, so that path minus root_path is what WSGI calls PATH_INFO."""
    probe = start_asgi("--root-path", given)
    scope = probe.value("show_scope", target="/a%20b?c")
    assert scope["root_path"] == "/api"
    assert scope["path"] == "/api/a b"
    assert scope["raw_path"] == b"/a%20b"
    assert scope["query_string"] == b"c"


def test_unix_socket_has_its_path_as_server_and_no_client(start_asgi: StartProbe, tmp_path: Path) -> None:
    path = tmp_path / "duck.sock"
    scope = start_asgi(uds=path).value("show_scope")
    assert list(scope["server"]) == [str(path), None]
    assert scope["client"] is None
    assert scope["scheme"] == "http"


def test_ipv6_addresses_are_cut_to_host_and_port(start_asgi: StartProbe) -> None:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
            port = trial.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    start_asgi("--bind", f"[::1]:{port}")
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(request(headers=[("Connection", "close")]))
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    scope = ast.literal_eval(data.partition(b"\r\n\r\n")[2].decode())
    assert list(scope["server"]) == ["::1", port]
    assert scope["client"][0] == "::1" and type(scope["client"][1]) is int and len(scope["client"]) == 2


def test_asgi2_application_is_called_with_the_scope_first(start_asgi2: StartProbe) -> None:
    probe = start_asgi2("--interface", "asgi2")
    assert probe.value("show_scope", target="/two")["path"] == "/two"
    assert probe.ask("echo", method="POST", body=b"body").body == b"body"


def test_asgi2_application_is_recognised_by_inspection(start_asgi2: StartProbe) -> None:
    assert start_asgi2().value("show_scope", target="/two")["path"] == "/two"
