"""systemd's end of the socket that services send their notifications to (sd_notify)."""

from __future__ import annotations

import os
import select
import socket
from types import TracebackType


class Manager:
    """`with Manager() as manager:` gives its `address` to a service as NOTIFY_SOCKET, and reads what that sends."""

    def __init__(self) -> None:
        self.address = f"/tmp/duckfast-manager-{os.getpid()}"  # short, as socket paths have to be
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(30)

    def next(self) -> dict[str, str]:
        """The next notification."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def hears_nothing(self) -> bool:
        """Whether no notification is waiting."""
        return not select.select([self._socket], [], [], 0)[0]

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()
        os.unlink(self.address)
