"""Which lines of the compiled core were executed, from what gcc has counted in build/gcov. `make fuzz-coverage` runs it.

    python tests/fuzz/line_coverage.py [--missing] [module ...]

gcc counts lines of the generated C. Cython writes in front of each statement which line of the .pyx it is made of; a line
of the .pyx counts as executed when any of its C was.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = ROOT / "build" / "gcov"
# What the harnesses are for.
MODULES = (
    "_headers", "_parser", "_writer", "_forwarded", "_proxy_protocol", "_http1", "_httptools", "_zlib", "_deflate", "_utf8",
    "_websocket",
)

MARK = re.compile(r'\s*/\* "duckfast/(?P<file>\w+\.(?:pyx|pxd))":(?P<line>\d+)$')
# What Cython adds behind the last statement of a function, and in front of the next one.
BETWEEN = ("/* function exit code */", "static ", "/* Python wrapper */")


def pyx_lines(c_file: Path) -> dict[int, tuple[str, int]]:
    """The line of C -> the file and line it is made of."""
    made_of = {}
    current: tuple[str, int] | None = None
    for number, line in enumerate(c_file.read_text("utf-8", "replace").splitlines(), 1):
        if found := MARK.match(line):
            current = (found["file"], int(found["line"]))
        elif line.strip().startswith(BETWEEN):
            current = None
        elif current is not None:
            made_of[number] = current
    return made_of


def executions(module: str) -> dict[int, int]:
    """The line of C -> how often it was executed, of lines that can be."""
    counts = next(iter(OBJECTS.rglob(f"{module}.gcda")))
    output = subprocess.run(
        ["gcov", "--json-format", "--stdout", str(counts)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    lines: dict[int, int] = defaultdict(int)
    for report in map(json.loads, output.splitlines()):
        for file in report["files"]:
            if Path(file["file"]).name == f"{module}.c":
                for line in file["lines"]:
                    lines[line["line_number"]] += line["count"]
    return lines


def covered(module: str) -> dict[int, bool]:
    """The line of the .pyx -> was it executed?"""
    made_of = pyx_lines(ROOT / "build" / "release" / "c" / "src" / "duckfast" / f"{module}.c")
    lines: dict[int, bool] = {}
    for number, count in executions(module).items():
        file, line = made_of.get(number, ("", 0))
        if file == f"{module}.pyx":
            lines[line] = lines.get(line, False) or count > 0
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", action="store_true", help="list the lines that were not executed")
    parser.add_argument("modules", nargs="*", default=MODULES)
    options = parser.parse_args()
    print(f"{'module':16} {'lines':>6} {'executed':>9}")
    for module in options.modules:
        lines = covered(module)
        print(f"{module:16} {len(lines):6} {sum(lines.values()):9} {100 * sum(lines.values()) / len(lines):5.1f} %")
        if options.missing:
            text = (ROOT / "src" / "duckfast" / f"{module}.pyx").read_text("utf-8").splitlines()
            for line in sorted(line for line, executed in lines.items() if not executed):
                print(f"    {line:5}  {text[line - 1]}")


if __name__ == "__main__":
    main()
