"""Listening sockets: made from addresses a person writes, or inherited; and taken down without touching another's.

Knows socket options and the file system, refuses to know what is served. bind_all() only binds; listen_all() opens the
doors, so that nobody connects to a server whose application then fails to import.

Sockets outlive workers and servers: another_set() gives each worker slot a socket of its own on the same addresses, and
hand_over() with adopt() carries them across an exec. A socket file is removed by whoever closes its listener last.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .config import Config
from .exceptions import BindError
from .kinds import MAX_PORT
from .log import log

BIND_FORMS = "host:port, [v6]:port, unix:PATH, unix:@NAME or fd://N"
INHERITED = "inherited://"  # then a number: a descriptor that this very process was given (systemd), its own to close
MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103  # bytes; sun_path without its NUL, Linux and the BSDs
PROBE_TIMEOUT = 1.0  # seconds; a live server's kernel answers a local connect at once


@dataclass(frozen=True)
class Address:
    """One place to listen. Exactly one of `host` (with `port`), `path` and `fd` is set."""

    host: str | None = None
    port: int = 0
    path: str | None = None  # with an @ in front: a name in Linux's abstract namespace, without a file
    fd: int | None = None
    owned: bool = False  # the descriptor is taken as it is, in place of a duplicate

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.fd is not None:
            return f"{INHERITED if self.owned else 'fd://'}{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in (self.host or "") else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Options:
    """What sockets are given beside their address."""

    reuse_port: bool = False  # SO_REUSEPORT: several sockets on one address, each with a queue of its own
    ipv6_only: bool = True
    uds_permissions: int | None = None  # of socket files; None: what the umask leaves
    owner: tuple[int, int] | None = None  # user and group that socket files are given to, as numbers


NO_OPTIONS = Options()


@dataclass
class Listener:
    """A bound socket; `identity` is (device, inode) of the socket file this process made, None otherwise."""

    socket: socket.socket
    path: str | None = None
    identity: tuple[int, int] | None = None
    place: Address | None = None  # what it was bound for; a name may have led to several listeners

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self, remove: bool = True) -> None:
        """Close the socket and remove its file, unless somebody else has put theirs in its place.

        `remove=False` leaves the file: to a successor that has adopted the listener, or to the process this one forked from.
        """
        self.socket.close()
        if remove and self.path is not None and _identity(self.path) == self.identity:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            except OSError as error:  # as another user by now; the next start sees that nobody answers there
                log.debug("the socket file %s stays: %s", self.path, error.strerror)


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
    if text.startswith(("fd://", INHERITED)):
        number = text.partition("://")[2]
        if not (number.isascii() and number.isdigit()):
            raise BindError(f"cannot listen on {text!r}: {number!r} is not a descriptor number; give {BIND_FORMS}")
        return Address(fd=int(number), owned=text.startswith(INHERITED))
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise BindError(f"cannot listen on {text!r}: give {BIND_FORMS}")
    if not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise BindError(f"cannot listen on {text!r}: {port!r} is not a port; give a number from 0 to {MAX_PORT}")
    return Address(host=host.strip("[]"), port=int(port))


def options(config: Config, owner: tuple[int, int] | None = None) -> Options:
    """`owner` is whom socket files are given to, when the server will change its user."""
    if config.reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise BindError("--reuse-port needs SO_REUSEPORT, which this system does not have; leave the option out")
    return Options(config.reuse_port, config.ipv6_only, config.uds_permissions, owner)


def bind_all(places: Iterable[Address], options: Options = NO_OPTIONS, have: Iterable[Listener] = ()) -> list[Listener]:
    """Bind every address, or none: what was bound is closed again when a later one fails. Raises BindError.

    A listener of `have` that was bound for one of the places is used as it is, with its options and whoever is in its
    queue; the ones that no place asks for are the caller's to close.
    """
    kept = list(have)
    bound: list[Listener] = []
    result: list[Listener] = []
    try:
        for place in places:
            found = [listener for listener in kept if listener.place == place]
            if not found:
                found = _bind(place, options)
                bound += found
            result += found
    except BaseException:
        close_all(bound)
        raise
    return result


def another_set(listeners: Iterable[Listener], options: Options) -> list[Listener]:
    """The same addresses once more, for another worker slot. Raises BindError.

    With `reuse_port` each TCP address gets one more socket and queue, which a slot's next worker takes over with all who
    wait in it. Socket files and inherited descriptors cannot be bound twice: there, and without it, the listener is shared.
    """
    result: list[Listener] = []
    made: list[Listener] = []
    try:
        for listener in listeners:
            place = listener.place
            if not options.reuse_port or place is None or place.host is None:
                result.append(listener)
                continue
            made.append(Listener(_bind_one(listener.socket.family, listener.socket.getsockname(), place, options), place=place))
            result.append(made[-1])
    except BaseException:
        close_all(made)
        raise
    return result


def _bind(place: Address, options: Options) -> list[Listener]:
    if place.path is not None and place.path.startswith("@"):
        return [_bind_abstract(place)]
    if place.path is not None:
        return [_bind_unix(place, options)]
    if place.fd is not None:
        return [_inherit(place, place.fd)]
    return _bind_tcp(place, options)


def listen_all(listeners: Iterable[Listener], backlog: int) -> None:
    """Let clients in; until somebody accepts they wait in the kernel."""
    for listener in listeners:
        if listener.path is not None and _identity(listener.path) != listener.identity:
            # Until it listens, a socket file looks stale to another server that is starting at the same time.
            raise BindError(f"cannot listen on unix:{listener.path}: another server has just taken it; choose another path")
        try:
            listener.socket.listen(backlog)
        except OSError as error:  # two sockets may share an address until the first of them listens
            raise refused(describe(listener.socket), error) from None


def close_all(listeners: Iterable[Listener], remove: bool = True) -> None:
    for listener in listeners:
        listener.close(remove)


def hand_over(listeners: Iterable[Listener]) -> str:
    """Let the descriptors live through an exec; returns text for the successor's environment, which adopt() reads.

    The successor removes socket files then, so close with `remove=False` once it is ready. take_back() if it failed.
    """
    entries = []
    for listener in listeners:
        listener.socket.set_inheritable(True)
        place = None if listener.place is None else asdict(listener.place)
        entries.append({"fd": listener.fileno(), "path": listener.path, "identity": listener.identity, "place": place})
    return json.dumps(entries)


def take_back(listeners: Iterable[Listener]) -> None:
    """After hand_over(): children that are executed from now on get none of the descriptors."""
    for listener in listeners:
        listener.socket.set_inheritable(False)


def adopt(text: str) -> list[Listener]:
    """The listeners that hand_over() described, in this process. Raises BindError when one is not there."""
    adopted: list[Listener] = []
    try:
        for entry in json.loads(text):
            place = None if entry["place"] is None else Address(**entry["place"])
            identity = None if entry["identity"] is None else (entry["identity"][0], entry["identity"][1])
            sock = _listening_socket(int(entry["fd"]), str(place), duplicate=False)
            adopted.append(Listener(sock, entry["path"], identity, place))
    except (ValueError, KeyError, TypeError):
        close_all(adopted, remove=False)
        raise BindError(f"cannot take over the listeners of the last server: {text!r} does not describe them") from None
    except BaseException:
        close_all(adopted, remove=False)
        raise
    return adopted


def describe(sock: socket.socket, scheme: str = "http") -> str:
    """The address of a listening socket as the start line shows it: `http://127.0.0.1:8000` or `unix:/run/app.sock`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    host, port = name[:2]
    return f"{scheme}://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


def _bind_tcp(place: Address, options: Options) -> list[Listener]:
    listeners: list[Listener] = []
    port = place.port
    found = _resolve(place)
    if not options.ipv6_only and any(address[0] == "::" for _, address in found):
        found = [entry for entry in found if entry[1][0] != "0.0.0.0"]  # `::` listens for both then
    try:
        for family, address in found:
            # With port 0 the first address chooses, so that all addresses of one name share the number.
            sock = _bind_one(family, (address[0], port, *address[2:]), place, options)
            listeners.append(Listener(sock, place=place))
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
    speaks_ipv6 = len(unique) == 1 or _speaks_ipv6()  # the only address is tried even so: then the error tells
    return [(family, address) for family, address in unique if family != socket.AF_INET6 or speaks_ipv6]


def _speaks_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False  # switched off in the kernel, as some containers have it
    return True


def _bind_one(family: int, address: tuple[Any, ...], place: Address, options: Options) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise refused(str(place), error) from None
    try:
        # Without it a restart fails while connections of the last run are in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Said explicitly because the system's default differs.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.ipv6_only)
        # Accepted sockets inherit it on Linux and the BSDs, which saves a system call per connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise refused(str(Address(host=str(address[0]), port=int(address[1]))), error) from None
    return sock


def _bind_abstract(place: Address) -> Listener:
    name = str(place.path).removeprefix("@")
    if sys.platform != "linux":
        raise BindError(f"cannot listen on {place}: only Linux has names without a file; give a path (./@{name} for a file)")
    if not name:
        raise BindError(f"cannot listen on {place}: the name is missing; give unix:@NAME")
    if len(os.fsencode(name)) > MAX_UNIX_PATH:
        raise BindError(f"cannot listen on {place}: the name is longer than {MAX_UNIX_PATH} bytes; give a shorter one")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(b"\0" + os.fsencode(name))
    except OSError as error:
        sock.close()
        raise refused(str(place), error) from None
    return Listener(sock, place=place)


def _bind_unix(place: Address, options: Options) -> Listener:
    path = str(place.path)
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
        raise refused(f"unix:{path}", error) from None
    listener = Listener(sock, os.path.abspath(path), _identity(path), place)
    try:
        # Nobody gets in before: the socket does not listen yet.
        if options.owner is not None:
            os.chown(path, *options.owner)
        if options.uds_permissions is not None:
            os.chmod(path, options.uds_permissions)
    except OSError as error:
        listener.close()
        raise refused(f"unix:{path}", error) from None
    return listener


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


def _inherit(place: Address, fd: int) -> Listener:
    return Listener(_listening_socket(fd, str(place), duplicate=not place.owned), place=place)


def _listening_socket(fd: int, name: str, duplicate: bool) -> socket.socket:
    """Use an inherited listening socket; through a duplicate, so that the descriptor itself stays its owner's to close."""
    try:
        os.fstat(fd)
    except OSError:
        raise BindError(f"cannot listen on {name}: no such descriptor was inherited; pass an open one") from None
    number = os.dup(fd) if duplicate else fd
    try:
        sock = socket.socket(fileno=number)
    except OSError:
        if duplicate:
            os.close(number)
        raise BindError(f"cannot listen on {name}: the descriptor is not a socket; pass a listening one") from None
    problem = _unfit(sock)
    if problem:
        sock.close()
        raise BindError(f"cannot listen on {name}: {problem}; pass a listening stream socket (TCP or unix)")
    sock.set_inheritable(False)
    sock.setblocking(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


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


def refused(place: str, error: OSError) -> BindError:
    advice = {
        errno.EADDRINUSE: "the address is in use; stop the other server or choose another port",
        errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is local, 0.0.0.0 is every interface",
        errno.EACCES: "not allowed; ports below 1024 and the directories of others need rights, choose another",
        errno.EPERM: "not allowed; choose another address",
        errno.ENOENT: "the directory does not exist; create it or choose another path",
        errno.EAFNOSUPPORT: "this machine does not speak this kind of address; choose another",
    }.get(error.errno or 0, f"{error.strerror or error}; choose another address")
    return BindError(f"cannot listen on {place.removeprefix('http://')}: {advice}")
