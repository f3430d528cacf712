"""Log probabilities of chats and completions; legacy completions.

Log probabilities in OpenAI's two forms: that of chats, and that of legacy completions.

llama.cpp has the form of chats alone, with as many alternatives as it was asked for; a token of which nothing
shows (the end of the text, or one that is part of a stop sequence) has an empty text there, and is none here.

Legacy completions in OpenAI's form.

llama.cpp gives chat ids, the log probabilities of chats, no ``echo``, and a token where none was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistral_api.wire.payload_types import Chunk


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


class LegacyCompletionStage:
    """The stage that makes OpenAI's ``text_completion`` of llama.cpp's."""

    def __init__(
        self, *, logprobs: int | None = None, silent: bool = False, echo: Sequence[str] = (), per_prompt: int = 1
    ) -> None:
        """``silent``: no tokens were asked for; ``echo``: the prompts, to stand before each of their
        ``per_prompt`` choices; ``logprobs``: how many alternatives, None for no log probabilities."""
        self._logprobs = logprobs
        self._silent = silent
        self._echo = echo
        self._per_prompt = per_prompt
        self._lengths: dict[int, int] = {}

    def answer_begins(self) -> None:
        """Choices are numbered through before they come here."""

    def chunk(self, chunk: Chunk) -> list[Chunk]:
        chunk["id"] = "cmpl-" + str(chunk.get("id")).removeprefix("chatcmpl-")
        if self._silent and "usage" in chunk:
            tokens = chunk["usage"]["prompt_tokens"]
            chunk["usage"] |= {"completion_tokens": 0, "total_tokens": tokens}
        for choice in chunk["choices"]:
            self._mend(choice)
        return [chunk]

    def end(self) -> list[Chunk]:
        return []

    def _mend(self, choice: dict[str, Any]) -> None:
        entries = visible_tokens(choice)
        index, text = choice["index"], "" if self._silent else choice.get("text") or ""
        prompt = self._echo[index // self._per_prompt] if self._echo and index not in self._lengths else ""
        offset = self._lengths.get(index, 0) + len(prompt)
        self._lengths[index] = offset + len(text)
        choice["text"] = prompt + text
        wanted = self._logprobs is not None and entries and not self._silent
        choice["logprobs"] = legacy_logprobs(entries, self._logprobs or 0, offset) if wanted else None
