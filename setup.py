"""The compiled modules and the build variants. Everything declarative is in pyproject.toml.

Without a switch: the release build. With one of these in the environment, another:

DUCKFAST_DEBUG=1     bounds checks, asserts, ownership checks and object counters
DUCKFAST_SANITIZE=1  the debug build under the address and undefined-behaviour sanitizers
DUCKFAST_COVERAGE=1  line tracing for coverage.py
DUCKFAST_ANNOTATE=1  Cython's annotated HTML beside the generated C

Each variant builds in a folder of its own, build/<variant>, so none of them dirties another and each stays
incremental: a touched .pyx is translated, compiled and linked alone.
"""

import os
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE = "src/duckfast"

# In the order of the layers: a module cimports only from those above it.
MODULES = [
    "_debug",
    "_limits",
    "_headers",
    "_parser",
    "_writer",
    "_logformat",
    "_trust",
    "_forwarded",
    "_proxy_protocol",
    "_utf8",
    "_http1",
    "_httptools",
    "_zlib",
    "_deflate",
    "_websocket",
    "_poller",
    "_transport",
    "_openssl",
    "_tls",
    "_client",
    "_accesslog",
    "_reactor",
    "_leader",
    "_wsgi",
    "_scope",
    "_asgi",
    "_asgi_websocket",
]

VARIANTS = ["SANITIZE", "DEBUG", "COVERAGE", "ANNOTATE"]


def chosen_variant() -> str:
    """The first switch that is set names the build; sanitize includes debug."""
    for name in VARIANTS:
        if os.environ.get(f"DUCKFAST_{name}", "") not in ("", "0"):
            return name.lower()
    return "release"


VARIANT = chosen_variant()
DEBUG = VARIANT in ("debug", "sanitize")
COVERAGE = VARIANT == "coverage"
BUILD_DIR = f"build/{VARIANT}"

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "auto_pickle": False,
    "freethreading_compatible": True,
    "wraparound": False,
    "cdivision": True,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "linetrace": COVERAGE,
}


def compiler_settings() -> dict[str, list]:
    """Macros and flags. No -march=native: anything beyond the baseline is chosen at run time."""
    macros: list[tuple[str, str]] = [("DUCKFAST_DEBUG", str(int(DEBUG)))]
    flags = ["-pthread", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]
    link = ["-pthread"]
    if DEBUG:
        flags += ["-O1", "-g", "-UNDEBUG"]
    else:
        # The interpreter's own flags usually carry -g, which triples the compile time and the size of a wheel.
        flags += ["-O3", "-g0"]
        macros.append(("CYTHON_WITHOUT_ASSERTIONS", "1"))
    if COVERAGE:
        macros.append(("CYTHON_TRACE_NOGIL", "1"))
    if VARIANT == "sanitize":
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
        flags += sanitizers
        link += sanitizers
    return {"define_macros": macros, "extra_compile_args": flags, "extra_link_args": link}


class BuildCython(build_ext):
    """Translates .pyx only when extensions are really built: metadata and sdists need no Cython run."""

    def build_extensions(self) -> None:
        from Cython.Build import cythonize
        from Cython.Compiler import Options

        Options.warning_errors = True
        generated = os.path.join(BUILD_DIR, "c")
        for extension, translated in zip(
            self.extensions,
            cythonize(
                list(self.extensions),
                build_dir=generated,
                compiler_directives=DIRECTIVES,
                annotate=VARIANT == "annotate",
                force=bool(self.force) or older_than_this_file(generated),
            ),
            strict=True,
        ):
            extension.sources = translated.sources
        super().build_extensions()


def older_than_this_file(generated: str) -> bool:
    """Directives live here, and Cython's own time stamps do not know them."""
    files = glob(os.path.join(generated, PACKAGE, "*.c"))
    return bool(files) and min(map(os.path.getmtime, files)) < os.path.getmtime("setup.py")


setup(
    ext_modules=[
        Extension(
            f"duckfast.{name}",
            [f"{PACKAGE}/{name}.pyx"],
            depends=["setup.py", *sorted(glob(f"{PACKAGE}/*.h"))],
            **compiler_settings(),
        )
        for name in MODULES
    ],
    cmdclass={"build_ext": BuildCython},
    options={"build": {"build_base": BUILD_DIR}, "build_ext": {"parallel": os.cpu_count() or 1}},
)
