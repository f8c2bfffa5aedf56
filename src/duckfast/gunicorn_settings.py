"""gunicorn's settings as duckfast's own, and which cannot be honoured. Knows the names of both; imports nothing of gunicorn.

A `cfg` is gunicorn's Config of any version from 20.1 on: what an older one does not know is read as its default.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from . import config as settings
from . import engine
from ._trust import Proxies
from .config import Config
from .exceptions import ConfigError
from .kinds import KIB
from .tls import ALPN

MOST_FIELDS = 32768  # header fields: where gunicorn's own limit ends
MOST_HEAD = 1024 * KIB  # bytes of a request head; what gunicorn means by unlimited for a request line
LEAST_HEAD = 64 * KIB  # as without gunicorn
FIELD_ENDS = 4  # bytes behind each line, and some to spare
DEFAULT_FIELD_SIZE = 8190  # bytes; what gunicorn takes for a negative one
LAST_MOMENT = 1.0  # second of the graceful timeout that is kept for an end in order: after it gunicorn kills

# What only duckfast has: read from DUCKFAST_*. All else is gunicorn's to say.
OWN_GROUPS = (settings.ANSWERS, settings.ENGINE, settings.LIMITS, settings.TIMEOUTS)
OWN = {"ssl_io", "ssl_min_version"}
GUNICORNS = {
    "limit_connections", "limit_request_line", "limit_request_fields", "limit_request_field_size", "limit_request_head",
    "threads", "timeout_graceful_shutdown", "timeout_keep_alive", "ws_max_size",
}  # fmt: skip

FORWARDER_HEADERS = ("SCRIPT_NAME", "PATH_INFO")  # up to 22, which did not ask who sends them
PROXY_WORDS = {True: "v1", False: "off"}  # until 23 a bool, and the first version was the only one


def read(cfg: Any, name: str, default: Any = None) -> Any:
    """A setting of gunicorn's, or the default where this version has none."""
    return getattr(cfg, name, default)


def translate(cfg: Any, interface: str, environment: Mapping[str, str]) -> Config:
    """What an engine of this interface ("wsgi", "asgi", "asgi2") needs to know. Raises ConfigError."""
    if read(cfg, "protocol", "http") == "uwsgi":
        raise ConfigError("--protocol uwsgi is not spoken: let the proxy speak HTTP (in nginx proxy_pass in place of uwsgi_pass)")
    values = own_settings(environment)
    values |= head_limits(cfg)
    values |= {
        "interface": interface,
        "access_log": False,  # gunicorn's logger writes it
        "workers": cfg.workers if cfg.workers > 1 else None,
        "threads": cfg.threads,
        "limit_connections": cfg.worker_connections or None,
        "timeout_keep_alive": cfg.keepalive,
        "timeout_graceful_shutdown": graceful_seconds(cfg),
        "proxy_headers": "off",  # the fields are named by secure_scheme_headers and forwarder_headers
        "forwarded_allow_ips": peers(cfg.forwarded_allow_ips),
        "proxy_protocol": proxy_protocol(cfg),
        "proxy_allow_from": peers(cfg.proxy_allow_ips),
    }
    if interface == "wsgi":
        values |= {"root_path": environment.get("SCRIPT_NAME", ""), "root_path_mode": "set"}
    else:
        values |= {
            "root_path": read(cfg, "root_path", "") or "",
            "root_path_mode": "set",
            "lifespan": read(cfg, "asgi_lifespan", "auto"),
            "loop": read(cfg, "asgi_loop", values.get("loop", "auto")),
        }
        if "ws_max_size" in settings.SETTINGS:
            values["ws_max_size"] = read(cfg, "websocket_max_message_size", 16 * 1024 * KIB)
    return Config(**values)


def own_settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """DUCKFAST_* for what gunicorn has no setting for."""
    return {name: value for name, value in settings.read_environment(environment).items() if is_own(name)}


def is_own(name: str) -> bool:
    return name in OWN or (settings.SETTINGS[name].group in OWN_GROUPS and name not in GUNICORNS)


def head_limits(cfg: Any) -> dict[str, int]:
    """The three limits of gunicorn, and the one for the whole head that follows from them."""
    fields = cfg.limit_request_fields
    if not 0 < fields <= MOST_FIELDS:
        fields = MOST_FIELDS
    line = cfg.limit_request_line or MOST_HEAD
    size = cfg.limit_request_field_size or MOST_HEAD
    if size < 0:
        size = DEFAULT_FIELD_SIZE
    head = max(LEAST_HEAD, min(line + fields * (size + FIELD_ENDS), MOST_HEAD))
    return {
        "limit_request_line": line,
        "limit_request_fields": fields,
        "limit_request_field_size": size,
        "limit_request_head": head,
    }


def graceful_seconds(cfg: Any) -> float:
    seconds: float = cfg.graceful_timeout
    return max(0.0, seconds - min(LAST_MOMENT, seconds / 10))


def peers(allowed: Any) -> list[str]:
    """To gunicorn a peer without an address, on a unix socket, is always a trusted one."""
    return [*(allowed.split(",") if isinstance(allowed, str) else allowed), "unix"]


def proxy_protocol(cfg: Any) -> str:
    value = read(cfg, "proxy_protocol", False)
    return PROXY_WORDS[value] if isinstance(value, bool) else value


def proxies(cfg: Any, config: Config) -> Proxies:
    """Who is believed about what, by gunicorn's rules.

    So X-Forwarded-For leaves REMOTE_ADDR alone, for WSGI frameworks read it themselves. Those of ASGI leave it to the server: its
    scope says who the client is, as with uvicorn's worker.
    """
    secure = cfg.secure_scheme_headers
    admitted = read(cfg, "forwarder_headers", FORWARDER_HEADERS)
    return Proxies(
        fields=() if config.interface == "wsgi" else (b"x-forwarded-for",),
        senders=config.forwarded_allow_ips,
        versions=engine.PROXY_VERSIONS[config.proxy_protocol],
        relays=config.proxy_allow_from,
        schemes=[(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in secure.items()],
        admitted=[name.lower().encode("latin-1") for name in admitted],
        refuse_underscores=read(cfg, "header_map", "drop") == "refuse",
    )


def from_ssl_options(cfg: Any) -> ssl.SSLContext:
    """The context of a gunicorn that makes none itself (before 21)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cfg.ca_certs)
    context.load_cert_chain(cfg.certfile, cfg.keyfile)
    context.verify_mode = cfg.cert_reqs
    if cfg.ciphers:
        context.set_ciphers(cfg.ciphers)
    return context


def only_http1(context: ssl.SSLContext) -> ssl.SSLContext:
    """A context that offers no protocol which is not served."""
    context.set_alpn_protocols(ALPN)
    return context


# What does nothing -----------------------------------------------------------------------------------------------------

# Settings that loosen the reading of requests. What they allow has been used to smuggle requests past proxies.
LENIENCIES = (
    "permit_obsolete_folding", "permit_unconventional_http_method", "permit_unconventional_http_version", "casefold_http_method",
    "strip_header_spaces", "tolerate_dangerous_framing",
)  # fmt: skip


def without_effect(cfg: Any, interface: str) -> Iterator[str]:
    """Why a setting that is not at its default does nothing, one line each."""
    for name in LENIENCIES:
        if read(cfg, name, False):
            yield f"{name} has no effect: requests are always read strictly"
    if read(cfg, "header_map", "drop") == "dangerous":
        yield "header_map 'dangerous' has no effect: a field with an underscore is dropped unless forwarder_headers names it"
    if set(protocols(cfg)) - {"h1"}:
        yield f"http_protocols {','.join(protocols(cfg))!r}: HTTP/1.1 is all that is spoken"
    if read(cfg, "http2_cleartext", "off") not in ("off", False, None):
        yield "http2_cleartext has no effect: HTTP/1.1 is all that is spoken"
    if read(cfg, "http_parser", "auto") != "auto":
        yield "http_parser has no effect: duckfast has its own (DUCKFAST_HTTP chooses)"
    if read(cfg, "sendfile") is False:
        yield "sendfile off has no effect: files are sent by the kernel"
    if interface != "wsgi" and cfg.threads > 1:
        yield f"threads {cfg.threads} has no effect: an ASGI application runs on one event loop"
    if interface == "wsgi":
        if read(cfg, "root_path", ""):
            yield "root_path has no effect on WSGI: set SCRIPT_NAME in the environment"
        if read(cfg, "asgi_lifespan", "auto") == "on":
            yield "asgi_lifespan has no effect on WSGI"
    if cfg.is_ssl and not read(cfg, "suppress_ragged_eofs", True):
        yield "suppress_ragged_eofs off has no effect"
    if cfg.is_ssl and read(cfg, "do_handshake_on_connect", False):
        yield "do_handshake_on_connect has no effect: handshakes block nobody"
    for name in settings.read_environment(os.environ):
        if not is_own(name):
            yield f"{settings.SETTINGS[name].environment_name} has no effect here: gunicorn's settings decide"


def protocols(cfg: Any) -> list[str]:
    value = read(cfg, "http_protocols", "h1") or "h1"
    return [word.strip() for word in (value.split(",") if isinstance(value, str) else value)]
