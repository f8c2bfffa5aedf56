"""Ours, llhttp and h11 side by side over the corpus and seeded changes of it.

Whatever two readers both accept they must read alike: method, target, fields, content, and where the next request begins
(which shows in the next request). Ours may refuse what another accepts; that direction needs no excuse. Where another refuses,
or stops, in front of a request that ours accepts, the reason must be in the table KNOWN, so that a new one is looked at.
"""

from __future__ import annotations

import random
import re

import pytest
from differential.readers import OTHERS, Reading, Request, read_by_ours
from support.corpus import Case, load_cases
from support.mutation import mutate

CASES = [case for case in load_cases() if not case.limits]  # the others know nothing of our limits
SEEDS = [case.raw for case in CASES]
CHANGES = 15  # of each seed

# Reader, how it ended, and its words: what it does not read although RFC 9112 lets us.
KNOWN = {
    "ours with llhttp": [
        ("refuses", r"the method is not known to llhttp"),
        ("refuses", r"llhttp refuses the request head"),  # the two lists below, in one sentence
        ("refuses", r"llhttp refuses the body"),
    ],
    "httptools": [
        ("refuses", r"Invalid method|Expected space after method"),  # methods outside its table
        ("refuses", r"Invalid HTTP version"),  # 1.2 to 1.9
        ("refuses", r"Invalid char in url|Unexpected start char in url|Invalid characters in url"),  # bytes over 0x7f, odd signs
        ("refuses", r"Invalid character in chunk extensions"),  # it interprets them
        # It reads trailers as if they framed something.
        ("refuses", r"can't be present with|Invalid `Transfer-Encoding`|in Content-Length|Content-Length overflow"),
        ("refuses", r"Empty Content-Length|Empty Transfer-Encoding"),
        ("refuses", r"Content-Length already present|unexpected content-length"),
        ("refuses", r"Invalid header token|Invalid header value char"),  # in chunk trailers
        ("refuses", r"Data after `Connection: close`"),
        ("upgrades", r""),  # it stops at any Upgrade
        ("closes", r""),  # Proxy-Connection: close closes there
    ],
    "h11": [
        ("refuses", r"no request line received"),  # empty lines in front of a request
        ("refuses", r"illegal request line"),  # bytes over 0x7f in the target
        ("refuses", r"illegal chunk header"),  # more than twenty digits, leading zeros included
        ("refuses", r"conflicting Content-Length|bad Content-Length|Transfer-Encoding"),  # in trailers
        ("refuses", r"illegal header line"),  # in trailers
        ("closes", r""),  # HTTP/1.0 never persists there
        ("upgrades", r""),
    ],
}  # fmt: skip


def compare(raw: bytes) -> None:
    ours = read_by_ours(raw)
    for name, read in OTHERS.items():
        theirs = read(raw)
        for mine, other in zip(ours.requests, theirs.requests, strict=False):
            stopped = theirs.ending == "upgrades" and other is theirs.requests[-1]
            assert same(mine, other, body_may_be_missing=stopped), f"{name} reads {other}, ours {mine}"
        if len(theirs.requests) > len(ours.requests):
            assert ours.ending in ("refuses", "closes") or takes_for_upgrade(name, theirs), f"{name} reads more: {theirs}"
        elif len(theirs.requests) < len(ours.requests):
            assert is_known(name, theirs), f"{name} stops in front of {ours.requests[len(theirs.requests)]}: {theirs}"


def same(mine: Request, other: Request, *, body_may_be_missing: bool) -> bool:
    return (
        (mine.method, mine.target) == (other.method, other.target)
        and normal(mine.fields) == normal(other.fields)
        and (mine.body == other.body or (body_may_be_missing and not other.body))
    )


def normal(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """h11 rewrites the coding to lower case."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


def takes_for_upgrade(name: str, theirs: Reading) -> bool:
    """llhttp ends the message at the head of an upgrade, where ours still waits for the content it announced."""
    return name == "httptools" and theirs.ending == "upgrades"


def is_known(name: str, theirs: Reading) -> bool:
    return any(theirs.ending == ending and re.search(words, theirs.why) for ending, words in KNOWN[name])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_readers_agree_on_the_case(case: Case) -> None:
    compare(case.raw)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_readers_agree_on_changes_of_the_case(case: Case) -> None:
    chosen = random.Random(case.name)
    for _ in range(CHANGES):
        raw = mutate(case.raw, SEEDS, chosen)
        try:
            compare(raw)
        except AssertionError as error:
            raise AssertionError(f"{error} in {raw!r}") from error
