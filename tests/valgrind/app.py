"""What the threads of the WSGI engine do under valgrind: quick calls, calls that block, streams, uploads, a 100 KB answer."""

import threading
from typing import Any


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    size = len(environ["wsgi.input"].read())
    if path == "/block":
        threading.Event().wait(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/stream":
        return iter([b"one", b"two", b"three"])
    if path == "/large":
        return [bytes(100_000)]
    return [b"%d" % size]
