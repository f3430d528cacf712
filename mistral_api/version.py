"""The version of this package, as setup.py declares it."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("mistral-local-api")
