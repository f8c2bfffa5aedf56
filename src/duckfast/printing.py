"""Settings written down as TOML, each with where it came from: what --print-config shows. Prints nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .config import GROUPS, SETTINGS, Config, Setting
from .kinds import Many
from .sources import OTHER_ADDRESSES, SINGLE_ADDRESS

HIDDEN = "***"
MAX_COLUMN = 56  # where the origins begin, at most


def describe(config: Config, origins: Mapping[str, str]) -> str:
    """Every setting with its value and origin; valid TOML that gives the same configuration, but for what is secret."""
    parts = []
    for group in GROUPS:
        rows = [row for row in SETTINGS.values() if row.group == group]
        if not rows:
            continue
        lines = [(_assignment(row, config), origins[row.name]) for row in rows]
        width = min(MAX_COLUMN, max(len(line) for line, _ in lines))
        parts.append(f"# {group}\n" + "".join(f"{line:<{width}}  # {origin}\n" for line, origin in lines))
    return "\n".join(parts)


def _assignment(row: Setting, config: Config) -> str:
    value = getattr(config, row.name)
    if row.name == "app" and not isinstance(value, str):
        return "# app: " + ("the built-in demo page" if value is None else f"the object {value!r}")
    if row.name != "app" and not row.flags:
        return f"# {row.name.replace('_', '-')}: {'not set' if value is None else value!r}; in code only"
    is_used = row.name not in SINGLE_ADDRESS or all(getattr(config, name) in (None, []) for name in OTHER_ADDRESSES)
    return f"{'' if is_used else '# not used: '}{row.name.replace('_', '-')} = {_toml(row, value)}"


def _toml(row: Setting, value: Any) -> str:
    if isinstance(row.kind, Many) and isinstance(value, list):
        return f"[{', '.join(_quote(_shown(row, [item])) for item in value)}]"
    if isinstance(value, (bool, dict)):
        return _literal(value)
    text = _shown(row, value)
    return text if type(value) is int and text == str(value) else _quote(text)


def _shown(row: Setting, value: Any) -> str:
    text = row.kind.show(value)
    if not row.secret or value is None or value == row.default:
        return text
    name, equals, _ = text.partition("=") if isinstance(row.kind, Many) else ("", "", "")
    return f"{name}{equals}{HIDDEN}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(str(key))} = {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value) if isinstance(value, (int, float)) else _quote(str(value))


def _quote(text: str) -> str:
    # A TOML basic string: JSON's escapes are a part of its own, and DEL is the one character JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
