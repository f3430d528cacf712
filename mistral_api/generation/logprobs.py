"""Log probabilities in OpenAI's two forms: that of chats, and that of legacy completions.

llama.cpp has the form of chats alone, with as many alternatives as it was asked for. A token that shows nothing (the
end of the text, or a part of a stop sequence) has an empty text there; OpenAI lists no such token.
"""

from __future__ import annotations

from mistral_api.generation.stages import ChunkStage
from mistral_api.payload_types.completions import Chunk, ChunkChoice, Logprobs, TokenLogprob, TopLogprob


class LogprobsStage(ChunkStage):
    """Leaves as many alternatives as the client asked for."""

    def __init__(self, alternatives: int) -> None:
        self._alternatives = alternatives

    def apply(self, chunk: Chunk) -> list[Chunk]:
        for choice in chunk.get("choices") or []:
            entries = visible_tokens(choice)
            choice["logprobs"] = {"content": entries, "refusal": None} if entries else None
            for entry in entries:
                entry["top_logprobs"] = entry["top_logprobs"][: self._alternatives]
        return [chunk]


def visible_tokens(choice: ChunkChoice) -> list[TokenLogprob]:
    """Return llama.cpp's entries for the tokens of a choice that are part of its text."""
    entries = (choice.get("logprobs") or {}).get("content") or []
    return [entry for entry in entries if entry.get("token") or entry.get("bytes")]


def legacy_logprobs(entries: list[TokenLogprob], alternatives: int, offset: int) -> Logprobs:
    """Return the ``logprobs`` of a legacy completion; ``offset``: where in the text the first token begins."""
    tokens, offsets = [_token_text(entry) for entry in entries], []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [_alternatives(entry, alternatives) for entry in entries] if alternatives else None,
        "text_offset": offsets,
    }


def _alternatives(entry: TokenLogprob, count: int) -> dict[str, float]:
    """Return the likeliest tokens and the one that was taken: at most ``count`` + 1 (OpenAI's description)."""
    likeliest = entry["top_logprobs"][:count]
    return {_token_text(each): each["logprob"] for each in [*likeliest, entry]}


def _token_text(entry: TopLogprob) -> str:
    r"""Return a token's text; of a token that is no whole character its bytes, as in ``bytes:\xe2\x80``."""
    content = bytes(entry.get("bytes") or ())
    try:
        return content.decode() if content else str(entry["token"])
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
