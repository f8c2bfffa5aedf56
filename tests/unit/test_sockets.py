"""sockets.py: addresses, binding, inherited descriptors and socket files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.machine import free_port, needs_ipv6

from duckfast import sockets
from duckfast.config import Config
from duckfast.exceptions import BindError
from duckfast.sockets import (
    Address,
    Listener,
    Options,
    adopt,
    another_set,
    bind_all,
    close_all,
    describe,
    hand_over,
    listen_all,
    parse_bind,
    take_back,
)


@pytest.fixture
def bound() -> Iterator[list[Listener]]:
    """Listeners put here are closed after the test."""
    listeners: list[Listener] = []
    yield listeners
    close_all(listeners)


def refusal(*places: Address) -> str:
    with pytest.raises(BindError) as caught:
        bind_all(places)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address(host="127.0.0.1", port=80)),
        ("localhost:0", Address(host="localhost", port=0)),
        (":80", Address(host="", port=80)),
        ("[::1]:80", Address(host="::1", port=80)),
        ("unix:run/a.sock", Address(path="run/a.sock")),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
        ("unix:///run/a.sock", Address(path="/run/a.sock")),
        ("unix:@a", Address(path="@a")),
        ("fd://3", Address(fd=3)),
        ("inherited://3", Address(fd=3, owned=True)),
    ],
)
def test_bind_forms(text: str, address: Address) -> None:
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", "80", "a:b", "a:70000", "a:-1", "::1:80", "[::1]", "unix:", "fd://", "fd://x", "a:\u0663"]
)
def test_text_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BindError, match=r"give (host:port|a number from 0)"):
        parse_bind(text)


def test_host_and_port_count_only_without_other_addresses() -> None:
    assert sockets.addresses(Config(port=1)) == [Address(host="127.0.0.1", port=1)]
    assert sockets.addresses(Config(host="[::1]", port=1)) == [Address(host="::1", port=1)]
    assert sockets.addresses(Config(port=1, bind=["a:2"], uds="s", fd=3)) == [
        Address(host="a", port=2),
        Address(path="s"),
        Address(fd=3),
    ]


def test_addresses_are_written_as_they_are_typed() -> None:
    for text in ("127.0.0.1:80", "[::1]:80", "unix:/run/a", "unix:@a", "fd://3", "inherited://3"):
        assert str(parse_bind(text)) == text


def test_port_zero_becomes_a_real_port(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0)])
    listen_all(bound, 16)
    port = bound[0].socket.getsockname()[1]
    assert describe(bound[0].socket) == f"http://127.0.0.1:{port}"
    with socket.create_connection(("127.0.0.1", port), 5):
        pass


def test_nobody_is_let_in_before_listening(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0)])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound[0].socket.getsockname(), 5)


def test_tcp_listener_has_the_options_that_accepted_sockets_inherit(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0)])
    listener = bound[0].socket
    assert listener.gettimeout() == 0
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not os.get_inheritable(listener.fileno())


@needs_ipv6
def test_ipv6_listener_is_ipv6_only(bound: list[Listener]) -> None:
    bound += bind_all([parse_bind("[::1]:0")])
    assert bound[0].socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    assert describe(bound[0].socket).startswith("http://[::1]:")


@needs_ipv6
def test_both_wildcards_share_a_port(bound: list[Listener]) -> None:
    bound += bind_all([parse_bind("*:0")])
    ports = {listener.socket.getsockname()[1] for listener in bound}
    assert {listener.socket.family for listener in bound} == {socket.AF_INET, socket.AF_INET6}
    assert len(ports) == 1


@needs_ipv6
def test_dual_stack_listens_for_both_kinds_on_one_socket(bound: list[Listener]) -> None:
    bound += bind_all([parse_bind("[::]:0")], Options(ipv6_only=False))
    listen_all(bound, 16)
    port = bound[0].socket.getsockname()[1]
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, port), 5):
            pass


@needs_ipv6
def test_dual_stack_wildcard_is_one_listener(bound: list[Listener]) -> None:
    bound += bind_all([parse_bind("*:0")], Options(ipv6_only=False))
    assert [listener.socket.family for listener in bound] == [socket.AF_INET6]


@needs_ipv6
def test_ipv6_alone_leaves_ipv4_to_others(bound: list[Listener]) -> None:
    bound += bind_all([parse_bind("[::]:0")])
    listen_all(bound, 16)
    port = bound[0].socket.getsockname()[1]
    bound += bind_all([Address(host="0.0.0.0", port=port)])
    listen_all(bound, 16)


# Several sockets on one address -------------------------------------------------------------------------------------


def test_every_slot_has_a_queue_of_its_own_with_reuse_port(bound: list[Listener]) -> None:
    options = Options(reuse_port=True)
    first = bind_all([Address(host="127.0.0.1", port=0)], options)
    second = another_set(first, options)
    bound += first + second
    listen_all(bound, 64)
    assert first[0].socket.getsockname() == second[0].socket.getsockname()
    clients = [socket.create_connection(first[0].socket.getsockname(), 5) for _ in range(64)]
    accepted = []
    for listener in bound:
        number = 0
        while True:
            try:
                listener.socket.accept()[0].close()
            except BlockingIOError:
                break
            number += 1
        accepted.append(number)
    for client in clients:
        client.close()
    assert sum(accepted) == 64
    if sys.platform == "linux":  # elsewhere one of them may get all
        assert all(accepted)


def test_slots_share_what_cannot_be_bound_twice(path: str, bound: list[Listener]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        places = [Address(path=path), Address(fd=inherited.fileno()), Address(host="127.0.0.1", port=0)]
        bound += bind_all(places)
        assert another_set(bound, Options()) == bound
        assert another_set(bound[:2], Options(reuse_port=True)) == bound[:2]


def test_address_stays_taken_for_others_without_reuse_port(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0)])
    listen_all(bound, 1)
    port = bound[0].socket.getsockname()[1]
    with pytest.raises(BindError, match="in use"):
        bind_all([Address(host="127.0.0.1", port=port)], Options(reuse_port=True))


def test_listeners_are_kept_when_their_place_is_asked_for_again(bound: list[Listener]) -> None:
    first, second, third = (Address(host="127.0.0.1", port=0), Address(host="127.0.0.2", port=0), Address(host="127.0.0.3"))
    bound += bind_all([first, second])
    again = bind_all([second, third], have=bound)
    bound.append(again[1])
    assert again[0] is bound[1]
    assert again[1].place == third


def test_listeners_that_are_kept_stay_open_when_a_new_place_fails(bound: list[Listener]) -> None:
    place = Address(host="127.0.0.1", port=0)
    bound += bind_all([place])
    with pytest.raises(BindError):
        bind_all([place, Address(path="no/such/directory.sock")], have=bound)
    assert bound[0].fileno() >= 0


def test_name_is_bound_on_every_address_it_has(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="localhost", port=0)])
    expected = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    assert {listener.socket.getsockname()[0] for listener in bound} == expected


def test_port_in_use_is_told(bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0)])
    listen_all(bound, 1)
    port = bound[0].socket.getsockname()[1]
    assert refusal(Address(host="127.0.0.1", port=port)).startswith(f"cannot listen on 127.0.0.1:{port}: the address is in use")


def test_port_taken_between_bind_and_listen_is_told(bound: list[Listener]) -> None:
    first = bind_all([Address(host="127.0.0.1", port=0)])
    bound += first
    try:
        second = bind_all([Address(host="127.0.0.1", port=first[0].socket.getsockname()[1])])
    except BindError:
        return  # systems that refuse it at bind already
    bound += second
    listen_all(first, 1)
    with pytest.raises(BindError, match="in use"):
        listen_all(second, 1)


def test_foreign_address_and_unknown_name_are_told() -> None:
    assert "this machine has no such address" in refusal(Address(host="192.0.2.1", port=0))  # RFC 5737: documentation
    assert "has no address" in refusal(Address(host="name.invalid", port=0))  # RFC 6761: never resolves
    assert "has no address" in refusal(Address(host="a" * 300, port=0))


def test_nothing_stays_bound_when_a_later_address_fails(tmp_path: Path) -> None:
    port = free_port()
    refusal(Address(host="127.0.0.1", port=port), Address(path=str(tmp_path / "no" / "such.sock")))
    close_all(bind_all([Address(host="127.0.0.1", port=port)]))


# Socket files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # tmp_path itself may be longer than a socket address can be
    return "a.sock"


def test_socket_file_is_removed_at_the_end(path: str) -> None:
    listeners = bind_all([Address(path=path)])
    listen_all(listeners, 1)
    assert describe(listeners[0].socket) == "unix:a.sock"
    close_all(listeners)
    assert not os.path.exists(path)


def test_socket_file_of_a_dead_server_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listeners = bind_all([Address(path=path)])
    listen_all(listeners, 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    close_all(listeners)


def test_socket_file_of_a_living_server_stays_its_own(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(path)
        living.listen(1)
        assert "another server answers there" in refusal(Address(path=path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_file_that_is_no_socket_is_never_removed(path: str) -> None:
    Path(path).write_text("precious")
    assert "is not a socket" in refusal(Address(path=path))
    assert Path(path).read_text() == "precious"


def test_file_that_another_server_put_in_our_place_stays(path: str) -> None:
    ours = bind_all([Address(path=path)])
    os.rename(path, "ours.sock")  # keeps the inode in use, so that the new file gets another
    theirs = bind_all([Address(path=path)])
    close_all(ours)
    assert os.path.exists(path)
    close_all(theirs)


def test_file_that_was_taken_before_we_listen_is_told(path: str) -> None:
    ours = bind_all([Address(path=path)])
    theirs = bind_all([Address(path=path)])  # it does not listen yet, so it looked stale
    with pytest.raises(BindError, match="has just taken it"):
        listen_all(ours, 1)
    listen_all(theirs, 1)
    close_all(ours + theirs)


def test_impossible_socket_paths_are_told(path: str) -> None:
    assert "longer than" in refusal(Address(path="x" * 200))
    assert "the directory does not exist" in refusal(Address(path="no/such.sock"))
    assert "without a path" in refusal(Address(path=""))


@pytest.mark.parametrize("permissions", [0o600, 0o660, 0o777])
def test_socket_file_has_the_permissions_it_is_given(path: str, permissions: int) -> None:
    listeners = bind_all([Address(path=path)], Options(uds_permissions=permissions))
    assert os.stat(path).st_mode & 0o777 == permissions
    close_all(listeners)


def test_socket_file_has_what_the_umask_leaves_otherwise(path: str) -> None:
    previous = os.umask(0o027)
    try:
        listeners = bind_all([Address(path=path)])
    finally:
        os.umask(previous)
    assert os.stat(path).st_mode & 0o777 == 0o750
    close_all(listeners)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_socket_file_is_given_to_whom_the_server_becomes(path: str) -> None:
    listeners = bind_all([Address(path=path)], Options(owner=(65534, 65533)))
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (65534, 65533)
    close_all(listeners)


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names without a file")


@linux_only
def test_abstract_name_is_served_without_a_file(path: str, bound: list[Listener]) -> None:
    name = f"@duckfast-test-{os.getpid()}"
    bound += bind_all([Address(path=name)])
    listen_all(bound, 1)
    assert describe(bound[0].socket) == f"unix:{name}"
    assert os.listdir() == []
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name[1:])
    assert "in use" in refusal(Address(path=name))


@linux_only
def test_impossible_abstract_names_are_told() -> None:
    assert "the name is missing" in refusal(Address(path="@"))
    assert "longer than" in refusal(Address(path="@" + "x" * 108))


# Carried across an exec ---------------------------------------------------------------------------------------------

SUCCESSOR = """
import os, sys
from duckfast import sockets
listeners = sockets.adopt(os.environ["LISTENERS"])
assert not any(listener.socket.get_inheritable() for listener in listeners)
print(*[sockets.describe(listener.socket) for listener in listeners], *[listener.place for listener in listeners])
sockets.close_all(listeners)
"""


def test_listeners_go_to_a_successor_which_then_removes_the_socket_file(path: str, bound: list[Listener]) -> None:
    bound += bind_all([Address(host="127.0.0.1", port=0), Address(path=path)])
    listen_all(bound, 1)
    text = hand_over(bound)
    numbers = [listener.fileno() for listener in bound]
    assert all(os.get_inheritable(number) for number in numbers)
    ended = subprocess.run(
        [sys.executable, "-c", SUCCESSOR],
        env={**os.environ, "LISTENERS": text},
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    take_back(bound)
    assert not any(os.get_inheritable(number) for number in numbers)
    assert ended.stdout.split() == [describe(bound[0].socket), "unix:a.sock", "127.0.0.1:0", "unix:a.sock"]
    assert not os.path.exists(path)


def test_file_stays_for_the_successor_when_the_last_server_closes(path: str) -> None:
    last = bind_all([Address(path=path)])
    listen_all(last, 1)
    text = hand_over(last).replace(f'"fd": {last[0].fileno()}', f'"fd": {os.dup(last[0].fileno())}')
    successor = adopt(text)
    close_all(last, remove=False)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    close_all(successor)
    assert not os.path.exists(path)


@pytest.mark.parametrize("text", ["", "[3]", '[{"fd": 3}]', "{}x"])
def test_text_that_describes_no_listeners_is_refused(text: str) -> None:
    with pytest.raises(BindError, match="does not describe them"):
        adopt(text)


def test_listener_that_did_not_come_through_is_told() -> None:
    with pytest.raises(BindError, match="no such descriptor was inherited"):
        adopt('[{"fd": 9999, "path": null, "identity": null, "place": null}]')


# Inherited descriptors ----------------------------------------------------------------------------------------------


def test_inherited_listener_is_used_and_stays_its_owners(bound: list[Listener]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        listeners = bind_all([Address(fd=inherited.fileno())])
        listen_all(listeners, 1)
        assert describe(listeners[0].socket) == f"http://127.0.0.1:{inherited.getsockname()[1]}"
        assert listeners[0].socket.gettimeout() == 0
        close_all(listeners)
        with socket.create_connection(inherited.getsockname(), 5):
            pass


def test_descriptor_of_our_own_is_closed_with_its_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = os.dup(inherited.fileno())
        listeners = bind_all([Address(fd=number, owned=True)])
        assert listeners[0].fileno() == number
        close_all(listeners)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


def test_inherited_socket_file_is_not_removed(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as inherited:
        inherited.bind(path)
        inherited.listen(1)
        close_all(bind_all([Address(fd=inherited.fileno())]))
    assert os.path.exists(path)


def test_descriptor_that_cannot_be_served_is_told(tmp_path: Path) -> None:
    with socket.socket() as closed:
        number = closed.fileno()
    assert "no such descriptor" in refusal(Address(fd=number))
    with open(tmp_path / "file", "w") as file:
        assert "not a socket" in refusal(Address(fd=file.fileno()))
    with socket.socket() as idle:
        assert "does not listen" in refusal(Address(fd=idle.fileno()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert "not a stream socket" in refusal(Address(fd=datagrams.fileno()))
