"""importer.py: from what a person types to an application and its interface."""

from __future__ import annotations

import functools
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duckfast.exceptions import ImportFailure
from duckfast.importer import detect_interface, load_application, name_application, parse_target

numbers = itertools.count()
Write = Callable[..., str]


@pytest.fixture(autouse=True)
def unchanged_import_system() -> Iterator[None]:
    path, modules = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(source)` makes a module in tmp_path with a name of its own, which it returns."""

    def make(source: str, name: str | None = None) -> str:
        name = name or f"written{next(numbers)}"
        path = tmp_path / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return name

    return make


def failure(target: Any, tmp_path: Path, **options: Any) -> ImportFailure:
    with pytest.raises(ImportFailure) as caught:
        load_application(target, app_dir=str(tmp_path), **options)
    assert "\n" not in str(caught.value)
    return caught.value


APP = """
def app(environ, start_response): return ["app"]
class Holder:
    def inner(self, environ, start_response): return ["inner"]
holder = Holder()
number = 3
def create(name="none"):
    def made(environ, start_response): return [name]
    return made
"""


@pytest.mark.parametrize(
    ("attribute", "answer"),
    [
        ("", "app"),
        (":app", "app"),
        (":holder.inner", "inner"),
        (":create()", "none"),
        (":create('x')", "x"),
        (":create(name='y:z')", "y:z"),
    ],
)
def test_target_leads_to_the_application(write: Write, tmp_path: Path, attribute: str, answer: str) -> None:
    app = load_application(write(APP) + attribute, app_dir=str(tmp_path))
    assert app({}, None) == [answer]


def test_target_may_be_a_path(write: Write, tmp_path: Path) -> None:
    name = write(APP)
    for target in (f"{name}.py", f"./{name}.py:app", f"{tmp_path}/{name}.py:app", f"{tmp_path}/{name}"):
        assert load_application(target, app_dir=str(tmp_path))({}, None) == ["app"]


def test_path_inside_a_package_is_imported_under_its_full_name(write: Write, tmp_path: Path) -> None:
    write("", "shop9.__init__")
    write("word = 'relative'", "shop9.words")
    write("from .words import word\ndef app(environ, start_response): return [word]", "shop9.main")
    app = load_application("shop9/main.py", app_dir=str(tmp_path))
    assert app({}, None) == ["relative"]
    assert app.__module__ == "shop9.main"


def test_path_may_be_no_module_name_or_have_the_name_of_another_module(write: Write, tmp_path: Path) -> None:
    for name in ("my-app", "json"):
        write(APP, name)
        assert load_application(f"{name}.py:app", app_dir=str(tmp_path))({}, None) == ["app"]


def test_usual_names_are_tried_without_an_attribute(write: Write, tmp_path: Path) -> None:
    name = write("def application(environ, start_response): return ['application']")
    assert load_application(name, app_dir=str(tmp_path))({}, None) == ["application"]


def test_factory_switch_calls_the_target(write: Write, tmp_path: Path) -> None:
    app = load_application(write(APP) + ":create", factory=True, app_dir=str(tmp_path))
    assert app({}, None) == ["none"]


def test_factory_switch_calls_an_object_too() -> None:
    assert load_application(lambda: print, factory=True) is print


def test_unknown_module_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    error = failure("nowhere_at_all:app", tmp_path)
    assert str(error).startswith(f"there is no module 'nowhere_at_all' in {tmp_path} or the installed packages")
    assert error.app_traceback == ""


def test_misspelled_module_is_told_with_its_neighbour(write: Write, tmp_path: Path) -> None:
    write(APP, "website77")
    assert str(failure("webiste77:app", tmp_path)).endswith("did you mean 'website77'?")
    write(APP, "project77.__init__")
    write(APP, "project77.wsgi")
    assert "did you mean 'project77.wsgi'?" in str(failure("project77.wsg:app", tmp_path))


def test_dot_in_place_of_the_colon_is_told(write: Write, tmp_path: Path) -> None:
    name = write(APP)
    assert f"did you mean '{name}:app'?" in str(failure(f"{name}.app", tmp_path))


def test_misspelled_attribute_is_told_with_its_neighbour(write: Write, tmp_path: Path) -> None:
    name = write("def application(environ, start_response): return []")
    assert str(failure(f"{name}:aplication", tmp_path)).endswith(f"did you mean '{name}:application'?")


def test_unknown_attribute_is_told_with_what_can_be_called(write: Write, tmp_path: Path) -> None:
    name = write("import os\nfrom pathlib import Path\n" + textwrap.dedent(APP))
    message = str(failure(f"{name}:zzz", tmp_path))
    assert message.endswith(f"what can be called in {name}: app, Holder, create")


def test_module_without_a_usual_name_is_told_with_what_can_be_called(write: Write, tmp_path: Path) -> None:
    name = write("def site(environ, start_response): return []")
    assert str(failure(name, tmp_path)).endswith(f"what can be called in {name}: site")
    name = write("def create_app(): return print")
    assert f"'{name}:create_app()'" in str(failure(name, tmp_path))


def test_attribute_that_cannot_be_called_is_told(write: Write, tmp_path: Path) -> None:
    assert "number is a int" in str(failure(write(APP) + ":number", tmp_path))


def test_factory_mistakes_are_told(write: Write, tmp_path: Path) -> None:
    name = write(APP + "\ndef none(): pass\nasync def late(): pass\ndef needs(x): return x\n")
    assert "returned a NoneType" in str(failure(f"{name}:none()", tmp_path))
    assert "coroutine function" in str(failure(f"{name}:late()", tmp_path))
    assert "missing a required argument: 'x'" in str(failure(f"{name}:needs()", tmp_path))
    assert "cannot be called" in str(failure(f"{name}:number()", tmp_path))
    assert "arguments must be literals" in str(failure(f"{name}:create(open('x'))", tmp_path))


def test_failing_import_shows_the_applications_frames_only(write: Write, tmp_path: Path) -> None:
    name = write("def broken():\n    raise RuntimeError('no database')\nbroken()\n")
    error = failure(f"{name}:app", tmp_path)
    assert str(error) == f"importing '{name}' failed: RuntimeError: no database"
    frames = [line for line in error.app_traceback.splitlines() if line.startswith("  File")]
    assert len(frames) == 2
    assert all(f"{name}.py" in frame for frame in frames)


def test_module_that_the_application_misses_is_the_applications_failure(write: Write, tmp_path: Path) -> None:
    name = write("import a_package_that_is_not_installed")
    error = failure(f"{name}:app", tmp_path)
    assert "No module named 'a_package_that_is_not_installed'" in str(error)
    assert f"{name}.py" in error.app_traceback


def test_syntax_error_shows_the_line(write: Write, tmp_path: Path) -> None:
    error = failure(write("def app(:\n"), tmp_path)
    assert "def app(:" in error.app_traceback
    assert "importlib" not in error.app_traceback


def test_import_that_exits_is_a_failure(write: Write, tmp_path: Path) -> None:
    assert "SystemExit: 7" in str(failure(write("raise SystemExit(7)"), tmp_path))


def test_failing_factory_shows_the_applications_frames_only(write: Write, tmp_path: Path) -> None:
    error = failure(write("def make():\n    raise KeyError('SECRET')\n") + ":make()", tmp_path)
    assert "KeyError: 'SECRET'" in str(error)
    assert error.app_traceback.count("  File") == 1


def test_missing_file_and_missing_directory_are_told(tmp_path: Path) -> None:
    assert "there is no file 'dir/app.py'" in str(failure("dir/app.py", tmp_path))
    assert "there is no directory" in str(failure("app", tmp_path / "nowhere"))


@pytest.mark.parametrize("target", ["a b", "app:", ":app", "app:3x", "a..b:c", "-x", "app:(x)", "app:f(*[1])(2)"])
def test_text_of_no_known_form_is_refused(target: str) -> None:
    with pytest.raises(ImportFailure, match=r"module:(attribute|factory)"):
        parse_target(target)


# Interfaces ---------------------------------------------------------------------------------------------------------


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_without_async(scope: Any, receive: Any, send: Any) -> Any: ...


def asgi2(scope: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Any: ...


def wsgi_with_default(environ: Any, start_response: Any, extra: Any = None) -> Any: ...


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Asgi2:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class WsgiIterable:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


@functools.wraps(asgi)
def wrapped_asgi(*args: Any, **kwargs: Any) -> Any: ...


def partial_source(settings: Any, environ: Any, start_response: Any) -> Any: ...


class ChosenPerInstance:
    """As some middleware does: the instance has a __call__ of its own."""

    __slots__ = ("__call__",)

    def __init__(self, entry: Any) -> None:
        self.__call__ = entry


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (asgi, "asgi"),
        (asgi_without_async, "asgi"),
        (Asgi(), "asgi"),
        (Asgi().method, "asgi"),
        (wrapped_asgi, "asgi"),
        (functools.partial(asgi), "asgi"),
        (ChosenPerInstance(asgi), "asgi"),
        (asgi2, "asgi2"),
        (Asgi2, "asgi2"),
        (wsgi, "wsgi"),
        (wsgi_with_default, "wsgi"),
        (Wsgi(), "wsgi"),
        (WsgiIterable, "wsgi"),
        (functools.partial(partial_source, {}), "wsgi"),
        (ChosenPerInstance(wsgi), "wsgi"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_interface_is_seen_by_looking(app: Any, interface: str) -> None:
    assert detect_interface(app)[0] == interface


@pytest.mark.parametrize("app", [lambda *args: None, lambda a, b, c, d: None, lambda: None, Asgi, print])
def test_interface_that_looks_cannot_decide_is_asked_for(app: Any) -> None:
    with pytest.raises(ImportFailure, match=r"--interface asgi|give an instance of it"):
        detect_interface(app)


def test_application_has_a_name_for_the_log() -> None:
    assert name_application("module:app") == "module:app"
    assert name_application(wsgi).endswith(":wsgi")
    assert name_application(Wsgi()).endswith(":Wsgi")
    assert name_application(None) == "the demo page"
