"""Structured output through the openai package."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import openai
import orjson
import pytest
import requests
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import BaseModel

from tests.support.openai_clients import async_openai_client
from tests.support.processes import Server

MODEL = "SmolLM2-135M-Instruct.Q4_1"
MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Where is it cold, and how much?"}]


class Place(BaseModel):
    """A nested model: its schema has a ``$ref``."""

    kind: Literal["town", "mountain"]


class Weather(BaseModel):
    """The type that the answer is parsed into."""

    where: Place
    warm: bool


def test_openai_client_parses_a_completion_into_its_own_type(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=80, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_async_openai_client_parses_a_tool_call_and_a_stream(server: Server) -> None:
    async def both() -> tuple[Any, Any]:
        async with async_openai_client(server) as client:
            tool = openai.pydantic_function_tool(Weather)
            call = client.chat.completions.parse(
                model=MODEL, messages=MESSAGES, tools=[tool], tool_choice="required", max_tokens=80, temperature=0
            )
            stream = client.chat.completions.stream(
                model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=80, temperature=0
            )
            async with stream as events:
                return await call, await events.get_final_completion()

    called, streamed = asyncio.run(both())
    assert isinstance(called.choices[0].message.tool_calls[0].function.parsed_arguments, Weather)
    assert isinstance(streamed.choices[0].message.parsed, Weather)


def test_json_object_format_returns_an_object(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, response_format={"type": "json_object"}, max_tokens=12, temperature=0
    )
    assert (answer.choices[0].message.content or "").lstrip().startswith("{")


def test_schema_that_hangs_llama_cpp_is_refused_without_using_a_slot(server: Server, http: requests.Session) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 2}}}
    body = {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    refused = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=10)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_json_schema")
    assert error["param"] == "response_format.json_schema.schema.properties.a"
    assert server.slots_busy() == 0


@pytest.mark.parametrize("role", ["developer", "system"])
def test_developer_message_is_sent_as_a_system_message(server: Server, http: requests.Session, role: str) -> None:
    body = {"messages": [{"role": role, "content": "Be brief."}, *MESSAGES], "max_tokens": 1}
    body |= {"verbosity": "low", "service_tier": "auto", "prediction": {"type": "content", "content": "x"}}
    body |= {"reasoning_effort": "low", "safety_identifier": "me", "prompt_cache_key": "k", "web_search_options": {}}
    answer = http.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    read = answer.json()["usage"]["prompt_tokens"]
    assert read == len(_tokens(server, http, role))


def _tokens(server: Server, http: requests.Session, role: str) -> list[int]:
    """Return the tokens of the prompt that the model's template makes of a system message."""
    messages = [{"role": "system" if role == "developer" else role, "content": "Be brief."}, *MESSAGES]
    prompt = http.post(
        f"{server.model_url}/apply-template", json={"messages": messages}, headers=server.model_key, timeout=10
    ).json()["prompt"]
    body = {"content": prompt, "add_special": True, "parse_special": True}
    tokens: list[int] = orjson.loads(
        http.post(f"{server.model_url}/tokenize", json=body, headers=server.model_key, timeout=10).content
    )["tokens"]
    return tokens
