"""duckfast: Python web apps (WSGI and ASGI) at nginx's cost per request."""

__version__ = "0.1.0"
