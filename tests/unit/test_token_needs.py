"""What requests need of a cache that all slots share, and which limit their answers get."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from mistral_api.control.shared_cache import SharedCache
from mistral_api.errors import ModelUnavailable
from mistral_api.generation.endpoint import CHAT, COMPLETION, Endpoint
from mistral_api.generation.token_needs import IMAGE_TOKENS, TokenNeeds, answer_tokens, limit_of
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.errors import ContextExceeded
from mistral_api.upstream.token_counter import TokenCounter

CACHE = SharedCache(tokens=32_768, request=32_768, slots=4)
SHARE = CACHE.share


class Counter:
    """Counts tokens as a model server would: four bytes each, and thirty around a chat."""

    def __init__(self) -> None:
        self.counted = 0
        self.is_away = False

    def count_tokens(self, messages: Sequence[Any], *, options: object = None, call: object = None) -> int:
        if self.is_away:
            raise ModelUnavailable("away")
        self.counted += options is not None
        return 30 + sum(len(message["content"]) // 4 for message in messages)

    def count_text(self, text: str, call: object) -> int:
        self.counted += 1
        return len(text) // 4


@pytest.fixture
def counter() -> Counter:
    return Counter()


def _limited(
    counter: Counter, request: object, *, endpoint: Endpoint = CHAT, count: int = 1, cache: SharedCache | None = CACHE
) -> tuple[dict[str, Any], int]:
    needs = TokenNeeds(lambda: cache, lambda: "its process", cast("TokenCounter", counter))
    limited, tokens = needs.limited(endpoint, cast("ChatPayload", request), count)
    return cast("dict[str, Any]", limited), tokens


def _chat(characters: int, **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "x" * characters}], **fields}


def test_short_requests_without_a_limit_run_in_all_slots_at_once(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(100))
    assert tokens == SHARE
    assert SHARE * 7 // 8 <= request["max_tokens"] <= SHARE
    assert counter.counted == 0


def test_unlimited_long_prompt_is_counted_and_its_answer_has_what_a_slot_leaves_it(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(16_000))
    assert (request["max_tokens"], tokens, counter.counted) == (SHARE - 4030, SHARE, 1)


def test_answer_to_a_prompt_beyond_a_share_has_a_quarter_of_it(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(80_000))
    assert (request["max_tokens"], tokens) == (SHARE // 4, 20_030 + SHARE // 4)


def test_answer_has_no_more_than_what_is_left_of_the_context(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(4 * 32_000))
    assert (request["max_tokens"], tokens) == (738, CACHE.tokens)


def test_named_limit_is_kept_and_waited_for(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(100, max_tokens=20_000))
    assert request["max_tokens"] == 20_000
    assert 20_100 < tokens < 20_400
    assert 32_100 < _limited(counter, _chat(100, max_completion_tokens=32_000))[1] < 32_400
    assert _limited(counter, _chat(100, max_tokens=1 << 20))[1] == CACHE.tokens


def test_request_that_fits_into_a_share_by_its_bytes_is_not_counted(counter: Counter) -> None:
    assert _limited(counter, _chat(4000, max_tokens=100))[1] == SHARE
    assert counter.counted == 0


def test_prompt_that_is_too_long_needs_nothing_since_it_is_refused(counter: Counter) -> None:
    assert _limited(counter, _chat(4 * 33_000, max_tokens=5)) == (_chat(4 * 33_000, max_tokens=5), 0)


def test_choices_share_their_prompt_and_none_is_longer_than_there_is_room(counter: Counter) -> None:
    request, tokens = _limited(counter, _chat(16_000, n=3, max_tokens=20_000), count=3)
    assert request["max_tokens"] == (CACHE.tokens - 4030) // 3
    assert tokens <= CACHE.tokens
    assert _limited(counter, _chat(16_000, n=3, max_tokens=50), count=3) == (
        _chat(16_000, n=3, max_tokens=50),
        3 * SHARE,
    )


def test_prompts_that_do_not_fit_together_are_refused(counter: Counter) -> None:
    with pytest.raises(ContextExceeded, match="maximum context length is 32768"):
        _limited(counter, {"prompt": ["x" * 80_000] * 2, "max_tokens": 5}, endpoint=COMPLETION, count=2)


def test_only_as_many_prompts_count_as_are_read_at_once(counter: Counter) -> None:
    request = {"prompt": ["x" * 9000] * 200, "max_tokens": 5}
    assert _limited(counter, request, endpoint=COMPLETION, count=2)[1] == 2 * (9000 + 8) + 2 * 5
    assert _limited(counter, {"prompt": [[1] * 300] * 200}, endpoint=COMPLETION, count=4)[1] <= CACHE.tokens


def test_completion_of_tokens_needs_as_many(counter: Counter) -> None:
    assert _limited(counter, {"prompt": [7] * 9000, "max_tokens": 10}, endpoint=COMPLETION)[1] == 9010


def test_image_counts_as_the_largest(counter: Counter) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 10**6}}
    content = [{"type": "text", "text": "what?"}, image, image, image]
    tokens = _limited(counter, {"messages": [{"role": "user", "content": content}], "max_tokens": 10})[1]
    assert 3 * IMAGE_TOKENS < tokens < 3 * IMAGE_TOKENS + 1000


def test_prompt_that_nobody_can_count_is_taken_by_its_bytes(counter: Counter) -> None:
    counter.is_away = True
    assert _limited(counter, _chat(10_000, max_tokens=100))[1] == pytest.approx(11_200, abs=300)
    assert _limited(counter, _chat(100_000, max_tokens=100))[1] == CACHE.tokens


def test_nothing_is_needed_where_each_slot_has_its_own_cache(counter: Counter) -> None:
    assert _limited(counter, _chat(100), cache=None) == (_chat(100), 0)


@pytest.mark.parametrize(
    ("request_", "limit"),
    [({}, None), ({"max_tokens": -1}, None), ({"n_predict": -1, "max_tokens": 5}, None), ({"max_tokens": 0}, 1)],
)
def test_limit_of_a_request(request_: dict[str, int], limit: int | None) -> None:
    assert limit_of(cast("ChatPayload", request_)) == limit


@pytest.mark.parametrize("prompt", [1, 100, 2000, 8000, 20_000, 32_767])
@pytest.mark.parametrize("wanted", [None, 1, 5000, 32_768])
@pytest.mark.parametrize("count", [1, 3])
def test_prompt_and_answers_never_exceed_the_cache(prompt: int, wanted: int | None, count: int) -> None:
    answer = answer_tokens(CACHE, prompt, wanted, count)
    assert answer == 1 or prompt + count * answer <= CACHE.tokens
