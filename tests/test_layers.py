"""The layers of the package, the size of its files and the promises of its C functions. Reads sources; imports nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "duckfast"

# From the bottom up: a module imports only from its own group and those above it in this table.
LAYERS = {
    "words": {"exceptions", "logformat", "kinds", "config", "foreign", "_debug", "_limits"},
    "grammar": {
        "_scan", "_headers", "_parser", "_writer", "_logformat", "certificates", "_trust", "_forwarded", "_proxy_protocol",
        "_utf8",
    },
    "connection": {"_http1", "_httptools", "_zlib", "_deflate", "_websocket", "websocket"},
    "I/O": {"_poller", "_transport", "_openssl", "_tls", "_client", "_accesslog", "_reactor", "_leader"},
    "interface": {"_wsgi", "_scope", "_asgi", "_asgi_websocket"},
    "services": {
        "sockets", "listening", "identity", "systemd", "environment", "sources", "printing", "tls", "importer", "log", "demo",
        "pulse", "control", "handover", "loops",
    },
    "engines": {"engine", "wsgi", "asgi"},
    "processes": {"server", "signals", "worker", "supervisor", "reloader", "processes"},
    "doors": {
        "__init__", "__main__", "cli", "httpd", "gunicorn", "gunicorn_settings", "gunicorn_hooks", "testing", "pytest_plugin",
        "contrib",
    },
}
GROUPS = list(LAYERS)
RANK = {module: rank for rank, modules in enumerate(LAYERS.values()) for module in modules}

# Words that the package itself offers to every layer.
WORDS_OF_THE_PACKAGE = {"__version__"}

MAX_LINES = 550  # near 500: what a person still reads in one sitting
REASON = re.compile(r"\b(long|longer|lines|one file|whole)\b.*\bbecause\b", re.IGNORECASE | re.DOTALL)

SOURCES = sorted(path for path in PACKAGE.rglob("*.*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"})
CYTHON = [path for path in SOURCES if path.suffix in {".pyx", ".pxd"}]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PACKAGE)) for path in paths]


def module_of(path: Path) -> str:
    """`wsgi`, or `httpd.server` and `httpd` for what is in a package within ours."""
    parts = [*path.relative_to(PACKAGE).parent.parts, path.stem]
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def rank(module: str) -> int:
    """A package within ours is in one group, whole."""
    return RANK[module.partition(".")[0]]


def code_lines(text: str) -> Iterator[str]:
    """Lines without comments and docstrings; a statement in brackets or with a trailing backslash is one line."""
    text = re.sub(r'"""(?:[^"\\]|\\.|"(?!""))*"""', '""', text)
    text = re.sub(r"'''(?:[^'\\]|\\.|'(?!''))*'''", "''", text)
    pending = ""
    for line in text.splitlines():
        line = re.sub(r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|#.*", lambda m: "" if m[0][0] == "#" else m[0], line)
        pending = f"{pending} {line.strip()}" if pending else line.rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1].rstrip()
        elif len(re.findall(r"[(\[{]", pending)) <= len(re.findall(r"[)\]}]", pending)):
            yield pending
            pending = ""
    if pending:
        yield pending


IMPORT = re.compile(r"^\s*(?:from\s+(?P<source>[.\w]+)\s+c?import\s+(?P<names>.+)|c?import\s+(?P<modules>[\w., ]+))$")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(absolute module, imported name or "") for every import and cimport, wherever in the file it stands."""
    for line in code_lines(path.read_text()):
        for statement in line.split(";"):
            found = IMPORT.match(statement)
            if found is None:
                continue
            if found["modules"]:
                for module in found["modules"].split(","):
                    yield module.split()[0], ""
                continue
            source = found["source"]
            if source.startswith("."):
                package = ["duckfast", *path.relative_to(PACKAGE).parent.parts]
                above = len(source) - len(source.lstrip(".")) - 1
                source = ".".join([*package[: len(package) - above], *filter(None, [source.lstrip(".")])])
            for name in found["names"].strip("() ").split(","):
                if name.strip():
                    yield source, name.split()[0]


def uses(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for source, name in imports(path):
        package, _, module = source.partition(".")
        if package != "duckfast":
            continue
        if module:
            whole = f"{module}.{name}"
            found.add(whole if whole in MODULES else module)
        elif name in RANK:
            found.add(name)
        elif name not in WORDS_OF_THE_PACKAGE:
            found.add("__init__")
    return found - {module_of(path)}


MODULES = {module_of(path) for path in SOURCES}


def docstring(path: Path) -> str:
    """What a file opens with: its docstring, or in a .pxd the comment on its first lines."""
    text = path.read_text()
    if path.suffix in {".py", ".pyi"}:
        return ast.get_docstring(ast.parse(text)) or ""
    opening = re.match(r'(?:\s*#[^\n]*\n)*\s*"""(.*?)"""', text, re.DOTALL)
    return opening[1] if opening else "".join(re.findall(r"\A(?:#[^\n]*\n)+", text))


def test_every_module_belongs_to_a_layer() -> None:
    homeless = {module.partition(".")[0] for module in MODULES} - RANK.keys()
    assert not homeless, f"add to LAYERS, in the group whose words they may use: {sorted(homeless)}"


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_module_imports_only_downwards(path: Path) -> None:
    own = rank(module_of(path))
    upwards = {f"{module} ({GROUPS[rank(module)]})" for module in uses(path) if rank(module) > own}
    assert not upwards, f"{path.name} is in the group {GROUPS[own]!r} and imports from above: {sorted(upwards)}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {module: set[str]() for module in MODULES}
    for path in SOURCES:
        graph[module_of(path)] |= uses(path)
    while leaves := {module for module, used in graph.items() if not used & graph.keys()}:
        graph = {module: used for module, used in graph.items() if module not in leaves}
    assert not graph, f"these import each other: {sorted(graph)}"


@pytest.mark.parametrize("path", CYTHON, ids=names(CYTHON))
def test_compiled_code_does_not_know_the_settings(path: Path) -> None:
    assert "config" not in uses(path), "numbers come in as Limits, or as arguments of a constructor"


def test_only_one_file_knows_httptools() -> None:
    who = {path.name for path in SOURCES if any(source.split(".")[0] == "httptools" for source, _ in imports(path))}
    assert who <= {"_httptools.pyx", "_httptools.pxd"}


@pytest.mark.parametrize("path", CYTHON, ids=names(CYTHON))
def test_compiled_modules_are_joined_by_cimport_never_include(path: Path) -> None:
    included = [line for line in code_lines(path.read_text()) if re.match(r"\s*include\s+[\"']", line)]
    assert not included


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_file_opens_with_what_it_owns(path: Path) -> None:
    assert len(docstring(path).strip()) > 10, "open with a docstring (a comment in a .pxd): what it owns, what it refuses to know"


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_long_file_opens_with_the_reason(path: Path) -> None:
    lines = path.read_text().count("\n")
    reason = REASON.search(docstring(path))
    assert lines <= MAX_LINES or reason, f"{lines} lines: split it, or say in its docstring that it is long because ..."


# C functions ------------------------------------------------------------------------------------------------------

FUNCTION = re.compile(
    r"^(?P<indent>\s*)c(?:p?)def\s+(?!class\b|extern\b|struct\b|union\b|enum\b|packed\b|fused\b|cppclass\b)"
    r"(?P<returns>[\w\s.*&\[\],]*?)(?P<name>\w+)\s*\((?P<rest>.*)$"
)
# Return types that are Python objects, so an exception is told by NULL and nothing needs saying.
OBJECTS = {"", "object", "bytes", "str", "list", "tuple", "dict", "set", "frozenset", "bytearray", "type", "memoryview"}
C_TYPES = re.compile(
    r"\b(void|bint|char|short|int|long|float|double|unsigned|signed|size_t|ssize_t|Py_ssize_t|Py_hash_t|u?int\w*_t|\w+_t)\b"
)


def declared_c_types() -> set[str]:
    """Enums, structs, unions and typedefs of the package: values, not objects."""
    found = set()
    for path in CYTHON:
        for line in code_lines(path.read_text()):
            declared = re.match(r"\s*(?:cp?def|ctypedef)\s+(?:packed\s+)?(?:enum|struct|union|fused)\s+(?:class\s+)?(\w+)", line)
            alias = re.match(r"\s*ctypedef\s+[^(]*?(\w+)\s*$", line) or re.match(r"\s*ctypedef\s+[^(]+\(\s*\*\s*(\w+)\)", line)
            for match in (declared, alias):
                if match:
                    found.add(match[1])
    return found


def after_arguments(rest: str) -> str:
    """What follows the bracket that closes the arguments."""
    depth = 1
    for position, letter in enumerate(rest):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0:
            return rest[position + 1 :]
    return ""


def c_functions(path: Path) -> Iterator[tuple[str, str, str]]:
    """(name, return type, what stands after the arguments), without the functions of other people's headers."""
    foreign: int | None = None  # the indent of the `cdef extern` block we are in
    for line in code_lines(path.read_text()):
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if foreign is not None and indent > foreign:
            continue
        foreign = indent if re.match(r"\s*cdef\s+extern\b.*:$", line) else None
        found = FUNCTION.match(line)
        # A variable with a value, or a pointer to a function, is not a function.
        if found is None or "=" in found["returns"] or re.match(r"\s*\*", found["rest"]):
            continue
        returns = re.sub(r"\b(inline|public|api|readonly|const)\b", "", found["returns"]).strip()
        yield found["name"], returns, after_arguments(found["rest"])


@pytest.mark.parametrize("path", CYTHON, ids=names(CYTHON))
def test_every_c_function_says_how_it_fails(path: Path) -> None:
    values = declared_c_types()
    silent = [
        f"{returns} {name}()"
        for name, returns, promise in c_functions(path)
        if returns not in OBJECTS
        and (returns.endswith("*") or C_TYPES.search(returns) or returns.split(".")[-1] in values)
        and not re.search(r"\b(noexcept|except)\b", promise)
    ]
    assert not silent, f"say `noexcept` or `except ...` behind the arguments of: {', '.join(silent)}"
