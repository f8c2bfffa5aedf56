"""Who serves a configuration: this process alone, or a supervisor with worker processes. Decides only that."""

from __future__ import annotations

import threading
from collections.abc import Callable

from . import handover, identity
from .config import Config
from .exceptions import ConfigError, DuckfastError
from .server import Server, check, tell


def serve(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Run a server as a process does: the exit code, 0 after a graceful stop; a failure is told in a line on stderr.

    `reread` reads the configuration anew, for a reload.
    """
    daemon = identity.daemonize() if config.daemon and not handover.is_given() else None
    code = 0
    try:
        if handover.only_checks():
            check(config)
        elif config.is_supervised or handover.is_given():
            if threading.current_thread() is not threading.main_thread():
                raise ConfigError("worker processes and --reload need the main thread; run it there, or leave them out")
            from .supervisor import Supervisor  # what one process alone does not need is not loaded

            Supervisor(config, reread, daemon).run()
        else:
            Server(config, ready=None if daemon is None else daemon.ready).run()
    except DuckfastError as error:
        tell(error)
        code = error.exit_code
    if daemon is not None:
        daemon.ended(code)
    return code
