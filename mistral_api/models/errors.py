"""What keeps a model from being fetched."""

from __future__ import annotations


class PullError(RuntimeError):
    """The model cannot be had; the message is one sentence for the operator. It never holds a token."""


class UnknownModel(PullError):
    """The name is neither that of a known model nor a file on the hub."""


class NoSuchFile(PullError):
    """The hub has the repository, but not this file in it."""


class DamagedFile(PullError):
    """What was received is not what the hub announced; it has been removed."""
