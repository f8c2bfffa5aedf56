"""What both engines make from a Config, limits, default fields, access log, reactor, and what they tell of. Runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from duckfast import __version__, logformat, tls
from duckfast import log as logs
from duckfast._accesslog import AccessLog, Observation
from duckfast._limits import Counters, Limits
from duckfast._logformat import LogFormat
from duckfast._reactor import Reactor, Service
from duckfast._trust import Proxies
from duckfast._writer import DefaultFields
from duckfast.exceptions import ConfigError
from duckfast.log import log

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from duckfast._client import ClientSocket
    from duckfast._http1 import HTTP1Connection
    from duckfast.config import Config


MOST_SHOWN = 200  # characters of a path in a log


def has_lock() -> bool:
    """Whether this interpreter runs one thread at a time."""
    return getattr(sys, "_is_gil_enabled", lambda: True)()


def make_limits(config: Config) -> Limits:
    """What a connection may do."""
    return Limits(
        request_line=config.limit_request_line,
        field_line=config.limit_request_field_size,
        fields=config.limit_request_fields,
        head=config.limit_request_head,
        body=config.limit_request_body,
        chunk_extensions=config.limit_chunk_extensions,
        trailers=config.limit_request_trailers,
        drain=config.limit_drain,
        body_buffer=config.body_buffer_size,
        connections=config.limit_connections,
        head_time=config.timeout_request_headers,
        body_time=config.timeout_request_body,
        keep_alive_time=config.timeout_keep_alive,
        write_time=config.timeout_write,
        drain_time=config.timeout_drain,
        request_time=config.timeout_request,
        handshakes=config.limit_ssl_handshakes,
        handshake_time=config.timeout_ssl_handshake,
    )


def make_access_log(config: Config, observe: Callable[[Observation], object] | None = None) -> AccessLog | None:
    """Access lines to where the settings say, and to a Python handler if one was set up for them; or nothing.

    observe hears of every request, with or without access lines. Raises ConfigError when the file cannot be opened.
    """
    log = _make_log_of_lines(config, observe) if config.access_log else None
    if log is None and observe is not None:
        return AccessLog(LogFormat([]), None, None, observe)
    return log


def _make_log_of_lines(config: Config, observe: Callable[[Observation], object] | None) -> AccessLog | None:
    tell = logs.access_teller()
    destination: int | str | None = config.access_log_file
    if destination is None and tell is None and sys.stdout is not None:
        sys.stdout.flush()
        try:
            destination = sys.stdout.fileno()
        except (OSError, AttributeError):  # a notebook's or a test's: text, with no descriptor behind it
            tell = _print_line
    if destination is None and tell is None:
        return None
    line = LogFormat(logformat.parse(config.access_log_format), config.request_id_header or "", tell is not None)
    try:
        return AccessLog(line, destination, tell, observe)
    except OSError as error:
        raise ConfigError(f"the access log {destination!r} cannot be opened: {error.strerror}") from None


def _print_line(line: str, facts: dict[str, Any]) -> None:
    print(line, flush=True)


def reopen_logs(access_log: AccessLog | None) -> None:
    """Open every log file of this process anew, as after a rotation; from any thread. A file that cannot be stays in use."""
    logs.reopen()
    if access_log is None:
        return
    try:
        access_log.reopen()
    except OSError as error:
        log.error("the access log %r cannot be opened again: %s", access_log.path, error.strerror)


def tell_root_path(config: Config) -> None:
    """Says at debug level what the application sees below --root-path: the mode is easily mistaken."""
    root = config.root_path
    if not root:
        return
    target = "/items" if config.root_path_mode == "prefix" else f"{root}/items"
    if config.interface == "wsgi":
        seen = f"SCRIPT_NAME {root!r}, PATH_INFO '/items'"
    else:
        seen = f"root_path {root!r}, path {'/items' if config.root_path_mode == 'strip' else root + '/items'!r}"
    log.debug("root path mode %s: a request for %s reaches the application with %s", config.root_path_mode, target, seen)


def limit_concurrency(reactor: Reactor, config: Config, in_app: int, reactors: int, *, one_by_one: bool) -> None:
    """Sets how many requests this reactor, one of several, lets into the app at once, if that has a limit."""
    if config.limit_concurrency is None:
        return
    queue = 4 * config.limit_concurrency if config.limit_queue is None else config.limit_queue
    reactor.limit_concurrency(in_app, -(-queue // reactors), config.timeout_queue, one_by_one)


class Recycling:
    """Tells `recycle` why this engine should be replaced: once, and not before there is a reason."""

    def __init__(self, recycle: Callable[[str], None] | None, max_requests: int | None) -> None:
        self._recycle = recycle
        self._max_requests = max_requests

    def count(self, reactors: Sequence[Reactor]) -> None:
        """Tells when these reactors have begun `max_requests` requests in all."""
        if self._recycle is not None and self._max_requests is not None:
            for reactor in reactors:
                self._set_mark(reactor, reactors, self._max_requests)

    def _set_mark(self, reactor: Reactor, reactors: Sequence[Reactor], most: int) -> None:
        """None of several reactors sees the sum: each looks again after its share of what is left."""
        left = most - sum(counted(each) for each in reactors)
        if left <= 0:
            self.tell(f"served {most} requests")
            return
        share = max(1, left // len(reactors))
        reactor.mark_requests(counted(reactor) + share, lambda: self._set_mark(reactor, reactors, most))

    def tell(self, reason: str) -> None:
        recycle, self._recycle = self._recycle, None
        if recycle is not None:
            recycle(reason)


def counted(reactor: Reactor) -> int:
    return reactor.counters.snapshot()["requests"]


def printable(text: object) -> str:
    """What an app's method or path looks like in a log: no control characters, not without end."""
    if not isinstance(text, str):
        return "?"
    return "".join(char if char.isprintable() else "?" for char in text[:MOST_SHOWN])


def show_requests(requests: Iterable[tuple[object, object, float]]) -> list[tuple[str, str, float]]:
    """Requests in flight as they are logged, the oldest first."""
    shown = [(printable(method), printable(path), seconds) for method, path, seconds in requests]
    return sorted(shown, key=lambda request: -request[2])


def connection_class(http: str) -> type[HTTP1Connection] | None:
    """The reader of requests by its --http name; None is our own."""
    if http != "httptools":
        return None
    from duckfast._httptools import HttptoolsConnection

    return HttptoolsConnection


# What each word of --proxy-headers believes.
CLIENT_FIELDS = (b"x-forwarded-for", b"x-forwarded-proto")
BELIEVED_FIELDS: dict[str, tuple[bytes, ...]] = {
    "off": (),
    "client": CLIENT_FIELDS,
    "x-forwarded": (*CLIENT_FIELDS, b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix"),
    "forwarded": (b"forwarded",),
}
PROXY_VERSIONS: dict[str, tuple[int, ...]] = {"off": (), "v1": (1,), "v2": (2,), "auto": (1, 2)}


def make_proxies(config: Config) -> Proxies:
    """Which peers are believed when they speak for others, and about what."""
    return Proxies(
        fields=BELIEVED_FIELDS[config.proxy_headers],
        senders=config.forwarded_allow_ips,
        versions=PROXY_VERSIONS[config.proxy_protocol],
        relays=config.proxy_allow_from,
    )


def make_reactor(service: Service | None, config: Config, access_log: AccessLog | None, proxies: Proxies | None) -> Reactor:
    """A reactor of its own counters; without a service it needs serve() before start(). proxies: None, as the settings say."""
    defaults = DefaultFields(f"duckfast/{__version__}" if config.server_header else None, config.date_header, config.headers)
    proxies = proxies or make_proxies(config)
    return Reactor(service, make_limits(config), Counters(), defaults, access_log, connection_class(config.http), proxies)


@dataclass(frozen=True)
class Diversions:
    """Where connections leave an engine: each is called with a ClientSocket, on the thread that handles events, and never blocks.

    What becomes of the connection is up to the one who is called; the engine's give() brings it back.
    """

    connected: Callable[[ClientSocket], None] | None = None  # a new one; in TLS once the handshake is done
    idle: Callable[[ClientSocket], None] | None = None  # it begins to wait for its next request
    timed_out: Callable[[ClientSocket], None] | None = None  # its request head has not come in time
    accepted: bool = False  # nothing is accepted here: all connections come by give()


NO_DIVERSIONS = Diversions()


def add_listeners(
    reactor: Reactor, sockets: Iterable[socket.socket], keeper: tls.Keeper | None, diversions: Diversions = NO_DIVERSIONS
) -> None:
    """Lets a reactor accept from these sockets: HTTPS with a keeper, else HTTP."""
    accepts = not diversions.accepted
    for listener in sockets:
        if keeper is None:
            reactor.add_listener(listener, accepts=accepts)
        else:
            reactor.add_listener(listener, "https", keeper.endpoint, accepts=accepts)
    reactor.divert(diversions.connected, diversions.idle, diversions.timed_out)
