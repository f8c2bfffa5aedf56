"""What must agree across the repository's own files: versions, lists of modules, targets, generated pages."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import duckfast

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "duckfast"


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_installed_metadata_and_package_tell_the_same_version() -> None:
    assert version("duckfast") == duckfast.__version__


def test_changelog_opens_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == duckfast.__version__


def test_setup_lists_every_compiled_module() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text())
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.List)
    }
    assert set(lists["MODULES"]) == {path.stem for path in PACKAGE.glob("*.pyx")}


def test_every_compiled_module_has_a_stub() -> None:
    assert {path.stem for path in PACKAGE.glob("*.pyx")} == {path.stem for path in PACKAGE.glob("*.pyi")}


def test_options_page_is_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "write_options.py", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


WORKFLOWS = [f".github/workflows/{name}.yml" for name in ("ci", "fuzz", "wheels")]


@pytest.mark.parametrize("path", [".ci/run", "README.md", "docs/contributing.md", *WORKFLOWS])
def test_whoever_calls_make_names_a_target_that_exists(path: str) -> None:
    called = set(re.findall(r"(?:^ *|run: |`)make ([a-z-]+)", (ROOT / path).read_text(), re.MULTILINE))
    assert called, f"{path} calls no target"
    assert called <= targets()


def test_gate_runs_the_test_command_of_the_readme() -> None:
    assert "make test\n" in (ROOT / "README.md").read_text()
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()


def test_links_between_our_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert not broken
