"""The process environment that a configuration asks for: --env-file and -e. Knows the files' format and os.environ.

A file only fills in what is not set yet, as everywhere; -e sets. python-dotenv reads the files where it is installed (the
extra duckfast[dotenv]). Without it they may hold the plain lines on which all readers agree, and anything else is refused, so
that no value changes its meaning by an installation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, MutableMapping

from .config import Config
from .exceptions import ConfigError

LINE = re.compile(r"(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)[ \t]*=[ \t]*(?P<value>.*)", re.DOTALL)
QUOTED = re.compile(r"""(?:'(?P<single>[^'\\]*)'|"(?P<double>(?:[^"\\]|\\[\\"nrt])*)")[ \t]*(?:#.*)?""")
COMMENT = re.compile(r"\s+#.*")
ESCAPES = {"\\n": "\n", "\\r": "\r", "\\t": "\t", '\\"': '"', "\\\\": "\\"}
ADVICE = "; quote the value in single quotes, or install duckfast[dotenv], which understands more"

_applied: dict[str, str | None] = {}  # names that apply() has set, with what was there before


def read_file(path: str) -> dict[str, str]:
    """The variables of one file. Raises ConfigError when it cannot be read, or a line has no known form."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read the env file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read the env file {path}: it is not UTF-8") from None
    try:
        import dotenv.main
        import dotenv.parser
    except ImportError:
        return parse(text, path)
    with open(path, encoding="utf-8") as file:
        for binding in dotenv.parser.parse_stream(file):
            if binding.error or (binding.key is not None and binding.value is None):
                raise ConfigError(f"{path}, line {binding.original.line}: not NAME=VALUE")
    found = dotenv.main.DotEnv(path, encoding="utf-8", override=False).dict()
    return {name: value for name, value in found.items() if value is not None}


def parse(text: str, path: str) -> dict[str, str]:
    """NAME=VALUE, a line each: plain, in 'single' or in "double" quotes (with \\n, \\r, \\t, \\", \\\\); # begins a comment."""
    found = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{path}, line {number}: not NAME=VALUE")
        value = _read_value(match["value"])
        if value is None or "${" in value:
            raise ConfigError(f"{path}, line {number}: cannot read the value of {match['name']}{ADVICE}")
        found[match["name"]] = value
    return found


def _read_value(text: str) -> str | None:
    if quoted := QUOTED.fullmatch(text):
        if quoted["single"] is not None:
            return quoted["single"]
        return re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], quoted["double"])
    plain = COMMENT.sub("", text).rstrip()
    return None if plain.startswith("#") or any(letter in plain for letter in "'\"\\") else plain


def variables(files: Iterable[str], given: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> dict[str, str]:
    """What has to be set in `environment`: of the files what it does not have (the last file wins), and all that is given.

    Raises ConfigError.
    """
    filled: dict[str, str] = {}
    for path in files:
        filled |= read_file(path)
    return {name: value for name, value in filled.items() if name not in environment} | dict(given)


def original(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment without what apply() has set: for another image of this process, which reads the files itself."""
    before = dict(environment)
    for name, value in _applied.items():
        if value is None:
            before.pop(name, None)
        else:
            before[name] = value
    return before


def apply(config: Config, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what `config` asks for; what an earlier call has set is taken back first, so that a reload leaves no remains.

    Raises ConfigError, and then nothing has changed.
    """
    before = original(environment)
    wanted = variables(config.env_file, config.env, before)
    for name in _applied:
        if name in before:
            environment[name] = before[name]
        else:
            environment.pop(name, None)
    _applied.clear()
    _applied.update({name: before.get(name) for name in wanted})
    environment.update(wanted)
