"""When each worker's engine last showed that it is alive, in memory that the processes share. Knows no process, judges nothing.

A reading is CLOCK_MONOTONIC, the same clock in every process of a machine. The memory has no name in any file system, so no
disk can hold up a beat, and its descriptor outlives an exec.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time

CELL = 8  # bytes: one signed 64-bit number of nanoseconds, written at once because it is aligned
CELLS = 2048  # processes at most, the retiring ones included


class Pulses:
    """Shared cells. `fd`: the descriptor of memory that another image of this process made, None for new memory."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _new_memory() if fd is None else fd
        self._memory = mmap.mmap(self.fd, CELLS * CELL)
        self._taken: set[int] = set()

    def take(self, cell: int | None = None) -> int:
        """A free cell, which counts as beaten just now; or the given one, as an earlier image left it. Raises RuntimeError."""
        if cell is None:
            cell = next((free for free in range(CELLS) if free not in self._taken), None)
            if cell is None:
                raise RuntimeError(f"more than {CELLS} worker processes")
            self.beat(cell)
        self._taken.add(cell)
        return cell

    def give_back(self, cell: int) -> None:
        self._taken.discard(cell)

    def beat(self, cell: int) -> None:
        struct.pack_into("q", self._memory, cell * CELL, time.monotonic_ns())

    def silence(self, cell: int) -> float:
        """Seconds since the last beat."""
        last: int = struct.unpack_from("q", self._memory, cell * CELL)[0]
        return (time.monotonic_ns() - last) / 1e9


def _new_memory() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("duckfast-pulses", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, CELLS * CELL)
    return fd
