"""Grammars and JSON schemas that would stop the engine are refused, and nobody else notices them."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Any

import pytest
import requests

from tests.support.error_shape import assert_error_shape
from tests.support.processes import Server, wait_for

HI = [{"role": "user", "content": "Hi"}]
EIGHT_LOOPS = "[a-z]* " * 8
# No two repetitions follow each other here, but a word of n letters can be read in six to the power of n ways.
AMBIGUOUS_GRAMMAR = 'root ::= "x" (' + " | ".join(f'[a-z] "{digit}"?' for digit in range(6)) + ')+ "!"'


def _object_with(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


LONG_ENUM = _object_with({"enum": [f"word{number}" for number in range(9_000)]})
# As many as a body may have in one object; with more of them the body is refused before.
MANY_OPTIONAL = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1_000)}}
AMBIGUOUS_PATTERN = _object_with({"type": "string", "pattern": "^" + "[a-z]*" * 30 + "$"})
# A trial finds this out.
PARALLEL_OBJECTS = {
    "anyOf": [
        {"type": "object", "properties": {f"k{number}": {"type": "string"} for number in range(12)}} for _ in range(200)
    ]
}
COSTLY_SCHEMAS = {
    "enum": LONG_ENUM,
    "optional": MANY_OPTIONAL,
    "pattern": AMBIGUOUS_PATTERN,
    "parallel": PARALLEL_OBJECTS,
}


def _chat(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return "/v1/chat/completions", {"messages": HI, "response_format": form}, "response_format.json_schema.schema"


def _json_object(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    form = {"type": "json_object", "schema": schema}
    return "/v1/chat/completions", {"messages": HI, "response_format": form}, "response_format.schema"


def _tool(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"messages": HI, "tools": tools, "tool_choice": "required"}
    return "/v1/chat/completions", body, "tools[0].function.parameters"


def _template(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return "/apply-template", _tool(schema)[1], "tools[0].function.parameters"


def _function(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    body = {"messages": HI, "functions": [{"name": "f", "parameters": schema}]}
    return "/v1/chat/completions", body, "functions[0].parameters"


def _completion(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return "/completion", {"prompt": "x", "json_schema": schema}, "json_schema"


def _response_text(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    body = {"input": "Hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": schema}}}
    return "/v1/responses", body, "text.format.schema"


def _response_tool(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    body = {"input": "Hi", "tools": [{"type": "function", "name": "f", "parameters": schema}]}
    return "/v1/responses", body, "tools[0].parameters"


def _input_tokens(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return "/v1/responses/input_tokens", _response_tool(schema)[1], "tools[0].parameters"


def _anthropic_tool(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    body = {"messages": HI, "max_tokens": 5, "tools": [{"name": "f", "input_schema": schema}]}
    return "/v1/messages", body, "tools[0].input_schema"


FORMS = (
    _chat,
    _json_object,
    _tool,
    _template,
    _function,
    _completion,
    _response_text,
    _response_tool,
    _input_tokens,
    _anthropic_tool,
)


def _refusal(server: Server, path: str, body: dict[str, Any]) -> tuple[requests.Response, float]:
    """Return an answer and its seconds. A trial to which a busy machine gave no processor time is made again."""
    for _ in range(6):
        began = time.monotonic()
        answer = requests.post(server.url + path, json=body, timeout=60)
        seconds = time.monotonic() - began
        if answer.status_code != 503 or answer.json()["error"]["code"] != "overloaded":
            break
        time.sleep(1)
    return answer, seconds


class _Stream:
    """A stream of another client: the longest time between two of its pieces, in seconds."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.longest_gap = 0.0
        self.pieces = 0

    def __enter__(self) -> _Stream:
        self._thread.start()
        wait_for(lambda: self.pieces >= 5, "the beginning of the stream")
        self.longest_gap = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        body = {"messages": HI, "stream": True, "max_tokens": 3_000, "ignore_eos": True}
        with requests.post(self._server.url + "/v1/chat/completions", json=body, stream=True, timeout=60) as answer:
            last = time.monotonic()
            for _ in answer.iter_content(None):
                now = time.monotonic()
                self.longest_gap, last = max(self.longest_gap, now - last), now
                self.pieces += 1
                if self._stop.is_set():
                    return


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/completion", {"prompt": "x", "grammar": f"root ::= a a a a a a\na ::= {EIGHT_LOOPS}"}, "grammar"),
        ("/completion", {"prompt": "x", "grammar": AMBIGUOUS_GRAMMAR}, "grammar"),
        _chat(LONG_ENUM),
        _chat(MANY_OPTIONAL),
        _chat(AMBIGUOUS_PATTERN),
        _chat(PARALLEL_OBJECTS),
    ],
    ids=["grammar", "grammar for a trial", "enum", "optional", "pattern", "parallel"],
)
def test_killer_is_refused_in_time_while_another_stream_goes_on(
    server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    restarts = server.health()["model_server"]["restarts"]
    with _Stream(server) as stream:
        answer, seconds = _refusal(server, path, {"n_predict": 16, **body})
        again, seconds_again = _refusal(server, path, {"n_predict": 16, **body})
    assert answer.status_code == again.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == "constraint_too_costly"
    assert error["param"].startswith(param)
    # Unrefused, each of them stops the model server for half a minute and more.
    assert max(seconds, seconds_again, stream.longest_gap) < 15
    assert server.health()["model_server"]["restarts"] == restarts


@pytest.mark.parametrize("schema", COSTLY_SCHEMAS.values(), ids=COSTLY_SCHEMAS)
@pytest.mark.parametrize("form", FORMS)
def test_costly_schema_is_refused_in_every_place_that_holds_one(
    server: Server, schema: dict[str, Any], form: Any
) -> None:
    path, body, param = form(schema)
    answer, _ = _refusal(server, path, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    if path != "/v1/messages":
        assert_error_shape(answer.json(), code="constraint_too_costly")


def test_costly_grammar_of_a_tool_in_an_item_is_refused(server: Server) -> None:
    word = " | ".join(f'LETTER "{digit}"?' for digit in range(6))
    grammar = f'start: "(" start ")" | word\nword: ({word})+ "!"\nLETTER: /[a-z]/'
    form = {"type": "grammar", "syntax": "lark", "definition": grammar}
    loaded = {"type": "additional_tools", "tools": [{"type": "custom", "name": "nest", "format": form}]}
    body = {"input": [{"role": "user", "content": "Hi"}, loaded], "tool_choice": "required", "max_output_tokens": 4}
    answer, _ = _refusal(server, "/v1/responses", body)
    assert answer.status_code == 400, answer.text
    assert_error_shape(answer.json(), code="constraint_too_costly", param="input[1].tools[0].format")


def _agent_tools(number: int) -> list[dict[str, Any]]:
    """Tools such as coding agents send: paths, commands, edits, nested lists, words to choose from."""
    edit = {
        "type": "object",
        "properties": {
            "old_string": {"type": "string", "minLength": 1},
            "new_string": {"type": "string"},
            "replace_all": {"type": "boolean", "default": False},
        },
        "required": ["old_string", "new_string"],
        "additionalProperties": False,
    }
    parameters = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The absolute path."},
            "command": {"type": "array", "items": {"type": "string"}},
            "timeout": {"type": "number", "minimum": 0, "maximum": 600_000},
            "mode": {"type": "string", "enum": ["content", "files_with_matches", "count"]},
            "country": {"type": "string", "enum": [f"Country {each}" for each in range(200)]},
            "edits": {"type": "array", "minItems": 1, "items": edit},
            "url": {"type": "string", "format": "uri"},
            "options": {"anyOf": [{"type": "null"}, {"type": "object", "additionalProperties": {"type": "string"}}]},
            **{f"flag_{each}": {"type": "boolean"} for each in range(12)},
        },
        "required": ["file_path"],
        "additionalProperties": False,
    }
    return [
        {"type": "function", "function": {"name": f"tool_{each}", "parameters": parameters | {"title": f"Tool {each}"}}}
        for each in range(number)
    ]


def test_sixty_tools_of_an_agent_pass_without_a_trial(server: Server) -> None:
    body = {"messages": HI, "max_tokens": 3, "tools": _agent_tools(60)}
    for _ in range(2):
        answer, seconds = _refusal(server, "/v1/chat/completions", body)
        assert answer.status_code == 200, answer.text
    assert seconds < 20


def _thousand_words(first: int) -> dict[str, Any]:
    numbers = range(first, first + 1_000)
    return {"type": "string", "enum": [hashlib.sha256(b"%d" % each).hexdigest()[:8] for each in numbers]}


def test_long_enum_passes_where_it_is_met_once(server: Server) -> None:
    """OpenAI takes 1,000 words in all enums of a schema (its guide to structured outputs)."""
    for first in (0, 1_000, 2_000):  # a busy machine may make one of them look costly
        words = _thousand_words(first)
        path, body, _ = _chat(_object_with(words))
        answer, _ = _refusal(server, path, {"max_tokens": 3, **body})
        if answer.status_code == 200:
            break
    assert answer.status_code == 200, answer.text
    referred = {
        "type": "object",
        "properties": {"w": words, "list": {"type": "array", "items": {"$ref": "#/properties/w"}}},
    }
    for costly in ({"type": "array", "items": words}, _object_with({"type": "array", "items": words}), words, referred):
        path, body, _ = _chat(costly)
        answer, _ = _refusal(server, path, {"max_tokens": 3, **body})
        assert answer.status_code == 400, answer.text
        assert_error_shape(answer.json(), code="constraint_too_costly")


def test_costly_part_is_found_whose_references_begin_at_the_whole_schema(server: Server) -> None:
    many = {f"p{number}": {"type": "string"} for number in range(450)}
    deep = _object_with(_object_with({"type": "object", "properties": many | {"again": {"$ref": "#/properties/a"}}}))
    path, body, _ = _chat(deep)
    answer, _ = _refusal(server, path, {"max_tokens": 3, **body})
    assert answer.status_code == 400, answer.text
    assert_error_shape(answer.json(), code="constraint_too_costly")


@pytest.mark.parametrize(
    "pattern", ["(", "[", "^(a$", "\\", "^(?=a)b$", "*", "^a{5,$", "^[z-a]$", "(?P<x>a)\\1", "^\\p{L}+$", "{2}"]
)
@pytest.mark.parametrize("form", [_tool, _chat, _completion, _template])
def test_no_pattern_ends_the_engine(server: Server, form: Any, pattern: str) -> None:
    """The kind of vLLM's CVE-2025-48944: a tool with a malformed pattern or type ended its engine."""
    pid = server.health()["model_server"]["pid"]
    path, body, _ = form(_object_with({"type": "string", "pattern": pattern}))
    answer, _ = _refusal(server, path, {"max_tokens": 3, "n_predict": 3, **body})
    assert answer.status_code in (200, 400), answer.text
    assert server.health()["model_server"]["pid"] == pid


@pytest.mark.parametrize("kind", ["something", "", ["string", "something"], 5, {"a": 1}, None])
def test_no_type_ends_the_engine(server: Server, kind: Any) -> None:
    pid = server.health()["model_server"]["pid"]
    for form in (_tool, _chat):
        path, body, _ = form(_object_with({"type": kind}))
        answer, _ = _refusal(server, path, {"max_tokens": 3, **body})
        assert answer.status_code in (200, 400), answer.text
    assert server.health()["model_server"]["pid"] == pid


@pytest.mark.parametrize(
    "arguments",
    [
        {"tokenize": True},
        {"chat_template": "{% for i in range(10 ** 9) %}x{% endfor %}"},
        {"add_generation_prompt": "no", "messages": [], "tools": "x"},
        {"enable_thinking": {"a": [1]}},
    ],
)
def test_no_template_argument_stops_the_engine(server: Server, arguments: dict[str, Any]) -> None:
    """The kind of vLLM's CVE-2025-62426: arguments of the template took the place of the engine's own."""
    pid = server.health()["model_server"]["pid"]
    body = {"messages": HI, "max_tokens": 3, "chat_template_kwargs": arguments}
    answer, seconds = _refusal(server, "/v1/chat/completions", body)
    assert answer.status_code in (200, 400), answer.text
    assert seconds < 10
    assert server.health()["model_server"]["pid"] == pid
