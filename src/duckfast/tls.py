"""TLS from the settings: contexts, the endpoint that connections are made with, and its replacement while serving.

Decides nothing about bytes: what a handshake needs is in an ssl.SSLContext, and _tls drives it. What a person got wrong is told
in one line (ConfigError). The supervisor calls check() before it forks and share_ticket_keys() so that its workers resume each
other's sessions; an engine has one Keeper.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ._tls import TLSEndpoint
from .certificates import Certificate
from .exceptions import ConfigError

if TYPE_CHECKING:
    from .config import Config

ALPN = ["http/1.1"]
WATCH_INTERVAL = 1.0  # seconds between two looks at the files; a look is a stat() each
TICKET_KEY_SIZE = 80  # bytes; what OpenSSL 1.1.1 and later take
VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# What means nothing without a certificate, and so must not be taken for protection.
DEPENDENT = ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs", "ssl_crl", "ssl_ciphers", "ssl_reload")

log = logging.getLogger("duckfast")

_ticket_keys: bytes | None = None

Entries = list[tuple[ssl.SSLContext, tuple[str, ...]]]


def share_ticket_keys(keys: bytes | None = None) -> bytes:
    """Make the keys that session tickets are sealed with, once per process; children forked later have the same.

    Returns them; `keys` sets them, for processes that are not forked from this one.
    """
    global _ticket_keys
    if keys is not None:
        if len(keys) != TICKET_KEY_SIZE:
            raise ValueError(f"ticket keys are {TICKET_KEY_SIZE} bytes, not {len(keys)}")
        _ticket_keys = keys
    elif _ticket_keys is None:
        _ticket_keys = os.urandom(TICKET_KEY_SIZE)
    return _ticket_keys


def is_configured(config: Config) -> bool:
    """Whether listeners are TLS. Raises ConfigError for settings of TLS without a certificate."""
    if config.ssl_certfile or config.ssl_context is not None:
        return True
    for name in DEPENDENT:
        if getattr(config, name):
            raise ConfigError(f"--{name.replace('_', '-')} needs a certificate: give --ssl-certfile")
    if config.ssl_cert_reqs != "none":
        raise ConfigError("--ssl-cert-reqs needs a certificate of the server's own: give --ssl-certfile")
    return False


def scheme(config: Config) -> str:
    """What the addresses of a server's listeners begin with."""
    return "https" if is_configured(config) else "http"


def check(config: Config) -> None:
    """Raise ConfigError for what a worker would stumble over; keeps nothing, and calls no function of the user."""
    if is_configured(config) and not callable(config.ssl_context):
        make_entries(config)


def make_keeper(config: Config) -> Keeper | None:
    """The TLS of one engine, None when it serves plain HTTP. Raises ConfigError."""
    return Keeper(config) if is_configured(config) else None


# Contexts -----------------------------------------------------------------------------------------------------------------


def make_entries(config: Config) -> Entries:
    """Contexts with the host names they are for, the default first."""
    if isinstance(config.ssl_context, ssl.SSLContext):
        return [(config.ssl_context, ())]
    if config.ssl_context is not None:
        context = config.ssl_context(config, lambda: make_context(config))
        if not isinstance(context, ssl.SSLContext):
            raise ConfigError(f"ssl_context(config, default_factory) must return an ssl.SSLContext; got {context!r}")
        return [(context, ())]
    names = len(config.ssl_certfile)
    if config.ssl_keyfile and len(config.ssl_keyfile) != names:
        raise ConfigError(
            f"{len(config.ssl_keyfile)} --ssl-keyfile for {names} --ssl-certfile: give one for each, "
            "or none where the certificate files hold their keys"
        )
    return [
        (make_context(config, index), certificate_names(config.ssl_certfile[index]) if names > 1 else ())
        for index in range(names)
    ]


def make_context(config: Config, index: int = 0) -> ssl.SSLContext:
    """A context with the certificate at `index` of the settings. Raises ConfigError."""
    if not config.ssl_certfile:
        raise ConfigError("the default TLS context needs a certificate: give --ssl-certfile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[config.ssl_min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)
    if config.ssl_ciphers:
        try:
            context.set_ciphers(config.ssl_ciphers)
        except ssl.SSLError:
            raise ConfigError(f"--ssl-ciphers {config.ssl_ciphers!r} names no cipher that this OpenSSL has") from None
    load_certificate(context, config, index)
    context.verify_mode = VERIFY[config.ssl_cert_reqs]
    if config.ssl_ca_certs is not None:
        load_authorities(context, config.ssl_ca_certs, "--ssl-ca-certs")
    elif config.ssl_cert_reqs != "none":
        raise ConfigError(f"--ssl-cert-reqs {config.ssl_cert_reqs} needs --ssl-ca-certs: whose certificates are accepted")
    for path in config.ssl_crl:
        load_authorities(context, path, "--ssl-crl")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def load_certificate(context: ssl.SSLContext, config: Config, index: int) -> None:
    certificate = config.ssl_certfile[index]
    key = config.ssl_keyfile[index] if config.ssl_keyfile else None
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return config.ssl_keyfile_password or ""

    check_readable(certificate, "--ssl-certfile")
    if key is not None:
        check_readable(key, "--ssl-keyfile")
    try:
        context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, ValueError, OSError) as error:
        explain(error, certificate, key, asked, config.ssl_keyfile_password is not None)


def explain(error: Exception, certificate: str, key: str | None, asked: bool, given: bool) -> NoReturn:
    """In a person's words why a certificate and its key were not accepted."""
    holder = key or certificate
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        text = f"the key in {holder} does not belong to the certificate in {certificate}"
    elif asked:
        text = f"the key in {holder} is encrypted; " + (
            "--ssl-keyfile-password does not open it" if given else "give --ssl-keyfile-password"
        )
    elif b"-----BEGIN CERTIFICATE-----" not in Path(certificate).read_bytes():
        text = f"{certificate} holds no certificate in PEM"
    elif b"PRIVATE KEY-----" not in Path(holder).read_bytes():
        text = f"{holder} holds no private key in PEM" + ("" if key else "; give --ssl-keyfile")
    else:
        text = f"the certificate in {certificate} or the key in {holder} cannot be used: {reason or error}"
    raise ConfigError(text) from None


def load_authorities(context: ssl.SSLContext, path: str, option: str) -> None:
    if os.path.isdir(path):
        context.load_verify_locations(capath=path)
        return
    check_readable(path, option)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        what = "revocation list" if option == "--ssl-crl" else "certificate"
        raise ConfigError(f"{option} {path} holds no {what} in PEM: {getattr(error, 'reason', None) or error}") from None


def check_readable(path: str, option: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {path} cannot be read: {error.strerror}") from None


def certificate_names(path: str) -> tuple[str, ...]:
    """The host names of the first certificate in a PEM file."""
    text = Path(path).read_text("latin-1")
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, _, rest = text.partition(begin)
    try:
        return Certificate.read(ssl.PEM_cert_to_DER_cert(begin + rest.partition(end)[0] + end)).hosts
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate in PEM: {error}") from None


# While serving ------------------------------------------------------------------------------------------------------------

Signature = tuple[tuple[str, int, int, int], ...]


class Keeper:
    """The endpoint of one engine, and its successors. `apply` of a reload hands a new one to the reactors."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._paths = [*config.ssl_certfile, *config.ssl_keyfile, *config.ssl_crl]
        if config.ssl_ca_certs is not None:
            self._paths.append(config.ssl_ca_certs)
        if config.ssl_version:
            log.warning("--ssl-version has no effect: the best version that both sides know is used; see --ssl-min-version")
        self._lock = threading.RLock()  # a signal handler may call reload() in the middle of one
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._previous: TLSEndpoint | None = None  # a connection may just be being made with it
        self._seen = self._signature()
        self.endpoint = self._make()
        log.debug("TLS by %s", "OpenSSL on the descriptor" if self.endpoint.io == "descriptor" else "memory BIOs")

    def _make(self) -> TLSEndpoint:
        try:
            return TLSEndpoint(make_entries(self._config), io=self._config.ssl_io, ticket_keys=share_ticket_keys())
        except ValueError as error:
            raise ConfigError(f"--ssl-io {self._config.ssl_io} cannot be had: {error}") from None

    def _signature(self) -> Signature:
        return tuple(_identity(path) for path in self._paths)

    def reload(self, apply: Callable[[TLSEndpoint], None]) -> bool:
        """Load the files anew for connections from now on. What cannot be used changes nothing but the log. From any thread."""
        with self._lock:
            self._seen = self._signature()
            try:
                endpoint = self._make()
            except Exception as error:  # a user's factory may raise anything
                log.error("TLS certificates were not reloaded, the previous ones stay: %s", error)
                return False
            self._previous, self.endpoint = self.endpoint, endpoint
            apply(endpoint)
            log.info("TLS certificates reloaded")
            return True

    def watch(self, apply: Callable[[TLSEndpoint], None]) -> None:
        """With --ssl-reload: begin to look at the files, on a thread of its own until stop()."""
        if not self._config.ssl_reload or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._look, args=(apply,), name="duckfast-tls", daemon=True)
        self._thread.start()

    def _look(self, apply: Callable[[TLSEndpoint], None]) -> None:
        while not self._stop.wait(WATCH_INTERVAL):
            # A failure is told once for what the files were then: the other half of a pair may still be on its way.
            if self._signature() != self._seen:
                self.reload(apply)

    def stop(self) -> None:
        """Ends the watch."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def _identity(path: str) -> tuple[str, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return path, 0, 0, 0
    return path, status.st_ino, status.st_mtime_ns, status.st_size
