"""PEP 3333, the environ dictionary: CGI keys, wsgi.* keys, and what must not be in it."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import pytest
from support.probe import Probe, StartProbe, literal
from support.wire import chunked, request


def environ_of(probe: Probe, data: bytes) -> dict[str, Any]:
    """The plain values of the environ of a request given as bytes."""
    with probe.connect() as wire:
        wire.send(data)
        response = wire.read_response()
    assert response.status == 200, response
    environ: dict[str, Any] = literal(response)
    return environ


def test_environ_of_a_plain_request(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(request(target="/a/b?c=d&e"))
        environ = literal(wire.read_response())
        client_port = wire.socket.getsockname()[1]
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/a/b"
    assert environ["QUERY_STRING"] == "c=d&e"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(wsgi.server.port)
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert str(environ["REMOTE_PORT"]) == str(client_port)
    assert environ["HTTP_HOST"] == "test"
    assert environ["SERVER_SOFTWARE"].lower().startswith("duckfast")
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.input_terminated"] is True
    assert not environ.get("CONTENT_TYPE") and not environ.get("CONTENT_LENGTH")


def test_raw_target_is_kept_for_those_who_need_it(wsgi: Probe) -> None:
    environ = environ_of(wsgi, request(target="/a%2Fb?c=%20"))
    assert "/a%2Fb?c=%20" in (environ.get("RAW_URI"), environ.get("REQUEST_URI"))


def test_environ_is_an_exact_dict_of_native_latin1_strings(wsgi: Probe) -> None:
    data = request(target=b"/%ff\xfe?\xfd", headers=[("X-Scenario", "show_environ_types"), ("X-A", b"\xff")])
    assert environ_of(wsgi, data) == {
        "environ": "dict",
        "keys": ["str"],
        "cgi values": ["str"],
        "latin-1": True,
        "input": [True] * 4,
        "errors": [True] * 3,
        "file_wrapper": True,
    }


def test_multithread_tells_the_truth(start_wsgi: StartProbe) -> None:
    assert start_wsgi("--threads", "1").value("show_environ")["wsgi.multithread"] is False
    assert start_wsgi("--threads", "4").value("show_environ")["wsgi.multithread"] is True


def test_environment_of_the_process_is_not_in_it(start_wsgi: StartProbe) -> None:
    """A debug page that prints environ must not print the process's secrets."""
    environ = start_wsgi(env={"DATABASE_PASSWORD": "ducks", "HTTP_PROXY": "http://evil"}).value("show_environ")
    assert not {"DATABASE_PASSWORD", "HTTP_PROXY", "PATH", "HOME", "PYTHONPATH"} & set(environ)


def test_proxy_header_of_a_client_is_not_taken_for_the_environment_variable(wsgi: Probe) -> None:
    """httpoxy (CVE-2016-5385): `Proxy: x` would become HTTP_PROXY, which HTTP clients inside the app trust."""
    assert "HTTP_PROXY" not in environ_of(wsgi, request(headers=[("Proxy", "http://evil")]))


@pytest.mark.parametrize(
    "target, path",
    [
        (b"/", "/"),
        (b"/a%20b", "/a b"),
        (b"/a+b", "/a+b"),
        (b"/caf%C3%A9", "/caf\xc3\xa9"),
        (b"/%ff", "/\xff"),
        (b"/\xc3\xa9", "/\xc3\xa9"),
        (b"/a%2Fb", "/a/b"),
        (b"/%2525", "/%25"),
        (b"/%", "/%"),
        (b"/%4", "/%4"),
        (b"/%zz%41", "/%zzA"),
        (b"//double//slash", "//double//slash"),
        (b"/./a/../b", "/./a/../b"),
        (b"/a;b=c", "/a;b=c"),
        (b"/a%00b", "/a\0b"),
        (b"http://other.example/x%20y", "/x y"),
        (b"http://other.example", "/"),
    ],
)
def test_path_info_is_the_decoded_bytes_seen_as_latin1(wsgi: Probe, target: bytes, path: str) -> None:
    assert environ_of(wsgi, request(target=target))["PATH_INFO"] == path


@pytest.mark.parametrize(
    "target, query", [(b"/", ""), (b"/?", ""), (b"/?a=%20%ff+b", "a=%20%ff+b"), (b"/?a?b", "a?b"), (b"/?\xc3\xa9", "\xc3\xa9")]
)
def test_query_string_is_left_encoded(wsgi: Probe, target: bytes, query: str) -> None:
    assert environ_of(wsgi, request(target=target))["QUERY_STRING"] == query


def test_absolute_form_replaces_host(wsgi: Probe) -> None:
    assert environ_of(wsgi, request(target="http://other.example:81/"))["HTTP_HOST"] == "other.example:81"


def test_asterisk_form_is_the_path(wsgi: Probe) -> None:
    assert environ_of(wsgi, request("OPTIONS", "*"))["PATH_INFO"] == "*"


@pytest.mark.parametrize("version, told", [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("1.2", "HTTP/1.1")])
def test_server_protocol_is_the_version_served(wsgi: Probe, version: str, told: str) -> None:
    assert environ_of(wsgi, request(version=version))["SERVER_PROTOCOL"] == told


@pytest.mark.parametrize("method", ["DELETE", "PURGE", "M-SEARCH", "QUERY", "get"])
def test_method_is_passed_on_as_it_came(wsgi: Probe, method: str) -> None:
    assert environ_of(wsgi, request(method))["REQUEST_METHOD"] == method


@pytest.mark.parametrize("given", ["/api", "/api/"])
def test_root_path_is_script_name_and_not_part_of_path_info(start_wsgi: StartProbe, given: str) -> None:
    environ = start_wsgi("--root-path", given).value("show_environ", target="/a%20b")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/api", "/a b")


def test_content_type_and_length_have_no_http_prefix(wsgi: Probe) -> None:
    environ = environ_of(wsgi, request("POST", headers=[("Content-Type", "text/x; a=b")], body=b"1234"))
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x; a=b", "4")
    assert "HTTP_CONTENT_TYPE" not in environ and "HTTP_CONTENT_LENGTH" not in environ


def test_chunked_request_has_no_content_length_but_a_terminated_input(wsgi: Probe) -> None:
    environ = environ_of(wsgi, request("POST", headers=[("Transfer-Encoding", "chunked")]) + chunked(b"abc"))
    assert not environ.get("CONTENT_LENGTH")
    assert environ["wsgi.input_terminated"] is True


def test_repeated_headers_are_joined_and_cookies_with_a_semicolon(wsgi: Probe) -> None:
    fields = [("Accept", "a"), ("Cookie", "a=1"), ("accept", "b"), ("X-One", "1"), ("cookie", "b=2"), ("ACCEPT", "c")]
    environ = environ_of(wsgi, request(headers=fields))
    assert environ["HTTP_ACCEPT"].replace(", ", ",") == "a,b,c"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    assert environ["HTTP_X_ONE"] == "1"


def test_many_repetitions_are_joined_in_order(wsgi: Probe) -> None:
    environ = environ_of(wsgi, request(headers=[("X-Forwarded-For", str(number)) for number in range(50)]))
    assert environ["HTTP_X_FORWARDED_FOR"].replace(" ", "").split(",") == [str(number) for number in range(50)]


def test_header_values_are_latin1_and_trimmed(wsgi: Probe) -> None:
    data = b"GET / HTTP/1.1\r\nHost: test\r\nX-A: \t caf\xc3\xa9 \x80\xa0 \t\r\nX-B:\r\n\r\n"
    environ = environ_of(wsgi, data)
    assert environ["HTTP_X_A"] == "caf\xc3\xa9 \x80\xa0"
    assert environ["HTTP_X_B"] == ""


def test_names_with_underscores_are_dropped(wsgi: Probe) -> None:
    """X_Real_Ip and X-Real-Ip would be the same key: the forged one must not win or be joined."""
    environ = environ_of(wsgi, request(headers=[("X_Real_Ip", "forged"), ("X-Real-Ip", "true"), ("X_Only", "forged")]))
    assert environ["HTTP_X_REAL_IP"] == "true"
    assert "HTTP_X_ONLY" not in environ


def test_content_headers_with_underscores_do_not_replace_the_real_ones(wsgi: Probe) -> None:
    environ = environ_of(wsgi, request("POST", headers=[("Content_Length", "999"), ("Content_Type", "evil")], body=b"ab"))
    assert environ["CONTENT_LENGTH"] == "2"
    assert not environ.get("CONTENT_TYPE")


def test_each_request_has_a_dict_of_its_own(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        for _ in range(3):
            wire.send(wsgi.request("spoil_environ"))
            assert literal(wire.read_response()) is False


def test_errors_go_to_the_error_log(wsgi: Probe, key: str) -> None:
    assert wsgi.value("write_errors", key) == "ok"
    wsgi.server.wait_for_stderr(f"printed by {key}")
    said = wsgi.server.stderr_text()
    assert f"written by {key}" in said
    assert said.index(f"first line of {key}") < said.index(f"second line of {key}")


def test_unix_socket_has_an_empty_remote_address(start_wsgi: StartProbe, tmp_path: Path) -> None:
    environ = start_wsgi(uds=tmp_path / "duck.sock").value("show_environ")
    assert environ["REMOTE_ADDR"] == ""
    assert type(environ["SERVER_NAME"]) is str and environ["SERVER_NAME"]
    assert type(environ["SERVER_PORT"]) is str


def test_ipv6_client_and_server(start_wsgi: StartProbe) -> None:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
            port = trial.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    start_wsgi("--bind", f"[::1]:{port}")
    with socket.create_connection(("::1", port), timeout=10) as connection:
        connection.sendall(request(headers=[("Connection", "close")]))
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    environ = ast.literal_eval(data.partition(b"\r\n\r\n")[2].decode())
    assert environ["REMOTE_ADDR"] == "::1"
    assert environ["SERVER_NAME"] in ("::1", "[::1]")
    assert environ["SERVER_PORT"] == str(port)
