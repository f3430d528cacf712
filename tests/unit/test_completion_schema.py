"""Which legacy completion requests pass."""

import copy
from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.wire import CompletionRequest, load
from mistral_api.wire.llama_cpp import LlamaCppCompletionRequest

SCHEMA = CompletionRequest()


@pytest.mark.parametrize(
    "prompt", ["", "Once upon", ["a", "b"], [1, 2, 3], [[1, 2], [3]], ["x"] * 2048, list(range(4096))]
)
def test_every_prompt_form_passes_unchanged(prompt: Any) -> None:
    payload = {"prompt": prompt, "max_tokens": 5, "unheard_of": [1]}
    before = copy.deepcopy(payload)
    assert load(SCHEMA, payload) == before
    assert payload == before


def test_completion_max_tokens_defaults_to_16() -> None:
    payload = {"prompt": "Once upon"}
    assert load(SCHEMA, payload)["max_tokens"] == 16
    assert payload == {"prompt": "Once upon"}
    assert load(SCHEMA, {"prompt": "x", "max_tokens": None})["max_tokens"] == 16


def test_n_predict_replaces_the_default_of_max_tokens() -> None:
    assert "max_tokens" not in load(SCHEMA, {"prompt": "x", "n_predict": 5})


@pytest.mark.parametrize(
    "fields", [{"best_of": 0}, {"n": 2, "best_of": 2}, {"echo": True}, {"logprobs": 5}, {"suffix": ""}]
)
def test_supported_completion_fields_pass(fields: dict[str, Any]) -> None:
    assert load(SCHEMA, {"prompt": "x", "max_tokens": 1, **fields}) == {"prompt": "x", "max_tokens": 1, **fields}


@pytest.mark.parametrize(
    ("fields", "param", "code", "words"),
    [
        ({}, "prompt", "missing_required_parameter", "Missing required parameter: 'prompt'."),
        ({"prompt": None}, "prompt", "missing_required_parameter", "prompt"),
        ({"prompt": 5}, "prompt", "invalid_type", "a string or an array"),
        ({"prompt": {"prompt_string": "x"}}, "prompt", "invalid_type", "got an object"),
        ({"prompt": []}, "prompt", "empty_array", "minimum length 1"),
        ({"prompt": "", "n": 2}, "n", "invalid_value", "a prompt that is not empty"),
        ({"prompt": ["x", ""], "n": 2}, "n", "invalid_value", "a prompt that is not empty"),
        ({"prompt": [[]]}, "prompt[0]", "empty_array", "empty"),
        ({"prompt": ["a", 1]}, "prompt[1]", "invalid_type", "a string"),
        ({"prompt": [1, "a"]}, "prompt[1]", "invalid_type", "an integer"),
        ({"prompt": [[1], "a"]}, "prompt[1]", "invalid_type", "an array"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]", "invalid_type", "an integer"),
        ({"prompt": [[["a"]]]}, "prompt[0][0]", "invalid_type", "got an array"),
        ({"prompt": [True]}, "prompt[0]", "invalid_type", "got a boolean"),
        ({"prompt": [None]}, "prompt[0]", "invalid_type", "got null"),
        ({"prompt": [1.5]}, "prompt[0]", "invalid_type", "got a decimal"),
        ({"prompt": [-1]}, "prompt[0]", "integer_below_min_value", ">= 0"),
        ({"prompt": [2**63]}, "prompt[0]", "integer_above_max_value", "<= 2147483647"),
        ({"prompt": ["x"] * 2049}, "prompt", "array_above_max_length", "at most 2048"),
        ({"prompt": "x", "echo": True, "logprobs": 1}, "logprobs", "unsupported_value", "with 'echo'"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "unsupported_value", "/infill"),
        ({"prompt": "x", "best_of": 2}, "best_of", "unsupported_value", "above 'n'"),
        ({"prompt": "x", "best_of": 1, "n": 2}, "best_of", "invalid_value", "not below 'n'"),
        ({"prompt": "x", "best_of": 21}, "best_of", "integer_above_max_value", "<= 20"),
        ({"prompt": "x", "logprobs": 6}, "logprobs", "integer_above_max_value", "<= 5"),
        ({"prompt": "x", "logprobs": True}, "logprobs", "invalid_type", "an integer"),
        ({"prompt": "x", "suffix": 5}, "suffix", "invalid_type", "a string"),
        ({"prompt": "x", "max_tokens": "many"}, "max_tokens", "invalid_type", "an integer"),
        ({"prompt": "x", "temperature": 3}, "temperature", "decimal_above_max_value", "<= 2"),
    ],
)
def test_bad_completion_request_is_refused_with_code_and_message(
    fields: dict[str, Any], param: str, code: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        load(SCHEMA, fields)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert words in caught.value.message


@pytest.mark.parametrize("prompt", ["", [""], [[], "x"], {"prompt_string": ""}], ids=repr)
def test_several_choices_for_an_empty_native_prompt_are_refused(prompt: Any) -> None:
    assert load(LlamaCppCompletionRequest(), {"prompt": prompt, "n": 1})["prompt"] == prompt
    with pytest.raises(InvalidRequest) as refusal:
        load(LlamaCppCompletionRequest(), {"prompt": prompt, "n": 2})
    assert (refusal.value.param, refusal.value.code) == ("n", "invalid_value")
