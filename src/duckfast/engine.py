"""What both engines make from a Config: limits, default fields, the access log, a reactor. Runs nothing."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from duckfast import __version__
from duckfast._accesslog import AccessLog
from duckfast._limits import Counters, Limits
from duckfast._reactor import Reactor, Service
from duckfast._trust import Proxies
from duckfast._writer import DefaultFields

if TYPE_CHECKING:
    from duckfast._http1 import HTTP1Connection
    from duckfast.config import Config

log = logging.getLogger("duckfast")


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
    )


def make_access_log(config: Config) -> AccessLog | None:
    """Access lines to standard output, or nothing."""
    if not config.access_log or sys.stdout is None:
        return None
    sys.stdout.flush()
    return AccessLog(sys.stdout.fileno())


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


def make_reactor(service: Service | None, config: Config, log: AccessLog | None) -> Reactor:
    """A reactor of its own counters; without a service it needs serve() before start()."""
    defaults = DefaultFields(f"duckfast/{__version__}" if config.server_header else None, config.date_header, config.headers)
    return Reactor(
        service, make_limits(config), Counters(), defaults, log, connection_class(config.http), make_proxies(config)
    )
