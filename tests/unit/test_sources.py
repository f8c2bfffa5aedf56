"""sources.py: files, environment, command line and systemd, joined; and printing.py, which writes the result down."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from duckfast import printing
from duckfast.config import SETTINGS, Config
from duckfast.exceptions import ConfigError
from duckfast.sources import COMMAND_LINE, Layer, Reading, Sources, read_file, reload


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def sources(file: str | None = None, environment: dict[str, str] | None = None, **command_line: Any) -> Sources:
    spellings = {name: f"--{name}" for name in command_line}
    return Sources.take(Layer(COMMAND_LINE, command_line, spellings), file, dict(environment or {}))


def read(file: str | None = None, environment: dict[str, str] | None = None, **command_line: Any) -> Reading:
    return sources(file, environment, **command_line).read()


def refusal(file: str | None = None, environment: dict[str, str] | None = None, **command_line: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(file, environment, **command_line)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What wins ----------------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_defaults() -> None:
    reading = read()
    assert reading.config == Config()
    assert set(reading.origins.values()) == {"default"}
    assert reading.origins.keys() == SETTINGS.keys()


def test_trust_of_other_servers_is_read_and_ours_goes_before_it() -> None:
    assert read(environment={"FORWARDED_ALLOW_IPS": "10.0.0.1, *"}).config.forwarded_allow_ips == ["10.0.0.1", "*"]
    both = {"FORWARDED_ALLOW_IPS": "*", "DUCKFAST_FORWARDED_ALLOW_IPS": "unix"}
    assert read(environment=both).config.forwarded_allow_ips == ["unix"]
    assert read(environment={"FORWARDED_ALLOW_IPS": ""}).config == Config()
    assert refusal(environment={"FORWARDED_ALLOW_IPS": "me"}).startswith("FORWARDED_ALLOW_IPS must be an address")


def test_later_sources_win() -> None:
    write("duckfast.toml", 'threads = 1\nbacklog = 1\nlimit-drain = 1\nlimit-request-fields = 1\nloop = "asyncio"\n')
    write("more.toml", "threads = 2\nbacklog = 2\nlimit_drain = 2\nlimit-request-fields = 2\n")
    write(".env", "DUCKFAST_THREADS=3\nDUCKFAST_BACKLOG=3\nDUCKFAST_LIMIT_DRAIN=3\n")
    environment = {"DUCKFAST_THREADS": "4", "DUCKFAST_BACKLOG": "4"}
    reading = read("more.toml", environment, threads=5, env_file=[".env"])
    config = reading.config
    assert (config.threads, config.backlog, config.limit_drain) == (5, 4, 3)
    assert (config.limit_request_fields, config.loop) == (2, "asyncio")
    assert {name: origin for name, origin in reading.origins.items() if origin != "default"} == {
        "threads": "command line",
        "env_file": "command line",
        "backlog": "DUCKFAST_BACKLOG",
        "limit_drain": "DUCKFAST_LIMIT_DRAIN of --env-file or --env",
        "limit_request_fields": "more.toml",
        "loop": "duckfast.toml",
    }


def test_only_one_of_the_project_files_is_read() -> None:
    write("pyproject.toml", "[tool.duckfast]\nport = 1\nbacklog = 7\n[tool.other]\nx = 1\n")
    reading = read()
    assert (reading.config.port, reading.config.backlog) == (1, 7)
    assert reading.origins["port"] == "pyproject.toml [tool.duckfast]"
    write("duckfast.toml", "port = 2\n")
    assert (read().config.port, read().config.backlog) == (2, 2048)


def test_pyproject_without_a_table_of_ours_gives_nothing() -> None:
    write("pyproject.toml", '[project]\nname = "x"\n')
    assert read().config == Config()
    write("pyproject.toml", "[tool]\nduckfast = 3\n")
    assert refusal() == "'duckfast' must be a table in pyproject.toml"


def test_file_can_be_named_in_the_environment_and_the_command_line_wins() -> None:
    write("a.toml", "port = 1")
    write("b.toml", "port = 2")
    assert read(environment={"DUCKFAST_CONFIG": "a.toml"}).config.port == 1
    assert read("b.toml", environment={"DUCKFAST_CONFIG": "a.toml"}).config.port == 2
    assert read("file:b.toml").config.port == 2
    assert read("b.toml", environment={"DUCKFAST_CONFIG": "a.toml"}).notes == []


def test_paths_are_those_of_the_start_after_the_directory_has_changed(folder: Path) -> None:
    write("duckfast.toml", 'port = 1\nenv-file = [".env"]\n')
    write("a.toml", "backlog = 5")
    write(".env", "DUCKFAST_THREADS=3\n")
    taken = sources("a.toml")
    os.chdir("/")
    config = reload(taken)
    assert (config.port, config.backlog, config.threads) == (1, 5, 3)


def test_reload_sees_changed_files_and_the_old_configuration_survives_a_mistake() -> None:
    write("duckfast.toml", "port = 1")
    taken = sources(threads=2)
    config = reload(taken)
    write("duckfast.toml", "port = 2")
    assert (reload(taken).port, reload(taken).threads) == (2, 2)
    write("duckfast.toml", "prot = 3")
    with pytest.raises(ConfigError, match="did you mean port"):
        reload(taken)
    assert config.port == 1


def test_name_that_platforms_set_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("duckfast.config").config.FALLBACKS, "threads", "WEB_CONCURRENCY")
    environment = {"WEB_CONCURRENCY": "6"}
    reading = read(environment=environment)
    assert (reading.config.threads, reading.origins["threads"]) == (6, "WEB_CONCURRENCY")
    assert refusal(environment={"WEB_CONCURRENCY": "x"}).startswith("WEB_CONCURRENCY must be ")
    write("duckfast.toml", "threads = 2")
    assert read(environment=environment).config.threads == 2


def test_trust_that_platforms_set_is_honoured() -> None:
    reading = read(environment={"FORWARDED_ALLOW_IPS": "10.0.0.0/8"})
    assert (reading.config.forwarded_allow_ips, reading.origins["forwarded_allow_ips"]) == (["10.0.0.0/8"], "FORWARDED_ALLOW_IPS")
    assert Config().forwarded_allow_ips != ["10.0.0.0/8"]  # in code nothing is read from the environment


# Addresses ----------------------------------------------------------------------------------------------------------


def test_address_replaces_those_of_earlier_sources() -> None:
    write("duckfast.toml", 'bind = ["a:1"]\nuds = "b"\n')
    assert read().config.bind == ["a:1"]
    config = read(environment={"DUCKFAST_PORT": "3"}).config
    assert (config.bind, config.uds, config.port) == ([], None, 3)
    config = read(fd=5).config
    assert (config.bind, config.uds, config.fd) == ([], None, 5)


def test_port_beside_other_addresses_is_refused() -> None:
    assert refusal(port=1, bind=["a:1"], uds="b") == (
        "--port cannot be combined with --bind and --uds; give every address with --bind"
    )
    write("duckfast.toml", 'port = 1\nbind = "a:1"\n')
    assert refusal() == "duckfast.toml: port cannot be combined with bind; give every address with bind"


def test_other_addresses_win_over_a_port_of_the_same_environment() -> None:
    config = read(environment={"DUCKFAST_PORT": "3", "DUCKFAST_UDS": "a"}).config
    assert (config.port, config.uds) == (3, "a")


def passed(number: int) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number)}


def test_sockets_of_systemd_replace_every_address_but_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "set_inheritable", lambda fd, value: None)  # 3 and 4 belong to somebody else here
    write("duckfast.toml", 'uds = "b"\n')
    taken = sources(environment={**passed(2), "DUCKFAST_BIND": "a:1"})
    reading = taken.read()
    assert reading.config.bind == ["inherited://3", "inherited://4"]
    assert reading.config.uds is None
    assert reading.origins["bind"] == "LISTEN_FDS"
    assert "LISTEN_FDS" not in taken.environment
    assert reload(taken).bind == reading.config.bind
    reading = read(environment=passed(1), port=5)
    assert reading.config.bind == []
    assert reading.notes == ["the sockets of LISTEN_FDS are not used, because the command line gives an address"]


# TOML ---------------------------------------------------------------------------------------------------------------


def test_toml_gives_every_kind_of_value() -> None:
    write(
        "duckfast.toml",
        """
        app = "module:app"
        factory = true
        port = 8001
        timeout-keep-alive = "2m"
        timeout_write = 1.5
        limit-request-body = "10m"
        limit-connections = "none"
        headers = ["A: b", "C: d"]
        uds-permissions = 0o660
        umask = "027"
        env-file = ".env"
        [env]
        WORD = "x"
        NUMBER = 3
        """,
    )
    write(".env", "")
    config = read().config
    assert (config.app, config.factory, config.port, config.timeout_keep_alive) == ("module:app", True, 8001, 120.0)
    assert (config.timeout_write, config.limit_request_body, config.limit_connections) == (1.5, 10 * 1024**2, None)
    assert config.headers == [("A", "b"), ("C", "d")]
    assert (config.uds_permissions, config.umask) == (0o660, 0o027)
    assert config.env == [("WORD", "x"), ("NUMBER", "3")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot = 1", "duckfast.toml: there is no setting 'prot'; did you mean port?"),
        ("frobnicate = 1", "duckfast.toml: there is no setting 'frobnicate'; `duckfast --print-config` lists all settings"),
        ("worker_class = 'x'", "duckfast.toml: there is no setting 'worker_class'; the application decides, or --interface;"),
        ("port = 'x'", "port in duckfast.toml must be a whole number from 0 to 65535; got 'x'"),
        ("time-out-write = 3", "duckfast.toml: there is no setting 'time-out-write'; did you mean timeout-write?"),
        ("timeout-write = 2026-11-24", "timeout-write in duckfast.toml must be a time"),
        ("keepalive = 3\ntimeout_keep_alive = 4", "duckfast.toml: keepalive and timeout_keep_alive are the same setting"),
        ("port = ", "duckfast.toml is not valid TOML: "),
        ("umask = 22", 'umask in duckfast.toml is a decimal number; write octal permissions as 0o22 or "22"'),
        ("uds-permissions = 400", "uds-permissions in duckfast.toml is a decimal number; "),
        ("config = 'x'", "duckfast.toml: there is no setting 'config'"),
    ],
)
def test_mistake_in_a_file_names_the_file_and_the_key(text: str, line: str) -> None:
    write("duckfast.toml", text)
    assert refusal().startswith(line)


def test_file_that_cannot_be_read_is_told() -> None:
    assert refusal("no.toml") == "cannot read settings from no.toml: No such file or directory"
    assert refusal("settings.yaml") == "cannot read settings from 'settings.yaml': its name must end in .toml or .py"


def test_names_of_other_servers_are_accepted_in_files() -> None:
    write("duckfast.toml", 'keepalive = 3\ngraceful-timeout = 4\nworker_connections = 5\nwsgi_app = "a:b"\npidfile = "x"\n')
    config = read().config
    assert (config.timeout_keep_alive, config.timeout_graceful_shutdown, config.limit_connections) == (3.0, 4.0, 5)
    assert (config.app, config.pid) == ("a:b", "x")


# Python -------------------------------------------------------------------------------------------------------------


def test_python_file_gives_what_it_assigns() -> None:
    write("helpers.py", "backlog = 9\nfolder = 'x'\nunknown = 3\n")
    write(
        "gunicorn.conf.py",
        """
import os
import multiprocessing
from helpers import backlog, folder, unknown
_cpus = 3

def double(number):
    return number * 2

class Helper:
    pass

threads = double(_cpus)
if True:
    bind = ["127.0.0.1:1", f"unix:{folder}"]
raw_env = ["A=b"]
keepalive = 7
umask = 0o027
proc_name = "site"
""",
    )
    reading = read("gunicorn.conf.py")
    config = reading.config
    assert (config.threads, config.bind, config.env, config.backlog) == (6, ["127.0.0.1:1", "unix:x"], [("A", "b")], 9)
    assert (config.timeout_keep_alive, config.umask, config.name) == (7.0, 0o027, "site")
    assert reading.origins["bind"] == "gunicorn.conf.py"


def test_python_file_may_give_the_application_itself() -> None:
    write("settings.py", "def app(environ, start_response): ...\n")
    assert callable(read("settings.py").config.app)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("thread = 3", "settings.py: there is no setting 'thread'; did you mean threads?"),
        ("if True:\n    cpus, other = 3, 4", "settings.py: there is no setting 'cpus'; "),
        ("def post_fork(server, worker): ...", "settings.py: there is no setting 'post_fork'; there are no hooks; "),
        ("a = b", "settings.py failed in line 1: NameError: name 'b' is not defined"),
        ("\nport =", "settings.py failed in line 2: SyntaxError: "),
        ("import sys\nsys.exit(3)", "settings.py failed in line 2: SystemExit: 3"),
    ],
)
def test_mistake_in_a_python_file_is_told(text: str, line: str) -> None:
    write("settings.py", text)
    assert refusal("settings.py").startswith(line)


# The environment ----------------------------------------------------------------------------------------------------


def test_variables_from_several_sources_add_up() -> None:
    write("duckfast.toml", '[env]\nA = "file"\nB = "file"\n')
    assert read(env=[("B", "line"), ("C", "line")]).config.env == [("A", "file"), ("B", "line"), ("C", "line")]


def test_env_file_can_be_named_anywhere_but_in_an_env_file() -> None:
    write(".env", "DUCKFAST_THREADS=3\n")
    assert read(environment={"DUCKFAST_ENV_FILE": ".env"}).config.threads == 3
    write(".env", "DUCKFAST_CONFIG=a.toml\n")
    assert refusal(env_file=[".env"]).startswith("DUCKFAST_CONFIG cannot be set by --env-file or --env")


def test_mistakes_in_the_environment_are_told() -> None:
    assert refusal(environment={"DUCKFAST_PORT": "x"}).startswith("DUCKFAST_PORT must be ")
    write(".env", "DUCKFAST_PORT=x\n")
    assert refusal(env_file=[".env"]).startswith("DUCKFAST_PORT must be ")
    notes = read(environment={"DUCKFAST_PROT": "1"}).notes
    assert notes == ["DUCKFAST_PROT is not a setting and has no effect; did you mean DUCKFAST_PORT?"]
    write(".env", "DUCKFAST_THREDS=3\n")
    assert read(env_file=[".env"]).notes == [
        "DUCKFAST_THREDS is not a setting and has no effect; did you mean DUCKFAST_THREADS?"
    ]


# Writing it down ----------------------------------------------------------------------------------------------------


def test_what_is_printed_gives_the_same_configuration() -> None:
    write("duckfast.toml", 'app = "a:b"\nlimit-request-body = "10m"\nuds-permissions = "660"\n')
    reading = read(bind=["a:1", 'unix:/x"y\\z'], headers=[("A", "é")], threads=3, access_log=False)
    text = printing.describe(reading.config, reading.origins)
    write("printed.toml", text)
    os.unlink("duckfast.toml")
    assert read("printed.toml").config == reading.config


def test_every_setting_is_printed_with_its_origin() -> None:
    reading = read(environment={"DUCKFAST_BACKLOG": "7"}, threads=3)
    text = printing.describe(reading.config, reading.origins)
    assert tomllib.loads(text).keys() == {name.replace("_", "-") for name, row in SETTINGS.items() if row.flags}
    lines = {line.split(" = ")[0]: line for line in text.splitlines()}
    assert lines["backlog"].split() == ["backlog", "=", "7", "#", "DUCKFAST_BACKLOG"]
    assert lines["threads"].split() == ["threads", "=", "3", "#", "command", "line"]
    assert lines["host"].split() == ["host", "=", '"127.0.0.1"', "#", "default"]
    assert lines["port"].split() == ["port", "=", "8000", "#", "default"]
    assert "# app: the built-in demo page" in text


def test_secrets_are_not_printed() -> None:
    reading = read(env=[("PASSWORD", "xyzzy")])
    text = printing.describe(reading.config, reading.origins)
    assert "xyzzy" not in text
    assert 'env = ["PASSWORD=***"]' in text


def test_settings_of_a_file_can_be_read_alone() -> None:
    assert read_file(write("a.toml", "port = 3")).values == {"port": 3}
