"""Log probabilities in the form of legacy completions."""

from __future__ import annotations

from mistral_api.generation.logprobs import legacy_logprobs, visible_tokens
from mistral_api.payload_types.completions import TokenLogprob, TopLogprob


def _entry(token: str, content: bytes, logprob: float, *alternatives: TopLogprob) -> TokenLogprob:
    return {"token": token, "bytes": list(content), "logprob": logprob, "top_logprobs": list(alternatives)}


def test_legacy_logprobs_show_incomplete_characters_as_bytes() -> None:
    half = _entry("", b"\xe2\x80", -2.0)
    made = legacy_logprobs([_entry("é", "é".encode(), -1.0, half)], 1, 5)
    assert made == {
        "tokens": ["é"],
        "token_logprobs": [-1.0],
        "top_logprobs": [{"bytes:\\xe2\\x80": -2.0, "é": -1.0}],
        "text_offset": [5],
    }


def test_end_of_text_token_is_not_visible() -> None:
    shown, end = _entry("a", b"a", -1.0), _entry("", b"", -0.1)
    assert visible_tokens({"logprobs": {"content": [shown, end]}}) == [shown]
    assert visible_tokens({"logprobs": None}) == visible_tokens({}) == []
