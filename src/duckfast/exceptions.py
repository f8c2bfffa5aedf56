"""Every exception duckfast raises to its callers. Owns the names and what they carry; refuses to know who raises them.

Blame decides the family: a person's mistake (ConfigError, ImportFailure, BindError), the application's
(LifespanFailure, ApplicationError, WorkersFailure), the peer's (RemoteProtocolError, ClientDisconnected).
"""

from __future__ import annotations


class DuckfastError(Exception):
    """Base of what duckfast itself refuses; its text is one line that says what was wrong, what was seen, what to do."""

    exit_code = 1  # what a process that ends because of it gives its parent


class ConfigError(DuckfastError):
    """A setting has an unknown name or a value that cannot be used."""

    exit_code = 2


class BindError(DuckfastError):
    """An address cannot be listened on: in use, not ours, not allowed, not a listening socket."""

    exit_code = 2


class ImportFailure(DuckfastError):
    """The target cannot be turned into an application.

    `app_traceback` is the application's own traceback, ready to print and without frames of duckfast or of the import
    system, or "" when no code of the application failed.
    """

    exit_code = 3

    def __init__(self, message: str, app_traceback: str = "") -> None:
        super().__init__(message)
        self.app_traceback = app_traceback


class LifespanFailure(DuckfastError):
    """The application's lifespan startup failed, or its shutdown did."""

    exit_code = 3


class WorkersFailure(DuckfastError):
    """Worker processes cannot be started, or do not live."""

    exit_code = 3


class RemoteProtocolError(DuckfastError):
    """The peer broke HTTP. `status` is the answer it gets (RFC 9110 section 15), 400 unless said otherwise."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ClientDisconnected(OSError):
    """The client left before the response was complete; raised out of an ASGI send(), an OSError as ASGI 2.4 asks."""


class ApplicationError(Exception):
    """The application broke the ASGI or WSGI contract; raised out of the send() or start_response() that did it."""
