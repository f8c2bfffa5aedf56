"""Real commands: settings from files, --print-config, --check-config, the environment of the application."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.client import fetch
from support.process import ServerProcess, run_duckfast

Serve = Callable[..., ServerProcess]

WEBSITE = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr([os.environ.get(name) for name in ("A", "B", "LISTEN_FDS")]).encode()]
"""


@pytest.fixture
def website(tmp_path: Path) -> Path:
    (tmp_path / "website.py").write_text(WEBSITE)
    return tmp_path


def test_everything_can_stand_in_a_file(serve: Serve, website: Path) -> None:
    (website / "duckfast.toml").write_text('app = "website:app"\nport = 0\nthreads = 3\n[env]\nA = "a"\n')
    with ServerProcess(["--log-level", "debug", "--bind", "127.0.0.1:0"], cwd=website) as server:
        assert "website:app (wsgi, up to 3 threads)" in server.stderr_text()
        assert fetch(server.url).text == "['a', None, None]"


def test_target_and_python_file_on_the_command_line(serve: Serve, website: Path) -> None:
    (website / "gunicorn.conf.py").write_text('bind = "127.0.0.1:0"\nthreads = 2\nraw_env = ["A=a"]\nwsgi_app = "x:y"\n')
    (website / ".env").write_text("A=file\nB=file\n")
    args = ["-c", "gunicorn.conf.py", "--env-file", ".env", "-b", "127.0.0.1:0", "website:app"]
    server = serve(*args, cwd=website)
    assert "website:app (wsgi, up to 2 threads)" in server.stderr_text()
    assert fetch(server.url).text == "['a', 'file', None]"


def test_printed_configuration_is_toml_with_origins(website: Path) -> None:
    (website / "duckfast.toml").write_text("port = 1234\n")
    ended = run_duckfast("--print-config", "website:app", cwd=website, env={"DUCKFAST_BACKLOG": "5"})
    assert (ended.returncode, ended.stderr) == (0, "")
    table = tomllib.loads(ended.stdout)
    assert (table["app"], table["port"], table["backlog"]) == ("website:app", 1234, 5)
    origins = dict(line.split("  # ") for line in ended.stdout.splitlines() if "  # " in line)
    assert {name.split(" = ")[0]: origin for name, origin in origins.items() if origin != "default"} == {
        "app": "command line",
        "port": "duckfast.toml",
        "backlog": "DUCKFAST_BACKLOG",
    }


def test_check_says_that_all_is_well(website: Path) -> None:
    ended = run_duckfast("--check-config", "website:app", "--uds", "a.sock", cwd=website)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "duckfast: all is well: website:app (wsgi, threads auto) on unix:a.sock\n"
    assert not os.path.exists(website / "a.sock")


def test_check_sees_the_environment_that_the_application_will_have(website: Path) -> None:
    (website / "needs.py").write_text("import os\nname = os.environ['A']\nfrom website import app\n")
    assert run_duckfast("--check-config", "needs:app", cwd=website).returncode == 3
    assert run_duckfast("--check-config", "needs:app", "-e", "A=1", cwd=website).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("website:ap",), 3, "'website' has no attribute 'ap'"),
        (("website:app", "--port", "x"), 2, "--port must be"),
        (("website:app", "-b", "nonsense"), 2, "cannot listen on 'nonsense'"),
        (("website:app", "-c", "no.toml"), 2, "cannot read settings from no.toml"),
        (("website:app", "--user", "no such user"), 2, "--user: the system has no user 'no such user'"),
        (("website:app", "--env-file", "no.env"), 2, "cannot read the env file"),
    ],
)
def test_check_says_what_is_wrong(website: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    ended = run_duckfast("--check-config", *arguments, cwd=website)
    assert (ended.returncode, ended.stdout) == (code, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("duckfast: ")
    assert words in line


def test_unknown_key_is_one_line(website: Path) -> None:
    (website / "pyproject.toml").write_text("[tool.duckfast]\nworker-class = 'x'\nprot = 1\n")
    ended = run_duckfast(cwd=website)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("duckfast: pyproject.toml [tool.duckfast]: there is no setting 'worker-class'; ")
