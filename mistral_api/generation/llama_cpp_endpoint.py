"""Llama.cpp's own endpoints, generating and passed through.

llama.cpp's own endpoints for raw prompts, and its questions (tools/server/README.md).

llama.cpp's own endpoints, as the services for generations and for questions know them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import Dialect, Endpoint
from mistral_api.generation.llama_cpp_renderer import NativeStream, NativeTranscript, assemble_native_body
from mistral_api.generation.passthrough import PassthroughEndpoint
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.llama_cpp import (
    AnyObject,
    DetokenizeRequest,
    InfillRequest,
    NativeCompletionRequest,
    SlotFileRequest,
    TokenizeRequest,
    load_adapters,
)

NATIVE = Dialect(NativeStream, NativeTranscript, assemble_native_body, llama_cpp=True)


def _prompt_message(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The prompt as a user's message; of one with images and sounds its text."""
    return [{"role": "user", "content": _text_of(payload["prompt"])}]


def _text_of(prompt: Any) -> Any:
    if isinstance(prompt, dict):
        return prompt["prompt_string"]
    if isinstance(prompt, list):
        return [_text_of(each) for each in prompt]
    return prompt


def _gap_message(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """A user's message with the other files, what stands before the gap, and what after it, each a part."""
    before = payload["input_prefix"]
    if isinstance(before, str):
        before += payload.get("prompt") or ""
    texts = [*(extra["text"] for extra in payload.get("input_extra", [])), before, payload["input_suffix"]]
    return [{"role": "user", "content": [{"type": "text", "text": _joined(text)} for text in texts]}]


def _joined(mixed: Any) -> str:
    """Strings and tokens in one string; nobody knows here what a token says."""
    return mixed if isinstance(mixed, str) else " ".join(map(str, mixed))


def native_endpoint(path: str) -> Endpoint:
    """``/completion``, under either of its names."""
    return Endpoint(path, False, NativeCompletionRequest(), _prompt_message, "/completion", NATIVE)


COMPLETION, COMPLETIONS = native_endpoint("/completion"), native_endpoint("/completions")
INFILL = Endpoint("/infill", False, InfillRequest(), _gap_message, dialect=NATIVE)

_UNKNOWN_TOKENS = "Invalid '{0}': not all of these are tokens of the model served."
TOKENIZE = PassthroughEndpoint(
    "/tokenize",
    partial(load, TokenizeRequest()),
    refusal=InvalidRequest(_UNKNOWN_TOKENS.format("content"), code="invalid_value", param="content"),
)
DETOKENIZE = PassthroughEndpoint(
    "/detokenize",
    partial(load, DetokenizeRequest()),
    refusal=InvalidRequest(_UNKNOWN_TOKENS.format("tokens"), code="invalid_value", param="tokens"),
)
APPLY_TEMPLATE = PassthroughEndpoint("/apply-template", partial(load, ChatCompletionRequest()))
PROPS = PassthroughEndpoint("/props", method="GET")

# What only an operator may ask.
SLOTS = PassthroughEndpoint("/slots", method="GET")
CHANGE_PROPS = PassthroughEndpoint("/props", partial(load, AnyObject()))
ADAPTERS = PassthroughEndpoint("/lora-adapters", method="GET")
CHANGE_ADAPTERS = PassthroughEndpoint("/lora-adapters", load_adapters)
LOAD_MODEL = PassthroughEndpoint("/models/load", partial(load, AnyObject()))
UNLOAD_MODEL = PassthroughEndpoint("/models/unload", partial(load, AnyObject()))
_SLOT = "/slots/{id}"
SLOT_ACTIONS = {
    "save": PassthroughEndpoint(_SLOT, partial(load, SlotFileRequest())),
    "restore": PassthroughEndpoint(_SLOT, partial(load, SlotFileRequest())),
    "erase": PassthroughEndpoint(_SLOT, partial(load, AnyObject())),
}

# What of /props tells nothing of the machine: no paths, nothing of the operator's.
_SHOWN = (
    "default_generation_settings",
    "total_slots",
    "model_alias",
    "model_ftype",
    "modalities",
    "chat_template",
    "chat_template_tool_use",
    "chat_template_caps",
    "bos_token",
    "eos_token",
    "build_info",
    "is_sleeping",
)
_SHOWN_SETTINGS = ("params", "n_ctx")


def shown_props(props: dict[str, Any]) -> dict[str, Any]:
    """What anyone may see of the model server's properties."""
    shown = {name: props[name] for name in _SHOWN if name in props}
    settings = shown.get("default_generation_settings")
    if isinstance(settings, dict):
        # Older servers show the first slot here, with its prompt.
        shown["default_generation_settings"] = {name: settings[name] for name in _SHOWN_SETTINGS if name in settings}
    return shown
