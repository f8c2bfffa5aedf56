"""SIGTERM and SIGINT: streams are told, requests in flight are finished, idle connections end, nothing new comes in."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.probe import Probe, literal
from support.process import ServerProcess

APPS = Path(__file__).parent / "apps"
STOPS = [signal.SIGTERM, signal.SIGINT]


def start(kind: str, *options: str) -> ServerProcess:
    """`kind` is "wsgi", or the loop under the ASGI probe."""
    interface = "wsgi" if kind == "wsgi" else "asgi"
    arguments = [f"{interface}_probe:application", "--interface", interface, "--timeout-keep-alive", "60", *options]
    if interface == "asgi":
        arguments += ["--loop", kind]
    return ServerProcess(arguments, cwd=APPS)


@pytest.fixture(params=["uvloop", "asyncio", "wsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with start(request.param) as server:
        yield server


@pytest.fixture(params=["uvloop", "asyncio"])
def asgi_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with start(request.param) as server:
        yield server


@pytest.mark.parametrize("stop", STOPS)
def test_idle_server_ends_with_zero(server: ServerProcess, stop: signal.Signals) -> None:
    server.send_signal(stop)
    assert server.wait() == 0


@pytest.mark.parametrize("stop", STOPS)
def test_idle_kept_connections_are_closed_without_waiting(server: ServerProcess, stop: signal.Signals) -> None:
    probe = Probe(server)
    used, unused = probe.connect(), probe.connect()
    with used, unused:
        used.send(probe.request("ignore_body"))
        assert used.read_response().status == 200
        server.send_signal(stop)
        used.expect_clean_end()
        unused.expect_clean_end()
    assert server.wait() == 0


def test_request_in_flight_is_finished_and_says_close(server: ServerProcess, tmp_path: Path, key: str) -> None:
    probe, gate = Probe(server), tmp_path / "gate"
    with probe.connect() as busy, probe.connect() as idle:
        idle.send(probe.request("ignore_body"))
        assert idle.read_response().status == 200
        busy.send(probe.request("wait_for_file", key, file=str(gate)) + probe.request("echo"))
        probe.wait_for_notes(key)
        server.send_signal(signal.SIGTERM)
        idle.expect_clean_end()  # the drain has begun
        gate.touch()
        response = busy.read_response()
        assert (literal(response), response.closes) == ("finished", True)
        busy.expect_end()
    assert server.wait() == 0


def test_request_whose_body_is_on_its_way_is_finished(server: ServerProcess) -> None:
    probe = Probe(server)
    with probe.connect() as busy, probe.connect() as idle:
        idle.send(probe.request("ignore_body"))
        assert idle.read_response().status == 200
        busy.send(probe.request("echo", method="POST", headers=[("Content-Length", "6")]) + b"abc")
        probe.ask("ignore_body")  # the server has had the bytes above before it is told to stop
        server.send_signal(signal.SIGTERM)
        idle.expect_clean_end()
        busy.send(b"def")
        response = busy.read_response()
        assert (response.body, response.closes) == (b"abcdef", True)
    assert server.wait() == 0


def connect_late(server: ServerProcess, data: bytes) -> None:
    """Try to be served: refused or reset at once, not left waiting in a queue that nobody empties."""
    with socket.create_connection((server.host, server.port), timeout=10) as late:
        late.sendall(data)
        if not late.recv(1):
            raise ConnectionResetError


def test_nothing_new_is_accepted_once_stopping(server: ServerProcess, tmp_path: Path, key: str) -> None:
    probe, gate = Probe(server), tmp_path / "gate"
    with probe.connect() as busy, probe.connect() as idle:
        busy.send(probe.request("wait_for_file", key, file=str(gate)))
        probe.wait_for_notes(key)
        server.send_signal(signal.SIGTERM)
        idle.expect_clean_end()
        with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
            connect_late(server, probe.request("ignore_body"))
        gate.touch()
        assert literal(busy.read_response()) == "finished"
    assert server.wait() == 0


@pytest.mark.parametrize("kind", ["uvloop", "asyncio", "wsgi"])
def test_request_that_waits_to_be_accepted_is_still_served(kind: str) -> None:
    with start(kind, "--limit-connections", "1") as server:
        probe = Probe(server)
        with probe.connect() as first, probe.connect() as waiting, probe.connect() as silent:
            first.send(probe.request("ignore_body"))
            assert first.read_response().status == 200
            waiting.send(probe.request("ignore_body"))
            server.send_signal(signal.SIGTERM)
            response = waiting.read_response()
            assert (response.status, response.closes) == (200, True)
            first.expect_clean_end()
            silent.expect_clean_end()
        assert server.wait() == 0


def test_open_stream_is_told_when_draining_begins_and_may_say_goodbye(asgi_server: ServerProcess, key: str) -> None:
    """uvicorn#1140 and its kin: streams that nobody tells block the shutdown for ever."""
    probe = Probe(asgi_server)
    with probe.connect() as wire:
        wire.send(probe.request("stream_until_disconnect", key, goodbye="1"))
        assert wire.read_head().status == 200
        assert wire.read_chunk() == b"data: hello\n\n"
        asgi_server.send_signal(signal.SIGTERM)
        assert wire.read_chunk() == b"data: goodbye\n\n"
        assert wire.read_chunk() == b""
    assert asgi_server.wait() == 0


def test_many_open_streams_are_all_told(asgi_server: ServerProcess) -> None:
    probe = Probe(asgi_server)
    wires = [probe.connect() for _ in range(100)]
    for wire in wires:
        wire.send(probe.request("stream_until_disconnect"))
        assert wire.read_head().status == 200
    asgi_server.send_signal(signal.SIGTERM)
    for wire in wires:
        wire.read_rest()
        wire.close()
    assert asgi_server.wait() == 0


def test_stream_that_does_not_listen_is_ended_at_the_deadline() -> None:
    with start("uvloop", "--timeout-graceful-shutdown", "0.3") as server:
        probe = Probe(server)
        with probe.connect() as wire:
            wire.send(probe.request("never_end"))
            assert wire.read_head().status == 200
            server.send_signal(signal.SIGTERM)
            server.wait()
            with pytest.raises(AssertionError):
                assert wire.read_chunk() == b"begun" and wire.read_chunk()


def test_view_that_does_not_end_is_left_at_the_deadline(tmp_path: Path, key: str) -> None:
    with start("wsgi", "--timeout-graceful-shutdown", "0.3") as server:
        probe = Probe(server)
        with probe.connect() as wire:
            wire.send(probe.request("wait_for_file", key, file=str(tmp_path / "never")))
            probe.wait_for_notes(key)
            server.send_signal(signal.SIGTERM)
            server.wait()
            assert wire.read_rest() == b""


@pytest.mark.parametrize("kind", ["uvloop", "asyncio", "wsgi"])
def test_second_signal_ends_at_once(kind: str, tmp_path: Path, key: str) -> None:
    with start(kind) as server:
        probe = Probe(server)
        with probe.connect() as wire, probe.connect() as idle:
            wire.send(probe.request("wait_for_file", key, file=str(tmp_path / "never")))
            probe.wait_for_notes(key)
            server.send_signal(signal.SIGTERM)
            idle.expect_clean_end()
            server.send_signal(signal.SIGTERM)
            server.wait()  # long before the default of 30 s would have ended it
