"""One plain socket's reads and writes for compiled code; nothing here is for Python."""
