"""The names of the class API and their signatures, as its documentation lists them; the module is held against the table."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from duckfast import httpd

CONNECTION = "self, sock, addr"
REQUEST = "self, sock, addr, request_data"
SERVER = (
    "self, addr, application, domain=None, uses_ipv6=False, enable_ssl=False, ssl_params=None, no_logs=False, "
    "workers=None, force_worker_processes=False"
)

BASE_SERVER = {
    "__init__": SERVER,
    "accept_and_handle": "self",
    "async async_do_request_timeout": CONNECTION,
    "async async_handle_conn": f"{CONNECTION}, flowinfo=None, scopeid=None",
    "async async_handle_keep_alive_conn": CONNECTION,
    "async async_handle_request_data": REQUEST,
    "async async_process_data": REQUEST,
    "do_request_timeout": CONNECTION,
    "handle_conn": f"{CONNECTION}, flowinfo=None, scopeid=None",
    "handle_keep_alive_conn": CONNECTION,
    "handle_request_data": REQUEST,
    "process_data": REQUEST,
    "start_server": "self, on_server_start_fn=None",
    "start_server_loop": "self, interval_fn=None",
    "stop_server": "self, log_to_console=True, wait=True",
}
MICRO_SERVER = {
    "__init__": SERVER,
    "async async_handle_request_data": REQUEST,
    "handle_request_data": REQUEST,
    "set_microapp": "self, microapp",
}
PROPERTIES = ["running", "sock", "worker_processes", "worker_threads"]
FUNCTIONS = {"call_request_handling_executor": "task"}
OTHERS = {
    "RequestData.__init__": "self, headers, content=b''",
    "RawRequestData.__init__": "self, data",
    "xsocket.__init__": "self, raw_socket",
    "xsocket.send": "self, data, timeout=None",
    "xsocket.recv": "self, n=None, timeout=None",
    "xsocket.close": "self, shutdown=True",
    "async xsocket.async_send": "self, data, timeout=None",
    "async xsocket.async_recv": "self, n=None, timeout=None",
}


def signature(function: Any) -> str:
    """Names, order and defaults, without annotations."""
    found = inspect.signature(function).parameters.values()
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found]
    assert all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    return ", ".join(map(str, parameters))


def of_class(owner: str, methods: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (f"{'async ' if name.startswith('async ') else ''}{owner}.{name.removeprefix('async ')}", text)
        for name, text in methods.items()
    ]


CASES = [
    *of_class("BaseServer", BASE_SERVER),
    *of_class("BaseMicroServer", MICRO_SERVER),
    *FUNCTIONS.items(),
    *OTHERS.items(),
]


@pytest.mark.parametrize(("name", "text"), CASES, ids=[name.removeprefix("async ") for name, _ in CASES])
def test_signature_is_the_documented_one(name: str, text: str) -> None:
    found: Any = httpd
    for part in name.removeprefix("async ").split("."):
        found = getattr(found, part)
    assert signature(found) == text
    assert inspect.iscoroutinefunction(found) is name.startswith("async ")
    assert inspect.getdoc(found)


@pytest.mark.parametrize("name", PROPERTIES)
def test_facts_of_a_server_are_properties(name: str) -> None:
    assert isinstance(getattr(httpd.BaseServer, name), property)


def test_micro_server_is_a_server() -> None:
    assert httpd.BaseMicroServer.__mro__[1] is httpd.BaseServer


def test_constants_have_their_documented_kind() -> None:
    assert isinstance(httpd.KEEP_ALIVE_PATTERN, re.Pattern)
    assert httpd.KEEP_ALIVE_TIMEOUT == 1
    assert httpd.CONNECTION_MODE == "keep-alive"
    assert httpd.SSL_HANDSHAKE_TIMEOUT == 0.3
    assert isinstance(httpd.SETTINGS, httpd.Settings)


def test_every_public_name_exists() -> None:
    for name in httpd.__all__:
        assert hasattr(httpd, name), name


def test_constants_follow_the_settings() -> None:
    httpd.SETTINGS.KEEP_ALIVE_TIMEOUT = 7
    try:
        assert httpd.KEEP_ALIVE_TIMEOUT == 7
    finally:
        del httpd.SETTINGS["KEEP_ALIVE_TIMEOUT"]
    assert httpd.KEEP_ALIVE_TIMEOUT == 1
    with pytest.raises(AttributeError, match="KEEP_ALIVE_TIME_OUT"):
        _ = httpd.KEEP_ALIVE_TIME_OUT


# The pattern and the engine -----------------------------------------------------------------------------------------------

AGREED = [
    (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
    (b"GET / HTTP/1.0\r\nHost: a\r\nCONNECTION:Keep-Alive\r\n\r\n", True),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
    (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n", False),
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
]
# Where the engine follows RFC 9112 9.3 and the pattern alone would not: (head, the pattern's answer, the engine's).
ON_PURPOSE = [
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False, True),  # HTTP/1.1 persists by default
    (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: te, keep-alive\r\n\r\n", False, True),  # a list of tokens
    (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", True, False),  # close wins
    (b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keepalive\r\n\r\n", True, False),  # no such token
    (b"GET / HTTP/1.0\r\nHost: a\r\nX-Connection: keep-alive\r\n\r\n", True, False),  # another field
]


def engine_keeps(head: bytes) -> bool:
    from duckfast._http1 import HTTP1Connection, Probe
    from duckfast._limits import Limits
    from duckfast._writer import DefaultFields

    core = Probe(HTTP1Connection(Limits(), DefaultFields()))
    core.feed(head)
    kind, request = core.poll()
    assert kind == "request"
    return bool(request["keep_alive"])


@pytest.mark.parametrize(("head", "keeps"), AGREED)
def test_pattern_and_engine_agree_on_plain_heads(head: bytes, keeps: bool) -> None:
    assert bool(httpd.KEEP_ALIVE_PATTERN.search(head)) is keeps
    assert engine_keeps(head) is keeps


@pytest.mark.parametrize(("head", "pattern", "engine"), ON_PURPOSE)
def test_engine_differs_from_the_pattern_where_the_standard_does(head: bytes, pattern: bool, engine: bool) -> None:
    assert bool(httpd.KEEP_ALIVE_PATTERN.search(head)) is pattern
    assert engine_keeps(head) is engine
