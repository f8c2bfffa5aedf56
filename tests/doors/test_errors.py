"""Mistakes a person makes: one clear line on stderr, exit code 2 or 3, no traceback of ours."""

from __future__ import annotations

import socket
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.process import run_duckfast

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(source)` makes site.py ... in an empty directory, which it returns."""

    def make(source: str) -> Path:
        (tmp_path / "website.py").write_text(textwrap.dedent(source))
        return tmp_path

    return make


def line_of(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that was said; fails when there was more, or another exit code."""
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("duckfast: ")
    return line.removeprefix("duckfast: ")


def test_unknown_module(tmp_path: Path) -> None:
    line = line_of(run_duckfast("website:app", "--port", "0", cwd=tmp_path), 3)
    assert line.startswith(f"there is no module 'website' in {tmp_path} or the installed packages;")


def test_misspelled_attribute(write: Write) -> None:
    folder = write("def app(environ, start_response): ...")
    line = line_of(run_duckfast("website:ap", "--port", "0", cwd=folder), 3)
    assert line == "'website' has no attribute 'ap'; did you mean 'website:app'?"


def test_attribute_that_is_no_application(write: Write) -> None:
    folder = write("app = 3\ndef site(environ, start_response): ...")
    line = line_of(run_duckfast("website:app", "--port", "0", cwd=folder), 3)
    assert line == "'website:app' is not an application: website.app is a int; what can be called in website: site"


def test_application_that_fails_to_import_shows_its_own_traceback_then_the_line(write: Write) -> None:
    folder = write("def connect():\n    raise RuntimeError('no database')\nconnect()\n")
    ended = run_duckfast("website:app", "--port", "0", cwd=folder)
    assert ended.returncode == 3
    *traceback, line = ended.stderr.splitlines()
    assert line == "duckfast: importing 'website' failed: RuntimeError: no database"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == "RuntimeError: no database"
    frames = [frame for frame in traceback if frame.startswith("  File")]
    assert len(frames) == 2
    assert all("website.py" in frame for frame in frames)


def test_factory_that_is_served_without_calling_it(write: Write) -> None:
    folder = write("def create_app(): ...")
    line = line_of(run_duckfast("website:create_app", "--port", "0", cwd=folder), 3)
    assert line.startswith("cannot tell whether create_app is ASGI or WSGI: it takes 0 arguments")
    assert "--factory" in line


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = line_of(run_duckfast("--port", str(port)), 2)
    assert line == f"cannot listen on 127.0.0.1:{port}: the address is in use; stop the other server or choose another port"


def test_port_in_use_is_told_before_the_application_is_imported(write: Write) -> None:
    folder = write("print('imported')")
    with socket.create_server(("127.0.0.1", 0)) as other:
        ended = run_duckfast("website:app", "--port", str(other.getsockname()[1]), cwd=folder)
    assert "in use" in line_of(ended, 2)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--prot", "80"), "there is no option --prot; did you mean --port?"),
        (("--port", "http"), "--port must be a whole number from 0 to 65535; got 'http'"),
        (("--interface", "agsi"), "--interface must be auto, asgi, asgi2 or wsgi; got 'agsi', did you mean 'asgi'?"),
        (("-b", "localhost"), "cannot listen on 'localhost': give host:port, [v6]:port, unix:PATH, unix:@NAME or fd://N"),
        (
            ("--fd", "63"),
            "cannot listen on fd://63: no such descriptor was inherited; pass an open one",
        ),
        (("--port", "0", "--uds", "a"), "--port cannot be combined with --uds; give every address with --bind"),
    ],
)
def test_bad_option(options: tuple[str, ...], line: str) -> None:
    assert line_of(run_duckfast(*options), 2) == line


def test_bad_environment_value() -> None:
    line = line_of(run_duckfast(env={"DUCKFAST_TIMEOUT_KEEP_ALIVE": "soon"}), 2)
    assert line.startswith("DUCKFAST_TIMEOUT_KEEP_ALIVE must be a time of 0 or more, such as 10s, 500ms or 2m")
    assert line.endswith("got 'soon'")


def test_lifespan_that_fails(write: Write) -> None:
    folder = write("""
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
    """)
    ended = run_duckfast("website:app", "--port", "0", cwd=folder)
    assert line_of(ended, 3) == "the application's startup failed: no database"


def test_help_shows_groups_defaults_and_environment_names() -> None:
    ended = run_duckfast("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    words = " ".join(ended.stdout.split())
    for expected in ("Where to listen:", "Timeouts:", "[default: 8000; DUCKFAST_PORT]", "-b, --bind ADDRESS", "DUCKFAST_APP"):
        assert expected in words


def test_short_help_is_the_same() -> None:
    assert run_duckfast("-h").stdout == run_duckfast("--help").stdout
