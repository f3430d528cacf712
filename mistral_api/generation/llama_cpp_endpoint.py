"""llama.cpp's own endpoints (tools/server/README.md): those that generate, and those that are passed through."""

from __future__ import annotations

from functools import partial
from typing import Any

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import Dialect, Endpoint
from mistral_api.generation.llama_cpp_renderer import LlamaCppRenderer, LlamaCppStream, LlamaCppTranscript
from mistral_api.generation.passthrough import PassthroughEndpoint
from mistral_api.payload_types import JsonObject, pick
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, ContentPart
from mistral_api.wire import ChatCompletionRequest, load
from mistral_api.wire.engine_fields import LLAMA_CPP_CHAT
from mistral_api.wire.llama_cpp import (
    AnyObject,
    DetokenizeRequest,
    InfillRequest,
    LlamaCppCompletionRequest,
    SlotFileRequest,
    TokenizeRequest,
    load_adapters,
)

LLAMA_CPP = Dialect(LlamaCppRenderer, LlamaCppStream, LlamaCppTranscript, llama_cpp=True)


def _prompt_message(payload: ChatPayload) -> list[ChatMessage]:
    """Return the prompt as a user's message; of a prompt with images and sounds its text."""
    return [{"role": "user", "content": _prompt_text(payload["prompt"])}]


def _prompt_text(prompt: Any) -> Any:
    if isinstance(prompt, dict):
        return prompt["prompt_string"]
    if isinstance(prompt, list):
        return [_prompt_text(each) for each in prompt]
    return prompt


def _gap_message(payload: ChatPayload) -> list[ChatMessage]:
    """Return a user's message whose parts are the other files, the text before the gap, and the text after it."""
    before = payload["input_prefix"]
    if isinstance(before, str):
        before += str(payload.get("prompt") or "")
    texts = [*(extra["text"] for extra in payload.get("input_extra", [])), before, payload["input_suffix"]]
    parts: list[ContentPart] = [{"type": "text", "text": _joined(text)} for text in texts]
    return [{"role": "user", "content": parts}]


def _joined(mixed: str | list[str | int]) -> str:
    """Return strings and tokens as one string; the text of a token is not known here."""
    return mixed if isinstance(mixed, str) else " ".join(map(str, mixed))


def completion_endpoint(path: str) -> Endpoint:
    """Return the endpoint ``/completion``, under either of its names."""
    return Endpoint(path, False, LlamaCppCompletionRequest(), _prompt_message, LLAMA_CPP, upstream_path="/completion")


LLAMA_CPP_COMPLETION, LLAMA_CPP_COMPLETION_ALIAS = (
    completion_endpoint("/completion"),
    completion_endpoint("/completions"),
)
INFILL = Endpoint("/infill", False, InfillRequest(), _gap_message, LLAMA_CPP)

_UNKNOWN_TOKENS = "Invalid '{0}': not all of these are tokens of the model served."
TOKENIZE = PassthroughEndpoint(
    "/tokenize",
    partial(load, TokenizeRequest()),
    fields=frozenset(TokenizeRequest().fields),
    refusal=InvalidRequest(_UNKNOWN_TOKENS.format("content"), code="invalid_value", param="content"),
)
DETOKENIZE = PassthroughEndpoint(
    "/detokenize",
    partial(load, DetokenizeRequest()),
    fields=frozenset(DetokenizeRequest().fields),
    refusal=InvalidRequest(_UNKNOWN_TOKENS.format("tokens"), code="invalid_value", param="tokens"),
)
APPLY_TEMPLATE = PassthroughEndpoint(
    "/apply-template", partial(load, ChatCompletionRequest()), fields=LLAMA_CPP_CHAT, takes_messages=True
)
PROPS = PassthroughEndpoint("/props", method="GET")

# For the administrator alone.
SLOTS = PassthroughEndpoint("/slots", method="GET")
CHANGE_PROPS = PassthroughEndpoint("/props", partial(load, AnyObject()), changes_model=True)
ADAPTERS = PassthroughEndpoint("/lora-adapters", method="GET")
CHANGE_ADAPTERS = PassthroughEndpoint("/lora-adapters", load_adapters, changes_model=True)
LOAD_MODEL = PassthroughEndpoint("/models/load", partial(load, AnyObject()), changes_model=True)
UNLOAD_MODEL = PassthroughEndpoint("/models/unload", partial(load, AnyObject()), changes_model=True)
_SLOT = "/slots/{id}"
SLOT_ACTIONS = {
    "save": PassthroughEndpoint(_SLOT, partial(load, SlotFileRequest())),
    "restore": PassthroughEndpoint(_SLOT, partial(load, SlotFileRequest())),
    "erase": PassthroughEndpoint(_SLOT, partial(load, AnyObject())),
}

# The properties that anyone may see: they say nothing of the machine, its paths, or its operator.
_PUBLIC_PROPS = (
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
_PUBLIC_SETTINGS = ("params", "n_ctx")


def public_props(props: JsonObject) -> JsonObject:
    """Return what anyone may see of the model server's properties."""
    public = pick(props, _PUBLIC_PROPS)
    settings = public.get("default_generation_settings")
    if isinstance(settings, dict):
        # Older servers show the first slot here, with its prompt.
        public["default_generation_settings"] = pick(settings, _PUBLIC_SETTINGS)
    return public
