"""Event loops as a server meets them: the one to make, the one that runs already, work that is waited for. Serves nothing.

asyncio is imported where it is needed: a server of WSGI applications never loads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .config import Config
from .exceptions import ConfigError
from .log import log

if TYPE_CHECKING:
    import asyncio


def choose_loop(loop: str) -> str:
    installed = importlib.util.find_spec("uvloop") is not None
    if loop == "auto":
        return "uvloop" if installed else "asyncio"
    if loop == "uvloop" and not installed:
        raise ConfigError("uvloop is not installed; `pip install uvloop`, or --loop asyncio")
    return loop


def on_loop(config: Config, loop: asyncio.AbstractEventLoop) -> Config:
    """The configuration for a loop that runs already. Raises ConfigError when another kind was asked for."""
    running = "uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"
    if config.loop not in ("auto", running):
        raise ConfigError(f"loop is {config.loop!r}, but the server has to serve on the running loop, {running}'s; leave it out")
    return dataclasses.replace(config, loop=running)


def refuse_running_loop(what: str) -> None:
    """Raise RuntimeError on a thread whose event loop is running: it would stand still for as long as a server serves."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise RuntimeError(f"{what} cannot be called from a running event loop; `await duckfast.Server(app).serve()` can")


async def attend(work: asyncio.Future[None], end: Callable[[], object] | None = None) -> None:
    """Wait for its end. Cancelled, call `end` (its cancel() if there is none) and go on waiting, then pass the cancellation on.

    Once: anyio cancels again and again until it has its way, which would interrupt the cleanup.
    """
    import asyncio

    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            if cancelled is None:
                (end or functools.partial(cancel_once, work))()
            cancelled = error
    if cancelled is None:
        return work.result()
    failure = None if work.cancelled() else work.exception()
    if failure is not None:
        log.error("the server failed while it was cancelled: %s", failure)
    raise cancelled


def cancel_once(work: asyncio.Future[None]) -> None:
    """Not a task that somebody else has cancelled: asyncio.run() cancels every task at its end."""
    if getattr(work, "cancelling", lambda: 0)() == 0:
        work.cancel()


async def run_on_thread(work: Callable[[], None], end: Callable[[], object]) -> None:
    """Run `work` on a thread of its own, and wait for it as attend() does; what it raises is raised here."""
    import asyncio

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed without waiting for us
            loop.call_soon_threadsafe(settle, done, failure)

    thread = threading.Thread(target=run, name="duckfast-server", daemon=True)
    thread.start()
    try:
        await attend(done, end)
    finally:
        if done.done():  # else the loop is being torn down
            thread.join()


def settle(future: asyncio.Future[None], failure: BaseException | None = None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
