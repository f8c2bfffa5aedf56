"""The "duckfast" logger: what the server says, on stderr, in a file, or as a logging configuration of the user's tells it.

Knows logging and terminals, refuses to know what is said. Access lines pass here only when a handler of "duckfast.access" asks
for them: otherwise compiled code writes them. Without a configuration of the user's no other logger is touched.
"""

from __future__ import annotations

import contextlib
import json
import logging
import logging.config
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from .config import Config
from .exceptions import ConfigError

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
access = logging.getLogger("duckfast.access")

RESET = "\x1b[0m"
COLOURS = {  # SGR codes, legible on dark and on light
    logging.CRITICAL: "\x1b[1;31m",
    logging.ERROR: "\x1b[31m",
    logging.WARNING: "\x1b[33m",
    logging.INFO: "\x1b[32m",
    logging.DEBUG: "\x1b[36m",
    TRACE: "\x1b[2m",
}

# What could steer a terminal or look like the end of a line: C0 and C1 controls, the line and paragraph separators, marks that
# reverse the direction of writing. A line feed is dealt with apart.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
INDENT = "    "


def escape(text: str) -> str:
    """Text that others may have chosen, for a log: lines behind the first are indented, so that none passes for a new record."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text).replace("\n", "\n" + INDENT)


class LineFormatter(logging.Formatter):
    """`2026-11-23 12:08:11.042 info  what was said`, the traceback below it, indented."""

    def __init__(self, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower():<8}"
        if self._colours:
            level = f"{COLOURS.get(record.levelno, '')}{level}{RESET}"
        seconds = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        lines = [f"{seconds}.{int(record.msecs):03d} {level} {escape(record.getMessage())}"]
        if record.exc_info:
            lines.append(INDENT + escape(self.formatException(record.exc_info)))
        if record.stack_info:
            lines.append(INDENT + escape(self.formatStack(record.stack_info)))
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


class AppendHandler(logging.Handler):
    """Appends to a file, a record in one write, so that several processes may share it. reopen() after a rotation.

    Raises OSError when the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = os.path.abspath(path)  # the application may change the directory
        self._fd: int | None = _open(self.path)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            if self._fd is None:  # somebody has configured logging, which closes the handlers it knows
                self._fd = _open(self.path)
            while data:
                data = data[os.write(self._fd, data) :]
        except Exception:
            self.handleError(record)

    def reopen(self) -> None:
        """Raises OSError; then the old file stays in use."""
        fresh = _open(self.path)
        with self.lock or contextlib.nullcontext():
            if self._fd is None:
                self._fd = fresh
                return
            os.dup2(fresh, self._fd, inheritable=False)  # in one step: whoever is about to write keeps a valid descriptor
            os.close(fresh)

    def close(self) -> None:
        with self.lock or contextlib.nullcontext():
            fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        super().close()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def wants_colours(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Colours only on a terminal, and not where NO_COLOR (no-color.org) or a dumb terminal asks for none."""
    return stream is not None and stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


# Configuring -----------------------------------------------------------------------------------------------------------

_configured: tuple[Any, ...] | None = None  # what configure() has last applied: settings and the content of the file


def configure(config: Config | str) -> None:
    """Set the loggers up as the settings say (a level alone: stderr from that level up). May be called again, on a reload.

    A program that has given the "duckfast" logger handlers of its own keeps them; then only the level is set. Raises
    ConfigError the first time; later an error is logged, and the configuration before stays.
    """
    global _configured
    if isinstance(config, str):
        config = Config(log_level=config)
    before = _State()
    try:
        wanted = (config.log_level, config.log_file, config.use_colors, config.log_config, _content(config.log_config))
        if config.log_config is not None and wanted == _configured:
            return  # a second time would begin its files anew
        _apply(config)
    except ConfigError as error:
        before.restore()
        if _configured is None:
            raise
        log.error("%s; logging goes on as before", error)
        return
    _configured = wanted


def _content(source: str | dict[str, Any] | None) -> bytes:
    if not isinstance(source, str):
        return b""
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"--log-config: {source!r} cannot be read: {error.strerror}") from None


def _apply(config: Config) -> None:
    logging.addLevelName(TRACE, "TRACE")
    log.setLevel(LEVELS[config.log_level])
    ours = [handler for handler in log.handlers if isinstance(handler, (StderrHandler, AppendHandler))]
    handler: logging.Handler | None = None
    if ours or not log.handlers:
        handler = _handler(config, ours)
        log.propagate = False  # else a root handler of the application would print every line again
    if config.log_config is not None:
        directory = os.path.abspath(config.app_dir or os.getcwd())  # it may name classes of the project
        if directory not in sys.path:
            sys.path.insert(0, directory)
        _apply_users(config.log_config, handler)


def _handler(config: Config, ours: Sequence[logging.Handler]) -> logging.Handler:
    """The one handler of our own, in the place of those before it unless it is the same."""
    handler: logging.Handler
    if config.log_file is None:
        handler = next((old for old in ours if isinstance(old, StderrHandler)), None) or StderrHandler()
        terminal = wants_colours(sys.stderr, os.environ)
    else:
        path = os.path.abspath(config.log_file)
        handler = next((old for old in ours if isinstance(old, AppendHandler) and old.path == path), None) or _append(path)
        terminal = False
    handler.setFormatter(LineFormatter(terminal if config.use_colors is None else config.use_colors))
    log.handlers[:] = [handler]
    return handler


def _append(path: str) -> AppendHandler:
    try:
        return AppendHandler(path)
    except OSError as error:
        raise ConfigError(f"the log file {path!r} cannot be opened: {error.strerror}") from None


def _apply_users(source: str | dict[str, Any], handler: logging.Handler | None) -> None:
    """The user's configuration. Loggers that it does not name go on; ours, unless it gives it handlers, follow the root's."""
    log.propagate = True
    access.propagate = False  # its lines are many: they go to the handlers they were given, unless the file says more
    access.handlers.clear()
    name = repr(source) if isinstance(source, str) else "the dict"
    try:
        settings = _read(source)
        if isinstance(settings, str):
            logging.config.fileConfig(settings, disable_existing_loggers=False)
        else:
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **settings})
    except ConfigError:
        raise
    # Whatever a factory, a class or a level in it raises is the configuration's error.
    except Exception as error:
        reason = ": ".join(filter(None, (str(error), str(error.__cause__ or "")))) or type(error).__name__
        raise ConfigError(f"--log-config: {name} cannot be used: {' '.join(reason.split())}") from error
    log.disabled = access.disabled = False
    if handler is not None and (handler in log.handlers or not log.handlers):
        if log.propagate and logging.root.handlers:
            log.handlers[:] = []
        elif log.propagate:
            log.handlers[:] = [handler]
            log.propagate = False


def _read(source: str | dict[str, Any]) -> str | dict[str, Any]:
    """The dict of a configuration, or the path of an INI file."""
    if not isinstance(source, str):
        return source
    suffix = Path(source).suffix.lower()
    content = _content(source)
    if suffix == ".toml":
        return tomllib.loads(content.decode())
    if suffix == ".json":
        found = json.loads(content)
    elif suffix in (".yaml", ".yml"):
        found = _read_yaml(content)
    else:
        return source
    if not isinstance(found, dict):
        raise ValueError("it is not a dict")
    return found


def _read_yaml(content: bytes) -> Any:
    try:
        import yaml  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError("--log-config: YAML needs PyYAML; `pip install duckfast[yaml]`, or write TOML or JSON") from None
    return yaml.safe_load(content)


class _State:
    """What a failed configuration may have changed: the loggers' handlers, levels and switches."""

    def __init__(self) -> None:
        self._loggers = [
            (logger, logger.handlers[:], logger.filters[:], logger.level, logger.propagate, logger.disabled)
            for logger in _loggers()
        ]

    def restore(self) -> None:
        for logger, handlers, filters, level, propagate, disabled in self._loggers:
            logger.handlers[:] = handlers
            logger.filters[:] = filters
            logger.setLevel(level)
            logger.propagate = propagate
            logger.disabled = disabled


def _loggers() -> Iterator[logging.Logger]:
    yield logging.root
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield logger


# Running ---------------------------------------------------------------------------------------------------------------


def access_teller() -> Callable[[str, dict[str, Any]], None] | None:
    """What tells the handlers of "duckfast.access" a line and its facts; None when there are none."""
    if not access.handlers or not access.isEnabledFor(logging.INFO):
        return None

    def tell(line: str, facts: dict[str, Any]) -> None:
        record = access.makeRecord(access.name, logging.INFO, "", 0, line, (), None, extra=facts)
        access.handle(record)

    return tell


def reopen() -> None:
    """Open the files that handlers write to anew, as after a rotation. One that cannot be opened stays in use, with a line."""
    for handler in {handler for logger in _loggers() for handler in logger.handlers}:
        try:
            if isinstance(handler, AppendHandler):
                handler.reopen()
            elif isinstance(handler, logging.FileHandler):
                _reopen_file(handler)
        except OSError as error:
            log.error("the log file %r cannot be opened again: %s", getattr(handler, "path", None) or handler, error.strerror)


def _reopen_file(handler: logging.FileHandler) -> None:
    """A file handler of the user's configuration; logging itself has no word for this."""
    with handler.lock or contextlib.nullcontext():
        if handler.stream is None:  # opened with its next record
            return
        mode = handler.mode
        handler.mode = "a"  # "w" would empty a file that nobody has moved
        try:
            fresh = handler._open()
        finally:
            handler.mode = mode
        old = handler.setStream(fresh)
        if old is not None:
            old.close()


def flush() -> None:
    for handler in log.handlers:
        handler.flush()
