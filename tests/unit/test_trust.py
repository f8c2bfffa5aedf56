"""_trust: addresses as text, and which of them are trusted."""

from __future__ import annotations

import pytest

from duckfast._trust import Proxies, TrustedPeers, read_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"192.0.2.1", ("192.0.2.1", 0)),
        (b"192.0.2.1:80", ("192.0.2.1", 80)),
        (b"192.0.2.1:65535", ("192.0.2.1", 65535)),
        (b"2001:DB8:0::1", ("2001:db8::1", 0)),
        (b"[2001:db8::1]", ("2001:db8::1", 0)),
        (b"[2001:db8::1]:8080", ("2001:db8::1", 8080)),
        (b"::ffff:192.0.2.1", ("192.0.2.1", 0)),
        (b"[::ffff:192.0.2.1]:5", ("192.0.2.1", 5)),
        (b"::1", ("::1", 0)),
    ],
)
def test_address_is_read_with_and_without_port(text: bytes, found: tuple[str, int]) -> None:
    assert read_address(text) == found


@pytest.mark.parametrize(
    "text",
    [
        b"", b":", b"[", b"]", b"[]", b"[]:80", b"192.0.2", b"192.0.2.256", b"192.0.2.01", b" 192.0.2.1", b"192.0.2.1 ",
        b"192.0.2.1:", b"192.0.2.1:x", b"192.0.2.1:-1", b"192.0.2.1:65536", b"192.0.2.1:000080", b"192.0.2.1\0", b"0x7f.1",
        b"[192.0.2.1]", b"[::1", b"::1]", b"[::1]80", b"[::1]:", b"[::1]:99999", b"[::1%eth0]", b"1::2::3", b"localhost",
        b"a" * 5000, b"1" * 100, b"\xff\xfe",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_address_is_none(text: bytes) -> None:
    assert read_address(text) is None


def test_every_octet_is_written_as_it_is() -> None:
    for octet in range(256):
        text = f"{octet}.{255 - octet}.{octet // 2}.{octet}"
        assert read_address(text.encode()) == (text, 0)


def test_address_and_network_are_trusted_and_others_not() -> None:
    trusted = TrustedPeers(["127.0.0.1", "10.0.0.0/8", "192.168.4.0/22", "2001:db8::/33", "::1"])
    for peer in ("127.0.0.1", "10.0.0.0", "10.255.255.255", "192.168.7.255", "2001:db8:7fff::1", "::1", "::ffff:10.1.2.3"):
        assert peer in trusted
    for peer in ("127.0.0.2", "9.255.255.255", "11.0.0.0", "192.168.8.0", "192.168.3.255", "2001:db8:8000::", "::2", "unix"):
        assert peer not in trusted


def test_nobody_is_trusted_by_an_empty_list() -> None:
    assert "127.0.0.1" not in TrustedPeers([])
    assert "unix" not in TrustedPeers([])


def test_star_trusts_everyone_and_unix_those_on_unix_sockets() -> None:
    everyone = TrustedPeers(["*"])
    assert "203.0.113.9" in everyone and "2001:db8::" in everyone and "unix" in everyone
    assert "unix" in TrustedPeers(["unix"])
    assert "127.0.0.1" not in TrustedPeers(["unix"])


def test_whole_family_is_a_network_of_zero_bits() -> None:
    assert "203.0.113.9" in TrustedPeers(["0.0.0.0/0"])
    assert "::1" not in TrustedPeers(["0.0.0.0/0"])
    assert "2001:db8::" in TrustedPeers(["::/0"])


def test_mapped_network_means_the_ipv4_one() -> None:
    assert "10.1.2.3" in TrustedPeers(["::ffff:10.0.0.0/104"])
    assert "11.1.2.3" not in TrustedPeers(["::ffff:10.0.0.0/104"])


@pytest.mark.parametrize("peer", ["localhost", "", "10.0.0.0/33", "1.2.3", "fe80::1%eth0/64"])
def test_what_is_no_peer_is_refused(peer: str) -> None:
    with pytest.raises(ValueError):
        TrustedPeers([peer])


def test_nothing_is_believed_by_default() -> None:
    proxies = Proxies()
    assert (proxies.fields, proxies.versions) == (0, 0)
    assert "127.0.0.1" not in proxies.senders and "127.0.0.1" not in proxies.relays
