"""One input, all readers: they agree, or their difference is in the list."""

from __future__ import annotations

import zlib

from oracle.differences import check_same, difference, is_known
from oracle.readers import OTHERS, read_by_ours
from support.corpus import random_splits

READERS = {"ours": read_by_ours, **OTHERS}


def check(raw: bytes) -> None:
    """All readers, from whole bytes; ours, with either parser, also from pieces, which must make no difference."""
    pieces = random_splits(raw, zlib.crc32(raw))
    readings = {name: read([raw]) for name, read in READERS.items()}
    assert read_by_ours(pieces) == readings["ours"], f"pieces change what ours reads in {raw!r}"
    # There either parser may be the first to refuse, so the sentence may be another one.
    seen, expected = READERS["ours with llhttp"](pieces), readings["ours with llhttp"]
    assert (seen.requests, seen.ending) == (expected.requests, expected.ending), f"pieces change what llhttp reads in {raw!r}"
    ours = readings.pop("ours")
    for name, theirs in readings.items():
        check_same(ours, name, theirs)
        statements = difference(ours, name, theirs)
        if statements is not None and not is_known(*statements):
            raise AssertionError(f"not in differences.md: {statements[0]}; {statements[1]}; for {raw!r}")
