"""The ASGI scope of a request for compiled code; nothing here is for Python."""
