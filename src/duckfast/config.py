"""Every setting, once: its name, type, default, help and other spellings. Knows no file, no environment, no click.

The fields of Config are the table. The command line, the DUCKFAST_* names and the keywords of duckfast.run() are all
read from it, so a setting that is added here exists everywhere. Values arrive as text (with units: 10s, 64k) or as the
Python value; both end in the type written beside the field: durations float seconds, sizes int bytes.

One file, although long, so that a setting's kind, rule and row are read together.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Protocol

from .exceptions import ConfigError

ENVIRONMENT_PREFIX = "DUCKFAST_"

KIB = 1024  # bytes
SIZE_UNITS = {"": 1, "k": KIB, "m": KIB**2, "g": KIB**3}  # as nginx: powers of 1024
DURATION_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # seconds
MAX_PORT = 65535

# Header fields that frame the message or the connection: the server derives them, a fixed value would break answers.
FRAMING_FIELDS = frozenset({"connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"})
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2


class Kind(Protocol):
    """How a setting's value is read, checked and shown."""

    @property
    def metavar(self) -> str:
        """What --help shows for the value; "" for a switch."""

    @property
    def expects(self) -> str:
        """Ends the sentence "--port must be ..."."""

    def read(self, value: object) -> Any:
        """The value in the setting's own type. Raises ValueError when it is not one."""

    def show(self, value: Any) -> str:
        """The value as a person would type it."""


@dataclass(frozen=True)
class Text:
    metavar: str = "TEXT"
    expects: str = "text"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Path:
    metavar: str = "PATH"
    expects: str = "a path"

    def read(self, value: object) -> str:
        if not isinstance(value, (str, os.PathLike)):
            raise ValueError
        path = os.fspath(value)
        if not isinstance(path, str) or "\0" in path:
            raise ValueError
        return path

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Target:
    """What to serve: text that the importer understands, the application object itself, or None."""

    metavar: str = "APP"
    expects: str = "a target such as module:attribute, or an application that can be called"

    def read(self, value: object) -> str | Callable[..., Any] | None:
        if value is None or callable(value):
            return value
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return "" if value is None else str(value)


class Choice:
    """One word of a list; `synonyms` are accepted spellings that are not shown."""

    def __init__(self, *words: str, synonyms: Mapping[str, str] | None = None) -> None:
        self.words = words
        self.metavar = "|".join(words)
        self.expects = f"{', '.join(words[:-1])} or {words[-1]}"
        self._synonyms = synonyms or {}

    def read(self, value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        word = self._synonyms.get(word, word)
        if word not in self.words:
            raise ValueError
        return word

    def show(self, value: Any) -> str:
        return str(value)


class Switch:
    metavar = ""
    expects = "true or false"
    _words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

    def read(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else ""
        if word not in self._words:
            raise ValueError
        return self._words[word]

    def show(self, value: Any) -> str:
        return "on" if value else "off"


class Number:
    """A whole number from `least` to `most`."""

    metavar = "NUMBER"

    def __init__(self, least: int, most: int | None = None) -> None:
        self._least, self._most = least, most
        self.expects = f"a whole number from {least}" + (" up" if most is None else f" to {most}")

    def read(self, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[0-9]+\s*", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError
        if value < self._least or (self._most is not None and value > self._most):
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return str(value)


class Size:
    metavar = "SIZE"

    def __init__(self, least: int = 0) -> None:
        self._least = least
        self.expects = f"a number of bytes from {least} up, such as 8190, 64k or 10m"

    def read(self, value: object) -> int:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*([0-9]+)\s*([kmg]?)(i?b)?\s*", value.lower(), re.ASCII)
            if match is None:
                raise ValueError
            value = int(match[1]) * SIZE_UNITS[match[2]]
        if not isinstance(value, int) or isinstance(value, bool) or value < self._least:
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        for unit in ("g", "m", "k"):
            if value and value % SIZE_UNITS[unit] == 0:
                return f"{value // SIZE_UNITS[unit]}{unit}"
        return str(value)


class Duration:
    metavar = "TIME"

    def __init__(self, zero: bool = False) -> None:
        self._zero = zero
        self.expects = f"a time {'of 0 or more' if zero else 'above 0'}, such as 10s, 500ms or 2m (no unit: seconds)"

    def read(self, value: object) -> float:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|[smhd]?)\s*", value.lower(), re.ASCII)
            if match is None:
                raise ValueError
            value = float(match[1]) * DURATION_UNITS[match[2]]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError
        if value < 0 or (value == 0 and not self._zero):
            raise ValueError
        return float(value)

    def show(self, value: Any) -> str:
        return f"{value:g}s"


class Optional:
    """Another kind, or None, which is typed as `word`."""

    def __init__(self, kind: Kind, word: str) -> None:
        self._kind, self._word = kind, word
        self.metavar = kind.metavar
        self.expects = f"{kind.expects}, or {word}"

    def read(self, value: object) -> Any:
        if value is None or (isinstance(value, str) and value.strip().lower() == self._word):
            return None
        return self._kind.read(value)

    def show(self, value: Any) -> str:
        return self._word if value is None else self._kind.show(value)


class BadItem(ValueError):
    """Which item of a list cannot be used: `args[0]`."""


class Many:
    """A list of another kind. In text (an environment value) the items are separated by `separator`, a pattern."""

    def __init__(self, kind: Kind, separator: str) -> None:
        self._kind, self._separator = kind, separator
        self.metavar = kind.metavar
        self.expects = kind.expects

    def read(self, value: object) -> list[Any]:
        if isinstance(value, str):
            value = [item for item in re.split(self._separator, value) if item.strip()]
        if isinstance(value, Mapping):
            value = value.items()
        if not isinstance(value, Iterable):
            raise ValueError
        return [self._read_item(item) for item in value]

    def _read_item(self, item: object) -> Any:
        try:
            return self._kind.read(item)
        except ValueError:
            raise BadItem(item) from None

    def show(self, value: Any) -> str:
        return ", ".join(self._kind.show(item) for item in value)


class HeaderField:
    metavar = '"NAME: VALUE"'
    expects = 'a header field "Name: value" that does not frame the message (not content-length, connection and such)'

    def read(self, value: object) -> tuple[str, str]:
        if isinstance(value, str):
            name, colon, content = value.partition(":")
            if not colon:
                raise ValueError
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            name, content = (part.decode("latin-1") if isinstance(part, bytes) else part for part in value)
            if not isinstance(name, str) or not isinstance(content, str):
                raise ValueError
        else:
            raise ValueError
        content = content.strip(" \t")
        if not TOKEN.fullmatch(name) or name.lower() in FRAMING_FIELDS:
            raise ValueError
        # RFC 9110 5.5: visible characters, obs-text, space and tab; a line break would start a field of its own.
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", content):
            raise ValueError
        return name, content

    def show(self, value: Any) -> str:
        return f"{value[0]}: {value[1]}"


APPLICATION, ADDRESSES, ENGINE = "Application", "Where to listen", "Engine"
ANSWERS, LOGS, LIMITS, TIMEOUTS = "Answers", "Logs", "Limits", "Timeouts"
GROUPS = (APPLICATION, ADDRESSES, ENGINE, ANSWERS, LOGS, LIMITS, TIMEOUTS)  # in the order of --help


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    flags: tuple[str, ...]  # spellings on the command line that --help shows; none for the target
    aliases: tuple[str, ...]  # the same setting's names in gunicorn and granian, accepted and not shown

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    def read(self, value: object, source: str) -> Any:
        """The value in its own type. Raises ConfigError naming `source`, the place where the person wrote it."""
        try:
            return self.kind.read(value)
        except ValueError as error:
            seen = error.args[0] if isinstance(error, BadItem) else value
            raise ConfigError(f"{source} must be {self.kind.expects}; got {seen!r}{self._suggestion(seen)}") from None

    def _suggestion(self, value: object) -> str:
        if not isinstance(self.kind, Choice) or not isinstance(value, str):
            return ""
        near = difflib.get_close_matches(value.lower(), self.kind.words, n=1)
        return f", did you mean {near[0]!r}?" if near else ""


def setting(
    group: str,
    kind: Kind,
    default: object,
    help: str,
    *,
    flags: tuple[str, ...] | None = None,
    aliases: tuple[str, ...] = (),
) -> Any:
    """A field of Config with its row of the table; without `flags` the option is the field's name with dashes."""
    metadata = {"group": group, "kind": kind, "help": help, "flags": flags, "aliases": aliases}
    if isinstance(default, list):
        return field(default_factory=list, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(init=False)
class Config:
    """The settings of one server: `Config("module:app", port=8080, timeout_keep_alive="10s")`.

    `app` is a target for the importer, an application object, or None for the built-in demo page. Every setting is a
    keyword and an attribute. Raises ConfigError for an unknown keyword or a value that cannot be used.
    """

    app: str | Callable[..., Any] | None = setting(
        APPLICATION, Target(), None, "What to serve; nothing: the built-in demo page.", flags=()
    )
    factory: bool = setting(
        APPLICATION, Switch(), False, "The target is a function that makes the application."
    )
    app_dir: str = setting(
        APPLICATION,
        Path("DIRECTORY", "a directory"),
        "",
        "Import the target from here. Empty: the current directory.",
        aliases=("--chdir", "--working-dir"),
    )
    interface: str = setting(
        APPLICATION,
        Choice("auto", "asgi", "asgi2", "wsgi", synonyms={"asgi3": "asgi"}),
        "auto",
        "How to call the application. auto: look at it and say in the log what was chosen.",
    )
    lifespan: str = setting(
        APPLICATION,
        Choice("auto", "on", "off"),
        "auto",
        "ASGI startup and shutdown. auto: do without when the application does not know them.",
        aliases=("--asgi-lifespan",),
    )
    root_path: str = setting(APPLICATION, Text("PREFIX"), "", "Path under which a proxy has mounted the application.")

    host: str = setting(ADDRESSES, Text("HOST"), "127.0.0.1", "Listen on this address; a name listens on all it has.")
    port: int = setting(ADDRESSES, Number(0, MAX_PORT), 8000, "Listen on this port. 0: any free one, told in the log.")
    bind: list[str] = setting(
        ADDRESSES,
        Many(Text("ADDRESS", "an address"), r"[,\s]+"),
        [],
        "host:port, [v6]:port, unix:PATH or fd://N in place of --host and --port. May be repeated.",
        flags=("-b", "--bind"),
    )
    uds: str | None = setting(ADDRESSES, Optional(Path(), "none"), None, "Listen on this unix socket.")
    fd: int | None = setting(
        ADDRESSES, Optional(Number(0), "none"), None, "Listen on this inherited descriptor, a listening stream socket."
    )
    backlog: int = setting(ADDRESSES, Number(1), 2048, "Connections the kernel holds until they are accepted.")

    threads: int | None = setting(
        ENGINE,
        Optional(Number(1), "auto"),
        None,
        "Most WSGI threads; few are started, more come when all are busy. 1: for code that is not thread-safe.",
        aliases=("--blocking-threads",),
    )
    loop: str = setting(
        ENGINE,
        Choice("auto", "uvloop", "asyncio"),
        "auto",
        "Event loop for ASGI. auto: uvloop where it is installed.",
        aliases=("--asgi-loop",),
    )
    http: str = setting(ENGINE, Choice("auto", "duckfast", "httptools"), "auto", "HTTP/1 parser. auto: duckfast.")
    body_buffer_size: int = setting(
        ENGINE, Size(), 64 * KIB, "WSGI request bodies up to this are read before a thread is taken; longer ones stream."
    )

    headers: list[tuple[str, str]] = setting(
        ANSWERS,
        Many(HeaderField(), r"[\r\n]+"),
        [],
        "Add this field to every answer. May be repeated (in the environment: one per line).",
        flags=("--header",),
    )
    server_header: bool = setting(ANSWERS, Switch(), True, "Send a Server field.")
    date_header: bool = setting(ANSWERS, Switch(), True, "Send a Date field.")
    raise_on_disconnect: bool = setting(
        ANSWERS, Switch(), True, "ASGI: send() raises an OSError once the client has left (off: it does nothing)."
    )

    log_level: str = setting(
        LOGS, Choice("critical", "error", "warning", "info", "debug", "trace"), "info", "Least level that is logged."
    )
    access_log: bool = setting(LOGS, Switch(), True, "Write a line per request to standard output.")

    limit_connections: int | None = setting(
        LIMITS,
        Optional(Number(1), "none"),
        None,
        "Open connections at which accepting pauses.",
        aliases=("--worker-connections", "--backpressure"),
    )
    limit_request_line: int = setting(LIMITS, Size(1), 8190, "Longest request line (else 414).")  # as Apache
    limit_request_fields: int = setting(LIMITS, Number(1), 100, "Most header fields (else 431).")  # as Apache
    limit_request_field_size: int = setting(
        LIMITS, Size(1), 8190, "Longest header field (else 431).", aliases=("--limit-request-field_size",)
    )
    limit_request_head: int = setting(LIMITS, Size(1), 64 * KIB, "Largest request head, line and fields (else 431).")
    limit_request_body: int | None = setting(
        LIMITS, Optional(Size(), "none"), None, "Largest request body (else 413). none: the application decides."
    )
    limit_request_trailers: int = setting(LIMITS, Size(), 8192, "Largest trailer section of a chunked body.")
    limit_chunk_extensions: int = setting(LIMITS, Size(), 16 * KIB, "Most bytes of chunk extensions in one body.")
    limit_drain: int = setting(
        LIMITS, Size(), 64 * KIB, "Most bytes of an unread body that are thrown away to keep a connection."
    )

    timeout_request_headers: float = setting(TIMEOUTS, Duration(), 10.0, "Time for a whole request head (else 408).")
    timeout_request_body: float = setting(TIMEOUTS, Duration(), 30.0, "Longest wait for more of a request body.")
    timeout_keep_alive: float = setting(
        TIMEOUTS,
        Duration(zero=True),
        5.0,
        "Longest an idle connection is kept; 0: every response closes.",
        aliases=("--keep-alive",),
    )
    timeout_write: float = setting(TIMEOUTS, Duration(), 60.0, "Longest wait for a client that does not read.")
    timeout_drain: float = setting(
        TIMEOUTS, Duration(), 5.0, "Longest wait for the rest of an unread request body before closing."
    )
    timeout_graceful_shutdown: float = setting(
        TIMEOUTS,
        Duration(zero=True),
        30.0,
        "Time for requests in progress when the server is asked to stop.",
        aliases=("--graceful-timeout",),
    )
    timeout_lifespan: float = setting(TIMEOUTS, Duration(), 60.0, "Time for ASGI startup, and for shutdown.")

    def __init__(self, app: str | Callable[..., Any] | None = None, **settings: Any) -> None:
        for name in settings:
            if name not in SETTINGS:
                raise ConfigError(unknown_setting(name))
        values = {"app": app, **settings}
        for row in SETTINGS.values():
            given = row.name in values
            value = row.read(values[row.name], row.name) if given else row.default
            setattr(self, row.name, list(value) if isinstance(value, list) else value)


def _rows() -> Iterator[Setting]:
    for column in fields(Config):
        default = column.default if column.default_factory is MISSING else column.default_factory()
        metadata = dict(column.metadata)
        kind, flags = metadata["kind"], metadata.pop("flags")
        if flags is None:
            flag = "--" + column.name.replace("_", "-")
            flags = (flag, flag.replace("--", "--no-", 1)) if isinstance(kind, Switch) else (flag,)
        yield Setting(name=column.name, default=default, flags=flags, **metadata)


SETTINGS: dict[str, Setting] = {row.name: row for row in _rows()}


def nearest_setting(name: str) -> str | None:
    """The setting a person may have meant by `name`: a near spelling, or another server's name for it."""
    name = name.lower().replace("-", "_").strip("_")
    spellings = {flag.strip("-").replace("-", "_"): row.name for row in SETTINGS.values() for flag in row.aliases}
    spellings |= {row: row for row in SETTINGS}
    near = difflib.get_close_matches(name, spellings, n=1, cutoff=0.75)
    return spellings[near[0]] if near else None


def unknown_setting(name: str) -> str:
    near = nearest_setting(name)
    advice = f"did you mean {near!r}?" if near else "`duckfast --help` lists all settings (with dashes)"
    return f"there is no setting {name!r}; {advice}"


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that DUCKFAST_* names give, as keywords for Config. An empty value counts as not set.

    Raises ConfigError that names the variable.
    """
    return {
        row.name: row.read(environment[row.environment_name], row.environment_name)
        for row in SETTINGS.values()
        if environment.get(row.environment_name)
    }


def misspelled_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """DUCKFAST_* names that are nearly a setting's, and what was probably meant. Others may belong to something else."""
    known = {row.environment_name for row in SETTINGS.values()}
    strangers = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    near = {name: nearest_setting(name.removeprefix(ENVIRONMENT_PREFIX)) for name in strangers}
    return {name: SETTINGS[row].environment_name for name, row in near.items() if row is not None}
