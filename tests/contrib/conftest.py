"""These tests need the framework in the environment."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("duck") is None:
    collect_ignore = ["test_duck.py"]
