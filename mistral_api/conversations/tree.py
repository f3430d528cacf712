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
    of the current branch that belongs to an answered turn. What is to be written gathers in ``rows``.
    """

    conversation_id: UUID
    updated_at: datetime
    resume: Node | None = None
    head_id: UUID | None = None
    known: dict[str, Node] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    answered: list[UUID] = field(default_factory=list)

    def append(self, exchange: Exchange, chains: Sequence[str]) -> None:
        """Add what is new of an exchange, on the branch it belongs to; ``chains`` are those of its messages."""
        parent, new = self._place(exchange.messages or [], chains)
        status = "complete" if exchange.answers else exchange.answer_status
        for message in new:
            parent = self._add(exchange, parent, message, status)
        self.head_id = parent.id if parent else None
        answers = [self._answer(exchange, parent, answer) for answer in exchange.answers or []]
        if answers:
            # The first of several choices is the one the conversation goes on from; the tokens stand with it.
            first = self.rows[-len(answers)]
            first["prompt_tokens"], first["completion_tokens"] = exchange.prompt_tokens, exchange.completion_tokens
            self.head_id, self.resume = answers[0].id, answers[0]
        elif status == "complete":
            self.resume = parent
        self.updated_at = max(self.updated_at, ended_at(exchange))

    def _place(self, sent: Sequence[Row], chains: Sequence[str]) -> tuple[Node | None, Sequence[Row]]:
        """The message to append to, and the sent messages that are new.

        Only a list that repeats an answer of the assistant proves that its client resends the history. Others
        go on from the last answer: messages that were never answered are left as a side branch.
        """
        roles = [message.get("role") for message in sent]
        shared = shared_prefix(chains, roles, self.known)
        if not shared:
            return self.resume, sent[repeated_system(chains, roles, self.known) :]
        again = (self.known.get(chain) for chain in chains[:shared])
        self.answered += [node.id for node in again if node is not None and node.unanswered]
        return self.known[chains[shared - 1]], sent[shared:]

    def _answer(self, exchange: Exchange, parent: Node | None, answer: Row) -> Node:
        """One of the model's choices."""
        node = self._add(exchange, parent, {"role": "assistant"} | answer, exchange.answer_status)
        self.rows[-1] |= {"created_at": ended_at(exchange), "model": exchange.model}
        return node

    def _add(self, exchange: Exchange, parent: Node | None, message: Row, status: str) -> Node:
        chain = chain_of(parent.chain if parent else "", digest(message))
        unanswered = status == "failed" or (status == "interrupted" and message.get("role") != "assistant")
        node = self.known[chain] = Node(new_id(), chain, unanswered)
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
