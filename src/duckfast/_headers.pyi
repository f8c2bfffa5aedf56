"""Field names made once: ids, and interned ASGI and WSGI spellings."""

def lookup(name: bytes) -> tuple[int, bytes, str]:
    """The id of a field name (0 when it is none of the known ones) and its ASGI and WSGI spellings."""

def known_names() -> tuple[bytes, ...]:
    """The names that have interned spellings, in the order of their ids, the first one being id 1."""
