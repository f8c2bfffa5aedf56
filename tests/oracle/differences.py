"""Where two readers of the same bytes differ, and the list of the differences that are known: differences.md.

A difference is two statements: what the one reader says of a request, and that the other has read it whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from oracle.readers import Reading, Request
from support.corpus import read_bytes

LIST = Path(__file__).with_name("differences.md")
SECTION = re.compile(r"^## (?P<title>.+)\n(?P<text>(?:(?!^## ).*\n?)*)", re.MULTILINE)
EXAMPLE = re.compile(r"^```http\n(?P<http>.*?)^```\n```readings\n(?P<readings>.*?)^```$", re.MULTILINE | re.DOTALL)
ENDINGS = ("accepts, upgrading", "accepts", "refuses content", "refuses", "closes", "upgrades", "waits")
STATEMENT = re.compile(rf'(?P<reader>[\w ]+): (?P<ending>{"|".join(ENDINGS)})(?: "(?P<words>.*)")?')


@dataclass(frozen=True)
class Statement:
    """What one reader makes of a request: "accepts", or how it ended without it. `words`: how its reason begins."""

    reader: str
    ending: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.reader}: {self.ending}" + f' "{self.words}"' * bool(self.words)

    def covers(self, other: Statement) -> bool:
        """Is `other` said by this one?"""
        same = other.ending == self.ending or (self.ending, other.ending) == ("accepts", "accepts, upgrading")
        return self.reader == other.reader and same and other.words.startswith(self.words)


@dataclass(frozen=True)
class Example:
    """Bytes, and what the readers make of them."""

    title: str
    raw: bytes
    statements: tuple[Statement, ...]


@cache
def load() -> tuple[Example, ...]:
    return tuple(
        Example(section["title"], read_bytes(example["http"])[0], tuple(read_statements(example["readings"])))
        for section in SECTION.finditer(LIST.read_text("utf-8"))
        for example in EXAMPLE.finditer(section["text"])
    )


def read_statements(text: str) -> Iterator[Statement]:
    for line in text.splitlines():
        found = STATEMENT.fullmatch(line)
        if found is None:
            raise ValueError(f"{LIST.name}: no statement: {line!r}")
        yield Statement(found["reader"], found["ending"], found["words"] or "")


def say(reader: str, reading: Reading, most: int) -> Statement:
    """What `reader` says, when the reader that read most requests whole has read `most`."""
    if len(reading.requests) < most:
        return Statement(reader, reading.ending, reading.why)
    # An upgrade ends the message at its head for those who take it, whatever content it announces.
    return Statement(reader, "accepts, upgrading" if reading.ending == "upgrades" else "accepts")


def difference(ours: Reading, name: str, theirs: Reading) -> tuple[Statement, Statement] | None:
    """What is said of the first request that only one of the two has read whole; None: both have read as many."""
    if len(ours.requests) == len(theirs.requests):
        return None
    most = max(len(ours.requests), len(theirs.requests))
    return say("ours", ours, most), say(name, theirs, most)


def is_known(ours: Statement, theirs: Statement) -> bool:
    return any(
        any(stated.covers(ours) for stated in example.statements)
        and any(stated.covers(theirs) for stated in example.statements)
        for example in load()
    )


def check_same(ours: Reading, name: str, theirs: Reading) -> None:
    """What both have read whole, both have read alike: method, target, fields, content, and where the next one begins."""
    for mine, other in zip(ours.requests, theirs.requests, strict=False):
        stopped = theirs.ending == "upgrades" and other is theirs.requests[-1]
        assert same(mine, other, body_may_be_missing=stopped), f"{name} reads {other}, ours {mine}"


def same(mine: Request, other: Request, *, body_may_be_missing: bool) -> bool:
    return (
        (mine.method, mine.target) == (other.method, other.target)
        and normal(mine.fields) == normal(other.fields)
        and (mine.body == other.body or (body_may_be_missing and not other.body))
    )


def normal(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """h11 rewrites the coding to lower case."""
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]
