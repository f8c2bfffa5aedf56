"""WSGI and threads: views overlap when they may, never when they must not, and answers stay with their requests."""

from __future__ import annotations

import threading

from support.probe import Probe, StartProbe, literal, new_key

COUNT = 8


def test_as_many_blocking_views_as_threads_run_at_once(threaded_wsgi: Probe, key: str) -> None:
    """Each view waits for all the others: they can only meet if eight really run at the same time."""
    wires = [threaded_wsgi.connect() for _ in range(COUNT)]
    try:
        for wire in wires:
            wire.send(threaded_wsgi.request("meet_others", key, count=str(COUNT)))
        assert [literal(wire.read_response()) for wire in wires] == ["met"] * COUNT
    finally:
        for wire in wires:
            wire.close()


def test_blocking_views_meet_again_and_again_on_kept_connections(threaded_wsgi: Probe) -> None:
    wires = [threaded_wsgi.connect() for _ in range(COUNT)]
    try:
        for _ in range(10):
            key = new_key()
            for wire in wires:
                wire.send(threaded_wsgi.request("meet_others", key, count=str(COUNT)))
            assert [literal(wire.read_response()) for wire in wires] == ["met"] * COUNT
    finally:
        for wire in wires:
            wire.close()


def test_fast_views_are_answered_beside_blocked_ones(threaded_wsgi: Probe) -> None:
    keys = [new_key() for _ in range(COUNT - 1)]
    wires = [threaded_wsgi.connect() for _ in keys]
    try:
        for wire, key in zip(wires, keys, strict=True):
            wire.send(threaded_wsgi.request("wait_at_gate", key))
            threaded_wsgi.wait_for_notes(key, 1)
        with threaded_wsgi.connect() as fast:
            for number in range(200):
                fast.send(threaded_wsgi.request("echo", method="POST", body=b"%d" % number))
                assert fast.read_response().body == b"%d" % number
        for wire, key in zip(wires, keys, strict=True):
            threaded_wsgi.open_gate(key)
            assert literal(wire.read_response()) == "opened"
    finally:
        for wire in wires:
            wire.close()


def test_threads_grow_by_default_when_views_block(start_wsgi: StartProbe) -> None:
    """Nobody tunes a number: a view that waits for the next request must not stop the server."""
    probe = start_wsgi()
    keys = [new_key() for _ in range(3)]
    wires = [probe.connect() for _ in keys]
    try:
        for wire, key in zip(wires, keys, strict=True):
            wire.send(probe.request("wait_at_gate", key))
            probe.wait_for_notes(key, 1)
        for wire, key in zip(wires, keys, strict=True):
            probe.open_gate(key)
            assert literal(wire.read_response()) == "opened"
    finally:
        for wire in wires:
            wire.close()


def test_one_thread_never_overlaps_views(start_wsgi: StartProbe, key: str) -> None:
    probe = start_wsgi("--threads", "1")
    wires = [probe.connect() for _ in range(10)]
    try:
        for wire in wires:
            wire.send(probe.request("leave_traces", key) * 5)
        for wire in wires:
            for _ in range(5):
                assert literal(wire.read_response()) == "ok"
    finally:
        for wire in wires:
            wire.close()
    assert probe.notes(key) == ["in", "out"] * 50
    assert probe.value("show_most_inside") == 1


def test_one_thread_serves_every_request_on_the_same_thread(start_wsgi: StartProbe) -> None:
    probe = start_wsgi("--threads", "1")
    assert len({probe.value("thread_name")[0] for _ in range(20)}) == 1


def test_requests_of_one_connection_never_overlap(threaded_wsgi: Probe, key: str) -> None:
    with threaded_wsgi.connect() as wire:
        wire.send(threaded_wsgi.request("leave_traces", key) * 20)
        assert [literal(wire.read_response()) for _ in range(20)] == ["ok"] * 20
    assert threaded_wsgi.notes(key) == ["in", "out"] * 20


def test_pipelined_answers_come_in_order_even_if_the_first_is_slow(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(
            probe.request("wait_at_gate", key)
            + probe.request("echo", method="POST", body=b"second")
            + probe.request("show_environ", target="/third")
        )
        probe.wait_for_notes(key, 1)
        probe.open_gate(key)
        assert literal(wire.read_response()) == "opened"
        assert wire.read_response().body == b"second"
        assert literal(wire.read_response())["PATH_INFO"] == "/third"


def test_answers_stay_with_their_requests_under_many_clients(threaded_wsgi: Probe) -> None:
    wrong: list[object] = []

    def client(name: int) -> None:
        try:
            with threaded_wsgi.connect() as wire:
                for number in range(50):
                    body = b"%d-%d" % (name, number) * 50
                    wire.send(threaded_wsgi.request("echo", method="POST", body=body))
                    if wire.read_response().body != body:
                        wrong.append((name, number))
        except Exception as error:
            wrong.append(error)

    clients = [threading.Thread(target=client, args=(name,)) for name in range(16)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert wrong == []


def test_more_blocked_views_than_threads_are_all_served_in_the_end(threaded_wsgi: Probe) -> None:
    keys = [new_key() for _ in range(COUNT * 3)]
    wires = [threaded_wsgi.connect() for _ in range(COUNT * 3)]
    opener = new_key()
    try:
        for wire, key in zip(wires, keys, strict=True):
            wire.send(threaded_wsgi.request("leave_traces", key) + threaded_wsgi.request("echo", opener))
        for wire in wires:
            assert literal(wire.read_response()) == "ok"
            assert wire.read_response().status == 200
    finally:
        for wire in wires:
            wire.close()
