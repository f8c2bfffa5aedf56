"""log.py: the lines of the "duckfast" logger."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duckfast import log as logs
from duckfast.config import Config
from duckfast.exceptions import ConfigError
from duckfast.log import LEVELS, access, access_teller, configure, log, reopen, wants_colours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_configured", None)
    loggers = (log, access, logging.root, logging.getLogger("test.other"))
    before = [(logger, logger.handlers[:], logger.level, logger.propagate, logger.disabled) for logger in loggers]
    known = logging._handlerList[:], dict(logging._handlers)  # type: ignore[attr-defined]
    log.handlers.clear()
    yield
    logging._handlerList[:] = known[0]  # type: ignore[attr-defined]
    logging._handlers.clear()  # type: ignore[attr-defined]
    logging._handlers.update(known[1])  # type: ignore[attr-defined]
    for logger, handlers, level, propagate, disabled in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled


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
    assert lines[-1] == "    RuntimeError: broken"


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


def test_colours_can_be_asked_for_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, stream, coloured in ((True, io.StringIO(), True), (False, Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        configure(Config(use_colors=chosen))
        log.info("hello")
        assert ("\x1b[" in stream.getvalue()) == coloured


def test_a_line_cannot_be_forged_or_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    log.info("GET %s", "/\n2026-11-24 10:00:00.000 info     forged\r\x1b[2J\x9b\u2028\u202ex\té")
    assert capsys.readouterr().err.split(" ", 2)[2] == (
        "info     GET /\n    2026-11-24 10:00:00.000 info     forged\\r\\x1b[2J\\x9b\\u2028\\u202ex\té\n"
    )


def test_an_exception_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info")
    try:
        raise ValueError("bad\n2026-11-24 10:00:00.000 info     forged\x1b[2J")
    except ValueError:
        log.exception("the application failed")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == r"    2026-11-24 10:00:00.000 info     forged\x1b[2J"


# Files -----------------------------------------------------------------------------------------------------------------


def test_log_file_is_appended_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "error.log"
    path.write_text("before\n")
    configure(Config(log_file=str(path)))
    log.info("hello \ud800")  # cannot be encoded
    assert re.fullmatch(r"before\n.* info     hello \\ud800\n", path.read_text())
    assert capsys.readouterr().err == ""


def test_reopened_log_file_is_a_new_one_and_loses_nothing(tmp_path: Path) -> None:
    path, moved = tmp_path / "error.log", tmp_path / "error.log.1"
    configure(Config(log_file=str(path)))
    log.info("one")
    path.rename(moved)
    log.info("two")
    reopen()
    log.info("three")
    assert [line.split()[-1] for line in moved.read_text().splitlines()] == ["one", "two"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["three"]


def test_log_file_that_cannot_be_reopened_stays_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    configure(Config(log_file=str(folder / "error.log")))
    folder.rename(tmp_path / "moved")
    reopen()
    log.info("after")
    text = (tmp_path / "moved" / "error.log").read_text()
    assert "cannot be opened again: No such file or directory" in text and "after" in text


def test_log_file_survives_others_who_configure_logging(tmp_path: Path) -> None:
    path = tmp_path / "error.log"
    configure(Config(log_file=str(path)))
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # closes every handler
    log.info("hello")
    assert path.read_text().endswith("hello\n")


def test_log_file_that_cannot_be_opened_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the log file .*nowhere.* cannot be opened: No such file"):
        configure(Config(log_file=str(tmp_path / "nowhere" / "error.log")))


def test_file_handlers_of_the_user_are_reopened(tmp_path: Path) -> None:
    path, moved = tmp_path / "own.log", tmp_path / "own.log.1"
    handler = logging.FileHandler(path, mode="w")
    logger = logging.getLogger("test.other")
    logger.addHandler(handler)
    logger.warning("one")
    path.rename(moved)
    reopen()
    logger.warning("two")
    reopen()  # nobody has moved it: what it holds stays
    logger.warning("three")
    assert (moved.read_text(), path.read_text()) == ("one\n", "two\nthree\n")


# The user's own configuration ------------------------------------------------------------------------------------------

INI = """
[loggers]
keys=root,duckfast
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
handlers=
[logger_duckfast]
level=INFO
handlers=file
propagate=0
qualname=duckfast
[handler_file]
class=FileHandler
args=("OUT",)
formatter=plain
[formatter_plain]
format=%(levelname)s %(message)s
"""
TOML = """
formatters.plain.format = "%(levelname)s %(message)s"
handlers.file = {class = "logging.FileHandler", filename = "OUT", formatter = "plain"}
loggers.duckfast = {handlers = ["file"], propagate = false}
"""
YAML = """
version: 1
formatters: {plain: {format: "%(levelname)s %(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: OUT, formatter: plain}}
loggers: {duckfast: {handlers: [file], propagate: false}}
"""


def configuration(path: Path, *loggers: str, **more: Any) -> dict[str, Any]:
    """A dict that sends these loggers ("" is the root) to a file."""
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(path), "formatter": "plain"}}
    plain = {"format": "%(name)s %(levelname)s %(message)s"}
    named = {name: {"handlers": ["file"], "level": "INFO"} for name in loggers}
    return {"version": 1, "formatters": {"plain": plain}, "handlers": handlers, "loggers": named, **more}


@pytest.mark.parametrize(("suffix", "text"), [("ini", INI), ("toml", TOML), ("yaml", YAML), ("yml", YAML)])
def test_log_config_is_a_dict_in_some_language_or_an_ini_file(tmp_path: Path, suffix: str, text: str) -> None:
    out = tmp_path / "out.log"
    path = tmp_path / f"logging.{suffix}"
    path.write_text(text.replace("OUT", str(out)))
    configure(Config(log_config=str(path)))
    log.info("hello")
    assert out.read_text() == "INFO hello\n"


def test_log_config_in_json_and_as_a_dict(tmp_path: Path) -> None:
    out = tmp_path / "out.log"
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(configuration(out, "duckfast")))
    configure(Config(log_config=str(path)))
    log.info("one")
    configure(Config(log_config=configuration(out, "duckfast", disable_existing_loggers=True)))
    log.info("two")
    assert out.read_text() == "duckfast INFO one\nduckfast INFO two\n"


def test_log_config_for_the_root_has_our_lines_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.log"
    logging.root.handlers.clear()
    configure(Config(log_config=configuration(out, "")))
    log.info("hello")
    assert out.read_text() == "duckfast INFO hello\n"
    assert capsys.readouterr().err == ""


def test_log_config_that_does_not_mention_us_leaves_our_lines_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.root.handlers.clear()
    configure(Config(log_config=configuration(tmp_path / "out.log", "test.other", disable_existing_loggers=True)))
    log.info("hello")
    assert capsys.readouterr().err.endswith("hello\n")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.toml", "x = ", "'PATH' cannot be used: Invalid value"),
        ("a.json", "[1]", "'PATH' cannot be used: it is not a dict"),
        ("a.yaml", "a: [", "'PATH' cannot be used: while parsing"),
        ("a.ini", "nothing", "'PATH' cannot be used: "),
        ("a.json", '{"handlers": {"x": {"class": "no.such"}}}', "'PATH' cannot be used: Unable to configure handler 'x': "),
    ],
)
def test_wrong_log_config_says_why(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint.replace("PATH", str(path)))):
        configure(Config(log_config=str(path)))


def test_missing_log_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--log-config: .* cannot be read: No such file or directory"):
        configure(Config(log_config=str(tmp_path / "none.toml")))


def test_yaml_without_pyyaml_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "a.yaml"
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"pip install duckfast\[yaml\]"):
        configure(Config(log_config=str(path)))


def test_wrong_log_config_on_a_reload_keeps_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "out.log"
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(configuration(out, "duckfast")))
    configure(Config(log_config=str(path)))
    path.write_text('{"handlers": {"x": {"class": "no.such"}}, "loggers": {"duckfast": {"level": "ERROR"}}}')
    configure(Config(log_config=str(path)))
    log.info("still here")
    first, second = out.read_text().splitlines()
    assert first.startswith("duckfast ERROR --log-config: ") and first.endswith("logging goes on as before")
    assert second == "duckfast INFO still here"


def test_changed_log_config_is_used_on_a_reload_and_an_unchanged_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(configuration(tmp_path / "one.log", "duckfast")))
    configure(Config(log_config=str(path)))
    before = log.handlers[0]
    configure(Config(log_config=str(path)))
    assert log.handlers == [before]
    path.write_text(json.dumps(configuration(tmp_path / "two.log", "duckfast")))
    configure(Config(log_config=str(path)))
    log.info("hello")
    assert (tmp_path / "two.log").read_text() == "duckfast INFO hello\n"


def test_access_lines_are_told_only_to_handlers_that_ask(tmp_path: Path) -> None:
    out = tmp_path / "out.log"
    configure("info")
    assert access_teller() is None
    configure(Config(log_config=configuration(out, "duckfast", "duckfast.access")))
    tell = access_teller()
    assert tell is not None
    seen = []
    access.handlers[0].addFilter(lambda record: seen.append(record) is None)
    tell("the %s line", {"status": 200, "path": "/"})
    assert out.read_text() == "duckfast.access INFO the %s line\n"  # and not once more through its parent
    assert (seen[0].status, seen[0].path) == (200, "/")
    access.setLevel("WARNING")
    assert access_teller() is None
