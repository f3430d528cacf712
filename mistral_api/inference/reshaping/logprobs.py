"""Log probabilities in OpenAI's two forms: that of chats, and that of legacy completions.

llama.cpp has the form of chats alone, with as many alternatives as it was asked for; a token of which nothing
shows (the end of the text, or one that is part of a stop sequence) has an empty text there, and is none here.
"""

from __future__ import annotations

from typing import Any

from mistral_api.schemas.payload_types import Chunk


class LogprobsStage:
    """The stage that leaves as many alternatives as the client asked for."""

    def __init__(self, alternatives: int) -> None:
        self._alternatives = alternatives

    def answer_begins(self) -> None:
        """Every chunk stands for itself."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        for choice in chunk.get("choices") or []:
            entries = visible_tokens(choice)
            choice["logprobs"] = {"content": entries, "refusal": None} if entries else None
            for entry in entries:
                entry["top_logprobs"] = entry["top_logprobs"][: self._alternatives]
        return [chunk]

    def end(self) -> list[Chunk]:
        return []


def visible_tokens(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """llama.cpp's entries for the tokens of a choice that are part of its text."""
    entries = (choice.get("logprobs") or {}).get("content") or []
    return [entry for entry in entries if entry.get("token") or entry.get("bytes")]


def legacy_logprobs(entries: list[dict[str, Any]], alternatives: int, offset: int) -> dict[str, Any]:
    """The ``logprobs`` of a legacy completion; ``offset``: where in the text the first token begins."""
    tokens, offsets = [_shown(entry) for entry in entries], []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [_alternatives(entry, alternatives) for entry in entries] if alternatives else None,
        "text_offset": offsets,
    }


def _alternatives(entry: dict[str, Any], count: int) -> dict[str, float]:
    """The likeliest tokens and the one that was taken: at most one more than asked for (OpenAI's description)."""
    likeliest = entry["top_logprobs"][:count]
    return {_shown(each): each["logprob"] for each in [*likeliest, entry]}


def _shown(entry: dict[str, Any]) -> str:
    r"""A token's text; of a token that is no whole character its bytes, as in ``bytes:\xe2\x80``."""
    content = bytes(entry.get("bytes") or ())
    try:
        return content.decode() if content else str(entry["token"])
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
