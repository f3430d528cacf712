"""Walking a branch of a conversation's tree, from a message towards the root."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import CTE, BindParameter, ScalarSelect, Select, literal, select

from mistral_api.tables.conversation import Message


def branch_upwards(
    start: UUID | BindParameter[UUID] | ScalarSelect[UUID | None],
    *,
    limit: int | BindParameter[int] | None = None,
    stop_before: BindParameter[UUID] | None = None,
) -> CTE:
    """The walk from ``start`` towards the root: columns ``id``, ``parent_id`` and ``depth`` (0 = start).

    ``limit`` bounds the number of messages; ``stop_before`` is a message that ends the walk unseen.
    """
    first = select(Message.id, Message.parent_id, literal(0).label("depth")).where(Message.id == start)
    if stop_before is not None:
        first = first.where(Message.id != stop_before)
    walked = first.cte("branch", recursive=True)
    further = select(Message.id, Message.parent_id, walked.c.depth + 1).join(walked, Message.id == walked.c.parent_id)
    if limit is not None:
        further = further.where(walked.c.depth < limit - 1)
    if stop_before is not None:
        further = further.where(Message.id != stop_before)
    return walked.union_all(further)


def branch_messages(branch: CTE) -> Select[Message]:
    """The messages of a walk, oldest first."""
    return select(Message).join(branch, Message.id == branch.c.id).order_by(branch.c.depth.desc())
