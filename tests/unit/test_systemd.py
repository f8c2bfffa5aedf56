"""systemd.py: descriptors that are passed at the start, and what is told at NOTIFY_SOCKET, seen by a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from duckfast.exceptions import ConfigError
from duckfast.systemd import Notifier, give_descriptors, take_descriptors

TIMEOUT = 10  # seconds; a datagram between two sockets of this process is there at once


class Manager:
    """systemd's end of the conversation."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(TIMEOUT)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def is_silent(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", pytest.param("abstract", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only"))])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.chdir(tmp_path)
    # Not below tmp_path, because a socket's whole path has room for 107 bytes only.
    address = f"@duckfast-test-{os.getpid()}" if request.param == "abstract" else f"/tmp/duckfast-test-{os.getpid()}.sock"
    manager = Manager(address)
    yield manager
    manager.close()
    if request.param == "path":
        os.unlink(address)


def test_states_are_told(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "OTHER": "x"}
    notifier = Notifier.take(environment)
    assert environment == {"OTHER": "x"}
    notifier.ready("serving\na:b")
    assert manager.next() == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "serving a:b"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    told = manager.next()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.status("2 workers")
    assert manager.next() == {"STATUS": "2 workers"}
    notifier.stopping()
    assert manager.next() == {"STOPPING": "1"}


def test_watchdog_is_told_at_half_of_its_time(manager: Manager) -> None:
    now = [100.0]
    notifier = Notifier(manager.address, watchdog=10.0, clock=lambda: now[0])
    assert notifier.interval == 5.0
    notifier.maybe_beat()
    assert manager.next() == {"WATCHDOG": "1"}
    now[0] = 104.9
    notifier.maybe_beat()
    assert manager.is_silent()
    now[0] = 105.0
    notifier.maybe_beat()
    assert manager.next() == {"WATCHDOG": "1"}


def test_beat_comes_early_when_the_next_chance_would_be_late(manager: Manager) -> None:
    now = [100.0]
    notifier = Notifier(manager.address, watchdog=10.0, clock=lambda: now[0])
    notifier.maybe_beat(1.0)
    manager.next()
    now[0] = 104.5
    notifier.maybe_beat(1.0)
    assert manager.next() == {"WATCHDOG": "1"}


def test_watchdog_counts_only_when_it_is_ours() -> None:
    ours = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier.take(ours).interval == 1.5
    assert ours == {}
    assert Notifier.take({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}).interval == 1.5
    assert Notifier.take({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).interval is None
    assert Notifier.take({"WATCHDOG_USEC": "3000000"}).interval is None


def test_successor_can_go_on() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    left = Notifier.take(environment).environment()
    assert left == {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}
    assert Notifier.take({}).environment() == {}


def test_without_a_manager_nothing_is_sent_and_one_that_is_gone_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    Notifier().ready()
    notifier = Notifier("/no/such/socket")
    with caplog.at_level("WARNING", "duckfast"):
        notifier.ready()
        notifier.stopping()
    assert len([record for record in caplog.records if "NOTIFY_SOCKET" in record.message]) == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"},
    ],
)
def test_what_cannot_be_meant_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"must be"):
        Notifier.take(environment)


# Descriptors --------------------------------------------------------------------------------------------------------


def test_descriptors_of_another_process_are_not_taken() -> None:
    environment = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    assert take_descriptors(environment) == []
    assert environment == {}
    assert take_descriptors({}) == []


def test_number_of_descriptors_must_be_one() -> None:
    with pytest.raises(ConfigError, match="LISTEN_FDS must be a number of descriptors; got 'two'"):
        take_descriptors({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "two"})
    with pytest.raises(ConfigError, match=r"LISTEN_FDS is 5000, but descriptor \d+ is not open"):
        take_descriptors({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "5000"})


def test_next_image_of_the_process_finds_the_same_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "set_inheritable", lambda fd, value: None)  # 3 and 4 belong to somebody else here
    environment: dict[str, str] = {}
    give_descriptors(environment, [3, 4])
    assert take_descriptors(environment) == [3, 4]
    give_descriptors(environment, [])
    assert environment == {}
    with pytest.raises(ValueError, match="without a gap"):
        give_descriptors(environment, [4])


def test_descriptors_are_private_once_they_are_taken() -> None:
    script = (
        "import os\n"
        "from duckfast.systemd import take_descriptors\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "print(take_descriptors(os.environ), os.get_inheritable(3), [n for n in os.environ if n.startswith('LISTEN')])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        command = f'exec {number}<&{number} 3<&{number}; exec "$0" -c "$1"'
        ended = subprocess.run(
            ["bash", "-c", command, sys.executable, script],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=[number],
            capture_output=True,
            text=True,
            check=True,
        )
    assert re.fullmatch(r"\[3\] False \[\]\n", ended.stdout)
