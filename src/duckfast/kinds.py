"""What the value of a setting can be: how it is read from text or a Python value, checked, and shown again.

Knows no setting. A kind refuses a value by ValueError, without a message: the setting knows where the value was written.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from . import logformat

KIB = 1024  # bytes
SIZE_UNITS = {"": 1, "k": KIB, "m": KIB**2, "g": KIB**3}  # as nginx: powers of 1024
UNIT_NAMES = {"": "bytes", "m": "MiB"}
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
class Account:
    """The name or the number of a user or a group."""

    metavar: str
    expects: str

    def read(self, value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value.strip()

    def show(self, value: Any) -> str:
        return str(value)


class Variable:
    """A name and a value for the environment of the process."""

    metavar = "NAME=VALUE"
    expects = "NAME=VALUE"

    def read(self, value: object) -> tuple[str, str]:
        if isinstance(value, str):
            name, equals, content = value.partition("=")
            if not equals:
                raise ValueError
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            name, content = value
        else:
            raise ValueError
        if isinstance(content, int) and not isinstance(content, bool):
            content = str(content)  # a number in a table of a TOML file
        if not isinstance(name, str) or not isinstance(content, str) or not name or "\0" in name + content or "=" in name:
            raise ValueError
        return name, content

    def show(self, value: Any) -> str:
        return f"{value[0]}={value[1]}"


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


class Verification(Choice):
    """Whether clients need certificates: a word, or the number that the ssl module has for it."""

    def __init__(self) -> None:
        numbers = {"0": "none", "1": "optional", "2": "required"}
        switch = {"false": "none", "true": "required"}  # granian's ssl_client_verify is one
        super().__init__("none", "optional", "required", synonyms=numbers | switch)

    def read(self, value: object) -> str:
        if isinstance(value, int):
            value = str(value if isinstance(value, bool) else int(value))
        return super().read(value)


@dataclass(frozen=True)
class ContextSource:
    """An ssl.SSLContext, or a function that makes it. Only code can give one."""

    metavar: str = "CONTEXT"
    expects: str = "an ssl.SSLContext, or a function of (config, default_factory) that returns one; it can be set in code only"

    def read(self, value: object) -> Any:
        if value is not None and not isinstance(value, ssl.SSLContext) and not callable(value):
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return "" if value is None else repr(value)


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


class Mode(Choice):
    """One word of a list, for what other servers have as a switch: a bare flag and true mean `on`, false means off."""

    def __init__(self, *words: str, on: str) -> None:
        super().__init__(*words, synonyms={word: on if yes else "off" for word, yes in Switch._words.items()})
        self.on = on

    def knows(self, text: str) -> bool:
        return text.lower() in self.words or text.lower() in self._synonyms

    def read(self, value: object) -> str:
        return super().read(("off", self.on)[value] if isinstance(value, bool) else value)


class AutoSwitch(Switch):
    """A switch that nobody has touched is None: whoever reads it decides."""

    expects = "true, false or auto"

    def read(self, value: object) -> bool | None:  # type: ignore[override]
        if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
            return None
        return super().read(value)

    def show(self, value: Any) -> str:
        return "auto" if value is None else super().show(value)


class AccessLogFormat:
    """The text of a format, once it is known to be one. Raises logformat.FormatError."""

    metavar = "FORMAT"
    expects = "common, combined, json or a template"

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        logformat.parse(value)
        return value

    def show(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class LogConfig(Path):
    """The path of a logging configuration; in Python also the dict itself."""

    expects: str = "a path (or in Python a dict for logging.config)"

    def read(self, value: object) -> Any:
        return dict(value) if isinstance(value, Mapping) else super().read(value)


class FieldName:
    metavar = "NAME"
    expects = "the name of a header field"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not TOKEN.fullmatch(value):
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return str(value)


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


class Count:
    """A number of processes; `auto` is one for each CPU that this process may use."""

    metavar = "NUMBER|auto"
    expects = "a whole number from 1 up, or auto"

    def read(self, value: object) -> int:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return usable_cpus()
        return Number(1).read(value)

    def show(self, value: Any) -> str:
        return str(value)


def usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Size:
    metavar = "SIZE"

    def __init__(self, least: int = 0, unit: str = "") -> None:
        self._least = least
        self._unit = unit  # of a number without one
        example = "8190, 64k or 10m" if not unit else "512 or 2g"
        self.expects = f"a number of {UNIT_NAMES[unit]} from {least} up, such as {example}"

    def read(self, value: object) -> int:
        if isinstance(value, str):
            match = re.fullmatch(r"\s*([0-9]+)\s*([kmg]?)(i?b)?\s*", value.lower(), re.ASCII)
            if match is None:
                raise ValueError
            value = int(match[1]) * SIZE_UNITS[match[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError
        if value < SIZE_UNITS[self._unit]:
            value *= SIZE_UNITS[self._unit]  # what is less than the unit was meant in it
        if value < self._least:
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


class Permissions:
    """Permission bits. Text is octal, as chmod takes it; a number is taken as it is (in Python and TOML write 0o660)."""

    metavar = "OCTAL"
    expects = "octal permissions from 0 to 777, such as 660 (in TOML and Python: 0o660)"

    def read(self, value: object) -> int:
        if isinstance(value, str):
            if not re.fullmatch(r"\s*(0o)?[0-7]{1,4}\s*", value, re.ASCII):
                raise ValueError
            value = int(value, 8)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0o777:
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return f"{value:03o}"


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


class Prefix:
    """A path under which something is mounted, without a slash at the end; "" for none."""

    metavar = "PREFIX"
    expects = "a path that begins with /, such as /api"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or (value and not value.startswith("/")):
            raise ValueError
        return value.rstrip("/")

    def show(self, value: Any) -> str:
        return str(value)


class Peer:
    metavar = "PEER"
    expects = "an address, a network such as 10.0.0.0/8, unix (for unix sockets) or *"

    def read(self, value: object) -> str:
        text = value.strip().lower() if isinstance(value, str) else str(value)
        if text in ("*", "unix"):
            return text
        if "%" in text:
            raise ValueError
        ipaddress.ip_network(text)  # strict: 10.0.0.1/8 is a slip, and whoever wrote it may have meant the one address
        return text

    def show(self, value: Any) -> str:
        return str(value)


class Peers(Many):
    """Peers, each item of the list a list with commas again, as uvicorn and gunicorn take them on the command line."""

    def __init__(self) -> None:
        super().__init__(Peer(), r"[,\s]+")

    def read(self, value: object) -> list[Any]:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, Mapping) or not isinstance(items, Iterable):
            raise ValueError
        return [peer for item in items for peer in (super(Peers, self).read(item if isinstance(item, str) else [item]))]


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
