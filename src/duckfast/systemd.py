"""What systemd and a service tell each other: sockets at the start (LISTEN_FDS), state while it runs (sd_notify).

Knows the names of sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3); refuses to know what is served. What is read
from the environment is taken out of it, so that no child believes that it is meant.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from .exceptions import ConfigError
from .log import log

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
SEND_TIMEOUT = 1.0  # seconds; systemd reads at once, and a server must not hang because it does not
MICROSECONDS = 1_000_000


def take_descriptors(environment: MutableMapping[str, str]) -> list[int]:
    """The numbers of the descriptors that systemd passed to this very process, made private to it; [] without any.

    Raises ConfigError when LISTEN_FDS cannot be read, or promises descriptors that are not there.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if not pid or not count or pid != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()):
        raise ConfigError(f"LISTEN_FDS must be a number of descriptors; got {count!r}")
    numbers = list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)))
    for number in numbers:
        try:
            os.set_inheritable(number, False)
        except OSError:
            raise ConfigError(f"LISTEN_FDS is {count}, but descriptor {number} is not open") from None
    return numbers


def give_descriptors(environment: MutableMapping[str, str], numbers: list[int]) -> None:
    """Before this process executes another image of itself: let that one find what take_descriptors() found in this one.

    The descriptors that this one has taken must be the first ones, in order; whether they are inherited is the caller's to say.
    """
    if numbers != list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + len(numbers))):
        raise ValueError(f"systemd passes descriptors from {FIRST_DESCRIPTOR} up without a gap; got {numbers}")
    if numbers:
        environment["LISTEN_PID"], environment["LISTEN_FDS"] = str(os.getpid()), str(len(numbers))


class Notifier:
    """Tells systemd how the service is: `Notifier.take(os.environ).ready()`. Without a NOTIFY_SOCKET every call does nothing.

    `interval` is how often beat() has to come, in seconds: half of what WatchdogSec= allows; None: nobody watches.
    """

    def __init__(
        self, address: str = "", watchdog: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = None if watchdog is None or not address else watchdog / 2
        self._address = address
        self._watchdog = watchdog
        self._clock = clock
        self._next_beat = clock()
        self._complained = False

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Notifier:
        """What the environment says, which is removed from it. Raises ConfigError when it cannot be read."""
        address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if address and address[0] not in "/@":
            raise ConfigError(f"NOTIFY_SOCKET must be a path or an @name of a unix socket; got {address!r}")
        if not usec or (pid and pid != str(os.getpid())):
            return cls(address)
        if not (usec.isascii() and usec.isdigit() and int(usec) > 0):
            raise ConfigError(f"WATCHDOG_USEC must be a number of microseconds; got {usec!r}")
        return cls(address, int(usec) / MICROSECONDS)

    def environment(self) -> dict[str, str]:
        """What a successor, executed in this process's place or as its child, has to find to go on notifying."""
        if not self._address:
            return {}
        names = {"NOTIFY_SOCKET": self._address}
        if self._watchdog is not None:
            names["WATCHDOG_USEC"] = str(round(self._watchdog * MICROSECONDS))  # no WATCHDOG_PID: whoever gets it is meant
        return names

    def ready(self, status: str = "") -> None:
        """Started, or the reload is done. Names this process as the main one, which is how a successor takes over."""
        self._send("READY=1", f"MAINPID={os.getpid()}", *_status(status))

    def reloading(self, status: str = "") -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status))

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *_status(status))

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(status))

    def beat(self) -> None:
        """All is well: systemd's watchdog starts to count anew."""
        self._send("WATCHDOG=1")

    def maybe_beat(self, period: float = 0.0) -> None:
        """beat() when it is time for it, or will be before this is called again in `period` seconds."""
        if self.interval is None or self._clock() + period < self._next_beat:
            return
        self._next_beat = self._clock() + self.interval
        self.beat()

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_TIMEOUT)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._complained:  # the watchdog would repeat it for ever
                log.warning("cannot tell systemd %s at NOTIFY_SOCKET %s: %s", lines[0], self._address, error)
            self._complained = True


def _status(text: str) -> list[str]:
    # A line break would begin an assignment of its own.
    return [f"STATUS={' '.join(text.split())}"] if text else []
