"""Fixtures for real processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.manager import Manager


@pytest.fixture
def manager() -> Iterator[Manager]:
    with Manager() as manager:
        yield manager
