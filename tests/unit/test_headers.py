"""Field names: every known one is found in any case, nothing else is, and spellings are made once."""

from __future__ import annotations

import random
import string

import pytest

from duckfast._headers import known_names, lookup

NAMES = known_names()


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_known_name_is_found_in_any_case(name: bytes) -> None:
    chosen = random.Random(name)
    expected = NAMES.index(name) + 1
    for spelling in (name, name.upper(), name.title(), bytes(chosen.choice((b, b ^ 32)) if 97 <= b <= 122 else b for b in name)):
        assert lookup(spelling)[0] == expected


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_name_that_differs_in_one_byte_is_another(name: bytes) -> None:
    for index in range(len(name)):
        for byte in {name[index] ^ bit for bit in (1, 2, 4, 8, 16, 32, 64, 128)} - {name[index]}:
            other = name[:index] + bytes((byte,)) + name[index + 1 :]
            if other.lower() != name:
                assert lookup(other)[0] != NAMES.index(name) + 1
    assert lookup(name + b"x")[0] == 0 or name + b"x" in NAMES
    assert lookup(name[:-1])[0] == 0 or name[:-1] in NAMES


@pytest.mark.parametrize("name", NAMES, ids=bytes.decode)
def test_spellings_are_made_once(name: bytes) -> None:
    _, asgi, wsgi = lookup(name.title())
    assert asgi == name
    assert lookup(name.upper())[1] is asgi
    assert lookup(name)[2] is wsgi
    plain = name.decode().upper().replace("-", "_")
    assert wsgi == (plain if name in (b"content-type", b"content-length") else "HTTP_" + plain)


@pytest.mark.parametrize("name", [b"X", b"X-Odd-One", b"x_under", b"0", b"!#$%&'*+-.^_`|~", b"Content-Lengthy", b"X" * 300])
def test_unknown_name_is_spelt_out(name: bytes) -> None:
    assert lookup(name) == (0, name.lower(), "HTTP_" + name.decode().upper().replace("-", "_"))


def test_random_tokens_never_collide_with_a_known_name() -> None:
    chosen = random.Random(7)
    letters = (string.ascii_letters + string.digits + "-").encode()
    for _ in range(20_000):
        name = bytes(chosen.choices(letters, k=chosen.randint(1, 40)))
        number = lookup(name)[0]
        assert number == (NAMES.index(name.lower()) + 1 if name.lower() in NAMES else 0)


def test_empty_name_is_unknown() -> None:
    assert lookup(b"") == (0, b"", "HTTP_")
