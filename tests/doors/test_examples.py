"""Every file of examples/ serves as its docstring says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.process import ServerProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Serve = Callable[..., ServerProcess]

COMMANDS = [
    command
    for example in sorted(EXAMPLES.glob("*.py"))
    for command in re.findall(r"duckfast (\w+:\w+)", example.read_text())
    if command.startswith(example.stem)
]


def test_every_example_says_how_to_run_it() -> None:
    assert {command.split(":")[0] for command in COMMANDS} == {path.stem for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("target", [command for command in COMMANDS if not command.startswith("streaming")])
def test_example_greets(serve: Serve, target: str) -> None:
    server = serve(target, cwd=EXAMPLES)
    answer = httpx.get(f"{server.url}/")
    assert answer.status_code == 200
    assert "Hello" in answer.text


@pytest.mark.parametrize("target", ["flask_app:app", "fastapi_app:app"])
def test_example_takes_json(serve: Serve, target: str) -> None:
    server = serve(target, cwd=EXAMPLES)
    answer = httpx.post(f"{server.url}/sum", json={"numbers": [1, 2, 3.5]})
    assert answer.status_code == 200
    assert answer.json() == {"sum": 6.5}


def test_django_example_has_an_async_view_on_both_interfaces(serve: Serve) -> None:
    for target in ("django_app:application", "django_app:asgi_application"):
        server = serve(target, cwd=EXAMPLES)
        answer = httpx.get(f"{server.url}/whoami/", headers={"User-Agent": "a duck"})
        assert answer.json() == {"path": "/whoami/", "agent": "a duck"}


def test_stream_flows_until_the_server_is_told_to_stop(serve: Serve) -> None:
    server = serve("streaming:app", cwd=EXAMPLES)
    with httpx.stream("GET", f"{server.url}/", timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        server.stop()
        rest = list(lines)  # ends without an error: the app closed its stream in good order
    assert all(line == "" or line.startswith("data: ") for line in rest)


def test_stream_ends_when_the_client_leaves(serve: Serve) -> None:
    server = serve("streaming:app", cwd=EXAMPLES)
    with httpx.stream("GET", f"{server.url}/", timeout=30) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    server.stop()
    assert "Traceback" not in server.stderr_text()
