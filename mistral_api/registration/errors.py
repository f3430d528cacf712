"""What keeps the server from being registered."""

from __future__ import annotations


class RegistrationError(RuntimeError):
    """The service cannot be installed, removed or asked; the message is one sentence for the operator."""
