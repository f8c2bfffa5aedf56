"""What gunicorn's hooks and loggers are told of a request: objects with the attributes they know, from what an engine has seen.

Imports nothing of gunicorn. Made only when somebody asks: a hook of one's own, an access log, statsd.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from ._accesslog import Observation

KEY = "duckfast.gunicorn.request"  # in environ or scope: hooks keep things on the request from pre_request to post_request
UNKNOWN = "-"


class Request:
    """gunicorn's request, as far as hooks and loggers read it."""

    def __init__(
        self, method: str, uri: str, path: str, query: str, version: tuple[int, int], headers: list[tuple[str, str]]
    ) -> None:
        self.method = method
        self.uri = uri
        self.path = path
        self.query = query
        self.fragment = ""
        self.version = version
        self.headers = headers  # names in upper case
        self.trailers: list[tuple[str, str]] = []
        self.remote_addr: tuple[str, int] | str = ""
        self.peer_addr: tuple[str, int] | str = ""
        self.scheme = "http"
        self.proxy_protocol_info = None


class Response:
    """gunicorn's response, when it is over."""

    def __init__(self, observation: Observation) -> None:
        line, _, fields = observation.response_head.decode("latin-1").partition("\r\n")
        self.status = line.partition(" ")[2] or f"{observation.status} {UNKNOWN}"
        self.status_code = observation.status
        rows = (row.partition(":") for row in fields.split("\r\n") if row)
        self.headers = [(name, value.strip(" \t")) for name, _, value in rows]
        self.headers_sent = bool(line)
        self.sent = observation.sent
        self.response_length: int | None = observation.sent


def from_environ(environ: MutableMapping[str, Any]) -> Request:
    headers = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if name in environ:
            headers.append((name.replace("_", "-"), environ[name]))
    request = Request(
        environ["REQUEST_METHOD"],
        environ["RAW_URI"],
        environ["RAW_URI"].partition("?")[0],
        environ["QUERY_STRING"],
        read_version(environ["SERVER_PROTOCOL"]),
        headers,
    )
    set_peer(request, environ["wsgi.url_scheme"], environ["REMOTE_ADDR"], int(environ.get("REMOTE_PORT") or 0))
    return request


def from_scope(scope: MutableMapping[str, Any]) -> Request:
    path = scope.get("raw_path", b"").decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    request = Request(
        scope.get("method", "GET"),
        f"{path}?{query}" if query else path,
        path,
        query,
        read_version(f"HTTP/{scope['http_version']}"),
        [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in scope["headers"]],
    )
    set_peer(request, scope["scheme"], *(scope.get("client") or ("", 0)))
    return request


def from_line(line: bytes) -> Request:
    """Of a request that never came as far as the application."""
    words = line.decode("latin-1").split(" ")
    method, uri, protocol = (words + [UNKNOWN] * 3)[:3]
    path, _, query = uri.partition("?")
    return Request(method or UNKNOWN, uri, path, query, read_version(protocol), [])


def read_version(protocol: str) -> tuple[int, int]:
    return (1, 0) if protocol.endswith("1.0") else (1, 1)


def set_peer(request: Request, scheme: str, host: str, port: int) -> None:
    request.scheme = scheme
    request.remote_addr = request.peer_addr = (host, port) if host else ""


def environ_of(request: Request, client: str) -> dict[str, Any]:
    """The least that loggers look for, where the application had no environ of its own."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "RAW_URI": request.uri,
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query,
        "SERVER_PROTOCOL": f"HTTP/{request.version[0]}.{request.version[1]}",
        "REMOTE_ADDR": client or UNKNOWN,
        "wsgi.url_scheme": request.scheme,
    }
    for name, value in request.headers:
        environ["HTTP_" + name.replace("-", "_")] = value
    return environ


# Who asks ----------------------------------------------------------------------------------------------------------------


def own_hook(cfg: Any, name: str) -> Callable[..., Any] | None:
    """A hook of the configuration's, None for gunicorn's default."""
    hook: Callable[..., Any] = getattr(cfg, name)
    return None if hook is cfg.settings[name].default else hook


def wants_access(log: Any, cfg: Any, plain: Any) -> bool:
    """Whether log.access() does anything: there is an access log, or another class than Logger (`plain`) has it, as statsd's."""
    if getattr(type(log), "access", None) is not plain.access:
        return True
    enabled = getattr(log, "access_log_enabled", None)
    if enabled is not None:
        return bool(enabled)
    return bool(
        cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or (cfg.syslog and not cfg.disable_redirect_access_to_syslog)
    )


class Hooks:
    """What one worker has to tell of its requests, and to whom."""

    def __init__(self, worker: Any, plain_logger: Any) -> None:
        cfg = worker.cfg
        self._worker = worker
        self._log = worker.log
        self._access = wants_access(worker.log, cfg, plain_logger)
        self._pre = own_hook(cfg, "pre_request")
        if self._pre is None and str(cfg.loglevel).lower() == "debug":
            self._pre = cfg.pre_request  # gunicorn's own tells the debug log of every request
        self._post = own_hook(cfg, "post_request")

    @property
    def observer(self) -> Callable[[Observation], None] | None:
        return self._observe if self._access or self._post is not None else None

    def wrap_wsgi(self, app: Any) -> Any:
        """The application behind pre_request, or as it is."""
        before, worker = self._pre, self._worker
        if before is None:
            return app

        def application(environ: MutableMapping[str, Any], start_response: Any) -> Any:
            request = environ[KEY] = from_environ(environ)
            before(worker, request)
            return app(environ, start_response)

        return application

    def wrap_asgi(self, app: Any) -> Any:
        before, worker = self._pre, self._worker
        if before is None:
            return app

        async def application(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                request = scope[KEY] = from_scope(scope)
                before(worker, request)
            await app(scope, receive, send)

        return application

    def _observe(self, observation: Observation) -> None:
        facts = observation.request
        request = self._request(facts, observation)
        response = Response(observation)
        environ = facts if facts is not None and "wsgi.version" in facts else environ_of(request, observation.client)
        if self._access:
            self._log.access(response, request, environ, datetime.timedelta(seconds=observation.seconds))
        if self._post is not None and facts is not None:
            try:
                self._post(self._worker, request, environ, response)
            except Exception:
                self._log.exception("Exception in post_request hook")

    def _request(self, facts: dict[str, Any] | None, observation: Observation) -> Request:
        if facts is None:
            return from_line(observation.line)
        found: Request | None = facts.get(KEY)
        if found is not None:
            return found
        return from_environ(facts) if "wsgi.version" in facts else from_scope(facts)


# What duckfast says ------------------------------------------------------------------------------------------------------


class ForwardHandler(logging.Handler):
    """Hands records to gunicorn's logger, whatever class that is: it may count them, or write them in a shape of its own."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._method(record.levelno)("%s", record.getMessage(), exc_info=record.exc_info)
        except Exception:
            self.handleError(record)

    def _method(self, level: int) -> Callable[..., None]:
        log = self._log
        for least, method in (
            (logging.CRITICAL, log.critical),
            (logging.ERROR, log.error),
            (logging.WARNING, log.warning),
            (logging.INFO, log.info),
        ):
            if level >= least:
                found: Callable[..., None] = method
                return found
        lowest: Callable[..., None] = log.debug
        return lowest
