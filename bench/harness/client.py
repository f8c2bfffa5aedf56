"""A plain client: enough HTTP/1.1 to check an answer, and a light visitor that times a fast view. No server, no wrk."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

CHECK_TIMEOUT = 10.0  # seconds for the one request that proves a server is up
PAUSE = 0.005  # seconds between the light visitor's requests: it must not be a load of its own


class WrongAnswer(Exception):
    """The server is up and says something else than the scenario asks for."""


@dataclass(frozen=True)
class Expected:
    body: bytes | None  # None: any bytes of `size`
    size: int
    chunked: bool


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unverified() -> ssl.SSLContext:
    """For a certificate that was made for the measurement."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def check(
    port: int, method: str, path: str, headers: Mapping[str, str], body: bytes | None, expected: Expected, tls: bool = False
) -> str:
    """Raises WrongAnswer, or OSError while the port is closed. Returns the Server field."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CHECK_TIMEOUT)
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=CHECK_TIMEOUT, context=unverified())
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        received = response.read()
    except http.client.HTTPException as error:
        raise WrongAnswer(f"{method} {path}: not an HTTP answer: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise WrongAnswer(f"{method} {path}: status {response.status}, expected 200")
    if len(received) != expected.size or (expected.body is not None and received != expected.body):
        raise WrongAnswer(f"{method} {path}: {len(received)} bytes {received[:40]!r}, expected {expected.size}")
    length = response.getheader("Content-Length")
    coding = response.getheader("Transfer-Encoding")
    if expected.chunked and (coding != "chunked" or length is not None):
        raise WrongAnswer(f"{method} {path}: Transfer-Encoding {coding}, Content-Length {length}, expected chunked")
    if not expected.chunked and length != str(expected.size):
        raise WrongAnswer(f"{method} {path}: Content-Length {length}, expected {expected.size}")
    return response.getheader("Server") or ""


class Visitor(threading.Thread):
    """Asks for a fast view on one keep-alive connection, one request after the other, and notes how long each took."""

    def __init__(self, port: int, path: str = "/") -> None:
        super().__init__(daemon=True)
        self.latencies: list[float] = []  # seconds
        self.error: str | None = None
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._over = threading.Event()

    def run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), CHECK_TIMEOUT) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._over.wait(PAUSE):
                    begun = time.perf_counter()
                    connection.sendall(self._request)
                    receive_response(connection)
                    self.latencies.append(time.perf_counter() - begun)
        except (OSError, WrongAnswer) as error:
            self.error = f"fast view: {error!r}"

    def finish(self) -> list[float]:
        """Sorted latencies, seconds."""
        self._over.set()
        self.join()
        return sorted(self.latencies)


def receive_response(connection: socket.socket) -> bytes:
    """One response with a Content-Length; returns its body."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += _receive(connection)
    head = data[:end].lower()
    if not head.startswith(b"http/1.1 200"):
        raise WrongAnswer(f"answered {head.splitlines()[0].decode()}")
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise WrongAnswer("answered without Content-Length")
    length = int(head[at + 17 :].split(b"\r\n", 1)[0])
    while len(data) < end + 4 + length:
        data += _receive(connection)
    return data[end + 4 :]


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionResetError("the server closed the connection")
    return received


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
