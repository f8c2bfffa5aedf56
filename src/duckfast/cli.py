"""The command `duckfast`, made from the table of settings. Knows click and the environment; serves nothing itself."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import click

from . import __version__, foreign, identity, log, printing
from .config import CONFIGURATION, FILE_VARIABLE, GROUPS, SETTINGS, Setting
from .exceptions import ConfigError, DuckfastError
from .kinds import Many, Mode, Switch
from .processes import serve
from .server import check, tell
from .sources import COMMAND_LINE, Layer, Sources, reload

PROGRAM = "duckfast"
MAX_HELP_WIDTH = 110  # columns; longer lines are hard to read
HELP_INDENT = 6  # columns

_WORD = "word_"  # before click's name of a flag that is one value of a setting

INTRODUCTION = f"""\
Usage: {PROGRAM} [OPTIONS] [TARGET]

  Serve a WSGI or ASGI application; without a target, the built-in demo page.

  TARGET is module:attribute, module:factory(), module (its app or application)
  or a path: app.py, dir/app.py:attribute. [DUCKFAST_APP]

  Times take a unit (500ms, 10s, 2m, 1h), sizes too (8190, 64k, 10m). Every
  option can also be set in a file (duckfast.toml, pyproject.toml, --config)
  and in the environment, by the name in its brackets. Later ones win, the
  command line last.
"""

# Options that are no settings: what to do, and where settings are.
ACTIONS = {
    ("-c", "--config"): ("FILE", f"Read settings from this file, TOML or Python, too. [{FILE_VARIABLE}]"),
    ("--print-config",): ("", "Show every setting as TOML, with where it comes from, and exit."),
    ("--check-config",): ("", "Load the settings and the application, say whether all is well, and exit."),
}


class Command(click.Command):
    """click's command with help in groups, each option with its default and environment name."""

    def get_help(self, ctx: click.Context) -> str:
        width = min(shutil.get_terminal_size().columns, MAX_HELP_WIDTH)
        parts = [INTRODUCTION]
        for group in GROUPS:
            rows = [row for row in SETTINGS.values() if row.group == group and row.flags]
            text = "".join(_help_of(row, width) for row in rows)
            if group == CONFIGURATION:
                text = "".join(_entry(flags, *entry, width) for flags, entry in ACTIONS.items()) + text
            if text:
                parts.append(f"{group}:\n{text}")
        parts.append("Other:\n  --version\n      Show the version and exit.\n  -h, --help\n      Show this and exit.")
        return "\n".join(parts)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_spell_out_modes(args)))


def _spell_out_modes(arguments: list[str]) -> Iterator[str]:
    """`--proxy-headers` without a word behind it, and `--no-proxy-headers`: what other servers' switches are called."""
    modes = {flag: row.kind for row in SETTINGS.values() for flag in row.flags if isinstance(row.kind, Mode)}
    for place, argument in enumerate(arguments):
        if argument == "--":
            yield from arguments[place:]
            return
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        positive = argument.replace("--no-", "--", 1)
        if argument in modes and not modes[argument].knows(following):
            yield f"{argument}={modes[argument].on}"
        elif positive != argument and positive in modes:
            yield f"{positive}=off"
        else:
            yield argument


def _help_of(row: Setting, width: int) -> str:
    default = row.kind.show(row.default)
    notes = [f"default: {default}"] if default else []
    notes += [name for name in (row.environment_name, row.fallback_name) if name]
    return _entry(row.flags, row.kind.metavar, f"{row.help} [{'; '.join(notes)}]", width)


def _entry(flags: tuple[str, ...], metavar: str, text: str, width: int) -> str:
    spellings = ", ".join(flags).replace(", --no-", " / --no-")
    lines = textwrap.wrap(text, width - HELP_INDENT, break_on_hyphens=False)
    head = f"{spellings} {metavar}".rstrip()
    return f"  {head}\n{textwrap.indent(chr(10).join(lines), ' ' * HELP_INDENT)}\n"


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
        for flag, value in row.words.items():
            yield click.Option([flag, _WORD + flag.strip("-").replace("-", "_")], flag_value=value, default=None)
    for flags, (metavar, _) in ACTIONS.items():
        yield click.Option(flags, is_flag=not metavar, type=str if metavar else None, default=None)
    yield click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version)


def _spell_out(given: dict[str, Any]) -> dict[str, Any]:
    """Flags that stand for one value of a setting, as that setting; its own option wins."""
    settings = {name: value for name, value in given.items() if not name.startswith(_WORD)}
    for row in SETTINGS.values():
        for flag in row.words:
            value = given.get(_WORD + flag.strip("-").replace("-", "_"))
            if value is not None and settings.get(row.name) is None:
                settings[row.name] = value
    return settings


def _show_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"{PROGRAM} {__version__}")
        ctx.exit()


def read_command_line(given: dict[str, Any]) -> Layer:
    """Settings from what click found; what was not given is left out. Raises ConfigError that names the option."""
    layer = Layer(COMMAND_LINE)
    for name, value in _spell_out(given).items():
        row = SETTINGS[name]
        if value is None or value == ():
            continue
        source = row.flags[-1] if row.flags else "TARGET"
        layer.values[name] = row.read(list(value) if isinstance(row.kind, Many) else value, source)
        layer.spellings[name] = source
    return layer


def _run(config: str | None, print_config: bool, check_config: bool, **given: Any) -> None:
    try:
        sources = Sources.take(read_command_line(given), config, os.environ)
        reading = sources.read()
        if print_config:
            click.echo(printing.describe(reading.config, reading.origins), nl=False)
        if check_config or not print_config:
            identity.prepare(reading.config)
            log.configure(reading.config)
            for note in reading.notes:
                log.log.warning(note)
        if check_config:
            click.echo(f"{PROGRAM}: {check(reading.config)}")
    except DuckfastError as error:
        tell(error)
        sys.exit(error.exit_code)
    if not (print_config or check_config):
        sys.exit(serve(reading.config, lambda: reload(sources)))


COMMAND = Command(
    PROGRAM,
    params=list(_options()),
    callback=_run,
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
        advice = foreign.advice(error.option_name) or f"`{PROGRAM} --help` lists all options"
        _refuse(f"there is no option {error.option_name}; {advice}")
    except click.ClickException as error:
        message = error.format_message().rstrip(".")
        _refuse(f"{message[:1].lower()}{message[1:]}; `{PROGRAM} --help` lists all options")
    except click.exceptions.Abort:
        sys.exit(130)  # interrupted before the server handled signals
