"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from support import process, wire
from support.authority import Authority
from support.process import ServerProcess

Serve = Callable[..., ServerProcess]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tls", choices=["descriptor", "memory"], help="every server and wire of the tests speaks TLS")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of this run, with whatever certificates a test asks it for."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session", autouse=True)
def tls_everywhere(request: pytest.FixtureRequest) -> Iterator[None]:
    how = request.config.getoption("--tls")
    if how is not None:
        authority: Authority = request.getfixturevalue("authority")
        process.everywhere += [*authority.options("localhost"), "--ssl-io", how]
        wire.everywhere = authority.client()
    yield
    process.everywhere.clear()
    wire.everywhere = None


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve("app:app", "--interface", "wsgi", cwd=folder, env={...})` starts a real server for this test.

    Each one is stopped after the test by SIGTERM and must end with exit code 0, unless the test ended it itself.
    """
    with ExitStack() as running:

        def start(
            *args: str,
            env: Mapping[str, str] | None = None,
            cwd: str | os.PathLike[str] | None = None,
            listeners: int = 1,
            pass_fds: Iterable[int] = (),
        ) -> ServerProcess:
            return running.enter_context(
                ServerProcess(args, env=env, cwd=cwd, listeners=listeners, pass_fds=pass_fds)
            )

        yield start
