"""Adaptive leadership of the threads that serve one reactor."""

from collections.abc import Callable
from typing import Self

from duckfast._reactor import Reactor

class Crew:
    reactor: Reactor
    limit: int
    threads: int
    failure: BaseException | None

    def __new__(
        cls, reactor: Reactor, limit: int, spawn: Callable[[], None], drained: Callable[[], None]
    ) -> Self: ...
    def keep(self, threads: int) -> None:
        """Have so many threads from now on, which do not go when they have had nothing to do for a minute."""

    def enlist(self) -> None:
        """Count the calling thread in, before its work()."""

    def hire(self) -> None:
        """Start one more thread by `spawn`."""

    def work(self) -> None:
        """Serve on this thread until the crew has stopped."""

    def watch(self) -> None:
        """The life of a thread that never runs the app, for a crew of one."""

    def stop(self, seconds: float) -> None:
        """Begin to drain, for so long at most; from any thread or signal handler."""

    def retire(self, seconds: float) -> None:
        """End accepting, and every connection with its next response, within so long; from any thread or signal handler."""

    def in_flight(self) -> list[tuple[object, object, float]]:
        """(method, path, seconds since it began) of the requests whose app code a thread is in. Whoever calls holds the GIL."""

    def finish(self) -> None:
        """End every thread that is not in the app."""
