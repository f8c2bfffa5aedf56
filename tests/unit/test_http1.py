"""The state of one connection: events, memory, framing of responses, who closes and when. Requests are in the corpus."""

from __future__ import annotations

import pytest
from support.corpus import byte_by_byte, probe

from duckfast._debug import alive, enabled
from duckfast._http1 import READING_MOVES, READING_NAMES, WRITING_MOVES, WRITING_NAMES, HTTP1Connection, Probe
from duckfast._httptools import HttptoolsConnection
from duckfast._limits import Limits
from duckfast._writer import DefaultFields

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_10 = b"GET / HTTP/1.0\r\n\r\n"
GET_10_KEEP_ALIVE = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
LENGTH_2 = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def plain() -> Probe:
    """A connection whose responses carry neither Date nor Server."""
    return Probe(HTTP1Connection(Limits(), DefaultFields(server=None, date=False)))


def requested(raw: bytes = GET) -> Probe:
    """A connection that has read one whole request."""
    door = plain()
    door.feed(raw)
    while door.poll()[0] != "end":
        pass
    return door


def events(door: Probe) -> list[str]:
    """The names of the events up to the first that asks for something."""
    names: list[str] = []
    while not names or names[-1] not in ("need_data", "paused", "failed", "closed"):
        names.append(str(door.poll()[0]))
    return names


# Reading ---------------------------------------------------------------------------------------------------------


def test_request_without_body_is_request_end_paused() -> None:
    door = plain()
    assert events(door) == ["need_data"]
    door.feed(GET)
    assert events(door) == ["request", "end", "paused"]
    assert door.poll() == ("paused",)
    assert door.connection.request_complete


def test_next_head_is_not_read_before_it_is_asked_for() -> None:
    door = plain()
    door.feed(GET + GET)
    assert events(door) == ["request", "end", "paused"]
    assert door.unread == len(GET)
    door.next_request()
    assert not door.connection.request_complete
    assert events(door) == ["request", "end", "paused"]
    door.next_request()
    assert events(door) == ["need_data"]


def test_body_comes_as_it_arrives() -> None:
    door = plain()
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
    assert door.poll()[0] == "request"
    assert door.poll() == ("data", b"ab")
    assert door.poll() == ("need_data",)
    assert door.connection.body_received == 2
    door.feed(b"cdefGET")
    assert door.poll() == ("data", b"cdef")
    assert door.poll() == ("end",)
    assert door.unread == 3


def test_refusal_is_final() -> None:
    door = plain()
    door.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert door.poll() == ("failed", 400, "Host is missing")
    assert door.unread == 0
    door.feed(GET)
    door.feed_eof()
    assert door.poll() == ("failed", 400, "Host is missing")


def test_client_that_leaves_after_a_whole_request_is_still_answered() -> None:
    door = plain()
    door.feed(GET)
    door.feed_eof()
    assert events(door) == ["request", "end", "paused"]
    door.start_response(200, body_size=0)
    assert door.finish() == (b"", "keep_alive")
    door.next_request()
    assert events(door) == ["closed"]


def test_client_that_leaves_behind_pipelined_requests_is_answered_all_of_them() -> None:
    door = plain()
    door.feed(GET + GET)
    door.feed_eof()
    assert events(door) == ["request", "end", "paused"]
    door.next_request()
    assert events(door) == ["request", "end", "paused"]
    door.next_request()
    assert events(door) == ["closed"]


def test_between_requests_means_that_no_byte_of_a_head_has_come() -> None:
    door = plain()
    assert door.between_requests
    door.feed(b"\r\n\r")
    assert events(door) == ["need_data"]
    assert door.between_requests
    door.feed(b"\nG")
    assert not door.between_requests
    assert events(door) == ["need_data"]
    assert not door.between_requests
    door.feed(GET[1:])
    assert events(door) == ["request", "end", "paused"]
    assert door.between_requests
    door.feed(b"P")
    assert not door.between_requests


def test_it_is_not_between_requests_while_a_body_is_missing() -> None:
    door = plain()
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
    assert events(door) == ["request", "need_data"]
    assert not door.between_requests


def test_head_request_is_known_even_when_the_head_is_refused() -> None:
    door = plain()
    door.feed(b"HEAD / HTTP/1.1\r\n\r\n")
    assert door.poll()[0] == "failed"
    assert door.refuse(400).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("connection", [HTTP1Connection, HttptoolsConnection])
def test_unfinished_head_request_is_known_however_it_was_cut(connection: type[HTTP1Connection]) -> None:
    door = probe(connection)
    for piece in byte_by_byte(b"HEAD / HTTP/1.1"):
        door.feed(piece)
        assert door.poll() == ("need_data",)
    door.feed_eof()
    assert door.poll()[0] == "failed"
    assert door.refuse(400).endswith(b"\r\n\r\n")


def test_minor_version_is_that_of_the_latest_request() -> None:
    door = plain()
    assert door.connection.minor == 1
    door.feed(GET_10_KEEP_ALIVE + GET)
    assert events(door) == ["request", "end", "paused"]
    assert door.connection.minor == 0
    door.next_request()
    assert events(door) == ["request", "end", "paused"]
    assert door.connection.minor == 1


# Memory ----------------------------------------------------------------------------------------------------------


def test_idle_connection_owns_no_buffer() -> None:
    door = plain()
    for piece in byte_by_byte(GET):
        door.feed(piece)
        door.poll()
    assert door.kept > 0
    assert events(door) == ["end", "paused"]
    door.settle()
    assert door.kept == 0
    door.next_request()
    assert events(door) == ["need_data"]
    assert door.kept == 0


def test_body_bytes_are_never_kept() -> None:
    door = plain()
    door.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    assert events(door) == ["request", "need_data"]
    for _ in range(50):
        door.feed(b"x" * 10_000)
        assert events(door) == ["data", "need_data"]
        door.settle()
        assert door.kept == 0


def test_chunk_framing_is_never_kept() -> None:
    door = plain()
    door.feed(CHUNKED)
    assert events(door) == ["request", "need_data"]
    for piece in byte_by_byte(b"5;ext=1\r\nhello\r\n" * 20):
        door.feed(piece)
        while door.poll()[0] != "need_data":
            pass
        door.settle()
        assert door.kept == 0


def test_unread_pipelined_requests_are_kept_once() -> None:
    door = plain()
    door.feed(GET * 100)
    for left in range(99, -1, -1):
        assert events(door) == ["request", "end", "paused"]
        door.settle()
        assert door.unread == left * len(GET)
        assert (door.kept > 0) == (left > 0)
        assert door.kept <= 2 * 100 * len(GET)
        door.next_request()


def test_refused_head_frees_what_was_kept() -> None:
    door = plain()
    for piece in byte_by_byte(b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"):
        door.feed(piece)
        door.poll()
        door.settle()
    assert door.poll()[0] == "failed"
    assert door.kept == 0


@pytest.mark.skipif(not enabled, reason="objects are counted in the debug build")
def test_objects_and_buffers_are_counted_back_to_where_they_were() -> None:
    before = alive()
    door = plain()
    door.feed(GET[:9])
    assert events(door) == ["need_data"]
    door.settle()
    assert alive()["connection"] == before["connection"] + 1
    assert alive()["buffer"] == before["buffer"] + 1
    del door
    assert alive() == before


# Responses: framing ----------------------------------------------------------------------------------------------


def test_known_length_is_content_length() -> None:
    door = requested()
    assert door.start_response(200, body_size=5) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert door.framing == "length"
    assert door.send(b"hello") == b"hello"
    assert door.finish() == (b"", "keep_alive")


def test_length_of_the_application_wins() -> None:
    door = requested()
    assert door.start_response(200, [(b"content-length", b" 5 ")]) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert door.send(b"hello") == b"hello"
    assert door.finish() == (b"", "keep_alive")


def test_more_bytes_than_content_length_never_leave() -> None:
    door = requested()
    door.start_response(200, [(b"content-length", b"5")])
    assert door.send(b"hel") == b"hel"
    assert door.send(b"lo, world") == b"lo"
    assert door.send(b"!") == b""
    assert door.finish() == (b"", "keep_alive")


def test_fewer_bytes_than_content_length_break_the_connection() -> None:
    door = requested()
    door.start_response(200, [(b"content-length", b"5")])
    door.send(b"hell")
    assert door.finish() == (b"", "short")
    assert door.connection.closing


def test_unknown_length_is_chunked_on_11() -> None:
    door = requested()
    assert door.start_response(200) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert door.framing == "chunked"
    assert door.send(b"hello, wonderful") == b"10\r\nhello, wonderful\r\n"
    assert door.send(b"") == b""
    assert door.finish() == (b"0\r\n\r\n", "keep_alive")


def test_unknown_length_is_delimited_by_the_close_on_10() -> None:
    for raw in (GET_10, GET_10_KEEP_ALIVE):
        door = requested(raw)
        assert door.start_response(200) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        assert door.framing == "until_close"
        assert door.send(b"hello") == b"hello"
        assert door.finish() == (b"", "close")


def test_trailers_follow_the_last_chunk() -> None:
    door = requested()
    door.start_response(200, body_size=5, trailers=True)
    assert door.send(b"hello") == b"5\r\nhello\r\n"
    assert door.finish(b"X-Sum: 1\r\n") == (b"0\r\nX-Sum: 1\r\n\r\n", "keep_alive")


def test_trailers_of_a_response_without_chunks_do_not_leave() -> None:
    door = requested(GET_10_KEEP_ALIVE)
    assert b"Content-Length: 5\r\n" in door.start_response(200, body_size=5, trailers=True)
    assert door.send(b"hello") == b"hello"
    assert door.finish(b"X-Sum: 1\r\n") == (b"", "keep_alive")


def test_head_has_the_fields_of_get_and_no_body() -> None:
    door = requested(HEAD)
    assert door.start_response(200, body_size=5) == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert door.send(b"hello") == b""
    assert door.finish(b"X: y\r\n") == (b"", "keep_alive")
    assert requested(HEAD).start_response(200) == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = requested(HEAD).start_response(200, [(b"Content-Length", b"7")], body_size=0)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"


def test_empty_body_of_head_says_nothing_of_the_length_get_would_have() -> None:
    assert requested(HEAD).start_response(200, body_size=0) == b"HTTP/1.1 200 OK\r\n\r\n"


def test_head_of_unknown_length_on_10_keeps_the_connection() -> None:
    door = requested(b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert door.start_response(200) == b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"
    assert door.finish() == (b"", "keep_alive")


@pytest.mark.parametrize("raw", [GET, HEAD])
def test_204_has_neither_length_nor_body(raw: bytes) -> None:
    for fields in ([], [(b"Content-Length", b"5")], [(b"Transfer-Encoding", b"chunked")]):
        for body_size in (-1, 0, 5):
            door = requested(raw)
            assert door.start_response(204, fields, body_size=body_size) == b"HTTP/1.1 204 No Content\r\n\r\n"
            assert door.send(b"hello") == b""
            assert door.finish() == (b"", "keep_alive")


def test_304_keeps_the_length_of_the_application_and_has_no_body() -> None:
    for body_size in (-1, 0, 5):
        assert requested().start_response(304, body_size=body_size) == b"HTTP/1.1 304 Not Modified\r\n\r\n"
    door = requested()
    head = door.start_response(304, [(b"Content-Length", b"7")], body_size=0)
    assert head == b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"
    assert door.send(b"hello") == b""
    assert door.finish() == (b"", "keep_alive")


def test_205_has_length_zero_whatever_the_application_says() -> None:
    for fields in ([], [(b"Content-Length", b"5")]):
        door = requested()
        head = door.start_response(205, fields, body_size=5)
        assert head == b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"
        assert door.send(b"hello") == b""
        assert door.finish() == (b"", "keep_alive")


def test_empty_body_has_length_zero() -> None:
    door = requested()
    assert door.start_response(200, body_size=0) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert door.finish() == (b"", "keep_alive")


# Responses: persistence -------------------------------------------------------------------------------------------


def test_close_of_the_client_is_answered() -> None:
    door = requested(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert door.start_response(200, body_size=0).endswith(b"\r\nConnection: close\r\n\r\n")
    assert door.finish() == (b"", "close")


def test_close_of_the_application_is_honoured() -> None:
    door = requested()
    head = door.start_response(200, [(b"Connection", b"x, Close")], body_size=0)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert door.finish() == (b"", "close")


def test_close_of_the_server_is_said() -> None:
    door = requested()
    door.close_after_response()
    assert door.start_response(200, body_size=0).endswith(b"\r\nConnection: close\r\n\r\n")
    assert door.finish() == (b"", "close")


def test_10_is_told_that_it_persists() -> None:
    door = requested(GET_10_KEEP_ALIVE)
    head = door.start_response(200, body_size=0)
    assert head == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    assert door.finish() == (b"", "keep_alive")


def test_10_without_keep_alive_closes() -> None:
    door = requested(GET_10)
    assert door.start_response(200, body_size=0) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert door.finish() == (b"", "close")


def test_second_response_starts_afresh() -> None:
    door = requested(HEAD)
    door.start_response(200)
    door.finish()
    door.next_request()
    assert not door.connection.head_sent
    door.feed(GET)
    assert events(door) == ["request", "end", "paused"]
    door.start_response(200, body_size=2)
    assert door.send(b"ok") == b"ok"
    assert door.finish() == (b"", "keep_alive")


# Answers of the server itself --------------------------------------------------------------------------------------


def test_refusal_is_a_whole_response_that_closes() -> None:
    door = requested()
    answer = door.refuse(408, b"the head took too long")
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nContent-Length: 23\r\n" in head + b"\r\n"
    assert head.endswith(b"\r\nConnection: close")
    assert content == b"the head took too long\n"
    assert door.connection.closing
    assert door.connection.head_sent


def test_refusal_without_words_uses_the_standard_reason() -> None:
    assert probe().refuse(503).endswith(b"\r\n\r\nService Unavailable\n")


def test_refusal_of_a_client_of_10_says_close_too() -> None:
    assert b"\r\nConnection: close\r\n" in requested(GET_10).refuse(400)


# States ----------------------------------------------------------------------------------------------------------


def reading_states() -> dict[str, tuple[bytes, bool]]:
    """For each state of the reading half, bytes that lead to it from a new connection, and whether the client then leaves."""
    length = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    return {
        "head": (b"GET", False), "length": (length, False), "chunked": (CHUNKED, False), "end": (GET, False),
        "paused": (GET, False), "failed": (b"\0", False), "closed": (b"", True),
    }  # fmt: skip


@pytest.mark.parametrize("name", READING_NAMES)
def test_every_state_of_the_reading_half_is_reached(name: str) -> None:
    raw, eof = reading_states()[name]
    door = plain()
    door.feed(raw)
    if eof:
        door.feed_eof()
    door.poll()
    if name == "paused":
        door.poll()
    assert door.reading == name


def walk(pieces: list[bytes], eof: bool = False) -> list[str]:
    """The states the reading half goes through while it is polled after each piece, next_request() included."""
    door = plain()
    states = [door.reading]
    for piece in [*pieces, b""]:
        if piece:
            door.feed(piece)
        elif eof:
            door.feed_eof()
        while True:
            event = door.poll()[0]
            if door.reading != states[-1]:
                states.append(door.reading)
            if event == "paused":
                door.next_request()
                states.append(door.reading)
            elif event in ("need_data", "failed", "closed"):
                break
    return states


@pytest.mark.parametrize(
    "pieces, eof, states",
    [
        ([GET], True, ["head", "end", "paused", "head", "closed"]),
        ([LENGTH_2, b"x", b"y"], False, ["head", "length", "end", "paused", "head"]),
        ([LENGTH_2, b"x"], True, ["head", "length", "failed"]),
        ([CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n"], False, ["head", "chunked", "paused", "head"]),
        ([CHUNKED, b"g"], False, ["head", "chunked", "failed"]),
        ([b"G\0"], True, ["head", "failed"]),
    ],
)
def test_moves_are_those_of_the_table(pieces: list[bytes], eof: bool, states: list[str]) -> None:
    seen = walk(pieces, eof)
    assert seen == states
    for start, end in zip(seen, seen[1:], strict=False):
        moves = {READING_NAMES[move] for move in READING_MOVES[READING_NAMES.index(start)]}
        # The end of a chunked body is reported by the poll() that finds it, so "end" is passed, not seen.
        assert end in moves or (start, end) == ("chunked", "paused")


def test_tables_are_about_the_same_states_as_their_names() -> None:
    assert set(READING_MOVES) == set(range(len(READING_NAMES)))
    assert set(WRITING_MOVES) == set(range(len(WRITING_NAMES)))
    for moves in (READING_MOVES, WRITING_MOVES):
        assert all(ends <= set(moves) for ends in moves.values())


def test_writing_half_goes_head_body_done() -> None:
    door = requested()
    assert door.writing == "head"
    door.start_response(200, body_size=1)
    assert door.writing == "body"
    door.send(b"x")
    assert door.writing == "body"
    door.finish()
    assert door.writing == "done"
    door.next_request()
    assert door.writing == "head"
