"""The class API: a server as an object whose methods are the stages of a connection and may be overridden.

    from duckfast.httpd import BaseServer

    class Server(BaseServer):
        def handle_request_data(self, sock, addr, request_data):
            print(request_data.headers["topheader"])
            super().handle_request_data(sock, addr, request_data)

    Server(("127.0.0.1", 8000), app).start_server()

A method that is not overridden costs nothing: the compiled engines own the connections then. The names in __all__ are public.
"""

from __future__ import annotations

import re
from typing import Any

from .executor import RequestHandlingExecutor, call_request_handling_executor
from .requests import Processor, RawRequestData, Request, RequestData, Response, to_response
from .server import BaseMicroServer, BaseServer
from .settings import SETTINGS, Settings
from .xsocket import create_xsocket, ssl_xsocket, xsocket

# Over the raw head of a request. The engines decide by RFC 9112 9.3: from the list of tokens, HTTP/1.1 persistent by default.
KEEP_ALIVE_PATTERN = re.compile(rb"(?i)\bConnection\s*:\s*keep\s*-?\s*alive\b")

# Seconds that one synchronous step of a handshake may hold a thread. Handshakes run on the poller, under a deadline of their own.
SSL_HANDSHAKE_TIMEOUT = 0.3

CONNECTION_MODE: str
KEEP_ALIVE_TIMEOUT: float

__all__ = [
    "CONNECTION_MODE",
    "KEEP_ALIVE_PATTERN",
    "KEEP_ALIVE_TIMEOUT",
    "SETTINGS",
    "SSL_HANDSHAKE_TIMEOUT",
    "BaseMicroServer",
    "BaseServer",
    "Processor",
    "RawRequestData",
    "Request",
    "RequestData",
    "RequestHandlingExecutor",
    "Response",
    "Settings",
    "call_request_handling_executor",
    "create_xsocket",
    "ssl_xsocket",
    "to_response",
    "xsocket",
]


def __getattr__(name: str) -> Any:
    """CONNECTION_MODE and KEEP_ALIVE_TIMEOUT are what SETTINGS says now; that is the place to change them."""
    if name in ("CONNECTION_MODE", "KEEP_ALIVE_TIMEOUT"):
        return SETTINGS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
