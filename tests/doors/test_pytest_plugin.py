"""The fixtures that duckfast brings to pytest, in runs of pytest that know nothing of this suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.process import DEADLINE, clean_environment

UNNEEDED = ("cacheprovider", "hypothesispytest", "anyio", "timeout")  # plugins, of which some take seconds to load


def run_pytest(folder: Path, tests: str, *options: str) -> str:
    """The output of a run over one file of tests, which ends with a line such as `2 passed in 0.11s`."""
    (folder / "test_site.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", *options, *(f"-pno:{name}" for name in UNNEEDED)]
    environment = clean_environment({"PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""})
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)
    return done.stdout + done.stderr


def test_fixture_starts_servers_stops_them_after_the_test_and_tells_what_failed_then(tmp_path: Path) -> None:
    output = run_pytest(
        tmp_path,
        """
import urllib.error
import urllib.request

import pytest

import duckfast
from duckfast.testing import asgi, wsgi

seen = []


def read(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def test_serves(duckfast_server):
    for app, text in ((asgi, b"Hello from ASGI"), (wsgi, b"Hello from WSGI"), ("duckfast.testing:asgi", b"Hello from ASGI")):
        server = duckfast_server(app)
        seen.append(server.url)
        assert text in read(server.url)
    assert len(set(seen)) == 3


def test_nothing_is_left():
    for url in seen:
        with pytest.raises(urllib.error.URLError):
            read(url)


def test_takes_settings(duckfast_server):
    assert read(duckfast_server(wsgi, root_path="/below").url + "/request").count(b'"root_path": "/below"') == 1
    with pytest.raises(duckfast.BindError):
        duckfast_server(wsgi, bind="nonsense")


def test_speaks_tls(duckfast_server, duckfast_tls):
    server = duckfast_server(wsgi, **duckfast_tls.settings)
    with urllib.request.urlopen(server.url, context=duckfast_tls.context) as answer:
        assert b"Hello" in answer.read()


async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the pool is leaking"})


def test_fails_at_its_end(duckfast_server):
    duckfast_server(app)
""",
    )
    assert "5 passed, 1 error" in output, output
    assert "the pool is leaking" in output


def test_run_without_the_fixture_loads_no_server(tmp_path: Path) -> None:
    tests = """
import sys


def test_modules():
    loaded = sorted(name for name in sys.modules if name.split(".")[0] == "duckfast")
    assert loaded == ["duckfast", "duckfast.pytest_plugin"], loaded
"""
    output = run_pytest(tmp_path, tests)
    assert "1 passed" in output, output
