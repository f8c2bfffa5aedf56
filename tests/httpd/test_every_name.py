"""The script that uses every documented name for real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.authority import Authority
from support.process import clean_environment

SCRIPT = Path(__file__).with_name("every_name.py")
LEAST = 60  # checks that it makes


def test_every_documented_name_is_used_for_real(authority: Authority) -> None:
    command = [sys.executable, str(SCRIPT), *authority.server("localhost")]
    ended = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    number, word = ended.stdout.split()[-2:]
    assert word == "checks"
    assert int(number) >= LEAST
    assert "Traceback" not in ended.stderr
