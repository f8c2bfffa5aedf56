"""What may be served: WSGI and ASGI callables, micro apps (objects with a view), and whatever a contrib module has registered.

Knows the interfaces and how to look at an object; refuses to know servers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..asgi import single_callable
from ..exceptions import ImportFailure
from ..importer import detect_interface
from .calls import Receive, Scope, Send, WSGIOnLoop, environ_of_scope, read_body, send_response
from .requests import Processor, Request, to_response


@dataclass(frozen=True)
class Application:
    """An application in one of two interfaces: `call` is a WSGI or an ASGI callable, as `interface` says."""

    interface: str  # "wsgi" or "asgi"
    call: Callable[..., Any]

    @property
    def on_loop(self) -> Callable[..., Any]:
        """It as an ASGI callable."""
        return self.call if self.interface == "asgi" else WSGIOnLoop(self.call)


# (whether an object is of this kind, what makes an Application of it for a server that handles asynchronously or not)
Adapter = tuple[Callable[[object], bool], Callable[[Any, bool], Application]]
adapters: list[Adapter] = []


def is_micro(application: object) -> bool:
    return any(callable(getattr(application, name, None)) for name in ("view", "async_view"))


def adapt(application: Any, asynchronous: bool) -> Application:
    """`asynchronous`: prefer async_view where a micro app has both. Raises TypeError for what cannot be served."""
    for is_one, make in adapters:
        if is_one(application):
            return make(application, asynchronous)
    if is_micro(application) and not callable(application):
        if callable(getattr(application, "async_view", None)) and (asynchronous or not hasattr(application, "view")):
            return Application("asgi", MicroASGI(application))
        return Application("wsgi", MicroWSGI(application))
    if not callable(application):
        hint = "; import duckfast.contrib.duck first" if type(application).__module__.partition(".")[0] == "duck" else ""
        raise TypeError(
            "application must be a WSGI or an ASGI callable, or have a view(request, processor);"
            f" got {type(application).__name__}{hint}"
        )
    try:
        interface, _ = detect_interface(application)
    except ImportFailure as error:
        raise TypeError(str(error)) from None
    if interface == "asgi2":
        return Application("asgi", single_callable(application))
    return Application(interface, application)


class MicroWSGI:
    """A micro app's view as a WSGI app: every request is the view's, without routes and middleware."""

    def __init__(self, microapp: Any) -> None:
        self._microapp = microapp

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        request = Request(environ, environ["wsgi.input"].read())
        returned = self._microapp.view(request, Processor(request))
        if inspect.iscoroutine(returned):
            returned.close()
            raise TypeError(f"{type(self._microapp).__name__}.view is a coroutine function: call it async_view")
        response = to_response(returned)
        start_response(response.status_line, response.headers)
        return [response.content]


class MicroASGI:
    """The same of async_view, on the loop."""

    def __init__(self, microapp: Any) -> None:
        self._microapp = microapp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return  # it has none
        content = await read_body(receive)
        request = Request(environ_of_scope(scope, content), content)
        await send_response(to_response(await self._microapp.async_view(request, Processor(request))), send)
