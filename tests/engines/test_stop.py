"""stop() and retire() of an engine, called as signal handlers do: on the thread that runs it, between any two of its lines."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from duckfast.asgi import AsyncEngine
from duckfast.config import Config
from duckfast.wsgi import ThreadEngine

FIRST_BEATS = 1  # of an engine that begins to serve; the next one says that it sleeps, and that there is no further line
INTERVAL = 0.3  # seconds between two beats: far more than the lines in between take


def application(*request: Any) -> None:
    raise AssertionError("nobody asks for anything here")


def run_and_end_at_line(kind: type[AsyncEngine | ThreadEngine], end: str, number: int, **settings: object) -> bool:
    """Run an engine that is ended before the numbered line of Python; False when it goes to sleep before that many."""
    lines = beats = 0
    reached = True

    def give_up() -> None:
        nonlocal beats, reached
        beats += 1
        if beats > FIRST_BEATS and lines < number:
            reached = False
            engine.stop()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if event == "line":
            lines += 1
            if lines == number:
                getattr(engine, end)()
        return trace

    config = Config(application, access_log=False, **settings)
    engine = kind(application, config, [], heartbeat=give_up, heartbeat_interval=INTERVAL)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        engine.run()
    finally:
        sys.settrace(before)
    return reached


@pytest.mark.parametrize("end", ["stop", "retire"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [(ThreadEngine, {"threads": 1}), (ThreadEngine, {"threads": 2}), (AsyncEngine, {"lifespan": "off", "loop": "uvloop"})],
)
@pytest.mark.timeout(60)
def test_the_end_may_come_between_any_two_lines_of_the_thread_that_waits_for_it(
    kind: type[AsyncEngine | ThreadEngine], settings: dict[str, object], end: str
) -> None:
    """It once took a lock that the interrupted thread held, and the server stayed for ever."""
    number = 1
    while run_and_end_at_line(kind, end, number, **settings):
        number += 1
    assert number > 10
