"""Generated dialogues of two clients in one conversation: what is stored equals a model of it, each message once."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mistral_api.payload_types.chat import ChatMessage
from mistral_api.recording.exchange import Exchange
from tests.support.conversations import branch_texts, deliver_batch
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, reply

Path = tuple[str, ...]
ACTIONS = ("next", "next", "next", "regenerate", "edit", "window", "compact", "bare", "open", "fail")


@dataclass
class Conversation:
    """The model: every message by its path from the root, and the path of the current branch."""

    messages: set[Path] = field(default_factory=set)
    current: Path = ()
    last_answered: Path = ()
    number: int = 0

    def new_text(self, kind: str) -> str:
        self.number += 1
        return f"{kind} {self.number}: caf\u00e9\nof {self.number * 7919 % 1000}"

    def add(self, path: Path) -> None:
        self.messages |= {path[: length + 1] for length in range(len(path))}


@dataclass
class Client:
    """A chat program: what it shows of the conversation, and how it spoils what it sends again."""

    conversation: Conversation
    trims: bool = False
    crlf: bool = False
    clock: bool = False
    shown: Path = ()
    # How many of the shown messages a summary stands for.
    summarized: int = 0

    def send(self, messages: Path, *, summary: bool = False) -> list[ChatMessage]:
        start = len(self.shown) - len(messages)
        sent: list[ChatMessage] = [
            {"role": "assistant" if (start + offset) % 2 else "user", "content": self._spoil(text)}
            for offset, text in enumerate(messages)
        ]
        if summary:
            sent.insert(0, {"role": "user", "content": f"They have talked about {self.summarized} things."})
        if self.clock:
            sent.insert(0, {"role": "system", "content": f"It is {self.conversation.number} o'clock."})
        return sent

    def _spoil(self, text: str) -> str:
        text = text.strip() if self.trims else f"{text} \n"
        return text.replace("\n", "\r\n") if self.crlf else text

    def turn(self, action: str, choice: int) -> Exchange | None:
        """Do one thing; return the request that comes of it, if one does."""
        model = self.conversation
        if action == "open":
            self.shown, self.summarized = model.last_answered, 0
            return None
        if action == "bare" or not self.shown:
            return self._bare()
        if action == "compact":
            if len(self.shown) < 6:
                return None
            self.summarized = len(self.shown) - 2
            action = "next"
        if action in ("regenerate", "edit") and not self._back(action, choice):
            return None
        if action != "regenerate":
            self.shown = (*self.shown, model.new_text("question"))
        first = max(self.summarized, len(self.shown) - 3 if action == "window" else 0)
        messages = self.send(self.shown[first:], summary=bool(self.summarized) and action != "window")
        return self._answered(messages, failed=action == "fail" and len(self.shown) > 1)

    def _back(self, action: str, choice: int) -> bool:
        """Take back an answer, or a question with all that follows; not what a summary stands for."""
        questions = [index for index in range(2, len(self.shown), 2) if index >= self.summarized + 2]
        if not questions:
            return False
        index = questions[-1] if action == "regenerate" else questions[choice % len(questions)]
        self.shown = self.shown[: index + (action == "regenerate")]
        return True

    def _bare(self) -> Exchange:
        """Send one message without any history: it goes where the conversation is."""
        model = self.conversation
        self.shown, self.summarized = (*model.last_answered, model.new_text("question")), 0
        return self._answered(self.send(self.shown[-1:]))

    def _answered(self, messages: list[ChatMessage], *, failed: bool = False) -> Exchange:
        model = self.conversation
        model.add(self.shown)
        if failed:
            model.current, model.last_answered = self.shown, self.shown[:-1]
            self.shown = self.shown[:-1]
            return make_exchange(messages=messages, answer_status="failed", status=502)
        answer = model.new_text("answer")
        self.shown = (*self.shown, answer)
        model.add(self.shown)
        model.current = model.last_answered = self.shown
        return make_exchange(messages=messages, answers=reply(answer))


def _stored_paths(engine: Engine, session_id: str) -> list[Path]:
    rows = rows_of(
        engine,
        "SELECT m.id, m.parent_id, m.content, m.role FROM messages AS m JOIN conversations AS c ON c.id = "
        f"m.conversation_id WHERE c.session_id = '{session_id}' ORDER BY m.sequence",
    )
    paths: dict[object, Path] = {None: ()}
    for message_id, parent_id, content, role in rows:
        text = content.replace("\r\n", "\n").strip()
        paths[message_id] = paths[parent_id] if role == "system" else (*paths[parent_id], text)
    return [paths[message_id] for message_id, _, _, role in rows if role != "system"]


clients = st.tuples(st.booleans(), st.booleans(), st.booleans())
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(ACTIONS), st.integers(0, 9), st.booleans()), min_size=1, max_size=14
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.tuples(clients, clients), steps=steps)
def test_stored_tree_equals_the_model(
    engine: Engine,
    kinds: tuple[tuple[bool, bool, bool], tuple[bool, bool, bool]],
    steps: list[tuple[int, str, int, bool]],
) -> None:
    session_id = f"s{len(rows_of(engine, 'SELECT 1 FROM conversations'))}"
    model = Conversation()
    programs = [Client(model, *kind) for kind in kinds]
    batch: list[Exchange] = []
    for who, action, choice, deliver_now in steps:
        exchange = programs[who].turn(action, choice)
        if exchange is not None:
            exchange.session_id = session_id
            batch.append(exchange)
        if batch and deliver_now:
            deliver_batch(engine, batch, True)
            batch = []
    if batch:
        deliver_batch(engine, batch, True)
    if model.messages:
        stored = _stored_paths(engine, session_id)
        assert sorted(stored) == sorted(model.messages)
        texts = [str(text).replace("\r\n", "\n").strip() for text in branch_texts(engine, session_id)]
        assert [text for text in texts if "o'clock" not in text] == list(model.current)
