"""The fuzz harnesses as ordinary tests: over their seeds, and over a few thousand changes of them that are always the same."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.harnesses import HARNESSES, seeds
from support.mutation import mutate
from support.process import clean_environment

SEEDS = seeds()
CHANGES = 4  # of each seed; `make fuzz` is for more


@pytest.fixture(autouse=True, scope="module")
def log_as_before() -> Iterator[None]:
    """The engines of the harnesses silence the log of this process; other tests read it."""
    logger = logging.getLogger("duckfast")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.parametrize("name", HARNESSES)
def test_promises_hold_for_the_corpus(name: str) -> None:
    for raw in SEEDS:
        HARNESSES[name](raw)


@pytest.mark.parametrize("name", HARNESSES)
def test_promises_hold_for_changes_of_the_corpus(name: str) -> None:
    chosen = random.Random(name)
    for raw in SEEDS:
        for _ in range(CHANGES):
            data = mutate(raw, SEEDS, chosen)
            try:
                HARNESSES[name](data)
            except AssertionError as error:
                raise AssertionError(f"broken by {data!r}") from error


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff" * 100_000, b"\r\n" * 100, b"G" * 100_000, bytes(range(256)) * 40], ids=len)
def test_promises_hold_for_bytes_that_are_no_requests(raw: bytes) -> None:
    for check in HARNESSES.values():
        check(raw)


def test_fuzzer_runs_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--seconds", "0.2", "--seed", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no findings" in done.stdout
