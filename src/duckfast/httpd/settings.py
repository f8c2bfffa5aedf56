"""The settings of the class API, with the names and the meanings they have in a settings module of Duck's. Knows no server.

SETTINGS holds for every server that has none of its own. What each name becomes in the engine stands in make_config().
"""

from __future__ import annotations

import difflib
import ssl
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from ..config import Config
from ..exceptions import ConfigError

MIB = 1024 * 1024
KEEP_ALIVE, CLOSE = "keep-alive", "close"

# Every name with its default, and what a value may be.
DEFAULTS: dict[str, Any] = {
    "SERVER_BUFFER": 65535,  # bytes of one recv() that is not told how many
    "SERVER_POLL": 0.01,  # seconds between calls of an interval_fn
    "CONNECTION_MODE": KEEP_ALIVE,  # anything else: a connection ends with its first response
    "KEEP_ALIVE_TIMEOUT": 1,  # seconds to wait for the first byte of the next request
    "REQUEST_TIMEOUT": 10,  # seconds for a whole request head
    "REQUEST_STREAM_TIMEOUT": 30,  # seconds to wait for more of a body
    "SEND_TIMEOUT": 2,  # seconds to wait for a client that takes nothing of its response
    "REQUESTS_BACKLOG": 2048,  # connections that the kernel holds until they are accepted
    "DATA_UPLOAD_MAX_SIZE": 100 * MIB,  # bytes of a body, whichever of the two is more; None: the application decides
    "FILE_UPLOAD_MAX_SIZE": 100 * MIB,
    "ASYNC_HANDLING": False,  # serve on an event loop even where threads would do
    "ASYNC_LOOP": None,  # "uvloop", "asyncio"; None: uvloop where it is installed
    "ENABLE_HTTPS": False,  # servers speak TLS even if they are not told to
    "SSL_CERTFILE_LOCATION": None,
    "SSL_PRIVATE_KEY_LOCATION": None,
    "REQUEST_HANDLING_TASK_EXECUTOR": None,  # an object with execute(task); None: duckfast's own
    "DEBUG": False,  # the log's level, where the program has not set logging up
    "SILENT": False,  # as no_logs, for every server
}
NUMBERS = {name for name, value in DEFAULTS.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
SWITCHES = {name for name, value in DEFAULTS.items() if isinstance(value, bool)}
OPTIONAL = {"DATA_UPLOAD_MAX_SIZE", "FILE_UPLOAD_MAX_SIZE"}


class Settings(MutableMapping[str, Any]):
    """`Settings(KEEP_ALIVE_TIMEOUT=5)`, read and changed as settings["NAME"] or settings.NAME; the names are fixed.

    Raises ConfigError for a name that does not exist and a value that cannot be used.
    """

    _values: dict[str, Any]

    def __init__(self, **values: Any) -> None:
        object.__setattr__(self, "_values", dict(DEFAULTS))
        self.update(values)

    @classmethod
    def from_duck(cls, mapping: Mapping[str, Any]) -> Settings:
        """Of a whole settings module of Duck's: the names that concern a server, the others are left alone."""
        taken = {name: mapping[name] for name in DEFAULTS if name in mapping}
        if isinstance(taken.get("ASYNC_LOOP"), str) and taken["ASYNC_LOOP"] not in ("uvloop", "asyncio"):
            taken["ASYNC_LOOP"] = None
        if not hasattr(taken.get("REQUEST_HANDLING_TASK_EXECUTOR"), "execute"):
            taken.pop("REQUEST_HANDLING_TASK_EXECUTOR", None)  # the path of a class
        stream_timeout = taken.get("REQUEST_STREAM_TIMEOUT", 1)
        if stream_timeout is None or stream_timeout < 1:
            taken.pop("REQUEST_STREAM_TIMEOUT", None)  # there it is how long a read may lie idle, here how long a body may
        return cls(**taken)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[known(name)] = read(name, value)

    def __delitem__(self, name: str) -> None:
        """Back to the default."""
        self._values[name] = DEFAULTS[known(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name in DEFAULTS:
            return self._values[name]
        raise AttributeError(f"there is no setting {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.items() if value != DEFAULTS[name]}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


SETTINGS = Settings()


def known(name: str) -> str:
    if name in DEFAULTS:
        return name
    near = difflib.get_close_matches(str(name).upper(), DEFAULTS, n=1)
    raise ConfigError(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def read(name: str, value: Any) -> Any:
    if name in OPTIONAL and value is None:
        return value
    if name in NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
        raise ConfigError(f"{name} must be a number from 0 up; got {value!r}")
    if name in SWITCHES and not isinstance(value, (bool, int)):
        raise ConfigError(f"{name} must be True or False; got {value!r}")
    if name == "ASYNC_LOOP" and value not in (None, "uvloop", "asyncio"):
        raise ConfigError(f"ASYNC_LOOP must be 'uvloop', 'asyncio' or None; got {value!r}")
    if name == "REQUEST_HANDLING_TASK_EXECUTOR" and value is not None and not callable(getattr(value, "execute", None)):
        raise ConfigError(f"REQUEST_HANDLING_TASK_EXECUTOR must have a method execute(task); got {value!r}")
    return bool(value) if name in SWITCHES else value


def make_config(settings: Settings, *, logs: bool, threads: int | None, tls: dict[str, Any]) -> Config:
    """What an engine needs to know; `tls` are settings of Config already."""
    uploads = settings.DATA_UPLOAD_MAX_SIZE, settings.FILE_UPLOAD_MAX_SIZE
    most = None if None in uploads else int(max(uploads))
    keep_alive = settings.KEEP_ALIVE_TIMEOUT if settings.CONNECTION_MODE == KEEP_ALIVE else 0
    return Config(
        timeout_keep_alive=float(keep_alive),
        timeout_request_headers=float(settings.REQUEST_TIMEOUT),
        timeout_request_body=float(settings.REQUEST_STREAM_TIMEOUT),
        timeout_write=float(settings.SEND_TIMEOUT),
        backlog=int(settings.REQUESTS_BACKLOG),
        limit_request_body=most,
        loop=settings.ASYNC_LOOP or "auto",
        access_log=logs,
        threads=threads,
        log_level="debug" if settings.DEBUG else "info",
        **tls,
    )


def tls_settings(ssl_params: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """The parameters of a TLS server as settings of Config. Raises ConfigError."""
    params = dict(ssl_params or {})
    unknown = params.keys() - {"certfile", "keyfile", "version", "ca_certs", "ciphers"}
    if unknown:
        raise ConfigError(
            f"ssl_params has no {', '.join(map(repr, sorted(unknown)))}; it takes certfile, keyfile, version, ca_certs, ciphers"
        )
    certificate = params.get("certfile") or settings.SSL_CERTFILE_LOCATION
    if not certificate:
        raise ConfigError("HTTPS needs a certificate: give ssl_params a certfile, or set SSL_CERTFILE_LOCATION")
    key = params.get("keyfile") or (None if params.get("certfile") else settings.SSL_PRIVATE_KEY_LOCATION)
    found: dict[str, Any] = {"ssl_certfile": [str(certificate)], "ssl_min_version": least_version(params.get("version"))}
    if key:
        found["ssl_keyfile"] = [str(key)]
    if params.get("ca_certs"):
        found["ssl_ca_certs"] = str(params["ca_certs"])
    if params.get("ciphers"):
        found["ssl_ciphers"] = params["ciphers"]
    return found


def least_version(version: Any) -> str:
    """`version` is a constant of the ssl module for a protocol; nothing below TLS 1.2 is spoken."""
    if version in (None, ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLSv1_2, ssl.TLSVersion.TLSv1_2):
        return "1.2"
    if version == ssl.TLSVersion.TLSv1_3:
        return "1.3"
    raise ConfigError(f"ssl_params: version {version!r} is not spoken; give ssl.PROTOCOL_TLS_SERVER, or none")
