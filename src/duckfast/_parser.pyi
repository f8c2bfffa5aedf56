"""Request head, framing and chunked decoding. All of it is C but one door for the tests."""

def find_value_end(data: bytes, start: int = 0) -> tuple[int, int]:
    """Where a field value that begins at `start` cannot go on: by this processor's scan, and by the portable one."""
