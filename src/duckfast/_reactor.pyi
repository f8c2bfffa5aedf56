"""Accept, ready events and deadlines for the connections of one engine."""

import socket
from collections.abc import Callable
from typing import Self

from duckfast._accesslog import AccessLog
from duckfast._client import ClientSocket
from duckfast._http1 import HTTP1Connection
from duckfast._limits import Counters, Limits
from duckfast._tls import TLSEndpoint
from duckfast._trust import Proxies
from duckfast._writer import DefaultFields

class Service:
    """What makes the exchanges: one per engine."""

class Desk:
    """The scratch memory of one thread."""

    def __new__(cls, limits: Limits) -> Self: ...

class Reactor:
    limits: Limits
    counters: Counters
    retiring: bool
    stopping: bool
    open_connections: int
    handshakes: int
    connections_outside: int
    deadline_moved: bool

    def __init__(
        self,
        service: Service | None,
        limits: Limits,
        counters: Counters,
        defaults: DefaultFields,
        log: AccessLog | None = None,
        connection_class: type[HTTP1Connection] | None = None,
        proxies: Proxies | None = None,
    ) -> None: ...
    def add_listener(
        self, socket: socket.socket, scheme: str = "http", tls: TLSEndpoint | None = None, accepts: bool = True
    ) -> None:
        """Accept from this listening, non-blocking socket once start() is called. The socket stays the caller's.

        accepts: False for a socket whose connections somebody else accepts, and gives to us.
        """

    def divert(
        self,
        connected: Callable[[ClientSocket], None] | None = None,
        idle: Callable[[ClientSocket], None] | None = None,
        timed_out: Callable[[ClientSocket], None] | None = None,
    ) -> None:
        """Have connections leave, open, with a call on the thread that handles events: new ones, those that wait for their next
        request, those whose request head did not come in time. None of the calls may block; give() brings a connection back.
        """

    def give(self, connection: ClientSocket | socket.socket, idle: bool = False) -> bool:
        """Serve a connection that comes from elsewhere, from any thread: a ClientSocket as it is, or a socket.socket that has
        just been accepted. It is empty afterwards. False, and the connection is closed: the reactor is over.
        """

    def use_tls(self, tls: TLSEndpoint) -> None:
        """Make connections from now on with this. The caller keeps the previous one until nobody can be about to use it."""

    def serve(self, service: Service) -> None:
        """Set the service, for one that needs the reactor to be made."""

    def start(self) -> None:
        """Begin to accept."""

    def fileno(self) -> int:
        """A descriptor that is readable while tick() has something to do."""

    def tick(self, desk: Desk) -> None:
        """Handle what is ready now and what is past its deadline, without waiting."""

    def seconds_to_deadline(self) -> float | None:
        """Time to the next deadline; deadline_moved tells that it must be asked for again."""

    def drain(self, desk: Desk) -> None:
        """Stop accepting, end idle connections, tell the others that their present response is the last."""

    def retire(self) -> None:
        """Stop accepting for good; every connection ends with the last of the answers it asks for."""

    def announce_end(self) -> None:
        """Responses say Connection: close from now on, ahead of retire(). From any thread or signal handler."""

    def empty_line(self) -> None:
        """Answer 503 to all that wait for a place in the app."""

    def part(self, desk: Desk) -> float:
        """Reset what is still in progress and end idle connections; the seconds that those may take to be gone."""

    def time_upgraded(self, look: float, reply: float, farewell: float) -> None:
        """How many seconds the deadlines of connections that speak another protocol are; 0: there is none. Before start()."""

    def set_heartbeat(self, heartbeat: Callable[[], None], seconds: float) -> None:
        """Have it called about every so many seconds, from a thread that makes progress."""

    def limit_concurrency(self, number: int, queue: int, seconds: float, one_by_one: bool) -> None:
        """Call the app for so many requests at once, and let so many more wait in line, for so long.

        one_by_one: a single thread does everything, so it looks who has come before each call.
        """

    def complain_of_load(self) -> None: ...
    def end_overdue(self) -> None:
        """Answer for apps that take too long: for when every thread that could is stuck in one of them."""

    def tell_stuck(self, on_stuck: Callable[[], None]) -> None:
        """Have on_stuck called when a thread stays behind in an app that took too long."""

    def mark_requests(self, number: int, on_mark: Callable[[], None]) -> None:
        """Have on_mark called when so many requests have begun since the start."""

    def abort(self) -> None:
        """Reset every connection that is left."""

    def wake(self) -> None:
        """Make fileno() readable, from any thread or signal handler."""
