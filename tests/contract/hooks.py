"""Keep generated requests cheap: a few tokens are enough to check a response.

Only allowed values are reduced, so that a request that is wrong on purpose stays wrong.
"""

from __future__ import annotations

from typing import Any

import schemathesis

TOKENS = 4
_REQUIRED = ("max_tokens",)
# The fields that limit the tokens of each endpoint, and the smallest value that it allows.
_NAMES = {
    "/v1/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/v1/completions": ("max_tokens", "n_predict"),
    "/v1/responses": ("max_output_tokens",),
    "/v1/messages": _REQUIRED,
    "/completion": ("n_predict", "max_tokens"),
    "/completions": ("n_predict", "max_tokens"),
    "/infill": ("n_predict", "max_tokens"),
}
_LIMITS = {"n": 2, "best_of": 2, "n_probs": 2}


def _is_integer(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _clip(body: dict[str, Any], name: str, most: int, low: int, high: int) -> None:
    if _is_integer(body.get(name)) and low <= body[name] <= high and not 0 <= body[name] <= most:
        body[name] = most


def _keep_one_continuation(body: dict[str, Any]) -> None:
    """Keep at most one of the fields that a response continues from, and none where the input is a text."""
    names = ("conversation", "previous_response_id", "session_id")
    given = [name for name in names if isinstance(body.get(name), str)]
    for name in given if isinstance(body.get("input"), str) else given[1:]:
        del body[name]


def _limit_tokens(body: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"):
        _clip(body, name, TOKENS, -1, 2**31 - 1)
    for name, most in _LIMITS.items():
        _clip(body, name, most, 1, 128)
    # A required field may be missing on purpose.
    if names != _REQUIRED and not any(body.get(name) is not None for name in names):
        body[names[0]] = TOKENS


def _limit_options(body: dict[str, Any]) -> None:
    """Limit the tokens of a request of Ollama's API."""
    options = body.setdefault("options", {})
    if isinstance(options, dict):
        _clip(options, "num_predict", TOKENS, -2, 2**31 - 1)
        options.setdefault("num_predict", TOKENS)
    # A history that grows from request to request would fill the context.
    if body.get("use_history") is True and body.get("truncate") in (None, True):
        body["truncate"] = False


@schemathesis.hook
def before_call(_context: object, case: schemathesis.Case[Any], _options: dict[str, Any]) -> None:
    """Make a request small."""
    if not isinstance(case.body, dict):
        return
    if case.path.startswith("/v1/responses"):
        _keep_one_continuation(case.body)
    if case.path in ("/api/chat", "/api/generate"):
        _limit_options(case.body)
    if case.path in _NAMES:
        _limit_tokens(case.body, _NAMES[case.path])
        if isinstance(case.body.get("store", True), bool):
            case.body["store"] = True  # so that later requests can read it
