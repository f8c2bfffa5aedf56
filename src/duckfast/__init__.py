"""duckfast: Python web apps (WSGI and ASGI) at nginx's cost per request.

    import duckfast
    duckfast.run("module:app", port=8080)

The names listed in __all__ are public; everything else may change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__version__ = "0.1.0"

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
from .processes import serve
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


def run(app: str | Callable[..., Any] | None = None, **settings: Any) -> None:
    """Serve `app` (a target such as "module:app", an application object, or None for the demo page) until stopped.

    `settings` are those of Config, under the same names. Returns after a graceful stop (SIGINT, SIGTERM). As on the
    command line, a server that cannot start says why in one line on stderr and ends the program, by SystemExit(2 or 3);
    for exceptions in its place use `Server(Config(...)).run()`. Raises ConfigError for a wrong setting.
    """
    code = serve(Config(app, **settings))
    if code:
        raise SystemExit(code)
