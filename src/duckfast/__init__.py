"""duckfast: Python web apps (WSGI and ASGI) at nginx's cost per request.

    import duckfast
    duckfast.run("module:app", port=8080)

The names listed in __all__ are public; everything else may change.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .config import Config
    from .exceptions import (
        ApplicationError,
        BindError,
        ClientDisconnected,
        ConfigError,
        DuckfastError,
        ImportFailure,
        LifespanFailure,
        RemoteProtocolError,
        WorkersFailure,
    )
    from .server import Server

__all__ = [
    "ApplicationError",
    "BindError",
    "ClientDisconnected",
    "Config",
    "ConfigError",
    "DuckfastError",
    "ImportFailure",
    "LifespanFailure",
    "RemoteProtocolError",
    "Server",
    "WorkersFailure",
    "__version__",
    "run",
]



if not TYPE_CHECKING:  # a type checker has the imports above, and finds misspelled names

    def __getattr__(name: str) -> Any:
        """Public names are imported when they are first used, so that a part such as the pytest plugin does not load a server."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = {"Config": "config", "Server": "server"}.get(name, "exceptions")
        value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def run(app: str | Callable[..., Any] | None = None, **settings: Any) -> None:
    """Serve `app` (a target such as "module:app", an application object, or None for the demo page) until stopped.

    `settings` are those of Config, under the same names. Returns after a graceful stop (SIGINT, SIGTERM). As on the
    command line, a server that cannot start says why in one line on stderr and ends the program, by SystemExit(2 or 3);
    for exceptions in its place use `Server(app).run()`, and inside a running event loop `await Server(app).serve()`.
    Raises ConfigError for a wrong setting.
    """
    from .config import Config
    from .loops import refuse_running_loop
    from .processes import serve

    refuse_running_loop("duckfast.run()")
    code = serve(Config(app, **settings))
    if code:
        raise SystemExit(code)
