"""What the machine has to offer to a test: ports, kinds of addresses."""

from __future__ import annotations

import socket

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
