"""ASGI requests as tasks: context, cancellation tools, background work, pipelining."""

from __future__ import annotations

import pytest
from support.probe import Probe, literal, new_key


def test_context_variables_do_not_leak_between_requests(asgi: Probe) -> None:
    with asgi.connect() as wire:
        for user in ("ada", "grace", "alan"):
            wire.send(asgi.request("remember_user", user=user))
            seen, set_to = literal(wire.read_response())
            assert seen in ("nobody", "lifespan") and set_to == user
    assert asgi.value("remember_user", user="last")[0] in ("nobody", "lifespan")


def test_context_variables_do_not_leak_between_pipelined_requests(asgi: Probe) -> None:
    users = [f"user{number}" for number in range(20)]
    with asgi.connect() as wire:
        wire.send(b"".join(asgi.request("remember_user", user=user) for user in users))
        answers = [literal(wire.read_response()) for _ in users]
    assert [set_to for _, set_to in answers] == users
    assert {seen for seen, _ in answers} <= {"nobody", "lifespan"}


def test_asyncio_and_anyio_tools_work_inside_a_request(asgi: Probe) -> None:
    assert asgi.value("use_task_tools") == {
        "task": True,
        "running in the loop": True,
        "in all_tasks": True,
        "sniffio": "asyncio",
        "asyncio.timeout": True,
        "anyio.move_on_after": True,
        "anyio task group": [0, 1, 2],
        "anyio thread": "from a thread",
        "executor": "from an executor",
        "other task": 42,
    }


def test_current_task_is_the_same_before_and_after_the_first_suspension(asgi: Probe) -> None:
    assert asgi.value("timeout_without_await") == (True, True)


def test_an_application_that_never_waits_is_done_within_the_tick(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(b"".join(asgi.request("count_turns_of_the_loop") for _ in range(10)))
        assert len({literal(wire.read_response()) for _ in range(10)}) == 1


def test_loop_is_the_one_asked_for(asgi: Probe, request: pytest.FixtureRequest) -> None:
    wanted = request.node.callspec.params["asgi"]
    assert asgi.value("loop_name").split(".")[0] == wanted


def test_background_work_lets_the_next_request_of_the_connection_start(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("work_in_background", key))
        assert literal(wire.read_response()) == "answered"
        asgi.wait_for_notes(key, 1)
        wire.send(asgi.request("open_gate", key))
        assert literal(wire.read_response()) == "open"
        assert asgi.wait_for_notes(key, 2) == ["working", "finished"]


def test_background_work_outlives_its_connection(asgi: Probe, key: str) -> None:
    assert asgi.value("work_in_background", key) == "answered"
    asgi.wait_for_notes(key, 1)
    asgi.open_gate(key)
    assert asgi.wait_for_notes(key, 2) == ["working", "finished"]


def test_pipelined_answers_come_in_order_even_if_the_first_is_slow(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(
            asgi.request("wait_at_gate", key)
            + asgi.request("echo", method="POST", body=b"second")
            + asgi.request("show_scope", target="/third")
        )
        asgi.wait_for_notes(key, 1)
        asgi.open_gate(key)
        assert literal(wire.read_response()) == "first"
        assert wire.read_response().body == b"second"
        assert literal(wire.read_response())["path"] == "/third"


def test_many_requests_wait_at_the_same_time(asgi: Probe) -> None:
    keys = [new_key() for _ in range(100)]
    wires = [asgi.connect() for _ in keys]
    try:
        for wire, key in zip(wires, keys, strict=True):
            wire.send(asgi.request("wait_at_gate", key))
        for key in keys:
            asgi.wait_for_notes(key, 1)
        for key in reversed(keys):
            asgi.open_gate(key)
        for wire in wires:
            assert literal(wire.read_response()) == "first"
    finally:
        for wire in wires:
            wire.close()
