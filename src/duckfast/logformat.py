"""The language of access log formats: a name or a template to a list of steps. Knows names; refuses to know a request or a file.

A template is text with atoms: `%(method)s`, `%(h)s`, `%({user-agent}i)s`. Long names are ours; the short ones are gunicorn's
and hypercorn's, a few are granian's and uvicorn's. How an atom is written follows from its last letter: `s` as text, escaped so
that it cannot leave its place in the line, `j` as a JSON value, `d` a whole number, `f` or `.3f` a time with decimals.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

NAMED = {
    # The Common Log Format with the duration in seconds behind it.
    "common": '%(client)s - - %(t)s "%(request_line)s" %(status)s %(sent)s %(duration)s',
    # NCSA combined, to the letter: log analysers know it.
    "combined": '%(client)s - - %(t)s "%(request_line)s" %(status)s %(sent)s "%(referer)s" "%(user_agent)s"',
    "json": '{"time":%(time)j,"client":%(client)j,"method":%(method)j,"path":%(path)j,"query":%(query)j,'
    '"protocol":%(protocol)j,"status":%(status)j,"bytes_sent":%(sent)j,"bytes_received":%(received)j,'
    '"duration":%(duration)j,"host":%(host)j,"referer":%(referer)j,"user_agent":%(user_agent)j,'
    '"request_id":%(request_id)j}',
}

MOST_TIMES = 8  # that one format may show
MOST_FIELDS = 32  # header fields that one format may name: each is looked for in every request


class FormatError(ValueError):
    """A format that cannot be used; its text says what is wrong in it."""


@dataclass(frozen=True)
class Step:
    """One piece of a line. `fact` says what is written, a key of FACTS or "literal"."""

    fact: str
    argument: bytes = b""  # the literal itself; the field's name in lower case
    json: bool = False
    unit: int = 0  # nanoseconds in one of what a duration is written in
    digits: int = 0  # decimals of a duration


# What can be written, and with which last letters.
FACTS = {
    "client": "sj",
    "user": "sj",  # of Basic credentials
    "clf_time": "sj",  # [23/Nov/2026:12:08:11 +0100]
    "iso_time": "sj",  # RFC 3339, UTC, milliseconds
    "line": "sj",
    "line_without_query": "sj",
    "method": "sj",
    "path": "sj",
    "query": "sj",
    "protocol": "sj",
    "scheme": "sj",
    "request_field": "sj",
    "response_field": "sj",
    "request_id": "sj",
    "status": "sdj",
    "phrase": "sj",
    "sent": "sdj",
    "sent_or_dash": "sdj",
    "received": "sdj",
    "duration": "sdfj",
    "pid": "sdj",
    "literal": "sj",
}

SECOND, MILLISECOND, MICROSECOND = 10**9, 10**6, 10**3

ATOMS = {
    # Ours.
    "client": Step("client"),
    "user": Step("user"),
    "time": Step("iso_time"),
    "request_line": Step("line"),
    "method": Step("method"),
    "path": Step("path"),
    "query": Step("query"),
    "protocol": Step("protocol"),
    "scheme": Step("scheme"),
    "host": Step("request_field", b"host"),
    "referer": Step("request_field", b"referer"),
    "user_agent": Step("request_field", b"user-agent"),
    "request_id": Step("request_id"),
    "status": Step("status"),
    "phrase": Step("phrase"),
    "sent": Step("sent"),
    "received": Step("received"),
    "duration": Step("duration", unit=SECOND, digits=6),
    "pid": Step("pid"),
    # gunicorn's.
    "h": Step("client"),
    "l": Step("literal", b"-"),
    "u": Step("user"),
    "t": Step("clf_time"),
    "r": Step("line"),
    "m": Step("method"),
    "U": Step("path"),
    "q": Step("query"),
    "H": Step("protocol"),
    "s": Step("status"),
    "b": Step("sent_or_dash"),
    "B": Step("sent"),
    "f": Step("request_field", b"referer"),
    "a": Step("request_field", b"user-agent"),
    "T": Step("duration", unit=SECOND),
    "M": Step("duration", unit=MILLISECOND),
    "D": Step("duration", unit=MICROSECOND),
    "L": Step("duration", unit=SECOND, digits=6),
    "p": Step("pid"),
    # hypercorn's beside them.
    "R": Step("line_without_query"),
    "st": Step("phrase"),
    "S": Step("scheme"),
    # granian's and uvicorn's.
    "addr": Step("client"),
    "query_string": Step("query"),
    "dt_ms": Step("duration", unit=MILLISECOND, digits=3),
    "status_code": Step("status"),
    "status_phrase": Step("phrase"),
}

# Keys of a WSGI environ that come from the request itself; HTTP_* are its fields.
ENVIRON = {
    "REMOTE_ADDR": Step("client"),
    "REQUEST_METHOD": Step("method"),
    "PATH_INFO": Step("path"),
    "QUERY_STRING": Step("query"),
    "SERVER_PROTOCOL": Step("protocol"),
    "CONTENT_TYPE": Step("request_field", b"content-type"),
    "CONTENT_LENGTH": Step("request_field", b"content-length"),
    "wsgi.url_scheme": Step("scheme"),
}

ATOM = re.compile(r"%\((?:\{(?P<field>[^{}]*)\}(?P<where>[ioe])|(?P<name>\w+))\)(?:\.(?P<digits>[0-6]))?(?P<as>[sdfj])", re.ASCII)
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2


def parse(text: str) -> list[Step]:
    """The steps of a format: one of the names, or a template. Raises FormatError that says what is wrong in it."""
    if text in NAMED:
        return parse(NAMED[text])
    if "%(" not in text:
        near = difflib.get_close_matches(text.lower(), NAMED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "it is common, combined, json or a template with atoms such as %(h)s"
        raise FormatError(f"{text!r} is no access log format; {hint}")
    if not text.isprintable():
        raise FormatError(f"an access log format is one line of printable characters; got {text!r}")
    steps = list(_steps(text))
    fields = {(step.fact, step.argument) for step in steps if step.fact.endswith("_field")}
    if len(fields) > MOST_FIELDS:
        raise FormatError(f"an access log format names {len(fields)} header fields; {MOST_FIELDS} are the most")
    if max(sum(step.fact == kind for step in steps) for kind in ("clf_time", "iso_time")) > MOST_TIMES:
        raise FormatError(f"an access log format names the time more than {MOST_TIMES} times")
    return steps


def _steps(text: str) -> Iterator[Step]:
    literal = ""
    place = 0
    while place < len(text):
        if text[place] != "%":
            literal += text[place]
            place += 1
        elif text.startswith("%%", place):
            literal += "%"
            place += 2
        else:
            atom = ATOM.match(text, place)
            if atom is None:
                raise FormatError(
                    f"{text[place : place + 20]!r} is no atom: write %(name)s (or ...)d, .3f, j), "
                    "%({name}i)s for a header field, and %% for a per cent sign"
                )
            if literal:
                yield Step("literal", literal.encode())
                literal = ""
            yield _step(atom)
            place = atom.end()
    if literal:
        yield Step("literal", literal.encode())


def _step(atom: re.Match[str]) -> Step:
    step = _field(atom) if atom["where"] else ATOMS.get(atom["name"])
    if step is None:
        near = difflib.get_close_matches(atom["name"], ATOMS, n=1, cutoff=0.5)
        hint = f"did you mean %({near[0]})s?" if near else "docs/logging.md lists the atoms"
        raise FormatError(f"{atom[0]} is no atom; {hint}")
    letter, digits = atom["as"], step.digits
    if letter not in FACTS[step.fact]:
        raise FormatError(f"{atom[0]} is no number: write %({atom['name'] or atom['field']})s")
    if atom["digits"] is not None and letter != "f":
        raise FormatError(f"{atom[0]}: decimals are for the letter f, as in %(dt_ms).3f")
    if letter == "f":
        digits = int(atom["digits"] or 6)  # as Python's own %f
    elif letter == "d":
        digits = 0
    argument = step.argument
    if letter == "j" and step.fact == "literal":
        argument = b'"%s"' % argument
    elif atom["name"] == "p":
        return Step("pid", b"<>", letter == "j")  # as gunicorn writes it
    return Step(step.fact, argument, letter == "j", step.unit, digits)


def _field(atom: re.Match[str]) -> Step:
    name, where = atom["field"], atom["where"]
    if where == "e":
        if re.fullmatch(r"HTTP_[A-Z0-9_]+", name):
            return Step("request_field", name.removeprefix("HTTP_").replace("_", "-").lower().encode())
        if name not in ENVIRON:
            raise FormatError(
                f"{atom[0]}: of the WSGI environ, what comes from the request can be logged: "
                f"HTTP_*, {', '.join(ENVIRON)}"
            )
        return ENVIRON[name]
    if not FIELD_NAME.fullmatch(name):
        raise FormatError(f"{atom[0]}: {name!r} is not the name of a header field")
    return Step("request_field" if where == "i" else "response_field", name.lower().encode())
