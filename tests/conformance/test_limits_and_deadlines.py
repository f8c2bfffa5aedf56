"""Limits answer before memory grows, deadlines are absolute, and the client can always read why. On both engines.

The deadlines here are short options, not measurements: nothing asserts how long anything took, only that it ended.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.probe import Probe, literal
from support.process import ServerProcess
from support.wire import Wire, chunked, request

APPS = Path(__file__).parent / "apps"
PACE = 0.02  # seconds between the bytes of a client that drips
HURRY = 0.3  # seconds: every deadline of the `hurried` servers

INTERFACES = ["asgi", "wsgi"]


def start(interface: str, *options: str) -> ServerProcess:
    return ServerProcess([f"{interface}_probe:application", "--interface", interface, *options], cwd=APPS)


@pytest.fixture(scope="module", params=INTERFACES)
def hurried(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """Deadlines of a fraction of a second."""
    names = ("request-headers", "request-body", "keep-alive", "write", "drain")
    options = [part for name in names for part in (f"--timeout-{name}", str(HURRY))]
    with start(request.param, *options) as server:
        yield Probe(server, interface=request.param)


@pytest.fixture(scope="module", params=INTERFACES)
def limited(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """Small limits."""
    options = ["--limit-request-body", "10000", "--limit-request-fields", "20", "--limit-request-head", "20000"]
    with start(request.param, *options) as server:
        yield Probe(server, interface=request.param)


@pytest.fixture(scope="module", params=INTERFACES)
def plain(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """Nothing but defaults."""
    with start(request.param) as server:
        yield Probe(server, interface=request.param)


def drip(wire: Wire, data: bytes) -> int:
    """Send byte by byte at a steady pace until the server answers or closes; how many bytes it took."""
    wire.socket.settimeout(PACE)
    sent = 0
    for byte in data:
        if not wire.send_what_is_taken(bytes([byte])):
            break
        sent += 1
        try:
            if wire.socket.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except ConnectionResetError:
            break
    wire.socket.settimeout(30)
    return sent


def wait_quietly(wire: Wire, seconds: float) -> None:
    """Let time pass on a connection on which nothing may arrive."""
    wire.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        wire.socket.recv(1, socket.MSG_PEEK)
    wire.socket.settimeout(30)


def expect_refusal(wire: Wire, status: int) -> None:
    """A complete answer of the server's own, then the end."""
    response = wire.read_response()
    assert (response.status, response.closes) == (status, True), response
    assert response.get("date") is not None
    assert b"Traceback" not in response.body
    wire.expect_end()


# Deadlines


def test_head_that_drips_gets_408_although_bytes_keep_coming(hurried: Probe) -> None:
    with hurried.connect() as wire:
        sent = drip(wire, b"GET / HTTP/1.1\r\nHost: test\r\nX-Slow: " + b"a" * 5000)
        assert sent < 5000
        expect_refusal(wire, 408)


def test_second_head_of_a_connection_that_drips_gets_408_too(hurried: Probe) -> None:
    with hurried.connect() as wire:
        wire.send(hurried.request("ignore_body"))
        assert wire.read_response().status == 200
        drip(wire, b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 5000)
        expect_refusal(wire, 408)


def test_head_that_stops_gets_408(hurried: Probe) -> None:
    with hurried.connect() as wire:
        wire.send(b"GET / HT")
        expect_refusal(wire, 408)


def test_connection_that_says_nothing_is_closed_silently(hurried: Probe) -> None:
    with hurried.connect() as wire:
        wire.expect_clean_end()


def test_idle_keep_alive_connection_is_closed_silently(hurried: Probe) -> None:
    with hurried.connect() as wire:
        wire.send(hurried.request("ignore_body"))
        assert wire.read_response().status == 200
        wire.expect_clean_end()


def test_kept_connection_survives_several_requests_within_its_deadline(hurried: Probe) -> None:
    with hurried.connect() as wire:
        for number in range(50):
            wire.send(hurried.request("echo", method="POST", body=b"%d" % number))
            assert wire.read_response().body == b"%d" % number


def test_no_deadline_of_the_client_ends_a_slow_application(hurried: Probe, tmp_path: Path, key: str) -> None:
    gate = tmp_path / "gate"
    with hurried.connect() as wire:
        wire.send(hurried.request("wait_for_file", key, file=str(gate)))
        wait_quietly(wire, 3 * HURRY)
        gate.touch()
        assert literal(wire.read_response()) == "finished"


@pytest.mark.parametrize("coding", [("Content-Length", "100"), ("Transfer-Encoding", "chunked")])
def test_body_that_stops_gets_408(hurried: Probe, key: str, coding: tuple[str, str]) -> None:
    with hurried.connect() as wire:
        wire.send(hurried.request("echo", key, method="POST", headers=[coding]) + b"3\r\nabc\r\n")
        expect_refusal(wire, 408)


def test_body_that_drips_gets_408_although_bytes_keep_coming(hurried: Probe) -> None:
    with hurried.connect() as wire:
        head = hurried.request("echo", method="POST", headers=[("Content-Length", "100000")])
        wire.send(head)
        assert drip(wire, b"x" * 5000) < 5000
        expect_refusal(wire, 408)


def test_body_that_keeps_a_decent_pace_is_not_cut(hurried: Probe) -> None:
    """The body's deadline is for progress, not for the whole: large uploads take as long as they take."""
    with hurried.connect() as wire:
        piece = b"x" * 100_000
        pieces = 40
        wire.send(hurried.request("echo", method="POST", headers=[("Content-Length", str(len(piece) * pieces))]))
        wire.send(piece)
        for _ in range(pieces - 1):
            wait_quietly(wire, PACE)
            wire.send(piece)
        assert wire.read_response().body == piece * pieces


def test_application_hears_of_a_body_that_stopped(hurried: Probe, key: str) -> None:
    """Long enough that a WSGI application is called before the body is complete."""
    asgi = hurried.interface == "asgi"
    scenario = "read_until_disconnect" if asgi else "read_broken"
    head = hurried.request(scenario, key, method="POST", size="100000", headers=[("Content-Length", "300000")])
    with hurried.connect() as wire:
        wire.send(head + b"x" * 200_000)
        response = wire.read_response()
        assert response.closes and response.status in (408, 500)
        wire.expect_end()
    if asgi:
        body = hurried.wait_for_notes(key, 2)[1]
        assert body.endswith(b"<disconnect>")
    else:
        notes = hurried.wait_for_notes(key, lambda notes: notes[-1][0] in ("raised", "complete"))
        assert notes[-1][:2] == ("raised", True)


def test_reader_that_stops_is_dropped_at_the_write_deadline(hurried: Probe, key: str) -> None:
    asgi = hurried.interface == "asgi"
    scenario = "send_until_disconnected" if asgi else "stream_until_gone"
    with hurried.connect(receive_buffer=4096) as wire:
        wire.send(hurried.request(scenario, key))
        notes = hurried.wait_for_notes(key, lambda notes: bool(notes) and notes[-1] != "streaming")
        assert notes[-1] == (("OSError", True, False) if asgi else "closed")
        with pytest.raises(AssertionError):
            wire.read_response()


def test_reader_that_is_slow_but_reads_is_not_dropped(hurried: Probe) -> None:
    """The write deadline is for progress: a slow client that takes bytes gets the whole body."""
    body = b"y" * 2_000_000
    with hurried.connect(receive_buffer=4096) as wire:
        if hurried.interface == "asgi":
            wire.send(hurried.request("echo", method="POST", body=body))
        else:
            wire.send(hurried.request("stream", pieces="488"))
        response = wire.read_head()
        received = len(wire.buffered())
        wire.socket.settimeout(30)
        steps = 0
        while received < 1_900_000:
            data = wire.socket.recv(40_000)
            assert data, "dropped although it kept reading"
            received += len(data)
            steps += 1
            if steps % 4 == 0:
                select.select([], [], [], PACE)  # the reader's own slowness
        assert response.status == 200


def test_reader_that_is_so_slow_that_the_kernel_takes_nothing_more_is_not_dropped(hurried: Probe, key: str) -> None:
    """Megabytes wait in the kernel by then: the server can send nothing for many deadlines, and the client reads all the time."""
    scenario = "send_until_disconnected" if hurried.interface == "asgi" else "stream_until_gone"
    with hurried.connect(receive_buffer=4096) as wire:
        wire.send(hurried.request(scenario, key))
        assert wire.read_head().status == 200
        for _ in range(100):
            assert wire.socket.recv(2000), "dropped although it kept reading"
            select.select([], [], [], PACE)  # the reader's own slowness
        wire.reset()


# Limits


@pytest.mark.parametrize("size", [9000, 100_000])
def test_request_line_over_the_limit_is_414(plain: Probe, size: int) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(request(target="/" + "a" * size))
        expect_refusal(wire, 414)


def test_request_line_without_end_is_cut_at_the_limit(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(b"GET /" + b"a" * 20_000)  # no CRLF ever
        expect_refusal(wire, 414)


def test_request_line_at_the_limit_is_served(plain: Probe) -> None:
    fixed = len("GET / HTTP/1.1\r\n")
    with plain.connect() as wire:
        wire.send(plain.request("ignore_body", target="/" + "a" * (8190 - fixed)))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("size", [9000, 60_000])
def test_field_line_over_the_limit_is_431(plain: Probe, size: int) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(request(headers=[("X-Long", "a" * size)]))
        expect_refusal(wire, 431)


def test_field_line_without_end_is_cut_at_the_limit(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 20_000)
        expect_refusal(wire, 431)


def test_field_name_without_end_is_cut_at_the_limit(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 20_000)
        expect_refusal(wire, 431)


def test_too_many_fields_are_431(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send_what_is_taken(request(headers=[(f"X-{number}", "a") for number in range(101)]))
        expect_refusal(wire, 431)


def test_more_fields_than_the_option_says_are_431(limited: Probe) -> None:
    with limited.connect() as wire:
        wire.send_what_is_taken(request(headers=[(f"X-{number}", "a") for number in range(21)]))
        expect_refusal(wire, 431)


def test_fields_at_the_limit_are_served(limited: Probe) -> None:
    with limited.connect() as wire:
        wire.send(limited.request("ignore_body", headers=[(f"X-{number}", "a") for number in range(18)]))
        assert wire.read_response().status == 200


def test_head_over_the_limit_is_431(limited: Probe) -> None:
    with limited.connect() as wire:
        wire.send_what_is_taken(request(headers=[(f"X-{number}", "a" * 5000) for number in range(5)]))
        expect_refusal(wire, 431)


def test_announced_body_over_the_limit_is_413_at_once(limited: Probe) -> None:
    """Before a byte of it was sent, and without asking for it."""
    for expect in ([], [("Expect", "100-continue")]):
        with limited.connect() as wire:
            wire.send(limited.request("echo", method="POST", headers=[("Content-Length", "10001"), *expect]))
            expect_refusal(wire, 413)


def test_chunked_body_that_passes_the_limit_is_413(limited: Probe) -> None:
    with limited.connect() as wire:
        head = limited.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")])
        wire.send_what_is_taken(head + chunked(*[b"x" * 1000] * 11))
        expect_refusal(wire, 413)


def test_body_at_the_limit_is_served(limited: Probe) -> None:
    body = b"x" * 10_000
    with limited.connect() as wire:
        wire.send(limited.request("echo", method="POST", body=body))
        assert wire.read_response().body == body
        head = limited.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")])
        wire.send(head + chunked(*[b"x" * 1000] * 10))
        assert wire.read_response().body == body


def test_client_still_sending_a_large_body_can_read_the_413(limited: Probe) -> None:
    """Closing at once would reset the connection and throw the answer away on the client's side."""
    with limited.connect() as wire:
        wire.send(limited.request("echo", method="POST", headers=[("Content-Length", "5000000")]))
        wire.send_what_is_taken(b"x" * 5_000_000)
        expect_refusal(wire, 413)


def test_too_much_in_chunk_extensions_is_refused(plain: Probe) -> None:
    head = plain.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")])
    with plain.connect() as wire:
        wire.send_what_is_taken(head + b"1;" + b"a" * 20_000 + b"\r\nx\r\n0\r\n\r\n")
        response = wire.read_response()
        assert 400 <= response.status < 500 and response.closes
        wire.expect_end()


def test_too_large_trailers_are_refused(plain: Probe) -> None:
    head = plain.request("echo", method="POST", headers=[("Transfer-Encoding", "chunked")])
    with plain.connect() as wire:
        wire.send_what_is_taken(head + chunked(b"x", trailers=b"X-Long: " + b"a" * 10_000 + b"\r\n"))
        response = wire.read_response()
        assert 400 <= response.status < 500 and response.closes
        wire.expect_end()


@pytest.mark.parametrize("interface", INTERFACES)
def test_connections_over_the_limit_wait_until_another_ends(interface: str) -> None:
    with start(interface, "--limit-connections", "2") as server:
        probe = Probe(server)
        ask = probe.request("ignore_body")
        first, second = probe.connect(), probe.connect()
        for wire in (first, second):
            wire.send(ask)
            assert wire.read_response().status == 200
        with probe.connect() as third:
            third.send(ask)
            third.socket.setblocking(False)
            for _ in range(20):  # the server works all the while, and does not take the third
                second.send(ask)
                assert second.read_response().status == 200
                with pytest.raises(BlockingIOError):
                    third.socket.recv(1)
            first.close()
            third.socket.settimeout(30)
            assert third.read_response().status == 200
        second.close()


# What is left unread, and what comes behind


@pytest.mark.parametrize("size", [100, 30_000, 64 * 1024, 300_000, 5_000_000])
@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_answer_is_readable_when_the_body_is_not_read(plain: Probe, size: int, coding: str) -> None:
    """Drained up to a bound, else closed with the answer whole; never parsed as a request."""
    smuggled = request(target="/smuggled")
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    with plain.connect() as wire:
        if coding == "length":
            wire.send(plain.request("ignore_body", method="POST", headers=[("Content-Length", str(size))]))
            wire.send_what_is_taken(body)
        else:
            wire.send(plain.request("ignore_body", method="POST", headers=[("Transfer-Encoding", "chunked")]))
            wire.send_what_is_taken(chunked(body))
        response = wire.read_response()
        assert (response.status, literal(response)) == (200, "not read")
        if response.closes:
            wire.expect_end()
        elif wire.send_what_is_taken(plain.request("echo", method="POST", body=b"next")):
            # The end of a chunked body was not known when the answer said that the connection stays: it may still be
            # too far away, and the connection close without another word.
            rest = wire.buffered() or wire.socket.recv(1, socket.MSG_PEEK)
            if rest or coding == "length":
                assert wire.read_response().body == b"next"


def test_answer_leaves_before_an_unread_body_has_arrived(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send(plain.request("ignore_body", method="POST", headers=[("Content-Length", "5000000")]))
        wire.send(b"x" * 200_000)
        assert literal(wire.read_response()) == "not read"


def test_unread_body_with_a_broken_chunk_closes(plain: Probe) -> None:
    head = plain.request("ignore_body", method="POST", headers=[("Transfer-Encoding", "chunked")])
    with plain.connect() as wire:
        wire.send(head + b"3\r\nabc\r\nnonsense\r\n\r\n" + plain.request("echo", method="POST", body=b"smuggled"))
        data = wire.read_rest()
    assert b"smuggled" not in data
    assert data.count(b"HTTP/1.1 ") <= 2


def test_thousand_pipelined_requests_are_answered_in_order(plain: Probe) -> None:
    count = 1000
    data = b"".join(plain.request("echo", method="POST", body=b"%d" % number) for number in range(count))
    with plain.connect() as wire:
        wire.send(data)
        for number in range(count):
            assert wire.read_response().body == b"%d" % number


def test_pipelining_client_that_does_not_read_is_held_back(plain: Probe) -> None:
    """Requests behind unread answers must wait in the client, not in the server's memory."""
    ask = plain.request("echo", method="POST", body=b"x" * 10_000)
    with plain.connect(receive_buffer=4096) as wire:
        wire.socket.setblocking(False)
        sent = blocked = 0
        while blocked < 50:
            try:
                sent += wire.socket.send(ask * 10)
                blocked = 0
            except BlockingIOError:
                blocked += 1
                assert plain.ask("ignore_body").status == 200
            assert sent < 64 * 1024 * 1024
    assert plain.ask("ignore_body").status == 200


def test_bad_request_behind_a_good_one_is_answered_after_it(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send(plain.request("echo", method="POST", body=b"good") + b"nonsense\r\n\r\n" + plain.request("echo"))
        assert wire.read_response().body == b"good"
        expect_refusal(wire, 400)


def test_bad_request_behind_a_slow_one_is_answered_after_it(plain: Probe, tmp_path: Path, key: str) -> None:
    gate = tmp_path / "gate"
    with plain.connect() as wire:
        wire.send(plain.request("wait_for_file", key, file=str(gate)) + b"nonsense\r\n\r\n")
        plain.wait_for_notes(key)
        gate.touch()
        assert literal(wire.read_response()) == "finished"
        expect_refusal(wire, 400)


def test_nothing_is_served_after_close(plain: Probe) -> None:
    with plain.connect() as wire:
        last = plain.request("ignore_body", headers=[("Connection", "close")])
        wire.send(last + plain.request("echo", method="POST", body=b"too late") * 10)
        assert wire.read_response().closes
        wire.expect_end()


def test_one_empty_line_between_requests_is_tolerated(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send(b"\r\n" + plain.request("ignore_body") + b"\r\n" + plain.request("ignore_body"))
        assert wire.read_response().status == 200
        assert wire.read_response().status == 200


def test_half_closed_pipelining_client_gets_every_answer(plain: Probe) -> None:
    with plain.connect() as wire:
        wire.send(b"".join(plain.request("echo", method="POST", body=b"%d" % number) for number in range(20)))
        wire.half_close()
        for number in range(20):
            assert wire.read_response().body == b"%d" % number
        wire.expect_clean_end()


def test_client_that_leaves_at_any_byte_does_no_harm(plain: Probe) -> None:
    data = plain.request("echo", method="POST", body=b"body")
    for size in range(0, len(data), 7):
        for leave in (Wire.close, Wire.reset):
            wire = plain.connect()
            wire.send(data[:size])
            leave(wire)
    assert plain.ask("echo", method="POST", body=b"still here").body == b"still here"


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_refusals_are_complete_framed_answers(plain: Probe, data: bytes, status: int) -> None:
    with plain.connect() as wire:
        wire.send(data + b"\r\n\r\n")
        response = wire.read_response()
        assert response.status in (status, 400) and response.closes
        assert response.framing == "length"
        wire.expect_end()


@pytest.mark.parametrize("interface", INTERFACES)
def test_refusals_are_logged_once_at_info_without_traceback(interface: str) -> None:
    with start(interface) as server:  # of its own: after many refusals in a short time such lines are left out
        with Probe(server, interface=interface).connect() as wire:
            wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: b\r\n\r\n")
            expect_refusal(wire, 400)
        server.wait_for_stderr("400")
    assert server.stderr_text().count("refused with 400") == 1
    assert "Traceback" not in server.stderr_text()
