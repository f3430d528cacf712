"""Side requests are told by what programs send; what people write is none."""

from __future__ import annotations

import json

import pytest

from mistral_api.conversations.side_requests import is_side_request, summary_end
from mistral_api.payload_types.chat import ChatMessage, ContentPart

CLAUDE_CODE = {"User-Agent": "claude-cli/2.1.197 (external, cli)"}
STAMP = "x-anthropic-billing-header: cc_version=2.1.197.68e; cc_entrypoint=cli;\nYou are Claude Code.\n"
OPEN_WEBUI_TAIL = "\n### Chat History:\n<chat_history>\nUSER: Hi\nASSISTANT: Hello\n</chat_history>"


def system(text: str) -> ChatMessage:
    return {"role": "system", "content": text}


def user(*texts: str) -> ChatMessage:
    if len(texts) == 1:
        return {"role": "user", "content": texts[0]}
    parts: list[ContentPart] = [{"type": "text", "text": text} for text in texts]
    return {"role": "user", "content": parts}


def assistant(text: str) -> ChatMessage:
    return {"role": "assistant", "content": text}


HISTORY = [system("Be brief."), user("Hi"), assistant("Hello")]

SYSTEM_TEXTS = [
    STAMP + "Generate a concise, sentence-case title (3-7 words) that captures the main topic or goal.",
    STAMP + "Generate a short kebab-case name (2-4 words) that captures the main topic of this conversation. Use -.",
    "Analyze if this message indicates a new conversation topic. If it does, extract a title.",
    "Summarize this coding conversation in under 50 characters.",
    "You are a helpful AI assistant tasked with summarizing conversations.",
    "You are a title generator. You output ONLY a thread title. Nothing else.",
    "You are a context summarization agent. You are given a conversation between a user and an agent. Your goal",
    "Summarize what was done in this conversation. Write like a pull request description.\n\nRules:",
    "You are now acting as the managed memory extraction subagent for an AI coding assistant.",
    "You generate session recaps for a programming assistant CLI.",
    "You are the component that summarizes internal chat history into a given structure.",
    "Detect user language and write in the same language an extremely concise title for this conversation, which",
    "You are an assistant skilled in conversation. You need to summarize the user's conversation into a title within",
    f"Available Tools: {'[]' * 2000}\n\n"
    "Your task is to choose and return the correct tool(s) from the list of available tools based",
]

LAST_TEXTS = [
    "[SUGGESTION MODE: Suggest what the user might naturally type next into Claude Code.]\n\nFIRST: Look",
    "[SUGGESTION MODE: Suggest what the user might naturally type next.]\n\nFIRST: Read",
    "<system-reminder>This is a side question from the user. You must answer this question directly.",
    "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nYour task is to create a detailed summary of the",
    "Your task is to create a detailed summary of the conversation so far, paying close attention to the user's",
    "The user stepped away and is coming back. Recap in under 40 words, 1-2 plain sentences",
    "Describe your most recent action in 3-5 words using present tense (-ing). Do not use tools.",
    "Please write a 5-10 word title for the following conversation:\n\nHi",
    "You are performing a CONTEXT CHECKPOINT COMPACTION. Create a handoff summary",
    "Generate a concise, single-line task title of at most 36 characters. Do not answer the request.\n\nUser",
    "Provide a detailed prompt for continuing our conversation above. Focus on",
    "Analyze *only* the content and structure of your immediately preceding response (your last turn)",
    "Analyze this conversation and provide:\n1. The detected language of the conversation\n2. A concise title in",
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions. Only return",
    "Hold on, before you continue I need you to write me a checkpoint of everything so far. Your context",
    "Hold on again, update your checkpoint. Merge the new messages into your existing checkpoint and give me",
    "Generate a concise 3-7 word title for this conversation, omitting punctuation. Go straight to the title",
    "Given the following... please reply with a title for the chat that is 3-4 words in length, all words",
]

ONLY_TEXTS = [
    "### Task:\nGenerate a concise title summarizing the chat history.\n### Guidelines:" + OPEN_WEBUI_TAIL,
    "### Task:\nGenerate 1-3 broad tags categorizing the main themes of the chat history" + OPEN_WEBUI_TAIL,
    "### Task:\nPredict 3-5 useful messages this user might naturally send next" + OPEN_WEBUI_TAIL,
    "### Task:\nYou are an autocompletion system. Continue the text" + OPEN_WEBUI_TAIL + "\n#### Output:\n",
    "### Task:\nSummarize the conversation history that will be compacted out of the active chat context.\n\n###",
    "Your task is to reflect the speaker's likely facial expression through a fitting emoji.\n\nMessage: ```Hi```",
    'You have been provided with a set of responses from various models to the latest user query: "Hi"\n\n'
    "Your task is to synthesize these responses into a single, high-quality response.",
]


@pytest.mark.parametrize("text", SYSTEM_TEXTS)
def test_system_text_of_a_title_or_summary_makes_a_side_request(text: str) -> None:
    assert is_side_request({}, [system(text), user("Hi")])
    parts: list[ContentPart] = [{"type": "text", "text": text}]
    assert is_side_request({}, [{"role": "developer", "content": parts}, user("Hi")])
    assert is_side_request({}, [system("Another."), system(text), user("Hi"), assistant("Hello"), user("More")])


@pytest.mark.parametrize("text", LAST_TEXTS)
def test_last_message_of_a_program_makes_a_side_request(text: str) -> None:
    assert is_side_request({}, [*HISTORY, user(text)])
    assert is_side_request({}, [*HISTORY, user("what was the question\n", text)])
    assert is_side_request({}, [*HISTORY, user(text), system("Available agent types")])


@pytest.mark.parametrize("text", LAST_TEXTS + ONLY_TEXTS)
def test_prompt_of_a_program_makes_no_side_request_of_later_turns(text: str) -> None:
    assert not is_side_request({}, [user(text), assistant("A title"), user("Thanks, and a longer one?")])


@pytest.mark.parametrize("text", ONLY_TEXTS)
def test_task_of_open_webui_is_a_single_message(text: str) -> None:
    assert is_side_request({}, [user(text)])
    assert is_side_request({}, [system("Be brief."), user(text)])
    assert not is_side_request({}, [*HISTORY, user(text)])


@pytest.mark.parametrize(
    "text",
    [
        "### Task:\nWrite a poem about the sea.",
        "### Task:\nRespond to the user query using the provided context, incorporating inline citations.\n<context>\n"
        "Chat History\n</context>\n\nHow high is it?",
        "What does Open WebUI's prompt '### Task:\nGenerate a concise title' with <chat_history></chat_history> do?",
        "Generate a title for this conversation:\na talk on bees",
        "Summarize what was done in this conversation.",
        "Write a concise title for this conversation.",
        "Please summarize the conversation so far.",
        "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools. How old is the sun?",
        "What does [SUGGESTION MODE: Suggest what the user might naturally type next into Claude Code.] mean?",
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji.",
        "quota",
        "",
    ],
)
def test_what_people_write_is_no_side_request(text: str) -> None:
    assert not is_side_request({}, [user(text)])
    assert not is_side_request({}, [*HISTORY, user(text)])


@pytest.mark.parametrize(
    "text",
    [
        "You are a helpful assistant that writes titles.",
        "Never say: You are a title generator. You output ONLY a thread title.",
        "Available Tools: hammer, saw",
        STAMP + "You are an interactive agent that helps users with software engineering tasks.",
    ],
)
def test_ordinary_system_text_makes_no_side_request(text: str) -> None:
    assert not is_side_request(CLAUDE_CODE, [system(text), user("<system-reminder>\nToday is Monday.", "Hi")])


def turn(**fields: str) -> dict[str, str]:
    return {"originator": "codex-tui", "x-codex-turn-metadata": json.dumps(fields)}


@pytest.mark.parametrize(
    ("headers", "side"),
    [
        (turn(request_kind="turn", thread_source="user"), False),
        (turn(request_kind="turn", thread_source="subagent"), False),
        (turn(request_kind="prewarm"), False),
        (turn(request_kind="compaction", thread_source="user"), True),
        (turn(request_kind="turn", thread_source="thread_title"), True),
        ({"x-openai-subagent": "compact"}, True),
        ({"x-openai-subagent": "memory_consolidation"}, True),
        ({"x-openai-subagent": "review"}, False),
        ({"x-codex-turn-metadata": "no json"}, False),
        ({"x-codex-turn-metadata": "[]"}, False),
    ],
)
def test_codex_names_the_kind_of_a_request_in_its_headers(headers: dict[str, str], *, side: bool) -> None:
    assert is_side_request(headers, [*HISTORY, user("Go on")]) is side


def test_quota_check_of_claude_code_is_a_side_request() -> None:
    assert is_side_request(CLAUDE_CODE, [user("quota")])


def test_lists_without_a_last_user_message_are_no_side_requests() -> None:
    tool: ChatMessage = {"role": "tool", "tool_call_id": "call_1", "content": LAST_TEXTS[0]}
    empty: ChatMessage = {"role": "user", "content": None}
    lists: list[list[ChatMessage]] = [[], [system("Be brief.")], HISTORY, [*HISTORY, tool], [empty]]
    for messages in lists:
        assert not is_side_request({}, messages)


@pytest.mark.parametrize(
    "messages",
    [
        [
            user("<system-reminder>\nToday is Monday.\n</system-reminder>\n\n"),
            user("This session is being continued from a previous conversation that ran out of context. The summary"),
            assistant("Hello"),
            user("Go on"),
        ],
        [
            system("Be brief."),
            user("Hi"),
            user(
                "Another language model started to solve this problem and produced a summary of its thinking process. A"
            ),
            user("Go on"),
        ],
        [system("Be brief."), user("What did we do so far?"), assistant("## Objective"), user("Go on")],
        [user("<state_snapshot>"), assistant("Got it. Thanks for the additional context!"), user("Go on")],
    ],
)
def test_first_list_after_a_compaction_carries_a_summary_and_is_no_side_request(messages: list[ChatMessage]) -> None:
    assert summary_end(messages) is not None
    assert not is_side_request({}, messages)


def test_ordinary_history_carries_no_summary() -> None:
    assert summary_end([*HISTORY, user("Go on")]) is None
    assert summary_end([*HISTORY, user("What did we do so far?"), assistant("Little"), user("Go on")]) is None
    assert summary_end([user("What did we do so far?")]) is None
    assert summary_end([]) is None
