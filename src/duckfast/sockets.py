"""Listening sockets: made from addresses a person writes, or inherited; and taken down without touching another's.

Knows socket options and the file system, refuses to know what is served. bind_all() only binds; listen_all() opens the
doors, so that nobody connects to a server whose application then fails to import.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .config import Config
from .exceptions import BindError
from .kinds import MAX_PORT

BIND_FORMS = "host:port, [v6]:port, unix:PATH or fd://N"
MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103  # bytes; sun_path without its NUL, Linux and the BSDs
PROBE_TIMEOUT = 1.0  # seconds; a live server's kernel answers a local connect at once


@dataclass(frozen=True)
class Address:
    """One place to listen. Exactly one of `host` (with `port`), `path` and `fd` is set."""

    host: str | None = None
    port: int = 0
    path: str | None = None
    fd: int | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.fd is not None:
            return f"fd://{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


@dataclass
class Listener:
    """A bound socket; `identity` is (device, inode) of the socket file this process made, None otherwise."""

    socket: socket.socket
    path: str | None = None
    identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the socket and remove its file, unless somebody else has put theirs in its place."""
        self.socket.close()
        if self.path is not None and _identity(self.path) == self.identity:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


def addresses(config: Config) -> list[Address]:
    """Where a configuration says to listen: `bind`, `uds` and `fd`; `host` and `port` only without any of these."""
    places = [parse_bind(text) for text in config.bind]
    if config.uds is not None:
        places.append(Address(path=config.uds))
    if config.fd is not None:
        places.append(Address(fd=config.fd))
    return places or [Address(host=config.host.strip("[]"), port=config.port)]


def parse_bind(text: str) -> Address:
    """An address as -b takes it. Raises BindError when it has no known form."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path  # unix:///run/app.sock
        if not path:
            raise BindError(f"cannot listen on {text!r}: the path is missing; give {BIND_FORMS}")
        return Address(path=path)
    if text.startswith("fd://"):
        number = text.removeprefix("fd://")
        if not (number.isascii() and number.isdigit()):
            raise BindError(f"cannot listen on {text!r}: {number!r} is not a descriptor number; give {BIND_FORMS}")
        return Address(fd=int(number))
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise BindError(f"cannot listen on {text!r}: give {BIND_FORMS}")
    if not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise BindError(f"cannot listen on {text!r}: {port!r} is not a port; give a number from 0 to {MAX_PORT}")
    return Address(host=host.strip("[]"), port=int(port))


def bind_all(places: Iterable[Address]) -> list[Listener]:
    """Bind every address, or none: what was bound is closed again when a later one fails. Raises BindError."""
    bound: list[Listener] = []
    try:
        for place in places:
            if place.path is not None:
                bound.append(_bind_unix(place.path))
            elif place.fd is not None:
                bound.append(_adopt(place.fd))
            else:
                bound += _bind_tcp(place)
    except BaseException:
        close_all(bound)
        raise
    return bound


def listen_all(listeners: Iterable[Listener], backlog: int) -> None:
    """Let clients in; until somebody accepts they wait in the kernel."""
    for listener in listeners:
        if listener.path is not None and _identity(listener.path) != listener.identity:
            # Until it listens, a socket file looks stale to another server that is starting at the same time.
            raise BindError(f"cannot listen on unix:{listener.path}: another server has just taken it; choose another path")
        try:
            listener.socket.listen(backlog)
        except OSError as error:  # two sockets may share an address until the first of them listens
            raise _refused(describe(listener.socket), error) from None


def close_all(listeners: Iterable[Listener]) -> None:
    for listener in listeners:
        listener.close()


def describe(sock: socket.socket) -> str:
    """The address of a listening socket as the start line shows it: `http://127.0.0.1:8000` or `unix:/run/app.sock`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        return f"unix:{path}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"


def _bind_tcp(place: Address) -> list[Listener]:
    listeners: list[Listener] = []
    port = place.port
    try:
        for family, address in _resolve(place):
            # With port 0 the first address chooses, so that all addresses of one name share the number.
            listeners.append(Listener(_bind_one(family, (address[0], port, *address[2:]), place)))
            port = listeners[0].socket.getsockname()[1]
    except BaseException:
        close_all(listeners)
        raise
    return listeners


def _resolve(place: Address) -> list[tuple[int, tuple[Any, ...]]]:
    """All addresses of a host: a name may have several, the empty host and `*` mean every interface."""
    host = None if place.host in ("", "*", None) else place.host
    try:
        found = socket.getaddrinfo(host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        seen = error.strerror if isinstance(error, OSError) else "not a host name"
        raise BindError(f"cannot listen on {place}: {place.host!r} has no address ({seen}); give an address or name"
                        " of this machine") from None
    unique = dict.fromkeys((family, address) for family, _, _, _, address in found)
    return [(family, address) for family, address in unique if family != socket.AF_INET6 or socket.has_ipv6]


def _bind_one(family: int, address: tuple[Any, ...], place: Address) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refused(str(place), error) from None
    try:
        # Without it a restart fails while connections of the last run are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Said explicitly because the system's default differs: `::` is IPv6, IPv4 has an address of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit it on Linux and the BSDs, which saves a system call per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _refused(str(Address(host=str(address[0]), port=int(address[1]))), error) from None
    return sock


def _bind_unix(path: str) -> Listener:
    if not path:
        raise BindError("cannot listen on a unix socket without a path; give --uds PATH")
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise BindError(f"cannot listen on unix:{path}: the path is longer than {MAX_UNIX_PATH} bytes; give a shorter one")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise _refused(f"unix:{path}", error) from None
    return Listener(sock, os.path.abspath(path), _identity(path))


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that has died; refuse when one answers or the file is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # nothing there, or the bind will tell
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot listen on unix:{path}: the file exists and is not a socket; remove it or choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass  # not allowed, or its queue is full: either way somebody's
    raise BindError(f"cannot listen on unix:{path}: another server answers there; stop it or choose another path")


def _adopt(fd: int) -> Listener:
    """Use an inherited listening socket, through a duplicate: the descriptor itself stays its owner's to close."""
    try:
        os.fstat(fd)
    except OSError:
        raise BindError(f"cannot listen on fd://{fd}: no such descriptor was inherited; pass an open one") from None
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        raise BindError(f"cannot listen on fd://{fd}: the descriptor is not a socket; pass a listening one") from None
    problem = _unfit(sock)
    if problem:
        sock.close()
        raise BindError(f"cannot listen on fd://{fd}: {problem}; pass a listening stream socket (TCP or unix)")
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Listener(sock)


def _unfit(sock: socket.socket) -> str:
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        return "its address family is not served"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
        return "it is not a stream socket"
    # macOS has the constant but does not answer for every family; there a wrong socket fails at accept.
    try:
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return ""
    return "" if listening else "it does not listen"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refused(place: str, error: OSError) -> BindError:
    advice = {
        errno.EADDRINUSE: "the address is in use; stop the other server or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is local, 0.0.0.0 is every interface",
        errno.EACCES: "not allowed; ports below 1024 and the directories of others need rights, choose another",
        errno.EPERM: "not allowed; choose another address",
        errno.ENOENT: "the directory does not exist; create it or choose another path",
        errno.EAFNOSUPPORT: "this machine does not speak this kind of address; choose another",
    }.get(error.errno or 0, f"{error.strerror or error}; choose another address")
    return BindError(f"cannot listen on {place.removeprefix('http://')}: {advice}")
