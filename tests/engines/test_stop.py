"""stop() of an engine, called as a signal handler calls it: on the thread that runs the engine, between any two of its lines."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from duckfast.asgi import AsyncEngine
from duckfast.config import Config
from duckfast.wsgi import ThreadEngine

# How often the heart beats before the engine sleeps for the first time; the next beat says that there is no further line.
FIRST_BEATS = {AsyncEngine: 1, ThreadEngine: 0}


def application(*request: Any) -> None:
    raise AssertionError("nobody asks for anything here")


def run_and_stop_at_line(kind: type[AsyncEngine | ThreadEngine], number: int, **settings: object) -> bool:
    """Run an engine that is stopped before the numbered line of Python; False when it goes to sleep before that many."""
    lines = beats = 0
    reached = True

    def give_up() -> None:
        nonlocal beats, reached
        beats += 1
        if beats > FIRST_BEATS[kind]:
            reached = False
            engine.stop()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == number:
                engine.stop()
        return trace

    engine = kind(application, Config(application, access_log=False, **settings), [], heartbeat=give_up)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        engine.run()
    finally:
        sys.settrace(before)
    return reached


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(ThreadEngine, {"threads": 2}), (AsyncEngine, {"lifespan": "off", "loop": "uvloop"})],
)
@pytest.mark.timeout(60)
def test_stop_may_come_between_any_two_lines_of_the_thread_that_waits_for_it(
    kind: type[AsyncEngine | ThreadEngine], settings: dict[str, object]
) -> None:
    """It once took a lock that the interrupted thread held, and the server stayed for ever."""
    number = 1
    while run_and_stop_at_line(kind, number, **settings):
        number += 1
    assert number > 10
