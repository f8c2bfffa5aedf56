"""The corpus: Markdown cases of bytes and the events they must give, and ways of replaying them.

tests/corpus/README.md describes the language. Knows files and bytes; the one thing it knows of duckfast is Probe.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duckfast._http1 import HTTP1Connection, Probe
from duckfast._limits import Limits
from duckfast._writer import DefaultFields

CORPUS = Path(__file__).resolve().parent.parent / "corpus" / "http1"

NAMED_BYTES = {"CR": b"\r", "LF": b"\n", "NUL": b"\0", "HTAB": b"\t", "SP": b" ", "DEL": b"\x7f"}
BRACES = {"x7B": "\ue000", "x7D": "\ue001"}  # stand-ins until every escape is replaced
ESCAPE = re.compile(r"\{([^{}]*)\}")
CASE = re.compile(
    r"^## (?P<title>.+?) {2,}(?P<source>.+?)\n(?P<blocks>(?:(?!^## ).*\n?)*)", re.MULTILINE
)
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# What a line of an events block may begin with, besides the optional notes about a request.
FLOW = ("request", "body", "end", "keep-alive", "close", "error", "wait", "closed")
NOTES = (
    "field", "path", "query", "authority", "version", "length", "chunked", "continue", "upgrade", "te-trailers",
    "dropped", "https",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One case. `raw` is everything the client sends; `eof` whether it then ends its half of the connection."""

    topic: str
    title: str
    source: str
    raw: bytes
    eof: bool
    events: tuple[str, ...]
    llhttp_refuses: bool
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.topic}: {self.title}"

    @property
    def flow(self) -> list[str]:
        """The events without the optional notes."""
        return [line for line in self.events if line.split()[0] in FLOW]

    @property
    def statuses(self) -> list[int]:
        """What a server whose app answers 200 puts on the wire, in order: 200 for a whole request, or the refusal."""
        return [
            int(line.split()[1]) if line.startswith("error") else 200
            for line in self.flow
            if line == "end" or line.startswith("error")
        ]

    @property
    def requests(self) -> list[tuple[str, str, bytes]]:
        """(method, target, body) of every request that arrives whole."""
        whole = []
        method = target = ""
        body = b""
        for line in self.flow:
            word, _, rest = line.partition(" ")
            if word == "request":
                method, _, target = rest.partition(" ")
                body = b""
            elif word == "body":
                body = expand(rest[1:-1])
            elif word == "end":
                whole.append((method, target, body))
        return whole


def expand(text: str) -> bytes:
    """The bytes of one line: latin-1 text with {CR}, {x7F} and {repeat:3:abc} replaced."""

    def replace(found: re.Match[str]) -> str:
        word = found[1]
        if word in NAMED_BYTES:
            return NAMED_BYTES[word].decode("latin-1")
        if re.fullmatch(r"x[0-9A-F]{2}", word):
            return BRACES.get(word, chr(int(word[1:], 16)))
        repeat = re.fullmatch(r"repeat:(\d+):(.+)", word, re.DOTALL)
        if repeat is None:
            raise ValueError(f"unknown escape {{{word}}}")
        return repeat[2] * int(repeat[1])

    while ESCAPE.search(text):  # the inner one of {repeat:3:{HTAB}} first
        text = ESCAPE.sub(replace, text)
    for word, stand_in in BRACES.items():
        text = text.replace(stand_in, chr(int(word[1:], 16)))
    return text.encode("latin-1")


def show(data: bytes) -> str:
    """Bytes as the corpus writes them."""
    names = {value[0]: name for name, value in NAMED_BYTES.items() if name != "SP"}
    text = "".join(
        f"{{{names[byte]}}}" if byte in names else chr(byte) if 32 <= byte < 127 and byte not in b"{}" else f"{{x{byte:02X}}}"
        for byte in data
    )
    return re.sub(r"(.)\1{40,}", lambda run: f"{{repeat:{len(run[0])}:{run[1]}}}", text)


def read_bytes(block: str) -> tuple[bytes, bool]:
    """What an http block sends, and whether the client then ends its half."""
    lines = block.split("\n")[:-1]
    eof = bool(lines) and lines[-1] == "{eof}"
    if eof:
        lines.pop()
    if "" not in lines and not (lines and lines[-1].endswith("{-}")):
        lines.append("")  # one head: the empty line that ends it is understood
    return b"".join(
        expand(line.removesuffix("{-}")) + (b"" if line.endswith("{-}") else b"\r\n") for line in lines
    ), eof


def read_cases(path: Path) -> Iterator[Case]:
    for found in CASE.finditer(path.read_text("utf-8")):
        blocks = {block["kind"]: block["text"] for block in BLOCK.finditer(found["blocks"])}
        lines = [line for line in blocks["events"].splitlines() if line]
        unknown = [line for line in lines if line.split()[0] not in (*FLOW, *NOTES, "llhttp")]
        if unknown:
            raise ValueError(f"{path.name}: {found['title']}: {unknown}")
        raw, eof = read_bytes(blocks["http"])
        yield Case(
            topic=path.stem,
            title=found["title"],
            source=found["source"],
            raw=raw,
            eof=eof,
            events=tuple(line for line in lines if not line.startswith("llhttp")),
            llhttp_refuses="llhttp refuses" in lines,
            limits={name: int(number) for name, number in map(str.split, blocks.get("limits", "").splitlines())},
        )


def load_cases() -> list[Case]:
    """Every case of the corpus, in the order of the files."""
    return [case for path in sorted(CORPUS.glob("*.md")) for case in read_cases(path)]


# Replay on the bare core ------------------------------------------------------------------------------------------


def whole(raw: bytes) -> list[bytes]:
    return [raw] if raw else []


def byte_by_byte(raw: bytes) -> list[bytes]:
    return [raw[index : index + 1] for index in range(len(raw))]


def random_splits(raw: bytes, seed: int) -> list[bytes]:
    """Pieces of sizes that a seeded generator chooses: mostly a few bytes, sometimes many."""
    chosen = random.Random(seed)
    pieces = []
    while raw:
        size = chosen.choice((1, 2, 3, 5, 8, 40, 300))
        pieces.append(raw[:size])
        raw = raw[size:]
    return pieces


def probe(connection: type[HTTP1Connection] = HTTP1Connection, /, **limits: int | None) -> Probe:
    return Probe(connection(Limits(**limits), DefaultFields()))  # type: ignore[arg-type]


def replay(door: Probe, pieces: Sequence[bytes], eof: bool = False) -> list[str]:
    """The events that a connection gives for these pieces, as lines of the corpus, every note of a request included.

    It reads on as a server does: the next head after a request that keeps the connection, nothing after another.
    """
    lines: list[str] = []
    waiting = list(pieces)
    body = b""
    while True:
        event, *values = door.poll()
        if event == "data":
            body += values[0]
            continue
        if event == "need_data":
            if waiting:
                door.feed(waiting.pop(0))
                continue
            if eof:
                eof = False
                door.feed_eof()
                continue
        if body:
            lines.append(f'body "{show(body)}"')
            body = b""
        if event == "request":
            lines += request_lines(values[0])
            continue
        if event == "end":
            keeps = door.connection.request_keep_alive
            lines += ["end", "keep-alive" if keeps else "close"]
            if not keeps:
                return lines
            continue
        if event == "paused":
            door.next_request()
            continue
        if event == "failed":
            lines.append(f'error {values[0]} "{values[1]}"')
        elif event == "closed":
            lines.append("closed")
        elif not door.between_requests:
            lines.append("wait")
        return lines


def request_lines(head: dict[str, Any]) -> list[str]:
    """A request and all its notes."""
    lines = [f"request {show(head['method'])} {show(head['target'])}"]
    lines += [f"field {show(name)}: {show(value)}" for name, value in head["fields"]]
    lines += [f"path {show(head['path'])}", f"query {show(head['query'])}", f"version 1.{head['minor']}"]
    if head["authority"] is not None:
        lines.append(f"authority {show(head['authority'])}")
    if head["content_length"] >= 0:
        lines.append(f"length {head['content_length']}")
    flags = {
        "chunked": "chunked", "expect_continue": "continue", "upgrade_websocket": "upgrade",
        "te_trailers": "te-trailers", "https": "https",
    }  # fmt: skip
    lines += [word for key, word in flags.items() if head[key]]
    lines.append(f"dropped {head['dropped']}")
    return lines


def keep_stated(seen: list[str], expected: Sequence[str]) -> list[str]:
    """Of the events seen, the flow and those notes that the case has a word about in the same request.

    Field lines are all or nothing: a case that states one field states them all. `no-...` notes do not exist: what must
    not be there (chunked, upgrade) is stated by what is there instead (length, end).
    """
    kept = []
    stated = [{line.split()[0] for line in part} for part in by_request(expected)]
    for index, part in enumerate(by_request(seen)):
        words = stated[index] if index < len(stated) else set()
        kept += [line for line in part if line.split()[0] in FLOW or line.split()[0] in words]
    return kept


def by_request(lines: Sequence[str]) -> list[list[str]]:
    """The lines in front of the first request, then those of each request."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("request "):
            parts.append([])
        parts[-1].append(line)
    return parts


def in_one_order(lines: Sequence[str]) -> list[str]:
    """Notes sorted within each request, so that a case may write them in any order; fields keep theirs."""
    ordered = []
    for part in by_request(lines):
        notes = sorted(line for line in part if line.split()[0] in NOTES and not line.startswith("field "))
        fields = [line for line in part if line.startswith("field ")]
        flow = [line for line in part if line.split()[0] in FLOW]
        ordered += flow[:1] + fields + notes + flow[1:]
    return ordered
