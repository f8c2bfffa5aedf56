"""environment.py: env files, and what is set for the application."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from duckfast import environment
from duckfast.config import Config
from duckfast.exceptions import ConfigError

PLAIN = r"""
# a comment
A=plain words
export B = spaced   # a comment
C='single # "quoted" $HOME'
D="two\nlines \"quoted\" \\ "   # a comment
E=
F=a#b=c
G.H=''
A=the last one
"""

VALUES = {
    "A": "the last one",
    "B": "spaced",
    "C": 'single # "quoted" $HOME',
    "D": 'two\nlines "quoted" \\ ',
    "E": "",
    "F": "a#b=c",
    "G.H": "",
}


@pytest.fixture
def without_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dotenv", None)
    monkeypatch.setitem(sys.modules, "dotenv.main", None)


def write(folder: Path, text: str, name: str = ".env") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_plain_lines_are_read_without_python_dotenv(without_dotenv: None, tmp_path: Path) -> None:
    assert environment.read_file(write(tmp_path, PLAIN)) == VALUES


def test_python_dotenv_reads_the_same(tmp_path: Path) -> None:
    pytest.importorskip("dotenv")
    assert environment.read_file(write(tmp_path, PLAIN)) == VALUES
    assert environment.parse(PLAIN, "x") == VALUES


def test_python_dotenv_understands_more(tmp_path: Path) -> None:
    pytest.importorskip("dotenv")
    assert environment.read_file(write(tmp_path, "A=1\nB=${A}2\n")) == {"A": "1", "B": "12"}


@pytest.mark.parametrize("line", ["A=${B}", "A='open", 'A="open', "A=it's", "A=#b", r"A=a\b", r'A="\x41"', "A='b' c"])
def test_value_that_readers_see_differently_is_refused(without_dotenv: None, tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"\.env, line 2: cannot read the value of A; quote .* or install duckfast\[dotenv\]"):
        environment.read_file(write(tmp_path, f"X=1\n{line}\n"))


@pytest.mark.parametrize("line", ["A", "=b", "A B=c", "1A=b", "export"])
def test_line_that_is_no_assignment_is_refused(without_dotenv: None, tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"\.env, line 1: not NAME=VALUE"):
        environment.read_file(write(tmp_path, line))


@pytest.mark.parametrize("line", ["A", "'A"])
def test_line_that_is_no_assignment_is_refused_with_python_dotenv(tmp_path: Path, line: str) -> None:
    pytest.importorskip("dotenv")
    with pytest.raises(ConfigError, match=r"\.env, line 1: not NAME=VALUE"):
        environment.read_file(write(tmp_path, line))


def test_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the env file no.env: No such file"):
        environment.read_file("no.env")
    (tmp_path / ".env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        environment.read_file(str(tmp_path / ".env"))


def test_files_fill_in_and_env_sets(tmp_path: Path) -> None:
    first = write(tmp_path, "A=1\nB=1\nC=1\n", "first")
    second = write(tmp_path, "B=2\n", "second")
    found = environment.variables([first, second], [("D", "4"), ("E", "5")], {"C": "before", "D": "before"})
    assert found == {"A": "1", "B": "2", "D": "4", "E": "5"}


def test_reload_leaves_no_remains(tmp_path: Path) -> None:
    path = write(tmp_path, "A=1\nB=1\n")
    process = {"C": "before", "OTHER": "x"}
    environment.apply(Config(env_file=[path], env=["C=3"]), process)
    assert process == {"A": "1", "B": "1", "C": "3", "OTHER": "x"}
    process["BY_THE_APP"] = "y"
    assert environment.original(process) == {"C": "before", "OTHER": "x", "BY_THE_APP": "y"}
    write(tmp_path, "A=2\n")
    environment.apply(Config(env_file=[path]), process)
    assert process == {"A": "2", "C": "before", "OTHER": "x", "BY_THE_APP": "y"}
    with pytest.raises(ConfigError):
        environment.apply(Config(env_file=["no.env"]), process)
    assert process["A"] == "2"
    environment.apply(Config(), process)
    assert process == {"C": "before", "OTHER": "x", "BY_THE_APP": "y"}
