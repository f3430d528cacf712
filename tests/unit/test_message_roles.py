"""Normalize roles for chat templates that refuse some of them."""

from __future__ import annotations

import pytest

from mistral_api.generation.message_roles import needs_normalizing, normalize_roles
from mistral_api.payload_types.chat import ChatMessage, ContentPart, ToolCall
from mistral_api.upstream.loaded_model import ANYTHING, TemplateRules, read_template_rules

STRICT = TemplateRules(system=False, systems=False, alternates=True)
ONE_SYSTEM = TemplateRules(system=True, systems=False, alternates=True)
NO_SYSTEM = TemplateRules(system=False, systems=False, alternates=False)
IMAGE: ContentPart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL: ToolCall = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ROLES = {"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}

Messages = list[ChatMessage]


def _messages(written: str) -> Messages:
    """Return messages: ``u1`` is a user with text 1, ``c`` a tool call, ``a1c`` text 1 with a tool call."""
    made: Messages = []
    for word in written.split():
        if word == "c":
            made.append({"role": "assistant", "content": None, "tool_calls": [CALL]})
        elif word == "t":
            made.append({"role": "tool", "tool_call_id": "c", "content": "3"})
        else:
            made.append({"role": ROLES[word[0]], "content": word[1:].replace("+", "\n\n").replace("c", "")})
            if word.endswith("c"):
                made[-1]["tool_calls"] = [CALL]
    return made


@pytest.mark.parametrize(
    ("rules", "sent", "fitted"),
    [
        (STRICT, "u1 a1 u2", "u1 a1 u2"),
        (STRICT, "s0 u1", "u0+1"),
        (STRICT, "s0 d1 u2 a3 u4", "u0+1+2 a3 u4"),
        (STRICT, "s0", "u0"),
        (STRICT, "s0 a1 u2", "u0 a1 u2"),
        (STRICT, "u1 a1 s2 u3", "u1 a1 u2+3"),
        (STRICT, "u1 a1 s2 a3 u4", "u1 a1 u2 a3 u4"),
        (STRICT, "u1 u2 u3 a4 a5 u6", "u1+2+3 a4+5 u6"),
        (STRICT, "a1 u2", "a1 u2"),
        (ONE_SYSTEM, "s0 u1", "s0 u1"),
        (ONE_SYSTEM, "d0 u1", "d0 u1"),
        (ONE_SYSTEM, "s0 d1 s2 u3 u4", "s0+1+2 u3+4"),
        (ONE_SYSTEM, "s0 u1 s2", "s0 u1+2"),
        (ONE_SYSTEM, "u1 c t a2 a3 u4", "u1 c t a2+3 u4"),
        (ONE_SYSTEM, "u1 a2 c t a3 u4", "u1 a2c t a3 u4"),
        (ONE_SYSTEM, "u1 c c t t a2", "u1 c c t t a2"),
        (ONE_SYSTEM, "u1 c t u2", "u1 c t u2"),
        (NO_SYSTEM, "s0 u1 u2 u3", "u0+1 u2 u3"),
        (ANYTHING, "s0 u1 u2 s3 a4 a5", "s0 u1 u2 s3 a4 a5"),
    ],
)
def test_roles_are_normalized_to_the_template_rules(rules: TemplateRules, sent: str, fitted: str) -> None:
    messages = _messages(sent)
    assert normalize_roles(messages, rules) == _messages(fitted)
    assert messages == _messages(sent)


def test_merged_messages_join_texts_and_parts_in_order() -> None:
    text: ChatMessage = {"role": "user", "content": "one"}
    parts: list[ContentPart] = [{"type": "text", "text": "two"}, IMAGE]
    sent: Messages = [{"role": "system", "content": parts[:1]}, text, {"role": "user", "content": parts}, text]
    joined = normalize_roles(sent, STRICT)
    seam = {"type": "text", "text": "two\n\none\n\ntwo"}
    assert joined == [{"role": "user", "content": [seam, IMAGE, {"type": "text", "text": "one"}]}]
    images: Messages = [{"role": "user", "content": [IMAGE]}] * 2
    assert normalize_roles(images, STRICT) == [{"role": "user", "content": [IMAGE, IMAGE]}]


def test_merged_messages_keep_names_that_agree_and_join_reasoning() -> None:
    ann: ChatMessage = {"role": "user", "content": "hi", "name": "Ann"}
    assert normalize_roles([ann, ann], STRICT) == [ann | {"content": "hi\n\nhi"}]
    assert normalize_roles([ann, ann | {"name": "Bob"}], STRICT) == [{"role": "user", "content": "hi\n\nhi"}]
    thought: ChatMessage = {"role": "assistant", "content": "a", "reasoning_content": "x"}
    assert normalize_roles([thought, thought | {"reasoning_content": "y"}], STRICT)[0]["reasoning_content"] == "x\n\ny"
    assert normalize_roles([thought | {"content": ""}, thought], STRICT)[0]["content"] == "a"


@pytest.mark.parametrize(
    ("sent", "may"),
    [
        ("u1", False),
        ("u1 a2 u3", False),
        ("u1 c t t a2 u3", False),
        ("s0 u1", True),
        ("u1 u2", True),
        ("u1 a2 a3", True),
    ],
)
def test_only_some_message_lists_need_normalizing(sent: str, may: bool) -> None:
    assert needs_normalizing(_messages(sent)) is may


def test_template_rules_are_found_by_trial() -> None:
    tried: list[str] = []

    def takes(messages: Messages) -> bool:
        roles = "".join(message["role"][0] for message in messages)
        tried.append(roles)
        return "ss" not in roles and "as" not in roles and "uu" not in roles and "aa" not in roles

    assert read_template_rules(takes, {}) == ONE_SYSTEM
    assert read_template_rules(lambda _: True, {}).none
    assert read_template_rules(lambda _: True, {"supports_system_role": False}) == NO_SYSTEM
    assert len(tried) <= 5
