"""The conversation of a request is recognised by the messages that its client sends again."""

from __future__ import annotations

import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mistral_api.conversations import ended_turn
from mistral_api.conversations.digest_tree import Answer, node_digest
from mistral_api.conversations.recognition import RecognitionIndex, StoredDigest
from mistral_api.payload_types.chat import ChatMessage, ToolCall
from mistral_api.system.identifiers import new_id
from tests.support.dialogues import Dialogue, begin_turn, end_turn, said, take_turn
from tests.support.exchanges import make_exchange, reply

LONG = "The capital of France is Paris, which lies on the Seine and has been the capital for many centuries."
CALL: ToolCall = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.fixture
def index() -> RecognitionIndex:
    return RecognitionIndex()


def found(index: RecognitionIndex, messages: list[ChatMessage], owner: str = "local") -> str | None:
    match = index.find(owner, None, messages)
    return match.session_id if match else None


def test_a_whole_history_continues_its_conversation(index: RecognitionIndex) -> None:
    dialogue = Dialogue()
    for number in range(4):
        dialogue.turn(index, f"Question {number}", f"Answer {number}")
    assert len(set(dialogue.sessions)) == 1


def test_a_list_without_an_answer_is_new_and_no_digest_is_computed(
    index: RecognitionIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_turn(index, said("Hi"), "Hello!")
    monkeypatch.setattr("mistral_api.conversations.digest_tree.node_digest", None)
    assert found(index, said("Hi")) is None
    assert found(index, [{"role": "system", "content": "Be brief."}, *said("Hi")]) is None


def test_of_a_long_list_few_digests_are_computed(index: RecognitionIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = said(*(f"Text {number}" for number in range(499)))
    session = take_turn(index, messages, "Done")
    computed: list[ChatMessage] = []

    def counting_digest(message: ChatMessage) -> bytes:
        computed.append(message)
        return node_digest(message)

    monkeypatch.setattr("mistral_api.conversations.digest_tree.node_digest", counting_digest)
    assert found(index, [*messages, *said("", "Done", "And now?")[1:]]) == session
    assert len(computed) == 2


def test_another_owner_has_nothing_in_common(index: RecognitionIndex) -> None:
    take_turn(index, said("Hi"), LONG, owner="ann")
    assert found(index, said("Hi", LONG, "More"), owner="bob") is None
    assert found(index, said("Hi", LONG, "More"), owner="ann") is not None


def test_a_greeting_alone_is_not_enough(index: RecognitionIndex) -> None:
    take_turn(index, said("Hi"), "Hello!")
    assert found(index, said("Good morning", "Hello!", "More")) is None
    assert found(index, said("Hi", "Hello!", "More")) is not None


def test_examples_in_a_prompt_are_no_answers_of_ours(index: RecognitionIndex) -> None:
    examples = said("2 + 2", LONG)
    first = take_turn(index, [*examples, *said("3 + 3")], "Six")
    assert take_turn(index, [*examples, *said("4 + 4")], "Eight") != first
    assert found(index, [*examples, *said("3 + 3", "Six", "Why?")]) == first


@pytest.mark.parametrize(
    "sent",
    [
        said("Hi", "Hello!", "What is the capital of France?", LONG, "And of Spain?"),
        said("What is the capital of France?", LONG, "And of Spain?"),
        [*said("", LONG, "And of Spain?")[1:]],
        said("Summary: we spoke of France.", LONG, "And of Spain?"),
        [{"role": "system", "content": "It is 12:07."}, *said("What is the capital of France?", LONG, "And of Spain?")],
        said("What is the capital of France? Context: …", LONG, "And of Spain?"),
        said("Hi", "Hello!", "What is the capital of France?", "Lyon, I edited this.", "Sure?"),
    ],
    ids=["whole", "window", "one answer", "compaction", "clock", "changed question", "edited answer"],
)
def test_a_part_of_the_history_is_enough(index: RecognitionIndex, sent: list[ChatMessage]) -> None:
    dialogue = Dialogue()
    dialogue.turn(index, "Hi", "Hello!")
    dialogue.turn(index, "What is the capital of France?", LONG)
    assert found(index, sent) == dialogue.sessions[0]


def test_tool_calls_are_distinctive(index: RecognitionIndex) -> None:
    exchange = make_exchange("tools", messages=said("1 + 1?"), answers=[{"content": None, "tool_calls": [CALL]}])
    index.note(exchange)
    sent_call: ToolCall = {**CALL, "id": "call_of_the_client"}
    call: ChatMessage = {"role": "assistant", "content": None, "tool_calls": [sent_call]}
    result: ChatMessage = {"role": "tool", "tool_call_id": "call_1", "content": "2"}
    assert found(index, [*said("Summary"), call, result]) == "tools"


def test_an_answer_without_a_question_is_found_only_at_both_beginnings(index: RecognitionIndex) -> None:
    index.note(make_exchange("greeting", messages=[{"role": "system", "content": "Greet."}], answers=reply("Hello!")))
    assert found(index, said("", "Hello!", "Hi")[1:]) == "greeting"
    assert found(index, said("Hi", "Hello!", "Hi")) is None


def test_two_dialogues_with_the_same_beginning_stay_apart(index: RecognitionIndex) -> None:
    ann, bob = Dialogue(), Dialogue()
    for question, answer in [("Hi", "Hello!"), ("Who are you?", "A model."), ("Really?", "Yes."), ("Bye", "Bye!")]:
        ann.turn(index, question, answer)
        bob.turn(index, question, answer)
    assert {len(set(each.sessions)) for each in (ann, bob)} == {1} or set(ann.sessions) == set(bob.sessions)
    assert len(set(ann.sessions + bob.sessions)) == 2


def test_a_running_request_counts_as_a_continuation(index: RecognitionIndex) -> None:
    sessions = {take_turn(index, said("Hi"), "Hello!"), take_turn(index, said("Hi"), "Hello!")}
    exchanges = [begin_turn(index, said("Hi", "Hello!", "And?")), begin_turn(index, said("Hi", "Hello!", "So?"))]
    assert {exchange.session_id for exchange in exchanges} == sessions


def test_requests_at_the_same_time_take_conversations_of_their_own(index: RecognitionIndex) -> None:
    sessions = {take_turn(index, said("Hi"), "Hello!") for _ in range(8)}
    with ThreadPoolExecutor(8) as pool:
        begun = pool.map(lambda number: begin_turn(index, said("Hi", "Hello!", f"And {number}?")), range(8))
        assert {exchange.session_id for exchange in begun} == sessions


def test_a_failed_request_does_not_count_as_a_continuation(index: RecognitionIndex) -> None:
    take_turn(index, said("Hi"), "Hello!")
    take_turn(index, said("Hi"), "Hello!")
    failed = begin_turn(index, said("Hi", "Hello!", "And?"))
    end_turn(index, failed, None)
    assert begin_turn(index, said("Hi", "Hello!", "And?")).session_id == failed.session_id


def test_of_equal_conversations_the_same_clients_is_continued(index: RecognitionIndex) -> None:
    of_codex = take_turn(index, said("Hi"), "Hello!", client="codex")
    of_other = take_turn(index, said("Hi"), "Hello!", client="other")
    match = index.find("local", "codex", said("Hi", "Hello!", "And?"))
    assert match is not None
    assert match.session_id == of_codex
    assert found(index, said("Hi", "Hello!", "And?")) == of_other


def test_the_conversation_that_begins_with_the_list_comes_before_a_window(index: RecognitionIndex) -> None:
    short = take_turn(index, said("What is it?"), LONG)
    take_turn(index, said("Hi", "Hello!", "What is it?"), LONG)
    assert found(index, said("What is it?", LONG, "And?")) == short


@pytest.mark.parametrize(
    "kept", ["It was the b", "It was the best of times, it was", "It was the best of times, it was the "]
)
def test_an_interrupted_answer_is_recognised_by_what_its_client_has(index: RecognitionIndex, kept: str) -> None:
    session = take_turn(index, said("Read to me"), "It was the best of times, it was the", status="interrupted")
    assert found(index, said("Read to me", kept, "Go on")) == session
    assert found(index, said("Read to me", "It is another book.", "Go on")) is None


def test_the_last_messages_before_a_kill_may_be_missing(index: RecognitionIndex) -> None:
    session = take_turn(index, said("Read to me"), "It was the best", status="interrupted")
    assert found(index, said("Read to me", "It was the best of times, it was the worst of", "Go on")) == session


def test_a_turn_after_an_interrupted_answer_is_recognised(index: RecognitionIndex) -> None:
    session = take_turn(index, said("Read to me"), "It was the best of times", status="interrupted")
    history = said("Read to me", "It was the best", "Go on")
    assert take_turn(index, history, "Sure.") == session
    assert found(index, [*history, *said("", "Sure.", "Thanks")[1:]]) == session


def test_a_forgotten_conversation_is_not_recognised(index: RecognitionIndex) -> None:
    session = take_turn(index, said("Hi"), LONG)
    index.forget("local", session)
    assert found(index, said("Hi", LONG, "And?")) is None
    assert index.size == 0


def test_old_conversations_are_forgotten(index: RecognitionIndex) -> None:
    old = make_exchange("old", messages=said("Hi"), answers=reply(LONG))
    index.note(old)
    index.forget_before(old.created_at.timestamp() - 1)
    assert found(index, said("Hi", LONG, "And?")) == "old"
    index.forget_before(old.created_at.timestamp() + 3600)
    assert found(index, said("Hi", LONG, "And?")) is None


def stored_dialogue(*texts: str) -> list[StoredDigest]:
    nodes: list[StoredDigest] = []
    for message in said(*texts):
        answer = Answer.of(message) if message["role"] == "assistant" else None
        nodes.append(StoredDigest(new_id(), nodes[-1].id if nodes else None, node_digest(message), answer))
    return nodes


def test_stored_conversations_are_recognised(index: RecognitionIndex) -> None:
    system = StoredDigest(new_id(), None, b"")
    first, *others = stored_dialogue("Hi", "Hello!", "And?", "Well.")
    first = StoredDigest(first.id, system.id, first.digest)
    index.restore("local", "stored", 1.0, [system, first, *others])
    assert found(index, said("Hi", "Hello!", "And?", "Well.", "So?")) == "stored"
    assert take_turn(index, said("Hi", "Hello!", "And?", "Well.", "So?"), "So.") == "stored"
    assert found(index, said("Hi", "Hello!", "And?", "Well.", "So?", "So.", "End")) == "stored"


def test_what_is_restored_after_it_was_used_is_known_once(index: RecognitionIndex) -> None:
    """The process has started anew, and a turn came before the stored conversation was loaded."""
    index.note(make_exchange("stored", messages=said("Hi", "Hello!", "And?"), answers=reply("Well.")))
    size = index.size
    index.restore("local", "stored", 1.0, stored_dialogue("Hi", "Hello!", "And?", "Well."))
    assert index.size == size
    take_turn(index, said("Hi"), "Hello!")
    twin = index.find("local", None, said("Hi", "Hello!", "So?"))
    assert twin is not None
    assert twin.session_id != "stored"
    index.forget("local", twin.session_id)
    assert found(index, said("Hi", "Hello!", "So?")) == "stored"


def test_stored_conversations_displace_none_that_is_in_use() -> None:
    index = RecognitionIndex(max_messages=10)
    session = take_turn(index, said("Hi"), LONG)
    assert index.restore("local", "stored", 1.0, stored_dialogue("One", LONG + "1"))
    assert not index.restore("local", "older", 0.5, stored_dialogue("a", "b", "c", "d"))
    take_turn(index, said("a", "b", "c"), "d")
    assert found(index, said("One", LONG + "1", "And?")) is None
    assert found(index, said("Hi", LONG, "And?")) == session


def test_what_is_forgotten_while_it_is_restored_stays_forgotten(index: RecognitionIndex) -> None:
    with index.restoring():
        index.forget("local", "stored")
        index.restore("local", "stored", 1.0, stored_dialogue("Hi", LONG))
    assert found(index, said("Hi", LONG, "And?")) is None


def test_an_exchange_without_text_is_not_remembered(index: RecognitionIndex) -> None:
    index.note(make_exchange("silent", messages=None, answers=None))
    index.note(make_exchange(None, messages=said("Hi"), answers=reply(LONG)))
    assert index.size == 0


def test_the_memory_stays_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty thousand messages in five thousand conversations; ``bin/bench recognition`` feeds a million."""
    maker = random.Random(1)
    monkeypatch.setattr("mistral_api.conversations.digest_tree.node_digest", lambda _message: maker.randbytes(16))
    monkeypatch.setattr(ended_turn, "node_digest", lambda _message: maker.randbytes(16))
    index = RecognitionIndex(max_messages=5_000)
    messages = said(*(f"Text {number}" for number in range(9)))
    tracemalloc.start()
    try:
        for number in range(5_000):
            index.note(make_exchange(f"s{number}", messages=messages, answers=reply(LONG)))
            if number == 1_000:
                full, _ = tracemalloc.get_traced_memory()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 4_900 < index.size <= 5_000
    assert after < full * 1.1
    assert after / index.size < 400  # bytes for each message


WORDS = st.sampled_from(["Hi", "Hello!", "ok", "Why?", LONG])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_dialogues_in_the_same_words_never_mix(data: st.DataObject) -> None:
    """Whatever a few people say in few words, each turn goes to a conversation of theirs with just that history."""
    index = RecognitionIndex()
    dialogues: list[Dialogue] = []
    owners: dict[str, str] = {}
    # The histories that the server has seen in each session.
    branches: dict[str, set[tuple[str, ...]]] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        if not dialogues or data.draw(st.booleans()):
            dialogues.append(Dialogue(data.draw(st.sampled_from("ab")), data.draw(st.sampled_from(["x", "y", None]))))
        dialogue = data.draw(st.sampled_from(dialogues))
        history = tuple(str(message["content"]) for message in dialogue.messages)
        question, answer = data.draw(WORDS), data.draw(WORDS)
        session = dialogue.turn(index, question, answer)
        assert owners.setdefault(session, dialogue.owner) == dialogue.owner
        assert not history or history in branches[session]
        assert history or session not in branches
        branches.setdefault(session, set()).add((*history, question, answer))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_windows_summaries_and_trims_are_recognised(data: st.DataObject) -> None:
    """With words of their own, dialogues are recognised by whatever of them is sent, if an answer is in it."""
    index = RecognitionIndex()
    dialogues = [Dialogue(data.draw(st.sampled_from("ab"))) for _ in range(data.draw(st.integers(1, 4)))]
    for number in range(data.draw(st.integers(1, 20))):
        dialogue = data.draw(st.sampled_from(dialogues))
        answer = f"Answer {number}" + (LONG if data.draw(st.booleans()) else "")
        if not dialogue.sessions:
            dialogue.turn(index, "Hi" if data.draw(st.booleans()) else f"Hi {number}", answer)
            continue
        keep = data.draw(st.integers(2, len(dialogue.messages)))
        window: list[ChatMessage] = [
            {**message, "content": f" {message['content']}\n"} for message in dialogue.messages[-keep:]
        ]
        if data.draw(st.booleans()):
            window = [*said("A summary"), *window]
        sent = [*window, *said(f"Question {number}")]
        session = take_turn(index, sent, answer, dialogue.owner)
        assert session == dialogue.sessions[0]
        dialogue.messages += [*said(f"Question {number}", answer)]
