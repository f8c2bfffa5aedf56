"""Fixtures for pytest, which finds them by itself: real servers inside the test's own process, and certificates for them.

    def test_hello(duckfast_server):
        server = duckfast_server(app)
        assert httpx.get(server.url).text == "Hello"

A run that uses none of them pays for the import of this file alone. Knows pytest; what a server is stands in server.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from .config import Config
    from .server import Server

PLACES = ("port", "bind", "uds", "fd")  # settings that say where to listen
GRACE = 1.0  # seconds for requests that a test has left in progress
NAMES = ("localhost", "127.0.0.1", "::1")  # that certificates are for


class StartServer(Protocol):
    """What the fixture `duckfast_server` is: call it as Server is called; the server runs until the end of the test."""

    def __call__(
        self, app: str | Callable[..., Any] | Config | None = None, config: Config | None = None, **settings: Any
    ) -> Server: ...


@dataclass(frozen=True)
class ThrowawayTLS:
    """What the fixture `duckfast_tls` is."""

    settings: dict[str, Any]  # ssl_certfile and ssl_keyfile, for a server
    context: ssl.SSLContext  # for a client that trusts it
    authority: Path  # the certificate of who has issued it, a file in PEM, for other clients


@pytest.fixture
def duckfast_server() -> Iterator[StartServer]:
    """`duckfast_server(app, **settings)` starts a duckfast server for this test; it has a `.url`, and settings as Server has.

    On a free port, unless the settings say where. What prevents the start is raised by the call. As many as you like.
    """
    from .config import Config
    from .server import Server

    with contextlib.ExitStack() as running:

        def start(
            app: str | Callable[..., Any] | Config | None = None, config: Config | None = None, **settings: Any
        ) -> Server:
            if config is None and not isinstance(app, Config):
                settings.setdefault("timeout_graceful_shutdown", GRACE)
                if not any(name in settings for name in PLACES):
                    settings["port"] = 0
            return running.enter_context(Server(app, config, **settings))

        yield start


@pytest.fixture(scope="session")
def duckfast_tls(tmp_path_factory: pytest.TempPathFactory) -> ThrowawayTLS:
    """A certificate for this run: `duckfast_server(app, **duckfast_tls.settings)`, and a client's context that trusts it."""
    import ssl

    try:
        import trustme
    except ImportError:
        pytest.fail("duckfast_tls needs the package trustme: pip install trustme")
    folder = tmp_path_factory.mktemp("duckfast_tls")
    authority = trustme.CA()
    issued = authority.issue_cert(*NAMES)
    certificate, key, anchor = folder / "server.pem", folder / "server-key.pem", folder / "authority.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(anchor)
    settings: dict[str, Any] = {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}
    return ThrowawayTLS(settings, ssl.create_default_context(cafile=str(anchor)), anchor)
