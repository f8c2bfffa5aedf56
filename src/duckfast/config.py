"""Every setting, once: its name, type, default, help and other spellings. Knows no file, no environment, no click.

The fields of Config are the table. The command line, the DUCKFAST_* names, the files and the keywords of duckfast.run()
are all read from it, so a setting that is added here exists everywhere. Values arrive as text (with units: 10s, 64k) or
as the Python value; both end in the type written beside the field: durations float seconds, sizes int bytes. What a value
can be stands in kinds.py. The file is long because a setting is one row, and the rows are read together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .exceptions import ConfigError
from .kinds import (
    KIB,
    MAX_PORT,
    AccessLogFormat,
    Account,
    AutoSwitch,
    BadItem,
    Choice,
    ContextSource,
    Count,
    Duration,
    FieldName,
    HeaderField,
    Kind,
    LogConfig,
    Many,
    Mode,
    Number,
    Optional,
    Path,
    Peers,
    Permissions,
    Prefix,
    Size,
    Switch,
    Target,
    Text,
    Variable,
    Verification,
)
from .logformat import FormatError

ENVIRONMENT_PREFIX = "DUCKFAST_"
FILE_VARIABLE = "DUCKFAST_CONFIG"  # names a file with settings, so it is none itself

# Names that platforms set, read when nothing else gives the setting.
FALLBACKS = {"workers": "WEB_CONCURRENCY", "forwarded_allow_ips": "FORWARDED_ALLOW_IPS"}

CONFIGURATION = "Configuration"
APPLICATION, ADDRESSES, PROCESSES, IDENTITY = "Application", "Where to listen", "Processes", "Process identity"
ENGINE, PROXIES = "Engine", "Behind a proxy"
ANSWERS, WEBSOCKETS, TLS, LOGS, LIMITS, TIMEOUTS = "Answers", "WebSockets", "TLS", "Logs", "Limits", "Timeouts"
# In the order of --help.
GROUPS = (
    APPLICATION, CONFIGURATION, ADDRESSES, PROCESSES, IDENTITY, ENGINE, PROXIES, ANSWERS, WEBSOCKETS, TLS, LOGS, LIMITS, TIMEOUTS
)

# Settings that need somebody who outlives the process that serves.
SUPERVISED = ("workers", "preload", "reload", "limit_max_requests", "workers_lifetime", "workers_max_rss")


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    default: Any
    group: str
    help: str
    flags: tuple[str, ...]  # spellings on the command line that --help shows; none for the target
    aliases: tuple[str, ...]  # the same setting's names in gunicorn and granian, accepted and not shown
    words: dict[str, str]  # flags of others that stand for one value of this setting, accepted and not shown
    secret: bool = False  # its value is not printed

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def fallback_name(self) -> str | None:
        """What else in the environment is read, when nothing gives the setting."""
        return FALLBACKS.get(self.name)

    def read(self, value: object, source: str) -> Any:
        """The value in its own type. Raises ConfigError naming `source`, the place where the person wrote it."""
        try:
            return self.kind.read(value)
        except FormatError as error:
            raise ConfigError(f"{source}: {error}") from None
        except ValueError as error:
            seen = error.args[0] if isinstance(error, BadItem) else value
            raise ConfigError(f"{source} must be {self.kind.expects}; got {seen!r}{self._suggestion(seen)}") from None

    def _suggestion(self, value: object) -> str:
        if not isinstance(self.kind, Choice) or not isinstance(value, str):
            return ""
        near = difflib.get_close_matches(value.lower(), self.kind.words, n=1)
        return f", did you mean {near[0]!r}?" if near else ""


def setting(
    group: str,
    kind: Kind,
    default: object,
    help: str,
    *,
    flags: tuple[str, ...] | None = None,
    aliases: tuple[str, ...] = (),
    secret: bool = False,
    words: Mapping[str, str] | None = None,
) -> Any:
    """A field of Config with its row of the table; without `flags` the option is the field's name with dashes."""
    metadata = {
        "group": group,
        "kind": kind,
        "help": help,
        "flags": flags,
        "aliases": aliases,
        "secret": secret,
        "words": dict(words or {}),
    }
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(init=False)
class Config:
    """The settings of one server: `Config("module:app", port=8080, timeout_keep_alive="10s")`.

    `app` is a target for the importer, an application object, or None for the built-in demo page. Every setting is a
    keyword and an attribute. Raises ConfigError for an unknown keyword or a value that cannot be used.
    """

    app: str | Callable[..., Any] | None = setting(
        APPLICATION, Target(), None, "What to serve; nothing: the built-in demo page.", flags=()
    )
    factory: bool = setting(
        APPLICATION, Switch(), False, "The target is a function that makes the application."
    )
    app_dir: str = setting(
        APPLICATION,
        Path("DIRECTORY", "a directory"),
        "",
        "Import the target from here. Empty: the current directory.",
        aliases=("--chdir", "--working-dir"),
    )
    interface: str = setting(
        APPLICATION,
        Choice("auto", "asgi", "asgi2", "wsgi", synonyms={"asgi3": "asgi"}),
        "auto",
        "How to call the application. auto: look at it and say in the log what was chosen.",
    )
    lifespan: str = setting(
        APPLICATION,
        Choice("auto", "on", "off"),
        "auto",
        "ASGI startup and shutdown. auto: do without when the application does not know them.",
        aliases=("--asgi-lifespan",),
    )
    root_path: str = setting(
        APPLICATION, Prefix(), "", "Path under which a proxy has mounted the application: its root_path, its SCRIPT_NAME."
    )
    root_path_mode: str = setting(
        APPLICATION,
        Choice("prefix", "set", "strip"),
        "prefix",
        "prefix: the proxy takes the root path off, ASGI's path gets it back. set: it passes the whole path, and that stays. "
        "strip: it passes the whole path, ASGI's path goes without.",
    )

    env_file: list[str] = setting(
        CONFIGURATION,
        Many(Path("FILE", "a file"), r"[,\s]+"),
        [],
        "Read environment variables from this file, those that are not set yet. May be repeated.",
        aliases=("--env-files",),
    )
    env: list[tuple[str, str]] = setting(
        CONFIGURATION,
        Many(Variable(), r"[\r\n]+"),
        [],
        "Set this in the environment of the application. May be repeated (in the environment: one per line).",
        flags=("-e", "--env"),
        secret=True,
    )

    host: str = setting(ADDRESSES, Text("HOST"), "127.0.0.1", "Listen on this address; a name listens on all it has.")
    port: int = setting(ADDRESSES, Number(0, MAX_PORT), 8000, "Listen on this port. 0: any free one, told in the log.")
    bind: list[str] = setting(
        ADDRESSES,
        Many(Text("ADDRESS", "an address"), r"[,\s]+"),
        [],
        "host:port, [v6]:port, unix:PATH, unix:@NAME or fd://N in place of --host and --port. May be repeated.",
        flags=("-b", "--bind"),
    )
    uds: str | None = setting(
        ADDRESSES, Optional(Path(), "none"), None, "Listen on this unix socket; @NAME: one without a file (Linux)."
    )
    fd: int | None = setting(
        ADDRESSES, Optional(Number(0), "none"), None, "Listen on this inherited descriptor, a listening stream socket."
    )
    uds_permissions: int | None = setting(
        ADDRESSES,
        Optional(Permissions(), "none"),
        None,
        "Permissions of unix socket files, octal. none: what the umask leaves of 777, mostly the owner alone may connect.",
    )
    ipv6_only: bool = setting(
        ADDRESSES, Switch(), True, "[::] listens for IPv6 alone. Off: for IPv4 too (dual stack), on every system."
    )
    reuse_port: bool = setting(
        ADDRESSES,
        Switch(),
        False,
        "Share TCP addresses with other sockets (SO_REUSEPORT), one for each worker: the kernel spreads the connections.",
    )
    backlog: int = setting(ADDRESSES, Number(1), 2048, "Connections the kernel holds until they are accepted.")

    pid: str | None = setting(
        IDENTITY,
        Optional(Path(), "none"),
        None,
        "Write the process id to this file, once the addresses are bound.",
        flags=("-p", "--pid"),
        aliases=("--pid-file",),
    )
    user: str | None = setting(
        IDENTITY,
        Optional(Account("USER", "a user's name or number"), "none"),
        None,
        "Become this user, with its groups, before the application is imported. Needs root.",
        flags=("-u", "--user"),
    )
    group: str | None = setting(
        IDENTITY,
        Optional(Account("GROUP", "a group's name or number"), "none"),
        None,
        "Become this group, in place of the user's own. Needs root.",
        flags=("-g", "--group"),
    )
    umask: int | None = setting(
        IDENTITY,
        Optional(Permissions(), "none"),
        None,
        "Permissions that new files do not get, octal. none: as inherited.",
        flags=("-m", "--umask"),
    )
    name: str = setting(
        IDENTITY,
        Text("NAME"),
        "",
        "What ps and top call the processes; whole command lines with the extra duckfast[title].",
        flags=("-n", "--name"),
        aliases=("--process-name",),
    )
    daemon: bool = setting(
        IDENTITY,
        Switch(),
        False,
        "Run in the background. The command returns once the server is ready, or has failed.",
        flags=("-D", "--daemon", "--no-daemon"),
    )

    threads: int | None = setting(
        ENGINE,
        Optional(Number(1), "auto"),
        None,
        "Most WSGI threads; few are started, more come when all are busy. 1: for code that is not thread-safe.",
        aliases=("--blocking-threads",),
    )
    loop: str = setting(
        ENGINE,
        Choice("auto", "uvloop", "asyncio"),
        "auto",
        "Event loop for ASGI. auto: uvloop where it is installed.",
        aliases=("--asgi-loop",),
    )
    http: str = setting(ENGINE, Choice("auto", "duckfast", "httptools"), "auto", "HTTP/1 parser. auto: duckfast.")
    body_buffer_size: int = setting(
        ENGINE, Size(), 64 * KIB, "WSGI request bodies are read up to this before a thread is taken; what is longer streams."
    )

    proxy_headers: str = setting(
        PROXIES,
        Mode("off", "client", "x-forwarded", "forwarded", on="x-forwarded"),
        "client",
        "Fields of trusted peers that are believed. client: X-Forwarded-For and -Proto; x-forwarded (or the flag alone): "
        "-Host, -Port and -Prefix as well; forwarded: Forwarded (RFC 7239); off (or --no-proxy-headers): none.",
    )
    forwarded_allow_ips: list[str] = setting(
        PROXIES,
        Peers(),
        ["127.0.0.1", "::1", "unix"],
        "Trust these peers with --proxy-headers: addresses, networks, unix (for unix sockets) or *, with commas.",
    )
    proxy_protocol: str = setting(
        PROXIES,
        Mode("off", "v1", "v2", "auto", on="auto"),
        "off",
        "Every connection begins with a PROXY header of this version (auto, or the flag alone: of either), or is closed.",
    )
    proxy_allow_from: list[str] = setting(
        PROXIES,
        Peers(),
        ["127.0.0.1", "::1", "unix"],
        "Peers that may connect with --proxy-protocol, written as for --forwarded-allow-ips.",
    )
    workers: int | None = setting(
        PROCESSES,
        Optional(Count(), "none"),
        None,
        "Worker processes, with a supervisor that replaces them. none: this process serves alone.",
        flags=("-w", "--workers"),
    )
    preload: bool = setting(
        PROCESSES, Switch(), False, "Import the application once, before the workers are forked, to share its memory."
    )
    limit_max_requests: int | None = setting(
        PROCESSES,
        Optional(Number(1), "none"),
        None,
        "Replace a worker that has served this many requests.",
        aliases=("--max-requests",),
    )
    limit_max_requests_jitter: int = setting(
        PROCESSES,
        Number(0),
        0,
        "Up to this many requests more, another number in each worker.",
        aliases=("--max-requests-jitter",),
    )
    workers_lifetime: float | None = setting(
        PROCESSES, Optional(Duration(), "none"), None, "Replace a worker that has served for this long."
    )
    workers_lifetime_jitter: float = setting(
        PROCESSES, Duration(zero=True), 0.0, "Up to this much longer, another time for each worker."
    )
    workers_max_rss: int | None = setting(
        PROCESSES, Optional(Size(1, "m"), "none"), None, "Replace a worker that uses more memory (in MiB, or 512m, 2g)."
    )
    timeout_worker_startup: float | None = setting(
        PROCESSES,
        Optional(Duration(), "none"),
        300.0,
        "Longest a worker may take until it serves: import and lifespan startup.",
    )
    timeout_worker_healthcheck: float | None = setting(
        PROCESSES,
        Optional(Duration(), "none"),
        30.0,
        "Replace a worker whose event loop, or whose every thread, is stuck for this long; its stacks are logged.",
        aliases=("-t", "--timeout"),
    )
    reload: bool = setting(
        PROCESSES, Switch(), False, "Serve the new code when a file changes; needs watchfiles. For development."
    )
    reload_dirs: list[str] = setting(
        PROCESSES,
        Many(Path("DIRECTORY", "a directory"), r"[,\s]+"),
        [],
        "Watch this directory in place of the current one. May be repeated.",
        flags=("--reload-dir",),
        aliases=("--reload-paths",),
    )
    reload_includes: list[str] = setting(
        PROCESSES,
        Many(Text("PATTERN"), r"[,\s]+"),
        [],
        "Watch these files too, beside *.py. May be repeated.",
        flags=("--reload-include",),
        aliases=("--reload-extra-file",),
    )
    reload_excludes: list[str] = setting(
        PROCESSES,
        Many(Text("PATTERN"), r"[,\s]+"),
        [],
        "Watch none of these files and directories. May be repeated.",
        flags=("--reload-exclude",),
        aliases=("--reload-ignore-patterns",),
    )
    reload_delay: float = setting(PROCESSES, Duration(), 0.25, "Reload once files have been quiet for this long.")
    reload_poll: bool = setting(
        PROCESSES, Switch(), False, "Look at all files again and again, where the system tells of no changes."
    )

    headers: list[tuple[str, str]] = setting(
        ANSWERS,
        Many(HeaderField(), r"[\r\n]+"),
        [],
        "Add this field to every answer. May be repeated (in the environment: one per line).",
        flags=("--header",),
    )
    server_header: bool = setting(ANSWERS, Switch(), True, "Send a Server field.")
    date_header: bool = setting(ANSWERS, Switch(), True, "Send a Date field.")
    raise_on_disconnect: bool = setting(
        ANSWERS, Switch(), True, "ASGI: send() raises an OSError once the client has left (off: it does nothing)."
    )

    ws: str = setting(
        WEBSOCKETS,
        Choice("auto", "none", synonyms=dict.fromkeys(("websockets", "websockets-sansio", "wsproto"), "auto")),
        "auto",
        "WebSockets for ASGI. none: a request for one is an ordinary request.",
        words={"--no-ws": "none"},
    )
    ws_max_size: int = setting(
        WEBSOCKETS,
        Size(1),
        16 * KIB * KIB,
        "Largest message from a client, decompressed (else 1009).",
        aliases=("--websocket-max-message-size",),
    )
    ws_max_queue: int = setting(
        WEBSOCKETS, Number(1), 32, "Most messages that wait for the application before a client is read no further."
    )
    ws_ping_interval: float | None = setting(
        WEBSOCKETS,
        Optional(Duration(), "none"),
        20.0,
        "Ask each client so often whether it is there. none: never.",
        aliases=("--websocket-ping-interval",),
    )
    ws_ping_timeout: float | None = setting(
        WEBSOCKETS, Optional(Duration(), "none"), 20.0, "Longest wait for a sign of life after that (else 1011). none: no limit."
    )
    ws_per_message_deflate: str = setting(
        WEBSOCKETS, Mode("on", "off", on="on"), "on", "Compress messages with clients that offer it (permessage-deflate)."
    )
    ws_deflate_window_bits: int = setting(
        WEBSOCKETS, Number(9, 15), 12, "Window of that compression, as a power of two: memory of a busy websocket against bytes."
    )

    ssl_certfile: list[str] = setting(
        TLS,
        Many(Path(), r"\s*,\s*"),
        [],
        "Certificate chain in PEM; makes every listener HTTPS. May be repeated with its key: chosen by the name a client "
        "asks for, the first for all others.",
        aliases=("--certfile", "--ssl-certificate"),
    )
    ssl_keyfile: list[str] = setting(
        TLS,
        Many(Path(), r"\s*,\s*"),
        [],
        "Private key in PEM. Without it the certificate's file holds the key.",
        aliases=("--keyfile",),
    )
    ssl_keyfile_password: str | None = setting(
        TLS, Optional(Text("PASSWORD"), ""), None, "Opens an encrypted key.", secret=True
    )
    ssl_ca_certs: str | None = setting(
        TLS,
        Optional(Path(), "none"),
        None,
        "Authorities whose client certificates are accepted: a file in PEM, or a directory by hash.",
        aliases=("--ca-certs", "--ssl-ca"),
    )
    ssl_cert_reqs: str = setting(
        TLS,
        Verification(),
        "none",
        "Whether clients are asked for a certificate (0, 1, 2 are accepted too).",
        aliases=("--cert-reqs",),
        words={"--ssl-client-verify": "required"},
    )
    ssl_crl: list[str] = setting(
        TLS, Many(Path(), r"\s*,\s*"), [], "Revocation list in PEM for client certificates. May be repeated."
    )
    ssl_min_version: str = setting(
        TLS,
        Choice("1.2", "1.3", synonyms={"tls1.2": "1.2", "tls1.3": "1.3", "tlsv1.2": "1.2", "tlsv1.3": "1.3"}),
        "1.2",
        "Least TLS version.",
        aliases=("--ssl-protocol-min",),
    )
    ssl_ciphers: str = setting(
        TLS, Text("CIPHERS"), "", "Ciphers for TLS 1.2, as OpenSSL writes them. Empty: Python's choice.", aliases=("--ciphers",)
    )
    ssl_version: str = setting(TLS, Text("VERSION"), "", "Has no effect: versions are negotiated, see --ssl-min-version.")
    ssl_reload: bool = setting(TLS, Switch(), False, "Notice changed certificate files and use them for new connections.")
    ssl_io: str = setting(
        TLS,
        Choice("auto", "descriptor", "memory"),
        "auto",
        "How TLS is driven: by OpenSSL on the socket itself, or by Python's ssl in memory, which is slower. "
        "auto: on the socket where this Python allows it.",
    )
    ssl_context: Any = setting(
        TLS, ContextSource(), None, "An ssl.SSLContext of your own, or a function of (config, default_factory).", flags=()
    )

    log_level: str = setting(
        LOGS, Choice("critical", "error", "warning", "info", "debug", "trace"), "info", "Least level that is logged."
    )
    log_file: str | None = setting(
        LOGS,
        Optional(Path(), "-"),
        None,
        "Append what the server says to this file. -: standard error.",
        aliases=("--error-logfile", "--error-log"),
    )
    log_config: str | dict[str, Any] | None = setting(
        LOGS,
        Optional(LogConfig(), "none"),
        None,
        "Apply this logging configuration: a dict in TOML, JSON or YAML (by its suffix), or else an INI file.",
    )
    use_colors: bool | None = setting(
        LOGS, AutoSwitch(), None, "Colour the log. auto: on a terminal, unless NO_COLOR is set."
    )
    access_log: bool = setting(LOGS, Switch(), True, "Write a line per request.")
    access_log_file: str | None = setting(
        LOGS,
        Optional(Path(), "-"),
        None,
        "Append the lines of requests to this file. -: standard output.",
        aliases=("--access-logfile",),
    )
    access_log_format: str = setting(
        LOGS,
        AccessLogFormat(),
        "common",
        "The lines of requests: common, combined, json, or a template with atoms such as %(h)s or %({user-agent}i)s.",
        aliases=("--access-logformat", "--access-log-fmt"),
    )
    request_id_header: str | None = setting(
        LOGS,
        Optional(FieldName(), "off"),
        "X-Request-ID",
        "The field that brings the id of a request, for the access log. off: none.",
    )

    limit_connections: int | None = setting(
        LIMITS,
        Optional(Number(1), "none"),
        None,
        "Open connections at which accepting pauses.",
        aliases=("--worker-connections", "--backpressure"),
    )
    limit_ssl_handshakes: int = setting(
        LIMITS, Number(1), 1024, "TLS handshakes in progress at which accepting waits; slow ones make room after a second."
    )
    limit_concurrency: int | None = setting(
        LIMITS, Optional(Number(1), "none"), None, "Most requests in the application at once; more wait in line. Per worker."
    )
    limit_queue: int | None = setting(
        LIMITS,
        Optional(Number(0), "auto"),
        None,
        "Most requests that wait in line for --limit-concurrency (else 503). auto: four times as many as that.",
    )
    limit_request_line: int = setting(LIMITS, Size(1), 8190, "Longest request line (else 414).")  # as Apache
    limit_request_fields: int = setting(LIMITS, Number(1), 100, "Most header fields (else 431).")  # as Apache
    limit_request_field_size: int = setting(
        LIMITS, Size(1), 8190, "Longest header field (else 431).", aliases=("--limit-request-field_size",)
    )
    limit_request_head: int = setting(LIMITS, Size(1), 64 * KIB, "Largest request head, line and fields (else 431).")
    limit_request_body: int | None = setting(
        LIMITS, Optional(Size(), "none"), None, "Largest request body (else 413). none: the application decides."
    )
    limit_request_trailers: int = setting(LIMITS, Size(), 8192, "Largest trailer section of a chunked body.")
    limit_chunk_extensions: int = setting(LIMITS, Size(), 16 * KIB, "Most bytes of chunk extensions in one body.")
    limit_drain: int = setting(
        LIMITS, Size(), 64 * KIB, "Most bytes of an unread body that are thrown away to keep a connection."
    )

    timeout_ssl_handshake: float = setting(TIMEOUTS, Duration(), 10.0, "Time for a TLS handshake.")
    timeout_request_headers: float = setting(TIMEOUTS, Duration(), 10.0, "Time for a whole request head (else 408).")
    timeout_request_body: float = setting(TIMEOUTS, Duration(), 30.0, "Longest wait for more of a request body.")
    timeout_keep_alive: float = setting(
        TIMEOUTS,
        Duration(zero=True),
        5.0,
        "Longest an idle connection is kept; 0: every response closes.",
        aliases=("--keep-alive",),
    )
    timeout_request: float | None = setting(
        TIMEOUTS,
        Optional(Duration(), "none"),
        None,
        "Time of the application for a whole request (else 504), without what it waits for the client.",
    )
    timeout_queue: float = setting(
        TIMEOUTS, Duration(), 10.0, "Longest a request waits in line for --limit-concurrency (else 503)."
    )
    timeout_write: float = setting(TIMEOUTS, Duration(), 60.0, "Longest wait for a client that does not read.")
    timeout_drain: float = setting(
        TIMEOUTS, Duration(), 5.0, "Longest wait for the rest of an unread request body before closing."
    )
    timeout_graceful_shutdown: float = setting(
        TIMEOUTS,
        Duration(zero=True),
        30.0,
        "Time for requests in progress when the server is asked to stop.",
        aliases=("--graceful-timeout",),
    )
    timeout_lifespan: float = setting(TIMEOUTS, Duration(), 60.0, "Time for ASGI startup, and for shutdown.")

    def __init__(self, app: str | Callable[..., Any] | None = None, **settings: Any) -> None:
        for name in settings:
            if name not in SETTINGS:
                raise ConfigError(unknown_setting(name))
        values = {"app": app, **settings}
        for row in SETTINGS.values():
            given = row.name in values
            value = row.read(values[row.name], row.name) if given else row.default
            setattr(self, row.name, list(value) if isinstance(value, list) else value)

    @property
    def is_supervised(self) -> bool:
        """Whether worker processes serve, so that there may be another one of the application at any time."""
        return any(getattr(self, name) for name in SUPERVISED)


def _rows() -> Iterator[Setting]:
    for column in fields(Config):
        default = column.default if column.default_factory is MISSING else column.default_factory()
        metadata = dict(column.metadata)
        kind, flags = metadata["kind"], metadata.pop("flags")
        if flags is None:
            flag = "--" + column.name.replace("_", "-")
            flags = (flag, flag.replace("--", "--no-", 1)) if isinstance(kind, Switch) else (flag,)
        yield Setting(name=column.name, default=default, flags=flags, **metadata)


SETTINGS: dict[str, Setting] = {row.name: row for row in _rows()}


def nearest_setting(name: str) -> str | None:
    """The setting a person may have meant by `name`: a near spelling, or another server's name for it."""
    name = name.lower().replace("-", "_").strip("_")
    spellings = {flag.strip("-").replace("-", "_"): row.name for row in SETTINGS.values() for flag in row.aliases}
    spellings |= {row: row for row in SETTINGS}
    near = difflib.get_close_matches(name, spellings, n=1, cutoff=0.75)
    return spellings[near[0]] if near else None


def unknown_setting(name: str) -> str:
    near = nearest_setting(name)
    advice = f"did you mean {near!r}?" if near else "`duckfast --help` lists all settings (with dashes)"
    return f"there is no setting {name!r}; {advice}"


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that DUCKFAST_* names give, as keywords for Config. An empty value counts as not set.

    Raises ConfigError that names the variable.
    """
    return {
        row.name: row.read(environment[row.environment_name], row.environment_name)
        for row in SETTINGS.values()
        if environment.get(row.environment_name)
    }


def misspelled_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """DUCKFAST_* names that are nearly a setting's, and what was probably meant. Others may belong to something else."""
    known = {row.environment_name for row in SETTINGS.values()} | {FILE_VARIABLE}
    strangers = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    near = {name: nearest_setting(name.removeprefix(ENVIRONMENT_PREFIX)) for name in strangers}
    return {name: SETTINGS[row].environment_name for name, row in near.items() if row is not None}
