"""An engine inside the test's own process, on a thread: for tests that call its methods and look at what it calls back.

Starts and ends threads; knows the constructors of both engines and nothing of HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from duckfast import wsgi
from duckfast.asgi import AsyncEngine
from duckfast.config import Config
from support.wire import DEADLINE, Wire, eventually

# Of engines; the last is what an interpreter without a lock runs.
KINDS = ["asyncio", "uvloop", "threads", "one thread", "free threads"]
ASGI_KINDS = KINDS[:2]
WSGI_KINDS = KINDS[2:]


class Counted:
    """Something to call that counts its calls, and lets others wait for more of them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._changed = threading.Condition()

    def __call__(self, *arguments: Any) -> None:
        with self._changed:
            self.calls.append(arguments)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self.calls)

    def wait_for(self, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= number, DEADLINE), f"{len(self.calls)} calls, not {number}"

    def wait_for_more(self, number: int = 1) -> None:
        self.wait_for(len(self.calls) + number)


class RunningEngine:
    """`with RunningEngine("threads", app, threads=4) as running:`; ended by stop() unless the test did.

    `kind` is one of KINDS; `keywords` go to the engine, `settings` into its Config.
    """

    def __init__(
        self,
        kind: str,
        app: Callable[..., Any],
        *,
        sockets: Sequence[socket.socket] | None = None,
        keywords: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if sockets is None:
            sockets = [socket.create_server(("127.0.0.1", 0), backlog=256)]
        for sock in sockets:
            sock.setblocking(False)
        self.kind = kind
        self.sockets = sockets
        self.address: tuple[str, int] = sockets[0].getsockname()
        self.failure: BaseException | None = None
        self._ready = threading.Event()
        self.engine: AsyncEngine | wsgi.ThreadEngine
        options: dict[str, Any] = {"access_log": False, "timeout_keep_alive": 60, **settings}
        keywords = {"ready": self._ready.set, **(keywords or {})}
        if kind in ASGI_KINDS:
            self.engine = AsyncEngine(app, Config(app, loop=kind, lifespan="off", **options), sockets, **keywords)
        else:
            if kind == "one thread":
                options["threads"] = 1
            has_lock = wsgi.has_lock
            if kind == "free threads":
                wsgi.has_lock = lambda: False
                options.setdefault("threads", 4)
            try:
                self.engine = wsgi.ThreadEngine(app, Config(app, **options), sockets, **keywords)
            finally:
                wsgi.has_lock = has_lock
        # A thread that hangs must not keep the tests from ending.
        self._thread = threading.Thread(target=self._run, name=f"{kind} engine", daemon=True)

    def _run(self) -> None:
        try:
            self.engine.run()
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> RunningEngine:
        self._thread.start()
        assert self._ready.wait(DEADLINE), self.failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.engine.stop()
        self.wait()

    def connect(self, **options: Any) -> Wire:
        return Wire(self.address, **options)

    def wait(self) -> None:
        """Until run() has returned."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the engine did not end"
        for sock in self.sockets:
            sock.close()

    def retire(self) -> None:
        """Returns once nothing is accepted any more, for an engine that has its sockets to itself."""
        self.engine.retire()
        self.wait_until_refused()

    def wait_until_refused(self) -> None:
        def refused() -> bool:
            try:
                self.connect().close()
            except ConnectionResetError:  # it came just before the close
                return False
            except ConnectionRefusedError:
                return True
            return False

        eventually(refused, "a refused connection")
