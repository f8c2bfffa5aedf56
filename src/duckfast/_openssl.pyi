"""The OpenSSL that Python's ssl module has loaded, driven directly."""

def unusable_because() -> str:
    """Why OpenSSL cannot be driven directly here; "" when it can. Looked up and checked once."""
