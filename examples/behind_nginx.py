"""A WSGI app on a unix socket behind nginx, whose configuration is behind_nginx.conf. Run both, from this folder:

    duckfast behind_nginx:app --uds behind_nginx.sock --uds-permissions 666
    nginx -p . -c behind_nginx.conf

A peer on a unix socket is trusted by default, so what nginx says of the client and the scheme is believed.
"""

from collections.abc import Callable, Iterable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    host, client, scheme = environ["HTTP_HOST"], environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]
    body = f"Hello {client}, you asked {scheme}://{host} for {environ['PATH_INFO']}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
