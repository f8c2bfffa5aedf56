"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack

import pytest
from support.process import ServerProcess

Serve = Callable[..., ServerProcess]


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
