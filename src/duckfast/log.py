"""The "duckfast" logger: what the server says, on stderr. Never touches the root logger or anybody else's.

Knows logging and terminals, refuses to know what is said. Access lines do not pass here: compiled code writes them.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

TRACE = 5  # below logging.DEBUG, as uvicorn names it
LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

log = logging.getLogger("duckfast")

RESET = "\x1b[0m"
COLOURS = {  # SGR codes, legible on dark and on light
    logging.CRITICAL: "\x1b[1;31m",
    logging.ERROR: "\x1b[31m",
    logging.WARNING: "\x1b[33m",
    logging.INFO: "\x1b[32m",
    logging.DEBUG: "\x1b[36m",
    TRACE: "\x1b[2m",
}


class LineFormatter(logging.Formatter):
    """`2026-11-23 12:08:11.042 info  what was said`, the traceback below it."""

    def __init__(self, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower():<8}"
        if self._colours:
            level = f"{COLOURS.get(record.levelno, '')}{level}{RESET}"
        seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        lines = [f"{seconds}.{int(record.msecs):03d} {level} {record.getMessage()}"]
        if record.exc_info:
            lines.append(self.formatException(record.exc_info))
        if record.stack_info:
            lines.append(self.formatStack(record.stack_info))
        return "\n".join(lines)


class StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stderr is at that moment, so that a replaced one (tests, notebooks) is honoured."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO | None:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:  # None: the process was started with stderr closed
            super().emit(record)


def wants_colours(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Colours only on a terminal, and not where NO_COLOR (no-color.org) or a dumb terminal asks for none."""
    return stream is not None and stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def configure(level: str) -> None:
    """Let the "duckfast" logger write to stderr from `level` up.

    A program that has given the logger handlers of its own keeps them; then only the level is set.
    """
    logging.addLevelName(TRACE, "TRACE")
    log.setLevel(LEVELS[level])
    ours = [handler for handler in log.handlers if isinstance(handler, StderrHandler)]
    if log.handlers and not ours:
        return
    handler = ours[0] if ours else StderrHandler()
    handler.setFormatter(LineFormatter(wants_colours(sys.stderr, os.environ)))
    if not ours:
        log.addHandler(handler)
    log.propagate = False  # else a root handler of the application would print every line again


def flush() -> None:
    for handler in log.handlers:
        handler.flush()
