"""ASGI lifespan 2.0: startup, shutdown, failure, absence."""

from __future__ import annotations

import ast
import signal
from pathlib import Path

import pytest
from support.process import ServerProcess, run_duckfast
from support.wire import Wire, request

APPS = Path(__file__).parent / "apps"
STARTUP_FAILED = 3  # the exit code when the application does not start


class Lifespan:
    """Starts the lifespan probe in one of its cases and reads what it logged."""

    def __init__(self, folder: Path, loop: str) -> None:
        self.path = folder / "lifespan.log"
        self.path.touch()
        self._options = ["lifespan_probe:application", "--interface", "asgi", "--loop", loop]

    def environment(self, case: str) -> dict[str, str]:
        return {"LIFESPAN_CASE": case, "LIFESPAN_LOG": str(self.path)}

    def start(self, case: str, *options: str) -> ServerProcess:
        return ServerProcess([*self._options, *options], cwd=APPS, env=self.environment(case))

    def fail(self, case: str, *options: str) -> tuple[int, str]:
        """Start a server that must end by itself: its exit code and what it said."""
        result = run_duckfast(*self._options, "--port", "0", *options, cwd=APPS, env=self.environment(case))
        return result.returncode, result.stderr

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture(params=["uvloop", "asyncio"])
def lifespan(request: pytest.FixtureRequest, tmp_path: Path) -> Lifespan:
    return Lifespan(tmp_path, request.param)


def get(server: ServerProcess, target: str = "/") -> str:
    with Wire((server.host, server.port)) as wire:
        wire.send(request(target=target, headers=[("Connection", "close")]))
        response = wire.read_response()
        assert response.status == 200
        return response.text


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_lifespan_runs_once_around_all_requests(lifespan: Lifespan, mode: str) -> None:
    with lifespan.start("complete", "--lifespan", mode) as server:
        assert ast.literal_eval(get(server, "/one")) == {"made by": "lifespan"}
        get(server, "/two")
    assert lifespan.lines() == [
        "scope ['asgi', 'state', 'type'] asgi 3.0 state {}",
        "lifespan.startup",
        "request /one",
        "request /two",
        "lifespan.shutdown",
    ]


def test_lifespan_off_is_never_called(lifespan: Lifespan) -> None:
    with lifespan.start("complete", "--lifespan", "off") as server:
        assert ast.literal_eval(get(server)) == "no state"
    assert lifespan.lines() == ["request /"]


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_startup_failed_ends_the_server_with_the_message(lifespan: Lifespan, mode: str) -> None:
    code, said = lifespan.fail("startup_failed", "--lifespan", mode)
    assert code == STARTUP_FAILED
    assert "no database today" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("case", ["raise_at_once", "raise_in_startup"])
def test_exception_in_startup_means_unsupported_in_auto(lifespan: Lifespan, case: str) -> None:
    with lifespan.start(case) as server:
        assert ast.literal_eval(get(server)) == "no state"
    assert "Traceback" not in server.stderr_text()


@pytest.mark.parametrize("case", ["raise_at_once", "raise_in_startup"])
def test_exception_in_startup_is_logged_at_debug_in_auto(lifespan: Lifespan, case: str) -> None:
    """Hiding it altogether is a classic complaint: a real error in startup code looks like no lifespan."""
    with lifespan.start(case, "--log-level", "debug") as server:
        get(server)
    assert "lifespan is not for me" in server.stderr_text()


@pytest.mark.parametrize("case", ["raise_at_once", "raise_in_startup"])
def test_exception_in_startup_ends_the_server_with_lifespan_on(lifespan: Lifespan, case: str) -> None:
    code, said = lifespan.fail(case, "--lifespan", "on")
    assert code == STARTUP_FAILED
    assert "lifespan is not for me" in said


def test_app_that_returns_at_once_is_served_in_auto(lifespan: Lifespan) -> None:
    with lifespan.start("return_at_once") as server:
        get(server)


def test_app_that_returns_after_startup_keeps_being_served(lifespan: Lifespan) -> None:
    with lifespan.start("return_after_startup", "--lifespan", "on") as server:
        get(server, "/one")
        get(server, "/two")


def test_startup_that_hangs_ends_at_its_deadline(lifespan: Lifespan) -> None:
    code, said = lifespan.fail("hang_in_startup", "--timeout-lifespan", "0.3")
    assert code == STARTUP_FAILED
    assert "timeout" in said.lower() or "0.3" in said


def test_unknown_lifespan_message_raises_out_of_send(lifespan: Lifespan) -> None:
    with lifespan.start("bad_message") as server:
        get(server)
    assert any(line.startswith("raised") for line in lifespan.lines())


@pytest.mark.parametrize(
    "case, said", [("shutdown_failed", "could not save the ducks"), ("raise_in_shutdown", "tripped on the way out")]
)
def test_failed_shutdown_is_said_and_the_exit_code_is_not_zero(lifespan: Lifespan, case: str, said: str) -> None:
    with lifespan.start(case) as server:
        get(server)
        server.send_signal(signal.SIGTERM)
        assert server.wait() != 0
    assert said in server.stderr_text()


def test_shutdown_that_hangs_ends_at_its_deadline(lifespan: Lifespan) -> None:
    with lifespan.start("hang_in_shutdown", "--timeout-lifespan", "0.3") as server:
        get(server)
        server.send_signal(signal.SIGTERM)
        assert server.wait() != 0
    assert lifespan.lines()[-1] == "shutdown seen"


def test_shutdown_comes_after_the_last_connection(lifespan: Lifespan) -> None:
    with lifespan.start("complete") as server, Wire((server.host, server.port)) as wire:
        wire.send(request(target="/slow"))
        wire.read_head()
        assert wire.read_chunk() == b"begun "
        server.send_signal(signal.SIGTERM)
        assert (wire.read_chunk(), wire.read_chunk()) == (b"done", b"")
        wire.close()
        assert server.wait() == 0
    assert lifespan.lines()[-4:] == ["request /slow", "told", "response done", "lifespan.shutdown"]
