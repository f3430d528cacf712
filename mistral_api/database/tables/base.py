"""What all tables share: the declarative base, and many rows as one JSON parameter (``json_to_recordset``).

A statement that takes all its rows as one parameter costs one round trip, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson
from sqlalchemy import MetaData
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase

TIMESTAMPTZ = TIMESTAMP(timezone=True)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class Base(DeclarativeBase):
    """The base of every table. It is plain SQLAlchemy, so that the writer can use the tables without Flask."""

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


def column_names(table: type[Base]) -> list[str]:
    """Return the names of a table's columns, in their order."""
    return [column.name for column in table.__table__.columns]


def rows_as_json(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as the value of a parameter that :func:`recordset` reads."""
    return orjson.dumps(rows).decode()


def recordset(table: type[Base], names: Iterable[str], parameter: str = "rows", more: Sequence[str] = ()) -> str:
    """Return the FROM item ``new_rows``: the rows of a parameter, a JSON array, as a table.

    ``names`` are columns of ``table``, from which their types come; ``more`` are further columns as ``name type``.
    """
    columns = table.__table__.c
    declared = [f"{name} {columns[name].type.compile(dialect=_DIALECT)}" for name in names]
    return f"json_to_recordset(CAST(:{parameter} AS json)) AS new_rows({', '.join([*declared, *more])})"
