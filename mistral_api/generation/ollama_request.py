"""Ollama's ``/api/chat`` and ``/api/generate``, and their requests as those of a chat, a completion or an infill.

What a generation asks for decides which endpoint of the model server answers it: a chat; a prompt as it is (``raw``,
or one that a ``template`` has made); or a gap between two texts (``suffix``). Facts are those of ollama/ollama:
``docs/api.md``, ``api/types.go`` and ``GenerateHandler`` in ``server/routes.go``.
"""

from __future__ import annotations

from typing import Any, Final, cast

from marshmallow import post_load

from mistral_api.errors import InvalidRequest
from mistral_api.generation.endpoint import CHAT, COMPLETION, Dialect, Endpoint
from mistral_api.generation.llama_cpp_endpoint import INFILL
from mistral_api.generation.ollama_context import decode_context
from mistral_api.generation.ollama_messages import chat_messages, content_with_images
from mistral_api.generation.ollama_renderer import OllamaChatRenderer, OllamaGenerateRenderer, OllamaInfillRenderer
from mistral_api.generation.ollama_template import UnsupportedTemplate, fill_template
from mistral_api.payload_types import omit, pick
from mistral_api.payload_types.chat import ChatMessage, ChatPayload, ResponseFormat, Tool
from mistral_api.payload_types.ollama import OllamaChatPayload, OllamaGeneratePayload, OllamaGeneration, OllamaOptions
from mistral_api.wire import ChatCompletionRequest, CompletionRequest, load
from mistral_api.wire.llama_cpp import InfillRequest
from mistral_api.wire.ollama import OllamaChatRequest, OllamaGenerateRequest

CHAT_PATH, GENERATE_PATH = "/api/chat", "/api/generate"
# The name by which the client asked for the model; ``model`` is the one by which it is served.
SHOWN_MODEL: Final = "shown_model"
_OWN_FIELDS = ("model", SHOWN_MODEL, "session_id", "use_history", "store", "metadata")
# Options that llama.cpp knows by the same names.
_SAME_OPTIONS = (
    "seed", "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip


def common_fields(request: OllamaGeneration) -> ChatPayload:
    """Return the fields of a generation that chats and completions share."""
    fields = cast("ChatPayload", pick(request, _OWN_FIELDS))
    if not fields.get("model"):
        fields.pop("model", None)
    fields["stream"] = request.get("stream", True)
    if fields["stream"]:
        fields["stream_options"] = {"include_usage": True}
    return fields | _sampling(request.get("options") or {})


def _sampling(options: OllamaOptions) -> ChatPayload:
    sampling = cast("dict[str, Any]", pick(options, _SAME_OPTIONS))
    # Zero is no limit (runner/ollamarunner/runner.go in ollama/ollama).
    if options.get("num_predict", -1) > 0:
        sampling["max_tokens"] = options["num_predict"]
    if "num_keep" in options:
        sampling["n_keep"] = options["num_keep"]
    wanted = options.get("stop") or []
    stop = [each for each in ([wanted] if isinstance(wanted, str) else wanted) if each]
    if stop:
        sampling["stop"] = stop
    return cast("ChatPayload", sampling)


def _chat_fields(request: OllamaGeneration) -> ChatPayload:
    """Return what only a chat has: format, thinking, log probabilities, and what happens to a chat that is too long."""
    fields: ChatPayload = {}
    wanted_format = request.get("format")
    if wanted_format:
        fields["response_format"] = _response_format(wanted_format)
    if request.get("logprobs"):
        fields |= {"logprobs": True, "top_logprobs": request.get("top_logprobs", 0)}
    if "truncate" in request:
        fields["truncation"] = "auto" if request["truncate"] else "disabled"
    return fields | _thinking(request.get("think"))


def _response_format(wanted: str | dict[str, Any]) -> ResponseFormat:
    if isinstance(wanted, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "output", "strict": True, "schema": wanted}}


def _thinking(think: bool | str | None) -> ChatPayload:
    """Return llama.cpp's fields for reasoning; templates without a switch for it ignore them."""
    if think is None:
        return {}
    if isinstance(think, str):
        return {"reasoning_effort": think, "chat_template_kwargs": {"enable_thinking": True}}
    return {"chat_template_kwargs": {"enable_thinking": think}}


def chat_request(request: OllamaChatPayload) -> ChatPayload:
    """Return the chat completion request that asks for the same."""
    chat = common_fields(request) | _chat_fields(request)
    chat["messages"] = chat_messages(request.get("messages") or [])
    if request.get("tools"):
        chat["tools"] = [cast("Tool", {**tool, "type": "function"}) for tool in request["tools"]]
    return chat


def generate_chat_request(request: OllamaGeneratePayload) -> ChatPayload:
    """Return the chat completion request of a prompt, with the conversation that its ``context`` has."""
    chat = common_fields(request) | _chat_fields(request)
    messages = _earlier_messages(request.get("context") or [])
    system = request.get("system")
    if system:
        messages = [{"role": "system", "content": system}, *(each for each in messages if each["role"] != "system")]
    prompt = content_with_images(request.get("prompt", ""), request.get("images") or [])
    chat["messages"] = [*messages, {"role": "user", "content": prompt}]
    return chat


def _earlier_messages(context: list[int]) -> list[ChatMessage]:
    try:
        return decode_context(context)
    except ValueError as error:
        text = "Invalid 'context': it is not one that this server has given. Leave it out to begin anew."
        raise InvalidRequest(text, code="invalid_value", param="context") from error


def raw_request(request: OllamaGeneratePayload) -> ChatPayload:
    """Return the completion request of a prompt that is taken as it is."""
    completion = common_fields(request)
    completion["prompt"] = _filled_prompt(request)
    if request.get("logprobs"):
        completion["logprobs"] = min(request.get("top_logprobs", 0), _MOST_LOGPROBS)
    wanted_format = request.get("format")
    if isinstance(wanted_format, dict):
        cast("dict[str, Any]", completion)["json_schema"] = wanted_format
    elif wanted_format:
        cast("dict[str, Any]", completion)["json_schema"] = {"type": "object"}
    return completion


# OpenAI's legacy completions have no more.
_MOST_LOGPROBS: Final = 5


def _filled_prompt(request: OllamaGeneratePayload) -> str:
    prompt, template = request.get("prompt", ""), request.get("template")
    if request.get("raw") or not template:
        return prompt
    try:
        return fill_template(template, {"System": request.get("system", ""), "Prompt": prompt})
    except UnsupportedTemplate as error:
        text = f"Unsupported value for 'template': it {error}. Leave it out: the model has its own."
        raise InvalidRequest(text, code="not_supported", param="template") from error


def infill_request(request: OllamaGeneratePayload) -> ChatPayload:
    """Return llama.cpp's request to write what stands between two texts."""
    infill = omit(common_fields(request), ("stream_options", "max_tokens"))
    limit = (request.get("options") or {}).get("num_predict", -1)
    return infill | {
        "input_prefix": request.get("prompt", ""),
        "input_suffix": request.get("suffix", ""),
        "n_predict": limit if limit > 0 else -1,
    }


class _Chat(OllamaChatRequest[ChatPayload]):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: OllamaChatPayload, **_options: object) -> ChatPayload:
        return load(_CHAT_REQUEST, chat_request(data))


class _GenerateChat(OllamaGenerateRequest[ChatPayload]):
    """Loads as a chat completion request."""

    @post_load
    def _translate(self, data: OllamaGeneratePayload, **_options: object) -> ChatPayload:
        return load(_CHAT_REQUEST, generate_chat_request(data))


class _GenerateRaw(OllamaGenerateRequest[ChatPayload]):
    """Loads as a legacy completion request, but without OpenAI's limit of 16 tokens."""

    @post_load
    def _translate(self, data: OllamaGeneratePayload, **_options: object) -> ChatPayload:
        request = raw_request(data)
        if "max_tokens" in request:
            return load(_COMPLETION_REQUEST, request)
        return omit(load(_COMPLETION_REQUEST, request | {"n_predict": -1}), ("n_predict",))


class _GenerateInfill(OllamaGenerateRequest[ChatPayload]):
    """Loads as llama.cpp's request to fill a gap."""

    @post_load
    def _translate(self, data: OllamaGeneratePayload, **_options: object) -> ChatPayload:
        return load(_INFILL_REQUEST, infill_request(data))


_CHAT_REQUEST, _COMPLETION_REQUEST, _INFILL_REQUEST = ChatCompletionRequest(), CompletionRequest(), InfillRequest()

OLLAMA_CHAT = Endpoint(
    CHAT_PATH,
    True,
    _Chat(),
    CHAT.messages,
    Dialect(OllamaChatRenderer, shows_progress=False),
    upstream_path=CHAT.path,
)
_GENERATE_CHAT = Endpoint(
    GENERATE_PATH,
    True,
    _GenerateChat(),
    CHAT.messages,
    Dialect(OllamaGenerateRenderer, shows_progress=False),
    upstream_path=CHAT.path,
)
_GENERATE_RAW = Endpoint(
    GENERATE_PATH,
    False,
    _GenerateRaw(),
    COMPLETION.messages,
    Dialect(OllamaGenerateRenderer, shows_progress=False),
    upstream_path=COMPLETION.path,
)
_GENERATE_INFILL = Endpoint(
    GENERATE_PATH,
    False,
    _GenerateInfill(),
    INFILL.messages,
    Dialect(
        OllamaInfillRenderer,
        INFILL.dialect.stream,
        INFILL.dialect.transcript,
        llama_cpp=True,
        shows_progress=False,
    ),
    upstream_path=INFILL.path,
)


def generate_endpoint(body: object) -> Endpoint:
    """Return what answers a request of ``/api/generate``, which need not be valid."""
    fields = body if isinstance(body, dict) else {}
    if fields.get("raw") or fields.get("template"):
        return _GENERATE_RAW
    return _GENERATE_INFILL if fields.get("suffix") else _GENERATE_CHAT
