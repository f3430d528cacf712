"""Histories that come back slightly different, and what of them is stored."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine

from mistral_api.payload_types.chat import ChatMessage
from tests.support.conversations import assistant, branch_texts, deliver_batch, together, user
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, reply

Messages = list[ChatMessage]
Change = Callable[[Messages, int], Messages]


def _system(text: str) -> ChatMessage:
    return {"role": "system", "content": text}


def _each_answer(change: Callable[[str], Any]) -> Change:
    def changed(history: Messages, _turn: int) -> Messages:
        return [
            message | {"content": change(str(message["content"]))} if message["role"] == "assistant" else message
            for message in history
        ]

    return changed


def _renamed(history: Messages, turn: int) -> Messages:
    return [message | {"role": "developer"} if turn and message["role"] == "system" else message for message in history]


CHANGES: dict[str, tuple[Messages, Change, int]] = {
    "as it was": ([], lambda history, _: history, 10),
    "answers trimmed": ([], _each_answer(str.strip), 10),
    "a clock in the system message": ([], lambda history, turn: [_system(f"It is {turn}:00."), *history], 11),
    "two system messages, the first changes": (
        [], lambda history, turn: [_system(f"cch={turn}"), _system("Be brief."), *history], 12),
    "the last five messages": ([], lambda history, _: history[-5:], 10),
    "the last two messages": ([], lambda history, _: history[-2:], 10),
    "CRLF": ([], _each_answer(lambda text: text.replace("\n", "\r\n")), 10),
    "NFD": ([], _each_answer(lambda text: unicodedata.normalize("NFD", text)), 10),
    "without reasoning": ([], _each_answer(lambda text: text.partition("</think>")[2]), 10),
    "in parts": ([], _each_answer(lambda text: [{"type": "text", "text": text}]), 10),
    "a system message later": ([], lambda history, turn: [_system("Be brief."), *history] if turn > 1 else history, 10),
    "a system message among the others": (
        [], lambda history, turn: [*history[:-1], _system(f"Now {turn}."), history[-1]], 11),
    "developer for system": ([_system("Be brief.")], _renamed, 11),
    "the oldest replaced by a summary": (
        [], lambda history, turn: [user("Summary."), *history[-3:]] if turn > 2 else history, 10),
    "the first turn, a summary and the newest": (
        [], lambda history, turn: [*history[:2], user("Summary."), *history[-3:]] if turn > 3 else history, 10),
}  # fmt: skip


@together
@pytest.mark.parametrize("name", CHANGES)
def test_five_turns_are_stored_once(engine: Engine, together: bool, name: str) -> None:
    start, change, number = CHANGES[name]
    history, exchanges = list(start), []
    for turn in range(5):
        history.append(user(f"question {turn}"))
        answer = f"<think>well</think>\n caf\u00e9 {turn}\nline \n"
        exchanges.append(make_exchange(messages=change(list(history), turn), answers=reply(answer)))
        history.append(assistant(answer))
    deliver_batch(engine, exchanges, together)
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(number,)]
    assert rows_of(engine, "SELECT message_count FROM conversations") == [(number,)]
    texts = [text for text in branch_texts(engine, "one") if str(text).startswith(("question", "<think>"))]
    assert texts == [message["content"] for message in history if message["role"] != "system"]


@together
def test_turns_in_the_same_words_are_told_apart(engine: Engine, together: bool) -> None:
    history: Messages = []
    exchanges = []
    for _ in range(4):
        history = [*history, user("go on")]
        exchanges.append(make_exchange(messages=history, answers=reply("ok")))
        history = [*history, assistant("ok")]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == ["go on", "ok"] * 4
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(8,)]


@together
def test_middle_that_is_left_out_is_no_edit(engine: Engine, together: bool) -> None:
    history: Messages = []
    exchanges = []
    for turn in range(5):
        history = [*history, user(f"question {turn}")]
        sent = [*history[:2], *history[-3:]] if turn > 2 else history
        exchanges.append(make_exchange(messages=sent, answers=reply("ok" if turn % 2 == 0 else f"answer {turn}")))
        history = [*history, assistant("ok" if turn % 2 == 0 else f"answer {turn}")]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == [message["content"] for message in history]


def test_what_a_client_sends_differently_is_kept_with_the_turn(engine: Engine) -> None:
    history: Messages = [user("1")]
    deliver_batch(engine, [make_exchange(messages=[_system("at one"), *history], answers=reply(" one "))], False)
    history = [*history, assistant("one"), user("2")]
    deliver_batch(engine, [make_exchange(messages=[_system("at two"), *history], answers=reply("two"))], False)
    summary = [user("We counted."), assistant("two"), user("3")]
    deliver_batch(engine, [make_exchange(messages=[_system("at two"), *summary], answers=reply("three"))], False)
    more = [*summary, assistant("three"), user("4")]
    deliver_batch(engine, [make_exchange(messages=[_system("at two"), *more], answers=reply("four"))], False)
    stored = rows_of(engine, "SELECT content, sent FROM messages ORDER BY sequence")
    assert stored == [
        ("at one", None), ("1", None), (" one ", None),
        ("2", {"system": [_system("at two")], "answer": assistant("one")}), ("two", None),
        ("3", {"system": [_system("at two")], "summary": [user("We counted.")]}), ("three", None),
        ("4", None), ("four", None),
    ]  # fmt: skip


@together
def test_edited_message_with_later_ones_behind_it_begins_a_branch(engine: Engine, together: bool) -> None:
    history = [user("1"), assistant("one"), user("2"), assistant("two"), user("3")]
    edited = [history[0], assistant("uno"), *history[2:], assistant("three"), user("4")]
    exchanges = [
        *(make_exchange(messages=history[: 2 * n + 1], answers=reply(text)) for n, text in enumerate(("one", "two"))),
        make_exchange(messages=history, answers=reply("three")),
        make_exchange(messages=edited, answers=reply("four")),
    ]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == ["1", "uno", "2", "two", "3", "three", "4", "four"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(13,)]


@together
def test_shortened_tool_results_are_no_edit(engine: Engine, together: bool) -> None:
    def call(number: int) -> ChatMessage:
        function = {"name": "read", "arguments": f'{{"file": {number}}}'}
        tool_call: Any = {"id": f"c{number}", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [tool_call]}

    def result(number: int, text: str) -> ChatMessage:
        return {"role": "tool", "tool_call_id": f"c{number}", "content": text}

    exchanges, history = [], [user("Read.")]
    for number in range(4):
        sent = [message if message["role"] != "tool" else message | {"content": "cleared"} for message in history[:-2]]
        exchanges.append(make_exchange(messages=[*sent, *history[-2:][-len(history) :]], answers=[call(number)]))
        history += [call(number), result(number, f"long {number}")]
    deliver_batch(engine, exchanges, together)
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(8,)]
    assert [text for text in branch_texts(engine, "one") if text] == ["Read.", "long 0", "long 1", "long 2"]


@together
def test_history_that_fits_nowhere_begins_a_branch_at_the_root(engine: Engine, together: bool) -> None:
    exchanges = [
        make_exchange(messages=[_system("Be brief."), user("hi")], answers=reply("hello")),
        make_exchange(messages=[_system("Be kind."), user("a"), assistant("b"), user("c")], answers=reply("d")),
    ]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == ["Be brief.", "a", "b", "c", "d"]
    assert rows_of(engine, "SELECT sent FROM messages WHERE content = '\"a\"'") == [
        ({"system": [_system("Be kind.")]},)
    ]


@together
@pytest.mark.parametrize("kept", ["Once upon a", "Once upon a time, there"], ids=["less", "more"])
def test_stopped_answer_is_recognised_by_its_beginning(engine: Engine, together: bool, kept: str) -> None:
    history = [user("tell"), assistant(kept), user("go on")]
    exchanges = [
        make_exchange(messages=history[:1], answers=reply("Once upon a time"), answer_status="interrupted"),
        make_exchange(messages=history, answers=reply("There was")),
    ]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == ["tell", "Once upon a time", "go on", "There was"]
    assert rows_of(engine, "SELECT sent FROM messages WHERE content = '\"go on\"'") == [({"answer": assistant(kept)},)]


@together
def test_first_request_sent_again_after_a_failure_is_stored_once(engine: Engine, together: bool) -> None:
    failed = [make_exchange(messages=[user("hi")], answer_status="failed", status=502) for _ in range(2)]
    deliver_batch(engine, [*failed, make_exchange(messages=[user("hi")], answers=reply("hello"))], together)
    assert rows_of(engine, "SELECT content, status FROM messages ORDER BY sequence") == [
        ("hi", "complete"), ("hello", "complete"),
    ]  # fmt: skip


@together
def test_client_that_resends_everything_edits_and_regenerates_its_first_question(
    engine: Engine, together: bool
) -> None:
    first = make_exchange(messages=[user("hi")], answers=reply("hello"), resends_history=True)
    again = make_exchange(messages=[user("hi")], answers=reply("hey"), resends_history=True)
    deliver_batch(engine, [first, again], together)
    assert branch_texts(engine, "one") == ["hi", "hey"]
    edited = make_exchange(messages=[user("ho")], answers=reply("hum"), resends_history=True)
    deliver_batch(engine, [edited], together)
    assert branch_texts(engine, "one") == ["hi", "hey"]  # it may as well be a request for a title
    more = [user("ho"), assistant("hum"), user("so?")]
    deliver_batch(engine, [make_exchange(messages=more, answers=reply("so"), resends_history=True)], together)
    assert branch_texts(engine, "one") == ["ho", "hum", "so?", "so"]
    assert rows_of(engine, "SELECT count(*) FROM messages") == [(7,)]


@together
def test_side_request_is_never_part_of_the_main_line(engine: Engine, together: bool) -> None:
    title = make_exchange(messages=[user("A title?")], answers=reply("Hi"), resends_history=True, side_request=True)
    start = [user("hi"), assistant("hello")]
    exchanges = [
        title,
        make_exchange(messages=start[:1], answers=reply("hello"), resends_history=True),
        make_exchange(messages=[*start, user("Tags?")], answers=reply("[]"), resends_history=True, side_request=True),
    ]
    deliver_batch(engine, exchanges, together)
    assert branch_texts(engine, "one") == ["hi", "hello"]
    assert rows_of(engine, "SELECT title, message_count FROM conversations") == [("hi", 6)]


def test_conversations_without_digests_get_them_when_they_are_continued(engine: Engine) -> None:
    start = [_system("Be brief."), user("hi"), assistant("hello"), user("why?")]
    for number in (2, 4):
        deliver_batch(
            engine, [make_exchange(messages=start[:number], answers=reply(f"{'hello' * (number == 2)}"))], True
        )
    before = rows_of(engine, "SELECT digest, depth FROM messages ORDER BY sequence")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE messages SET digest = NULL, depth = NULL, framing = NULL")
    window = [_system("Be brief."), user("why?"), assistant(""), user("so?")]
    deliver_batch(engine, [make_exchange(messages=window, answers=reply("so"))], False)
    assert rows_of(engine, "SELECT digest, depth FROM messages ORDER BY sequence")[: len(before)] == before
    assert branch_texts(engine, "one") == ["Be brief.", "hi", "hello", "why?", "", "so?", "so"]
    assert rows_of(engine, "SELECT count(*) FROM messages WHERE sent IS NOT NULL") == [(0,)]
