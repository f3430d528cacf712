"""Inputs that are too long for a model, cut off at what it takes: as tokens, by the model server's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

from mistral_api.errors import ModelServerFailed
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.client import ModelServerClient
from mistral_api.wire.embeddings import EmbeddingInput


def shorten_inputs(
    items: Sequence[EmbeddingInput], most: int, client: ModelServerClient, call: UpstreamCall
) -> list[EmbeddingInput]:
    """Return the inputs with no more than ``most`` tokens each; those that fit stay as they are.

    A token that the tokenizer puts at the end of each text, as those of BERT models do, stays at the end. Raises what
    :meth:`ModelServerClient.query` does.
    """
    ending = _tokens("", client, call)[-1:]
    return [_shortened(item, most, ending, client, call) for item in items]


def _shortened(
    item: EmbeddingInput, most: int, ending: list[int], client: ModelServerClient, call: UpstreamCall
) -> EmbeddingInput:
    tokens = _tokens(item, client, call) if isinstance(item, str) else item
    if len(tokens) <= most:
        return item
    kept = ending if tokens[-1:] == ending else []
    return [*tokens[: most - len(kept)], *kept]


def _tokens(text: str, client: ModelServerClient, call: UpstreamCall) -> list[int]:
    """Return the tokens of a text with those that the tokenizer puts around it."""
    tokens = client.query("/tokenize", {"content": text, "add_special": True}, call).get("tokens")
    if not isinstance(tokens, list):
        raise ModelServerFailed("The model server did not say which tokens these are.", summary="no tokens")
    return tokens
