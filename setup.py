"""The compiled modules and the four build variants. Everything declarative is in pyproject.toml.

DUCKFAST_DEBUG=1     bounds checks, asserts and object counters
DUCKFAST_SANITIZE=1  the debug build under the address and undefined-behaviour sanitizers
DUCKFAST_COVERAGE=1  line tracing for coverage.py
DUCKFAST_ANNOTATE=1  Cython's annotated HTML beside the generated C
Each variant builds in a folder of its own, build/<variant>, so none of them dirties another.
"""

import os

from setuptools import Extension, setup

from Cython.Build import cythonize
from Cython.Compiler import Options

# In the order of the layers: a module cimports only from those above it.
MODULES = [
    "_debug",
    "_limits",
    "_headers",
    "_parser",
    "_writer",
    "_http1",
    "_httptools",
    "_poller",
    "_transport",
    "_accesslog",
    "_reactor",
    "_wsgi",
    "_asgi",
]


def switch(name: str) -> bool:
    return os.environ.get(f"DUCKFAST_{name}", "") not in ("", "0")


sanitize = switch("SANITIZE")
debug = switch("DEBUG") or sanitize
coverage = switch("COVERAGE")
annotate = switch("ANNOTATE")
variant = (
    "sanitize" if sanitize else "debug" if debug else "coverage" if coverage else "annotate" if annotate else "release"
)
build_dir = os.path.join("build", variant)

directives = {
    "language_level": 3,
    "embedsignature": True,
    "auto_pickle": False,
    "freethreading_compatible": True,
    "wraparound": False,
    "cdivision": True,
    "boundscheck": debug,
    "nonecheck": debug,
    "initializedcheck": debug,
    "linetrace": coverage,
}
macros = [("DUCKFAST_DEBUG", "1" if debug else "0")]
compile_args = ["-O3", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]
link_args = []
if debug:
    compile_args += ["-O1", "-g", "-UNDEBUG"]
if coverage:
    macros.append(("CYTHON_TRACE_NOGIL", "1"))
if sanitize:
    flags = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    compile_args += flags
    link_args += flags

Options.warning_errors = True

extensions = [
    Extension(
        f"duckfast.{name}",
        [f"src/duckfast/{name}.pyx"],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for name in MODULES
    if os.path.exists(f"src/duckfast/{name}.pyx")
]

setup(
    ext_modules=cythonize(
        extensions,
        build_dir=os.path.join(build_dir, "c"),
        compiler_directives=directives,
        annotate=annotate,
        nthreads=0,
    ),
    options={"build": {"build_base": build_dir}, "build_ext": {"parallel": os.cpu_count() or 1}},
)
