"""Replays the corpus on the bare core: whole, byte by byte, at seeded splits, and through llhttp."""

from __future__ import annotations

import h11
import pytest
from support.corpus import (
    FLOW,
    Case,
    by_request,
    byte_by_byte,
    in_one_order,
    keep_stated,
    load_cases,
    probe,
    random_splits,
    replay,
    whole,
)

from duckfast._httptools import HttptoolsConnection

CASES = load_cases()
SEEDS = range(8)

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_corpus_is_broad() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@each_case
def test_case_gives_its_events(case: Case) -> None:
    seen = replay(probe(**case.limits), whole(case.raw), case.eof)
    assert in_one_order(keep_stated(seen, case.events)) == in_one_order(case.events)


@each_case
def test_events_do_not_depend_on_how_the_network_cut_the_bytes(case: Case) -> None:
    expected = replay(probe(**case.limits), whole(case.raw), case.eof)
    assert replay(probe(**case.limits), byte_by_byte(case.raw), case.eof) == expected
    for seed in SEEDS:
        assert replay(probe(**case.limits), random_splits(case.raw, seed), case.eof) == expected, f"seed {seed}"


@each_case
def test_refusal_is_one_framed_answer_that_closes(case: Case) -> None:
    refusals = [line for line in case.events if line.startswith("error")]
    if not refusals:
        return
    door = probe(**case.limits)
    replay(door, whole(case.raw), case.eof)
    status = int(refusals[0].split()[1])
    reason = refusals[0].split('"')[1]
    answer = door.refuse(door.connection.error_status, reason.encode())
    head_request = door.connection.head_request

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if head_request else "GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    fields = dict(response.headers)
    assert fields[b"connection"] == b"close"
    assert b"date" in fields
    if not head_request:
        content = client.next_event()
        assert isinstance(content, h11.Data)
        assert bytes(content.data) == reason.encode() + b"\n"
        assert int(fields[b"content-length"]) == len(content.data)
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.trailing_data == (b"", False)


@each_case
def test_llhttp_is_never_the_more_lenient_way_in(case: Case) -> None:
    ours = replay(probe(**case.limits), whole(case.raw), case.eof)
    theirs = replay(probe(HttptoolsConnection, **case.limits), whole(case.raw), case.eof)
    if case.llhttp_refuses:
        assert any(line.startswith("error") for line in theirs)
    elif any(line.startswith("error") for line in ours):
        # The verdict is the same, the sentence and the status may be another's: llhttp has fewer of both.
        assert without_refusal(theirs) == without_refusal(ours)
        assert theirs[-1].startswith("error")
    else:
        assert theirs == ours


@each_case
def test_llhttp_gives_the_same_events_however_the_bytes_were_cut(case: Case) -> None:
    expected = replay(probe(HttptoolsConnection, **case.limits), whole(case.raw), case.eof)
    assert replay(probe(HttptoolsConnection, **case.limits), byte_by_byte(case.raw), case.eof) == expected
    assert replay(probe(HttptoolsConnection, **case.limits), random_splits(case.raw, 1), case.eof) == expected


def without_refusal(lines: list[str]) -> list[str]:
    return [line for part in by_request(lines) for line in part if line.split()[0] in FLOW and line.split()[0] != "error"]
