"""What the framework tests share: a file to send."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FILE_SIZE = 3_000_000  # bytes; many times what a socket takes at once


@pytest.fixture(scope="session")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "ducks.bin"
    path.write_bytes(os.urandom(FILE_SIZE))
    return path
