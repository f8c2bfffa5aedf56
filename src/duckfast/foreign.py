"""Names that other servers give to settings, beyond the aliases in the table: which of ours is meant, or what to do instead.

Words only. Aliases that are accepted on the command line stand in the table of settings; here are gunicorn's names in its
Python files, and the names of what duckfast does not have.
"""

from __future__ import annotations

import re

from .config import SETTINGS, nearest_setting

# Their name in a file: ours. Accepted in files; on the command line ours is named.
COUNTERPARTS = {
    # gunicorn's settings are called otherwise than its options.
    "accesslog": "access_log_file",
    "ca_certs": "ssl_ca_certs",
    "cert_reqs": "ssl_cert_reqs",
    "certfile": "ssl_certfile",
    "ciphers": "ssl_ciphers",
    "errorlog": "log_file",
    "keepalive": "timeout_keep_alive",
    "keyfile": "ssl_keyfile",
    "logconfig": "log_config",
    "logconfig_dict": "log_config",
    "logconfig_json": "log_config",
    "loglevel": "log_level",
    "pidfile": "pid",
    "preload_app": "preload",
    "proc_name": "name",
    "proxy_allow_ips": "proxy_allow_from",
    "raw_env": "env",
    "reload_extra_files": "reload_includes",
    "timeout": "timeout_worker_healthcheck",
    "wsgi_app": "app",
    # hypercorn's
    "application_path": "app",
    "keep_alive_timeout": "timeout_keep_alive",
    "keyfile_password": "ssl_keyfile_password",
    "pid_path": "pid",
    "shutdown_timeout": "timeout_graceful_shutdown",
    "startup_timeout": "timeout_lifespan",
    "ssl_handshake_timeout": "timeout_ssl_handshake",
    "verify_mode": "ssl_cert_reqs",
    # uvicorn's and granian's
    "log_enabled": "log_level",
    "respawn_interval": "timeout_worker_startup",
    "http1_header_read_timeout": "timeout_request_headers",
    "url_path_prefix": "root_path",
    "ssl_certificate": "ssl_certfile",
    "ssl_client_verify": "ssl_cert_reqs",
    "ssl_ca": "ssl_ca_certs",
    "ssl_protocol_min": "ssl_min_version",
}

# Their value means something else, so the name is only told.
NOT_THE_SAME = {"log_enabled", "respawn_interval", "http1_header_read_timeout"}

INTERFACE = "the application decides, or --interface; leave it out"
NO_HOOKS = "there are no hooks; what a worker has to do at its start belongs into the application (ASGI: lifespan)"
NOT_YET = "this version does not have it"

ADVICE = {
    "asgi_disconnect_grace_period": "send() tells the application of a client that has left (--raise-on-disconnect)",
    "blocking_threads_idle_timeout": "threads that wait cost next to nothing; leave it out",
    "capture_output": "stdout and stderr of the application are never touched; leave it out",
    "casefold_http_method": "methods reach the application as they were sent; leave it out",
    "debug": "--log-level debug, and --reload for development",
    "do_handshake_on_connect": "handshakes never hold up others; leave it out",
    "dogstatsd_tags": NOT_YET,
    "enable_stdio_inheritance": "output is never held back; leave it out",
    "forwarder_headers": "fields whose names have underscores are dropped; leave it out",
    "h11_max_incomplete_event_size": "--limit-request-head is the size of a whole request head",
    "header_map": "fields whose names have underscores are dropped; leave it out",
    "http1_buffer_size": "--limit-request-head is the size of a whole request head",
    "http1_keep_alive": "--timeout-keep-alive 0 closes after every response",
    "http1_pipeline_flush": "pipelined responses are gathered by themselves; leave it out",
    "http_parser": "--http chooses the parser: auto, duckfast or httptools",
    "http_protocols": "HTTP/1.1 is spoken; leave it out",
    "initgroups": "--user always brings the user's groups; leave it out",
    "insecure_bind": "-b, in a server of its own without certificates",
    "limit_worker_concurrency": "--limit-concurrency",
    "log_syslog": "log to standard error under systemd, or give --log-config a syslog handler",
    "logger_class": "--log-config takes handlers and formatters",
    "max_app_queue_size": "the bodies of requests are held back by themselves; leave it out",
    "paste": "give the application as module:attribute",
    "permit_obsolete_folding": "such requests are refused; leave it out",
    "permit_unconventional_http_method": "every method that is a token is served; leave it out",
    "permit_unconventional_http_version": "HTTP/1.x is served, all else refused; leave it out",
    "protocol": "HTTP is spoken; uwsgi is not",
    "pythonpath": "--app-dir, or PYTHONPATH in the environment",
    "quic_bind": "HTTP/3 is not spoken; a proxy in front can",
    "read_timeout": "--timeout-request-headers and --timeout-request-body",
    "reload_engine": "watchfiles watches, or --reload-poll",
    "reload_ignore_dirs": "--reload-exclude",
    "reload_ignore_paths": "--reload-exclude",
    "reload_ignore_worker_failure": "a worker that cannot start never ends --reload; leave it out",
    "reload_tick": "--reload-delay",
    "reset_contextvars": "every request has a context of its own; leave it out",
    "respawn_failed_workers": "workers are always replaced; leave it out",
    "rss_sample_interval": "--workers-max-rss needs no rhythm; leave it out",
    "rss_samples": "--workers-max-rss needs no rhythm; leave it out",
    "runtime_blocking_threads": "--threads is for WSGI; for ASGI there is nothing to set",
    "runtime_mode": "nothing to set here; leave it out",
    "runtime_threads": "--workers; a process has one event loop",
    "secure_scheme_headers": "--proxy-headers chooses the family of fields",
    "sendfile": "files are sent by the kernel wherever it can; leave it out",
    "server_name": "let the proxy choose by Host, or the application (Django's ALLOWED_HOSTS)",
    "server_software": "--header and --no-server-header",
    "spew": "python -m trace traces a program",
    "strip_header_spaces": "such requests are refused; leave it out",
    "suppress_ragged_eofs": "nothing to set here; leave it out",
    "task_impl": "asyncio's own tasks are used; leave it out",
    "worker_class": INTERFACE,
    "worker_tmp_dir": "workers say that they live in shared memory, without a file; leave it out",
    "workers_kill_timeout": "--timeout-graceful-shutdown",
}

# Functions that gunicorn calls when they stand in its Python file.
HOOKS = frozenset(
    (
        *("on_starting", "on_reload", "on_exit", "when_ready", "nworkers_changed"),
        *("pre_exec", "pre_fork", "post_fork", "post_worker_init", "child_exit"),
        *("worker_int", "worker_abort", "worker_exit", "pre_request", "post_request"),
    )
)

# Families of options for which one sentence does.
PREFIXES = {
    "control_socket": NOT_YET,
    "dirty_": NOT_YET,
    "http2": NOT_YET,
    "h2c": NOT_YET,
    "metrics": NOT_YET,
    "static_path": "let the proxy serve files, or the application (WhiteNoise)",
    "statsd_": NOT_YET,
}
OPTION = re.compile(r"--[a-z][a-z-]*[a-z]")
WHOLE_WORDS = {"k": INTERFACE}


def normal(name: str) -> str:
    """One spelling for an option and a key: `--log-level` is `log_level`."""
    return name.strip("-").replace("-", "_")


def counterpart(name: str) -> str | None:
    """The setting that is the same as another server's `name`, under that server's spelling in a file."""
    name = normal(name)
    ours = COUNTERPARTS.get(name) or _aliases().get(name)
    return ours if ours in SETTINGS and name not in NOT_THE_SAME else None


def advice(name: str) -> str:
    """What to tell somebody who wrote `name`, which is no setting: ends the sentence "there is no option --x; "."""
    plain = normal(name).lower().removeprefix("no_")
    meant = COUNTERPARTS.get(plain)
    if meant in SETTINGS:
        return f"did you mean {SETTINGS[meant].flags[-1] if SETTINGS[meant].flags else 'the target'}?"
    known = NO_HOOKS if plain in HOOKS else ADVICE.get(plain) or WHOLE_WORDS.get(plain)
    known = known or next((words for prefix, words in PREFIXES.items() if plain.startswith(prefix)), None)
    if known is not None:
        if not all(flag in _flags() for flag in OPTION.findall(known)):
            known = NOT_YET
        return f"instead: {known}" if known.startswith("-") else known
    near = nearest_setting(plain)
    return f"did you mean {SETTINGS[near].flags[0]}?" if near else ""


def _flags() -> set[str]:
    return {flag for row in SETTINGS.values() for flag in row.flags}


def _aliases() -> dict[str, str]:
    return {normal(flag): row.name for row in SETTINGS.values() for flag in (*row.flags, *row.aliases) if len(normal(flag)) > 1}
