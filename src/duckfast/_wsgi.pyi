"""One WSGI call: environ, wsgi.input, start_response, the response (PEP 3333)."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from duckfast._client import ClientSocket
from duckfast._leader import Crew
from duckfast._reactor import Service

class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

class FileWrapper:
    """wsgi.file_wrapper: a file that is sent by the kernel where it can be, in blocks elsewhere."""

    filelike: _Readable
    block_size: int
    close: Callable[[], None]

    def __init__(self, filelike: _Readable, block_size: int = 8192) -> None: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...

class WSGIExchange:
    def take(self, status: int = 0, into: ClientSocket | None = None) -> ClientSocket:
        """Take the connection, open, out of the server, for an app that answers on it by itself; from the app's own thread.

        What the app returns is ignored then. status: what the access log is told; 0: there is no line. Raises OSError when the
        response has begun, or the client has left.
        """

class WSGIService(Service):
    app: Callable[..., Any]

    def __init__(
        self,
        app: Callable[..., Any],
        crew: Crew,
        root_path: str,
        root_path_mode: str,
        multithread: bool,
        server_software: str,
        multiprocess: bool = ...,
    ) -> None: ...
