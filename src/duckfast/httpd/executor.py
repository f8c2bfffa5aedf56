"""Where hooks run that would hold up an engine: callables on a pool of threads, coroutines on an event loop of their own.

Knows nothing of servers. The settings may put another object with execute(task) in its place.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .settings import SETTINGS

MOST_THREADS = 64  # as the engine's own crew has at most

log = logging.getLogger("duckfast")


class RequestHandlingExecutor:
    """`execute(task)` starts it and returns its future. Exceptions that nobody asks the future for are in the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def execute(self, task: Callable[[], Any] | Coroutine[Any, Any, Any]) -> Future[Any]:
        """Raises TypeError for what is neither a callable without arguments nor a coroutine."""
        if inspect.iscoroutine(task):
            future: Future[Any] = asyncio.run_coroutine_threadsafe(task, self._running_loop())
        elif callable(task):
            future = self._running_pool().submit(task)
        else:
            raise TypeError(f"a task is a callable or a coroutine, not {type(task).__name__}")
        future.add_done_callback(tell_failure)
        return future

    def _running_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_THREADS, "duckfast-hook")
            return self._pool

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="duckfast-hooks-loop", daemon=True).start()
            return self._loop


def tell_failure(future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("a task of the request handling executor failed", exc_info=error)


_own = RequestHandlingExecutor()


def forget_threads() -> None:
    """In a forked process: the threads of the parent are not here."""
    global _own
    _own = RequestHandlingExecutor()


def call_request_handling_executor(task: Callable[[], Any] | Coroutine[Any, Any, Any]) -> Any:
    """Runs a task by the settings' REQUEST_HANDLING_TASK_EXECUTOR, or else a callable on a thread, a coroutine on a loop."""
    return (SETTINGS.REQUEST_HANDLING_TASK_EXECUTOR or _own).execute(task)
