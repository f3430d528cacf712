"""Find the place of a sent list in a tree with very many messages that are the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mistral_api.conversations.message_alignment import SentMessages, StoredNode, align
from mistral_api.conversations.message_tree import MessageTree, TreeNode
from mistral_api.system.identifiers import new_id
from tests.support.conversations import assistant, user

PAIR = [user("Go on."), assistant("Yes.")]


class CountingTree(MessageTree):
    """A tree that counts how often it is asked for the messages with a digest."""

    lookups = 0

    def nodes_with(self, digest: str) -> Sequence[StoredNode]:
        self.lookups += 1
        return super().nodes_with(digest)


def test_new_messages_before_many_runs_are_looked_up_once() -> None:
    tree = CountingTree(new_id(), datetime.now(UTC))
    node: TreeNode | None = None
    for message in PAIR * 100:
        node = tree.add_below(node, new_id(), message)
    tree.last_answered = node
    sent = SentMessages([*(user(f"new {number}") for number in range(200)), *PAIR * 50, user("Go on.")])
    assert align(tree, sent, resends_history=True) is None
    assert tree.lookups < 100 * len(sent.spine)
