"""What a server's process tree holds while others use it, and whether a polite client beside them is served. Linux only."""

import multiprocessing
import os
import socket
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from . import processes
from .client import WrongAnswer, receive_response

EVERY = 0.1  # seconds between two looks
PAUSE = 0.02  # seconds between two requests of the polite client: it must not be a load of its own
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(frozen=True)
class Held:
    """By the whole tree: bytes of proportional memory, bytes of resident memory, open descriptors."""

    pss: int
    rss: int
    descriptors: int


def look(root: int) -> Held:
    memory = processes.memory(root)
    return Held(memory.pss, memory.rss, sum(count_descriptors(process) for process in processes.tree(root)))


def count_descriptors(process: int) -> int:
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0


def highest_rss(root: int) -> int:
    """The kernel's own mark, which no look can miss."""
    return processes.memory(root).peak


def restart_mark(root: int) -> None:
    """Has highest_rss() begin anew, where we may."""
    for process in processes.tree(root):
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:
            return


class Watch(threading.Thread):
    """Looks again and again between start() and finish(), and keeps the most it saw of each."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._peak = Held(0, 0, 0)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(EVERY):
            self._note(look(self._root))

    def _note(self, seen: Held) -> None:
        peak = self._peak
        self._peak = Held(
            max(peak.pss, seen.pss), max(peak.rss, seen.rss), max(peak.descriptors, seen.descriptors)
        )

    def finish(self) -> Held:
        self._over.set()
        self.join()
        self._note(look(self._root))
        return self._peak


def wait_until_settled(root: int, before: Held, margin: int, patience: float) -> Held:
    """The first look that is as before, or the last one within our patience."""
    deadline = time.monotonic() + patience
    while True:
        seen = look(root)
        if seen.descriptors == before.descriptors and seen.pss <= before.pss + margin or time.monotonic() > deadline:
            return seen
        time.sleep(EVERY)


@dataclass(frozen=True)
class Served:
    """How the polite client fared."""

    answers: int
    failures: list[str]
    slowest: float  # seconds


class Innocent:
    """A polite client in a process of its own: by turns on a connection that it keeps and on a new one, one request at a time."""

    def __init__(self, port: int, patience: float) -> None:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_visit, args=(port, patience, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._ours.recv()  # its first answer is there, or its first failure

    def finish(self) -> Served:
        self._ours.send("enough")
        served: Served = self._ours.recv()
        self._process.join()
        return served


def _visit(port: int, patience: float, pipe: Connection) -> None:
    answers = 0
    slowest = 0.0
    failures: list[str] = []
    kept: socket.socket | None = None
    while True:
        for keeps in (True, False):
            begun = time.monotonic()
            connection = kept if keeps else None
            try:
                if connection is None:
                    connection = socket.create_connection(("127.0.0.1", port), patience)
                connection.sendall(REQUEST)
                receive_response(connection)
                answers += 1
            except (OSError, WrongAnswer) as error:
                failures.append(f"{'kept' if keeps else 'new'} connection: {error}")
                if connection is not None:
                    connection.close()
                connection = None
            slowest = max(slowest, time.monotonic() - begun)
            if keeps:
                kept = connection
            elif connection is not None:
                connection.close()
        if answers + len(failures) == 2:
            pipe.send("begun")
        if pipe.poll(PAUSE):
            break
    if kept is not None:
        kept.close()
    pipe.send(Served(answers, failures, slowest))
