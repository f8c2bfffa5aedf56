"""From a target, as a person writes it, to the application object and the interface it speaks.

Knows importlib and inspect; refuses to know settings, sockets and engines. Everything that can be the person's mistake
ends as ImportFailure with one line that says what was looked for, what was seen and what to do.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .exceptions import ImportFailure

Application = Callable[..., Any]

USUAL_NAMES = ("app", "application", "asgi", "wsgi")  # tried in this order when the target names no attribute
USUAL_FACTORIES = ("create_app", "make_app")  # Flask's two
MAX_LISTED = 8  # names in an error line; more would hide the advice

TARGET_FORMS = "module:attribute, module:factory(), or a path such as app.py"


@dataclass(frozen=True)
class Target:
    """`module` is a dotted name, or `path` a file; `attribute` may have dots, None: look for a usual name."""

    module: str
    path: Path | None
    attribute: str | None
    arguments: tuple[list[Any], dict[str, Any]] | None  # of the call `attribute(...)`, None: not a call


def parse_target(text: str, base: str = "") -> Target:
    """Split a target into its parts. Paths are relative to `base`. Raises ImportFailure when it has no known form."""
    place, attribute = _split_attribute(text.strip())
    arguments = None
    if attribute is not None and attribute.endswith(")"):
        attribute, arguments = _parse_call(text, attribute)
    if attribute is not None and not all(part.isidentifier() for part in attribute.split(".")):
        raise ImportFailure(f"{text!r} has no attribute name after the colon; give {TARGET_FORMS}")
    if place.endswith(".py") or "/" in place or os.sep in place:
        return Target(place, _existing_file(place, base), attribute, arguments)
    if not all(part.isidentifier() for part in place.split(".")):
        raise ImportFailure(f"{text!r} is not a target; give {TARGET_FORMS}")
    return Target(place, None, attribute, arguments)


def _split_attribute(text: str) -> tuple[str, str | None]:
    # The first colon, because a call's arguments may hold others.
    place, colon, attribute = text.partition(":")
    return place, attribute.strip() if colon else None


def _parse_call(text: str, call: str) -> tuple[str, tuple[list[Any], dict[str, Any]]]:
    """`name(literals)` without evaluating code: a target often comes from the environment."""
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call):
            raise ValueError
        positional = [ast.literal_eval(argument) for argument in node.args]
        named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in node.keywords}
        if "" in named:
            raise ValueError
    except (SyntaxError, ValueError):
        raise ImportFailure(
            f"cannot read the call in {text!r}; arguments must be literals, as in module:factory('production')"
        ) from None
    return ast.unparse(node.func), (positional, named)


def _existing_file(place: str, base: str) -> Path:
    path = Path(base or os.getcwd()) / place
    for candidate in (path, path / "__init__.py", path.with_name(path.name + ".py")):
        if candidate.is_file():
            return candidate.resolve()
    raise ImportFailure(f"there is no file {place!r} in {base or os.getcwd()}; give the path of a Python file")


def load_application(target: str | Application, *, factory: bool = False, app_dir: str = "") -> Application:
    """The application that `target` names; with `factory` (or a call in the target), what the named function returns.

    The directory `app_dir` ("" is the current one) is put first in sys.path, as `python -m` does.
    """
    if not isinstance(target, str):
        return _make(target, ([], {}), _name_of(target)) if factory else target
    directory = os.path.abspath(app_dir or os.getcwd())
    if app_dir and not os.path.isdir(directory):
        raise ImportFailure(f"there is no directory {app_dir!r} to import {target!r} from")
    if directory not in sys.path:
        sys.path.insert(0, directory)
    parsed = parse_target(target, directory)
    module = _import_module(parsed)
    found, name = _find_attribute(module, parsed, target)
    if parsed.arguments is not None:
        found = _make(found, parsed.arguments, target)
    elif factory:
        found = _make(found, ([], {}), target)
    if not callable(found):
        advice = _callables_advice(module)
        raise ImportFailure(f"{target!r} is not an application: {name} is a {type(found).__name__}{advice}")
    application: Application = found
    return application


def _import_module(target: Target) -> ModuleType:
    name = target.module if target.path is None else _module_name(target.path)
    try:
        if target.path is not None and importlib.util.find_spec(name) is None:
            return _import_file(name, target.path)
        module = importlib.import_module(name)
        if target.path is not None and not _is_from(module, target.path):
            return _import_file(name, target.path)
        return module
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise _failed_in_app(f"importing {target.module!r} failed", error) from error
        raise ImportFailure(_no_module(name, error.name)) from None
    except (Exception, SystemExit) as error:
        raise _failed_in_app(f"importing {target.module!r} failed", error) from error


def _module_name(path: Path) -> str:
    """The dotted name of a file inside its packages; the directory above them is put first in sys.path."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file() and directory.name.isidentifier():
        parts.insert(0, directory.name)
        directory = directory.parent
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return ".".join(parts)


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path


def _import_file(name: str, path: Path) -> ModuleType:
    """Import a file that its name does not lead to: `my-app.py`, or a name that another module already has."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportFailure(f"{str(path)!r} is not a Python file; give {TARGET_FORMS}")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        if previous is not None:
            sys.modules[name] = previous
        raise
    return module


def _no_module(name: str, missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    line = f"there is no module {missing!r}"
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        near = difflib.get_close_matches(last, _public_callables(sys.modules.get(parent)), n=1)
        return f"{line}: {parent!r} is not a package; did you mean '{parent}:{near[0] if near else last}'?"
    places = list(getattr(sys.modules.get(parent), "__path__", sys.path))
    near = difflib.get_close_matches(last, _modules_in(places[: len(places) if parent else 1]), n=1, cutoff=0.7)
    if near:
        corrected = name.replace(missing, f"{parent}.{near[0]}" if parent else near[0], 1)
        return f"{line}; did you mean {corrected!r}?"
    if parent:
        return f"{line} in the package {parent!r} ({places[0] if places else 'which has no directory'})"
    return f"{line} in {sys.path[0]} or the installed packages; run from the project's directory or give --app-dir"


def _modules_in(directories: list[str]) -> list[str]:
    names = []
    for directory in directories:
        if not os.path.isdir(directory):
            continue
        for entry in os.scandir(directory):
            if entry.name.endswith(".py"):
                names.append(entry.name[:-3])
            elif entry.is_dir() and os.path.isfile(os.path.join(entry.path, "__init__.py")):
                names.append(entry.name)
    return names


def _find_attribute(module: ModuleType, target: Target, text: str) -> tuple[Any, str]:
    if target.attribute is None:
        return _usual_attribute(module, target, text)
    found: Any = module
    walked = module.__name__
    for part in target.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ImportFailure(_no_attribute(found, walked, part, text)) from None
        except Exception as error:  # a property, or a module's own __getattr__
            raise _failed_in_app(f"reading {part!r} of {walked} failed", error) from error
        walked += f".{part}"
    return found, walked


def _usual_attribute(module: ModuleType, target: Target, text: str) -> tuple[Any, str]:
    for name in USUAL_NAMES:
        found = getattr(module, name, None)
        if callable(found) and not isinstance(found, ModuleType):
            return found, f"{module.__name__}.{name}"
    for name in USUAL_FACTORIES:
        if callable(getattr(module, name, None)):
            raise ImportFailure(
                f"{text!r} has no 'app' or 'application'; to call its factory give '{target.module}:{name}()'"
            )
    raise ImportFailure(
        f"{text!r} has no 'app' or 'application'; name the attribute as in '{target.module}:name'"
        f"{_callables_advice(module)}"
    )


def _no_attribute(found: Any, walked: str, part: str, text: str) -> str:
    line = f"{walked!r} has no attribute {part!r}"
    near = difflib.get_close_matches(part, [name for name in dir(found) if not name.startswith("__")], n=1)
    if near:
        place, _, attribute = text.partition(":")
        names = attribute.split(".")
        corrected = ".".join(near[0] if name.partition("(")[0] == part else name for name in names)
        return f"{line}; did you mean '{place}:{corrected}'?"
    if isinstance(found, ModuleType):
        return line + _callables_advice(found)
    return f"{line}; it is a {type(found).__name__}"


def _public_callables(module: ModuleType | None) -> list[str]:
    """Names in the module that could be an application: its own functions, classes and callable objects."""
    if module is None:
        return []

    def is_own(value: object) -> bool:
        # Objects have no home of their own; functions and classes from elsewhere are the module's tools.
        if inspect.isclass(value) or inspect.isroutine(value):
            return getattr(value, "__module__", None) == module.__name__
        return not isinstance(value, ModuleType) and type(value).__module__ not in ("typing", "types", "functools")

    return [
        name for name, value in vars(module).items() if not name.startswith("_") and callable(value) and is_own(value)
    ]


def _callables_advice(module: ModuleType) -> str:
    names = _public_callables(module)
    if not names:
        return f"; nothing in {module.__name__} can be called"
    more = ", ..." if len(names) > MAX_LISTED else ""
    return f"; what can be called in {module.__name__}: {', '.join(names[:MAX_LISTED])}{more}"


def _make(factory: Any, arguments: tuple[list[Any], dict[str, Any]], name: str) -> Application:
    positional, named = arguments
    if not callable(factory):
        raise ImportFailure(f"{name!r} is not a factory: a {type(factory).__name__} cannot be called")
    try:
        inspect.signature(factory).bind(*positional, **named)
    except TypeError as error:
        raise ImportFailure(f"the factory {name!r} cannot be called with these arguments: {error}") from None
    except ValueError:
        pass  # a builtin without a signature: the call itself will tell
    try:
        made: Application = factory(*positional, **named)
    except (Exception, SystemExit) as error:
        raise _failed_in_app(f"the factory {name!r} failed", error) from error
    if inspect.iscoroutine(made):
        made.close()
        raise ImportFailure(f"the factory {name!r} is a coroutine function; if it is the application, leave out the call")
    if not callable(made):
        raise ImportFailure(f"the factory {name!r} returned a {type(made).__name__}, not an application")
    return made


def _failed_in_app(line: str, error: BaseException) -> ImportFailure:
    message = str(error).strip().partition("\n")[0]
    seen = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return ImportFailure(f"{line}: {seen}", app_traceback=application_traceback(error))


def application_traceback(error: BaseException) -> str:
    """The traceback as its application's author wants it: without frames of duckfast and of the import system."""
    formatted = traceback.TracebackException.from_exception(error)
    _drop_our_frames(formatted)
    return "".join(formatted.format())


def _drop_our_frames(formatted: traceback.TracebackException) -> None:
    formatted.stack = traceback.StackSummary.from_list([frame for frame in formatted.stack if not _is_ours(frame.filename)])
    for linked in (formatted.__cause__, formatted.__context__):
        if linked is not None:
            _drop_our_frames(linked)


_OUR_DIRECTORY = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _is_ours(filename: str) -> bool:
    return (
        filename.startswith(("<frozen importlib", _OUR_DIRECTORY))
        or f"{os.sep}importlib{os.sep}" in filename
    )


def _name_of(app: Application) -> str:
    return getattr(app, "__qualname__", None) or type(app).__name__


def name_application(target: str | Application | None) -> str:
    """What the start line calls the application."""
    if target is None:
        return "the demo page"
    if isinstance(target, str):
        return target
    module = getattr(target, "__module__", None) or type(target).__module__
    return f"{module}:{_name_of(target)}"


def detect_interface(app: Application) -> tuple[str, str]:
    """Which interface an application speaks, "asgi", "asgi2" or "wsgi", and the reason, by looking at it, never calling.

    Raises ImportFailure when the looks do not decide.
    """
    if inspect.isclass(app):
        return _interface_of_class(app)
    # The instance's __call__, not its type's: some middleware chooses it per instance.
    instance: Any = app
    entry = app if inspect.isroutine(app) or isinstance(app, functools.partial) else instance.__call__
    what = "it" if entry is app else "its __call__"
    if inspect.iscoroutinefunction(entry):
        return "asgi", f"{what} is a coroutine function"
    required, most = _positional_parameters(entry)
    if required == 3:
        return "asgi", f"{what} takes three arguments"
    if required == 2:
        return "wsgi", f"{what} takes two arguments"
    if required == 1 and most == 1:
        return "asgi2", f"{what} takes one argument"
    raise ImportFailure(
        f"cannot tell whether {_name_of(app)} is ASGI or WSGI: {what} takes {_count(required, most)}; give --interface asgi"
        f" or --interface wsgi{', or --factory if it makes the application' if required == 0 else ''}"
    )


def _interface_of_class(app: type) -> tuple[str, str]:
    required, most = _positional_parameters(app)
    if required == 1:  # asgi2: cls(scope) gives an instance to be called with (receive, send)
        return "asgi2", "it is a class made with one argument"
    if required == 2:  # PEP 3333 allows a class: cls(environ, start_response) is the iterable
        return "wsgi", "it is a class made with two arguments"
    raise ImportFailure(
        f"{app.__qualname__} is a class made with {_count(required, most)}, not an application;"
        " give an instance of it, or --factory if making one needs no arguments"
    )


def _positional_parameters(function: Any) -> tuple[int, float]:
    """How many positional arguments it needs and how many it takes at most."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 0, float("inf")
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    return required, float("inf") if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)


def _count(required: int, most: float) -> str:
    if required == most:
        return f"{required} argument{'' if required == 1 else 's'}"
    return f"{required} or more arguments" if most == float("inf") else f"{required} to {most} arguments"
