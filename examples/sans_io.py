"""The HTTP/1 core without a server: bytes in, events and bytes out, over a plain socket. Run it:  python sans_io.py

Parsing, framing and keep-alive decisions are those of the server; who reads, writes and waits is up to you. The modules with an
underscore are what duckfast itself is made of: they may change from one version to the next.
"""

import contextlib
import os
import socket

from duckfast._http1 import HTTP1Connection, Probe
from duckfast._limits import Limits
from duckfast._writer import DefaultFields


def serve_connection(sock: socket.socket) -> None:
    """Answer one client, request by request, until either side is done."""
    http = Probe(HTTP1Connection(Limits(head=16 * 1024), DefaultFields(server=b"sans-io")))
    target, size = "", 0
    while True:
        event, *details = http.poll()
        if event == "need_data":
            data = sock.recv(65536)
            if data:
                http.feed(data)
            else:
                http.feed_eof()
        elif event == "request":
            target, size = details[0]["target"].decode("latin-1"), 0
            if details[0]["expect_continue"]:
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif event == "data":
            size += len(details[0])
        elif event == "end":
            body = f"Hello, {target} came with {size} bytes\n".encode()
            head = http.start_response(200, [(b"content-type", b"text/plain")], body_size=len(body))
            rest = http.send(body)
            end, what_next = http.finish()
            sock.sendall(head + rest + end)
            if what_next != "keep_alive":
                return
            http.next_request()
        elif event == "failed":
            sock.sendall(http.refuse(details[0]))
            return
        else:  # the client has closed
            return


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "8000")))) as listener:
        print(f"listening on port {listener.getsockname()[1]}", flush=True)
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                serve_connection(client)
