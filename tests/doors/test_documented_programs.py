"""The programs and tests that stand in docs/embedding.md and docs/testing.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import DEADLINE, clean_environment

DOCS = Path(__file__).parents[2] / "docs"
WEBSITE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello"]
"""


def blocks(page: str) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert found
    return found


def run(folder: Path, *arguments: str) -> str:
    (folder / "website.py").write_text(WEBSITE)
    environment = clean_environment({"PYTHONPATH": str(folder)})
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", blocks("embedding.md"))
def test_program_runs_to_its_end(tmp_path: Path, program: str) -> None:
    run(tmp_path, "-X", "dev", "-c", program)


def test_tests_pass(tmp_path: Path) -> None:
    for number, text in enumerate(blocks("testing.md")):
        (tmp_path / f"test_{number}.py").write_text(text)
    assert "4 passed" in run(tmp_path, "-m", "pytest", "-q", "-pno:hypothesispytest", "-pno:cacheprovider")
