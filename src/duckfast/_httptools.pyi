"""The same connection, read by llhttp."""

from duckfast._http1 import HTTP1Connection

class HttptoolsConnection(HTTP1Connection):
    """Arguments and meanings are those of HTTP1Connection."""
