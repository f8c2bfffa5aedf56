"""What a supervisor and its worker say to each other: one JSON object per line, over a socket pair. Knows no process.

Worker to supervisor: ready, failed, recycle, reported. Supervisor to worker: retire, hurry, report. What must also
reach a worker that cannot listen is a signal instead.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

READ_SIZE = 1 << 16  # bytes

Message = dict[str, Any]  # "say" is its name; the rest belongs to it


class Line:
    """One end of the pair."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._rest = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def say(self, name: str, **facts: Any) -> bool:
        """Send one message; False when the other end is gone, or does not read (a worker that hangs)."""
        try:
            self.socket.sendall(json.dumps({"say": name, **facts}).encode() + b"\n")
        except OSError:
            return False
        return True

    def hear(self) -> list[Message] | None:
        """The messages of one read, maybe none; None once the other end has closed."""
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def listen(self) -> Iterator[Message]:
        """Each message as it comes, until the other end closes. For a blocking socket."""
        while (messages := self.hear()) is not None:
            yield from messages

    def close(self) -> None:
        self.socket.close()


def pair() -> tuple[Line, Line]:
    """The supervisor's end, non-blocking so that no worker can hold it up, and the worker's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return Line(ours), Line(theirs)
