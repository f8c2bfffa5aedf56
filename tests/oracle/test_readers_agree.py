"""Ours, llhttp and h11 side by side: over the corpus, over seeded changes of it, and over requests made from a grammar.

Whatever two readers both read whole they must read alike: method, target, fields, content, and where the next request begins
(which shows in the next request). What only one of them reads must be in differences.md, with its reason.
"""

from __future__ import annotations

import random
import re

import pytest
from oracle.check import READERS, check
from oracle.differences import LIST, Example, load, say
from oracle.generator import every_oddity, generate
from support.corpus import Case, load_cases
from support.mutation import mutate

CASES = [case for case in load_cases() if not case.limits]  # the others know nothing of our limits
SEEDS = [case.raw for case in CASES]
CHANGES = 10  # of each case
GENERATED = 3_000


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_readers_agree_on_the_case(case: Case) -> None:
    check(case.raw)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_readers_agree_on_changes_of_the_case(case: Case) -> None:
    chosen = random.Random(case.name)
    for _ in range(CHANGES):
        check(mutate(case.raw, SEEDS, chosen))


def test_readers_agree_on_every_oddity_of_the_grammar() -> None:
    for raw in every_oddity(random.Random(1)):
        check(raw)


@pytest.mark.parametrize("seed", range(4))
def test_readers_agree_on_requests_made_from_the_grammar(seed: int) -> None:
    chosen = random.Random(seed)
    for _ in range(GENERATED // 4):
        check(generate(chosen))


@pytest.mark.parametrize("example", load(), ids=lambda example: example.title)
def test_a_known_difference_is_as_the_list_says(example: Example) -> None:
    readings = {name: read([example.raw]) for name, read in READERS.items()}
    most = max(len(reading.requests) for reading in readings.values())
    said = [say(stated.reader, readings[stated.reader], most) for stated in example.statements]
    assert [str(one) for one in said if not any(stated.covers(one) for stated in example.statements)] == []
    assert {one.reader for one in said} >= {"ours", "httptools", "h11"}
    assert any(len(readings[one.reader].requests) < most for one in said), "that is no difference"


def test_the_list_has_an_example_for_every_difference() -> None:
    text = LIST.read_text("utf-8")
    assert text.count("```http\n") == len(load())
    assert {example.title for example in load()} == set(re.findall("^## (.+)$", text, re.MULTILINE))
