"""JSON text that the model was forced to write becomes tool calls, however it is split into chunks."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from mistral_api.generation.forced_tool_calls import InputStage, ToolCallStage
from mistral_api.payload_types.completions import Chunk
from mistral_api.upstream.transcript import Transcript

# Braces and white space that may be mistaken for those around the arguments.
ARGUMENTS = '{\n  "where": {"name": "a } b", "deep": {"x": 1\n} }\n}'
WRAPPED = f' {{\n "name": "find_\\"it\\"",\n "arguments" :  {ARGUMENTS}\n }}\n'


def _chunk(text: str | None = None, reason: str | None = None, **delta: Any) -> Chunk:
    said: Any = delta if text is None else delta | {"content": text}
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": said, "finish_reason": reason}]}


def _run_stage(pieces: list[str], only: str | None, reason: str = "stop") -> tuple[list[Any], Any, Any]:
    """Return all chunks, the call that a reader assembles from them, and the finish reason."""
    stage, transcript = ToolCallStage(only, "tool_calls"), Transcript()
    sent = [_chunk(None, role="assistant", content=None), *map(_chunk, pieces), _chunk(None, reason)]
    chunks = [orjson.loads(orjson.dumps(out)) for chunk in sent for out in stage.apply(chunk)]
    for chunk in chunks:
        transcript.add_chunk(chunk)
    answer = transcript.choices[0].answer
    return chunks, answer.get("tool_calls"), transcript.finish_reason


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize(
    ("text", "only", "name"), [(WRAPPED, None, 'find_"it"'), (f"\n {ARGUMENTS}", "look", "look")], ids=["some", "one"]
)
def test_forced_json_text_becomes_one_tool_call_however_it_is_chunked(
    text: str, only: str | None, name: str, seed: int
) -> None:
    dice, pieces, rest = random.Random(seed), [], text
    while rest:
        size = dice.randint(1, 1 + seed)
        pieces.append(rest[:size])
        rest = rest[size:]
    chunks, calls, reason = _run_stage(pieces, only)
    assert [call["function"] for call in calls] == [{"name": name, "arguments": ARGUMENTS}]
    assert reason == "tool_calls"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert len(deltas[1]["tool_calls"][0]["id"]) == 9
    assert all("id" not in call for delta in deltas[2:] for call in delta.get("tool_calls", ()))
    assert not any(delta.get("content") for delta in deltas)


@pytest.mark.parametrize("end", range(1, len(WRAPPED)))
def test_truncated_tool_call_keeps_the_arguments_written_so_far(end: int) -> None:
    _, calls, reason = _run_stage(list(WRAPPED[:end]), None, "length")
    assert reason == "length"
    begun = WRAPPED[:end].partition('"arguments" :  ')[2]
    written = calls[0]["function"]["arguments"] if calls else ""
    assert written.rstrip() == (begun if len(begun) < len(ARGUMENTS) else ARGUMENTS).rstrip()


@pytest.mark.parametrize("stage", [ToolCallStage("look", "stop"), InputStage("look", "stop")])
def test_a_call_that_is_cut_off_before_its_first_word_is_the_only_one_there_is(stage: ToolCallStage) -> None:
    transcript = Transcript()
    for sent in (_chunk("  " if type(stage) is ToolCallStage else ""), _chunk(None, "length")):
        for chunk in stage.apply(sent):
            transcript.add_chunk(chunk)
    (call,) = transcript.choices[0].answer["tool_calls"]
    assert call["function"] == {"name": "look", "arguments": "" if type(stage) is ToolCallStage else '{"input":"'}
    assert transcript.finish_reason == "length"


@pytest.mark.parametrize(("only", "thought"), [(None, {}), ("look", {"reasoning_content": "Hm."})])
def test_nothing_is_called_where_the_cut_leaves_open_what(only: str | None, thought: dict[str, str]) -> None:
    stage = ToolCallStage(only, "stop")
    sent = [_chunk(None, role="assistant", **thought), _chunk(None, "length")]
    deltas = [out["choices"][0]["delta"] for chunk in sent for out in stage.apply(chunk)]
    assert not any("tool_calls" in delta for delta in deltas)


def test_reasoning_and_usage_beside_a_forced_call_pass_through() -> None:
    stage = ToolCallStage("look", "stop")
    thought = stage.apply(_chunk(None, reasoning_content="Hm."))
    assert [chunk["choices"][0]["delta"] for chunk in thought] == [{"reasoning_content": "Hm."}]
    assert stage.apply({"choices": [], "usage": {"prompt_tokens": 1}}) == [
        {"choices": [], "usage": {"prompt_tokens": 1}}
    ]
    assert stage.apply(_chunk("")) == []


def test_forced_calls_of_several_choices_are_kept_apart() -> None:
    stage, transcript = ToolCallStage("look", "tool_calls"), Transcript(2)
    for index, text in ((0, '{"a"'), (1, "{"), (0, ":1}"), (1, "}")):
        for chunk in stage.apply({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}):
            transcript.add_chunk(chunk)
    written = [transcript.choices[index].answer["tool_calls"][0]["function"]["arguments"] for index in (0, 1)]
    assert written == ['{"a":1}', "{}"]
