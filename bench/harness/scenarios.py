"""What is asked of the servers. One table; knows no server and no way to measure."""

import sys
from dataclasses import dataclass, field

import apps

from .client import Expected

# A desktop browser's navigation to a site it has visited before: nine fields beside Host.
BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "http://127.0.0.1/products/ducks?sort=newest&page=2",
    "Connection": "keep-alive",
    "Cookie": "csrftoken=qW3rTy7uIoP0aSdFgHjKlZxCvBnM1234; sessionid=0k9j8h7g6f5d4s3a2q1w0e9r8t7y6u5i",
    "Upgrade-Insecure-Requests": "1",
    "Cache-Control": "max-age=0",
}


@dataclass(frozen=True)
class Scenario:
    name: str
    about: str
    interface: str  # "wsgi" or "asgi"
    path: str
    threads: int = 1
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body_size: int = 0  # bytes of the request's body
    answer: bytes = apps.HELLO
    chunked: bool = False
    access_log: bool = False
    tls: bool = False
    visitor: bool = False  # a fast view is timed beside the load
    limit: float | None = None  # duckfast's CPU per request, as a multiple of nginx's in the same round
    throughput: float | None = None  # requests per second duckfast must reach

    @property
    def request_body(self) -> bytes | None:
        return b"a" * self.body_size if self.body_size else None

    @property
    def expected(self) -> Expected:
        return Expected(self.answer, len(self.answer), self.chunked)


# What duckfast promises, CPU per request as a multiple of nginx's. Tasks cost less from 3.12.
LIMITS = {
    "wsgi-hello": 1.10,
    "wsgi-browser": 1.20,
    "wsgi-post": 1.50,
    "wsgi8-hello": 1.20,
    "wsgi8-browser": 1.20,
    "wsgi8-post": 1.50,
    "asgi-hello": 1.25 if sys.version_info >= (3, 12) else 1.40,
    "asgi-post": 1.50,
    "wsgi-https": 1.20,
    "wsgi-https-10k": 1.20,
    "asgi-https": 1.20,
    "asgi-https-10k": 1.20,
}


def _five(prefix: str, interface: str, threads: int, note: str) -> list[Scenario]:
    def scenario(
        name: str,
        about: str,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body_size: int = 0,
        answer: bytes = apps.HELLO,
        chunked: bool = False,
    ) -> Scenario:
        return Scenario(
            name=f"{prefix}-{name}",
            about=about + note,
            interface=interface,
            path=path,
            threads=threads,
            method=method,
            headers=headers or {},
            body_size=body_size,
            answer=answer,
            chunked=chunked,
            limit=LIMITS.get(f"{prefix}-{name}"),
        )

    return [
        scenario("hello", "13 bytes", "/"),
        scenario("browser", "13 bytes, nine browser headers", "/", headers=BROWSER_HEADERS),
        scenario("10k", "10 KiB body", "/10k", answer=apps.TEN_KIB),
        scenario("post", "POST 1 KiB, read by the app", "/post", method="POST", body_size=apps.POST_SIZE),
        scenario("stream", "10 KiB in 10 chunks", "/stream", answer=apps.PIECE * apps.PIECES, chunked=True),
    ]


def _https(interface: str) -> list[Scenario]:
    """Kept-alive connections, so that records are measured and not handshakes."""
    hello, large = f"{interface}-https", f"{interface}-https-10k"
    return [
        Scenario(hello, "13 bytes over TLS", interface, "/", tls=True, limit=LIMITS[hello]),
        Scenario(large, "10 KiB over TLS", interface, "/10k", answer=apps.TEN_KIB, tls=True, limit=LIMITS[large]),
    ]


SLEEP_FLOOR = 700.0  # requests/s; 8 threads x 10 ms allow 800 at most

SCENARIOS: list[Scenario] = [
    *_five("wsgi", "wsgi", 1, ""),
    *_five("wsgi8", "wsgi", 8, ", 8 threads"),
    *_five("asgi", "asgi", 1, ""),
    *_https("wsgi"),
    *_https("asgi"),
    Scenario("wsgi-log", "13 bytes, access log to a file", "wsgi", "/", access_log=True),
    Scenario("asgi-log", "13 bytes, access log to a file", "asgi", "/", access_log=True),
    Scenario(
        name="wsgi8-sleep",
        about="view sleeps 10 ms, 8 threads; a fast view beside it",
        interface="wsgi",
        path="/sleep",
        threads=8,
        visitor=True,
        throughput=SLEEP_FLOOR,
    ),
]
