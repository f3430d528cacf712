"""Declarative base; many rows as one JSON parameter.

The declarative base of every table, and the naming of its constraints.

Many rows as one parameter: a JSON array that PostgreSQL reads as a table (``json_to_recordset``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase

TIMESTAMPTZ = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    """The base of every table. Plain SQLAlchemy, so that the writer can use the tables without Flask."""

    # Constraint names are spelled out so that a migration can name what it changes.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def column_names(table: type[Base]) -> list[str]:
    """The names of a table's columns, in their order."""
    return [column.name for column in table.__table__.columns]


def rows_as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the value of such a parameter."""
    return orjson.dumps(rows).decode()


def recordset(table: type[Base], names: Iterable[str], parameter: str = "rows", more: Sequence[str] = ()) -> str:
    """The FROM item ``given``, read from the named parameter: these columns of a table, and ``more`` declared ones."""
    columns = table.__table__.c
    declared = [f"{name} {columns[name].type.compile(dialect=_DIALECT)}" for name in names]
    return f"json_to_recordset(CAST(:{parameter} AS json)) AS given({', '.join([*declared, *more])})"
