"""The library that makes calls fail, compiled once per run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.faults import compile_shim


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_shim(tmp_path_factory.mktemp("shim") / "shim.so")
