"""What both engines make from a Config: limits, default fields, the access log, a reactor. Runs nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from duckfast import __version__
from duckfast._accesslog import AccessLog
from duckfast._limits import Counters, Limits
from duckfast._reactor import Reactor, Service
from duckfast._writer import DefaultFields

if TYPE_CHECKING:
    from duckfast._http1 import HTTP1Connection
    from duckfast.config import Config


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


def connection_class(http: str) -> type[HTTP1Connection] | None:
    """The reader of requests by its --http name; None is our own."""
    if http != "httptools":
        return None
    from duckfast._httptools import HttptoolsConnection

    return HttptoolsConnection


def make_reactor(service: Service | None, config: Config, log: AccessLog | None) -> Reactor:
    """A reactor of its own counters; without a service it needs serve() before start()."""
    defaults = DefaultFields(f"duckfast/{__version__}" if config.server_header else None, config.date_header, config.headers)
    return Reactor(
        service, make_limits(config), Counters(), defaults, log, connection_class(config.http)
    )
