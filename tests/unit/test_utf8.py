"""UTF-8 of websocket messages against Python's own: what is refused, what it becomes, at every cut."""

from __future__ import annotations

import random
import sys

import pytest

from duckfast._utf8 import decode, decode_whole, encode

# What a text has beside ASCII; each makes the str another width, or stands at a border of the ranges.
BESIDE = ["", "é", "ÿ", "\u0100\u07ff", "水鳥", "\u0800\ud7ff\ue000", "\uffff", "水🦆", "\U00010000\U0010ffff"]


def make_texts(beside: str) -> list[str]:
    """Short and long ones, with few such characters and with many, at every place of a piece of sixteen."""
    chosen = random.Random(beside)
    texts = [beside, "x" * 700, *("x" * size + beside + "y" * 600 for size in range(500, 534))]
    texts += ["x" * 600 + beside * 3000, "x" * 600 + beside * 3000 + "y" * 600]  # longer than its beginning tells
    for share in (0.005, 0.03, 0.3, 1.0):
        for size in (1, 15, 16, 17, 511, 513, 2000):
            texts.append("".join(chosen.choice(beside or "z") if chosen.random() < share else "a" for _ in range(size)))
    return texts


@pytest.mark.parametrize("beside", BESIDE, ids=ascii)
def test_text_becomes_what_python_makes_of_it_and_back(beside: str) -> None:
    chosen = random.Random(1)
    for text in make_texts(beside):
        data = text.encode()
        assert encode(text) == data
        cuts = sorted(chosen.randrange(len(data) + 1) for _ in range(chosen.randrange(4)))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        for read in (decode(pieces), decode_whole(data)):
            assert read == text and hash(read) == hash(text)
            if len(text) > 1:  # Python has the one-character ones once, with whatever was noted on them
                # A str that is wider than its characters need would break what relies on there being one form of each.
                assert sys.getsizeof(read) == sys.getsizeof(data.decode())


@pytest.mark.parametrize("spoilt", [b"\xff", b"\xc3", b"\x80", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe6\xb0"])
@pytest.mark.parametrize("before", [0, 1, 515, 520, 2000])
@pytest.mark.parametrize("after", [0, 1, 40, 600])
def test_what_is_no_utf8_is_refused_wherever_it_stands(spoilt: bytes, before: int, after: int) -> None:
    data = b"x" * before + spoilt + b"y" * after
    with pytest.raises(UnicodeError):
        decode([data])
    assert decode_whole(data) is None
    assert decode_whole("水".encode() * 300 + data) is None


@pytest.mark.parametrize("half", ["\ud800", "\udfff"], ids=ascii)
def test_half_of_a_surrogate_pair_is_refused_as_python_refuses_it(half: str) -> None:
    for text in ("", "x" * 700, "x" * 700 + "é", "x" * 700 + "🦆", "水" * 700):
        for whole in (text + half, half + text, text + half + "y" * 100):
            with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
                encode(whole)


def test_subclass_of_str_is_encoded_as_any_str() -> None:
    class Name(str):
        __slots__ = ()

    for text in ("duck", "x" * 700 + "é水"):
        assert encode(Name(text)) == text.encode()
