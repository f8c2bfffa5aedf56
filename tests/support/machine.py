"""What the machine has to offer to a test: ports, kinds of addresses, memory that can be told, programs of others."""

from __future__ import annotations

import os
import socket
import sys

import pytest


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; somebody may before you do."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")

# Under the address sanitizer every block has a red zone, and freed ones stay in quarantine.
counts_memory = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "asan" in os.environ.get("LD_PRELOAD", ""), reason="counts Linux's pages"
)


def foreign_environ() -> dict[str, str]:
    """For programs of others, which do not start with the sanitizer that is preloaded into Python."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
