"""Writes docs/options.md from the table of settings: `make docs`. With --check only says whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from duckfast.config import GROUPS, SETTINGS, Setting
from duckfast.kinds import Many, Switch

PAGE = Path(__file__).with_name("options.md")

OPENING = """\
# Options

<!-- Written by `make docs` from src/duckfast/config.py. Edit the table there, not this page. -->

Every option has four spellings: `--timeout-keep-alive 10s` on the command line, `DUCKFAST_TIMEOUT_KEEP_ALIVE=10s` in
the environment, `timeout-keep-alive = "10s"` in a [file](configuration.md), `timeout_keep_alive="10s"` as a keyword of
`duckfast.run()` and `duckfast.Config`. The command line wins over the environment, and the environment over files.

Durations take a unit (`500ms`, `10s`, `2m`, `1h`; without one: seconds), sizes too (`8190`, `64k`, `10m`; powers of
1024). Switches have a `--no-` form. An option that may be repeated is, in the environment, one value with the items
separated as its row says, and in code a list.

`duckfast TARGET` serves `module:attribute`, `module:factory()`, `module` (its `app` or `application`) or a path such as
`app.py`; without a target the built-in demo app. The target is `DUCKFAST_APP` in the environment and `app` in code and files.

`-c FILE`, `--config FILE` reads settings from a file too, `--print-config` shows every setting with where it comes from, and
`--check-config` loads settings and application and says whether all is well.
"""

ALIASES = """
## Names of other servers

Accepted with the same meaning, so that an existing command line keeps working:

| theirs | ours |
|---|---|
"""


def code(text: str) -> str:
    """Inline code in a table cell, where a bar needs a backslash even so."""
    return "`{}`".format(text.replace("|", "\\|")) if text else ""


def option(setting: Setting) -> str:
    """The spelling a person types, with what stands behind it."""
    metavar = setting.kind.metavar
    flags = [flag for flag in setting.flags if not (isinstance(setting.kind, Switch) and flag.startswith("--no-"))]
    return ", ".join(code(f"{flag} {metavar}".strip() if flag == flags[-1] else flag) for flag in flags)


def default(setting: Setting) -> str:
    if isinstance(setting.kind, Many) and not setting.default:
        return ""
    return code(setting.kind.show(setting.default))


def row(setting: Setting) -> str:
    names = ", ".join(code(name) for name in (setting.environment_name, setting.fallback_name) if name)
    cells = (option(setting), default(setting), setting.help.replace("|", "\\|"), names)
    return f"| {' | '.join(cells)} |"


def page() -> str:
    rows = [setting for setting in SETTINGS.values() if setting.flags]
    parts = [OPENING]
    groups = {setting.group for setting in rows}
    for group in (group for group in GROUPS if group in groups):
        parts.append(f"\n## {group}\n\n| option | default | | environment |\n|---|---|---|---|\n")
        parts.extend(row(setting) + "\n" for setting in rows if setting.group == group)
    parts.append(ALIASES)
    parts.extend(
        f"| {code(alias)} | {code(setting.flags[-1])} |\n"
        for setting in rows
        for alias in setting.aliases
    )
    return "".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/options.md from the table of settings.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when the page is out of date")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/options.md is out of date: run `make docs`")


if __name__ == "__main__":
    main()
