"""Where a new turn goes in the message tree of its conversation, and what of it is new.

:func:`append_turn` decides in memory, and gives the ids under which the messages are stored: the same tree and the
same turns always give the same rows. So whoever lays turns that are still in the journal over what PostgreSQL has sees
what the writer will store.

The first system messages of a conversation are rows of it. Later ones are attributes of the turn that brings them
(``messages.sent``): a clock in the system message changes each turn, and begins no other branch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mistral_api.conversations.message_alignment import Alignment, SentMessages, align
from mistral_api.conversations.message_matching import (
    is_system_message,
    leading_system_messages,
    message_digest,
    system_digest,
)
from mistral_api.conversations.message_tree import (
    MessageTree,
    RowFields,
    SentAttributes,
    TreeNode,
    depth_below,
    is_unanswered,
)
from mistral_api.conversations.search_text import searchable_text
from mistral_api.conversations.side_requests import summary_end
from mistral_api.conversations.stored_message import assistant_message
from mistral_api.payload_types import without_nulls
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.system.identifiers import derived_id

TITLE_LENGTH = 80
# How much of a message is read for a title: more than what coding agents put before the user's words.
_TITLE_CHARACTERS = 65_536
# What coding agents put before the user's words, or into messages of the user before them: Claude Code and qwen-code,
# then Codex (seen; the last one is its copy of a project's AGENTS.md).
_OF_PROGRAMS = re.compile(
    r"^[ \t]*(?:<(system-reminder|environment_context|user_instructions|recommended_plugins)>.*?(?:</\1>|\Z)\s*"
    r"|# AGENTS\.md instructions[^\n]*\n\s*<INSTRUCTIONS>.*?(?:</INSTRUCTIONS>|\Z)\s*)+",
    re.DOTALL | re.MULTILINE,
)
# The ids of answers are derived with numbers from here on, those of messages with their position in the sent list.
_FIRST_ANSWER = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """The messages of one request, and the answers to them.

    ``id`` is that of the exchange, from which the ids of its messages are derived. ``status`` is that of the answers:
    ``complete``, ``interrupted`` or ``failed``. ``continues`` is the stored message that the messages follow, where it
    is known. ``message_ids`` and ``answer_id`` are there where ids were given out beforehand; ``answer_id`` is that of
    the first answer. ``resends_history`` and ``side_request`` are those of ``recording.exchange.Exchange``.
    """

    id: UUID
    messages: Sequence[ChatMessage]
    request_id: str
    created_at: datetime
    ended_at: datetime
    status: str = "complete"
    answers: Sequence[GeneratedMessage] = ()
    continues: UUID | None = None
    message_ids: Sequence[UUID] | None = None
    answer_id: UUID | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    resends_history: bool = False
    side_request: bool = False

    def message_id(self, position: int) -> UUID:
        """Return the id under which a message is stored if it is new."""
        return self.message_ids[position] if self.message_ids else derived_id(self.id, position)

    def answer_id_of(self, number: int) -> UUID:
        """Return the id under which an answer is stored."""
        given = self.answer_id if number == 0 else None
        return given or derived_id(self.id, _FIRST_ANSWER + number)

    @property
    def last_id(self) -> UUID | None:
        """The id of the last message that is surely stored of the turn: an answer, else the last message, if any."""
        if self.answers:
            return self.answer_id_of(0)
        return self.message_id(len(self.messages) - 1) if self.messages else None


@dataclass(slots=True)
class Place:
    """Where a turn goes: below ``parent``, None for the root. ``new`` are the positions of its messages to be stored.

    ``framing`` is that of the new messages, ``attributes`` is what the first of them keeps besides, ``repeated`` are
    the stored messages by the position of those that repeat them. A turn that is not ``on_main_line`` does not become
    the current branch.
    """

    parent: TreeNode | None
    new: Sequence[int]
    framing: str | None
    attributes: SentAttributes = field(default_factory=SentAttributes)
    repeated: dict[int, UUID] = field(default_factory=dict)
    on_main_line: bool = True


def append_turn(tree: MessageTree, turn: NewTurn, sent: SentMessages) -> list[UUID | None]:
    """Append the new messages and the answers of a turn to its tree; ``sent`` are its messages.

    The first answer becomes the head, unless the turn is no part of the main line. Other answers (``n``) are its
    siblings. Return for each sent message the id under which it is stored, None where it is not a row.
    """
    place = TurnPlacement(tree, turn, sent).place()
    ids: list[UUID | None] = [place.repeated.get(position) for position in range(len(sent.messages))]
    parent, status = place.parent, "complete" if turn.answers else turn.status
    attributes: SentAttributes | None = place.attributes or None
    for position in place.new:
        ids[position] = turn.message_id(position)
        node = _new_node(place, parent, sent.messages[position], turn.message_id(position), status)
        tree.add_row(node, _row_fields(turn, status, attributes))
        parent, attributes = node, None
    answers = _append_answers(tree, turn, place, parent, attributes)
    # A request that repeats everything and got no answer leaves the answer that is there where it is.
    if place.on_main_line and (place.new or answers or tree.head_id is None):
        tree.set_head(answers[0] if answers else parent)
    tree.updated_at = max(tree.updated_at, turn.ended_at)
    return ids


def _append_answers(
    tree: MessageTree, turn: NewTurn, place: Place, parent: TreeNode | None, attributes: SentAttributes | None
) -> list[TreeNode]:
    nodes = []
    for number, answer in enumerate(turn.answers):
        node = _new_node(place, parent, assistant_message(answer), turn.answer_id_of(number), turn.status)
        fields = _row_fields(turn, turn.status, attributes)
        fields["created_at"], fields["model"] = turn.ended_at, turn.model
        if number == 0:  # the tokens of all answers are counted with the first
            fields["prompt_tokens"], fields["completion_tokens"] = turn.prompt_tokens, turn.completion_tokens
        tree.add_row(node, fields)
        nodes.append(node)
        attributes = None
    return nodes


def _row_fields(turn: NewTurn, status: str, attributes: SentAttributes | None) -> RowFields:
    return {
        "sent": attributes,
        "status": status,
        "request_id": turn.request_id,
        "created_at": turn.created_at,
        "model": None,
        "prompt_tokens": None,
        "completion_tokens": None,
    }


def _new_node(place: Place, parent: TreeNode | None, message: ChatMessage, message_id: UUID, status: str) -> TreeNode:
    digest = message_digest(message)
    return TreeNode(
        id=message_id,
        parent_id=parent.id if parent else None,
        role=message["role"],
        digest=digest,
        depth=depth_below(parent.depth if parent else None, digest),
        framing=place.framing,
        unanswered=is_unanswered(status, message["role"]),
        interrupted=status == "interrupted" and message["role"] == "assistant",
        message=message,
    )


@dataclass(frozen=True, slots=True)
class TurnPlacement:
    """The search for the place of one turn."""

    tree: MessageTree
    turn: NewTurn
    sent: SentMessages

    def place(self) -> Place:
        """Return where the turn goes. What is asked about a conversation is no part of its main line."""
        place = self._find_place()
        place.on_main_line = place.on_main_line and not self.turn.side_request
        return place

    def _find_place(self) -> Place:
        """Return below which message a turn goes, and which of its messages are new.

        - A turn that says what it continues, or has ids for its messages already, is new as a whole.
        - So is the first one of the main line. A side request may have come before it, whose system text must be no row
          at the root, and of which a reader may know less than this process.
        - A list that repeats stored messages goes below the last one of these (``message_alignment``).
        - A list with answers that fit nowhere, and any list of a client that sends all of its history, begins a branch
          at the root. Without an answer of the assistant, such a branch is no part of the main line until it is
          continued: what some clients ask about a conversation (a title, tags) looks just like it. But where a client
          has put a summary in the place of everything, what follows it goes below the last answered message.
        - Any other list goes below the last answered message. Messages after that one never got an answer. They stay
          behind as a side branch, unless the list is the same request once more.
        """
        continued = self.tree.nodes.get(self.turn.continues) if self.turn.continues else None
        if not self.turn.resends_history and (continued is not None or self.turn.message_ids):
            return self._place_below(continued or self.tree.last_answered)
        if self.tree.head_id is None and not self.turn.side_request:
            return Place(None, range(len(self.sent.messages)), framing_of(self.sent, []))
        aligned = align(self.tree, self.sent, resends_history=self.turn.resends_history)
        if aligned is not None:
            return self._place_aligned(aligned)
        if self.tree.head_id is None:
            return self._framed(None)
        if self.sent.has_answer or self.turn.resends_history:
            return self._place_summarized() or self._place_at_root()
        return self._place_retried() or self._framed(self.tree.last_answered)

    def _place_below(self, parent: TreeNode | None) -> Place:
        """Place a turn that is new as a whole. Messages whose ids were given out beforehand are all rows."""
        if self.turn.message_ids:
            framing = framing_of(self.sent, []) or (parent.framing if parent is not None else None)
            return Place(parent, range(len(self.sent.messages)), framing)
        return self._framed(parent)

    def _place_aligned(self, aligned: Alignment) -> Place:
        end = self.tree.nodes[aligned.end.id]
        self._mark_answered(aligned)
        place = self._framed(end, aligned.last, aligned.replaced)
        place.repeated = aligned.repeated
        returned = self.sent.messages[aligned.last]
        # Only of the last answer of a list the stored text is read.
        is_last = self.sent.digests[aligned.last] == self.sent.last_answer_digest
        if is_last and end.message is not None and _says_something_else(returned, end.message):
            place.attributes["answer"] = returned
        return place

    def _place_summarized(self) -> Place | None:
        end = summary_end(self.sent.messages)
        if end is None or self.tree.last_answered is None:
            return None
        known = (position for position in self.sent.spine if position <= end)
        replaced = [position for position in known if not self.tree.nodes_with(self.sent.digests[position])]
        return self._framed(self.tree.last_answered, end, replaced)

    def _place_at_root(self) -> Place:
        place = self._framed(self._last_leading())
        place.on_main_line = self.sent.has_answer or self.tree.last_answered is None
        return place

    def _last_leading(self) -> TreeNode | None:
        """Return the last of the system messages that the conversation begins with."""
        last: TreeNode | None = None
        while True:
            below = [node for node in self.tree.below(last.id if last else None) if not node.digest]
            if not below:
                return last
            last = below[0]

    def _place_retried(self) -> Place | None:
        """Return the place of a request that is sent once more, since it never got an answer."""
        node = self.tree.last_answered
        repeated: dict[int, UUID] = {}
        for position in self.sent.spine:
            node = self._unanswered_below(node, self.sent.digests[position])
            if node is None:
                return None
            repeated[position] = node.id
        if not repeated:
            return None
        if self.turn.answers:
            for message_id in repeated.values():
                self.tree.mark_answered(message_id)
        place = self._framed(node, self.sent.spine[-1])
        place.repeated = repeated
        return place

    def _unanswered_below(self, parent: TreeNode | None, digest: str) -> TreeNode | None:
        children = self.tree.children_with(parent.id if parent is not None else None, digest)
        nodes = (self.tree.nodes[each.id] for each in children)
        return next((node for node in nodes if node.unanswered), None)

    def _framed(self, parent: TreeNode | None, last: int = -1, replaced: Sequence[int] = ()) -> Place:
        """Return the place below a message, of what follows a position.

        System messages, and the summary ``replaced``, are attributes of the turn where they are others than before.
        """
        attributes: SentAttributes = {}
        in_force = self._framing_at(parent)
        summary = [self.sent.messages[position] for position in replaced]
        leading = leading_system_messages(self.sent.messages)
        later = self.sent.messages[max(last + 1, len(leading)) :]
        system = [message for message in later if is_system_message(message)]
        framing = framing_of(self.sent, summary) or in_force
        if framing != in_force:
            system = [*leading, *system]
            if summary:
                attributes["summary"] = summary
        if system:
            attributes["system"] = system
        new = [
            position
            for position in range(last + 1, len(self.sent.messages))
            if not is_system_message(self.sent.messages[position])
        ]
        return Place(parent, new, framing, attributes)

    def _framing_at(self, node: TreeNode | None) -> str | None:
        """Return the digest of what is in force below a message, also where it was stored before there was one."""
        if node is None or node.framing is not None:
            return node.framing if node is not None else None
        systems = [each.message for each in self.tree.upwards(node) if each.role in ("system", "developer")]
        return system_digest([message for message in reversed(systems) if message is not None]) if systems else None

    def _mark_answered(self, aligned: Alignment) -> None:
        """Note that unanswered messages did get an answer: this turn has one, or the client sends one behind them."""
        for position, message_id in aligned.repeated.items():
            if position < aligned.last or self.turn.answers:
                self.tree.mark_answered(message_id)


def framing_of(sent: SentMessages, summary: Sequence[ChatMessage]) -> str | None:
    """Return the digest of the leading system messages and the summary of a sent list, None where it has neither."""
    framing = [*leading_system_messages(sent.messages), *summary]
    return system_digest(framing) if framing else None


def _says_something_else(returned: ChatMessage, stored: ChatMessage) -> bool:
    """Return whether a client sent an answer back with another text than was stored."""
    fields = ("content", "tool_calls", "refusal")
    first, second = without_nulls(returned), without_nulls(stored)
    return any((first.get(name) or None) != (second.get(name) or None) for name in fields)


def conversation_title(messages: Sequence[ChatMessage]) -> str | None:
    """Return the beginning of the user's first text, without what coding agents put before it.

    A message with nothing else gives the title only where no later one has a word of the user's own.
    """
    users = [message for message in messages if message.get("role") == "user"]
    texts = [(searchable_text(message.get("content")) or "")[:_TITLE_CHARACTERS] for message in users]
    own_words = [_OF_PROGRAMS.sub(" ", text) for text in texts]
    title = next((text for text in own_words + texts if text.strip()), None)
    return None if title is None else " ".join(title.split())[:TITLE_LENGTH]
