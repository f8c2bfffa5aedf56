"""log.py: the lines of the "duckfast" logger."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from duckfast import log as logs
from duckfast.log import LEVELS, configure, log, wants_colours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_logger() -> Iterator[None]:
    before = log.handlers[:], log.level, log.propagate
    log.handlers.clear()
    yield
    log.handlers[:], log.level, log.propagate = before


def test_line_has_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log.info("hello %s", "duck")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info     hello duck\n", capsys.readouterr().err)


def test_traceback_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("the application failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("error    the application failed")
    assert lines[-1] == "RuntimeError: broken"


@pytest.mark.parametrize("level", LEVELS)
def test_level_is_the_least_that_is_written(capsys: pytest.CaptureFixture[str], level: str) -> None:
    configure(level)
    for number in LEVELS.values():
        log.log(number, "said at %d", number)
    assert len(capsys.readouterr().err.splitlines()) == list(LEVELS).index(level) + 1


def test_root_logger_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:], logging.root.level
    configure("debug")
    assert (logging.root.handlers[:], logging.root.level) == before


def test_root_handlers_do_not_repeat_our_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    root = io.StringIO()
    handler = logging.StreamHandler(root)
    logging.root.addHandler(handler)
    try:
        log.info("once")
    finally:
        logging.root.removeHandler(handler)
    assert root.getvalue() == ""


def test_configuring_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    configure("info")
    log.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_handlers_of_the_program_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    own = io.StringIO()
    log.addHandler(logging.StreamHandler(own))
    configure("warning")
    log.info("too little")
    log.warning("heard")
    assert own.getvalue() == "heard\n"
    assert capsys.readouterr().err == ""


def test_replaced_stderr_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    configure("info")
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    log.info("hello")
    logs.flush()
    assert "hello" in later.getvalue()


def test_process_without_stderr_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    configure("info")
    log.info("hello")
    logs.flush()


def test_colours_only_on_a_terminal_that_wants_them() -> None:
    assert wants_colours(Terminal(), {})
    assert not wants_colours(io.StringIO(), {})
    assert not wants_colours(Terminal(), {"NO_COLOR": "1"})
    assert not wants_colours(Terminal(), {"TERM": "dumb"})


def test_level_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure("info")
    log.info("hello")
    assert "\x1b[32minfo    \x1b[0m hello" in terminal.getvalue()
