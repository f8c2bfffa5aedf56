"""A WSGI app for the tests of the engine: quick, blocking and long answers, by path."""

import logging.config
import threading
from typing import Any

logging.config.dictConfig({"version": 1})  # as many projects do: it disables all loggers that exist

OPEN = threading.Event()  # /wait answers once somebody has asked for /open
MEET = threading.Barrier(5)  # /meet answers once five requests are in it


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/wait":
        OPEN.wait(20)
    elif path == "/open":
        OPEN.set()
    elif path == "/meet":
        MEET.wait(20)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * int(environ["QUERY_STRING"] or 1)]
