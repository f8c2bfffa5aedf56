"""SIGINT, SIGTERM and others of one process, each told once. Knows the signal module; refuses to know what a stop is.

Python runs a handler only when the main thread gets to it: a signal that arrives just before that thread goes to sleep in
the kernel waits for whatever wakes it next, and some systems deliver signals to other threads. So a second thread listens
at the interpreter's wake-up descriptor, and whichever of the two notices a signal first tells it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
REOPEN_SIGNAL = signal.SIGUSR1  # as nginx and gunicorn: open the log files anew
READ_SIZE = 64  # bytes; the interpreter writes one per signal
END = b"\0"  # no signal has this number

Tell = Callable[[int], None]


class StopSignals:
    """Calls `tell(signum)` for each of the signals while it is entered; a no-op outside of the main thread.

    In the handler, so on the main thread, always; inside of `watched()` maybe on the watching thread.
    """

    def __init__(self, tell: Tell, signals: Iterable[signal.Signals] = STOP_SIGNALS) -> None:
        self._tell = tell
        self._signals = tuple(signals)
        self._previous: dict[signal.Signals, Any] = {}
        self._lock = threading.RLock()  # a handler may interrupt a handler
        # How often each signal came, by number: to us as a whole, and as each of the two noticed it.
        self._told: Counter[int] = Counter()
        self._handled: Counter[int] = Counter()
        self._watched: Counter[int] = Counter()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.signal(signum, self._handle) for signum in self._signals}
            _entered.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        _entered.discard(self)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signum, handler = self._previous.popitem()
            # None: the handler was not installed from Python and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Let a second thread notice signals too."""
        if not self._previous:
            yield
            return
        self._watched = self._told.copy()
        receiver, sender = socket.socketpair()
        with receiver, sender:
            sender.setblocking(False)
            watcher = threading.Thread(target=self._watch, args=(receiver,), name="duckfast-signals", daemon=True)
            watcher.start()
            previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(previous)
                sender.send(END)
                watcher.join()

    def _watch(self, receiver: socket.socket) -> None:
        while True:
            numbers = receiver.recv(READ_SIZE)
            for number in numbers:
                if number in self._signals:
                    self._notice(self._watched, number)
            if END in numbers or not numbers:
                return

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._notice(self._handled, signum)

    def _notice(self, noticed: Counter[int], signum: int) -> None:
        with self._lock:
            noticed[signum] += 1
            is_new = noticed[signum] > self._told[signum]
            self._told[signum] = max(self._told[signum], noticed[signum])
        # Outside of the lock: telling may need locks that the main thread holds while it waits for this one.
        if is_new:
            self._tell(signum)


@contextlib.contextmanager
def loop_signals(loop: asyncio.AbstractEventLoop, tell: Tell, signals: Iterable[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Calls `tell(signum)` on a running loop for each of the signals. Raises RuntimeError outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals reach the main thread alone; stop the server by its stop() here")
    previous = {signum: signal.getsignal(signum) for signum in signals}
    try:
        for signum in previous:
            loop.add_signal_handler(signum, tell, signum)
        yield
    finally:
        for signum, handler in previous.items():
            loop.remove_signal_handler(signum)
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


_entered: set[StopSignals] = set()


def _forget_in_child() -> None:
    """A forked child is no server: its signals are its own, and must not reach the parent through the shared descriptor."""
    if not _entered:
        return
    signal.set_wakeup_fd(-1)
    for entered in list(_entered):
        entered._restore()
    _entered.clear()


os.register_at_fork(after_in_child=_forget_in_child)
