"""Finished exchanges, as the recorder gets them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, create_engine

from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import Recorder
from mistral_api.system.identifiers import new_id


def an_exchange(session_id: str | None = "one", **fields: Any) -> Exchange:
    """An exchange of the owner ``local`` that ended now; ``fields`` as :class:`Exchange` has them."""
    common: dict[str, Any] = {"created_at": datetime.now(UTC), "endpoint": "/v1/chat/completions", "owner": "local"}
    return Exchange(id=new_id(), session_id=session_id, **common | fields)


def said(text: str) -> list[dict[str, Any]]:
    """The messages of a user who says this."""
    return [{"role": "user", "content": text}]


def answered(text: str) -> list[dict[str, Any]]:
    """The answers of a model that says this."""
    return [{"content": text}]


def record(recorder: Recorder, exchange: Exchange) -> None:
    """Record an exchange from its beginning to its end."""
    recorder.end(recorder.begin(exchange, lambda: None), exchange)


def engine_that_is_away() -> Engine:
    """The way to a PostgreSQL that nobody runs."""
    return create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1})
