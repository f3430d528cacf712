"""Putting exchanges into PostgreSQL: a batch in one transaction, each exchange exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from mistral_api.conversations.appending import append_exchange
from mistral_api.exchange import Exchange
from mistral_api.recording.partitions import create_partitions, month_of, next_month
from mistral_api.tables.usage import ApiUsage

_USAGE_COLUMNS = tuple(
    column.name for column in ApiUsage.__table__.columns if column.name not in ("request_id", "created_at")
)


class Delivery:
    """Delivers batches; remembers which partitions it has already seen to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._months: set[datetime] = set()

    def deliver(self, exchanges: Sequence[Exchange]) -> None:
        """Insert the batch or nothing of it. Raises sqlalchemy.exc.SQLAlchemyError.

        An exchange that is already there (a commit whose acknowledgement was lost) is left alone.
        """
        months = {month_of(exchange.created_at) for exchange in exchanges}
        months |= {next_month(month) for month in months}
        with Session(self._engine) as session, session.begin():
            missing = sorted(months - self._months)
            if missing:
                create_partitions(session.connection(), missing)
            new = _insert_usage(session, exchanges)
            for exchange in exchanges:
                if exchange.id in new and exchange.session_id and exchange.messages:
                    append_exchange(session, exchange)
        self._months |= months


def _insert_usage(session: Session, exchanges: Sequence[Exchange]) -> set[UUID]:
    """One statement for the whole batch; answers the ids that were not there before."""
    rows = [_usage_row(exchange) for exchange in exchanges]
    statement = insert(ApiUsage).on_conflict_do_nothing().returning(ApiUsage.request_id)
    return set(session.scalars(statement, rows))


def _usage_row(exchange: Exchange) -> dict[str, Any]:
    row = {name: getattr(exchange, name) for name in _USAGE_COLUMNS}
    return row | {"request_id": exchange.id, "created_at": exchange.created_at}
