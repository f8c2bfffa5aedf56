"""The command `duckfast`, made from the table of settings. Knows click and the environment; serves nothing itself."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

import click

from . import __version__, log
from .config import GROUPS, SETTINGS, Config, Setting, misspelled_environment, nearest_setting, read_environment
from .exceptions import ConfigError
from .kinds import Many, Switch
from .server import serve, tell

PROGRAM = "duckfast"
MAX_HELP_WIDTH = 110  # columns; longer lines are hard to read
HELP_INDENT = 6  # columns
OTHER_ADDRESSES = ("bind", "uds", "fd")  # used in place of host and port

INTRODUCTION = f"""\
Usage: {PROGRAM} [OPTIONS] [TARGET]

  Serve a WSGI or ASGI application; without a target, the built-in demo page.

  TARGET is module:attribute, module:factory(), module (its app or application)
  or a path: app.py, dir/app.py:attribute. [DUCKFAST_APP]

  Times take a unit (500ms, 10s, 2m, 1h), sizes too (8190, 64k, 10m). Every
  option can also be set in the environment, by the name in its brackets; the
  command line wins.
"""


class Command(click.Command):
    """click's command with help in groups, each option with its default and environment name."""

    def get_help(self, ctx: click.Context) -> str:
        width = min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH)
        parts = [INTRODUCTION]
        for group in GROUPS:
            rows = [row for row in SETTINGS.values() if row.group == group and row.flags]
            if rows:
                parts.append(f"{group}:\n" + "".join(_help_of(row, width) for row in rows))
        parts.append("Other:\n  --version\n      Show the version and exit.\n  -h, --help\n      Show this and exit.")
        return "\n".join(parts)


def _help_of(row: Setting, width: int) -> str:
    metavar = f" {row.kind.metavar}" if row.kind.metavar else ""
    default = row.kind.show(row.default)
    notes = [f"default: {default}"] if default else []
    notes.append(row.environment_name)
    text = textwrap.wrap(f"{row.help} [{'; '.join(notes)}]", width - HELP_INDENT, break_on_hyphens=False)
    flags = ", ".join(row.flags).replace(", --no-", " / --no-") if isinstance(row.kind, Switch) else ", ".join(row.flags)
    return f"  {flags}{metavar}\n{textwrap.indent(chr(10).join(text), ' ' * HELP_INDENT)}\n"


def _option_of(row: Setting) -> click.Option:
    if isinstance(row.kind, Switch):
        # click's spelling of a switch that has two sides: "--on/--off", " /--off" for one that has only the second.
        spellings = [f" /{flag}" if flag.startswith("--no-") else flag for flag in (*row.flags, *row.aliases)]
        return click.Option([*spellings, row.name], is_flag=True, default=None)
    # Text as it was typed: the table reads it, so that every source of settings has the same rules and errors.
    return click.Option([*row.flags, *row.aliases, row.name], type=str, multiple=isinstance(row.kind, Many), default=None)


def _options() -> Iterable[click.Parameter]:
    yield click.Argument(["app"], required=False)
    for row in SETTINGS.values():
        if row.flags:
            yield _option_of(row)
    yield click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version)


def _show_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


def read_command_line(given: dict[str, Any]) -> dict[str, Any]:
    """Settings from what click found; what was not given is left out. Raises ConfigError that names the option."""
    settings = {}
    for name, value in given.items():
        row = SETTINGS[name]
        if value is None or value == ():
            continue
        source = row.flags[-1] if row.flags else "TARGET"
        if isinstance(row.kind, Many):
            settings[name] = row.read(list(value), source)
        else:
            settings[name] = row.read(value, source)
    return settings


def join(environment: dict[str, Any], command_line: dict[str, Any]) -> dict[str, Any]:
    """Both sources of settings; the command line wins, and an address there replaces every one in the environment."""
    single = [f"--{name}" for name in ("host", "port") if name in command_line]
    others = [SETTINGS[name].flags[-1] for name in OTHER_ADDRESSES if name in command_line]
    if single and others:
        raise ConfigError(
            f"{' and '.join(single)} cannot be combined with {' and '.join(others)}; give every address with --bind"
        )
    if single or others:
        environment = {name: value for name, value in environment.items() if name not in OTHER_ADDRESSES}
    return {**environment, **command_line}


def _serve(**given: Any) -> None:
    try:
        config = Config(**join(read_environment(os.environ), read_command_line(given)))
    except ConfigError as error:
        _refuse(str(error))
    log.configure(config.log_level)
    for name, meant in misspelled_environment(os.environ).items():
        log.log.warning("%s is not a setting and has no effect; did you mean %s?", name, meant)
    sys.exit(serve(config))


COMMAND = Command(
    PROGRAM,
    params=list(_options()),
    callback=_serve,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _refuse(line: str) -> NoReturn:
    error = ConfigError(line)
    tell(error)
    sys.exit(error.exit_code)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and end the process: 0 after a graceful stop, 2 for a wrong use, 3 when the application fails."""
    try:
        COMMAND.main(arguments, PROGRAM, standalone_mode=False)
    except click.NoSuchOption as error:
        near = nearest_setting(error.option_name)
        advice = f"did you mean {SETTINGS[near].flags[0]}?" if near else f"`{PROGRAM} --help` lists all options"
        _refuse(f"there is no option {error.option_name}; {advice}")
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        _refuse(f"{message[:1].lower()}{message[1:]}; `{PROGRAM} --help` lists all options")
    except click.exceptions.Abort:
        sys.exit(130)  # interrupted before the server handled signals
