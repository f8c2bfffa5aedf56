"""Servers for the conformance tests: one per module and kind, with the probe application behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.probe import Probe, StartProbe, new_key
from support.process import ServerProcess

APPS = Path(__file__).parent / "apps"


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def asgi(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """The ASGI probe on each loop."""
    options = ["asgi_probe:application", "--interface", "asgi", "--loop", request.param, "--timeout-keep-alive", "60"]
    with ServerProcess(options, cwd=APPS) as server:
        yield Probe(server)


@pytest.fixture(scope="module", params=["threads", "one thread"])
def wsgi(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """The WSGI probe with the default threads and with a single one."""
    options = ["wsgi_probe:application", "--interface", "wsgi", "--timeout-keep-alive", "60"]
    if request.param == "one thread":
        options += ["--threads", "1"]
    with ServerProcess(options, cwd=APPS) as server:
        yield Probe(server)


@pytest.fixture(scope="module")
def threaded_wsgi() -> Iterator[Probe]:
    """The WSGI probe with up to eight threads, for scenarios in which one request waits for another."""
    options = ["wsgi_probe:application", "--interface", "wsgi", "--threads", "8", "--timeout-keep-alive", "60"]
    with ServerProcess(options, cwd=APPS) as server:
        yield Probe(server)


@pytest.fixture
def start_asgi() -> Iterator[StartProbe]:
    """`start_asgi("--root-path", "/api")`: an ASGI probe with options of its own, for this test."""
    yield from _starter("asgi_probe:application", "asgi")


@pytest.fixture
def start_wsgi() -> Iterator[StartProbe]:
    """`start_wsgi("--root-path", "/api")`: a WSGI probe with options of its own, for this test."""
    yield from _starter("wsgi_probe:application", "wsgi")


@pytest.fixture
def start_asgi2() -> Iterator[StartProbe]:
    """The ASGI probe in its two-callable form; the interface is the test's to choose."""
    yield from _starter("asgi_probe:Application2", None)


def _starter(target: str, interface: str | None) -> Iterator[StartProbe]:
    with ExitStack() as running:

        def start(*options: str, uds: Path | None = None, env: dict[str, str] | None = None) -> Probe:
            arguments = [target, *options]
            if interface is not None:
                arguments += ["--interface", interface]
            if uds is not None:
                arguments += ["--uds", str(uds)]
            server = running.enter_context(ServerProcess(arguments, cwd=APPS, env=env))
            return Probe(server, None if uds is None else str(uds))

        yield start
