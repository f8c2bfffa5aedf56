"""A raw WSGI application that does what a request's X-Scenario says and notes what it saw under the request's X-Key.

Notes are read back by `X-Scenario: show_notes`, as the repr of a list, so that bytes, str and int stay what they were.
Knows PEP 3333 only: no framework stands between the server and what is noted.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Scenario = Callable[["Exchange"], Iterable[bytes]]

notes: dict[str, list[Any]] = defaultdict(list)
gates: dict[str, threading.Event] = defaultdict(threading.Event)
scenarios: dict[str, Scenario] = {}
inside = 0  # application calls running now
most_inside = 0  # the most there have ever been at once
inside_lock = threading.Lock()

PLAIN_TEXT = [("Content-Type", "text/plain")]
GATE_DEADLINE = 30.0  # seconds; reached only when a test has already failed


class Exchange:
    """One request: environ and start_response, its notes, and the answers nearly every scenario gives."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.environ = environ
        self.start_response = start_response
        self.key = environ.get("HTTP_X_KEY", "")

    def note(self, value: Any) -> None:
        notes[self.key].append(value)

    def argument(self, name: str, default: str = "") -> str:
        value: str = self.environ.get("HTTP_X_" + name.upper(), default)
        return value

    def start(self, status: str = "200 OK", *fields: tuple[str, str]) -> Callable[[bytes], object]:
        return self.start_response(status, [("Content-Type", "text/plain"), *fields])

    def answer(self, value: Any) -> list[bytes]:
        text = repr(value).encode()
        self.start("200 OK", ("Content-Length", str(len(text))))
        return [text]

    def wait_at_gate(self) -> None:
        assert gates[self.key].wait(GATE_DEADLINE), "nobody opened the gate"

    def note_failure_of(self, call: Callable[[], object]) -> bool:
        """Make a call that must be refused; note the exception and whether there was one."""
        try:
            call()
        except Exception as error:
            self.note(("raised", type(error).__name__, [base.__name__ for base in type(error).__mro__]))
            return True
        self.note(("accepted",))
        return False


class Closing:
    """An iterable that notes each close(), and the end of its iteration."""

    def __init__(self, exchange: Exchange, blocks: Iterable[Any]) -> None:
        self._exchange = exchange
        self._blocks = iter(blocks)

    def __iter__(self) -> Closing:
        return self

    def __next__(self) -> Any:
        return next(self._blocks)

    def close(self) -> None:
        self._exchange.note("closed")


class ClosingSingle(Closing):
    """The same, and it says that it has one block."""

    def __len__(self) -> int:
        return 1


def scenario(function: Scenario) -> Scenario:
    scenarios[function.__name__] = function
    return function


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    global inside, most_inside
    with inside_lock:
        inside += 1
        most_inside = max(most_inside, inside)
    try:
        return scenarios[environ.get("HTTP_X_SCENARIO", "show_environ")](Exchange(environ, start_response))
    finally:
        with inside_lock:
            inside -= 1


validated = validator(application)


# What the tests use to look and to let go


@scenario
def show_notes(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer(notes[exchange.key])


@scenario
def open_gate(exchange: Exchange) -> Iterable[bytes]:
    gates[exchange.key].set()
    return exchange.answer("open")


@scenario
def show_most_inside(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer(most_inside)


@scenario
def echo(exchange: Exchange) -> Iterable[bytes]:
    """The body, read by its length if it has one and to its end if the server says that it has one."""
    source = exchange.environ["wsgi.input"]
    if exchange.environ.get("wsgi.input_terminated"):
        body = source.read(-1)
    else:
        body = source.read(int(exchange.environ.get("CONTENT_LENGTH") or 0))
    exchange.start("200 OK", ("Content-Length", str(len(body))))
    return [body]


# Environ


PLAIN = (str, int, bool, tuple, type(None))


@scenario
def show_environ(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer({key: value for key, value in exchange.environ.items() if isinstance(value, PLAIN)})


@scenario
def show_environ_types(exchange: Exchange) -> Iterable[bytes]:
    environ = exchange.environ
    cgi = [value for key, value in environ.items() if not key.startswith("wsgi.")]
    return exchange.answer(
        {
            "environ": type(environ).__name__,
            "keys": sorted({type(key).__name__ for key in environ}),
            "cgi values": sorted({type(value).__name__ for value in cgi}),
            "latin-1": all(ord(character) < 256 for value in cgi if isinstance(value, str) for character in value),
            "input": [hasattr(environ["wsgi.input"], name) for name in ("read", "readline", "readlines", "__iter__")],
            "errors": [hasattr(environ["wsgi.errors"], name) for name in ("flush", "write", "writelines")],
            "file_wrapper": callable(environ["wsgi.file_wrapper"]),
        }
    )


@scenario
def spoil_environ(exchange: Exchange) -> Iterable[bytes]:
    """Empty the dict, as the PEP allows: the response and the next request must not care."""
    seen = "SPOILED" in exchange.environ
    exchange.environ.clear()
    exchange.environ["SPOILED"] = "yes"
    return exchange.answer(seen)


@scenario
def write_errors(exchange: Exchange) -> Iterable[bytes]:
    errors = exchange.environ["wsgi.errors"]
    name = exchange.key
    errors.write(f"written by {name} caf\xe9 \N{DUCK}\n")
    errors.writelines([f"first line of {name}\n", f"second line of {name}\n"])
    print(f"printed by {name}", file=errors)
    errors.flush()
    return exchange.answer("ok")


# Input: X-Plan is a list of calls, their results are the answer


@scenario
def read_plan(exchange: Exchange) -> Iterable[bytes]:
    source = exchange.environ["wsgi.input"]
    calls: dict[str, Callable[[str], Any]] = {
        "read": lambda argument: source.read(int(argument)) if argument else source.read(),
        "readline": lambda argument: source.readline(int(argument)) if argument else source.readline(),
        "readlines": lambda argument: source.readlines(int(argument)) if argument else source.readlines(),
        "next": lambda argument: next(iter(source), "end"),
        "list": lambda argument: list(source),
    }
    results = []
    for step in exchange.argument("plan").split():
        name, _, argument = step.partition(":")
        results.append(calls[name](argument))
    return exchange.answer(results)


@scenario
def read_with_wrappers(exchange: Exchange) -> Iterable[bytes]:
    """What frameworks do: a text reader and shutil on top of the input."""
    import shutil

    target = io.BytesIO()
    shutil.copyfileobj(exchange.environ["wsgi.input"], target)
    return exchange.answer(target.getvalue())


@scenario
def read_broken(exchange: Exchange) -> Iterable[bytes]:
    """Read to the end of a body that will not come; note the error."""
    source = exchange.environ["wsgi.input"]
    exchange.note("reading")
    received = []
    try:
        while block := source.read(int(exchange.argument("size", "3"))):
            received.append(block)
            exchange.note(("block", block))
    except Exception as error:
        exchange.note(("raised", isinstance(error, OSError), type(error).__name__))
        raise
    exchange.note(("complete", b"".join(received)))
    return exchange.answer("complete")


@scenario
def wait_then_read(exchange: Exchange) -> Iterable[bytes]:
    exchange.note("waiting")
    exchange.wait_at_gate()
    return echo(exchange)


@scenario
def ignore_body(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer("not read")


@scenario
def read_some(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer(exchange.environ["wsgi.input"].read(3))


@scenario
def read_after_start(exchange: Exchange) -> Iterable[bytes]:
    """Read the body only while the response is being iterated."""
    exchange.start()
    source = exchange.environ["wsgi.input"]

    def blocks() -> Iterator[bytes]:
        yield b"head "
        while block := source.read(2):
            yield block

    return blocks()


@scenario
def count_received(exchange: Exchange) -> Iterable[bytes]:
    exchange.note("waiting")
    exchange.wait_at_gate()
    size = 0
    while block := exchange.environ["wsgi.input"].read(65536):
        size += len(block)
    return exchange.answer(size)


# start_response


BAD_STARTS: dict[str, tuple[Any, ...]] = {
    "status is an int": (200, []),
    "status is bytes": (b"200 OK", []),
    "status is empty": ("", []),
    "status without digits": ("OK", []),
    "status with two digits": ("20 OK", []),
    "status with four digits": ("2000 OK", []),
    "status below 200": ("100 Continue", []),
    "status with CRLF": ("200 OK\r\nX-Evil: 1", []),
    "status with LF": ("200 OK\nX-Evil: 1", []),
    "status with NUL": ("200 O\0K", []),
    "status beyond latin-1": ("200 \N{DUCK}", []),
    "headers is None": ("200 OK", None),
    "headers is a dict": ("200 OK", {"X-A": "b"}),
    "header is not a pair": ("200 OK", [("X-A",)]),
    "header name is bytes": ("200 OK", [(b"X-A", "b")]),
    "header value is bytes": ("200 OK", [("X-A", b"b")]),
    "header value is an int": ("200 OK", [("X-A", 5)]),
    "header value is None": ("200 OK", [("X-A", None)]),
    "CRLF in a value": ("200 OK", [("X-A", "b\r\nX-Evil: 1")]),
    "LF in a value": ("200 OK", [("X-A", "b\nX-Evil: 1")]),
    "CR in a value": ("200 OK", [("X-A", "b\rX-Evil: 1")]),
    "NUL in a value": ("200 OK", [("X-A", "b\0")]),
    "value beyond latin-1": ("200 OK", [("X-A", "\N{DUCK}")]),
    "CRLF in a name": ("200 OK", [("X-A\r\nX-Evil", "1")]),
    "space in a name": ("200 OK", [("X-Evil x", "1")]),
    "colon in a name": ("200 OK", [("X-Evil:", "1")]),
    "empty name": ("200 OK", [("", "X-Evil")]),
    "name beyond ascii": ("200 OK", [("X-\xc9vil", "1")]),
    "length is no number": ("200 OK", [("Content-Length", "x")]),
    "length is negative": ("200 OK", [("Content-Length", "-1")]),
    "length has a sign": ("200 OK", [("Content-Length", "+2")]),
    "two lengths": ("200 OK", [("Content-Length", "2"), ("Content-Length", "3")]),
    "hop-by-hop Transfer-Encoding": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "hop-by-hop Keep-Alive": ("200 OK", [("Keep-Alive", "timeout=9")]),
    "hop-by-hop Upgrade": ("200 OK", [("Upgrade", "h2c")]),
    "hop-by-hop Proxy-Authenticate": ("200 OK", [("Proxy-Authenticate", "Basic")]),
    "hop-by-hop TE": ("200 OK", [("TE", "trailers")]),
}


@scenario
def bad_start(exchange: Exchange) -> Iterable[bytes]:
    """The refused start_response() named by X-Case, then a proper response."""
    arguments = BAD_STARTS[exchange.argument("case")]
    exchange.note_failure_of(lambda: exchange.start_response(*arguments))
    if notes[exchange.key][-1][0] == "accepted":
        return [b"accepted"]
    return exchange.answer("recovered")


@scenario
def leak_bad_start(exchange: Exchange) -> Iterable[bytes]:
    exchange.start_response(*BAD_STARTS[exchange.argument("case")])
    return [b"never"]


@scenario
def start_twice(exchange: Exchange) -> Iterable[bytes]:
    exchange.start("200 OK", ("X-First", "yes"))
    exchange.note_failure_of(lambda: exchange.start("201 Created", ("X-Second", "yes")))
    return [b"first"]


@scenario
def replace_start(exchange: Exchange) -> Iterable[bytes]:
    """With exc_info before anything was sent: status and all headers are replaced."""
    exchange.start("200 OK", ("X-First", "yes"), ("Content-Length", "3"))
    try:
        raise ValueError("something went wrong")
    except ValueError:
        exchange.start_response("503 Sorry", [*PLAIN_TEXT, ("X-Second", "yes")], sys.exc_info())
    return [b"sorry"]


@scenario
def replace_start_in_iteration(exchange: Exchange) -> Iterable[bytes]:
    exchange.start("200 OK", ("X-First", "yes"))
    yield b""
    try:
        raise ValueError("something went wrong")
    except ValueError:
        exchange.start_response("503 Sorry", [*PLAIN_TEXT, ("X-Second", "yes")], sys.exc_info())
    yield b"sorry"


@scenario
def replace_too_late(exchange: Exchange) -> Iterable[bytes]:
    """With exc_info after the headers left: the original exception comes back."""
    exchange.start()
    yield b"some of it"
    try:
        raise ValueError("secret-too-late")
    except ValueError:
        try:
            exchange.start_response("503 Sorry", [], sys.exc_info())
        except ValueError as error:
            exchange.note(("re-raised", str(error)))
            raise
    exchange.note("accepted")
    yield b"more"


@scenario
def first_start_with_exc_info(exchange: Exchange) -> Iterable[bytes]:
    try:
        raise ValueError("something went wrong")
    except ValueError:
        exchange.start_response("503 Sorry", [*PLAIN_TEXT, ("X-Second", "yes")], sys.exc_info())
    return [b"sorry"]


@scenario
def start_with_keywords(exchange: Exchange) -> Iterable[bytes]:
    """The PEP's arguments are positional; exc_info=None must be accepted as third."""
    exchange.start_response("200 OK", [("Content-Type", "text/plain")], None)
    return [b"ok"]


@scenario
def start_in_generator(exchange: Exchange) -> Iterator[bytes]:
    exchange.start("202 Lazily")
    yield b"one"
    yield b"two"


@scenario
def change_headers_after_start(exchange: Exchange) -> Iterable[bytes]:
    fields = [("Content-Type", "text/plain")]
    exchange.start_response("200 OK", fields)
    fields.append(("X-Late", "yes"))
    return [b"ok"]


@scenario
def never_start(exchange: Exchange) -> Iterable[bytes]:
    return [b"no head"]


@scenario
def never_start_empty(exchange: Exchange) -> Iterable[bytes]:
    return []


@scenario
def use_write(exchange: Exchange) -> Iterable[bytes]:
    write = exchange.start("200 OK")
    write(b"written ")
    write(b"")
    write(b"twice ")
    return [b"and ", b"returned"]


@scenario
def use_write_with_length(exchange: Exchange) -> Iterable[bytes]:
    write = exchange.start("200 OK", ("Content-Length", "7"))
    write(b"written")
    return []


@scenario
def write_str(exchange: Exchange) -> Iterable[bytes]:
    write: Any = exchange.start("200 OK")
    exchange.note_failure_of(lambda: write("text"))
    return [b"ok"]


@scenario
def write_then_wait(exchange: Exchange) -> Iterable[bytes]:
    """write() must have transmitted when it returns."""
    write = exchange.start("200 OK")
    write(b"first")
    exchange.note("written")
    exchange.wait_at_gate()
    return [b"second"]


# Bodies


@scenario
def send_response(exchange: Exchange) -> Iterable[bytes]:
    """As the request says: X-Status, X-Field (Name=value;...), X-Parts (a|b|c), X-As (list, tuple, generator, closing)."""
    fields = [tuple(pair.split("=", 1)) for pair in exchange.argument("field").split(";") if pair]
    parts = exchange.argument("parts").encode("latin-1").split(b"|")
    exchange.start_response(exchange.argument("status", "200 OK"), fields)
    shape = exchange.argument("as", "list")
    if shape == "generator":
        return (part for part in parts)
    if shape == "closing":
        return Closing(exchange, parts)
    return tuple(parts) if shape == "tuple" else parts


@scenario
def send_nothing(exchange: Exchange) -> Iterable[bytes]:
    exchange.start(exchange.argument("status", "200 OK"))
    return []


@scenario
def send_empty_blocks(exchange: Exchange) -> Iterable[bytes]:
    exchange.start()
    return Closing(exchange, [b"", b"", b"one", b"", b"two", b""])


@scenario
def send_bad_block(exchange: Exchange) -> Iterable[Any]:
    blocks = {"str": "text", "int": 5, "None": None, "list": [b"a"]}
    exchange.start()
    first = [b"one"] if exchange.argument("late") else []
    return Closing(exchange, [*first, blocks[exchange.argument("case")]])


@scenario
def return_bad_iterable(exchange: Exchange) -> Any:
    exchange.start()
    return {"None": None, "int": 5, "str": "text"}[exchange.argument("case")]


@scenario
def return_bytes(exchange: Exchange) -> Any:
    """A mistake that servers tolerate or refuse; iterating bytes gives ints."""
    exchange.start()
    return b"text"


@scenario
def send_length_one(exchange: Exchange) -> Iterable[bytes]:
    exchange.start()
    return ClosingSingle(exchange, [b"hello"])


@scenario
def flush_each_block(exchange: Exchange) -> Iterator[bytes]:
    """Each block must be on its way before the next is asked for."""
    exchange.start()
    yield b"first"
    exchange.note("asked for more")
    exchange.wait_at_gate()
    yield b"second"


@scenario
def send_until_blocked(exchange: Exchange) -> Iterator[bytes]:
    block = b"x" * 65536
    exchange.start()
    notes[exchange.key] = [0]
    for _ in range(int(exchange.argument("pieces"))):
        yield block
        notes[exchange.key][0] += 1
    exchange.note("finished")


@scenario
def stream(exchange: Exchange) -> Iterator[bytes]:
    """Many different blocks, so that a lost or swapped one shows."""
    exchange.start()
    for number in range(int(exchange.argument("pieces"))):
        yield b"%08d" % number * 512


@scenario
def stream_until_gone(exchange: Exchange) -> Iterable[bytes]:
    exchange.start()

    def blocks() -> Iterator[bytes]:
        for _ in range(20_000):
            yield b"x" * 65536
        exchange.note("never told")

    return Closing(exchange, blocks())


@scenario
def raise_before_start(exchange: Exchange) -> Iterable[bytes]:
    raise RuntimeError("secret-before-start")


@scenario
def raise_after_start(exchange: Exchange) -> Iterable[bytes]:
    exchange.start("200 OK", ("X-Started", "yes"), ("Content-Length", "5"))
    raise RuntimeError("secret-after-start")


@scenario
def raise_in_first_step(exchange: Exchange) -> Iterable[bytes]:
    exchange.start("200 OK", ("X-Started", "yes"))

    def blocks() -> Iterator[bytes]:
        yield b""
        raise RuntimeError("secret-in-first-step")

    return Closing(exchange, blocks())


@scenario
def raise_in_body(exchange: Exchange) -> Iterable[bytes]:
    exchange.start("200 OK", *([("Content-Length", "1000")] if exchange.argument("length") else []))

    def blocks() -> Iterator[bytes]:
        yield b"some of it"
        raise RuntimeError("secret-in-body")

    return Closing(exchange, blocks())


@scenario
def raise_in_close(exchange: Exchange) -> Iterable[bytes]:
    exchange.start()

    class RaisesInClose(Closing):
        def close(self) -> None:
            super().close()
            raise RuntimeError("secret-in-close")

    return RaisesInClose(exchange, [b"one", b"two"])


@scenario
def exit_in_view(exchange: Exchange) -> Iterable[bytes]:
    raise SystemExit(7)


# Files


@scenario
def send_file(exchange: Exchange) -> Iterable[bytes]:
    """X-File through wsgi.file_wrapper, from X-Offset, with X-Length as Content-Length when given."""
    file = open(exchange.argument("file"), "rb")  # noqa: SIM115 - the server closes it
    file.seek(int(exchange.argument("offset", "0")))
    length = exchange.argument("length")
    exchange.start("200 OK", *([("Content-Length", length)] if length else []))
    return exchange.environ["wsgi.file_wrapper"](NotingFile(exchange, file), 8192)


@scenario
def send_real_file(exchange: Exchange) -> Iterable[bytes]:
    """The same with the plain file object, as applications give it."""
    file = open(exchange.argument("file"), "rb", buffering=int(exchange.argument("buffering", "-1")))  # noqa: SIM115 - the server closes it
    file.seek(int(exchange.argument("offset", "0")))
    if exchange.argument("preread"):
        file.read(int(exchange.argument("preread")))  # the buffered file has read further ahead than this
    length = exchange.argument("length")
    exchange.start("200 OK", *([("Content-Length", length)] if length else []))
    return exchange.environ["wsgi.file_wrapper"](file)


@scenario
def send_file_like(exchange: Exchange) -> Iterable[bytes]:
    """An object with read() and close() only."""

    class FileLike:
        def __init__(self) -> None:
            self._source = io.BytesIO(b"0123456789" * 1000)

        def read(self, size: int = -1) -> bytes:
            return self._source.read(size)

        def close(self) -> None:
            exchange.note("closed")

    exchange.start()
    return exchange.environ["wsgi.file_wrapper"](FileLike(), 100)


@scenario
def send_bytesio(exchange: Exchange) -> Iterable[bytes]:
    """BytesIO has a fileno() that raises."""
    exchange.start()
    return exchange.environ["wsgi.file_wrapper"](io.BytesIO(b"in memory"))


@scenario
def wrap_file_wrapper(exchange: Exchange) -> Iterable[bytes]:
    """Middleware that changes each block: sendfile would send the wrong bytes."""
    file = open(exchange.argument("file"), "rb")  # noqa: SIM115 - the server closes it
    exchange.start()
    wrapper = exchange.environ["wsgi.file_wrapper"](file, 4)
    return (block.upper() for block in wrapper)


@scenario
def file_wrapper_unused(exchange: Exchange) -> Iterable[bytes]:
    """Made and dropped: nothing of it may reach the response."""
    with open(exchange.argument("file"), "rb") as file:
        exchange.environ["wsgi.file_wrapper"](file)
        return exchange.answer("mine")


class NotingFile:
    """A real file that notes its close()."""

    def __init__(self, exchange: Exchange, file: Any) -> None:
        self._exchange = exchange
        self._file = file

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        return data

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number

    def tell(self) -> int:
        position: int = self._file.tell()
        return position

    def seek(self, offset: int, whence: int = 0) -> int:
        position: int = self._file.seek(offset, whence)
        return position

    def close(self) -> None:
        self._file.close()
        self._exchange.note("closed")


# Early hints


@scenario
def early_hints(exchange: Exchange) -> Iterable[bytes]:
    exchange.environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")])
    if exchange.argument("gate"):
        exchange.wait_at_gate()
    return exchange.answer("ok")


@scenario
def evil_early_hints(exchange: Exchange) -> Iterable[bytes]:
    exchange.note_failure_of(lambda: exchange.environ["wsgi.early_hints"]([("Link", "</a>\r\nX-Evil: 1")]))
    return exchange.answer("ok")


# Threads


@scenario
def wait_at_gate(exchange: Exchange) -> Iterable[bytes]:
    exchange.note("waiting")
    exchange.wait_at_gate()
    return exchange.answer("opened")


@scenario
def wait_for_file(exchange: Exchange) -> Iterable[bytes]:
    """A gate that opens without a request: the file appears."""
    exchange.note("waiting")
    while not os.path.exists(exchange.argument("file")):
        threading.Event().wait(0.005)
    return exchange.answer("finished")


@scenario
def meet_others(exchange: Exchange) -> Iterable[bytes]:
    """Answer only when X-Count requests are in here at once."""
    with barriers_lock:
        barrier = barriers.setdefault(exchange.key, threading.Barrier(int(exchange.argument("count"))))
    barrier.wait(GATE_DEADLINE)
    return exchange.answer("met")


@scenario
def leave_traces(exchange: Exchange) -> Iterable[bytes]:
    """Note entry and exit with other threads given every chance to run in between."""
    exchange.note("in")
    for _ in range(100):
        threading.Event().wait(0)
    exchange.note("out")
    return exchange.answer("ok")


@scenario
def thread_name(exchange: Exchange) -> Iterable[bytes]:
    return exchange.answer((threading.get_ident(), threading.current_thread() is threading.main_thread()))


barriers: dict[str, threading.Barrier] = {}
barriers_lock = threading.Lock()
