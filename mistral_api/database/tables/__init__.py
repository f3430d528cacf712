"""The tables in PostgreSQL. A module holds the tables that are always used together."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from sqlalchemy import MetaData, Table

from mistral_api.database.tables.base import Base


def all_metadata() -> MetaData:
    """Return the metadata with the tables of every module in this package."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    return Base.metadata


def all_tables() -> list[Table]:
    """Return every table of ours, each after those that its foreign keys refer to."""
    return all_metadata().sorted_tables


def table_names() -> list[str]:
    """Return the names of all tables of ours, in the same order, as plain strings."""
    return [str(table.name) for table in all_tables()]
