"""Requests that a client makes beside the conversation: for titles, tags, suggestions, summaries and the like.

Chat programs ask the same server also for what they show around a conversation, often with the same session id and
the same history. Such a *side request* is no part of the main line. :func:`is_side_request` tells it by what the
program sends:

- Its headers: Codex names the kind of a request in ``x-codex-turn-metadata`` and ``x-openai-subagent``.
- Its system text: a line in its beginning that begins as the system prompt of a title or summary generator does.
- Its last message, or one text part of it, begins as a prompt does that the program itself puts there. Where few
  words begin such a prompt, further words must follow that no person writes beside them. Open WebUI's prompts begin
  with "### Task:", as a person's may, and as its own prompt for retrieved documents does, which is the main line; so
  they must also carry a ``<chat_history>`` and be the only message.

Only whole sentences of the programs count, so that a person's message is hardly ever taken for one. Sources:

=============== ======================================================================================================
program         where the prompts stand
=============== ======================================================================================================
Claude Code     npm @anthropic-ai/claude-code 2.1.197: requests seen (session title, /rename, suggestion, /btw,
                /compact) and program text (recap, agent summary, quota check); program text of 1.0.60 and 2.0.14
                (topic, titles, summary)
Codex           npm @openai/codex 0.171.0: requests seen (task title, /compact); openai/codex
                codex-rs/core/templates/compact/prompt.md, codex-rs/codex-api/src/requests/headers.rs
opencode        npm opencode-ai 1.18.33: requests seen (title, compaction); program text (summary); the older
                compaction prompt of sst/opencode packages/opencode/src/session/compaction.ts
qwen-code       npm @qwen-code/qwen-code 0.15.10: request seen (memory extraction); program text (title, recap,
                suggestion, next speaker, compression, which are Gemini CLI's as well)
Open WebUI      PyPI open-webui 0.12.4: open_webui/config.py (DEFAULT_…_PROMPT_TEMPLATE),
                open_webui/utils/context_compaction.py
LibreChat       npm @librechat/agents 3.2.21: src/utils/title.ts, src/summarization/node.ts; older:
                danny-avila/LibreChat api/app/clients/OpenAIClient.js (titleConvo)
Zed             zed-industries/zed crates/agent_settings/src/prompts/summarize_thread_prompt.txt
Continue        continuedev/continue core/util/chatDescriber.ts
Cherry Studio   CherryHQ/cherry-studio src/renderer/src/config/prompts.ts (SUMMARIZE_PROMPT)
=============== ======================================================================================================

A prompt that an operator of Open WebUI or LibreChat has rewritten is not known here.

:func:`summary_end` tells the opposite case: the first list after a compaction. It belongs to the main line,
although it may repeat no answer at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import orjson

from mistral_api.conversations.client_sessions import Headers, RequestHeaders, find_client
from mistral_api.payload_types.chat import ChatMessage

# How a line at the beginning of the system text begins. Claude Code puts two lines of its own before it.
_SYSTEM_LINES = tuple(
    "\n" + line
    for line in (
        "Generate a concise, sentence-case title (3-7 words) that captures ",  # Claude Code, qwen-code
        "Generate a short kebab-case name (2-4 words) that captures the main topic ",  # Claude Code
        "Analyze if this message indicates a new conversation topic.",  # Claude Code 1 and 2.0
        "Summarize this coding conversation in under ",  # Claude Code 1 and 2.0
        "You are a helpful AI assistant tasked with summarizing conversations.",  # Claude Code, older opencode
        "You are a title generator. You output ONLY a thread title.",  # opencode
        "You are a context summarization agent. You are given a conversation between a user and an agent.",  # opencode
        "Summarize what was done in this conversation. Write like a pull request description.",  # opencode
        "You are now acting as the managed memory extraction subagent",  # qwen-code
        "You generate session recaps for a programming assistant CLI.",  # qwen-code
        "You are the component that summarizes internal chat history into a given structure.",  # qwen-code, Gemini CLI
        "Detect user language and write in the same language an extremely concise title for ",  # LibreChat
        # Cherry Studio
        "You are an assistant skilled in conversation. You need to summarize the user's conversation into a title",
    )
)
_SYSTEM_BEGINNING = 1000  # characters
# Open WebUI's choice of tools: how the system text begins, and what follows the list of tools.
_TOOL_CHOICE = ("Available Tools: ", "Your task is to choose and return the correct tool(s) from the list of available")

# How the last message begins, and what else must stand in it.
_LAST_MESSAGES = (
    ("[SUGGESTION MODE: Suggest what the user might naturally type next", ""),  # Claude Code, qwen-code
    ("<system-reminder>This is a side question from the user.", ""),  # Claude Code
    ("CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.", "Your task is to create a detailed summary of"),
    ("Your task is to create a detailed summary of the conversation so far, paying close attention to", ""),
    ("Your task is to create a detailed summary of this conversation. This summary will be placed at the start", ""),
    ("The user stepped away and is coming back. Recap in under 40 words", ""),  # Claude Code
    ("Describe your most recent action in 3-5 words using present tense", "Do not use tools."),  # Claude Code
    ("Generate a short kebab-case name (2-4 words) that captures the main topic", ""),  # Claude Code
    ("Please write a 5-10 word title for the following conversation:", ""),  # Claude Code 1 and 2.0
    ("You are performing a CONTEXT CHECKPOINT COMPACTION.", ""),  # Codex
    ("Generate a concise, single-line task title of at most ", "Do not answer the request."),  # Codex
    ("Provide a detailed prompt for continuing our conversation above.", ""),  # older opencode
    ("Analyze *only* the content and structure of your immediately preceding response", ""),  # qwen-code, Gemini CLI
    ("Analyze this conversation and provide:\n1. The detected language of the conversation\n2. A concise title", ""),
    ("Provide a concise, 5-word-or-less title for the conversation, using title case conventions.", ""),  # LibreChat
    ("Hold on, before you continue I need you to write me a checkpoint of everything so far.", ""),  # LibreChat
    ("Hold on again, update your checkpoint. Merge the new messages into your existing checkpoint", ""),  # LibreChat
    ("Generate a concise 3-7 word title for this conversation, omitting punctuation.", ""),  # Zed
    ("Given the following... please reply with a title for the chat that is 3-4 words in length", ""),  # Continue
)

# Open WebUI's tasks are a single message of the user. How it begins, and what else must stand in it.
_ONLY_MESSAGES = (
    ("### Task:\n", "<chat_history>", "</chat_history>"),
    ("### Task:\nSummarize the conversation history that will be compacted out of the active chat context.",),
    ("Your task is to reflect the speaker's likely facial expression through a fitting emoji.", "Message: ```"),
    (
        "You have been provided with a set of responses from various models to the latest user query:",
        "Your task is to synthesize these responses into a single, high-quality response.",
    ),
)

# What stands in the place of the oldest messages after a compaction, at the beginning of a message or text part (seen).
_SUMMARIES = (
    "This session is being continued from a previous conversation that ran out of context.",  # Claude Code
    "Another language model started to solve this problem and produced a summary of its thinking process.",  # Codex
)
_SUMMARY_QUESTION = "What did we do so far?"  # opencode puts it before its summary, at the beginning (seen)
_SUMMARY_REPLY = "Got it. Thanks for the additional context!"  # the answer of qwen-code and Gemini CLI to their summary

_SYSTEM_ROLES = ("system", "developer")
_MAIN_KINDS = ("", "turn", "prewarm")
_SIDE_SUBAGENTS = ("compact", "memory_consolidation")


def is_side_request(headers: Headers, messages: Sequence[ChatMessage]) -> bool:
    """Return whether a request is one that a client makes beside its conversation.

    ``messages`` is the whole sent list in OpenAI's form, the system text of other dialects as its first message.
    """
    return (
        _has_side_headers(RequestHeaders.of(headers))
        or _has_side_system_text(messages)
        or _ends_with_side_prompt(messages)
        or _is_quota_check(headers, messages)
    )


def summary_end(messages: Sequence[ChatMessage]) -> int | None:
    """Return the position of the last message of a summary that a known client has put in the place of older ones.

    None where there is no such summary. Codex then keeps the user's messages and drops all answers (seen), so no answer
    of ours need be in the list.
    """
    turns = [position for position, message in enumerate(messages) if message.get("role") not in _SYSTEM_ROLES]
    if len(turns) > 1 and list(_texts(messages[turns[0]])) == [_SUMMARY_QUESTION]:
        return turns[1]
    return next((position for position in reversed(turns) if _is_summary(messages[position])), None)


def _is_summary(message: ChatMessage) -> bool:
    return any(_is_summary_text(str(message.get("role")), text) for text in _texts(message))


def _is_summary_text(role: str, text: str) -> bool:
    return text.startswith(_SUMMARIES) if role == "user" else role == "assistant" and text == _SUMMARY_REPLY


def _has_side_headers(headers: RequestHeaders) -> bool:
    turn = _turn_metadata(headers.value("x-codex-turn-metadata"))
    return (
        headers.value("x-openai-subagent") in _SIDE_SUBAGENTS
        or turn.get("request_kind", "") not in _MAIN_KINDS
        or turn.get("thread_source") == "thread_title"
    )


def _turn_metadata(text: str) -> Mapping[str, object]:
    if not text:
        return {}
    try:
        fields: object = orjson.loads(text)
    except orjson.JSONDecodeError:  # a header of this name that Codex did not write
        return {}
    return fields if isinstance(fields, dict) else {}


def _has_side_system_text(messages: Sequence[ChatMessage]) -> bool:
    for message in messages:
        if message.get("role") not in _SYSTEM_ROLES:
            return False
        if any(_is_side_system_text(text) for text in _texts(message)):
            return True
    return False


def _is_side_system_text(text: str) -> bool:
    beginning = "\n" + text[:_SYSTEM_BEGINNING]
    return any(line in beginning for line in _SYSTEM_LINES) or (
        text.startswith(_TOOL_CHOICE[0]) and _TOOL_CHOICE[1] in text
    )


def _ends_with_side_prompt(messages: Sequence[ChatMessage]) -> bool:
    turns = _turns(messages)
    if not turns or turns[-1].get("role") != "user":
        return False
    texts = list(_texts(turns[-1]))
    if any(text.startswith(first) and further in text for text in texts for first, further in _LAST_MESSAGES):
        return True
    return len(turns) == 1 and any(_is_only_prompt(text) for text in texts)


def _is_only_prompt(text: str) -> bool:
    return any(text.startswith(words[0]) and all(word in text for word in words) for words in _ONLY_MESSAGES)


def _is_quota_check(headers: Headers, messages: Sequence[ChatMessage]) -> bool:
    """Return whether Claude Code asks for one token, to see whether it is let in."""
    return len(messages) == 1 and list(_texts(messages[0])) == ["quota"] and find_client(headers) == "claude-code"


def _turns(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the messages without system text, which Claude Code also puts after the user's message."""
    return [message for message in messages if message.get("role") not in _SYSTEM_ROLES]


def _texts(message: ChatMessage) -> Iterator[str]:
    """Yield the text of a message, or of each of its text parts, without white space at the ends."""
    content: object = message.get("content")
    if isinstance(content, str):
        yield content.strip()
    elif isinstance(content, list):
        yield from (
            part["text"].strip() for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
