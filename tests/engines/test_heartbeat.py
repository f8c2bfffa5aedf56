"""The heartbeat: it comes while requests are being finished, and stays away while every thread is stuck in the app.

Time is told by another engine's heart: "long" means while that one beat several times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines.gates import Gates
from support.engine import KINDS, WSGI_KINDS, Counted, RunningEngine
from support.wire import eventually, request

INTERVAL = 0.02  # seconds between beats
GET = request()
MANY = 10  # beats


def beating(kind: str, app: Any, beats: Counted, **settings: Any) -> RunningEngine:
    return RunningEngine(kind, app, keywords={"heartbeat": beats, "heartbeat_interval": INTERVAL}, **settings)


@pytest.fixture(scope="module")
def clock() -> Iterator[Counted]:
    beats = Counted()
    with beating("one thread", Gates("wsgi").app, beats):
        yield beats


@pytest.mark.parametrize("kind", KINDS)
def test_idle_engine_beats(kind: str) -> None:
    beats = Counted()
    with beating(kind, Gates(kind).app, beats):
        beats.wait_for(MANY)


@pytest.mark.parametrize(
    ("kind", "threads"), [("asyncio", 1), ("uvloop", 1), ("one thread", 1), ("threads", 3), ("free threads", 3)]
)
def test_engine_whose_threads_are_all_stuck_does_not_beat(kind: str, threads: int, clock: Counted) -> None:
    beats, gates = Counted(), Gates(kind)
    settings = {} if threads == 1 else {"threads": threads}
    with beating(kind, gates.app, beats, **settings) as running:
        beats.wait_for(1)
        stuck = []
        while len(gates.inside) < threads:  # a free thread takes whichever connection it is first to accept
            before = len(gates.inside)
            wire = running.connect()
            wire.send(request(target="/held"))
            stuck.append(wire)
            eventually(lambda before=before: len(gates.inside) > before)
        clock.wait_for_more(2)
        before = len(beats)
        clock.wait_for_more(MANY)
        assert len(beats) == before
        gates.gate.set()
        beats.wait_for_more(MANY)
        for wire in stuck:
            assert wire.read_response().body == b"open"
            wire.close()


def test_crew_with_a_thread_left_beats() -> None:
    beats, gates = Counted(), Gates("threads")
    with beating("threads", gates.app, beats, threads=2) as running, running.connect() as stuck:
        stuck.send(request(target="/held"))
        eventually(lambda: gates.inside)
        beats.wait_for_more(MANY)
        gates.gate.set()
        assert stuck.read_response().body == b"open"


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_thread_beats_between_long_views_that_keep_finishing(kind: str, clock: Counted) -> None:
    """All come in one piece: nothing has to be waited for between them."""
    beats = Counted()
    seen: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(len(beats))
        clock.wait_for_more(3)
        start_response("200 OK", [])
        return [b"done"]

    with beating(kind, app, beats, threads=1) as running, running.connect() as client:
        client.send(GET * 8)
        for _ in range(8):
            assert client.read_response().body == b"done"
        assert seen == sorted(set(seen)), "two views without a beat between them"


@pytest.mark.parametrize("kind", KINDS)
def test_heart_beats_under_a_load_that_never_ends(kind: str) -> None:
    beats = Counted()
    with beating(kind, Gates(kind).app, beats) as running, running.connect() as client:
        goal = len(beats) + MANY
        while len(beats) < goal:
            client.send(GET * 200)
            for _ in range(200):
                client.read_response()


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_waiting_for_a_slow_client_is_not_being_stuck(kind: str) -> None:
    beats, gates = Counted(), Gates(kind)
    with beating(kind, gates.app, beats, threads=1) as running:
        with running.connect() as reader:
            reader.send(request(target="/stream"))
            reader.read_head()
            beats.wait_for_more(MANY)
            gates.leave.set()
            while reader.read_chunk():
                pass
        with running.connect() as writer:
            writer.send(request("POST", "/echo", body=bytes(200_000))[:-1])
            beats.wait_for_more(MANY)
            writer.send(b"\0")
            assert len(writer.read_response().body) == 200_000


@pytest.mark.parametrize("kind", KINDS)
def test_heartbeat_that_fails_is_told_and_does_not_end_the_server(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    beats = Counted()

    def failing() -> None:
        beats()
        raise OSError("nobody listens to my heart")

    keywords = {"heartbeat": failing, "heartbeat_interval": INTERVAL}
    with RunningEngine(kind, Gates(kind).app, keywords=keywords) as running, running.connect() as client:
        beats.wait_for(3)
        client.send(GET)
        assert client.read_response().body == b"ok"
    assert "the heartbeat failed" in caplog.text
