"""Worker processes that are replaced when they die, and the thread that accepts where accepting is a hook. Knows no HTTP.

A worker process ends when it is told to by SIGTERM, and when the process that made it is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from . import executor

log = logging.getLogger("duckfast")

SHORT_LIFE = 1.0  # seconds; a worker that dies sooner will probably do so again
MOST_SHORT_LIVES = 5  # in a row, then the server gives up; supervisors elsewhere count to 3 to 10
KILL_AFTER = 35.0  # seconds after SIGTERM: the graceful timeout, and some
PAUSE = 0.5  # seconds, after an error that will not be gone at once (no descriptors)

Work = Callable[[Callable[[Callable[[], None]], None]], None]  # is given a function that is to be told what ends it


class Processes:
    """`number` processes that run `work`. `gone()` is called once, when the last of them has ended and none is to come."""

    def __init__(self, number: int, work: Work, gone: Callable[[], None]) -> None:
        # What is served may be any object: only a fork has it without taking it to pieces.
        self._context = multiprocessing.get_context("fork")
        self._number = number
        self._work = work
        self._gone = gone
        self._processes: list[BaseProcess] = []
        self._stopping = False
        self._stop_read, self._stop_write = socket.socketpair()
        self._stop_write.setblocking(False)
        self._parent_read, self._parent_write = os.pipe()  # ends with this process

    @property
    def alive(self) -> list[BaseProcess]:
        return [process for process in list(self._processes) if process.is_alive()]

    def start(self) -> None:
        for index in range(self._number):
            self._processes.append(self._fork(index))
        atexit.register(self.stop)  # before multiprocessing's own, which would wait for ever
        threading.Thread(target=self._watch, name="duckfast-processes", daemon=True).start()

    def stop(self) -> None:
        """Tells them to end; from any thread or signal handler."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._stop_write.send(b"s")
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError, ValueError):
                if process.is_alive():
                    process.terminate()

    def _fork(self, index: int) -> BaseProcess:
        process = self._context.Process(target=self._live, name=f"duckfast-worker-{index + 1}")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it knows what to do then
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    def _watch(self) -> None:
        """Replaces who dies, until the stop; then ends who does not end by itself."""
        born = {process: time.monotonic() for process in self._processes}
        short_lives = 0
        deadline = None
        while self._processes:
            waiting: list[Any] = [process.sentinel for process in self._processes]
            if not self._stopping:
                waiting.append(self._stop_read)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            multiprocessing.connection.wait(waiting, left)
            if self._stopping and deadline is None:
                deadline = time.monotonic() + KILL_AFTER
                self.stop()  # one that was forked just then has not been told
            for index, process in enumerate(list(self._processes)):
                if process.is_alive():
                    if deadline is not None and time.monotonic() >= deadline:
                        process.kill()
                    continue
                process.join()
                if self._stopping:
                    self._processes.remove(process)
                    continue
                short_lives = short_lives + 1 if time.monotonic() - born[process] < SHORT_LIFE else 0
                if short_lives >= MOST_SHORT_LIVES:
                    log.error("worker processes die as soon as they are started: the server stops")
                    self.stop()
                    self._processes.remove(process)
                    continue
                log.warning("worker process %s has ended (exit code %s) and is replaced", process.pid, process.exitcode)
                self._processes[index] = self._fork(index)
                born[self._processes[index]] = time.monotonic()
        atexit.unregister(self.stop)
        os.close(self._parent_read)
        os.close(self._parent_write)
        self._stop_read.close()
        self._stop_write.close()
        self._gone()

    # ------------------------------------------------------------------ in the worker process

    def _live(self) -> None:
        ends: list[Callable[[], None]] = []
        told = False  # no Event: one more signal may come within the handler, and an event's lock is not reentrant

        def end(*_: object) -> None:
            nonlocal told
            told = True
            for call in ends:
                call()

        def stop(call: Callable[[], None]) -> None:
            ends.append(call)
            if told:
                call()

        def watch_parent() -> None:
            os.read(self._parent_read, 1)
            end()

        atexit.unregister(self.stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent decides
        signal.signal(signal.SIGTERM, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        executor.forget_threads()
        os.close(self._parent_write)
        threading.Thread(target=watch_parent, name="duckfast-parent", daemon=True).start()
        self._work(stop)


class Acceptor:
    """Calls `accept` while there are connections to accept, on a thread of its own."""

    def __init__(self, accept: Callable[[], object], listener: socket.socket) -> None:
        self._accept = accept
        self._listener = listener
        self._read, self._write = socket.socketpair()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="duckfast-accept", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """From any thread or signal handler; again does nothing."""
        if not self._stopped:
            self._stopped = True
            with contextlib.suppress(OSError):
                self._write.send(b"s")

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._listener.fileno(), select.POLLIN)
        poller.register(self._read.fileno(), select.POLLIN)
        with self._read, self._write:
            while not self._stopped:
                poller.poll()
                if self._stopped:
                    return
                try:
                    self._accept()
                except (BlockingIOError, ConnectionError):
                    pass  # a sibling was faster, or the client has left
                except Exception:
                    log.exception("accept_and_handle failed")
                    select.select([self._read], [], [], PAUSE)
