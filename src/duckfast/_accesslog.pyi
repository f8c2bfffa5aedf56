"""Access lines, collected off the request's path and written in batches."""

class AccessLog:
    fd: int

    def __init__(self, fd: int) -> None: ...
    def start(self) -> None:
        """Begin to write; without this, lines are collected until close()."""

    def close(self) -> None:
        """Write what is left and end the writer."""
