"""Why a transfer cannot be made."""

from __future__ import annotations


class TransferRefused(Exception):
    """A transfer cannot begin as things are. Nothing was changed; the message is one sentence for the operator."""


class TransferFailed(Exception):
    """A transfer was begun and could not be finished. Nothing was changed; the message is one sentence."""
