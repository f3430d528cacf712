"""The part of a conversation's tree that a batch of exchanges touches, and where each of them goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from mistral_api.conversations.matching import chain_of, digest, repeated_system, shared_prefix
from mistral_api.conversations.searching import searchable_text
from mistral_api.exchange import Exchange
from mistral_api.identifiers import new_id

_OWN_COLUMNS = ("role", "content", "tool_calls")
Row = dict[str, Any]


@dataclass(slots=True)
class Node:
    """A message of the tree: enough to hang others below it."""

    id: UUID
    chain: str
    unanswered: bool = False


@dataclass(slots=True)
class Tree:
    """One conversation while exchanges are appended to it.

    ``known`` has the stored messages that the exchanges may repeat, by chain; ``resume`` is the last message
    of the current branch that belongs to an answered turn, ``named`` has those that exchanges say they continue.
    What is to be written gathers in ``rows``.
    """

    conversation_id: UUID
    updated_at: datetime
    resume: Node | None = None
    head_id: UUID | None = None
    known: dict[str, Node] = field(default_factory=dict)
    named: dict[UUID, Node] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    answered: list[UUID] = field(default_factory=list)

    def append(self, exchange: Exchange, chains: Sequence[str]) -> None:
        """Add what is new of an exchange, on the branch it belongs to; ``chains`` are those of its messages."""
        parent, new = self._place(exchange, chains)
        status = "complete" if exchange.answers else exchange.answer_status
        ids = exchange.message_ids or [new_id() for _ in new]
        for message_id, message in zip(ids, new, strict=True):
            parent = self._add(exchange, parent, message, status, message_id)
        self.head_id = parent.id if parent else None
        answers = [
            self._answer(exchange, parent, answer, exchange.answer_id if number == 0 else None)
            for number, answer in enumerate(exchange.answers or [])
        ]
        if answers:
            # The first of several choices is the one the conversation goes on from; the tokens stand with it.
            first = self.rows[-len(answers)]
            first["prompt_tokens"], first["completion_tokens"] = exchange.prompt_tokens, exchange.completion_tokens
            self.head_id, self.resume = answers[0].id, answers[0]
        elif status == "complete":
            self.resume = parent
        self.updated_at = max(self.updated_at, ended_at(exchange))

    def _place(self, exchange: Exchange, chains: Sequence[str]) -> tuple[Node | None, Sequence[Row]]:
        """The message to append to, and the sent messages that are new: all of them, where it is known what they
        continue, or where they have ids already."""
        sent = exchange.messages or []
        continued = self.named.get(exchange.continues) if exchange.continues else None
        if continued is not None or exchange.message_ids:
            return continued or self.resume, sent
        roles = [message.get("role") for message in sent]
        shared = shared_prefix(chains, roles, self.known)
        if shared:
            return self._after_shared(chains[:shared]), sent[shared:]
        return self.resume, sent[repeated_system(chains, roles, self.known) :]

    def _after_shared(self, chains: Sequence[str]) -> Node:
        """The end of what a client has sent again: only a list that repeats an answer proves that it resends history.

        Others go on from the last answer: messages that were never answered are left as a side branch.
        """
        again = (self.known.get(chain) for chain in chains)
        self.answered += [node.id for node in again if node is not None and node.unanswered]
        return self.known[chains[-1]]

    def _answer(self, exchange: Exchange, parent: Node | None, answer: Row, given: UUID | None) -> Node:
        """One of the model's choices."""
        said = {"role": "assistant"} | answer
        node = self._add(exchange, parent, said, exchange.answer_status, given or new_id())
        self.rows[-1] |= {"created_at": ended_at(exchange), "model": exchange.model}
        return node

    def _add(self, exchange: Exchange, parent: Node | None, message: Row, status: str, message_id: UUID) -> Node:
        chain = chain_of(parent.chain if parent else "", digest(message))
        unanswered = status == "failed" or (status == "interrupted" and message.get("role") != "assistant")
        node = self.known[chain] = self.named[message_id] = Node(message_id, chain, unanswered)
        self.rows.append(self._row(exchange, node, parent, message, status))
        return node

    def _row(self, exchange: Exchange, node: Node, parent: Node | None, message: Row, status: str) -> Row:
        extra = {name: value for name, value in message.items() if name not in _OWN_COLUMNS and value is not None}
        return {
            "id": node.id,
            "conversation_id": self.conversation_id,
            "parent_id": parent.id if parent else None,
            "role": message.get("role", "user"),
            "content": message.get("content"),
            "tool_calls": message.get("tool_calls"),
            "extra": extra or None,
            "chain": node.chain,
            "words": searchable_text(message.get("content")),
            "status": status,
            "request_id": exchange.shown_request_id,
            "created_at": exchange.created_at,
        }


def ended_at(exchange: Exchange) -> datetime:
    """When an exchange ended."""
    return exchange.created_at + timedelta(milliseconds=exchange.latency_ms)
