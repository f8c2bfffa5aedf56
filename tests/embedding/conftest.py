"""What a server must leave as it was: whatever belongs to the program around it."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.wire import eventually

from duckfast import _debug


def of_the_process() -> dict[str, Any]:
    log = logging.getLogger("duckfast")
    return {
        "signals": [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "logging": [list(log.handlers), log.level, log.propagate, list(logging.root.handlers), logging.root.level],
        "environment": dict(os.environ, PYTEST_CURRENT_TEST=""),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
    }


def threads_of_servers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("duckfast")]


@pytest.fixture(autouse=True)
def the_program_is_left_alone(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before = of_the_process()
    yield
    assert of_the_process() == before
    eventually(lambda: not threads_of_servers(), "the end of every thread of a server")
    if _debug.enabled:
        for phase in ("setup", "call"):
            caplog.get_records(phase).clear()  # tracebacks in them hold the frames of requests
        gc.collect()
        assert not any(_debug.alive().values()), _debug.alive()
