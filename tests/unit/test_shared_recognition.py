"""Conversations are recognised in one index for all API processes, which get the same answers as one process alone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mistral_api.conversations.recognition import Recognition, RecognitionIndex
from mistral_api.conversations.shared_recognition import FirstRecognition, SharedRecognition, offer_index
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import INTERRUPTED, Exchange
from mistral_api.system.identifiers import new_id
from tests.support.dialogues import begin_turn, end_turn, said, take_turn
from tests.support.exchanges import make_exchange, reply
from tests.support.peers import joined_peers
from tests.support.processes import wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems")

LONG = "The capital of France is Paris, which lies on the Seine and has been the capital for many centuries."


class _Wire:
    """A peer whose messages become JSON. What it is told waits until it is flushed or asked. Counts the questions.

    ``late``: what is asked is done, but the answer comes too late.
    """

    ended = late = False

    def __init__(self) -> None:
        self._told: list[tuple[str, tuple[object, ...]]] = []
        self.handlers: dict[str, Callable[..., object]] = {}
        self.asked = 0
        self.bytes = 0

    def handle(self, method: str, handler: Callable[..., object], *, waits: bool = False) -> None:
        self.handlers[method] = handler

    def on_end(self, function: Callable[[], None]) -> None:
        """Nothing ends here."""

    def call(self, method: str, *arguments: object) -> Any:
        self.asked += 1
        self.flush()
        answer = self._do(method, arguments)
        if self.late:
            raise PeerGone("it did not answer in time")
        return answer

    def tell(self, method: str, *arguments: object) -> None:
        self._told.append((method, arguments))

    def flush(self) -> None:
        told, self._told = self._told, []
        for each in told:
            assert self._do(*each) in ("", None), "more was asked for, and nobody hears it"

    def _do(self, method: str, arguments: tuple[object, ...]) -> Any:
        data = orjson.dumps(arguments)
        self.bytes += len(data)
        return orjson.loads(orjson.dumps(self.handlers[method](*orjson.loads(data))))


@dataclass
class _Apart:
    """An index, and another process that asks it."""

    index: RecognitionIndex
    wire: _Wire
    other: SharedRecognition


def _apart() -> _Apart:
    index, wire = RecognitionIndex(), _Wire()
    offer_index(index, cast(Peer, wire), lambda: None)
    return _Apart(index, wire, SharedRecognition(cast(Peer, wire)))


def _found(recognition: Recognition, messages: list[ChatMessage], client: str | None = None) -> str | None:
    match = recognition.find("local", client, messages)
    return match.session_id if match else None


WORDS = st.sampled_from(["Hi", "Hello!", "ok", "Why?", LONG, LONG[:90], LONG[:40], ""])
ROLES = st.sampled_from(["user", "assistant", "user", "assistant", "tool", "system"])
MESSAGES = st.builds(lambda role, content: cast(ChatMessage, {"role": role, "content": content}), ROLES, WORDS)


# What all dialogues have in common.
TRANSCRIPT = said(*["Hi", "ok", "Why?", "ok", "Hi", "Hello!", "", "ok"] * 20)


def _drawn_list(data: st.DataObject, sent: list[list[ChatMessage]]) -> list[ChatMessage]:
    """Return a list of messages: an earlier one that has grown, or part of the transcript, perhaps cut or changed."""
    grows: int = data.draw(st.integers(0, 4))
    if sent and grows:
        messages = list(data.draw(st.sampled_from(sent)))
    else:
        messages = TRANSCRIPT[: data.draw(st.sampled_from([0, 1, 3, 11, 69, 81, 160]))]
    if messages and data.draw(st.integers(0, 3)) == 0:
        messages = messages[data.draw(st.integers(0, len(messages) - 1)) :]
    changed: bool = data.draw(st.booleans())
    if messages and changed:
        messages[data.draw(st.integers(0, len(messages) - 1))] = data.draw(MESSAGES)
    many = data.draw(st.sampled_from([0, 0, 0, 0, 70]))
    return [*messages, *data.draw(st.lists(MESSAGES, min_size=1, max_size=3)), *said("a tool says this") * many]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_another_process_recognises_what_one_alone_does(data: st.DataObject) -> None:
    alone, apart = RecognitionIndex(), _apart()
    sent: list[list[ChatMessage]] = []
    running: list[Exchange] = []
    for number in range(data.draw(st.integers(1, 12))):
        messages, client = _drawn_list(data, sent), data.draw(st.sampled_from([None, "x"]))
        exchange = make_exchange(f"s{number}", messages=messages, client=client)
        if data.draw(st.integers(0, 3)) == 0:  # the client names a session, and maybe a message
            exchange.session_id = f"s{data.draw(st.integers(0, number))}"
            exchange.continues = data.draw(st.sampled_from([None, new_id()]))
        else:
            match = alone.find_and_claim("local", client, messages, exchange.id)
            found = apart.other.find_and_claim("local", client, messages, exchange.id)
            assert (found and found.session_id) == (match and match.session_id)
            exchange.session_id = match.session_id if match else exchange.session_id
        running.append(exchange)
        ends: int = data.draw(st.integers(0, 2))
        for _ in range(min(ends, len(running))):
            _end(data, running.pop(data.draw(st.integers(0, len(running) - 1))), alone, apart, sent)
        if data.draw(st.integers(0, 5)) == 0:
            for index in (alone, apart.index):
                index.forget("local", exchange.session_id or "")
        assert apart.index.size == alone.size


def _end(
    data: st.DataObject, exchange: Exchange, alone: RecognitionIndex, apart: _Apart, sent: list[list[ChatMessage]]
) -> None:
    answer = data.draw(WORDS)
    exchange.answers = data.draw(st.sampled_from([None, reply(answer), [*reply(answer), *reply("Another one")]]))
    exchange.answer_status = data.draw(st.sampled_from(["complete", INTERRUPTED]))
    exchange.side_request = data.draw(st.integers(0, 9)) == 0
    alone.note(exchange)
    apart.other.note(exchange)
    sent.append([*(exchange.messages or []), {"role": "assistant", "content": answer}])


@pytest.mark.parametrize("back", [1, 2, 5, 9, 30, 31, 32, 33, 34, 41])
@pytest.mark.parametrize("cut", [None, 41], ids=["whole", "window"])
def test_of_conversations_with_the_same_end_the_same_one_is_continued(back: int, cut: int | None) -> None:
    """They differ in one message, so far back."""
    alone, apart = RecognitionIndex(), _apart()
    history, other = said(*["Hi", "ok"] * 30, "Why?"), said(*["Hi", "ok"] * 30, "Why?")
    other[-1 - back]["content"] = "Something else"
    for messages, name in ((history, "wanted"), (other, "other"), (history[-41:], "shorter"), (other[-50:], "longer")):
        for recognition in (alone, apart.other):
            recognition.note(make_exchange(name, messages=messages, answers=reply("Well.")))
    for number in range(6):
        messages = [*history[-(cut or 0) :], *said("", "Well.", f"And {number}?")[1:]]
        ids = [make_exchange(messages=messages).id for _ in range(2)]
        match = alone.find_and_claim("local", None, messages, ids[0])
        found = apart.other.find_and_claim("local", None, messages, ids[1])
        assert match is not None
        assert found is not None
        assert found.session_id == match.session_id


def test_what_has_ended_is_known_before_its_client_sees_the_end() -> None:
    apart = _apart()
    other = cast(RecognitionIndex, apart.other)
    sessions = [take_turn(other, said("Hi"), "Hello!") for _ in range(2)]
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == sessions[1]
    failing = begin_turn(other, said("Hi", "Hello!", "And?"))
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == sessions[0]
    end_turn(other, failing, None)
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == sessions[1]


def test_a_claim_that_was_made_too_late_ends_with_its_exchange() -> None:
    apart = _apart()
    other = cast(RecognitionIndex, apart.other)
    sessions = [take_turn(other, said("Hi"), "Hello!") for _ in range(2)]
    apart.wire.late = True
    failing = begin_turn(other, said("Hi", "Hello!", "And?"))
    apart.wire.late = False
    assert failing.session_id not in sessions
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == sessions[0]
    end_turn(other, failing, None)
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == sessions[1]


def test_a_process_that_ends_while_it_asks_keeps_no_claim() -> None:
    apart = _apart()
    other = cast(RecognitionIndex, apart.other)
    newest = [take_turn(other, said("Hi"), "Hello!") for _ in range(2)][1]
    apart.wire.ended = True
    assert begin_turn(other, said("Hi", "Hello!", "And?")).session_id == newest
    assert _found(apart.index, said("Hi", "Hello!", "And?")) == newest


def test_a_list_without_an_answer_is_new_and_nobody_is_asked() -> None:
    apart = _apart()
    assert _found(apart.other, said("Hi")) is None
    assert apart.wire.asked == 0


def test_of_a_long_history_little_is_sent_and_once() -> None:
    apart = _apart()
    history = said(*(f"Text {number}" * 100 for number in range(1999)))
    exchange = make_exchange("one", messages=history, answers=reply(LONG))
    apart.other.note(exchange)
    apart.wire.asked = apart.wire.bytes = 0
    grown = [*history, *said("", LONG, "And now?")[1:]]
    assert take_turn(cast(RecognitionIndex, apart.other), grown, "Then.") == "one"
    assert apart.wire.asked == 2  # one to find it, and one to take it in
    assert apart.wire.bytes < 1000
    assert _found(apart.index, [*grown, *said("", "Then.", "More")[1:]]) == "one"


def test_what_was_summarised_is_bounded() -> None:
    apart = _apart()
    apart.index.note(make_exchange("other", messages=said("Hi"), answers=reply("Hello!")))
    foreign = said(*(f"Text {number}" for number in range(4999)))
    assert _found(apart.other, foreign) is None
    assert apart.wire.asked == 2
    assert apart.wire.bytes < 20_000


@dataclass
class _Processes:
    """A first process, and two others."""

    index: RecognitionIndex
    first: FirstRecognition
    others: list[SharedRecognition]
    ends: list[Peer]


@pytest.fixture
def processes() -> Iterator[_Processes]:
    index, hub = RecognitionIndex(), Hub()
    hub.offer(lambda peer: offer_index(index, peer, hub.catch_up))
    with joined_peers(hub) as ends:
        first = FirstRecognition(index, hub.catch_up)
        yield _Processes(index, first, [SharedRecognition(end) for end in ends], ends)


def test_what_one_process_has_answered_all_others_continue(processes: _Processes) -> None:
    everyone = [processes.first, *processes.others]
    history, session = said("Hi"), None
    for number in range(12):
        answering = cast(RecognitionIndex, everyone[number % 3])
        found = take_turn(answering, history, f"Answer {number}")
        assert session in (None, found)
        session = found
        history += said("", f"Answer {number}", f"Question {number}")[1:]


def test_a_claim_holds_in_all_processes_until_its_exchange_has_ended(processes: _Processes) -> None:
    one, two = (cast(RecognitionIndex, each) for each in processes.others)
    sessions = {take_turn(one, said("Hi"), "Hello!"), take_turn(two, said("Hi"), "Hello!")}
    first = begin_turn(one, said("Hi", "Hello!", "And?"))
    second = begin_turn(two, said("Hi", "Hello!", "And?"))
    assert {first.session_id, second.session_id} == sessions
    end_turn(two, second, None)
    assert begin_turn(cast(RecognitionIndex, processes.first), said("Hi", "Hello!", "So?")).session_id == (
        second.session_id
    )


def test_the_claims_of_a_process_that_has_ended_are_released(processes: _Processes) -> None:
    one = cast(RecognitionIndex, processes.others[0])
    take_turn(one, said("Hi"), "Hello!")
    newest = take_turn(one, said("Hi"), "Hello!")
    assert begin_turn(one, said("Hi", "Hello!", "And?")).session_id == newest
    processes.ends[0].close()
    wait_for(lambda: _found(processes.others[1], said("Hi", "Hello!", "And?")) == newest, "the claim's end")


def test_without_the_first_process_nothing_is_recognised(processes: _Processes) -> None:
    one = processes.others[0]
    session = take_turn(cast(RecognitionIndex, one), said("Hi"), LONG)
    processes.ends[0].close()
    assert _found(one, said("Hi", LONG, "And?")) is None
    take_turn(cast(RecognitionIndex, one), said("Hi", LONG, "And?"), "So.")
    assert _found(processes.first, said("Hi", LONG, "And?")) == session
