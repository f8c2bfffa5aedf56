"""The zlib that was found."""

missing: str
"""Why there is none on this machine; empty: there is."""

library: str
"""Its name and version; empty: there is none."""
