"""_forwarded: what X-Forwarded-* and Forwarded say, and what of it is believed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from duckfast._forwarded import read
from duckfast._trust import Proxies
from duckfast.engine import BELIEVED_FIELDS

NOT_TOLD, TOLD, UNKNOWN = 0, 1, 2
INSIDE = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]
X_FORWARDED = Proxies(BELIEVED_FIELDS["x-forwarded"], INSIDE)
FORWARDED = Proxies(BELIEVED_FIELDS["forwarded"], INSIDE)
HOST = ("Host", "inner.test")


def said(*fields: tuple[str, str], proxies: Proxies = X_FORWARDED) -> dict[str, Any]:
    """What differs from silence."""
    found = read([(name.encode(), value.encode("latin-1")) for name, value in fields], proxies)
    if found is None:
        return {}
    names = ("client_host", "client_port", "scheme", "host", "server_host", "server_port", "prefix")
    silence = {"client_host": "", "client_port": 0}
    told = {name: value for name in names if (value := getattr(found, name)) != silence.get(name)}
    return {**told, "client": "unknown"} if found.client == UNKNOWN else told


def client(*values: str, proxies: Proxies = X_FORWARDED) -> Any:
    told = said(*(("X-Forwarded-For", value) for value in values), proxies=proxies)
    return told.get("client", told.get("client_host"))


def forwarded(*values: str, proxies: Proxies = FORWARDED) -> dict[str, Any]:
    return said(*(("Forwarded", value) for value in values), proxies=proxies)


# X-Forwarded-For


def test_first_address_from_the_right_that_is_not_trusted_is_the_client() -> None:
    assert client("203.0.113.9") == "203.0.113.9"
    assert client("198.51.100.1, 203.0.113.9, 10.0.0.1, 127.0.0.1") == "203.0.113.9"
    assert client("fd00::1, 2001:db8::9 ,\t[fd00::2]:80,10.1.1.1") == "2001:db8::9"


def test_repeated_lines_are_one_list() -> None:
    assert client("198.51.100.1", "203.0.113.9, 10.0.0.1", "10.0.0.2") == "203.0.113.9"
    assert client("198.51.100.1, 203.0.113.9", "10.0.0.1") == "203.0.113.9"


def test_leftmost_is_the_client_when_all_are_trusted() -> None:
    assert client("10.0.0.3, 10.0.0.2", "10.0.0.1") == "10.0.0.3"
    everyone = Proxies(BELIEVED_FIELDS["x-forwarded"], ["*"])
    assert client("198.51.100.1, 203.0.113.9, 10.0.0.1", proxies=everyone) == "198.51.100.1"


def test_what_the_client_wrote_itself_changes_nothing() -> None:
    for forged in ("127.0.0.1", "10.0.0.1", "unknown", "x", '"', '"a', "'", "\\", ",,,", ";;", "\xff", "[::1", "a" * 5000):
        assert client(f"{forged}, 203.0.113.9, 10.0.0.1") == "203.0.113.9"
        assert client(forged, "203.0.113.9") == "203.0.113.9"


def test_empty_items_are_no_items() -> None:
    assert client(", ,203.0.113.9, ,, ", "", " , ") == "203.0.113.9"
    assert client("") is None
    assert client(" , ,") is None


@pytest.mark.parametrize(
    "item", ["unknown", "Unknown", "_hidden", "localhost", "unix:", "1.2.3.4.5", '"203.0.113.9"', "1.2.3.4:x"]
)
def test_client_that_cannot_be_read_is_unknown_and_not_the_proxy(item: str) -> None:
    assert client(item) == "unknown"
    assert client(f"203.0.113.9, {item}, 10.0.0.1") == "unknown"


def test_port_of_the_client_is_kept() -> None:
    assert said(("X-Forwarded-For", "203.0.113.9:4711")) == {"client_host": "203.0.113.9", "client_port": 4711}
    assert said(("X-Forwarded-For", "[2001:db8::9]:4711")) == {"client_host": "2001:db8::9", "client_port": 4711}


def test_address_is_written_the_usual_way() -> None:
    assert client("2001:0DB8:0:0:0:0:0:9") == "2001:db8::9"
    assert client("::ffff:203.0.113.9") == "203.0.113.9"


# Its relatives


@pytest.mark.parametrize(
    ("value", "scheme"), [("https", "https"), ("HTTPS", "https"), ("http", "http"), ("wss", "https"), ("ws", "http")]
)
def test_scheme_is_http_or_https(value: str, scheme: str) -> None:
    assert said(("X-Forwarded-Proto", value)) == {"scheme": scheme}


@pytest.mark.parametrize("value", ["", "ftp", "httpss", "javascript", "https;", "on", "h\xffttp", "https://"])
def test_other_schemes_are_ignored(value: str) -> None:
    assert said(("X-Forwarded-Proto", value)) == {}


def test_list_of_schemes_is_read_at_the_clients_place() -> None:
    addresses = ("X-Forwarded-For", "203.0.113.9, 10.0.0.1")
    assert said(addresses, ("X-Forwarded-Proto", "http, https, http"))["scheme"] == "https"
    lines = [("X-Forwarded-Proto", value) for value in ("http", "https", "http")]
    assert said(addresses, *lines)["scheme"] == "https"


def test_last_of_a_shorter_list_counts() -> None:
    told = said(("X-Forwarded-For", "203.0.113.9, 10.0.0.1, 10.0.0.2"), ("X-Forwarded-Proto", "http, https"))
    assert told["scheme"] == "https"
    assert said(("X-Forwarded-Proto", "https, http")) == {"scheme": "http"}


def test_host_brings_its_port_or_that_of_the_scheme() -> None:
    assert said(("X-Forwarded-Host", "example.org")) == {"host": b"example.org", "server_host": "example.org", "server_port": 80}
    told = said(("X-Forwarded-Host", "example.org"), ("X-Forwarded-Proto", "https"))
    assert (told["host"], told["server_host"], told["server_port"]) == (b"example.org", "example.org", 443)
    told = said(("X-Forwarded-Host", "[2001:db8::1]:8443"), HOST)
    assert (told["host"], told["server_host"], told["server_port"]) == (b"[2001:db8::1]:8443", "2001:db8::1", 8443)


@pytest.mark.parametrize(
    "value", ["a b", "a@b", "a/b", "a:b", "a:99999", "a:80:80", "http://a", "[::1", "", ":80", "a\xff", "a\\b"]
)
def test_host_that_is_none_is_ignored(value: str) -> None:
    assert said(("X-Forwarded-Host", value)) == {}


def test_port_is_added_to_a_host_without_one() -> None:
    assert said(("X-Forwarded-Port", "8443"), HOST) == {"host": b"inner.test:8443", "server_port": 8443}
    told = said(("X-Forwarded-Port", "8443"), ("X-Forwarded-Host", "[::1]"), HOST)
    assert (told["host"], told["server_host"], told["server_port"]) == (b"[::1]:8443", "::1", 8443)


def test_usual_port_of_the_scheme_is_not_added() -> None:
    assert said(("X-Forwarded-Port", "443"), ("X-Forwarded-Proto", "https"), HOST) == {"scheme": "https", "server_port": 443}
    assert said(("X-Forwarded-Port", "80"), HOST) == {"server_port": 80}


def test_port_written_in_the_host_stands() -> None:
    told = said(("X-Forwarded-Host", "a:81"), ("X-Forwarded-Port", "8443"), HOST)
    assert (told["host"], told["server_port"]) == (b"a:81", 81)
    assert said(("X-Forwarded-Port", "8443"), ("Host", "inner.test:82")) == {"server_port": 8443}


@pytest.mark.parametrize("value", ["", "0", "-1", "65536", "80x", "0x50", "8 0", "443, x"])
def test_port_that_is_none_is_ignored(value: str) -> None:
    assert said(("X-Forwarded-Port", value), HOST) == {}


@pytest.mark.parametrize(
    ("value", "prefix"), [("/api", "/api"), ("/api/", "/api"), ("/a/b.c", "/a/b.c"), ("/", ""), ("/...", "/...")]
)
def test_prefix_is_a_plain_path(value: str, prefix: str) -> None:
    assert said(("X-Forwarded-Prefix", value)) == {"prefix": prefix}


@pytest.mark.parametrize(
    "value",
    ["", "api", "//evil.test", "/a//b", "/..", "/a/../b", "/.", "/a/./b", "/a%2f", "/a?b", "/a#b", "/\\evil", "/a b", "/\xe4",
     "/a\tb", "http://a"],
)  # fmt: skip
def test_prefix_that_could_mean_another_place_is_ignored(value: str) -> None:
    assert said(("X-Forwarded-Prefix", value)) == {}


def test_scheme_and_address_alone_are_believed_of_proxies_that_may_pass_on_the_others() -> None:
    """By default: a proxy that is asked to set these two often passes on the rest as the client sent it."""
    proxies = Proxies(BELIEVED_FIELDS["client"], INSIDE)
    fields = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.test"),
              ("X-Forwarded-Port", "1"), ("X-Forwarded-Prefix", "/evil"), ("Forwarded", "for=1.2.3.4;host=a")]  # fmt: skip
    assert said(*fields, proxies=proxies) == {"client_host": "203.0.113.9", "scheme": "https"}


def test_families_are_never_mixed() -> None:
    fields = [
        ("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=198.51.100.1;proto=http"),
    ]  # fmt: skip
    assert said(*fields) == {"client_host": "203.0.113.9", "scheme": "https"}
    assert said(*fields, proxies=FORWARDED) == {"client_host": "198.51.100.1", "scheme": "http"}
    assert said(*fields[:2], proxies=FORWARDED) == {}


def test_names_with_underscores_say_nothing() -> None:
    assert said(("X_Forwarded_For", "203.0.113.9"), ("X-Forwarded_Proto", "https"), ("X_FORWARDED_HOST", "a")) == {}


# Forwarded


def test_element_says_client_scheme_and_host() -> None:
    assert forwarded('for=203.0.113.9;proto=https;by=10.0.0.1;host="example.org:8443"') == {
        "client_host": "203.0.113.9", "scheme": "https", "host": b"example.org:8443", "server_host": "example.org",
        "server_port": 8443,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("for=203.0.113.9", "203.0.113.9", 0),
        ("For=203.0.113.9", "203.0.113.9", 0),
        ('for="203.0.113.9:4711"', "203.0.113.9", 4711),
        ('for="[2001:db8::9]"', "2001:db8::9", 0),
        ('FOR="[2001:db8::9]:4711"', "2001:db8::9", 4711),
        ('for="203.0.113.9:_port"', "203.0.113.9", 0),
        ('for="[2001:db8::9]:_p"', "2001:db8::9", 0),
        ('for="2\\03.0.113.9"', "203.0.113.9", 0),
        ("for=203.0.113.9:4711", "203.0.113.9", 4711),
        ("for=[2001:db8::9]", "2001:db8::9", 0),
        (" ; for=203.0.113.9 ; ; secret=_x;", "203.0.113.9", 0),
    ],
)
def test_node_has_many_spellings(value: str, host: str, port: int) -> None:
    told = forwarded(value)
    assert (told["client_host"], told.get("client_port", 0)) == (host, port)


def test_elements_are_read_from_the_right() -> None:
    assert forwarded("for=198.51.100.1, for=203.0.113.9;proto=https, for=10.0.0.1;proto=http") == {
        "client_host": "203.0.113.9", "scheme": "https",
    }  # fmt: skip
    assert forwarded("for=198.51.100.1", "for=203.0.113.9", 'for="[fd00::1]"') == {"client_host": "203.0.113.9"}


def test_outermost_trusted_proxy_that_says_it_gives_scheme_and_host() -> None:
    assert forwarded("for=1.1.1.1;proto=ftp;host=evil, for=203.0.113.9, for=10.0.0.1;proto=https;host=a") == {
        "client_host": "203.0.113.9", "scheme": "https", "host": b"a", "server_host": "a", "server_port": 443,
    }  # fmt: skip


@pytest.mark.parametrize("node", ["unknown", "Unknown", "_hidden", "_SEVKISEK", '"_gazonk"', '"unknown:4711"', '"_a:_b"'])
def test_hidden_client_is_unknown(node: str) -> None:
    assert forwarded(f"for={node};proto=https") == {"client": "unknown", "scheme": "https"}
    assert forwarded(f"for=203.0.113.9, for={node}, for=10.0.0.1") == {"client": "unknown"}


@pytest.mark.parametrize(
    "element",
    ["for", "for=", "=a", "for==1.2.3.4", 'for="1.2.3.4', 'for=1.2.3.4"', 'for="1.2.3.4"x', "for=1.2.3.4;for=1.2.3.4",
     "for=1.2.3.4 x", "f or=1.2.3.4", "for =1.2.3.4", "for= 1.2.3.4", 'for=""', 'for="\\"', "1.2.3.4", "for=1.2.3.4;proto",
     "\xff=1", "for=\xff",
     'for="' + "a" * 2000 + '"', "for=localhost"],
)  # fmt: skip
def test_element_that_cannot_be_read_leaves_the_client_unknown(element: str) -> None:
    assert forwarded(element).get("client") == "unknown"
    assert forwarded("for=203.0.113.9, " + element).get("client") == "unknown"


def test_no_prefix_of_the_clients_changes_what_proxies_have_added() -> None:
    quotes = ('for="', 'for="\\', '"', '"a,b', 'a"b"c"', "\\", "\\\\\\", 'for="\\"')
    for forged in (*quotes, "for=127.0.0.1", "for=1.2.3.4;", ";", ",", "\xff"):
        assert forwarded(f"{forged}, for=203.0.113.9;proto=https") == {"client_host": "203.0.113.9", "scheme": "https"}
        assert forwarded(forged, "for=203.0.113.9") == {"client_host": "203.0.113.9"}


def test_quoted_comma_and_quote_separate_nothing() -> None:
    assert forwarded('for=203.0.113.9;by="a,b";x="\\",\\\\";y="c,"') == {"client_host": "203.0.113.9"}
    assert forwarded('for=203.0.113.9, for=10.0.0.1;x="a\\", for=198.51.100.1\\\\"') == {"client_host": "203.0.113.9"}


def test_element_without_a_node_ends_what_is_known() -> None:
    assert forwarded("for=203.0.113.9, proto=https") == {"scheme": "https"}
    assert forwarded("for=203.0.113.9, proto=https, for=10.0.0.1") == {"client_host": "10.0.0.1", "scheme": "https"}


def test_bad_scheme_or_host_leaves_the_rest_of_its_element() -> None:
    assert forwarded('for=203.0.113.9;proto=ftp;host="a b"') == {"client_host": "203.0.113.9"}


def test_what_is_not_believed_is_told_at_debug_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "duckfast"):
        client("10.0.0.1\x7f, nonsense")
        client("unknown")  # understood, and so no reason to complain
    complaint = "X-Forwarded-For is not believed, because it cannot be read: b'nonsense'"
    assert [record.message for record in caplog.records] == [complaint]


# Rules of one's own

TLS_FIELDS = [(b"x-forwarded-proto", b"https"), (b"front-end-https", b"on")]


def test_fields_of_ones_own_tell_the_scheme_by_their_whole_value() -> None:
    proxies = Proxies(senders=INSIDE, schemes=TLS_FIELDS)
    assert said(("X-FORWARDED-PROTO", "https"), proxies=proxies) == {"scheme": "https"}
    assert said(("Front-End-Https", "on"), proxies=proxies) == {"scheme": "https"}
    assert said(("Front-End-Https", "off"), proxies=proxies) == {"scheme": "http"}
    assert said(("X-Forwarded-Proto", "https,https"), proxies=proxies) == {"scheme": "http"}
    assert said(("X-Forwarded-Ssl", "on"), ("X-Forwarded-For", "192.0.2.1"), proxies=proxies) == {}


def test_different_schemes_contradict_each_other() -> None:
    proxies = Proxies(senders=INSIDE, schemes=TLS_FIELDS)
    found = read([(b"X-Forwarded-Proto", b"https"), (b"Front-End-Https", b"off")], proxies)
    assert found is not None and found.contradictory
    agreed = read([(b"X-Forwarded-Proto", b"https"), (b"Front-End-Https", b"on")], proxies)
    assert agreed is not None and not agreed.contradictory


def test_script_name_is_a_prefix_only_where_it_is_admitted() -> None:
    admitted = Proxies(senders=INSIDE, admitted=[b"script_name"])
    assert said(("SCRIPT_NAME", "/shop/"), proxies=admitted) == {"prefix": "/shop"}
    assert said(("Script-Name", "/shop"), proxies=admitted) == {}
    assert said(("SCRIPT_NAME", "//elsewhere"), proxies=admitted) == {}
    assert said(("SCRIPT_NAME", "/shop"), proxies=Proxies(senders=INSIDE, admitted=[b"remote_user"])) == {}
    assert said(("SCRIPT_NAME", "/shop"), proxies=Proxies(senders=INSIDE, admitted=[b"*"])) == {"prefix": "/shop"}
