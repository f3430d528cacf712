"""Exchanges as the recorder gets them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine

from mistral_api.delivery.writer import writer_starter
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.payload_types.completions import GeneratedMessage
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import Recorder, RecordingPolicy
from mistral_api.system.identifiers import new_id


def make_exchange(session_id: str | None = "one", **fields: Any) -> Exchange:
    """Return an exchange of the owner ``local`` that was created now, with these fields of :class:`Exchange`."""
    common: dict[str, Any] = {"created_at": datetime.now(UTC), "endpoint": "/v1/chat/completions", "owner": "local"}
    return Exchange(id=new_id(), session_id=session_id, **common | fields)


def question(text: str) -> list[ChatMessage]:
    """Return the messages of a request: one user message with this text."""
    return [{"role": "user", "content": text}]


def reply(text: str) -> list[GeneratedMessage]:
    """Return the answers of an exchange: one answer with this text."""
    return [{"content": text}]


def record_exchange(recorder: Recorder, exchange: Exchange) -> None:
    """Record an exchange from its beginning to its end."""
    recorder.end(recorder.begin(exchange, lambda: None), exchange)


def undelivered_recorder(folder: Path, policy: RecordingPolicy | None = None) -> Recorder:
    """Return a recorder whose PostgreSQL does not run: what it records stays in its journal, ``folder``."""
    return Recorder(folder, policy or RecordingPolicy(), writer_starter(unreachable_engine()))


def unreachable_engine() -> Engine:
    """Return an engine for a PostgreSQL that does not run."""
    return create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1})
