"""The shape of an error by the path that was asked for: Anthropic's, Ollama's, or for all others OpenAI's.

Most errors of a dialect are written by its own views. This is for those that no view has seen: requests that are
refused by their head, and paths or methods that do not exist.
"""

from __future__ import annotations

from collections.abc import Mapping

from mistral_api.errors import ApiError
from mistral_api.generation.anthropic_renderer import anthropic_error
from mistral_api.generation.ollama_renderer import ollama_error

_ANTHROPIC, _OLLAMA = "/v1/messages", "/api"


def error_body(error: ApiError, path: str, request_id: str) -> Mapping[str, object]:
    """Return the body of an error in the shape of the API that was asked."""
    if _is_below(path, _ANTHROPIC):
        return {**anthropic_error(error, error.status), "request_id": request_id}
    return ollama_error(error) if _is_below(path, _OLLAMA) else error.body()


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")
