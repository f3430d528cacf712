"""What keeps the server from starting."""

from __future__ import annotations


class StartError(RuntimeError):
    """The server cannot start; the message is one sentence for the operator."""
