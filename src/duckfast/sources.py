"""Where the settings of a process come from: files, the environment, the command line; what wins; what came from where.

Later wins: the defaults, names that platforms set (WEB_CONCURRENCY), duckfast.toml or else [tool.duckfast] of pyproject.toml,
the file given with -c, what --env-file and -e set, the environment, sockets that systemd passes, the command line.
Everything is read again by every read(), so that a reload sees changed files. Knows files; refuses to know who serves.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from . import environment, foreign
from .config import FILE_VARIABLE, SETTINGS, Config, Setting, misspelled_environment, read_environment
from .exceptions import ConfigError
from .kinds import Permissions
from .sockets import INHERITED
from .systemd import take_descriptors

PROJECT_FILE, PYPROJECT = "duckfast.toml", "pyproject.toml"
TABLE = ("tool", "duckfast")  # of pyproject.toml
DEFAULT, SYSTEMD, COMMAND_LINE = "default", "LISTEN_FDS", "command line"
SINGLE_ADDRESS = ("host", "port")
OTHER_ADDRESSES = ("bind", "uds", "fd")  # used in place of host and port
NOT_IN_ENV_FILES = (FILE_VARIABLE, "DUCKFAST_ENV_FILE", "DUCKFAST_ENV")  # they say what is read, so they come too late there


@dataclass
class Layer:
    """The settings that one source gives, by name, and how the person wrote each."""

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)

    def spelled(self, name: str) -> str:
        return self.spellings.get(name, name)


@dataclass
class Reading:
    config: Config
    origins: dict[str, str]  # of every setting: "default", "duckfast.toml", "DUCKFAST_PORT", "command line", ...
    notes: list[str]  # what is worth a warning, once there is a log


@dataclass
class Sources:
    """What a process was started with. `read()` may be called again and again."""

    command_line: Layer
    file: str | None  # given with -c
    environment: dict[str, str]  # as it was at the start
    descriptors: list[int]  # from systemd
    directory: str  # where the process was started

    @classmethod
    def take(cls, command_line: Layer, file: str | None, environment: MutableMapping[str, str]) -> Sources:
        """Of this process, at its start: LISTEN_FDS is taken out of the environment. Raises ConfigError."""
        descriptors = take_descriptors(environment)
        return cls(command_line, file, dict(environment), descriptors, os.getcwd())

    def read(self) -> Reading:
        """Raises ConfigError, which names the source."""
        notes = _misspelled(self.environment)
        files = self._read_files()
        given = _environment_layer(self.environment)
        variables = self._variables_layer([*files, given, self.command_line], notes)
        layers = [self._fallbacks(), *files, variables, given]
        if self.descriptors:
            if any(name in self.command_line.values for name in (*SINGLE_ADDRESS, *OTHER_ADDRESSES)):
                notes.append("the sockets of LISTEN_FDS are not used, because the command line gives an address")
            else:
                layers.append(Layer(SYSTEMD, {"bind": [f"{INHERITED}{number}" for number in self.descriptors]}))
        layers.append(self.command_line)
        values, origins = _join(layers)
        return Reading(Config(**values), origins, notes)

    def _read_files(self) -> list[Layer]:
        layers = []
        project = self._project_file()
        if project is not None:
            layers.append(project)
        path = (self.file or self.environment.get(FILE_VARIABLE, "")).removeprefix("file:")  # as hypercorn has it
        if path:
            layers.append(read_file(path, self._absolute(path)))
        return layers

    def _project_file(self) -> Layer | None:
        """duckfast.toml, or else the table in pyproject.toml; never both, so that nobody has to look at two files."""
        if os.path.exists(self._absolute(PROJECT_FILE)):
            return read_file(PROJECT_FILE, self._absolute(PROJECT_FILE))
        if not os.path.exists(self._absolute(PYPROJECT)):
            return None
        return read_file(PYPROJECT, self._absolute(PYPROJECT))

    def _variables_layer(self, layers: list[Layer], notes: list[str]) -> Layer:
        values, origins = _join(layers)
        found = environment.variables(map(self._absolute, values.get("env_file", [])), values.get("env", []), self.environment)
        for name in NOT_IN_ENV_FILES:
            if name in found:
                raise ConfigError(f"{name} cannot be set by --env-file or --env, because it says what is read; set it before")
        notes += _misspelled(found)
        return _environment_layer(found, " of --env-file or --env")

    def _fallbacks(self) -> Layer:
        layer = Layer("")
        for row in SETTINGS.values():
            name = row.fallback_name
            if name is not None and self.environment.get(name):
                layer.values[row.name] = row.read(self.environment[name], name)
                layer.spellings[row.name] = name
        return layer

    def _absolute(self, path: str) -> str:
        return os.path.join(self.directory, path)


def reload(sources: Sources) -> Config:
    """All sources anew. Raises ConfigError, and then the configuration from before is the one to keep."""
    return sources.read().config


# Files ------------------------------------------------------------------------------------------------------------------


def read_file(name: str, path: str = "") -> Layer:
    """The settings of a TOML or Python file. Raises ConfigError that names the file and the key."""
    path = path or name
    if not name.endswith((".toml", ".py")):
        raise ConfigError(f"cannot read settings from {name!r}: its name must end in .toml or .py")
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read settings from {name}: {error.strerror}") from None
    if name.endswith(".py"):
        return _layer(name, _run(name, path, text))
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from None
    if os.path.basename(path) == PYPROJECT:
        for key in TABLE:
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{key!r} must be a table in {name}")
        name = f"{name} [{'.'.join(TABLE)}]"
    _refuse_decimal_permissions(name, text.decode(), table)
    return _layer(name, table)


def _refuse_decimal_permissions(origin: str, text: str, table: Mapping[str, Any]) -> None:
    """`umask = 22` is not what somebody means who thinks of chmod; TOML's own octal numbers begin with 0o."""
    for key, value in table.items():
        row = _find(key)
        if row is None or row.kind.metavar != Permissions.metavar or not isinstance(value, int) or value == 0:
            continue
        if not re.search(rf"""^\s*["']?{re.escape(key)}["']?\s*=\s*0[ox]""", text, re.MULTILINE):
            raise ConfigError(f'{key} in {origin} is a decimal number; write octal permissions as 0o{value} or "{value}"')


def _layer(origin: str, table: Mapping[str, Any]) -> Layer:
    layer = Layer(origin)
    for key, value in table.items():
        row = _find(key)
        if row is None:
            advice = foreign.advice(key) or "`duckfast --print-config` lists all settings"
            raise ConfigError(f"{origin}: there is no setting {key!r}; {_without_dashes(advice)}")
        if row.name in layer.values:
            raise ConfigError(f"{origin}: {layer.spelled(row.name)} and {key} are the same setting; leave one out")
        layer.values[row.name] = row.read(value, f"{key} in {origin}")
        layer.spellings[row.name] = key
    return layer


def _find(key: str) -> Setting | None:
    """The setting of a key: its own name with dashes or underscores, or another server's name for it."""
    name = key.replace("-", "_")
    if name not in SETTINGS:
        name = foreign.counterpart(key) or ""
    return SETTINGS.get(name)


def _without_dashes(advice: str) -> str:
    # What is meant is a key here.
    return advice.replace("did you mean --", "did you mean ")


def _run(name: str, path: str, text: bytes) -> dict[str, Any]:
    """The settings that a Python file makes: what it assigns at its upper level, and imported names that are settings.

    Functions, classes, modules and names with an underscore in front are the file's own.
    """
    namespace: dict[str, Any] = {"__name__": "duckfast_config", "__file__": path, "__builtins__": __builtins__}
    directory = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, directory)
    try:
        tree = ast.parse(text, path)
        exec(compile(tree, path, "exec"), namespace)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name} failed{_line_of(error, path)}: {type(error).__name__}: {error}") from None
    finally:
        if directory in sys.path:
            sys.path.remove(directory)
    assigned = _assigned(tree.body)
    return {
        key: value
        for key, value in namespace.items()
        if not key.startswith("_") and (_find(key) is not None or key in assigned or key in foreign.HOOKS)
    }


def _line_of(error: BaseException, path: str) -> str:
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" in line {line}" if line else ""


def _assigned(body: Iterable[ast.AST]) -> set[str]:
    """Names that the statements bind by assignment, outside of functions and classes."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.If, ast.Try, ast.With, ast.Tuple, ast.List, ast.Name, ast.Starred)):
            names |= _assigned(ast.iter_child_nodes(node))
    return names


# Joining ----------------------------------------------------------------------------------------------------------------


def _misspelled(variables: Mapping[str, str]) -> list[str]:
    near = misspelled_environment(variables)
    return [f"{name} is not a setting and has no effect; did you mean {meant}?" for name, meant in near.items()]


def _environment_layer(variables: Mapping[str, str], where: str = "") -> Layer:
    values = read_environment(variables)
    names = {name: SETTINGS[name].environment_name + where for name in values}
    return Layer("", values, names)


def _join(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """All values, later layers winning, and where each came from. Raises ConfigError for addresses that contradict."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, DEFAULT)
    for layer in layers:
        single = [layer.spelled(name) for name in SINGLE_ADDRESS if name in layer.values]
        others = [layer.spelled(name) for name in OTHER_ADDRESSES if layer.values.get(name) not in (None, [])]
        if single and others and layer.origin:  # in an environment that several people fill, the others win
            bind = "bind" if layer.origin != COMMAND_LINE else "--bind"
            where = "" if layer.origin == COMMAND_LINE else f"{layer.origin}: "
            raise ConfigError(
                f"{where}{' and '.join(single)} cannot be combined with {' and '.join(others)}; give every address with {bind}"
            )
        if single or others:
            for name in OTHER_ADDRESSES:  # an address replaces all those of earlier sources
                values.pop(name, None)
                origins[name] = DEFAULT
        for name, value in layer.values.items():
            if name == "env":  # each variable is a setting of its own
                value = list((dict(values.get(name, [])) | dict(value)).items())
            values[name] = value
            origins[name] = layer.origin or layer.spelled(name)
    return values, origins
