"""Reasoning that a client carries for us: ``encrypted_content`` of a reasoning item.

A client that has nothing stored (``store: false``) asks for it with ``include: ["reasoning.encrypted_content"]``, and
sends it back with its next request instead of the text. OpenAI encrypts it to keep it from its customers. Here the
reasoning stands readable beside it, so it is only encoded. What another server has encrypted is read by nobody here.
"""

from __future__ import annotations

import base64
import binascii

_PREFIX = "mla1."


def encode_reasoning(text: str) -> str:
    """Return the reasoning as ``encrypted_content``."""
    return _PREFIX + base64.urlsafe_b64encode(text.encode(errors="replace")).decode()


def decode_reasoning(content: str | None) -> str | None:
    """Return the reasoning that :func:`encode_reasoning` has encoded; None for what another server made."""
    if not content or not content.startswith(_PREFIX):
        return None
    try:
        return base64.urlsafe_b64decode(content.removeprefix(_PREFIX)).decode()
    except (binascii.Error, ValueError):
        return None
