"""Counts of living objects for the debug build."""

enabled: bool  # this is the debug build

def alive() -> dict[str, int]:
    """The number of living objects by kind; all zero in a release build, which does not count."""
