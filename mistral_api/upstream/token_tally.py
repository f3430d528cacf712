"""The token counts of one response, as far as the model server has said them, also where the response was cut off.

What llama.cpp says, and when (tools/server/server-context.cpp and server-task.cpp). An older one ignores what it does
not know: ``return_progress`` and ``cache_n`` came with its pull request 15827 (September 2025), which lost
``timings_per_token`` until 15879, two days later.

- ``prompt_progress`` (``return_progress``), when a prompt is begun and after each batch of it: ``cache`` tokens were
  found in the KV cache, ``processed`` tokens are in it by now, those of ``cache`` among them, of ``total``.
- ``timings`` on every chunk (``timings_per_token``): ``cache_n`` and ``prompt_n`` add up to ``processed``, and
  ``predicted_n`` tokens have been generated. Its own ``/completion`` has ``tokens_predicted`` on every event.
- ``usage`` at the end of each choice.

A chunk is no token. One that is half a character, or that may begin a stop sequence or a tool call, waits for the next:
of 60 tokens of emojis or of Japanese only 24 and 30 came with text (the demo model). So deltas are counted only where
an engine says nothing better.

llama.cpp's own ``/metrics`` count alike (``metrics_post_decode``, ``callback_on_reset`` there), also for requests that
were cut off: ``prompt_tokens_total`` each batch of a prompt without what was in the cache,
``prompt_tokens_cached_total`` what was, ``tokens_predicted_total`` the generated tokens of a slot when it is freed.
So our prompt tokens of a prompt that was cut off are those of ``processed``, and no more. The engine's sums are larger
than ours by what it does between its last word to us and its notice that nobody listens any more: the batch that runs
and perhaps one more, or a token or two. They also count a prompt once for each of our requests that reads it, where we
count it once for the client's (``n`` larger than the number of slots).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mistral_api.payload_types.completions import PromptProgress, Timings, Usage

# More is no count: PostgreSQL's ``integer``, in which they are recorded, ends here.
MOST_TOKENS = 2**31


@dataclass(slots=True)
class TokenCounts:
    """Token counts of one request; None where the model server did not say."""

    prompt: int | None = None
    cached: int | None = None
    completion: int | None = None


@dataclass(slots=True)
class _ChoiceTally:
    """What the model server said last of one choice, and how many deltas came since then or instead."""

    counts: TokenCounts = field(default_factory=TokenCounts)
    deltas: int = 0

    @property
    def completion(self) -> int | None:
        """The tokens that it generated; None where nothing tells of any."""
        return self.deltas or None if self.counts.completion is None else self.counts.completion


class TokenTally:
    """Collects the counts of one response. Choices share prompts: ``choices_per_prompt`` consecutive ones each."""

    def __init__(self, choices_per_prompt: int = 1) -> None:
        self.choices_per_prompt = choices_per_prompt
        self._choices: dict[int, _ChoiceTally] = {}
        self._usages: list[TokenCounts] = []

    def add_delta(self, index: int) -> None:
        """Count something that a choice generated."""
        self._choice(index).deltas += 1

    def add_usage(self, usage: Usage, index: int | None) -> None:
        """Take the usage of a choice so far, or of the whole response where ``index`` is None.

        llama.cpp may report the whole of each choice apart, and with each the prompt that the choices share.
        """
        if index is None:
            self._usages.append(read_usage(usage))
        else:
            self._note(index, read_usage(usage))

    def add_timings(self, timings: Timings, index: int) -> None:
        """Take llama.cpp's measurements of a choice so far."""
        cached, processed = _count(timings.get("cache_n")), _count(timings.get("prompt_n"))
        prompt = None if cached is None or processed is None else cached + processed
        self._note(index, TokenCounts(prompt, cached, _count(timings.get("predicted_n"))))

    def add_progress(self, progress: PromptProgress, index: int) -> None:
        """Take llama.cpp's report on the prompt of a choice."""
        self._note(index, TokenCounts(_count(progress.get("processed")), _count(progress.get("cache"))))

    def counts(self) -> TokenCounts:
        """Return the counts as far as they are known. Where a prompt is known and no more, nothing was generated."""
        whole, gathered = self._whole(), self._gathered()
        if self._usages or gathered.prompt is not None:
            gathered = TokenCounts(gathered.prompt or 0, gathered.cached or 0, gathered.completion or 0)
        return _merged(gathered, whole)

    def _whole(self) -> TokenCounts:
        """Return what was said of the whole response."""
        sharing = self.choices_per_prompt if len(self._usages) > 1 else 1
        prompt, cached = _sum(each.prompt for each in self._usages), _sum(each.cached for each in self._usages)
        return TokenCounts(
            None if prompt is None else prompt // sharing,
            None if cached is None else cached // sharing,
            _sum(each.completion for each in self._usages),
        )

    def _gathered(self) -> TokenCounts:
        """Return what was said of the choices, together. The first one that reads a prompt tells what it cost: those
        that share it find it in the cache."""
        prompts: dict[int, TokenCounts] = {}
        for index in sorted(self._choices):
            said, number = self._choices[index].counts, index // self.choices_per_prompt
            if said.prompt is not None and said.prompt > (prompts[number].prompt or 0 if number in prompts else -1):
                prompts[number] = said
        return TokenCounts(
            _sum(each.prompt for each in prompts.values()),
            _sum(each.cached for each in prompts.values()),
            _sum(each.completion for each in self._choices.values()),
        )

    def _note(self, index: int, said: TokenCounts) -> None:
        choice = self._choice(index)
        choice.counts = _merged(choice.counts, said)

    def _choice(self, index: int) -> _ChoiceTally:
        tally = self._choices.get(index)
        if tally is None:
            tally = self._choices[index] = _ChoiceTally()
        return tally


def read_usage(usage: object) -> TokenCounts:
    """Return the counts of a usage object of any engine. What is no number is not known."""
    if not isinstance(usage, dict):
        return TokenCounts()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return TokenCounts(_count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens")))


def _merged(older: TokenCounts, newer: TokenCounts) -> TokenCounts:
    """Return the newer counts, and the older ones where the newer are not known."""
    return TokenCounts(
        older.prompt if newer.prompt is None else newer.prompt,
        older.cached if newer.cached is None else newer.cached,
        older.completion if newer.completion is None else newer.completion,
    )


def _count(value: object) -> int | None:
    """Return a count that an engine sent; None for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < MOST_TOKENS else None


def _sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum of the counts that are known; None where none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
