"""The messages of a chat as the model server gets them: fitted to the roles that the loaded template takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.generation.roles import may_be_refused, normalised
from mistral_api.inference.cancellation import Call
from mistral_api.inference.loaded_model import LoadedModels

Message = dict[str, Any]


class Prompts:
    """Fits lists of messages to the model that is loaded. Safe to use from many threads."""

    def __init__(self, loaded: LoadedModels, normalize_roles: str) -> None:
        """``normalize_roles``: ``auto`` or ``off``, as the setting says."""
        self._loaded = loaded
        self._normalizes = normalize_roles == "auto"

    def fitted(self, messages: Sequence[Message], call: Call) -> list[Message]:
        """The messages with roles that the template takes; the same ones where it takes them as they are.

        A list that no template refuses is not looked at any further. Raises ModelUnavailable, and what ends the call.
        """
        if not self._normalizes or not may_be_refused(messages):
            return list(messages)
        return normalised(messages, self._loaded.current(call).rules)
