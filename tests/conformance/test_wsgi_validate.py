"""Every scenario that keeps PEP 3333 is served again behind wsgiref.validate, which checks the server's side of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.probe import Probe
from support.process import ServerProcess
from support.wire import chunked

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="module", params=["threads", "one thread"])
def validated(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """The probe inside the validator."""
    options = ["wsgi_probe:validated", "--interface", "wsgi"]
    if request.param == "one thread":
        options += ["--threads", "1"]
    with ServerProcess(options, cwd=APPS) as server:
        yield Probe(server)
        said = server.stderr_text()
        assert "AssertionError" not in said, said
        assert "Iterator garbage collected without being closed" not in said, said


@pytest.mark.parametrize(
    "scenario, arguments, body",
    [
        ("show_environ", {}, None),
        ("show_environ_types", {}, None),
        ("write_errors", {}, None),
        ("ignore_body", {}, None),
        ("use_write", {}, b"written twice and returned"),
        ("use_write_with_length", {}, b"written"),
        ("replace_start", {}, b"sorry"),
        ("first_start_with_exc_info", {}, b"sorry"),
        ("start_with_keywords", {}, b"ok"),
        ("send_nothing", {}, b""),
        ("send_empty_blocks", {}, b"onetwo"),
        ("send_length_one", {}, b"hello"),
        ("stream", {"pieces": "100"}, b"".join(b"%08d" % number * 512 for number in range(100))),
        ("send_bytesio", {}, b"in memory"),
        ("send_file_like", {}, b"0123456789" * 1000),
        ("read_plan", {"plan": "read:3 readline read:100"}, None),
    ],
)
def test_scenario_keeps_the_pep(validated: Probe, scenario: str, arguments: dict[str, str], body: bytes | None) -> None:
    response = validated.ask(scenario, **arguments)
    assert response.status in (200, 503), response
    assert body is None or response.body == body


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_methods_pass_the_validator(validated: Probe, method: str) -> None:
    assert validated.ask("echo", method=method, body=b"abc").status == 200


def test_targets_pass_the_validator(validated: Probe) -> None:
    for target in ("/", "/caf%C3%A9?a=%ff", "//double", "/%ff"):
        assert validated.ask("show_environ", target=target).status == 200


def test_bodies_pass_the_validator(validated: Probe) -> None:
    with validated.connect() as wire:
        wire.send(validated.request("echo", method="POST", body=b"x" * 200_000))
        assert wire.read_response().body == b"x" * 200_000
        wire.send(validated.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")]) + chunked(b"abc"))
        assert wire.read_response().body == b"abc"
        lines = validated.request("read_plan", method="POST", body=b"a\nb\nc", plan="readline readlines:9 read:9")
        wire.send(lines)
        assert wire.read_response().status == 200


def test_clients_that_leave_pass_the_validator(validated: Probe, key: str) -> None:
    wire = validated.connect()
    wire.send(validated.request("stream", key, pieces="100000"))
    wire.read_head()
    wire.reset()
    assert validated.ask("ignore_body").status == 200
