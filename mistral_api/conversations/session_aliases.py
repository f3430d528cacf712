"""Session ids that lead to another conversation than one of their own name.

A request whose conversation was not recognised in time gets a new session id. The writer may find later which
conversation it continues (``delivery.conversation_joining``). The session id that was given out then leads to that
conversation, in every query by owner and session id: these use :func:`in_session`.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import BindParameter, ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased

from mistral_api.database.tables.conversations import Conversation, SessionAlias

_Named = aliased(Conversation)


def in_session(owner: str | BindParameter[str], session_id: str | BindParameter[str]) -> ColumnElement[bool]:
    """Return the condition on ``conversations`` that a row is the one to which an owner's session id leads."""
    alias = select(SessionAlias.conversation_id).where(
        SessionAlias.owner == owner, SessionAlias.session_id == session_id
    )
    named = select(_Named.id).where(_Named.owner == owner, _Named.session_id == session_id)
    # PostgreSQL looks both up once, and then finds the row by its primary key.
    found: ColumnElement[bool] = Conversation.id == func.coalesce(
        alias.correlate(None).scalar_subquery(), named.correlate(None).scalar_subquery()
    )
    return found


def in_session_of_any_owner(session_id: str) -> ColumnElement[bool]:
    """Return the condition that a conversation is one to which a session id leads, whoever owns it."""
    aliases = select(SessionAlias.conversation_id).where(SessionAlias.session_id == session_id)
    return or_(Conversation.session_id == session_id, Conversation.id.in_(aliases))


def session_ids_of(session: Session, conversation_id: UUID) -> list[str]:
    """Return every session id that leads to a conversation, its own first."""
    own = select(Conversation.session_id).where(Conversation.id == conversation_id)
    aliases = select(SessionAlias.session_id).where(SessionAlias.conversation_id == conversation_id)
    return [*session.scalars(own), *session.scalars(aliases.order_by(SessionAlias.session_id))]
