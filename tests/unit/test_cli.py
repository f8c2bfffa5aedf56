"""cli.py: from words on the command line and in the environment to settings. Real processes are under tests/doors."""

from __future__ import annotations

from typing import Any

import click
import pytest

from duckfast import __version__
from duckfast.cli import ACTIONS, COMMAND, main, read_command_line
from duckfast.config import GROUPS, SETTINGS, Config
from duckfast.exceptions import ConfigError
from duckfast.kinds import Switch


def settings_of(*arguments: str) -> dict[str, Any]:
    given = COMMAND.make_context("duckfast", list(arguments)).params
    return read_command_line({name: value for name, value in given.items() if name in SETTINGS}).values


@pytest.fixture(scope="module")
def help_text() -> str:
    return COMMAND.get_help(click.Context(COMMAND))


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def test_nothing_given_gives_no_settings() -> None:
    assert settings_of() == {}


def test_target_and_options_become_settings() -> None:
    given = settings_of("module:app", "--port", "80", "--timeout-write=2m", "--no-access-log", "--factory")
    assert given == {"app": "module:app", "port": 80, "timeout_write": 120.0, "access_log": False, "factory": True}


def test_every_setting_has_an_option() -> None:
    examples = {"bind": "a:1", "headers": "A: b", "env": "A=b", "root_path": "/a"}
    for row in SETTINGS.values():
        for flag in (*row.flags, *row.aliases):
            if isinstance(row.kind, Switch):
                assert settings_of(flag) == {row.name: not flag.startswith("--no-")}
                continue
            text = examples.get(row.name) or row.kind.show(row.default) or "text"
            assert settings_of(flag, text).keys() == {row.name}


def test_repeated_options_add_up() -> None:
    given = settings_of("-b", "a:1", "--bind", "unix:/a,b", "--header", "A: b, c", "--header", "D: e")
    assert given == {"bind": ["a:1", "unix:/a,b"], "headers": [("A", "b, c"), ("D", "e")]}


def test_names_of_other_servers_are_accepted() -> None:
    given = settings_of("--keep-alive", "2", "--graceful-timeout", "9", "--worker-connections", "7", "--blocking-threads", "4")
    assert given == {"timeout_keep_alive": 2.0, "timeout_graceful_shutdown": 9.0, "limit_connections": 7, "threads": 4}


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (("--proxy-headers",), "x-forwarded"),
        (("--proxy-headers", "--port", "1"), "x-forwarded"),
        (("--proxy-headers", "forwarded", "module:app"), "forwarded"),
        (("--proxy-headers=forwarded",), "forwarded"),
        (("--proxy-headers", "OFF"), "off"),
        (("--proxy-headers", "true"), "x-forwarded"),
        (("--proxy-headers", "false"), "off"),
        (("--no-proxy-headers",), "off"),
    ],
)
def test_switch_of_other_servers_is_a_mode_here(arguments: tuple[str, ...], mode: str) -> None:
    assert settings_of(*arguments)["proxy_headers"] == mode


def test_bare_mode_does_not_swallow_the_target() -> None:
    assert settings_of("--proxy-headers", "module:app") == {"proxy_headers": "x-forwarded", "app": "module:app"}
    assert settings_of("--proxy-protocol", "module:app") == {"proxy_protocol": "auto", "app": "module:app"}
    assert settings_of("--no-proxy-protocol", "--", "--proxy-headers") == {"proxy_protocol": "off", "app": "--proxy-headers"}


def test_trusted_peers_come_with_commas_or_one_by_one() -> None:
    given = settings_of("--forwarded-allow-ips", "10.0.0.0/8, ::1", "--forwarded-allow-ips", "unix", "--proxy-allow-from", "*")
    assert given == {"forwarded_allow_ips": ["10.0.0.0/8", "::1", "unix"], "proxy_allow_from": ["*"]}
    with pytest.raises(ConfigError, match=r"^--forwarded-allow-ips must be an address, .* got '10.0.0.1/8'$"):
        settings_of("--forwarded-allow-ips", "::1,10.0.0.1/8")


def test_bad_value_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--port must be .* got 'x'$"):
        settings_of("--port", "x")
    with pytest.raises(ConfigError, match=r"^--header must be .* got 'x'$"):
        settings_of("--header", "a: b", "--header", "x")


def test_short_names_of_gunicorn_are_ours() -> None:
    given = settings_of("-p", "a.pid", "-u", "web", "-g", "www", "-m", "027", "-n", "site", "-D", "-e", "A=b=c")
    assert given == {
        "pid": "a.pid",
        "user": "web",
        "group": "www",
        "umask": 0o027,
        "name": "site",
        "daemon": True,
        "env": [("A", "b=c")],
    }


def test_help_shows_every_group_option_default_and_environment_name(help_text: str) -> None:
    words = " ".join(help_text.split())
    groups = {row.group for row in SETTINGS.values()}
    assert [group for group in GROUPS if f"\n{group}:\n" in help_text] == [group for group in GROUPS if group in groups]
    for row in SETTINGS.values():
        assert row.environment_name in words or (not row.flags and row.name != "app")  # set in code only
        for flag in row.flags:
            assert flag in words
    for flags in ACTIONS:
        assert ", ".join(flags) in words
    assert "[default: 127.0.0.1; DUCKFAST_HOST]" in words
    assert "[default: 64k; DUCKFAST_LIMIT_REQUEST_HEAD]" in words
    assert "--access-log / --no-access-log" in words


def test_help_hides_the_names_of_other_servers(help_text: str) -> None:
    for row in SETTINGS.values():
        assert not [alias for alias in row.aliases if f"{alias} " in help_text]


def test_help_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, COMMAND.get_help(click.Context(COMMAND)).splitlines())) <= 80


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    COMMAND.main(["--version"], standalone_mode=False)
    assert capsys.readouterr().out == f"duckfast {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--prot", "1"), "there is no option --prot; did you mean --port?"),
        (("--workers-connections", "1"), "there is no option --workers-connections; did you mean --limit-connections?"),
        (("--runtime-mode", "st"), "there is no option --runtime-mode; nothing to set here; leave it out"),
        (("--frobnicate",), "there is no option --frobnicate; `duckfast --help` lists all options"),
        (("--port",), "option '--port' requires an argument; `duckfast --help` lists all options"),
        (("a", "b"), "got unexpected extra argument (b); `duckfast --help` lists all options"),
        (("--loop", "trio"), "--loop must be auto, uvloop or asyncio; got 'trio'"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], line: str
) -> None:
    assert ended(capsys, *arguments) == (2, "", f"duckfast: {line}\n")


def test_everything_read_is_a_config() -> None:
    assert Config(**settings_of("-b", "a:1", "--threads", "auto")).bind == ["a:1"]
