"""foreign.py: names of other servers."""

from __future__ import annotations

import pytest

from duckfast import foreign
from duckfast.config import SETTINGS


def test_names_we_have_ourselves_are_not_explained_away() -> None:
    names = {foreign.normal(flag) for row in SETTINGS.values() for flag in (*row.flags, *row.aliases)} | SETTINGS.keys()
    assert not names & (foreign.ADVICE.keys() | foreign.HOOKS)


def test_no_name_has_two_answers() -> None:
    assert not foreign.ADVICE.keys() & foreign.COUNTERPARTS.keys()
    assert not foreign.ADVICE.keys() & foreign.HOOKS


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("keepalive", "timeout_keep_alive"),
        ("graceful_timeout", "timeout_graceful_shutdown"),
        ("raw_env", "env"),
        ("nothing", None),
    ],
)
def test_counterpart_of_a_key(name: str, setting: str | None) -> None:
    assert foreign.counterpart(name) == setting


def test_counterpart_whose_value_means_something_else_is_only_named() -> None:
    assert foreign.counterpart("http1_header_read_timeout") is None
    assert foreign.advice("--http1-header-read-timeout") == "did you mean --timeout-request-headers?"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("--proc-name", "did you mean --name?"),
        ("--h11-max-incomplete-event-size", "instead: --limit-request-head is"),
        ("--worker-class", "the application decides"),
        ("-k", "the application decides"),
        ("--statsd-host", "this version does not have it"),
        ("--http2-max-frame-size", "this version does not have it"),
        ("--permit-obsolete-folding", "such requests are refused"),
        ("post_fork", "there are no hooks"),
        ("--timeout-keepalive", "did you mean --timeout-keep-alive?"),
        ("--xyzzy", ""),
    ],
)
def test_advice(name: str, words: str) -> None:
    advice = foreign.advice(name)
    assert advice.startswith(words)
    assert bool(advice) is bool(words)


def test_advice_never_names_an_option_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(foreign.ADVICE, "xyzzy", "--no-such-option does it")
    assert foreign.advice("xyzzy") == foreign.NOT_YET
    flags = {flag for row in SETTINGS.values() for flag in row.flags}
    for name in foreign.ADVICE:
        assert set(foreign.OPTION.findall(foreign.advice(name))) <= flags
