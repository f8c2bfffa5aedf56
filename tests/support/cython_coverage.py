"""A plugin for coverage.py: line coverage of the .pyx files, whose generated C lies in build/coverage/c.

Cython's own plugin reads from that C which lines can be executed, but looks for it beside the .pyx only, and for the
.pyx only from the checkout's folder, where a server that a test has started need not be.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from Cython.Coverage import Plugin

ROOT = Path(__file__).resolve().parents[2]


class BuildFolderPlugin(Plugin):  # type: ignore[misc]
    def file_tracer(self, filename: str) -> Any:
        path = Path(filename)
        if path.parts[-3:-1] == ("src", "duckfast"):
            filename = str(ROOT / "src" / "duckfast" / path.name)
        return super().file_tracer(filename)

    def _find_source_files(self, filename: str) -> tuple[str | None, str | None]:
        module = Path(filename).name.split(".")[0]
        generated = ROOT / "build" / "coverage" / "c" / "src" / "duckfast" / f"{module}.c"
        if Path(filename).suffix in {".pyx", ".pxd", ".so"} and generated.exists():
            return str(generated), None
        return super()._find_source_files(filename)  # type: ignore[no-any-return]


def coverage_init(registry: Any, options: dict[str, str]) -> None:
    # Where Cython's plugin looks for the names in the C files. At the end: what is tested is the installed package.
    sys.path += [str(ROOT), str(ROOT / "src")]
    plugin = BuildFolderPlugin()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
