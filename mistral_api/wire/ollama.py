"""Requests and response bodies of Ollama's own API.

Fields are those of Ollama's ``api/types.go`` and ``docs/api.md`` (ollama/ollama, version 0.32.15). A request becomes
one of OpenAI's or llama.cpp's, and what the two have in common is checked again as theirs. Options for the start of a
model (``num_gpu``, ``num_thread`` …) are taken and mean nothing here.
"""

from __future__ import annotations

import re
from typing import ClassVar

from marshmallow import INCLUDE, validates_schema

from mistral_api.payload_types import PayloadT
from mistral_api.payload_types.ollama import (
    OllamaChatPayload,
    OllamaEmbedPayload,
    OllamaGeneratePayload,
)
from mistral_api.wire.chat import MOST_MESSAGES
from mistral_api.wire.constraints import JSON_SCHEMA
from mistral_api.wire.container_shapes import Array, Object, nullable, optional, required
from mistral_api.wire.embeddings import MOST_INPUTS
from mistral_api.wire.field_errors import refuse
from mistral_api.wire.media import MEDIA_DATA
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.sampling import (
    INT64,
    LARGEST,
    LONGEST_LOOK_BACK,
    METADATA,
    SESSION_ID,
    SESSION_ID_LENGTH,
    STOP_CHARACTERS,
    STOPS,
)
from mistral_api.wire.shapes import (
    COUNT,
    INT32_MAX,
    TOKEN,
    AnyOf,
    Boolean,
    Component,
    Constant,
    Integer,
    Number,
    StringEnum,
    Text,
)
from mistral_api.wire.tools import FUNCTION_FIELDS, MOST_TOOLS

# A context is three bytes of compressed messages in each number: this is the largest that one request may bring.
MOST_CONTEXT = 2**18
MOST_IMAGES = 256
TEMPLATE_CHARACTERS = 65_536
_NUMBER = r"\d{1,18}(?:\.\d{1,9})?"
# Durations as Go writes them ("5m", "1h30m", "-1s"), or seconds.
_DURATION = re.compile(rf"[+-]?(?:{_NUMBER}|(?:{_NUMBER}(?:ns|us|µs|ms|s|m|h)){{1,8}})")
_KEEP_ALIVE = AnyOf(Number(), Text(1, 64, _DURATION), expected="a number of seconds or a duration such as '5m'")
_THINK = AnyOf(Boolean(), StringEnum("low", "medium", "high", "max"), expected="a boolean or a level")
_FORMAT = AnyOf(StringEnum("", "json"), JSON_SCHEMA, expected="'json' or a JSON schema")

_STOP = Text(0, STOP_CHARACTERS)
_OPTIONS = Object(
    nullable(
        num_ctx=Integer(0, INT32_MAX),
        num_keep=Integer(-1, INT32_MAX),
        num_predict=Integer(-2, INT32_MAX),
        seed=Integer(*INT64),
        temperature=Number(0, 2),
        top_k=Integer(-1, INT32_MAX),
        top_p=Number(0, 1),
        min_p=Number(0, 1),
        typical_p=Number(0, 1),
        repeat_last_n=Integer(-1, LONGEST_LOOK_BACK),
        repeat_penalty=Number(0, LARGEST),
        presence_penalty=Number(-2, 2),
        frequency_penalty=Number(-2, 2),
        mirostat=Integer(0, 2),
        mirostat_tau=Number(0, LARGEST),
        mirostat_eta=Number(0, LARGEST),
        stop=AnyOf(_STOP, Array(_STOP, 0, STOPS), expected="a string or an array of strings"),
    ),
    drop_nulls=True,
)

_CALLED = Object(required(name=Text(1)), nullable(arguments=AnyOf(Object(), Text(), expected="an object")))
_CALL = Object(nullable(id=Text()), required(function=_CALLED), drop_nulls=True)
_IMAGES = Array(MEDIA_DATA, 0, MOST_IMAGES)
_MESSAGE = Object(
    required(role=StringEnum("system", "user", "assistant", "tool")),
    nullable(
        content=Text(),
        thinking=Text(),
        images=_IMAGES,
        tool_calls=Array(_CALL),
        tool_name=Text(),
        tool_call_id=Text(),
    ),
    drop_nulls=True,
)
_FUNCTION_TYPE = Constant(
    "function", "unsupported_value", "Unsupported value for '{param}': this server has tools of type 'function' only."
)
_TOOL = Object(nullable(type=_FUNCTION_TYPE), required(function=Object(*FUNCTION_FIELDS, drop_nulls=True)))


class _ModelRequest(RequestSchema[PayloadT]):
    """What all requests have. An empty or absent model is the one that is served."""

    class Meta:
        unknown = INCLUDE

    model = Field(Text(0, 256))
    keep_alive = Field(_KEEP_ALIVE)
    options = Field(_OPTIONS)


class _GenerationRequest(_ModelRequest[PayloadT]):
    """What chats and completions have in common."""

    stream = Field(Boolean())
    format = Field(_FORMAT)
    think = Field(_THINK)
    logprobs = Field(Boolean())
    top_logprobs = Field(Integer(0, 20))
    truncate = Field(Boolean())
    session_id = Field(Text(1, SESSION_ID_LENGTH, SESSION_ID))
    use_history = Field(Boolean())
    store = Field(Boolean())
    metadata = Field(METADATA)


class OllamaChatRequest(_GenerationRequest[PayloadT]):
    """A chat in Ollama's form; without messages it loads the model."""

    EXAMPLE: ClassVar[OllamaChatPayload] = {
        "messages": [{"role": "user", "content": "Hello, how are you?"}],
        "options": {"num_predict": 60},
        "stream": False,
    }

    messages = Field(Array(_MESSAGE, 0, MOST_MESSAGES))
    tools = Field(Array(_TOOL, 0, MOST_TOOLS))


class OllamaGenerateRequest(_GenerationRequest[PayloadT]):
    """A completion in Ollama's form; without a prompt it loads the model."""

    EXAMPLE: ClassVar[OllamaGeneratePayload] = {
        "prompt": "Why is the sky blue?",
        "options": {"num_predict": 60},
        "stream": False,
    }

    prompt = Field(Text())
    suffix = Field(Text())
    system = Field(Text())
    template = Field(Text(0, TEMPLATE_CHARACTERS))
    raw = Field(Boolean())
    context = Field(Array(TOKEN, 0, MOST_CONTEXT))
    images = Field(_IMAGES)

    @validates_schema
    def _raw_is_alone(self, data: OllamaGeneratePayload, **_options: object) -> None:
        fields = ("template", "system", "context")
        found = next((name for name in fields if data.get(name)), None)
        if data.get("raw") and found:
            refuse("mutually_exclusive_parameters", "'{param}' cannot be given with 'raw'.", field=found)

    @validates_schema
    def _images_need_a_chat(self, data: OllamaGeneratePayload, **_options: object) -> None:
        found = next((name for name in ("raw", "template", "suffix") if data.get(name)), None)
        if data.get("images") and found:
            refuse("not_supported", f"'{{param}}' cannot be given with '{found}'.", field="images")

    @validates_schema
    def _template_stands_for_a_chat(self, data: OllamaGeneratePayload, **_options: object) -> None:
        if data.get("template") and data.get("context"):
            refuse("not_supported", "'{param}' cannot be given with 'template'.", field="context")


class OllamaEmbedRequest(_ModelRequest[PayloadT]):
    """Embeddings in Ollama's form; without an input it loads the model."""

    EXAMPLE: ClassVar[OllamaEmbedPayload] = {"input": ["Why is the sky blue?", "Why is the grass green?"]}

    input = Field(AnyOf(Text(), Array(Text(1), 0, MOST_INPUTS), expected="a string or an array of strings"))
    truncate = Field(Boolean())
    dimensions = Field(Integer(0, INT32_MAX))


class OllamaEmbeddingsRequest(_ModelRequest[PayloadT]):
    """One embedding in Ollama's older form; without a prompt it loads the model."""

    EXAMPLE: ClassVar[OllamaEmbedPayload] = {"prompt": "Why is the sky blue?"}

    prompt = Field(Text())


class OllamaNamedModel(RequestSchema[dict[str, str]]):
    """A model by its name; ``name`` is the older field."""

    EXAMPLE: ClassVar[dict[str, str]] = {"model": ""}

    class Meta:
        unknown = INCLUDE

    model = Field(Text(0, 256))
    name = Field(Text(0, 256))
    stream = Field(Boolean())


_FIGURES = optional(
    total_duration=COUNT,
    load_duration=COUNT,
    prompt_eval_count=COUNT,
    prompt_eval_duration=COUNT,
    eval_count=COUNT,
    eval_duration=COUNT,
)
_ANSWERED_CALL = Object(required(function=Object(required(name=Text(), arguments=Object()))), optional(id=Text()))
_ANSWER = Object(
    required(role=Constant("assistant"), content=Text()), optional(thinking=Text(), tool_calls=Array(_ANSWERED_CALL))
)
_HEAD = required(model=Text(), created_at=Text(), done=Boolean())
_END = optional(done_reason=Text(), logprobs=Array(Object()), session_id=Text())
OLLAMA_CHAT = Component("OllamaChat", Object(_HEAD, required(message=_ANSWER), _FIGURES, _END))
OLLAMA_GENERATE = Component(
    "OllamaGenerate",
    Object(_HEAD, required(response=Text()), optional(thinking=Text(), context=Array(Integer())), _FIGURES, _END),
)
OLLAMA_ERROR = Component("OllamaError", Object(required(error=Text(1))).with_keywords(additionalProperties=False))

_DETAILS = Object(
    required(
        parent_model=Text(),
        format=Text(),
        family=Text(),
        families=Array(Text()),
        parameter_size=Text(),
        quantization_level=Text(),
    )
)
_LISTED = required(name=Text(1), model=Text(1), size=COUNT, digest=Text(), details=_DETAILS)
_CAPABILITIES = required(capabilities=Array(Text()))
OLLAMA_MODELS = Component(
    "OllamaModels",
    Object(required(models=Array(Object(_LISTED, required(modified_at=Text()), _CAPABILITIES)))),
)
OLLAMA_RUNNING = Component(
    "OllamaRunningModels",
    Object(required(models=Array(Object(_LISTED, required(expires_at=Text(), size_vram=COUNT, context_length=COUNT))))),
)
OLLAMA_SHOW = Component(
    "OllamaShow",
    Object(
        required(
            license=Text(),
            modelfile=Text(),
            parameters=Text(),
            template=Text(),
            system=Text(),
            details=_DETAILS,
            model_info=Object(),
            modified_at=Text(),
        ),
        _CAPABILITIES,
    ),
)
OLLAMA_VERSION = Component("OllamaVersion", Object(required(version=Text(1))))
OLLAMA_EMBEDDINGS = Component(
    "OllamaEmbeddings",
    Object(
        required(model=Text(), embeddings=Array(Array(Number()))),
        optional(total_duration=COUNT, load_duration=COUNT, prompt_eval_count=COUNT),
    ),
)
OLLAMA_EMBEDDING = Component("OllamaEmbedding", Object(required(embedding=Array(Number()))))
OLLAMA_PROGRESS = Component("OllamaProgress", Object(required(status=Constant("success"))))
# What creates, copies or deletes models: nothing of the request is looked at.
MODEL_CHANGE = Object()
