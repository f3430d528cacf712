"""What is generated for a JSON schema is valid by it, whatever the model would rather write."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import openai
import pytest
import requests
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.support.processes import Server
from tests.support.random_schemas import WILD_SAMPLING, SchemaMaker, violations
from tests.support.stream_events import read_chunks

MESSAGES: list[Any] = [{"role": "user", "content": "Write whatever you like."}]
_TOKENS = 300
Answer = tuple[str, str | None]


class _Asker:
    """Asks for values of a schema in one way after the other."""

    def __init__(self, server: Server, http: requests.Session) -> None:
        self._url, self._http = server.url, http

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._http.post(f"{self._url}{path}", json=WILD_SAMPLING | body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _choice(self, body: dict[str, Any]) -> Any:
        body = {"messages": MESSAGES, "max_tokens": _TOKENS} | body
        return self._post("/v1/chat/completions", body)["choices"][0]

    def response_format(self, schema: dict[str, Any], seed: int) -> Answer:
        """Return the text of a chat completion, and why it ended."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        choice = self._choice({"response_format": form, "seed": seed})
        return choice["message"]["content"], choice["finish_reason"]

    def streamed(self, schema: dict[str, Any], seed: int) -> Answer:
        """Return the text of a streamed chat completion."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": MESSAGES, "max_tokens": _TOKENS, "response_format": form, "seed": seed, "stream": True}
        url = f"{self._url}/v1/chat/completions"
        chunks = read_chunks(self._http.post(url, json=WILD_SAMPLING | body, timeout=60))
        choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return text, choices[-1]["finish_reason"]

    def text_format(self, schema: dict[str, Any], seed: int) -> Answer:
        """Return the text of a response."""
        form = {"type": "json_schema", "name": "x", "schema": schema}
        body = {"input": "Write.", "text": {"format": form}, "seed": seed, "max_output_tokens": _TOKENS, "store": False}
        response = self._post("/v1/responses", body)
        text = "".join(part["text"] for item in response["output"] for part in item["content"])
        return text, "stop" if response["status"] == "completed" else "length"

    def forced_tool(self, schema: dict[str, Any], seed: int) -> Answer:
        """Return the arguments of a tool call that is forced."""
        tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
        choice = self._choice({"tools": [tool], "tool_choice": "required", "seed": seed})
        calls = choice["message"].get("tool_calls") or [{"function": {"arguments": ""}}]
        finished = choice["finish_reason"]
        return calls[0]["function"]["arguments"], "stop" if finished == "tool_calls" else finished

    def completion(self, schema: dict[str, Any], seed: int) -> Answer:
        """Return the text of llama.cpp's own completion."""
        answer = self._post("/completion", {"prompt": "x", "json_schema": schema, "seed": seed, "n_predict": _TOKENS})
        return answer["content"], "stop" if answer["stop_type"] == "eos" else "length"

    def ways(self) -> list[Callable[[dict[str, Any], int], Answer]]:
        """Return all ways to ask."""
        return [self.response_format, self.streamed, self.text_format, self.forced_tool, self.completion]


def _check_random_schemas(asker: _Asker, seeds: range, levels: int) -> int:
    """Check the answers to random schemas; return how many had come to their end."""
    finished = 0
    for seed in seeds:
        ask, schema = asker.ways()[seed % 5], SchemaMaker(random.Random(seed)).object_schema(levels)
        text, reason = ask(schema, seed)
        assert reason in ("stop", "length"), reason
        if reason == "stop":
            finished += 1
            assert violations(schema, json.loads(text)) == [], (seed, text)
    return finished


@pytest.fixture
def asker(server: Server, http: requests.Session) -> _Asker:
    """What asks the shared server."""
    return _Asker(server, http)


def test_answers_to_random_schemas_are_valid(asker: _Asker) -> None:
    assert _check_random_schemas(asker, range(5), levels=1) >= 3


@pytest.mark.slow
def test_answers_to_larger_random_schemas_are_valid(asker: _Asker) -> None:
    assert _check_random_schemas(asker, range(5, 20), levels=2) >= 6


class Colour(StrEnum):
    """An enumeration."""

    RED = "red"
    DEEP_BLUE = "deep blue"


class Node(BaseModel):
    """A model that contains itself."""

    label: Annotated[str, Field(pattern=r"^\w{1,5}$")]
    children: Annotated[list[Node], Field(max_length=1)]


class Circle(BaseModel):
    """One of two shapes."""

    kind: Literal["circle"]
    radius: Annotated[float, Field(gt=0, le=2.5)]


class Square(BaseModel):
    """The other shape."""

    kind: Literal["square"]
    side: Annotated[int, Field(ge=1, le=9, multiple_of=2)]


class Everything(BaseModel):
    """What pydantic says in schemas."""

    code: Annotated[str, Field(pattern=r"^\d{3}-[A-Z]{2}$")]
    day: datetime.date
    at: datetime.datetime
    share: Annotated[float, Field(ge=0.5, le=1.5)]
    count: Annotated[int, Field(ge=-3, lt=4)]
    colour: Colour
    nickname: Annotated[str, Field(min_length=2, max_length=6)] | None
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    pair: tuple[bool, int]
    tree: Node


class Pieces(BaseModel):
    """Some of it, without what only a grammar can say."""

    code: Annotated[str, Field(pattern=r"^\d{3}-[A-Z]{2}$")]
    day: datetime.date
    side: Square


class Share(BaseModel):
    """A number that has bounds."""

    share: Annotated[float, Field(ge=0.5, le=1.5)]


def _wild(seed: int, most: int) -> dict[str, Any]:
    sampling = {name: value for name, value in WILD_SAMPLING.items() if name not in ("temperature", "top_p")}
    return {"temperature": 2, "top_p": 1, "max_tokens": most, "extra_body": sampling | {"seed": seed}}


def test_model_of_pydantic_is_parsed_from_what_a_wild_model_writes(client: OpenAI, model: str) -> None:
    parsed = client.chat.completions.parse(
        model=model, messages=MESSAGES, response_format=Everything, **_wild(1, most=900)
    )
    assert isinstance(parsed.choices[0].message.parsed, Everything)


@pytest.mark.parametrize("kind", [Pieces, Share])
def test_response_is_parsed_into_a_model_of_pydantic(client: OpenAI, model: str, kind: type[BaseModel]) -> None:
    options = _wild(2, most=300)
    response = client.responses.parse(
        model=model, input="Write.", text_format=kind, max_output_tokens=options.pop("max_tokens"), **options
    )
    assert isinstance(response.output_parsed, kind)


def test_arguments_of_strict_tools_are_parsed_into_their_models(client: OpenAI, model: str) -> None:
    tools = [openai.pydantic_function_tool(Pieces), openai.pydantic_function_tool(Share)]
    called = client.chat.completions.parse(
        model=model, messages=MESSAGES, tools=tools, tool_choice="required", **_wild(3, most=300)
    )
    (call,) = called.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Pieces | Share)


def _refusals() -> Iterator[Any]:
    format_path = "response_format.json_schema.schema"
    for keyword, part in (
        ("multipleOf", {"type": "integer", "multipleOf": 7}),
        ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        ("pattern", {"type": "string", "pattern": r"^(a)\1$"}),
        ("$ref", {"$ref": "https://example.com/schema"}),
    ):
        yield pytest.param(part, f"{format_path}.properties.age.{keyword}", id=keyword)


@pytest.mark.parametrize(("part", "param"), list(_refusals()))
def test_schema_that_cannot_be_enforced_is_refused_by_its_part(
    server: Server, http: requests.Session, part: dict[str, Any], param: str
) -> None:
    schema = {"type": "object", "properties": {"age": part}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    refused = http.post(
        f"{server.url}/v1/chat/completions", json={"messages": MESSAGES, "response_format": form}, timeout=10
    )
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_json_schema", param)
    assert error["message"].startswith(f"Invalid schema for '{param}': ")


def test_only_strict_tools_are_refused(server: Server, http: requests.Session) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number", "minimum": 0}, "all": True, "i": {"not": {}}}}
    for strict, status in ((False, 200), (None, 200), (True, 400)):
        tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": strict}}
        body = {"messages": MESSAGES, "tools": [tool], "max_tokens": 1}
        answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=30)
        assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == "tools[0].function.parameters.properties.n.minimum"


def test_answer_that_is_cut_off_says_so(server: Server, http: requests.Session) -> None:
    schema = {"type": "object", "properties": {"share": {"type": "number", "minimum": 0, "maximum": 1}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema | {"required": ["share"]}}}
    body = {"messages": MESSAGES, "response_format": form, "max_tokens": 3}
    choice = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=30).json()["choices"][0]
    assert choice["finish_reason"] == "length"
